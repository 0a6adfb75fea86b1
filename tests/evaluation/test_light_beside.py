"""The grid that a beam asks for: the pupil's radius is found, and what it adds to the detector."""

import numpy as np
import pytest
from small_scan import small_scan

from fly64lib.cli.main import main
from fly64lib.evaluation.light_beside import in_words, pupil_radius_px, side_for
from fly64lib.simulation.probes import FLY001, zone_plate_probe
from ptycho_torch.data.contract import write_scan


def disc(radius: float, M: int) -> np.ndarray:
    """A probe whose pupil is a full disc."""
    row, column = np.mgrid[:M, :M] - M // 2
    pupil = np.hypot(row, column) <= radius
    return np.fft.ifft2(np.fft.ifftshift(pupil))[None]


@pytest.mark.parametrize("M", [63, 64, 96])
def test_the_radius_is_the_pupils_on_any_grid_that_holds_it(M):
    for radius in (8, 15, 24):
        assert pupil_radius_px(disc(radius, M)) == pytest.approx(radius, abs=0.5)
    two = np.concatenate([disc(8, M), disc(24, M)])
    assert pupil_radius_px(two) == pytest.approx(24, abs=0.5)


def test_a_beam_well_inside_needs_no_more_and_another_its_pupil_on_both_sides():
    assert side_for(disc(15, 64), 64) == 64
    assert side_for(disc(20, 64), 64) == 108  # 104 is 8 x 13
    assert side_for(disc(20, 128), 64) == 108
    twin = zone_plate_probe(64, fine=4)[None]
    assert pupil_radius_px(twin) == pytest.approx(FLY001.pupil_radius_px, abs=1)
    assert side_for(twin, 64) == 144
    said = in_words(twin, 64)
    assert "radius of 36 px of the 32" in said and "M = 144 has place for all" in said
    assert "M = 96 for most" in said and said.endswith("M is 256")


def test_import_and_the_simulator_say_it(tmp_path, capsys):
    write_scan(tmp_path / "scan.npz", small_scan(1e4, N=32))
    raw, pixel = tmp_path / "raw.cxi", ["--pixel-size-nm", "50", "--energy-kev", "8.8"]
    export = ["export", str(tmp_path / "scan.npz"), str(raw), *pixel, "--distance-m", "1.9"]
    assert main(export) == 0
    capsys.readouterr()
    into = ["import", str(raw), str(tmp_path / "again.npz"), "--picture", "none"]
    assert main([*into, "--orientation", "as-given"]) == 0
    assert "has place for all of its light" in capsys.readouterr().out
    made = ["generate", "--output-root", str(tmp_path / "C"), "--dose", "1000"]
    assert main([*made, "--scan-step", "8", "--simulation", "matched"]) == 0
    assert "has place for all of its light" in capsys.readouterr().out
