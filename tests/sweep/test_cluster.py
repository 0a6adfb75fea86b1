"""Jobs of a cluster: which are submitted together, which again, and what their options are."""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from run_notebook import CLIENT, fork_servers_environment
from snakemake.output_index import OutputIndex
from toy_study import write_toy_notebooks

from fly64lib.cli.main import main
from fly64lib.sweep.control import how
from fly64lib.sweep.folder import SweepFolder
from fly64lib.sweep.outputs import find_outputs_by_ending
from fly64lib.sweep.profile import load_profile
from ptycho_torch.errors import ConfigError

TOY = ["views=baseline", "controls=()", "control_methods=()", "methods=pinn,lsqml"]
# Loses the first job: it ends without having run, as when its node goes down. What its jobs start
# is forked: fresh imports of Snakemake and kernels would be most of a job.
_QSUB = """#!/bin/bash
echo "$@" >> {root}/asked
id=$RANDOM.standin
if [ ! -e {root}/lost ] && grep -q '"rule": "{lost}"' "${{@: -1}}"; then
  touch {root}/lost; echo 271 > {root}/$id; echo $id; exit
fi
sed 's#{python} -m snakemake#{client} -m snakemake#' "${{@: -1}}" > {root}/$id.sh
{environment}
(bash {root}/$id.sh > {root}/$id.log 2>&1; echo $? > {root}/$id) > /dev/null 2>&1 &
echo $id"""
_QSTAT = """#!/bin/bash
id="${{@: -1}}"
state='"job_state": "R"'
if [ -s {root}/$id ]; then state='"job_state": "F", "Exit_status": '$(cat {root}/$id); fi
echo '{{"Jobs": {{"'$id'": {{'$state'}}}}}}'"""


def study(folder: Path, **given: object) -> SweepFolder:
    asked = {"folder": folder, "profile": "smoke", "settings": load_profile("smoke"), "cores": 4}
    return SweepFolder(**asked | given)


def after(options: list[str], name: str) -> str:
    return options[options.index(name) + 1]


def test_lost_jobs_are_submitted_again_by_one_of_the_two_and_only_on_a_cluster(
    tmp_path: Path,
) -> None:
    slurm = how(study(tmp_path, executor="slurm"))
    assert after(slurm, "--retries") == "2" and "--slurm-no-requeue" in slurm
    assert after(how(study(tmp_path, executor="pbs", retries=0)), "--retries") == "0"
    own = how(study(tmp_path, executor="slurm", options=("--slurm-requeue",)))
    assert "--slurm-no-requeue" not in own and own[-1] == "--slurm-requeue"
    assert "--retries" not in how(study(tmp_path))


def test_conditions_share_a_cluster_job_where_that_is_asked_for(tmp_path: Path) -> None:
    options = how(study(tmp_path, executor="slurm", group=8))
    place = options.index("--groups")
    rules = {"train", "reconstruct", "reconstruct_iterative", "compare"}
    assert {*options[place + 1 : place + 5]} == {f"{rule}=condition" for rule in rules}
    assert options[place + 5 : place + 7] == ["--group-components", "condition=8"]
    assert "--groups" not in how(study(tmp_path, executor="slurm"))
    command = ["run", "--profile", "smoke", "--output", str(tmp_path / "study"), "--group", "2"]
    assert main(command) == 2 and not (tmp_path / "study").exists()
    with pytest.raises(ConfigError, match="retries=-1"):
        study(tmp_path, retries=-1)


class Product(str):
    """An output with a wildcard {x} in it, that stands for letters."""

    def constant_prefix(self) -> str:
        return self.partition("{x}")[0]

    def constant_suffix(self) -> str:
        return self.rpartition("{x}")[2]

    def match(self, file: str) -> bool:
        inner = file.removeprefix(self.constant_prefix()).removesuffix(self.constant_suffix())
        return file.startswith(self.constant_prefix()) and inner.isalpha()


class Rule:
    def __init__(self, *products: str) -> None:
        self.own = [Product(one) for one in products]

    def products(self) -> list[Product]:
        return self.own

    def is_producer(self, file: str) -> bool:
        return any(one.match(file) or one == file for one in self.own)


