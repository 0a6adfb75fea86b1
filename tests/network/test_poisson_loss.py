"""The training loss of a canvas: the oracle's value, autograd's gradient, whatever the grid, the
modes and the canvases."""

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, random_patterns, small_raw

from ptycho_torch.network.poisson_loss import poisson_loss
from ptycho_torch.physics import geometry as geometry_module
from ptycho_torch.physics.geometry import Patterns
from ptycho_torch.physics.noise import poisson_deviance


def scored(patterns: Patterns, canvas: torch.Tensor, photons: float) -> tuple[float, np.ndarray]:
    """Loss and gradient."""
    canvas = canvas.clone().requires_grad_()
    loss = poisson_loss(canvas, patterns, torch.tensor(photons))
    (3 * loss).backward()
    return loss.item(), (canvas.grad / 3).numpy()


def by_autograd(patterns: Patterns, canvas: torch.Tensor) -> tuple[float, np.ndarray]:
    """Deviance and its gradient, every operation left to autograd."""
    canvas, every = canvas.clone().requires_grad_(), torch.arange(len(patterns))
    expected = patterns.geometry.expected(canvas, every)
    deviance = poisson_deviance(expected, patterns.counts(every)).sum()
    deviance.backward()
    return deviance.item(), canvas.grad.numpy()


@pytest.mark.parametrize("N", [6, 7])
@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("canvases", [1, 2])
@pytest.mark.parametrize("rate", [0.1, 9.0])
def test_loss_and_gradient_are_autograds_however_many_patterns_are_held_at_once(
    N, modes, canvases, rate, monkeypatch
):
    patterns, canvas = random_patterns(N, modes, canvases, rate)
    value, slope = by_autograd(patterns, canvas)
    for chunk in (64, 2, 1):
        monkeypatch.setattr(geometry_module, "CHUNK", chunk)
        loss, found = scored(patterns, canvas, 50.0)
        assert loss == pytest.approx(value / 100, rel=1e-12)
        np.testing.assert_allclose(found, slope / 100, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_the_numerical_one():
    patterns, canvas = random_patterns(6, canvases=2)
    photons = torch.tensor(50.0)
    assert torch.autograd.gradcheck(
        lambda canvas: poisson_loss(canvas, patterns, photons), (canvas.requires_grad_(),)
    )


@pytest.mark.parametrize("modes", [1, 2])
def test_the_loss_of_an_object_is_the_oracles(modes):
    raw, (image, probe, y, x, _) = small_raw(1e4, modes=modes), geometry(modes=modes)
    patterns, counts = raw.patterns(), raw.counts(slice(None)).double()
    image = image + 0.1 * oracle.complex_field(np.random.default_rng(3), *image.shape)
    scale = float(raw.probe.abs().square().sum()) / (np.abs(probe) ** 2).sum()
    expected = torch.from_numpy(oracle.expected_counts(image, probe * scale**0.5, y, x))
    value = 0.5 * float(poisson_deviance(expected, counts).sum() / counts.sum())
    canvas = patterns.geometry.crop(torch.from_numpy(image).to(torch.complex64))
    assert poisson_loss(canvas, patterns, counts.sum()).item() == pytest.approx(value, rel=1e-4)


def test_neither_the_loss_nor_its_gradient_grows_with_the_dose():
    patterns, canvas = random_patterns(6)
    place, dose = patterns.geometry, 1e2
    brighter = Patterns(place.under(place.probe * dose**0.5), lambda i: dose * patterns.counts(i))
    loss, slope = scored(patterns, canvas, 50.0)
    same, as_steep = scored(brighter, canvas, 50.0 * dose)
    assert loss == pytest.approx(same, rel=1e-8)
    np.testing.assert_allclose(slope, as_steep, rtol=1e-6)


@pytest.mark.parametrize("photons", [0.0, 3.0])
def test_a_canvas_without_light_and_a_pattern_without_photons_give_finite_numbers(photons):
    patterns, canvas = random_patterns(6)
    place = patterns.geometry.under(patterns.geometry.probe.to(torch.complex64))
    patterns = Patterns(place, lambda i: torch.full((len(i), 6, 6), photons))
    for level in (0, 1):
        start = torch.full(canvas.shape, level, dtype=torch.complex64)
        loss, slope = scored(patterns, start, photons * 3 * 36)
        assert np.isfinite(loss) and np.isfinite(slope).all()
