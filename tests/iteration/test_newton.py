"""Gauss-Newton steps: slope and information against differences and dense matrices, and where they
end."""

from dataclasses import replace

import pytest
import torch
from small_scan import small_raw

from ptycho_torch.iteration import posterior
from ptycho_torch.iteration.image_prior import ImagePrior, filtered, object_of
from ptycho_torch.iteration.newton import Linearised, Newton, start
from ptycho_torch.iteration.posterior import deviations
from ptycho_torch.iteration.slopes import DARK
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns

PRIOR = ImagePrior(5.0, slope=2.0, amplitude=4.0, length_px=20.0)


def tiny(M: int, N: int, modes: int = 1, n: int = 5) -> tuple[Newton, torch.Tensor]:
    """A bright scan of few patterns in double precision, masked, of uneven brightness; and logs."""
    generator = torch.Generator().manual_seed(M * 100 + N * 10 + modes)

    def field(*shape: int) -> torch.Tensor:
        parts = torch.randn(*shape, 2, generator=generator, dtype=torch.float64)
        return torch.view_as_complex(parts)

    positions = M / 2 + torch.rand(n, 2, generator=generator, dtype=torch.float64) * 5
    mask = torch.rand(N, N, generator=generator) > 0.2
    geometry = Geometry.of(
        positions,
        8 * field(modes, M, M),
        detector=Detector(N, mask),
        brightness=0.5 + torch.rand(n, generator=generator, dtype=torch.float64),
    )
    logs = 0.2 * torch.randn(2, *geometry.shape[1:], generator=generator, dtype=torch.float64)
    expected = geometry.expected(object_of(logs), torch.arange(n))
    counts = torch.poisson(expected, generator=generator)
    return Newton(Patterns(geometry, counts.__getitem__)), logs


SIZES = [(8, 8, 1), (9, 6, 2), (8, 4, 1), (7, 5, 2)]


@pytest.mark.parametrize(("M", "N", "modes"), SIZES)
def test_the_slope_is_half_that_of_the_deviance(M, N, modes):
    newton, logs = tiny(M, N, modes)
    logs = logs + 0.1
    here = Linearised(newton, logs)
    change = torch.randn(logs.shape, dtype=logs.dtype, generator=torch.Generator().manual_seed(1))

    def deviance(t: float) -> float:
        return float(Linearised(newton, logs + t * change).deviance)

    rise = (deviance(1e-5) - deviance(-1e-5)) / 2e-5
    # a step's slope is by the conjugate: twice it is the derivative of the likelihood, which is
    # half of the deviance; a floor lies under dark pixels
    assert 2 * float((here.slope * change).sum()) == pytest.approx(rise / 2, rel=2e-3)


@pytest.mark.parametrize(("M", "N", "modes"), SIZES)
def test_the_information_is_the_dense_fisher_matrix(M, N, modes):
    newton, logs = tiny(M, N, modes, n=3)
    here, geometry, every = Linearised(newton, logs), newton.geometry, torch.arange(3)
    expected = geometry.expected(object_of(logs), every)

    def counts(flat: torch.Tensor) -> torch.Tensor:
        return geometry.expected(object_of(flat.view_as(logs)), every)

    by_logs = torch.autograd.functional.jacobian(counts, logs.flatten()).flatten(0, 2)
    dense = by_logs.T @ (by_logs / (expected.flatten()[:, None] + DARK)) / 2
    eye = torch.eye(logs.numel(), dtype=logs.dtype)
    found = torch.stack([here.information(row.view_as(logs)).flatten() for row in eye])
    torch.testing.assert_close(found, dense, rtol=1e-6, atol=1e-6 * float(dense.abs().max()))


def test_the_end_is_a_minimum_and_more_steps_stay_there():
    patterns = small_raw(1e3).patterns()
    newton = Newton(patterns)
    first = newton.solve(start(patterns), PRIOR, (8, 16))
    more = newton.solve(first, PRIOR, (20, 20, 20))
    lit = newton.fluence > 0.1 * newton.fluence.amax()
    assert (object_of(first) - object_of(more))[0][lit].abs().square().mean() ** 0.5 < 0.02
    here, precision = Linearised(newton, more), PRIOR.precision(newton.shape, more)
    pull = here.slope + filtered(more, precision)
    begin = Linearised(newton, torch.zeros_like(more)).slope
    assert pull.norm() < 1e-2 * begin.norm()


def test_what_no_light_reaches_follows_the_prior_alone_and_zero_weight_is_no_prior():
    patterns = small_raw(1e5).patterns()
    newton = Newton(patterns)
    free = newton.solve(start(patterns), ImagePrior(0.0), (8,))
    assert torch.isfinite(free).all()
    centre = torch.full_like(free, 0.05)
    held = newton.solve(centre, ImagePrior(1e9, 2.0, 1.0, 20.0), (8,), centre)
    torch.testing.assert_close(held, centre, rtol=0, atol=1e-3)


def test_a_step_that_leads_uphill_is_halved_and_one_that_never_helps_is_not_taken(monkeypatch):
    patterns = small_raw(1e4).patterns()
    newton = Newton(patterns)
    logs = newton.solve(start(patterns), PRIOR, (8,))
    step = Linearised.step
    monkeypatch.setattr(Linearised, "step", lambda self, *how: 3 * step(self, *how))
    states = []
    newton.solve(logs, PRIOR, (6, 6), observe=states.append)
    assert states[-1].deviance <= states[0].deviance * 1.001
    monkeypatch.setattr(Linearised, "step", lambda self, *how: -step(self, *how))
    assert torch.equal(newton.solve(logs, PRIOR, (6,)), logs)


def test_directions_that_are_made_again_give_what_kept_ones_give():
    patterns = small_raw(1e4, modes=2).patterns()
    again = replace(patterns, geometry=replace(patterns.geometry, passes=False))
    one, two = (Newton(p).solve(start(patterns), PRIOR, (5,)) for p in (patterns, again))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


def test_deviations_are_those_of_the_dense_posterior(monkeypatch):
    newton, logs = tiny(8, 8, n=6)
    here, size = Linearised(newton, logs), logs.numel()
    eye = torch.eye(size, dtype=logs.dtype)
    precision = PRIOR.precision(newton.shape, logs)
    dense = torch.stack(
        [
            (here.information(r.view_as(logs)) + filtered(r.view_as(logs), precision)).flatten()
            for r in eye
        ]
    )
    covariance = torch.linalg.inv(2 * dense)
    light = torch.zeros_like(logs)
    light[1] = newton.fluence / newton.fluence.sum()  # the global phase is taken out
    phase = torch.zeros_like(logs)
    phase[1] = 1
    remove = eye - torch.outer(phase.flatten(), light.flatten())
    expected = (remove @ covariance @ remove.T).diagonal().view_as(logs)
    expected = posterior._blurred(expected).sqrt()  # as the samples' squares are
    monkeypatch.setattr(posterior, "_STEPS", 60)  # no prior of images is this small a canvas's
    found = deviations(newton, logs, PRIOR, samples=300)
    ratio = (found / expected).mean((1, 2))
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=0.08)
