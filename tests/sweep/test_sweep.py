"""The sweep: which jobs a profile asks for, what a change reruns, and what a kill leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import nbformat
import pytest
from run_notebook import CLIENT
from small_scan import small_scan
from toy_study import write_toy_notebooks

from fly64lib.cli.main import main
from fly64lib.design.registries import METHODS
from fly64lib.notebook.code_hash import source_files
from fly64lib.notebook.paths import notebook
from fly64lib.sweep import control
from fly64lib.sweep.control import alive
from fly64lib.sweep.folder import SweepFolder, driver, prepared, status
from fly64lib.sweep.profile import Profile, load_profile, profile_names
from ptycho_torch.data.contract import write_scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import from_dict, to_dict

# One condition: generate, overlap, train, two reconstructions, compare, report.
TOY = [
    f"--set={setting}"
    for setting in (
        "views=baseline",
        "controls=()",
        "control_methods=()",
        "methods=pinn,lsqml",
        "scan_step=4",
        "doses=10000",
    )
]
TOY_JOBS = {
    "generate",
    "overlap",
    "train baseline poisson",
    "reconstruct pinn",
    "reconstruct lsqml",
    "compare",
    "report",
}


def toy_command(folder: Path, notebooks: Path, *more: str) -> list[str]:
    return [
        "run",
        "--profile",
        "smoke",
        "--output",
        str(folder),
        "--cores",
        "2",
        "--notebooks",
        str(notebooks),
        *TOY,
        *more,
    ]


def asked(folder: Path, profile: str, **others: object) -> SweepFolder:
    """What `fly64 run` asks for, on one core."""
    given = {"settings": load_profile(profile), "cores": 1} | others
    return SweepFolder(folder=folder, profile=profile, **given)


def jobs_that_ran(folder: Path) -> list[str]:
    return (folder / "ran.log").read_text().splitlines()


def results(folder: Path) -> dict[str, bytes]:
    """Content of every result of a study, by its path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in (folder / "replicate_0").rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, bytes]]:
    """A finished toy study, its notebooks, and the results that it had at first."""
    root = tmp_path_factory.mktemp("sweep")
    notebooks = write_toy_notebooks(root / "notebooks")
    assert main(toy_command(root / "study", notebooks)) == 0
    return root / "study", notebooks, results(root / "study")


@pytest.fixture(scope="module")
def planned(served: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """`planned(profile, *settings, cores=1)`: what Snakemake would do from nothing, asked once, in
    a forked process."""

    @cache
    def said(profile: str, *settings: str, cores: int = 1) -> str:
        folder = tmp_path_factory.mktemp("planned") / "study"
        study = prepared(
            asked(folder, profile, settings=load_profile(profile, settings), cores=cores)
        )
        study.write()
        command = [*CLIENT, *control.snakemake(study)[1:], "--dry-run", "--printshellcmds"]
        text = {"capture_output": True, "text": True, "check": True}
        return subprocess.run(command, env=served, **text).stdout

    return said


def times_of_writing(folder: Path) -> dict[Path, int]:
    """When each result and each executed notebook was written, in nanoseconds."""
    every = [*folder.rglob("*.ipynb"), *(folder / "replicate_0").rglob("*")]
    return {path: path.stat().st_mtime_ns for path in every if path.is_file()}


def commands_of(said: str) -> list[str]:
    return [line for line in said.splitlines() if "fly64lib.cli.main notebook" in line]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("profile", "jobs"),
    [
        (
            "smoke",
            {
                "generate": 1,
                "overlap": 1,
                "train": 2,
                "reconstruct": 2,
                "reconstruct_iterative": 2,
                "compare": 2,
                "report": 1,
                "all": 1,
            },
        ),
        (
            "quick",
            {
                "generate": 2,
                "overlap": 2,
                "train": 18,
                "reconstruct": 18,
                "compare": 18,
                "report": 1,
                "all": 1,
            },
        ),
        (
            "full",
            {
                "generate": 3,
                "overlap": 3,
                "train": 420,
                "reconstruct": 210,
                "reconstruct_iterative": 420,
                "reconstruct_controls": 21,
                "compare": 210,
                "compare_controls": 21,
                "report": 1,
                "all": 1,
            },
        ),
    ],
)
def test_a_profile_asks_for_every_condition_and_method_once(
    planned: Callable[..., str], profile: str, jobs: dict[str, int]
) -> None:
    said = planned(profile)
    counted = {
        name: int(number)
        for name, number in re.findall(r"^(\w+) +(\d+)$", said, re.MULTILINE)
        if name != "total"
    }
    assert counted == jobs
    assert len(load_profile(profile).notebooks()) == sum(jobs.values()) - 1


