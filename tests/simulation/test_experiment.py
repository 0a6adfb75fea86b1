"""Specimens and probes by name, those of other packages too, as the simulation sees them."""

import numpy as np
import pytest
import torch
from other_package import installed

from fly64lib.design.registries import PROBES, SPECIMENS
from fly64lib.design.study import ScanDesign, StudyDesign, split_file
from fly64lib.generation import generate_datasets
from fly64lib.simulation.experiment import embedded_experiment, expected_patterns
from fly64lib.simulation.probes import fourier_crop, zone_plate_probe
from fly64lib.simulation.scans import snake_scan
from ptycho_torch.data.contract import read_scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.inference.apply import mean_deviance
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns
from ptycho_torch.physics.noise import draw_counts, perfect_deviance

GAUSSIANS = """
import numpy as np

def Entry(N, fine):
    "Two modes of unequal power, in the window of N pixels on a grid `fine` times as fine."
    k = (np.arange(fine * N) - fine * N // 2) / fine
    wide, narrow = (np.exp(-(k[:, None] ** 2 + k**2) / (2 * s**2)) for s in (5.0, 3.0))
    modes = np.stack([wide / np.linalg.norm(wide) * 0.8, narrow / np.linalg.norm(narrow) * 0.6j])
    return modes.astype(complex)
"""
WEDGE = """
import numpy as np

def Entry(shape, seed):
    rows = np.linspace(0, 1, shape[0], endpoint=False)[:, None]
    return np.exp(1j * (seed % 7) * 0.1 * np.cos(2 * np.pi * rows)) * np.ones(shape)
"""


def test_the_embedded_twin_has_the_named_specimen_probe_and_positions():
    matched, fine, wide = (
        embedded_experiment(ScanDesign(scan_step=8, simulation=mode, M=M))
        for mode, M in (("matched", None), ("fine", None), ("fine", 96))
    )
    assert (matched.M, wide.M, wide.N, wide.probe.shape) == (64, 96, 64, (1, 256, 256))
    np.testing.assert_array_equal(fine.probe[0], zone_plate_probe(64, 2))
    np.testing.assert_array_equal(fine.object, SPECIMENS["siemens_star"]((464, 464), 42))
    np.testing.assert_array_equal(matched.positions_px, snake_scan(step=8))
    np.testing.assert_array_equal(wide.positions_px, 1.5 * snake_scan(step=8))
    assert wide.canvas_shape == wide.truth.shape == (348, 348)
    # the detector's grid holds the same part of truth and specimen
    seen = [fourier_crop(image, (232, 232), "mean") for image in (wide.truth, wide.object)]
    np.testing.assert_allclose(*seen, atol=1e-6)
    power = [(np.abs(one.coarse_probe) ** 2).sum() for one in (fine, wide)]
    assert power[0] == pytest.approx(0.945, abs=0.01) and power[1] == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(matched.truth, fine.truth)
    np.testing.assert_array_equal(matched.coarse_probe, fine.coarse_probe)
    assert fine.canvas_shape == matched.canvas_shape == (232, 232) == matched.object.shape


def test_specimen_and_probe_of_other_packages_are_simulated_by_name(tmp_path):
    design = {"specimen": "wedge", "probe": "gaussians", "scan_step": 16, "doses": (300.0,)}
    with (
        installed(tmp_path / "probe", PROBES, "gaussians", GAUSSIANS),
        installed(tmp_path / "specimen", SPECIMENS, "wedge", WEDGE),
    ):
        generate_datasets(tmp_path / "C", StudyDesign(**design))
        drawn = SPECIMENS["wedge"]((464, 464), 42)
        expected = expected_patterns(embedded_experiment(ScanDesign(**design)))
    scan = read_scan(split_file(tmp_path / "C", 300, "train"), load_truth=True)
    assert scan.metadata["provenance"]["specimen"] == "wedge"
    assert scan.metadata["provenance"]["probe"] == "gaussians"
    np.testing.assert_allclose(
        scan.object_guess, fourier_crop(drawn, (232, 232), "mean"), atol=1e-6
    )
    power = np.square(np.abs(scan.probe)).sum((1, 2))
    np.testing.assert_allclose(power / power.sum(), [0.64, 0.36], atol=1e-3)
    assert expected.sum((1, 2)).mean() == pytest.approx(1, rel=0.01)  # a phase object keeps light
    assert np.square(scan.diffraction).sum((1, 2)).mean() == pytest.approx(300, rel=0.05)


@pytest.mark.parametrize(
    ("registry", "kind", "code"),
    [
        (PROBES, "probe", GAUSSIANS.replace("np.arange(fine * N)", "np.arange(N)")),
        (SPECIMENS, "specimen", WEDGE.replace("np.ones(shape)", "np.ones((shape[0], 3))")),
    ],
)
def test_an_array_of_another_shape_is_refused_by_the_entrys_name(tmp_path, registry, kind, code):
    with (
        installed(tmp_path, registry, "odd", code),
        pytest.raises(ConfigError, match=f"{kind} 'odd'"),
    ):
        embedded_experiment(ScanDesign(**{kind: "odd"}, scan_step=16))


@pytest.mark.parametrize("M", [60, 257])
def test_a_side_that_is_no_grid_of_the_simulation_is_refused(M):
    with pytest.raises(ConfigError, match=f"M={M}.*64.*256"):
        embedded_experiment(ScanDesign(scan_step=16, M=M))


def test_the_truth_explains_its_patterns_to_the_noise_from_half_as_many_pixels_more():
    """At M = N, light that falls beside the detector is folded back and no object explains it."""
    deviances = {}
    for M in (64, 96):
        experiment = embedded_experiment(ScanDesign(scan_step=8, M=M))
        expected = torch.from_numpy(expected_patterns(experiment))
        scale = 1e5 / float(expected.sum((1, 2)).mean())
        counts = draw_counts(expected * scale, torch.Generator().manual_seed(0))
        probe = torch.from_numpy(experiment.coarse_probe) * scale**0.5
        places = torch.from_numpy(experiment.positions_px)
        geometry = Geometry.of(
            places, probe, experiment.canvas_shape, whole=True, detector=Detector(64)
        )
        patterns = Patterns(geometry, counts.__getitem__)
        canvas = torch.from_numpy(experiment.truth)[None]
        deviances[M] = mean_deviance(canvas, patterns)
    perfect = float(perfect_deviance(expected * scale).mean())
    assert deviances[96] < 1.02 * perfect < 1.4 * perfect < deviances[64]
