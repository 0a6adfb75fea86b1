"""A scan that is cut: thinning is exact, the map's cells are what an independent computation gives,
fewer photons are never better, a run goes on, and what is refused is refused by name."""

import csv
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from other_package import installed
from run_notebook import papermill, written_last
from small_scan import small_scan

from fly64lib.cli.main import main
from fly64lib.design.registries import METHODS
from fly64lib.evaluation.judgement import region_of
from fly64lib.notebook import cut_cells, cut_scan
from fly64lib.notebook.cut_scores import agreement, noise_of_reference
from fly64lib.notebook.paths import notebook
from fly64lib.overlap import thinned_scan
from fly64lib.simulation.probes import outer_half_maximum_diameter
from fly64lib.simulation.views import select_groups
from ptycho_torch.data.contract import ScanData, write_scan
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan

ROOT = Path(__file__).resolve().parents[2]
QUICK = """
from fly64lib.methods.classical import Classical
from ptycho_torch.fields import config

@config
class Entry(Classical):
    '''the classical iteration under a weak prior that is given: it searches for none'''

    weight: float = 0.3
    steps: int = 24
"""
PIXEL = 10.0  # nm


@pytest.fixture(scope="module", autouse=True)
def quick(tmp_path_factory):
    """A method `quick`, of another package."""
    with installed(tmp_path_factory.mktemp("installed"), METHODS, "quick", QUICK):
        yield


def full_scan(dose: float = 1e5, N: int = 16, across: int = 13, **changes: object) -> ScanData:
    """A matched scan whose stored object, called a reconstruction, is the truth: a reference
    without noise."""
    about = {"object_kind": "reconstruction", "object_pixel_nm": PIXEL}
    return replace(small_scan(dose, N=N, across=across), **{"metadata": about} | changes)


@pytest.fixture(scope="module")
def result(tmp_path_factory) -> cut_scan.CutResult:
    folder = tmp_path_factory.mktemp("cut")
    write_scan(folder / "full.npz", full_scan())
    settings = {"shares": (1, 0.1, 0.01), "overlaps": (0.9, 0.5), "methods": ("quick",)}
    return cut_scan.cut_scan(folder / "full.npz", folder / "out", replicates=2, **settings)


def test_thinned_counts_are_binomial_and_probe_and_background_follow():
    background = np.full((16, 16), 2.5, np.float32)
    scan = full_scan(background=background)
    thin = thinned_scan(scan, 0.3, [1, 2], Path("full.npz"))
    counts, kept = (np.rint(np.square(part.diffraction, dtype=float)) for part in (scan, thin))
    assert (kept <= counts).all()
    lit = counts > 0
    off = (kept - 0.3 * counts)[lit] / np.sqrt(0.3 * 0.7 * counts[lit])
    n = lit.sum()
    assert abs(off.mean()) < 4 / n**0.5  # mean p n
    # variance n p (1 - p); the square's own variance is 2 and more where n is small
    assert abs(np.square(off).mean() - 1) < 4 * np.square(off).std() / n**0.5
    other = thinned_scan(scan, 0.3, [2, 2], Path("full.npz"))
    assert (other.diffraction != thin.diffraction).any()
    np.testing.assert_allclose(thin.probe, scan.probe * 0.3**0.5, rtol=1e-6)
    np.testing.assert_allclose(thin.background, 0.75, rtol=1e-6)


def test_a_cells_values_are_those_of_an_independent_computation(result):
    raw = open_scan(result.numbers["source"])
    held = np.arange(raw.n) % 10 == 0
    D = outer_half_maximum_diameter(raw.scan.probe)
    fitted = raw.subset(~held)
    images = np.sort(select_groups(fitted.scan.positions, 0.5 * D, 1, seed=1)[:, 0])
    y, x = fitted.scan.positions[images].T
    apart = np.hypot(y[:, None] - y, x[:, None] - x) + 1e9 * np.eye(len(y))
    assert apart.min() >= 0.5 * D - 1e-9
    (row,) = (
        row
        for row in result.numbers["rows"]
        if (row["share"], row["overlap"], row["replicate"]) == (1, 0.5, 1)
    )
    assert row["images"] == len(images) and row["dose_share"] == len(images) / fitted.n
    assert row["overlap_measured"] == pytest.approx(1 - np.median(apart.min(0)) / D)
    found = METHODS["quick"]().reconstruct(fitted.subset(images).without_truth()).object
    rows, columns = region_of(raw)
    one, other = (a[rows, columns].astype(complex) for a in (found, raw.scan.object_guess))
    one = one * np.exp(1j * np.angle(np.vdot(one, other)))
    phase = np.sqrt(np.mean(np.angle(one / other) ** 2))
    assert row["phase_rms_rad"] == pytest.approx(phase, rel=1e-4)
    amplitude = np.sqrt(np.mean((abs(one) - abs(other)) ** 2))
    assert row["amplitude_rms"] == pytest.approx(amplitude, rel=1e-4)
    judging = raw.subset(held)
    expected = judging.geometry(whole=True).expected(
        torch.from_numpy(found)[None], torch.arange(judging.n)
    )
    n, wanted = judging.counts(slice(None)).double().numpy(), expected.double().numpy()
    logs = np.where(n > 0, n * np.log(np.maximum(n, 1e-9) / wanted), 0)
    assert row["deviance_held_out"] == pytest.approx(2 * np.mean(wanted - n + logs), rel=1e-3)
    if row["frc_half"]:
        assert row["resolution"] == pytest.approx(PIXEL / row["frc_half"])