@pytest.mark.slow
def test_a_refined_method_uses_its_bases_network_and_the_shipped_one_is_not_trained(
    planned: Callable[..., str],
) -> None:
    """The condition's own for `pinn` and `pinn+refine` together."""
    methods = ["methods=pinn,pinn+refine,pinn-sim+refine", "training.width=32"]
    profile = load_profile("smoke", methods)
    said = planned("smoke", *methods)
    commands = commands_of(said)
    trainings = [
        line for line in commands if "/train_gs" in line.split(" --timeout-s")[0]
    ]  # baseline and sparse, once each
    assert len(trainings) == 2
    for line in trainings:
        found = json.loads(re.search(r"-p training '(.+?)'", line)[1])
        assert found == {"steps": 10, "n_images": 40, "width": 32, "objective": "poisson"}
    rules = re.findall(r"^rule reconstruct:\n    input: (.+)$", said, re.MULTILINE)
    for view, gridsize in (("baseline", 1), ("sparse", 2)):
        (needed,) = (line for line in rules if f"/{view}/" in line)
        assert f"phase_e/dose_10000/{view}/gs{gridsize}/bundle.pt" in needed
    notebooks = profile.notebooks()
    assert len(notebooks) == len(set(notebooks)) == len(commands)


@pytest.mark.slow
def test_the_number_of_cores_changes_no_job(planned: Callable[..., str]) -> None:
    full = commands_of(planned("full"))
    assert len(full) == 1309 and "OMP_NUM_THREADS=4" in full[0]  # of one core
    few, many = (commands_of(planned("smoke", "threads=4", cores=cores)) for cores in (1, 16))
    assert len(few) == 11 and "OMP_NUM_THREADS=4" in few[0]
    assert sorted(few) == sorted(many)


def test_every_profile_is_within_its_limits() -> None:
    assert profile_names() == ["full", "laptop", "quick", "smoke"]
    assert len(load_profile("smoke").notebooks()) <= 12
    full = load_profile("full")
    assert (full.replicates, full.study.scan_step, full.training["n_images"]) == (3, 1, None)


@pytest.mark.slow
def test_a_finished_study_has_its_report_and_runs_nothing_twice(
    finished: tuple[Path, Path, dict[str, bytes]],
) -> None:
    study, notebooks, _ = finished
    assert set(jobs_that_ran(study)) == TOY_JOBS and len(jobs_that_ran(study)) == len(TOY_JOBS)
    assert (study / "index.html").is_file()
    written = times_of_writing(study)
    assert len(written) > len(TOY_JOBS)
    assert main(toy_command(study, notebooks)) == 0
    assert len(jobs_that_ran(study)) == len(TOY_JOBS) and times_of_writing(study) == written
    first, again = [
        json.loads(line) for line in (study / "logs" / "runs.jsonl").read_text().splitlines()
    ]
    assert first["exit_code"] == again["exit_code"] == 0
    assert min(first["cpu_s"], again["cpu_s"]) > 0
    states = status(SweepFolder.of(study), working=False)
    assert [len(names) for names in states.values()] == [len(TOY_JOBS), 0, 0, 0]


@pytest.mark.slow
def test_a_changed_training_reruns_what_depends_on_it_and_nothing_else(
    finished: tuple[Path, Path, dict[str, bytes]], capsys: pytest.CaptureFixture
) -> None:
    study, notebooks, _ = finished
    before = len(jobs_that_ran(study))
    assert main(toy_command(study, notebooks, "--set=train_steps=11")) == 2
    assert "training.steps 10 there, 11 asked" in capsys.readouterr().err
    assert main(toy_command(study, notebooks, "--set=train_steps=11", "--update")) == 0
    assert sorted(jobs_that_ran(study)[before:]) == [
        "compare",
        "reconstruct pinn",
        "report",
        "train baseline poisson",
    ]


@pytest.mark.slow
def test_a_study_of_recovered_probes_says_so_to_its_notebooks(
    planned: Callable[..., str],
) -> None:
    said = {known: planned("smoke", *known) for known in ((), ("known_probe=False",))}
    for known, text in said.items():
        commands = commands_of(text)
        trained = [line for line in commands if "/train_" in line.split(" --")[0]]
        reconstructed = [line for line in commands if "/reconstruct" in line.split(" --")[0]]
        compared = [line for line in commands if "/compare" in line.split(" --")[0]]
        assert len(reconstructed) >= 2 and len(compared) == 2
        assert len(trained) >= 2
        assert {"-p known_probe False" in line for line in trained} == {bool(known)}
        assert {"-p probe recovered" in line for line in reconstructed} == {bool(known)}
        assert {"-p gauge unknown_probe" in line for line in compared} == {bool(known)}


