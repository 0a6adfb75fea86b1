"""Phases F and G on a small study: what is written, what is refused, and that the tables say the
truth."""

import csv
import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fly64lib import comparison, reconstruction, training
from fly64lib.comparison import compare
from fly64lib.design.study import SPLITS, held_out_file, split_file, view_file
from fly64lib.evaluation.gauge import scored_region
from fly64lib.reconstruction import (
    MethodSettings,
    build_reconstruction_jobs,
    load_object,
    load_with_probe,
)
from fly64lib.simulation.overlap_measures import fluence_map
from ptycho_torch.data.contract import read_scan, write_scan
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.training.bundle import load_bundle

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


def run(command, study: tuple[Path, Path, Path], output: Path, *more: str, **options: str) -> int:
    """The exit code of a phase's command at 1e4 photons; `options` as on the command line."""
    C, D, F = study
    roots = {"phase-c-root": C, "phase-d-root": D, "dose": "10000"}
    if command is comparison:
        roots |= {"reconstruction-root": F, "output-root": output}
    else:
        roots["artifact-root"] = output
    arguments = [part for name, value in (roots | options).items() for part in (f"--{name}", value)]
    return command.main([*map(str, arguments), *more])


def named(option: str, *values: str) -> list[str]:
    return [part for value in values for part in (f"--{option}", value)]


def rows_of(folder: Path) -> list[dict]:
    return json.loads((folder / "reconstruction_manifest.json").read_text())["jobs"]


@pytest.fixture(scope="module")
def reconstructed(study: tuple[Path, Path, Path]) -> list[dict]:
    asked = named("view", "dense", "baseline") + named("method", "classical", "flat", "truth")
    assert run(reconstruction, study, study[2], *asked, steps="30") == 0
    return rows_of(study[2])


def test_every_job_is_recorded_with_settings_times_and_the_hash_of_its_object(study, reconstructed):
    assert [(row["view"], row["method"], row["status"]) for row in reconstructed] == [
        (view, method, "complete")
        for view in ("dense", "baseline")
        for method in ("classical", "flat", "truth")
    ]
    row = reconstructed[0]
    assert row["settings"]["steps"] == 30 and row["cpu_seconds"] > 0 and row["peak_memory_mb"] > 0
    truth = load_object(study[2] / "dose_10000/dense/truth")
    assert load_object(Path(row["object"]).parent).shape == truth.shape
    assert json.loads((study[2] / "skip_summary.json").read_text()) == {"phase": "F", "skipped": []}


def test_under_a_recovered_probe_every_object_comes_with_it_and_its_cost(study, tmp_path):
    asked = named("view", "dense") + named("method", "classical", "flat", "truth")
    how = {"probe": "recovered", "steps": "30", "probe-defocus-rad": "0.5"}
    assert run(reconstruction, study, tmp_path / "F", *asked, **how) == 0
    rows = {row["method"]: row for row in rows_of(tmp_path / "F")}
    folders = {name: tmp_path / "F/dose_10000/dense" / name for name in rows}
    probes = {name: load_with_probe(folder)[1] for name, folder in folders.items()}
    given = read_scan(rows["flat"]["dataset"]).probe
    np.testing.assert_array_equal(probes["classical"], probes["flat"])
    assert probes["truth"] is None and not np.array_equal(probes["flat"], given)
    assert np.abs(np.vdot(probes["flat"], given)) > 0.99 * np.linalg.norm(given) ** 2
    found = rows["flat"]["spared_cpu_seconds"]
    assert rows["flat"]["cpu_seconds"] >= found > 0 == rows["truth"]["spared_cpu_seconds"]
    assert rows["classical"]["cpu_seconds"] > found > rows["classical"]["spared_cpu_seconds"]
    stated = {"probe": "recovered", "probe_defocus_rad": 0.5, "probe_modes": 1}
    assert (
        rows["flat"]["settings"] == stated
        and stated.items() <= rows["classical"]["settings"].items()
    )
    told = compare(*study[:2], tmp_path / "F", 1e4, "dense", gauge="unknown_probe", limits="none")
    deviance = {row["method"]: row["deviance"] for row in told.rows}
    assert deviance["classical"] < 1.5 < deviance["flat"]
    assert comparison.write_comparison(told, tmp_path / "G").is_file()


