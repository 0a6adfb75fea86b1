"""Importing: every npz layout becomes the same scan, or is refused with what to do."""

import bz2
import io
import json

import numpy as np
import pytest

from fly64lib.cli.main import main
from fly64lib.formats import importing
from ptycho_torch.data.contract import read_scan


def test_the_real_star_becomes_the_projects_real_scan_in_the_right_orientation_unasked(
    real_star_path, real_scan_path, tmp_path
):
    assert main(["import", str(real_star_path), str(tmp_path / "star.npz"), "--crop", "64"]) == 0
    star, known = read_scan(tmp_path / "star.npz"), read_scan(real_scan_path)
    np.testing.assert_array_equal(star.diffraction, known.diffraction)
    np.testing.assert_allclose(star.positions, known.positions, rtol=0, atol=1e-9)
    start = known.extra["probeInitial"]  # tike's analytic probe on the cropped detector, in photons
    assert np.abs(star.probe[0] - start).max() < 1e-6 * np.abs(start).max()
    assert star.canvas_shape == known.canvas_shape and (star.object_guess == 1).all()
    assert (star.metadata["object_kind"], star.metadata["probe_kind"]) == ("initial", "initial")
    deviance = star.metadata["import"]["deviance"]
    assert star.metadata["import"]["orientation"] == min(deviance, key=deviance.get) == "as-given"
    assert sorted(deviance.values())[1] > 1.05 * deviance["as-given"]
    assert (tmp_path / "star.png").stat().st_size > 20_000


@pytest.mark.parametrize("axes", ["n first", "n last", "n last, Fortran order, compressed"])
def test_upstreams_raw_layouts_become_the_same_scan(made, raw_file, imported, axes):
    counts = made["counts"] if axes == "n first" else np.moveaxis(made["counts"], 0, -1)
    source = raw_file(diff3d=counts)
    if "Fortran" in axes:
        with np.load(source) as keys:
            np.savez_compressed(source, **{**keys, "diff3d": np.asfortranarray(counts)})
    got = imported(source)
    np.testing.assert_array_equal(got.diffraction, np.sqrt(made["counts"]).astype(np.float32))
    np.testing.assert_array_equal(got.probe[0], made["probe"])
    np.testing.assert_array_equal(got.positions, made["positions"])
    assert got.canvas_shape == made["object"].shape and got.metadata["object_kind"] == "initial"
    assert got.metadata["photons_per_exposure"] == pytest.approx(made["counts"].sum((1, 2)).mean())


def test_the_metadata_say_how_the_file_was_read(raw_file, imported):
    assert json.loads(json.dumps(imported(raw_file()).metadata["import"])) == {
        "source": "raw.npz",
        "format": "fly64",
        "values": "intensity",
        "zero_frequency": "centre",
        "crop": 32,
        "frame_px": 32,
        "centre_px": [16, 16],
        "bin": 1,
        "photons_per_unit": 1.0,
        "round": False,
        "orientation": "as-given",
        "deviance": {},
        "probe_scaled_by": 1.0,
        "whole": True,
        "left_out": [],
        "fit": None,
        "frame": [32, 32],
        "notes": [],
    }


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        ({"xcoords": None}, "", "key 'xcoords': missing; the keys are diff3d"),
        ({"xcoords": np.arange(5.0)}, "", "'xcoords': 5 values; expected 90 as in 'ycoords'"),
        ({"diff3d": np.ones((4, 5, 6))}, "", "4 patterns (diff3d), and 90 positions"),
        ({"diff3d": np.ones((90, 32, 32), complex)}, "", "dtype complex128; expected real numbers"),
        ({"probeGuess": np.ones((0, 0, 0, 0), complex)}, "", "expected a complex probe (N, N) or"),
        ({"probeGuess": np.ones((16, 16), complex)}, "", "16 px; expected 32 px as the frames"),
        ({"objectGuess": np.ones((2, 40, 40), complex)}, "", "expected one complex object (H, W)"),
        ({"xcoords": np.full(90, np.inf)}, "", "positions that are not finite"),
        ({"objectGuess": None}, "--position-unit um", "and no size of the object's pixel"),
        (
            {"objectGuess": None},
            "--position-unit m --pixel-size-nm 50",
            "px (read as m); expected between 1 px",
        ),
        ({}, "--crop 40", "to be cropped to 40"),
        ({}, "--crop 30 --bin 4", "a multiple of the bin"),
        ({}, "--centre 2 16", "leaves the frame"),
        ({"diff3d": np.zeros((90, 32, 32), np.uint16)}, "", "every value of every pattern is 0"),
        ({"diff3d": None, "other": np.ones(3)}, "", "an npz file with objectGuess, other"),
    ],
)
def test_what_cannot_become_a_scan_is_refused_with_what_to_do(
    raw_file, refused, changed, options, message
):
    assert message in refused(raw_file(**changed), f"--zero-frequency centre {options}")


def test_a_file_that_is_data_001_already_is_kept_as_it_is(raw_file, imported, refused, tmp_path):
    imported(raw_file())
    said = refused(tmp_path / "imported.npz")
    assert "this is a DATA-001 file already" in said and "use it as it is" in said


def test_a_result_that_is_there_is_kept(raw_file, imported, tmp_path, capsys):
    imported(raw_file())
    assert main(["import", str(tmp_path / "raw.npz"), str(tmp_path / "imported.npz")]) == 2
    assert "it is there already; choose another name" in capsys.readouterr().err


def test_a_bzip2_bomb_stops_at_its_bound_and_a_cut_one_is_named(
    made, tmp_path, refused, monkeypatch
):
    monkeypatch.setattr(importing, "BOMB_BYTES", 2**20)
    packed, stored = tmp_path / "packed.npz.bz2", io.BytesIO()
    packed.write_bytes(bz2.compress(bytes(2**22)))
    assert "unpacks to more than 1048576 bytes" in refused(packed)
    np.savez(stored, data=made["counts"], scan=made["positions"])
    packed.write_bytes(bz2.compress(stored.getvalue())[:-50])
    assert "damaged or truncated bzip2" in refused(packed)


def test_a_damaged_npz_is_not_sent_back_to_the_importer(raw_file, refused):
    source = raw_file()
    source.write_bytes(source.read_bytes()[:5000])
    said = refused(source)
    assert "a truncated or damaged zip" in said and said.endswith("copy or write it again\n")