@pytest.mark.slow
def test_after_a_kill_no_finished_job_reruns_and_the_results_are_the_same(
    finished: tuple[Path, Path, dict[str, bytes]], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    notebooks = write_toy_notebooks(tmp_path / "notebooks", train_seconds=6)
    killed, undisturbed = tmp_path / "killed", finished[2]
    first = subprocess.Popen(
        [sys.executable, "-m", "fly64lib.cli.main", *toy_command(killed, notebooks)],
        stderr=subprocess.DEVNULL,
    )
    ends = time.monotonic() + 300
    while "train baseline poisson" not in (
        jobs_that_ran(killed) if (killed / "ran.log").is_file() else []
    ):
        assert first.poll() is None and time.monotonic() < ends
        time.sleep(0.1)
    os.kill(first.pid, signal.SIGKILL)  # Snakemake and the training's kernel live on
    first.wait()
    done = jobs_that_ran(killed)
    study = SweepFolder.of(killed)
    assert alive(study) and driver(study) is None
    assert main(["status", str(killed)]) == 0
    assert "nobody runs it, but" in capsys.readouterr().out
    assert main(["resume", str(killed)]) == 0
    again = jobs_that_ran(killed)[len(done) :]
    assert not alive(study)
    finished_before = set(done) - {
        "train baseline poisson",
        "reconstruct lsqml",
    }  # these two may have been running
    assert not finished_before & set(again) and set(done) | set(again) == TOY_JOBS
    assert results(killed) == undisturbed


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["trainings.steps=3"],
            "unknown parameter 'trainings' of Profile; did you mean 'training'",
        ),
        (["training.stepz=3"], "unknown parameter 'stepz' of a training; did you mean 'steps'"),
        (["train_steps=many"], "steps='many': expected a valid integer"),
        (["lsqml_epochs=0"], "epochs=0: expected greater than or equal to 1"),
        (["settings.lsqml.epoch=5"], "'epoch' of LSQML; did you mean 'epochs'"),
        (["settings.lsqm.epochs=5"], "method='lsqm' is not known; did you mean 'lsqml'"),
        (["training.steps"], "expected key=value"),
        (["methods=pinn,fft"], "method='fft' is not known"),
        (["doses=()"], "at least one"),
        (["control_methods=pinn", "controls=dense_spread"], "add baseline to views"),
        (["scan_step=0"], "scan_step=0: expected greater than or equal to 1"),
    ],
)
def test_a_setting_that_the_profile_does_not_have_is_refused(
    settings: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_profile("quick", settings)


def test_a_base_file_is_found_from_the_study_and_brings_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scan(tmp_path / "mine.npz", small_scan(1e4, N=32))
    monkeypatch.chdir(tmp_path)
    settings = load_profile("smoke", ["base_npz=mine.npz"])
    about = {"folder": "study", "profile": "smoke", "cores": 1}
    study = prepared(SweepFolder(settings=settings, **about))
    assert study.settings.study.base_npz == str(tmp_path / "mine.npz")
    assert study.settings.study.N == 32


def test_settings_are_read_as_one_writes_them() -> None:
    given = ["doses=1000,1e4", "views=baseline,dense", "train_images=None", "limits=none"]
    given += ['training={"width": 32}', "batch_size=16", "classical_steps=40"]
    found = load_profile("quick", given)
    assert (found.doses, found.views, found.limits) == ((1000, 1e4), ("baseline", "dense"), "none")
    training = {"start": "shipped", "steps": 10, "thinnings": 2, "learning_rate": 5e-4}
    assert found.training == training | {"n_images": None, "width": 32, "batch_size": 16}
    assert found.settings == {"lsqml-fine": {"epochs": 30}, "classical": {"steps": 40}}
    assert load_profile("quick", ["doses=1000"]).doses == (1000,)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="holds no study"):
        prepared(asked(tmp_path / "mine", "smoke"))
    prepared(asked(tmp_path / "study", "smoke")).write()
    with pytest.raises(ConfigError, match="holds a study of profile smoke, asked is quick"):
        prepared(asked(tmp_path / "study", "quick"), update=True)
    (tmp_path / "study" / "study.json").write_text('{"profile": "smoke", "settings": {"doze": 1}}')
    with pytest.raises(ConfigError, match="not a study's record, or of another version"):
        SweepFolder.of(tmp_path / "study")


def test_the_hash_of_a_notebook_covers_the_code_that_it_reaches_and_no_other() -> None:
    def reached(name: str, *entries: Path) -> set[str]:
        cells = nbformat.read(notebook(name), as_version=4).cells
        code = "\n\n".join(cell.source for cell in cells if cell.cell_type == "code")
        return {path.name for path in source_files(code, entries)}

    assert "model.py" in reached("train") and "report.py" not in reached("train")
    others = {"comparison.py", "training.py"}
    assert "views.py" in reached("overlap") and not others & reached("overlap")
    names = ("generate", "overlap", "train", "reconstruct", "compare")
    assert "cli" not in {path.parent.name for path in source_files("import fly64lib.training")}
    methods = {"classical.py", "penalised_fit.py", "ptychi.py", "ptychi_worker.py", "learned.py"}
    assert not methods & set().union(*map(reached, names))  # each job reaches those that it uses
    with_method = reached("reconstruct", METHODS.file("lsqml"))
    assert methods & with_method == {"ptychi.py", "ptychi_worker.py"}  # one starts the other


def test_profiles_say_their_settings_in_full() -> None:
    quick = load_profile("quick")
    assert from_dict(Profile, to_dict(quick)) == quick
