"""What a study will take: counted by the design's own code, times rates, and nothing is written."""

import re
from collections import Counter
from pathlib import Path

import pytest

from fly64lib.cli.main import main
from fly64lib.design.study import SPLITS
from fly64lib.generation import generate_datasets
from fly64lib.overlap import generate_overlap_views
from fly64lib.sweep.estimate import START, Rate, Rates, estimate, text_of
from fly64lib.sweep.profile import Profile, load_profile
from fly64lib.sweep.work import Design, jobs_of
from ptycho_torch.errors import DataContractError

SMALL = ["simulation=matched", "scan_step=4", "doses=1000", "views=baseline,sparse"]
SMALL += ["overlaps=0.5", "controls=sparse_spread", "control_methods=pinn"]


@pytest.fixture(scope="module")
def small() -> Profile:
    return load_profile("smoke", SMALL)


def test_images_are_counted_as_the_phases_write_them(small: Profile, tmp_path: Path) -> None:
    made = generate_datasets(tmp_path / "C", small.study)["files"]
    folders = tmp_path / "C", tmp_path / "D", tmp_path / "overlap"
    views = generate_overlap_views(*folders, small.study)["files"]
    written = {
        (row.get("view", "baseline"), row["split"]): row["images"]
        for row in (*made.values(), *views.values())
        if row["split"] in SPLITS
    }
    counted = Design.of(small.study).seen
    assert {key: one.images for key, one in counted.items()} == written
    assert counted["sparse", "test"].groups * 4 == counted["sparse", "test"].images


def test_the_jobs_are_those_of_the_notebooks(small: Profile) -> None:
    several = load_profile("smoke", [*SMALL, "doses=1e3,1e4", "replicates=3"])
    asked = Counter()
    for name in several.notebooks():
        *place, file = Path(name).with_suffix("").parts
        asked[place[-1] if len(place) == 4 else "", file] += 1
    assert {(job.view, job.name): job.count for job in jobs_of(several)} == asked


def rates_of(profile: Profile, seconds: float, without: str = "") -> Rates:
    """Rates by which every part of every job takes so many seconds, and 100 MB."""
    kinds = {part.kind for job in jobs_of(profile) for part in job.parts} - {without}
    one = {quantity: Rate({"job": 1.0}, {"job": 1.0}, 3, 0.1) for quantity in ("mb", "files")}
    one["cpu_s"] = Rate({"job": seconds}, {"job": 1.0}, 3, 0.1)
    one["peak_mb"] = Rate({"job": 100.0}, {"job": 1.0}, 3, 0.1)
    table = {(kind, name): rate for kind in kinds for name, rate in one.items()}
    return Rates(["somewhere"], table | {(START, "cpu_s"): Rate({"job": 0.0}, {"job": 1.0}, 3, 0)})


def test_a_study_is_the_sum_of_its_jobs(small: Profile) -> None:
    found = estimate(small, rates_of(small, 60.0))
    parts = sum(job.count * len(job.parts) for job in jobs_of(small))
    total = found.total
    assert total.cpu_s == pytest.approx(60 * parts) and total.jobs == len(small.notebooks())
    assert total.error_s == pytest.approx(0.1 * total.cpu_s)
    assert (total.disk_mb, total.files) == (total.jobs, total.jobs) and total.peak_mb == 100
    # generate, overlap, train, the shared reconstruction of controls, compare, report
    assert found.chain_s == pytest.approx(60 * 7) and not found.missing
    assert found.wall_s(1) == (total.cpu_s, total.cpu_s)
    assert found.wall_s(1000)[0] == found.chain_s < found.wall_s(1000)[1] < 1.2 * found.chain_s


def test_what_was_not_measured_is_named_and_not_made_up(small: Profile) -> None:
    found = estimate(small, rates_of(small, 60.0, without="method lsqml"))
    assert found.missing == {"method lsqml": ["CPU time"]}
    assert [row.kind for row in found.rows if row.lacking] == ["reconstruct lsqml"]
    text = text_of(found, small, 2, ["somewhere"])
    assert "not counted, for no finished study had it: method lsqml (CPU time)" in text
    assert "GPU hours: 0" in text and text.endswith("somewhere")
    on_gpu = load_profile("smoke", [*SMALL, "accelerator=auto"])
    of_gpu, of_settings = estimate(on_gpu, rates_of(small, 1.0)).notes
    assert of_gpu.startswith("GPU hours: not measured. accelerator=auto")
    assert of_settings.endswith("the cost of training.start")
    sought = load_profile("smoke", [*SMALL, "known_probe=False"])
    (said,) = set(estimate(sought, rates_of(small, 1.0)).notes) - set(found.notes)
    assert said.startswith("known_probe=False: recovering probes was not measured")


def test_a_job_larger_than_any_measured_is_marked(small: Profile) -> None:
    rates = rates_of(small, 60.0)
    (train,) = {part.amounts["step_mpx"] for part in _parts(small, "train", "baseline")}
    measured = Rate({"step_mpx": 5.0}, {"step_mpx": train / 4}, 3, 0.1)
    rates.table["train poisson", "cpu_s"] = measured
    found = estimate(small, rates)
    rows = {row.kind: row for row in found.rows}
    assert rows["train poisson"].beyond == pytest.approx(4, rel=0.05)
    assert rows["report"].beyond == 1
    assert re.search(r"train poisson .* 4\.\d\*$", text_of(found, small, 1, []), re.M)


def _parts(profile: Profile, phase: str, view: str) -> list:
    return [job.parts[0] for job in jobs_of(profile) if (job.phase, job.view) == (phase, view)]


def test_more_steps_and_epochs_cost_more(small: Profile) -> None:
    (one,) = _parts(small, "train", "baseline")
    (more,) = _parts(load_profile("smoke", [*SMALL, "train_steps=30"]), "train", "baseline")
    assert more.amounts["step_mpx"] == pytest.approx(2 * one.amounts["step_mpx"])  # 16, 32 steps

    def epochs(*settings: str) -> float:
        jobs = jobs_of(load_profile("smoke", [*SMALL, *settings]))
        kinds = {part.kind: part.amounts for job in jobs for part in job.parts}
        return kinds["method lsqml"]["patch_mpx"]

    assert epochs("lsqml_epochs=20") == pytest.approx(4 * epochs())


def test_the_command_prints_a_table_with_its_source_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--profile", "quick", "--estimate", "--cores", "2"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^total +59 +>?\d", said, re.M) and "wall time on 2 cores" in said
    assert re.search(r"^reconstruct +18 +\d", said, re.M) and "rates: measured on" in said
    assert list(tmp_path.iterdir()) == []


def test_a_run_needs_a_folder_and_a_table_its_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["run", "--profile", "smoke"]) == 2
    assert "--output: the study needs a folder" in capsys.readouterr().err
    (tmp_path / "rates.csv").write_text("# here\nkind,rate\ntrain,1\n")
    with pytest.raises(DataContractError, match="its columns are .*'kind', 'rate'"):
        Rates.read(tmp_path / "rates.csv")
