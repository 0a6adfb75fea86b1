"""Phases F and G on a small study: what is written, what is refused, and that the tables say the
truth."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fly64lib import comparison, reconstruction
from fly64lib.comparison import compare
from fly64lib.design import held_out_file, split_file, view_file
from fly64lib.reconstruction import MethodSettings, build_reconstruction_jobs, load_object
from ptycho_torch.data.contract import read_scan, write_scan
from ptycho_torch.errors import ConfigError, DataContractError

PROVENANCE = {
    "replicate": 0,
    "simulation_seed": 42,
    "provenance": {"simulation": "matched", "specimen": "siemens_star"},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, small_scan) -> tuple[Path, Path, Path]:
    """Phases C and D at 1e4 photons on a small scan (182 patterns of 32 px), and a folder for phase
    F."""
    root = tmp_path_factory.mktemp("study")
    C, D, F = (root / name for name in ("C", "D", "F"))
    scan = small_scan(dose=1e4, seed=1, N=32, across=13)
    scan = replace(scan, metadata={**scan.metadata, **PROVENANCE})
    fresh = small_scan(dose=1e4, seed=2, N=32, across=13)
    dense = np.arange(0, scan.n, 2)
    for path, part in (
        (split_file(C, 1e4, "test"), scan),
        (held_out_file(C, 1e4), replace(fresh, truth_patches=None)),
        (view_file(C, D, 1e4, "dense", "test"), scan.subset(dense)),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scan(path, part)
    return C, D, F


def cli(study: tuple[Path, Path, Path], *more: str) -> list[str]:
    C, D, F = map(str, study)
    return [
        "--phase-c-root",
        C,
        "--phase-d-root",
        D,
        "--artifact-root",
        F,
        "--dose",
        "10000",
        *more,
    ]


@pytest.fixture(scope="module")
def reconstructed(study: tuple[Path, Path, Path]) -> list[dict]:
    code = reconstruction.main(
        cli(
            study,
            "--view",
            "dense",
            "--view",
            "baseline",
            "--method",
            "classical",
            "--method",
            "flat",
            "--method",
            "truth",
            "--steps",
            "30",
        )
    )
    assert code == 0
    return json.loads((study[2] / "reconstruction_manifest.json").read_text())["jobs"]


def test_every_job_is_recorded_with_settings_times_and_the_hash_of_its_object(study, reconstructed):
    assert [(row["view"], row["method"], row["status"]) for row in reconstructed] == [
        (view, method, "complete")
        for view in ("dense", "baseline")
        for method in ("classical", "flat", "truth")
    ]
    row = reconstructed[0]
    assert row["settings"]["steps"] == 30 and row["cpu_seconds"] > 0 and row["peak_memory_mb"] > 0
    assert (
        load_object(Path(row["object"]).parent).shape
        == load_object(study[2] / "dose_10000/dense/truth").shape
    )
    assert json.loads((study[2] / "skip_summary.json").read_text()) == {"phase": "F", "skipped": []}


def test_an_object_that_is_not_what_its_result_says_is_refused(study, reconstructed, tmp_path):
    folder = study[2] / "dose_10000" / "dense" / "flat"
    for name in ("object.npz", "result.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "object.npz").write_bytes((folder / "object.npz").read_bytes()[:-1] + b"x")
    with pytest.raises(DataContractError, match=r"object\.npz is not what its result\.json says"):
        load_object(tmp_path)


def test_a_missing_view_bundle_or_unfit_condition_is_named(study, capsys):
    assert reconstruction.main(cli(study, "--view", "sparse", "--method", "flat")) == 2
    assert (
        "sparse_test.npz: no such file; run python -m fly64lib.overlap first"
        in capsys.readouterr().err
    )
    assert (
        reconstruction.main(
            cli(study, "--view", "sparse", "--method", "flat", "--allow-missing-phase-d")
        )
        == 1
    )
    assert "no job matches" in capsys.readouterr().err
    (job,) = build_reconstruction_jobs(*study, methods=("pinn",), doses=(1e4,), views=("dense",))
    with pytest.raises(ConfigError, match="pinn needs the folder of its training: --training-root"):
        MethodSettings().method(job)
    with pytest.raises(
        DataContractError, match=r"gs2/bundle\.pt: no such bundle.*--objective poisson"
    ):
        MethodSettings(training_root=str(study[2])).method(job)
    with pytest.raises(
        ConfigError, match="pinn takes the probe as known; probe='refine' is for lsqml"
    ):
        MethodSettings(probe="refine").method(job)


def test_a_failed_method_is_recorded_and_the_others_go_on(study, tmp_path, capsys):
    code = reconstruction.main(
        [
            "--phase-c-root",
            str(study[0]),
            "--phase-d-root",
            str(study[1]),
            "--artifact-root",
            str(tmp_path),
            "--dose",
            "10000",
            "--view",
            "dense",
            "--method",
            "supervised",
            "--method",
            "flat",
            "--training-root",
            str(tmp_path),
        ]
    )
    rows = json.loads((tmp_path / "reconstruction_manifest.json").read_text())["jobs"]
    assert (
        code == 1
        and [row["status"] for row in rows] == ["failed", "complete"]
        and "bundle.pt" in rows[0]["error"]
    )


def test_a_dry_run_writes_nothing(study, tmp_path, capsys):
    assert (
        reconstruction.main(
            [
                "--phase-c-root",
                str(study[0]),
                "--phase-d-root",
                str(study[1]),
                "--artifact-root",
                str(tmp_path / "F"),
                "--dose",
                "10000",
                "--view",
                "dense",
                "--method",
                "lsqml",
                "--dry-run",
            ]
        )
        == 0
    )
    assert (
        "planned  dose_10000 dense lsqml" in capsys.readouterr().out
        and not (tmp_path / "F").exists()
    )


def test_the_comparison_ranks_flat_below_a_method_below_the_truth_and_bounds_it(
    study, reconstructed, tmp_path, capsys
):
    assert (
        comparison.main(
            [
                "--phase-c-root",
                str(study[0]),
                "--phase-d-root",
                str(study[1]),
                "--reconstruction-root",
                str(study[2]),
                "--output-root",
                str(tmp_path),
                "--dose",
                "10000",
                "--view",
                "dense",
            ]
        )
        == 0
    )
    rows = {
        row["method"]: row for row in json.loads((tmp_path / "comparison.json").read_text())["rows"]
    }
    assert set(rows) == {"classical", "flat", "truth", "cramer_rao", "bayesian"}
    flat, classical, truth = (rows[name] for name in ("flat", "classical", "truth"))
    assert (
        flat["phase_psnr"] + 3 < classical["phase_psnr"] and truth["phase_psnr"] is None
    )  # infinite, null in JSON
    assert (
        flat["phase_psnr_skill"] == 0
        and flat["phase_ms_ssim_skill"] == 0
        and truth["phase_ms_ssim_skill"] == 1
    )
    assert truth["deviance_held_out"] < classical["deviance_held_out"] < flat["deviance_held_out"]
    assert (
        classical["deviance"] < classical["deviance_held_out"]
    )  # what was fitted fits better than what was not
    assert rows["bayesian"]["phase_psnr"] > rows["cramer_rao"]["phase_psnr"]
    assert all(
        row["photons_per_pixel"] == pytest.approx(flat["photons_per_pixel"], rel=0.01)
        for row in rows.values()
    )
    with (tmp_path / "comparison.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == list(rows)
    folder = tmp_path / "dose_10000" / "dense"
    assert all(
        (folder / name).stat().st_size > 5000 for name in ("objects.png", "frc.png", "spectrum.png")
    )


def test_a_comparison_needs_reconstructions_and_a_true_object(study, reconstructed, tmp_path):
    with pytest.raises(
        DataContractError, match="no reconstructions; run python -m fly64lib.reconstruction first"
    ):
        compare(*study[:2], tmp_path, 1e4, "dense")
    measured = tmp_path / "C"
    for path in (split_file(study[0], 1e4, "test"), held_out_file(study[0], 1e4)):
        target = measured / path.relative_to(study[0])
        target.parent.mkdir(parents=True, exist_ok=True)
        scan = read_scan(path)
        write_scan(
            target, replace(scan, metadata={**scan.metadata, "object_kind": "reconstruction"})
        )
    with pytest.raises(DataContractError, match="its object is not the truth.*simulated data only"):
        compare(measured, study[1], study[2], 1e4, "baseline")
