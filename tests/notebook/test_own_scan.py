"""`fly64 reconstruct SCAN`: what a scan needs is found and said, the best object is written, and a
run that was stopped goes on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_scan import small_scan

from fly64lib.cli.main import main
from fly64lib.notebook.own_scan import NOTHING_ADDED, in_words, reconstruct_scan
from ptycho_torch.data.contract import read_scan, write_scan
from ptycho_torch.errors import ConfigError

QUICK = {"steps": 40, "threads": 1}


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patterns of a beam of two modes, of which the file knows the first."""
    path = tmp_path_factory.mktemp("own") / "scan.npz"
    scan = small_scan(1e4, modes=2, across=9)
    about = {"object_kind": "initial", "probe_kind": "initial", "object_pixel_nm": 20.0}
    first = (scan.probe[:1] * np.sqrt(1 / 0.8)).astype(np.complex64)
    empty = np.ones_like(scan.object_guess)
    write_scan(path, replace(scan, probe=first, object_guess=empty, metadata=about))
    return path


@pytest.fixture(scope="module")
def folder(scan_file: Path) -> Path:
    folder = scan_file.parent / "out"
    argv = ["reconstruct", str(scan_file), "--output", str(folder), "--steps", "40"]
    assert main([*argv, "--threads", "1"]) == 0
    return folder


@pytest.mark.slow
def test_the_missing_mode_is_found_and_all_files_are_written(folder, scan_file):
    numbers = json.loads((folder / "result.json").read_text())
    modes = next(one for one in numbers["tried"] if one["name"] == "three probe modes")
    assert modes["kept"] and modes["after"] < modes["before"]
    assert numbers["best"] == "classical" and numbers["modes"] >= 3 and numbers["M"] == 48
    (row,) = numbers["rows"]
    assert row["deviance_held_out"] < numbers["tried"][0]["before"]
    found = read_scan(folder / "reconstruction.npz")
    assert found.metadata["object_kind"] == found.metadata["probe_kind"] == "reconstruction"
    assert found.metadata["object_pixel_nm"] == pytest.approx(20 * 32 / 48)
    assert np.abs(found.object_guess - 1).max() > 0.1
    deviation = found.extra["phase_deviation"]
    assert deviation.shape == found.canvas_shape and deviation.max() > 0
    names = {path.name for path in folder.iterdir()}
    assert {"reconstruction.cxi", "objects.png", "error.png", "index.html"} <= names
    page = (folder / "index.html").read_text()
    assert "three probe modes" in page and "http" not in page.replace("http-equiv", "")


@pytest.mark.slow
def test_a_second_run_takes_what_the_first_found(folder, scan_file):
    stored = {path: path.stat().st_mtime_ns for path in (folder / "model").iterdir()}
    before = json.loads((folder / "result.json").read_text())
    result = reconstruct_scan(scan_file, folder, **QUICK)
    assert {path: path.stat().st_mtime_ns for path in (folder / "model").iterdir()} == stored
    assert [one.after for one in result.model.tried] == [one["after"] for one in before["tried"]]
    again = result.rows[0]["deviance_held_out"]
    assert again == pytest.approx(before["rows"][0]["deviance_held_out"], rel=1e-6)


@pytest.mark.slow
def test_no_time_leaves_the_additions_out_and_says_so(scan_file, tmp_path):
    result = reconstruct_scan(scan_file, tmp_path / "out", time_limit=1e-3, **QUICK)
    assert not result.model.tried and "three probe modes" in result.model.left_out
    assert "left out, the time limit was over" in in_words(result)
    assert NOTHING_ADDED not in in_words(result)  # none was tried


def test_what_cannot_be_is_refused_at_the_door(scan_file, tmp_path):
    with pytest.raises(ConfigError, match="pinn needs a network trained for this scan"):
        reconstruct_scan(scan_file, tmp_path / "out", methods="pinn", **QUICK)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file; give the name of a folder"):
        reconstruct_scan(scan_file, tmp_path / "file")
