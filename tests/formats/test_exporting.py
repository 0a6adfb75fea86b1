"""Exporting: nothing of a scan is lost on the way out and back, and an image carries its scale."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import h5py
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from small_scan import small_scan

from fly64lib.cli.main import main
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.memmap_bridge import RawDataTorch


@pytest.fixture
def scan(tmp_path) -> ScanData:
    """Two modes, truth, groups, an extra of text and a canvas of odd edges: all that a scan may
    hold, also in scan.npz."""
    made = small_scan(modes=2, truth=True, across=4, groups=np.array([[0, 1], [5, 2]]))
    made.extra["temperature_K"] = np.arange(made.n) * 0.5
    made.extra["operator"] = np.array(["Åsa", "b"])
    made.metadata.update(object_pixel_nm=56.4, sample="Ångström", photons_per_exposure=1e5)
    made = replace(made, scan_index=np.arange(made.n) * 3)
    write_scan(tmp_path / "scan.npz", made)
    return made


@pytest.fixture
def exported(tmp_path) -> Callable[..., int]:
    """Exit code of an export of scan.npz under options in one text."""

    def run(name: str, options: str = "") -> int:
        source, target = str(tmp_path / "scan.npz"), str(tmp_path / name)
        return main(["export", source, target, *options.split()])

    return run


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scan.cxi", ""),
        ("scan.cxi", "--energy-kev 8.8 --distance-m 1.92"),
        ("scan", "--format ptychi"),
    ],
)
def test_importing_an_export_gives_the_scan_back(scan, exported, tmp_path, name, options):
    assert exported(name, options) == 0
    source = tmp_path / (name if name.endswith("cxi") else "scan_dp.hdf5")
    assert main(["import", str(source), str(tmp_path / "back.npz"), "--picture", "none"]) == 0
    back = read_scan(tmp_path / "back.npz", load_truth=True)
    for field in ("diffraction", "object_guess", "truth_patches", "scan_index", "groups"):
        np.testing.assert_array_equal(getattr(back, field), getattr(scan, field))
        assert getattr(back, field).dtype == getattr(scan, field).dtype
    np.testing.assert_allclose(back.probe, scan.probe, rtol=1e-7)
    np.testing.assert_allclose(back.positions, scan.positions, rtol=0, atol=1e-9)
    assert set(back.extra) == set(scan.extra)
    for key, value in scan.extra.items():
        np.testing.assert_array_equal(back.extra[key], value)
    about = back.metadata.pop("import")
    assert about["orientation"] == "as-given" and about["probe_scaled_by"] == 1
    assert about["deviance"]["as-given"] < 1.5
    assert back.metadata.pop("object_pixel_nm") == pytest.approx(56.4)
    scan.metadata.pop("object_pixel_nm")
    assert back.metadata == scan.metadata


def test_cdtools_reads_the_exported_cxi_as_the_same_experiment(scan, exported, tmp_path):
    """Its own reader: patterns, geometry and the probe's translations against the sample's."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of matplotlib, by cdtools' colour maps as it is imported
        from cdtools.tools import data, initializers, interactions

    assert exported("scan.cxi", "--energy-kev 8.8 --distance-m 1.92") == 0
    with h5py.File(tmp_path / "scan.cxi") as file:
        counts, _ = data.get_data(file, cut_zeros=False)
        distance, basis, _ = data.get_detector_geometry(file)
        wavelength, translations = data.get_wavelength(file), data.get_ptycho_translations(file)
    np.testing.assert_array_equal(counts, np.rint(scan.diffraction.astype(float) ** 2))
    object_basis = initializers.exit_wave_geometry(
        basis.astype(np.float32), counts.shape[1:], wavelength, distance
    )
    pixels = interactions.translations_to_pixel(
        object_basis, torch.from_numpy(translations)
    ).numpy()
    np.testing.assert_allclose(pixels, scan.positions, rtol=1e-4)


def test_an_image_carries_phase_amplitude_and_the_size_of_a_pixel(scan, exported, tmp_path):
    assert exported("object.tif") == exported("object.png") == 0
    with tifffile.TiffFile(tmp_path / "object.tif") as file:
        phase, amplitude = file.asarray()
        pixels, microns = file.pages[0].tags["XResolution"].value
        assert file.imagej_metadata["unit"] == "um"
        assert microns / pixels == pytest.approx(0.0564, rel=1e-3)
        assert file.imagej_metadata["Labels"] == ["phase / rad", "amplitude"]
    assert phase.dtype == np.float32
    np.testing.assert_allclose(amplitude * np.exp(1j * phase), scan.object_guess, atol=1e-6)
    drawn = np.asarray(Image.open(tmp_path / "object.png").convert("L"))
    bar = (drawn < 5).sum(1).max()  # the longest black run of a row: the scale bar's, twice
    assert drawn.shape[1] > 1000 and bar > 0.1 * drawn.shape[1]


def test_a_reconstruction_becomes_data_001_and_is_labelled(scan, exported, tmp_path, capsys):
    result = tmp_path / "object.npz"
    np.savez(result, object=scan.object_guess * 1j, probe=scan.probe * 2)
    assert exported("out.npz", f"--object {result}") == 0
    out = read_scan(tmp_path / "out.npz", load_truth=True)
    np.testing.assert_array_equal(out.object_guess, scan.object_guess * 1j)
    np.testing.assert_array_equal(out.probe, scan.probe * 2)
    assert out.metadata["object_kind"] == out.metadata["probe_kind"] == "reconstruction"
    np.savez(result, object=scan.object_guess[:-1])
    assert exported("no.npz", f"--object {result}") == 2
    assert "name the scan that this object was reconstructed from" in capsys.readouterr().err


def test_counts_that_are_not_whole_come_back_exactly(scan, exported, imported, tmp_path):
    scan.diffraction[:] *= np.float32(0.7321)
    del scan.metadata["dose"], scan.metadata["photons_per_exposure"]
    write_scan(tmp_path / "scan.npz", scan)
    assert exported("scan.cxi") == 0
    back = imported(tmp_path / "scan.cxi", "--orientation as-given")
    np.testing.assert_array_equal(back.diffraction, scan.diffraction)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("scan.xyz", "no format goes with '.xyz'"),
        ("scan.npz", "this is the source"),
        (
            "missing/../scan.npz/a.png",
            "File exists; expected a place where files can be read and written",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused(scan, exported, capsys, target, message):
    assert exported(target) == 2
    assert message in capsys.readouterr().err


def test_positions_in_metres_need_the_size_of_a_pixel(scan, exported, tmp_path, capsys):
    del scan.metadata["object_pixel_nm"]
    write_scan(tmp_path / "scan.npz", scan)
    assert exported("a.cxi") == 2
    assert "no object_pixel_nm" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["copy.cxi", "copy --format ptychi"])
def test_what_another_format_cannot_hold_is_refused_and_the_object_alone_can_be_had(
    scan, exported, tmp_path, capsys, name
):
    finer = RawDataTorch(replace(scan, truth_patches=None), "scan").finer(scan.N + 8).scan
    mask = np.ones((scan.N, scan.N), bool)
    mask[3] = False
    masked = replace(finer, diffraction=finer.diffraction * mask[None], detector_mask=mask)
    write_scan(tmp_path / "scan.npz", masked)
    target, _, options = name.partition(" ")
    assert exported(target, options) == 2
    said = capsys.readouterr().err
    assert f"an object of {scan.N + 8} px for {scan.N} of the detector, detector_mask" in said
    assert not list(tmp_path.glob("copy*")) and exported("object.tif") == 0
