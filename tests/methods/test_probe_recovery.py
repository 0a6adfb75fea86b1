"""A probe recovered from a scan's own patterns, judged on patterns that were kept out."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_scan import small_scan

from fly64lib.cli.main import main
from fly64lib.methods.probe_recovery import held_out, recover_probe
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.memmap_bridge import RawDataTorch

GEOMETRY = {"N": 32, "across": 6}


@pytest.fixture(scope="module")
def two_modes() -> ScanData:
    return small_scan(1e5, modes=2, **GEOMETRY)


def strongest_alone(scan: ScanData) -> np.ndarray:
    """The probe of somebody who knows the strongest mode only and takes all photons for its own."""
    photons, strongest = (np.abs(scan.probe) ** 2).sum(), scan.probe[:1]
    return strongest * np.float32((photons / (np.abs(strongest) ** 2).sum()) ** 0.5)


def recover(folder: Path, scan: ScanData, output: str = "out.npz", **options: object) -> int:
    """Exit code of `fly64 probe` on a scan in a file."""
    write_scan(folder / "scan.npz", scan)
    given = [f"--{name}={value}" for name, value in options.items()]
    return main(["probe", str(folder / "scan.npz"), str(folder / output), *given])


@pytest.mark.slow
def test_the_missing_mode_is_found_and_patterns_held_out_say_so(
    two_modes: ScanData, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    unknown = {
        "probe": strongest_alone(two_modes),
        "object_guess": np.ones_like(two_modes.object_guess),
        "metadata": {"object_kind": "initial", "probe_kind": "initial"},
    }
    assert recover(tmp_path, replace(two_modes, **unknown), modes=2, steps=80) == 0
    said = capsys.readouterr().out
    assert f"on {held_out(two_modes.n).sum()} patterns held out" in said
    assert str(tmp_path / "out.npz") in said
    before, after = read_scan(tmp_path / "scan.npz"), read_scan(tmp_path / "out.npz")
    found = after.metadata["probe_recovery"]
    assert found["deviance_after"] < 0.7 * found["deviance_before"]
    assert after.metadata["probe_kind"] == after.metadata["object_kind"] == "reconstruction"
    photons = (np.abs(before.probe) ** 2).sum()
    assert after.probe.shape == (2, 32, 32)
    assert (np.abs(after.probe) ** 2).sum() == pytest.approx(photons, rel=1e-4)
    np.testing.assert_array_equal(after.diffraction, before.diffraction)
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"out.npz", "out.png", "scan.npz"}  # the modes are drawn


@pytest.mark.slow
def test_positions_that_move_are_told_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    right = small_scan(1e5, **GEOMETRY)
    away = 0.4 * np.random.default_rng(3).normal(size=(2, right.n))
    off = replace(right, ycoords=right.ycoords + away[0], xcoords=right.xcoords + away[1])
    assert recover(tmp_path, off, modes=1, steps=60, unknown="positions") == 0
    said = re.search(r"moved by ([\d.]+) px .*by ([\d.]+) px at most", capsys.readouterr().out)
    assert 0.2 < float(said[1]) < 0.8 < float(said[2])
    assert (tmp_path / "out.positions.png").is_file()


@pytest.mark.slow
def test_a_probe_that_explains_no_more_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Six modes for a beam that has one, under 300 photons: they fit noise."""
    assert recover(tmp_path, small_scan(300, **GEOMETRY), modes=6, steps=40) == 1
    assert "keep the file's; nothing was written" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]


def test_bad_requests_are_named(
    two_modes: ScanData, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    few = RawDataTorch(two_modes.subset(np.arange(7)), "few.npz")
    with pytest.raises(ConfigError, match="7 patterns: a probe is recovered from 20 or more"):
        recover_probe(few, 2)
    for output, modes, message in (
        ("scan.npz", 2, "expected another file"),
        ("out.txt", 2, "named *.npz"),
        ("out.npz", 99, "probe_modes=99"),
    ):
        assert recover(tmp_path, two_modes, output, modes=modes) == 2
        assert message in capsys.readouterr().err


def test_the_truth_of_a_simulated_scan_and_what_it_knows_of_its_exposures_stay(
    two_modes: ScanData, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    known = {
        "probe": strongest_alone(two_modes),
        "brightness": np.linspace(0.99, 1.01, two_modes.n),
        "background": np.full((32, 32), 0.01, np.float32),
    }
    assert recover(tmp_path, replace(two_modes, **known), modes=2, steps=25) == 0
    shown = capsys.readouterr().err
    assert "classical" not in shown  # the method's name means nothing to who asked for a probe
    first, second = shown.split("2 of 2: ")
    assert first.startswith("1 of 2: ") and "priors tried" in first
    assert "object, probe: 100%" in second and "25/25" in second
    found = read_scan(tmp_path / "out.npz")
    np.testing.assert_array_equal(found.brightness, known["brightness"])
    np.testing.assert_array_equal(found.background, known["background"])
    np.testing.assert_array_equal(found.object_guess, two_modes.object_guess)
    assert found.metadata["object_kind"] == "truth"
