"""Files of cdtools, pty-chi, PtychoShelves and PtyPy: their signs, axes, units and origins."""

import bz2
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest
import reference_writers
import torch

from ptycho_torch.physics.geometry import Detector, Geometry


@pytest.fixture(scope="module")
def reference_files(made, tmp_path_factory) -> Path:
    """A folder with files that cdtools and pty-chi made, and what went into them."""
    folder = tmp_path_factory.mktemp("reference")
    corners = np.rint(made["positions"] - 16).astype(int)
    kept = {"object": made["object"], "probe": made["probe"], "corners": corners}
    np.savez(folder / "scan.npz", **kept)
    command = [sys.executable, reference_writers.__file__, str(folder / "scan.npz"), str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cdtools.cxi", "ptychodus_dp.hdf5"])
def test_a_file_that_another_program_simulated_and_wrote_is_explained_as_given(
    reference_files, imported, name
):
    """cdtools' CXI has no probe and no object, pty-chi's pair has both."""
    made, cxi = np.load(reference_files / "scan.npz"), name == "cdtools.cxi"
    got = imported(reference_files / name, f"--probe {made.zip.filename}" if cxi else "")
    about = got.metadata["import"]
    assert about["orientation"] == "as-given" and about["probe_scaled_by"] == 1
    assert about["deviance"]["as-given"] < 1.3 and sorted(about["deviance"].values())[1] > 5
    pixel = reference_writers.object_pixel_m(32) * 1e9
    assert got.metadata["object_pixel_nm"] == pytest.approx(pixel, rel=1e-6)
    moved = got.positions - 16 - made["corners"]
    assert np.ptp(moved, axis=0).max() < 1e-4
    np.testing.assert_allclose(got.probe[0], made["probe"], rtol=1e-5, atol=1e-4)
    if not cxi:
        assert np.abs(moved).max() < 1e-4
        np.testing.assert_allclose(got.object_guess, made["object"], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("N", [20, 24, 32])
def test_a_smaller_detector_is_expected_to_see_the_middle_of_what_pty_chi_simulates(
    reference_files, N
):
    """Object and probe on 32 px, the detector's N in the middle of the far field: pty-chi knows no
    detector smaller than its probe, so that its whole simulation is cut."""
    with np.load(reference_files / "scan.npz") as made:
        image, probe, corners = (made[name] for name in ("object", "probe", "corners"))
    theirs = np.load(reference_files / "ptychi_expected.npy")
    middle = slice(16 - N // 2, 16 + N // 2)
    places = Geometry.of(
        torch.from_numpy(corners + 16.0),
        torch.from_numpy(probe[None]).to(torch.complex128),
        image.shape,
        whole=True,
        detector=Detector(N),
    )
    canvas = torch.from_numpy(image)[None].to(torch.complex128)
    ours = places.expected(canvas, torch.arange(len(corners))).numpy()
    beside = 1 - ours.sum() / theirs.sum()
    assert (beside > 0.02) == (N < 32)
    np.testing.assert_allclose(ours, theirs[:, middle, middle], rtol=1e-3, atol=1e-5 * theirs.max())


def test_ptychographic_positions_of_the_other_sign_in_a_cxi_file_are_turned(
    reference_files, imported, tmp_path
):
    source = tmp_path / "turned.cxi"
    source.write_bytes((reference_files / "cdtools.cxi").read_bytes())
    with h5py.File(source, "a") as file:
        file["entry_1/sample_1/geometry_1/translation"][:, 1] *= -1
    got = imported(source, f"--probe {reference_files / 'scan.npz'}")
    assert got.metadata["import"]["orientation"] == "flip-y"


def test_ptychoshelves_parameters_give_positions_and_pixel_in_metres(
    made, imported, probe_file, tmp_path
):
    with h5py.File(tmp_path / "data_roi0_dp.hdf5", "w") as file:
        file["dp"] = made["counts"]
    with h5py.File(tmp_path / "data_roi0_para.hdf5", "w") as file:
        file["ppY"], file["ppX"] = made["positions"].T[:, None] * 2e-8
        file["dx"], file["lambda"] = 2e-8, 1e-10
    options = f"--probe {probe_file} --orientation as-given"
    got = imported(tmp_path / "data_roi0_dp.hdf5", options)
    assert np.ptp(got.positions - made["positions"], axis=0).max() < 1e-9
    assert got.metadata["object_pixel_nm"] == pytest.approx(20)


def test_ptypys_chunks_are_joined_and_its_optics_give_the_pixel(
    made, imported, probe_file, tmp_path
):
    pixel_m = 1.23984193e-9 / 8.0 * 2.0 / (32 * 75e-6)
    with h5py.File(tmp_path / "scan.ptyd", "w") as file:
        for number, part in enumerate((slice(0, 40), slice(40, 90))):
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"], chunk["indices"] = made["counts"][part], np.arange(90)[part]
            chunk["positions"], chunk["weights"] = made["positions"][part] * pixel_m, np.zeros(0)
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = 8.0, 2.0, [75e-6, 75e-6]
        file["meta/label"] = "star"
    got = imported(tmp_path / "scan.ptyd", f"--probe {probe_file} --orientation as-given")
    np.testing.assert_array_equal(got.diffraction, np.sqrt(made["counts"]).astype(np.float32))
    assert np.ptp(got.positions - made["positions"], axis=0).max() < 1e-5
    assert got.metadata["label"] == "star"


def test_a_file_that_ptypy_itself_wrote_is_explained_as_given(made, imported, probe_file):
    """The first 50 patterns of the small scan, from arrays, by PtyPy 0.5's own PtyScan: two chunks,
    weights of every pattern, numpy's kinds of None."""
    packed = Path(__file__).with_name("written_by_ptypy.ptyd.bz2")
    got = imported(packed, f"--probe {probe_file}")
    about = got.metadata["import"]
    assert about["orientation"] == "as-given" and about["probe_scaled_by"] == 1
    first, second, *_ = sorted(about["deviance"].values())
    assert first == about["deviance"]["as-given"] < second / 3
    with h5py.File(BytesIO(bz2.decompress(packed.read_bytes()))) as file:
        counts = np.concatenate([file[f"chunks/{number}/data"][()] for number in "01"])
    np.testing.assert_array_equal(got.diffraction, np.sqrt(counts).astype(np.float32))
    assert np.ptp(got.positions - made["positions"][:50], axis=0).max() < 1e-5
    pixel_nm = 1.23984193 / 8.0 * 2.0 / (32 * 75e-6)
    assert got.metadata["object_pixel_nm"] == pytest.approx(pixel_nm, rel=1e-6)
    assert got.metadata["label"] == "star"
    np.testing.assert_array_equal(got.scan_index, np.arange(50))
