"""Phase E: what the trainer is given, which jobs there are, what the command writes, and how
failures are kept."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fly64lib import training
from fly64lib.design.study import StudyDesign, view_file
from fly64lib.training import (
    TrainingJob,
    build_training_jobs,
    execute_training_job,
    main,
    run_training_job,
)
from ptycho_torch import memmap_bridge, params
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.contract import read_scan, write_scan
from ptycho_torch.errors import DataContractError
from ptycho_torch.files import sha256_file
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.training.bundle import load_bundle

SMALL = TrainingConfig(
    max_epochs=1,
    thinnings=1,
    n_images=8,
    batch_size=4,
    threads=1,
    logger="none",
    checkpointing=False,
    model=ModelConfig(width=8, depth=2),
)


@pytest.fixture
def phases(tmp_path: Path, small_scan) -> tuple[Path, Path, Path]:
    """Phase C and D folders of real, small, simulated files for all three doses; and an artifact
    folder."""
    C, D, A = (tmp_path / name for name in ("C", "D", "A"))
    for dose in StudyDesign().doses:
        for split in ("train", "test"):
            scan = small_scan(dose=dose, seed=int(dose) % 97 + (split == "test"))
            for view in ("baseline", "dense", "sparse"):
                groups = (
                    None
                    if view == "baseline"
                    else np.array([[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]])
                )
                path = view_file(C, D, dose, view, split)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_scan(path, replace(scan, groups=groups))
    return C, D, A


def the_job(
    phases: tuple[Path, Path, Path], view: str = "baseline", dose: float = 1e3
) -> TrainingJob:
    return next(
        job for job in build_training_jobs(*phases) if job.view == view and job.dose == dose
    )


def cli(phases: tuple[Path, Path, Path], *more: str) -> list[str]:
    C, D, A = map(str, phases)
    return [
        "--phase-c-root",
        C,
        "--phase-d-root",
        D,
        "--artifact-root",
        A,
        "--max_epochs",
        "1",
        "--n_images",
        "8",
        "--batch_size",
        "4",
        "--accelerator",
        "cpu",
        "--logger",
        "none",
        "--disable_checkpointing",
        "--num-workers",
        "0",
        "--threads",
        "1",
        *more,
    ]


def manifest(phases: tuple[Path, Path, Path]) -> list[dict]:
    return json.loads((phases[2] / "training_manifest.json").read_text())["jobs"]


class Spy:
    """Stands in the trainer's place and keeps what it was given; only the call is looked at."""

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def __call__(
        self, train_data: RawDataTorch, test_data: RawDataTorch, config: TrainingConfig
    ) -> dict:
        self.calls.append((train_data, test_data, config))
        return {
            "final_loss": 0.5,
            "epochs": 1,
            "images": 8,
            "groups": 8,
            "bundle": Path("b"),
            "bundle_sha256": "0" * 64,
            "checkpoint": None,
            "history": [],
            "seconds": 0.0,
            "cpu_seconds": 0.0,
            "patterns_per_second": 1.0,
        }


def test_execute_training_job_delegates_to_pytorch_trainer(phases, monkeypatch):
    spy = Spy()
    monkeypatch.setattr("ptycho_torch.workflows.components.train_cdi_model_torch", spy)
    job = the_job(phases)
    result = execute_training_job(config=SMALL, job=job, log_path=job.log_path)
    ((train, test, config),) = spy.calls
    assert config is SMALL
    for raw, path in ((train, job.train_data_path), (test, job.test_data_path)):
        assert isinstance(raw, RawDataTorch)
        stored = read_scan(path)
        counts = raw.counts(np.arange(raw.n))
        assert torch.equal(
            counts, torch.from_numpy(np.rint(stored.diffraction.astype(np.float64) ** 2)).float()
        )
        assert counts.sum((1, 2)).mean() == pytest.approx(job.dose, rel=0.25)
        assert float(raw.probe.abs().square().sum()) == pytest.approx(job.dose, rel=0.25)
    assert not torch.equal(train.counts([0]), test.counts([0]))
    assert (
        result["status"] == "complete"
        and result["final_loss"] == 0.5
        and result["bundle_sha256"] == "0" * 64
    )