def test_fewer_photons_are_never_better_beyond_the_replicates_range(result):
    by_overlap: dict = {}
    for row in result.numbers["map"]:
        by_overlap.setdefault(row["overlap"], []).append(row)
    assert list(by_overlap) == [None, 0.5]
    for rows in by_overlap.values():
        assert [row["share"] for row in rows] == [1, 0.1, 0.01]
        for more, fewer in zip(rows, rows[1:], strict=False):
            for name in ("phase_rms_rad", "deviance_held_out"):
                assert more[f"{name}_range"][0] <= fewer[f"{name}_range"][1]
    worst, best = by_overlap[0.5][-1], by_overlap[None][0]
    assert worst["phase_rms_rad"] > 3 * best["phase_rms_rad"]
    assert best["replicates"] == 1 and worst["replicates"] == 2  # nothing is drawn in the first
    assert [one["overlap"] for one in result.numbers["left_out"]] == [0.9]


def test_the_noise_of_the_reference_is_that_of_a_reconstruction_of_all_photons():
    """Half the difference of two halves, against the error of the whole to the truth; a difference
    of the cut's from the whole with that noise added, against the cut's own error to the truth."""
    scan = full_scan(1e4)
    raw = RawDataTorch(scan, Path("full.npz"))
    region = region_of(raw)

    def error(image: np.ndarray, reference: np.ndarray) -> float:
        return agreement(image[region], reference[region])["phase_rms_rad"]

    whole = METHODS["quick"]().reconstruct(raw.without_truth()).object
    noise = noise_of_reference(raw, region, "quick", 1)
    assert noise["phase_rms_rad"] == pytest.approx(error(whole, scan.object_guess), rel=0.25)
    thin = RawDataTorch(thinned_scan(scan, 0.3, [3], Path("full.npz")), Path("full.npz"))
    cut = METHODS["quick"]().reconstruct(thin.without_truth()).object
    seen = np.hypot(error(cut, whole), noise["phase_rms_rad"])
    assert seen == pytest.approx(error(cut, scan.object_guess), rel=0.15)


def test_files_are_written_the_numbers_last_and_a_further_run_makes_nothing_again(
    result, monkeypatch
):
    folder = result.folder
    assert written_last(folder / "cut.json", folder)
    assert json.loads((folder / "cut.json").read_text())["map"] == result.numbers["map"]
    with (folder / "cut.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["phase_rms_rad"]) for row in table] == [
        row["phase_rms_rad"] for row in result.numbers["rows"]
    ]
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "no truth" in page and "https://" not in page and "http://" not in page
    assert page.count("data:image/png") == 2
    asked = {"shares": (1, 0.1), "overlaps": (0.5,), "methods": ("quick",), "replicates": 1}
    monkeypatch.setattr(cut_scan, "_made", None)  # would be called for a cell that is not there
    again = cut_scan.cut_scan(result.numbers["source"], folder, **asked)
    assert len(again.numbers["rows"]) == 4
    assert all(row in result.numbers["rows"] for row in again.numbers["rows"])


def test_what_was_made_of_other_data_is_made_again(result, tmp_path):
    cell = cut_cells.Cell(1, None, "quick", 0)
    path = result.folder / "cells" / cell.name
    key = {"data_sha256": result.numbers["data_sha256"], "fly64": cut_scan.version("fly64")}
    row, image = cut_cells.stored(path, key, cell)
    (made,) = (
        one for one in result.numbers["rows"] if [one[name] for name in cell._fields] == list(cell)
    )
    assert row["phase_rms_rad"] == made["phase_rms_rad"] and np.ptp(np.angle(image)) > 0
    assert cut_cells.stored(path, key | {"data_sha256": "0"}, cell) is None
    assert cut_cells.stored(path, key, cell._replace(share=0.9999999)) is None