def test_a_network_gets_the_probe_of_its_training_and_one_of_another_condition_is_refused(
    study, tmp_path, small_scan, capsys
):
    C, D, _ = study
    whole = small_scan(dose=1e4, seed=3, N=32, across=6)
    for split in SPLITS:
        half = replace(whole, metadata={**whole.metadata, **PROVENANCE, "split": split})
        for path in (split_file(tmp_path, 1e4, split), view_file(C, tmp_path, 1e4, "dense", split)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_scan(path, half)
    here = tmp_path, tmp_path, tmp_path
    asked = {"view": "dense", "probe": "recovered"}
    for objective in ("poisson", "supervised"):
        few = {"N": "32", "steps": "2", "batch-size": "4", "objective": objective}
        assert run(training, here, tmp_path / "E", **asked, **few) == 0
    asked["training-root"] = str(tmp_path / "E")
    methods = named("method", "pinn", "supervised", "flat")
    assert run(reconstruction, here, tmp_path / "F", *methods, **asked) == 0
    folder = tmp_path / "F/dose_10000/dense"
    probes = {name: load_with_probe(folder / name)[1] for name in ("pinn", "supervised", "flat")}
    given = load_bundle(tmp_path / "E/dose_10000/dense/gs2/bundle.pt").model.probe.numpy()
    np.testing.assert_array_equal(probes["pinn"], given)
    np.testing.assert_array_equal(probes["supervised"], given)
    assert not np.array_equal(given, read_scan(split_file(tmp_path, 1e4, "test")).probe)
    capsys.readouterr()
    assert (
        run(reconstruction, here, tmp_path / "F", "--method=pinn", "--probe-modes=2", **asked) == 1
    )
    (row,) = [row for row in rows_of(tmp_path / "F") if row["method"] == "pinn"]
    assert "train it with --probe recovered --probe-modes 2" in row["error"]
    assert run(training, here, tmp_path / "E", "--probe-modes=2", view="dense") == 2
    assert "of a probe that is sought: add --probe recovered" in capsys.readouterr().err


def test_an_object_that_is_not_what_its_result_says_is_refused(study, reconstructed, tmp_path):
    folder = study[2] / "dose_10000" / "dense" / "flat"
    for name in ("object.npz", "result.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "object.npz").write_bytes((folder / "object.npz").read_bytes()[:-1] + b"x")
    with pytest.raises(DataContractError, match=r"object\.npz is not what its result\.json says"):
        load_object(tmp_path)


def test_a_missing_view_is_named(study, capsys):
    sparse = {"view": "sparse", "method": "flat"}
    assert run(reconstruction, study, study[2], **sparse) == 2
    says = "sparse_test.npz: no such file; run python -m fly64lib.overlap first"
    assert says in capsys.readouterr().err
    assert run(reconstruction, study, study[2], "--allow-missing-phase-d", **sparse) == 1
    assert "no job matches" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({}, ConfigError, "pinn needs the folder of its training: --training-root"),
        (
            {"training_root": "nowhere"},
            DataContractError,
            r"gs2/bundle\.pt: no such bundle.*--objective poisson",
        ),
        (
            {"probe": "refine"},
            ConfigError,
            "probe='refine' is for .*lsqml.*; pinn takes the file's probe as it is",
        ),
    ],
)
def test_what_a_learned_method_cannot_do_is_named(study, settings, error, says):
    (job,) = build_reconstruction_jobs(*study, methods=("pinn",), doses=(1e4,), views=("dense",))
    with pytest.raises(error, match=says):
        MethodSettings(**settings).method(job)