def test_run_training_job_invokes_runner(phases):
    seen = {}

    def runner(*, config, job, log_path):
        seen.update(
            config=config,
            job=job,
            log_path=log_path,
            legacy=dict(params.cfg),
            folder=job.artifact_dir.is_dir(),
        )
        return {"status": "complete"}

    job = the_job(phases, "dense", 1e4)
    result = run_training_job(job, runner, config=SMALL)
    assert (
        seen["job"] is job and seen["log_path"] == job.artifact_dir / "train.log" and seen["folder"]
    )
    assert seen["config"].model.gridsize == 2 and seen["config"].nphotons == 1e4
    assert (
        seen["legacy"]["gridsize"] == 2
        and seen["legacy"]["nphotons"] == 1e4
        and seen["legacy"]["N"] == 64
    )
    assert seen["legacy"]["train_data_file_path"] == str(job.train_data_path)
    assert result["config"] == seen["config"].to_dict()


def test_the_legacy_parameters_are_written_once_and_before_any_data_is_opened(phases, monkeypatch):
    order = []
    update, opened = training.update_legacy_dict, memmap_bridge.open_scan
    monkeypatch.setattr(
        training, "update_legacy_dict", lambda *a: (order.append("legacy"), update(*a))
    )
    monkeypatch.setattr(
        memmap_bridge, "open_scan", lambda *a, **k: (order.append("data"), opened(*a, **k))[1]
    )
    monkeypatch.setattr("ptycho_torch.workflows.components.train_cdi_model_torch", Spy())
    run_training_job(the_job(phases), config=SMALL)
    assert order == ["legacy", "data", "data"]


def test_run_training_job_dry_run(phases):
    def runner(**_):
        raise AssertionError("a dry run must not run anything")

    job, before = the_job(phases), dict(params.cfg)
    result = run_training_job(job, runner, config=SMALL, dry_run=True)
    assert result["status"] == "planned" and result["config"]["train_data_file"] == str(
        job.train_data_path
    )
    assert not job.artifact_dir.exists() and params.cfg == before


def test_build_training_jobs_matrix(phases):
    jobs = build_training_jobs(*phases)
    assert [(job.dose, job.view, job.gridsize) for job in jobs] == [
        (dose, view, gridsize)
        for dose in (1e3, 1e4, 1e5)
        for view, gridsize in (("baseline", 1), ("dense", 2), ("sparse", 2))
    ]
    assert jobs[1].artifact_dir == phases[2] / "dose_1000" / "dense" / "gs2"
    assert jobs[1].train_data_path == phases[1] / "dose_1000" / "dense" / "dense_train.npz"
    assert not phases[2].exists()


def test_a_missing_view_is_an_error_or_a_recorded_skip_as_the_user_asks(phases):
    view_file(phases[0], phases[1], 1e4, "sparse", "test").unlink()
    with pytest.raises(
        DataContractError, match=r"sparse_test\.npz.*fly64lib\.overlap.*--allow-missing-phase-d"
    ):
        build_training_jobs(*phases)
    skipped: list[dict] = []
    jobs = build_training_jobs(*phases, allow_missing_phase_d=True, skipped=skipped)
    assert len(jobs) == 8 and [(row["dose"], row["view"]) for row in skipped] == [(1e4, "sparse")]
    view_file(*phases[:2], 1e3, "baseline", "train").unlink()
    with pytest.raises(DataContractError, match=r"patched_train\.npz.*fly64lib\.generation"):
        build_training_jobs(*phases, allow_missing_phase_d=True)


