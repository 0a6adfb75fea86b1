"""From model and file to object: a perfect network gives the perfect object, and nothing but the
patterns that were asked for is read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, seen_region, small_raw, small_scan

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.inference.apply import check_probe, data_deviance, reconstruct
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.physics import geometry as geometry_module
from ptycho_torch.physics.noise import perfect_deviance


def config(gridsize: int = 1, **training) -> TrainingConfig:
    model = ModelConfig(N=32, gridsize=gridsize, width=8)
    return TrainingConfig(model=model, **training)


def untrained(settings: TrainingConfig, raw: RawDataTorch) -> PtychoModel:
    return PtychoModel(settings.model, raw.probe)


@pytest.mark.parametrize("n_images", [None, 20])
@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_perfect_networks_canvas_becomes_the_object_and_its_fluence_the_probes(
    gridsize, n_images, monkeypatch
):
    raw, settings = small_raw(1e4), config(gridsize, n_images=n_images)
    model, truth = untrained(settings, raw), raw.object_guess.numpy()
    turn = np.exp(2.5j).astype(np.complex64)

    def perfect(features) -> torch.Tensor:
        """The true object wherever the chosen patterns' patches lie."""
        corners = [oracle.corner_and_rest(*at, 32)[:2] for at in raw.positions[images].tolist()]
        (row, column), (_, height, width) = np.min(corners, axis=0), features.base.shape
        part = truth[row : row + height, column : column + width]
        return torch.from_numpy(part * turn)[None]

    images = reconstruct(model, raw, settings).images
    monkeypatch.setattr(model, "object_canvas", perfect)
    came = reconstruct(model, raw, settings)
    assert len(came.images) == (n_images or raw.n)
    assert came.object.shape == truth.shape and came.object.dtype == torch.complex64
    lit = (came.fluence > 0.01 * came.fluence.max()).numpy()
    np.testing.assert_allclose(came.object.numpy()[lit], (truth * turn)[lit], atol=1e-6)
    assert lit.mean() > (0.4 if n_images is None else 0.1)
    _, _, y, x, _ = geometry()
    probe, places = raw.probe.numpy().astype(complex), (y[came.images], x[came.images])
    expected = oracle.fluence(truth.shape, probe, *places)
    np.testing.assert_allclose(came.fluence, expected, rtol=1e-3, atol=1e-4)
    assert 0 < came.cpu_seconds and 0 < came.seconds < 60


def test_what_no_photon_reached_is_empty():
    scan, settings = small_scan(1e4), config()
    wider = np.pad(scan.object_guess, ((0, 9), (0, 14)), constant_values=1)
    raw = RawDataTorch(replace(scan, object_guess=wider), Path("wider.npz"))
    came = reconstruct(untrained(settings, raw), raw, settings)
    assert came.object.shape == wider.shape
    for beyond in (np.s_[-9:], np.s_[:, -14:]):
        assert (came.object[beyond] == 1).all() and (came.fluence[beyond] == 0).all()


def test_a_speck_is_reconstructed_at_its_row_and_column():
    image, probe, y, x, _ = geometry()
    speck = np.ones_like(image)
    speck[31, 44] = np.exp(2j)  # one pixel of phase at row 31, column 44
    counts = np.random.default_rng(0).poisson(1e6 * oracle.expected_counts(speck, probe, y, x))
    arrays = {
        "diffraction": np.sqrt(counts).astype(np.float32),
        "probe": (probe * 1e3).astype(np.complex64),
        "object_guess": np.ones(speck.shape, np.complex64),
    }
    raw, settings = RawDataTorch(replace(small_scan(), **arrays), Path("speck.npz")), config(2)
    phase = torch.angle(reconstruct(untrained(settings, raw), raw, settings).object)
    phase = (phase - phase[seen_region(raw)].median()).abs()
    assert np.unravel_index(int(phase.argmax()), phase.shape) == (31, 44)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_an_untrained_network_gives_the_solved_canvas_and_the_star_is_there(gridsize):
    raw, settings = small_raw(1e5), config(gridsize)
    came = reconstruct(untrained(settings, raw), raw, settings).object.numpy()
    region, truth = seen_region(raw), raw.object_guess.numpy()
    flat = oracle.psnr_phase(np.ones_like(truth)[region], truth[region])
    assert oracle.psnr_phase(came[region], truth[region]) > flat + 18


def test_truth_in_the_file_is_not_used():
    scan, settings = small_scan(1e4, truth=True), config(2)
    whole = RawDataTorch(scan, Path("scan.npz"))
    objects = [
        reconstruct(untrained(settings, raw), raw, settings).object
        for raw in (whole, whole.without_truth())
    ]
    assert torch.equal(*objects)


def test_every_pattern_of_the_groups_is_read_and_no_other(monkeypatch):
    groups = np.array([[0, 1, 10, 11], [33, 34, 43, 44], [60, 61, 71, 70]])
    raw, settings, read = small_raw(1e4, groups=groups), config(2), set()
    counts = raw.counts
    monkeypatch.setattr(
        raw, "counts", lambda indices: read.update(indices.tolist()) or counts(indices)
    )
    came = reconstruct(untrained(settings, raw), raw, settings)
    assert read == set(groups.ravel().tolist()) == set(came.images.tolist())


def test_how_many_patterns_are_held_at_once_does_not_change_the_object(monkeypatch):
    raw, settings = small_raw(1e4), config(2, n_images=24)
    whole = reconstruct(untrained(settings, raw), raw, settings).object
    monkeypatch.setattr(geometry_module, "CHUNK", 5)
    again = reconstruct(untrained(settings, raw), raw, settings).object
    np.testing.assert_allclose(again, whole, atol=1e-3)


def test_a_brighter_probe_or_one_with_another_global_phase_is_the_same_probe():
    check_probe(small_raw(1e5).probe * torch.exp(torch.tensor(1j)), small_raw(1e4))


@pytest.mark.parametrize(
    ("probe", "says"),
    [
        (lambda own: torch.roll(own, 5, -1), r"has a correlation of 0[.0-9]* with the one the"),
        (lambda own: own.repeat(2, 1, 1), r"is \(1, 32, 32\), the model was trained for \(2, 32, "),
        (
            lambda own: torch.ones(1, 64, 64, dtype=own.dtype),
            r"is \(1, 32, 32\), the model was trained for \(1, 64, 64\): another side",
        ),
    ],
    ids=["another probe", "another number of modes", "another side"],
)
def test_a_model_of_another_probe_is_refused_with_the_files_name(probe, says):
    raw, settings = small_raw(1e4), config()
    with pytest.raises(ConfigError, match=f"small_scan.npz: its probe {says}"):
        reconstruct(PtychoModel(settings.model, probe(raw.probe)), raw, settings)


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("dose", [1e3, 1e5])
def test_the_deviance_of_the_truth_is_that_of_a_perfect_model_and_a_flat_object_is_worse(
    dose, modes
):
    raw, expected = small_raw(dose, modes=modes), geometry(modes=modes)[-1]
    scaled = torch.from_numpy(expected * dose / expected.sum((1, 2)).mean())
    came = data_deviance(raw.object_guess, raw)
    assert came == pytest.approx(float(perfect_deviance(scaled).mean()), rel=0.02)
    assert data_deviance(raw.object_guess * np.exp(1.3j), raw) == pytest.approx(came, rel=1e-4)
    assert data_deviance(torch.ones_like(raw.object_guess), raw) > 1.05 * came
    halves = [data_deviance(raw.object_guess, raw, np.arange(raw.n)[part::2]) for part in (0, 1)]
    assert np.mean(halves) == pytest.approx(came, rel=1e-6)