def test_settings_of_a_method_go_before_those_of_several_and_reach_no_other(study):
    asked = ("lsqml", "rpie", "classical")
    jobs = build_reconstruction_jobs(*study, methods=asked, doses=(1e4,), views=("dense",))
    own = {"lsqml": {"epochs": 3, "momentum": 0.5}, "classical": {"weight": 2}}
    settings = MethodSettings(num_epochs=7, steps=9, threads=2, settings=own)
    lsqml, rpie, classical = map(settings.method, jobs)
    assert (lsqml.epochs, lsqml.momentum, rpie.epochs) == (3, 0.5, 7)
    assert (classical.steps, classical.weight) == (9, 2.0)
    assert lsqml.threads == rpie.threads == classical.threads == 2
    for wrong, says in (
        ({"lsqmI": {}}, "method='lsqmI' is not known; did you mean 'lsqml'"),
        ({"lsqml": {"epoch": 3}}, "'epoch' of LSQML; did you mean 'epochs'"),
    ):
        with pytest.raises(ConfigError, match=says):
            MethodSettings(settings=wrong)


def test_a_failed_method_is_recorded_and_the_others_go_on(study, tmp_path, capsys):
    asked = named("method", "supervised", "flat")
    options = {"view": "dense", "training-root": str(tmp_path)}
    assert run(reconstruction, study, tmp_path, *asked, **options) == 1
    failed, complete = rows_of(tmp_path)
    assert (failed["status"], complete["status"]) == ("failed", "complete")
    assert "bundle.pt" in failed["error"]


def test_a_dry_run_writes_nothing(study, tmp_path, capsys):
    options = {"view": "dense", "method": "lsqml"}
    assert run(reconstruction, study, tmp_path / "F", "--dry-run", **options) == 0
    assert "planned  dose_10000 dense lsqml" in capsys.readouterr().out
    assert not (tmp_path / "F").exists()


# --- phase G ---


def test_the_comparison_ranks_flat_below_a_method_below_the_truth_and_bounds_it(
    study, reconstructed, tmp_path, capsys
):
    assert run(comparison, study, tmp_path, view="dense") == 0
    table = json.loads((tmp_path / "comparison.json").read_text())["rows"]
    rows = {row["method"]: row for row in table}
    assert set(rows) == {"classical", "flat", "truth", "cramer_rao", "bayesian"}
    flat, classical, truth = (rows[name] for name in ("flat", "classical", "truth"))
    assert flat["phase_psnr"] + 3 < classical["phase_psnr"]
    assert truth["phase_psnr"] is None  # infinite, null in JSON
    assert flat["phase_psnr_skill"] == flat["phase_ms_ssim_skill"] == 0
    assert truth["phase_ms_ssim_skill"] == 1
    assert truth["deviance_held_out"] < classical["deviance_held_out"] < flat["deviance_held_out"]
    # What was fitted fits better than what was not.
    assert classical["deviance"] < classical["deviance_held_out"]
    assert rows["bayesian"]["phase_psnr"] > rows["cramer_rao"]["phase_psnr"]
    scan = read_scan(view_file(*study[:2], 1e4, "dense", "test"))  # the patterns of the object
    whole = scored_region(
        *read_scan(split_file(study[0], 1e4, "test")).positions.T[::-1], (999, 999)
    )
    fluence = fluence_map(scan.positions, scan.probe, scan.canvas_shape)[whole].mean()
    light = pytest.approx(fluence, rel=0.02)
    assert all(row["photons_per_pixel"] == light for row in rows.values())
    with (tmp_path / "comparison.csv").open() as file:
        assert [row["method"] for row in csv.DictReader(file)] == list(rows)
    folder = tmp_path / "dose_10000" / "dense"
    for name in ("objects.png", "frc.png", "spectrum.png"):
        assert (folder / name).stat().st_size > 5000