def test_the_command_says_it_plainly(result, capsys):
    asked = {name: result.numbers["options"][name] for name in ("shares", "overlaps", "methods")}
    options = cut_scan.CutOptions(
        source=result.numbers["source"], output=result.folder, replicates=2, **asked
    )
    assert cut_scan.command(options) == 0
    said = capsys.readouterr().out
    plain = r"At 1 % of your photons and \d+ % overlap the phase agrees with your full"
    assert re.search(plain + r" reconstruction to [\d.]+ rad \(quick\); FRC 0.5 at", said)
    assert "overlap 0.9: the scan itself has a linear overlap of 0.8" in said
    assert "the full reconstruction's own noise: " in said
    assert cut_scan.command(replace(options, json=True)) == 0
    assert json.loads(capsys.readouterr().out)["map"] == result.numbers["map"]


def test_the_shell_gives_the_options(tmp_path, capsys):
    write_scan(tmp_path / "full.npz", full_scan())
    asked = ["--shares", "0.1", "0.01", "--overlaps", "0.5", "--method", "flat", "--json"]
    out = ["--output", str(tmp_path / "out"), "--replicates", "2", "--threads", "1"]
    assert main(["cut", str(tmp_path / "full.npz"), *asked, *out]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["options"] == {
        "shares": [0.1, 0.01],
        "overlaps": [0.5],
        "methods": ["flat"],
        "replicates": 2,
        "threads": 1,
    }
    assert len(found["rows"]) == 8 and {row["resolution"] for row in found["rows"]} == {None}


@pytest.mark.parametrize(
    ("change", "options", "reason"),
    [
        ({"metadata": {"object_kind": "truth"}}, [], "no full reconstruction (truth); run fly64"),
        ({"metadata": {}}, [], "no full reconstruction (not stated); run fly64 reconstruct"),
        ({}, ["--shares", "0"], "shares.0"),
        ({}, ["--overlaps", "1"], "overlaps.0"),
        ({}, ["--shares", "0.1", "0.1"], "must be different values"),
        ({}, ["--method", "pinn"], "methods='pinn' needs a network trained for each cut"),
        ({}, ["--method", "quik"], "quik"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tmp_path, capsys, change, options, reason):
    write_scan(tmp_path / "full.npz", full_scan(**change))
    out = tmp_path / "out"
    assert main(["cut", str(tmp_path / "full.npz"), "--output", str(out), *options]) == 2
    said = capsys.readouterr()
    assert said.out == "" and "error: " in said.err and reason in said.err
    assert not out.exists()


def test_too_few_patterns_are_refused(tmp_path, capsys):
    write_scan(tmp_path / "few.npz", full_scan().subset(np.arange(19)))
    assert main(["cut", str(tmp_path / "few.npz"), "--output", str(tmp_path / "out")]) == 2
    assert "has 19 patterns, 20 or more are needed" in capsys.readouterr().err


@pytest.mark.slow
def test_the_commands_of_the_document_do_what_it_says(tmp_path, monkeypatch, capsys):
    write_scan(tmp_path / "scan.npz", small_scan(1e5, N=16, across=6))
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^fly64 (.*)$", (ROOT / "docs" / "cut.md").read_text(), re.M)
    assert len(commands) >= 2
    for command in commands:
        words = shlex.split(command)
        words += ["--no-model"] if words[0] == "reconstruct" else []  # for time, as one thread is
        words += ["--threads", "1"]
        assert main(words) == 0, command
    assert (tmp_path / "reconstruction_cut" / "index.html").is_file()


@pytest.mark.slow
def test_the_notebook_gives_the_same_numbers(served, tmp_path):
    write_scan(tmp_path / "full.npz", full_scan(across=9))
    asked = {"shares": 0.1, "overlaps": 0.2, "replicates": 1, "methods": "flat"}
    run = papermill(
        notebook("cut"), tmp_path, served=served, source="full.npz", output="by_notebook", **asked
    )
    assert run.returncode == 0, run.stderr
    one = cut_scan.cut_scan(tmp_path / "full.npz", tmp_path / "own", **asked)
    found = json.loads((tmp_path / "by_notebook" / "cut.json").read_text())
    assert [row | {"cpu_seconds": 0} for row in found["map"]] == [
        row | {"cpu_seconds": 0} for row in one.numbers["map"]
    ]
