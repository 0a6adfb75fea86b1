"""The choice of a prior: by photons held out, about any centre."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, seen_region, small_raw

from ptycho_torch.iteration import prior_search
from ptycho_torch.iteration.image_prior import ImagePrior, logs_of, object_of
from ptycho_torch.iteration.newton import Newton, start
from ptycho_torch.iteration.prior_search import FIRST, choose, clearly_less, split
from ptycho_torch.iteration.slopes import mean_deviance
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.geometry import Patterns


def parts(dose: float) -> tuple[RawDataTorch, Patterns, Patterns]:
    raw = small_raw(dose, across=6)
    return raw, *split(raw, raw.patterns(), 0.8, seed=0)


def test_the_two_parts_are_all_photons_under_their_shares_of_the_light():
    raw, fitted, judging = parts(1e3)
    every = torch.arange(raw.n)
    assert torch.equal(fitted.counts(every) + judging.counts(every), raw.counts(every))
    for part, share in ((fitted, 0.8), (judging, 0.2)):
        torch.testing.assert_close(
            part.geometry.fluence(), share * raw.geometry().fluence(), rtol=1e-4, atol=1e-4
        )
        photons = float(part.counts(every).sum() / raw.counts(every).sum())
        assert photons == pytest.approx(share, abs=0.01)


def test_where_photons_are_few_the_choice_beats_no_prior_held_out_and_in_truth():
    raw, fitted, judging = parts(300.0)
    seen = []
    chosen = choose(fitted, judging, tried=lambda: seen.append(1))
    best = float(chosen.deviances.mean())
    assert best == chosen.tried[chosen.prior] < chosen.tried[FIRST]
    assert best < min(chosen.tried.values()) + 1e-3
    assert len(seen) == len(chosen.tried) > 3 and next(iter(chosen.tried)) == FIRST
    free = object_of(Newton(fitted).solve(start(fitted), ImagePrior(0.0), (16,) * 5))
    assert best < 0.97 * mean_deviance(free, judging)
    region, truth = seen_region(raw), raw.object_guess.numpy()
    quality = [
        oracle.psnr_phase(fitted.geometry.embed(canvas).numpy()[region], truth[region])
        for canvas in (object_of(chosen.logs), free)
    ]
    assert quality[0] > quality[1] + 1


def test_brighter_data_ask_for_no_other_object():
    """A weight is a variance of the object: all doses choose one of the same order."""
    weights = [choose(*parts(dose)[1:]).prior.weight for dose in (1e3, 1e5)]
    assert 0.03 < weights[0] / weights[1] < 30


def of_another(change, dose: float, noise_seed: int) -> tuple[RawDataTorch, Patterns, Patterns]:
    """The parts of a scan of another object, made from the star's amplitude and phase."""
    image, probe, y, x, _ = geometry(across=6)
    other = change(np.abs(image), np.angle(image))
    expected = oracle.expected_counts(other, probe, y, x)
    scale = dose / expected.sum((1, 2)).mean()
    counts = np.random.default_rng(noise_seed).poisson(expected * scale)
    scan = replace(
        small_raw(across=6).scan,
        diffraction=np.sqrt(counts).astype(np.float32),
        object_guess=other.astype(np.complex64),
        probe=(probe * scale**0.5).astype(np.complex64),
    )
    raw = RawDataTorch(scan, Path("other.npz"))
    return raw, *split(raw, raw.patterns(), 0.8, seed=0)


@pytest.mark.parametrize("sign", [1, -1])
def test_amplitude_and_phase_are_coupled_as_the_object_couples_them_and_it_helps(sign, monkeypatch):
    raw, *both = of_another(lambda a, phase: a * np.exp(sign * 1j * phase), 1e4, 1)
    found = choose(*both)
    assert sign * found.law.correlation >= 0.6
    monkeypatch.setattr(prior_search, "CORRELATIONS", (0.0,))
    apart = choose(*both)
    assert apart.law.correlation == 0 and clearly_less(found.deviances, apart.deviances, 1.5)
    region, truth = seen_region(raw), np.abs(raw.object_guess.numpy())
    images = (both[0].geometry.embed(object_of(one.logs)).abs().numpy() for one in (found, apart))
    errors = [np.std((image - truth)[region]) for image in images]
    assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("noise_seed", range(3))
def test_an_amplitude_of_its_own_is_coupled_to_no_phase(noise_seed):
    _, *both = of_another(lambda a, phase: a[::-1, ::-1] * np.exp(1j * phase), 1e3, noise_seed)
    assert abs(choose(*both).law.correlation) < 0.6


def test_a_centre_that_is_the_truth_is_held_firmly_and_another_object_loosely():
    raw, fitted, judging = parts(1e3)
    truth = fitted.geometry.crop(raw.object_guess)
    fluence, first = fitted.geometry.fluence(), ImagePrior(100.0, 2.0, 3.0)
    right = choose(fitted, judging, logs_of(truth, fluence), first)
    wrong = choose(fitted, judging, logs_of(truth.flip(-1, -2), fluence), first)
    assert (
        right.prior.weight > 30 * wrong.prior.weight
        and right.deviances.mean() < wrong.deviances.mean()
    )
    assert right.deviances.mean() < 1.001 * mean_deviance(truth, judging)


def test_a_steeper_prior_pivots_where_it_balances_the_counts():
    """Of each slope the first to be tried has the same balance as one of another slope before."""
    _, fitted, judging = parts(1e4)
    tried = list(choose(fitted, judging).tried)
    fluence = Newton(fitted).fluence
    photons = float(fluence.square().sum() / fluence.sum())
    balance = [(photons / prior.weight) ** (1 / prior.slope) for prior in tried]
    slopes = [prior.slope for prior in tried]
    turned = [at for at, slope in enumerate(slopes) if slope not in slopes[:at]][1:]
    assert turned
    for at in turned:
        assert balance[at] == pytest.approx(min(balance[:at], key=lambda b: abs(b - balance[at])))


def test_a_gain_that_patterns_do_not_agree_on_is_none():
    generator = torch.Generator().manual_seed(0)
    others = 1 + torch.rand(200, generator=generator)
    noise = torch.randn(200, generator=generator) * 0.01
    assert clearly_less(others - 0.01 + noise, others)
    assert not clearly_less(others - noise + noise.mean(), others)
    assert not clearly_less(others, others) and not clearly_less(others + 0.01, others)


def test_the_same_photons_choose_the_same_bits():
    _, fitted, judging = parts(1e3)
    one, two = (choose(fitted, judging) for _ in range(2))
    assert one.prior == two.prior and torch.equal(one.logs, two.logs)