def test_without_a_view_what_was_reconstructed_is_compared_and_the_rest_named(
    study, reconstructed, tmp_path, capsys
):
    (C, D, F), only_dense, out = study, tmp_path / "F", tmp_path / "G"
    shutil.copytree(F / "dose_10000" / "dense", only_dense / "dose_10000" / "dense")
    roots = {"phase-c-root": C, "phase-d-root": D, "reconstruction-root": only_dense}
    roots["output-root"] = out
    given = [str(part) for name, value in roots.items() for part in (f"--{name}", value)]
    assert comparison.main([*given, "--limits", "none"]) == 0
    table = json.loads((out / "comparison.json").read_text())["rows"]
    assert {(row["dose"], row["view"]) for row in table} == {(1e4, "dense")}
    said = capsys.readouterr().out
    assert said.endswith("not reconstructed, so not compared: dose_10000 baseline\n")


def test_where_pixels_are_dark_the_unbiased_limit_is_absent_and_its_reason_is_said(
    study, tmp_path, capsys
):
    C, D, F = study[0], tmp_path / "D", tmp_path / "F"
    few = view_file(C, D, 1e4, "0", "test")
    few.parent.mkdir(parents=True)
    write_scan(few, read_scan(split_file(C, 1e4, "test")).subset(np.arange(0, 182, 40)))
    folders, asked = (C, D, F), {"view": "0", "method": "classical", "steps": "5"}
    assert run(reconstruction, folders, F, **asked) == 0
    capsys.readouterr()
    assert run(comparison, folders, tmp_path / "G", view="0") == 0
    said = capsys.readouterr().out
    assert "no cramer_rao at dose_10000 0: " in said and "pixels of the region get no more" in said
    table = json.loads((tmp_path / "G" / "comparison.json").read_text())["rows"]
    rows = {row["method"]: row for row in table}
    assert set(rows) == {"classical", "flat", "truth", "cramer_rao", "bayesian"}
    assert "phase_psnr" not in rows["cramer_rao"] and rows["bayesian"]["phase_psnr"] > 0


def test_a_limit_that_is_not_solved_is_absent_with_its_reason_and_the_methods_are_compared(
    study, reconstructed, tmp_path, monkeypatch
):
    few = partial(comparison.reach.limits, iterations=2)
    monkeypatch.setattr(comparison.reach, "limits", few)
    told = compare(*study, 1e4, "dense", limits="both")
    rows = {row["method"]: row for row in told.rows}
    for name in ("cramer_rao", "bayesian"):
        assert "after 2 iterations" in rows[name]["absent"] and "phase_psnr" not in rows[name]
    assert rows["classical"]["phase_psnr"] > rows["flat"]["phase_psnr"]


def test_an_object_of_other_patterns_is_not_compared(study, reconstructed, tmp_path):
    C, D, F = study
    other = view_file(C, tmp_path, 1e4, "dense", "test")
    other.parent.mkdir(parents=True)
    write_scan(other, read_scan(view_file(C, D, 1e4, "dense", "test")).subset(np.arange(40)))
    with pytest.raises(DataContractError, match="made from other patterns than those of .*again"):
        compare(C, tmp_path, F, 1e4, "dense")


def test_a_comparison_needs_reconstructions_and_a_true_object(study, reconstructed, tmp_path):
    C, D, F = study
    with pytest.raises(
        DataContractError, match="no reconstructions; run python -m fly64lib.reconstruction first"
    ):
        compare(C, D, tmp_path, 1e4, "dense")
    measured = tmp_path / "C"
    for path in (split_file(C, 1e4, "test"), held_out_file(C, 1e4)):
        target = measured / path.relative_to(C)
        target.parent.mkdir(parents=True, exist_ok=True)
        scan = read_scan(path)
        write_scan(target, replace(scan, metadata=scan.metadata | {"object_kind": "initial"}))
    with pytest.raises(DataContractError, match="its object is not the truth.*simulated data only"):
        compare(measured, D, F, 1e4, "baseline")
