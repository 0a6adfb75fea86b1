"""Objects of finer pixels are scored as the detector's grid holds them."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch

from fly64lib.design.study import ScanDesign, split_file
from fly64lib.evaluation.detector_grid import DetectorGrid
from fly64lib.evaluation.judgement import judge, on_detector_grid, region_of
from fly64lib.generation import generate_datasets
from fly64lib.simulation.probes import fourier_crop
from ptycho_torch.errors import DataContractError
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan

FINE = DetectorGrid(12, 8)


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> RawDataTorch:
    root = tmp_path_factory.mktemp("data")
    generate_datasets(root, ScanDesign(doses=(1e4,), scan_step=4, M=96))
    return open_scan(split_file(root, 1e4, "test"))


def test_an_object_is_seen_through_the_middle_of_its_spectrum():
    image = oracle.complex_field(np.random.default_rng(0), 18, 24)
    seen = FINE.image(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(seen, fourier_crop(image, (12, 16), "mean"), atol=1e-12)
    flat = FINE.image(torch.ones(18, 24, dtype=torch.complex128))
    np.testing.assert_allclose(flat, np.ones((12, 16)), atol=1e-12)


def test_the_adjoint_is_one_and_a_spread_image_is_seen_as_itself():
    rng = np.random.default_rng(1)
    canvas, image = (
        torch.from_numpy(oracle.complex_field(rng, 2, *shape)) for shape in ((18, 24), (12, 16))
    )
    there = (image.conj() * FINE.image(canvas)).sum()
    back = (FINE.adjoint(image, (18, 24)).conj() * canvas).sum()
    torch.testing.assert_close(there, back)
    torch.testing.assert_close(FINE.image(FINE.spread(image, (18, 24))), image)


def test_a_canvas_with_parts_of_pixels_is_refused_with_what_would_do():
    with pytest.raises(DataContractError, match=r"19, 24.*multiple of 3 px"):
        FINE.shape((19, 24))


def test_scores_are_of_the_detectors_grid_and_the_finer_ones_stand_beside(scan):
    """What is wrong beyond the detector's grid costs nothing there, and much on the object's."""
    assert (scan.M, scan.N) == (96, 64)
    truth, rng = scan.scan.object_guess, np.random.default_rng(2)
    noise = 0.1 * oracle.complex_field(rng, *truth.shape)
    spectrum = np.fft.fftshift(np.fft.fft2(noise))
    low = tuple(
        slice(side // 2 - side // 3, side // 2 - side // 3 + side * 2 // 3) for side in truth.shape
    )
    spectrum[low] = 0
    fine = truth + np.fft.ifft2(np.fft.ifftshift(spectrum))
    row, flat, perfect = judge({"fine": fine.astype(np.complex64)}, scan)
    assert row["phase_psnr"] > 60 > 40 > row["phase_psnr_fine"] > flat["phase_psnr_fine"]
    assert perfect["phase_psnr_fine"] == float("inf")
    rows, columns = region_of(scan)
    seen = on_detector_grid(truth, scan)
    assert seen.shape == (232, 232) and seen[rows, columns].size < seen.size
    y, x = scan.scan.positions.T / 1.5
    assert rows.start == np.ceil(y.min()) and columns.stop == np.floor(x.max()) + 1


def test_photons_per_pixel_are_of_the_detectors_grid(scan):
    """The same light on object pixels of any size."""
    coarse = replace(
        scan.scan,
        probe=np.stack([fourier_crop(mode, (64, 64), "power") for mode in scan.scan.probe]),
        object_guess=on_detector_grid(scan.scan.object_guess, scan),
        xcoords=scan.scan.xcoords / 1.5,
        ycoords=scan.scan.ycoords / 1.5,
        truth_patches=None,
    )
    truth = {"one": scan.scan.object_guess}
    fine = judge(truth, scan)[0]["photons_per_pixel"]
    other = judge({"one": coarse.object_guess}, RawDataTorch(coarse, "coarse"))[0]
    # the light beside the detector, some 5 %, is only in the finer probe
    assert other["photons_per_pixel"] == pytest.approx(0.945 * fine, rel=0.02)