def test_training_cli_invokes_real_runner(phases, capsys):
    assert main(cli(phases, "--dose", "1000", "--view", "baseline", "--gridsize", "1")) == 0
    (row,) = manifest(phases)
    folder = phases[2] / "dose_1000" / "baseline" / "gs1"
    assert row["status"] == "complete" and np.isfinite(row["final_loss"]) and row["images"] == 8
    assert row["bundle_sha256"] == sha256_file(folder / "bundle.pt")
    assert (
        not (folder / "model.ckpt").exists()
        and "epoch 1 of 1" in (folder / "train.log").read_text()
    )
    bundle = load_bundle(folder / "bundle.pt")
    assert bundle.config.model.gridsize == 1 and bundle.statistics["images"] == 8
    assert "complete  dose_1000 baseline gs1" in capsys.readouterr().out


def test_training_cli_filters_jobs(phases, monkeypatch, capsys):
    monkeypatch.setattr("ptycho_torch.workflows.components.train_cdi_model_torch", Spy())
    assert main(cli(phases, "--dose", "1000", "--dose", "100000", "--view", "dense")) == 0
    assert [(row["dose"], row["view"]) for row in manifest(phases)] == [
        (1e3, "dense"),
        (1e5, "dense"),
    ]
    assert main(cli(phases, "--view", "dense", "--gridsize", "1")) == 1
    assert "no job matches; there are: dose_1000/baseline/gs1" in capsys.readouterr().err


def test_training_cli_manifest_and_bridging(phases, monkeypatch):
    spy = Spy()
    monkeypatch.setattr("ptycho_torch.workflows.components.train_cdi_model_torch", spy)
    assert main(cli(phases, "--learning_rate", "0.001", "--seed", "7")) == 0
    rows = manifest(phases)
    assert len(rows) == len(spy.calls) == 9
    for row, (train, test, config) in zip(rows, spy.calls, strict=True):
        assert (
            row["config"] == config.to_dict() and config.learning_rate == 0.001 and config.seed == 7
        )
        assert (
            str(train.source) == config.train_data_file
            and str(test.source) == config.test_data_file
        )
        assert (train.groups is None) == (row["view"] == "baseline")
    assert json.loads((phases[2] / "skip_summary.json").read_text()) == {
        "phase": "E",
        "skipped": [],
    }


def test_a_second_command_keeps_the_rows_of_other_jobs_and_replaces_its_own(phases, monkeypatch):
    monkeypatch.setattr("ptycho_torch.workflows.components.train_cdi_model_torch", Spy())
    for more in (
        ("--view", "dense"),
        ("--view", "dense", "--objective", "supervised"),
        ("--view", "dense", "--seed", "9"),
    ):
        assert main(cli(phases, "--dose", "1000", *more)) == 0
    assert [(row["objective"], row["config"]["seed"]) for row in manifest(phases)] == [
        ("supervised", 0),
        ("poisson", 9),
    ]


def test_training_cli_dry_run(phases, capsys):
    assert main(cli(phases, "--dry-run")) == 0
    out = capsys.readouterr().out
    assert out.count("planned") == 9 and "planned  dose_10000 sparse gs2" in out
    assert not phases[2].exists()


def test_training_cli_records_a_failed_job_and_goes_on(phases, capsys):
    path = view_file(*phases[:2], 1e3, "dense", "train")
    path.write_bytes(path.read_bytes()[:2000])
    assert main(cli(phases, "--dose", "1000")) == 1
    rows = manifest(phases)
    assert [row["status"] for row in rows] == ["complete", "failed", "complete"]
    assert "dense_train.npz" in rows[1]["error"] and "Traceback" in Path(rows[1]["log"]).read_text()
    assert "failed  dose_1000 dense gs2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--max_epochs", "0"), "max_epochs=0: expected greater than or equal to 1"),
        (("--threads", "0"), "threads=0: expected greater than or equal to 1"),
        (("--learning-rate", "5"), "learning_rate=5.0: expected less than or equal to 1"),
        (("--dose", "1000.5"), "not a whole number of photons"),
    ],
)
def test_training_cli_refuses_bad_values_by_name(phases, capsys, option, message):
    try:
        code = main(cli(phases, *option))
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert message in said and not phases[2].exists()