def test_the_rule_of_a_file_is_found_as_snakemake_finds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = [Rule("r_{x}/a.npz", "r_{x}/b.npz"), Rule("r_{x}/b.npz"), Rule("n/r_{x}/a.npz")]
    files = ("r_q/a.npz", "r_q/b.npz", "r_1/a.npz", "n/r_q/a.npz", "r_q/c.npz", "q")
    first = OutputIndex(rules)
    expected = [first.match_producers(file) for file in files]
    for name in ("__init__", "match_producers"):  # put back at the end
        monkeypatch.setattr(OutputIndex, name, getattr(OutputIndex, name))
    find_outputs_by_ending()
    index = OutputIndex(rules)
    assert [index.match_producers(file) for file in files] == expected
    assert expected[0] == {rules[0]} and expected[1] == {*rules[:2]} and expected[5] == set()


@pytest.fixture(scope="module")
def on_nodes() -> Iterator[dict[str, str]]:
    """What the stand-in's jobs have in their environment: a fork server, and the threads that
    Snakemake gives to a job, for other ones would forbid a fork."""
    with fork_servers_environment() as environment:
        yield environment | dict.fromkeys(("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def run_on_stand_ins(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_nodes: dict[str, str],
    lost: str,
    broken: str,
    *more: str,
) -> tuple[int, list[str], list[str]]:
    """A toy study on a PBS that loses the first job of a rule, and whose notebook `broken` fails:
    exit code, submissions, and which notebooks ran."""
    folder.mkdir()
    about = {"root": folder, "lost": lost, "python": sys.executable, "client": shlex.join(CLIENT)}
    given = {name: value for name, value in on_nodes.items() if os.environ.get(name) != value}
    exported = (f"export {name}={shlex.quote(value)}" for name, value in given.items())
    about["environment"] = "\n".join(exported)
    for name, text in (("qsub", _QSUB), ("qstat", _QSTAT), ("qdel", "#!/bin/bash")):
        (folder / name).write_text(text.format(**about))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    notebooks = write_toy_notebooks(folder / "notebooks")
    if broken:
        path = notebooks / f"{broken}.ipynb"
        path.write_text(path.read_text().replace("results: ", "nothing: "))
    asked = ["run", "--profile", "smoke", "--output", str(folder / "study"), "--cores", "4"]
    asked += ["--notebooks", str(notebooks), "--executor", "pbs", *more]
    soon = ("--", "--seconds-between-status-checks", "1")  # by default ten
    code = main([*asked, *(f"--set={setting}" for setting in TOY), *soon])
    ran = (folder / "study" / "ran.log").read_text().splitlines()
    return code, (folder / "asked").read_text().splitlines(), ran


@pytest.mark.slow
def test_a_lost_job_runs_again_and_a_notebook_that_failed_does_not(
    on_nodes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, asked, ran = run_on_stand_ins(tmp_path / "a", monkeypatch, on_nodes, "overlap", "compare")
    assert code == 1 and ran.count("overlap") == ran.count("compare") == 1
    # generate, overlap twice, train, two reconstructions, compare and its two vain retries
    assert len(asked) == 9 and "report" not in ran
    name = SweepFolder.of(tmp_path / "a" / "study").name
    for line in asked:  # the profile's resources
        assert "select=1:ncpus=1:mem=3000mb" in line and "walltime=00:16:00" in line
        assert f"-N {name}" in line


@pytest.mark.slow
def test_the_jobs_of_a_condition_are_one_submission(
    on_nodes: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--group", "2", "--set=doses=1e3,1e4,1e5")
    code, asked, ran = run_on_stand_ins(tmp_path / "a", monkeypatch, on_nodes, "none", "", *more)
    assert code == 0 and ran.count("compare") == 3
    assert len(asked) == 5  # generate, overlap, two groups of two and one condition, report
    assert (tmp_path / "a" / "study" / "notebooks" / "report.ipynb").is_file()
    pages = {path.with_suffix(".ipynb").name for path in (tmp_path / "a").rglob("train_*.html")}
    assert pages == {"train_gs1.ipynb"}  # made by the notebook's own job
