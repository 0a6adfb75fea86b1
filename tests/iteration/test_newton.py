"""Gauss-Newton steps: slope and information against differences and dense matrices, and where they
end."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from small_scan import small_raw

from ptycho_torch.iteration import posterior
from ptycho_torch.iteration.gain import filtered
from ptycho_torch.iteration.image_prior import ImagePrior, object_of
from ptycho_torch.iteration.newton import Linearised, Newton, leading_modes, start
from ptycho_torch.iteration.posterior import deviations
from ptycho_torch.iteration.slopes import DARK
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns
from ptycho_torch.physics.noise import poisson_deviance

PRIOR = ImagePrior(5.0, slope=2.0, amplitude=4.0, length_px=20.0)
COUPLED = PRIOR._replace(correlation=-0.8)


def tiny(M: int, N: int, modes: int = 1, n: int = 5) -> tuple[Newton, torch.Tensor]:
    """A bright scan of few patterns in double precision on a canvas that is not square, masked, of
    uneven brightness, over a background; and the logs that it was drawn from."""
    generator = torch.Generator().manual_seed(M * 100 + N * 10 + modes)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    field = torch.randn(modes, M, M, 2, generator=generator, dtype=torch.float64)
    mask = torch.rand(N, N, generator=generator) > 0.2
    geometry = Geometry.of(
        M / 2 + torch.cat([torch.tensor([[0.2, 0.3], [2.4, 3.6]]), random(n - 2, 2) * 2]),
        8 * torch.view_as_complex(field),
        detector=Detector(N, mask, random(N, N)),
        brightness=0.5 + random(n),
    )
    logs = 0.2 * torch.randn(2, *geometry.shape[1:], generator=generator, dtype=torch.float64)
    expected = geometry.expected(object_of(logs), torch.arange(n))
    counts = torch.poisson(expected, generator=generator)
    return Newton(Patterns(geometry, counts.__getitem__)), logs


def away(newton: Newton, logs: torch.Tensor, prior: ImagePrior = PRIOR) -> float:
    """What the steps minimise, about an empty object."""
    held = (logs * filtered(logs, prior.precision(newton.shape, logs))).sum()
    return float(Linearised(newton, logs).deviance / 2 + held)


SIZES = [(8, 8, 1), (6, 4, 2), (9, 6, 2), (7, 7, 1)]


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


@pytest.mark.parametrize(("M", "N"), [(8, 8), (6, 4), (9, 6)])
def test_some_modes_information_is_the_dense_matrix_of_their_waves_for_all_of_the_light(M, N):
    newton, logs = tiny(M, N, modes=3, n=3)
    here, geometry, every = Linearised(newton, logs), newton.geometry, torch.arange(3)
    modes = torch.tensor([2, 0])
    expected = geometry.expected(object_of(logs), every)

    def counts(flat: torch.Tensor) -> torch.Tensor:
        return geometry.under(geometry.probe[modes]).expected(object_of(flat.view_as(logs)), every)

    by_logs = torch.autograd.functional.jacobian(counts, logs.flatten()).flatten(0, 2)
    dense = by_logs.T @ (by_logs / (expected.flatten()[:, None] + DARK)) / 2
    power = geometry.probe.abs().square().sum((1, 2))
    dense = dense * power.sum() / power[modes].sum()
    eye = torch.eye(logs.numel(), dtype=logs.dtype)
    found = torch.stack([here.information(row.view_as(logs), modes).flatten() for row in eye])
    torch.testing.assert_close(found, dense, rtol=1e-6, atol=1e-6 * float(dense.abs().max()))


def test_leading_modes_are_the_strongest_that_carry_most_of_the_light():
    probe = torch.ones(4, 5, 5) * torch.tensor([0.16, 0.5, 0.04, 0.3]).sqrt()[:, None, None]
    probe = torch.complex(probe, torch.zeros_like(probe))
    assert leading_modes(probe).tolist() == [0, 1, 3]
    assert leading_modes(probe[[1, 3, 0, 2]]) == slice(3)  # in order: no copy is needed
    assert leading_modes(probe[:2]) is None and leading_modes(probe[:1]) is None


def of_three_modes() -> Patterns:
    """A scan whose strongest mode carries 93 % of the light, the two others the rest."""
    patterns = small_raw(1e4, across=6).patterns()
    probe = patterns.geometry.probe[:1]
    shares = torch.tensor([0.93, 0.04, 0.03]).sqrt()[:, None, None]
    others = torch.cat([probe, probe.roll(3, -1), probe.roll(-4, -2)]) * shares
    geometry = patterns.geometry.under(others)
    truth = torch.exp(1j * 0.3 * torch.randn(geometry.shape, generator=torch.manual_seed(0)))
    counts = torch.poisson(
        geometry.expected(truth, torch.arange(len(geometry))), generator=torch.manual_seed(1)
    )
    return Patterns(geometry, counts.__getitem__)


def test_the_leading_modes_products_end_as_near_the_minimum_as_all_modes_products():
    patterns = of_three_modes()
    begin = start(patterns)
    leading, every = Newton(patterns), Newton(patterns)
    assert leading.leading == slice(2)
    every.leading = None
    least = away(every, every.solve(begin, PRIOR, (16,) * 8))
    rise = [away(every, one.solve(begin, PRIOR)) - least for one in (leading, every)]
    assert 0 <= rise[0] < max(2 * rise[1], 0.01 * (away(every, begin) - least))


def test_what_is_kept_about_an_object_changes_nothing():
    patterns = small_raw(1e3, across=5).patterns()
    searching, begin = Newton(patterns), start(patterns)
    assert searching.about(begin) is searching.about(begin)
    first = searching.solve(begin, PRIOR, (5,))
    assert searching.about(first).deviance == Linearised(searching, first).deviance
    firm = PRIOR._replace(weight=50.0)
    for prior in (firm, PRIOR, firm):
        again = searching.solve(first, prior, (5,))
        fresh = Newton(patterns)
        fresh.response = searching.response
        assert torch.equal(again, fresh.solve(first, prior, (5,)))


def test_the_information_is_symmetric_and_positive_on_a_scan():
    newton = Newton(small_raw(1e3, across=5).patterns())
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(2, *newton.shape, generator=generator) for _ in range(2))
    here = Linearised(newton, 0.1 * torch.randn(2, *newton.shape, generator=generator))
    across, back = (one * here.information(two)).sum(), (two * here.information(one)).sum()
    own = (one * here.information(one)).sum()
    assert float(across) == pytest.approx(float(back), abs=1e-5 * float(own)) and own > 0


@pytest.mark.parametrize("prior", [PRIOR, COUPLED])
def test_the_minimum_is_where_another_optimiser_ends(prior):
    newton, logs = tiny(8, 8)
    precision = prior.precision(newton.shape, logs)
    geometry, every = newton.geometry, torch.arange(len(newton.patterns))
    other = logs.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([other], max_iter=600, line_search_fn="strong_wolfe")

    def value() -> torch.Tensor:
        optimiser.zero_grad()
        expected = geometry.expected(object_of(other), every)
        loss = poisson_deviance(expected, newton.patterns.counts(every)).sum() / 2
        loss = loss + (other * filtered(other, precision)).sum()
        loss.backward()
        return loss

    optimiser.step(value)
    found = newton.solve(logs, prior, (40,) * 40)
    assert (found - other.detach()).square().mean().sqrt() < 5e-3 < 0.01 * logs.abs().max()


@pytest.mark.parametrize("prior", [PRIOR, COUPLED])
def test_a_few_steps_end_near_the_minimum(prior):
    patterns = small_raw(1e3, across=6).patterns()
    newton, states = Newton(patterns), []
    begin = start(patterns)
    first = newton.solve(begin, prior, observe=states.append)
    more = newton.solve(first, prior, (8, 16) * 4)
    assert [state.step for state in states] == [0, 8, 24]
    value = partial(away, newton, prior=prior)
    assert value(first) - value(more) < 0.05 * (value(begin) - value(more))
    lit = newton.fluence > 0.1 * newton.fluence.amax()
    ratio = (object_of(first) / object_of(more))[0][lit]
    assert (ratio / ratio.mean() - 1).abs().square().mean() ** 0.5 < 0.03
    pull = Linearised(newton, more).slope
    pull = pull + filtered(more, prior.precision(newton.shape, more))
    assert pull.norm() < 1e-2 * Linearised(newton, torch.zeros_like(more)).slope.norm()


def test_what_no_light_reaches_goes_to_the_priors_centre():
    raw = small_raw(1e4, across=4)
    wide = np.pad(raw.scan.object_guess, ((0, 50), (0, 0)), constant_values=1)
    raw = RawDataTorch(replace(raw.scan, object_guess=wide), Path("wide.npz"))
    patterns = raw.patterns(whole=True)
    newton, begin = Newton(patterns), start(patterns)
    centre = torch.full_like(begin, 0.2)
    found = newton.solve(begin, ImagePrior(5.0, 2.0, 4.0, 20.0), centre=centre)
    # It closes on itself: the middle of the dark rows is farthest from light.
    dark = slice(raw.object_guess.shape[0] - 30, raw.object_guess.shape[0] - 15)
    assert (begin[1, dark] - 0.2).abs().mean() > 0.1
    assert (found[:, dark] - 0.2).abs().max() < 0.03
    held = newton.solve(centre, ImagePrior(1e9, 2.0, 1.0, 20.0), (8,), centre)
    torch.testing.assert_close(held, centre, rtol=0, atol=1e-3)


def test_a_weight_of_zero_is_no_prior_and_explains_the_counts_better():
    patterns = small_raw(1e4, across=5).patterns()
    newton, begin = Newton(patterns), start(patterns)
    free, held = (newton.solve(begin, ImagePrior(weight), (8, 8)) for weight in (0.0, 30.0))
    assert torch.isfinite(free).all()
    assert Linearised(newton, free).deviance < Linearised(newton, held).deviance


def test_a_step_that_leads_uphill_is_halved_and_one_that_never_helps_is_not_taken(monkeypatch):
    patterns = small_raw(1e4, across=5).patterns()
    newton, step, taken = Newton(patterns), Linearised.step, []
    logs = start(patterns)

    def far(self: Linearised, *how: object) -> torch.Tensor:
        taken.append(6 * step(self, *how))
        return taken[-1]

    monkeypatch.setattr(Linearised, "step", far)
    found = newton.solve(logs, PRIOR, (6,))
    assert away(newton, logs + taken[0]) > away(newton, logs) > away(newton, found)
    halves = [n for n in range(1, 4) if torch.equal(found, logs + taken[0] / 2**n)]
    assert len(halves) == 1
    above = logs + 2 * taken[0] / 2 ** halves[0]
    assert away(newton, above) > away(newton, logs)  # and no farther than needed
    monkeypatch.setattr(Linearised, "step", lambda self, *how: -step(self, *how))
    states = []
    assert torch.equal(newton.solve(logs, PRIOR, (6, 6), observe=states.append), logs)
    assert [state.step for state in states] == [0, 0]


def test_the_same_patterns_give_the_same_bits():
    one, two = (
        Newton(patterns).solve(start(patterns), PRIOR, (5, 5))
        for patterns in (small_raw(1e3, across=5).patterns() for _ in range(2))
    )
    assert torch.equal(one, two)


def test_directions_that_are_made_again_give_what_kept_ones_give():
    patterns = small_raw(1e4, across=5, modes=2).patterns()
    again = replace(patterns, geometry=replace(patterns.geometry, passes=False))
    assert patterns.geometry.worth_keeping() and not again.geometry.worth_keeping()
    one, two = (Newton(p).solve(start(patterns), PRIOR, (5, 5)) for p in (patterns, again))
    torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prior", [PRIOR, COUPLED])
def test_deviations_are_those_of_the_dense_posterior(monkeypatch, prior):
    newton, logs = tiny(8, 8, n=6)
    here, size = Linearised(newton, logs), logs.numel()
    eye = torch.eye(size, dtype=logs.dtype)
    precision = prior.precision(newton.shape, logs)
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
    monkeypatch.setattr(posterior, "_STEPS", 25)  # no prior of images is this small a canvas's
    found = deviations(newton, logs, prior, samples=20)
    ratio = (found / expected).mean((1, 2))
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=0.12)
