"""The training loss of a canvas: the oracle's value, autograd's gradient, whatever the grid, the
modes and the fields."""

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, small_raw

from ptycho_torch.iteration import canvas as canvas_module
from ptycho_torch.iteration.canvas import Patterns
from ptycho_torch.network.features import view_layout
from ptycho_torch.network.poisson_loss import poisson_loss
from ptycho_torch.physics import optics
from ptycho_torch.physics.noise import poisson_deviance
from ptycho_torch.physics.patches import cut


def drawn(
    N: int, modes: int = 1, fields: int = 1, rate: float = 9.0, seed: int = 2
) -> tuple[Patterns, torch.Tensor, torch.Tensor]:
    """Patterns of noise in double precision on a canvas that is not square, their photons, and a
    canvas."""
    rng = np.random.default_rng(seed)
    probe = torch.from_numpy(oracle.complex_field(rng, modes, N, N)) * rate**0.5
    shape = (fields, N + 3, N + 6)
    address = torch.tensor(
        [
            [field, row, column]
            for field in range(fields)
            for row, column in ((0, 0), (1, 4), (3, 2))
        ]
    )
    counts = torch.from_numpy(rng.poisson(rate, (len(address), N, N)).astype(float))
    rest = torch.from_numpy(rng.uniform(-0.5, 0.5, (len(address), 2)))
    return (
        Patterns(lambda i: counts[i], address, rest, probe, shape, passes=False),
        counts.sum(),
        torch.from_numpy(oracle.complex_field(rng, *shape)),
    )


def by_autograd(
    patterns: Patterns, photons: torch.Tensor, canvas: torch.Tensor
) -> tuple[float, torch.Tensor]:
    """Loss and gradient, every operation left to autograd."""
    canvas, every = canvas.clone().requires_grad_(), torch.arange(len(patterns))
    expected = optics.expected_counts(
        cut(canvas, patterns.address, patterns.N), patterns.probes(every)
    )
    loss = 0.5 * poisson_deviance(expected, patterns.measured(every)).sum() / photons
    loss.backward()
    return loss.item(), canvas.grad


@pytest.mark.parametrize("N", [7, 8])
@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("fields", [1, 2])
@pytest.mark.parametrize("rate", [0.1, 9.0])
def test_loss_and_gradient_are_autograds(N, modes, fields, rate):
    patterns, photons, canvas = drawn(N, modes, fields, rate)
    value, slope = by_autograd(patterns, photons, canvas)
    canvas.requires_grad_()
    loss = poisson_loss(canvas, patterns, photons)
    (3 * loss).backward()
    assert loss.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(canvas.grad, 3 * slope, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_the_numerical_one():
    patterns, photons, canvas = drawn(8, 2, 2)
    assert torch.autograd.gradcheck(
        lambda canvas: poisson_loss(canvas, patterns, photons), (canvas.requires_grad_(),)
    )


@pytest.mark.parametrize("modes", [1, 2])
def test_the_loss_of_an_object_is_the_oracles(modes):
    raw, (image, probe, y, x, _) = small_raw(1e4, modes=modes), geometry(modes=modes)
    layout, counts = view_layout(raw.positions, raw.N), raw.counts(slice(None)).double()
    patterns = Patterns(
        raw.counts, layout.address, layout.residual_px, raw.probe, layout.shape, passes=False
    )
    rng = np.random.default_rng(3)
    image = image + 0.1 * oracle.complex_field(rng, *image.shape)
    scale = float(raw.probe.abs().square().sum()) / (np.abs(probe) ** 2).sum()
    expected = torch.from_numpy(oracle.expected_counts(image, probe * scale**0.5, y, x))
    value = 0.5 * float(poisson_deviance(expected, counts).sum() / counts.sum())
    row, column = layout.origin[0].tolist()
    canvas = torch.from_numpy(image)[
        None, row : row + layout.shape[1], column : column + layout.shape[2]
    ].to(torch.complex64)
    assert poisson_loss(canvas, patterns, counts.sum()).item() == pytest.approx(value, rel=1e-4)


def test_neither_the_loss_nor_its_gradient_grows_with_the_dose():
    found = []
    for dose in (1.0, 1e2):
        patterns, photons, canvas = drawn(8)
        scaled = Patterns(
            lambda i, p=patterns, dose=dose: dose * p.counts(i),
            patterns.address,
            patterns.residual_px,
            patterns.probe * dose**0.5,
            patterns.canvas_shape,
            passes=False,
        )
        canvas.requires_grad_()
        loss = poisson_loss(canvas, scaled, dose * photons)
        loss.backward()
        found.append((loss.item(), canvas.grad.numpy()))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-8)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-6)


@pytest.mark.parametrize("counts", [0.0, 3.0])
def test_a_canvas_without_light_and_a_pattern_without_photons_give_finite_numbers(counts):
    patterns, _, canvas = drawn(8)
    patterns = Patterns(
        lambda i: torch.full((len(i), 8, 8), counts),
        patterns.address,
        patterns.residual_px.float(),
        patterns.probe.to(torch.complex64),
        patterns.canvas_shape,
        passes=False,
    )
    for start in (torch.zeros_like(canvas), torch.ones_like(canvas)):
        start = start.to(torch.complex64).requires_grad_()
        loss = poisson_loss(start, patterns, torch.tensor(counts * 3 * 64))
        loss.backward()
        assert torch.isfinite(loss) and torch.isfinite(start.grad.abs()).all()


@pytest.mark.parametrize("chunk", [1, 2])
def test_the_number_of_patterns_held_at_once_does_not_matter(chunk, monkeypatch):
    patterns, photons, canvas = drawn(8, 2, 2)
    value, slope = by_autograd(patterns, photons, canvas)
    monkeypatch.setattr(canvas_module, "CHUNK", chunk)
    loss = poisson_loss(canvas.requires_grad_(), patterns, photons)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-12)
    np.testing.assert_allclose(canvas.grad, slope, rtol=1e-6, atol=1e-9)
