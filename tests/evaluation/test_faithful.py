"""The resolution of contrast and noise cannot be bought by a blur, by noise or by a wrong level."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scored_objects import noise, smooth

from fly64lib.evaluation.faithful import resolved, resolved_limit
from fly64lib.evaluation.limits import Limits, PartError
from fly64lib.evaluation.metrics import frc_half
from fly64lib.evaluation.rings import ring_frequencies, scored_rings

SHAPE = (96, 131)
AMPLITUDE, PHASE = 0.08 * smooth(1, 1.0, SHAPE), 0.25 * smooth(2, 1.0, SHAPE)
TRUTH = (1 + AMPLITUDE) * np.exp(1j * PHASE)
ONE_RING = 2 / 96


def noisy(level, seed=3):
    return TRUTH + level * noise(seed, SHAPE)


def blurred(image, sigma):
    return gaussian_filter(image.real, sigma) + 1j * gaussian_filter(image.imag, sigma)


def test_the_truth_has_all_of_it_and_a_flat_object_nothing():
    assert resolved(TRUTH, TRUTH) == 1
    assert resolved(np.exp(0.3j) * TRUTH, TRUTH) == 1
    assert resolved(np.ones(SHAPE, complex), TRUTH) == 0


@pytest.mark.parametrize("level", [0.01, 0.02, 0.04])
@pytest.mark.parametrize("sigma", [0.5, 0.8, 1.2, 1.6])
def test_a_blur_buys_nothing_though_it_leaves_the_ring_correlation_as_it_was(level, sigma):
    image = noisy(level)
    soft = blurred(image, sigma)
    assert resolved(soft, TRUTH) <= resolved(image, TRUTH) + ONE_RING
    if sigma > 1:
        assert resolved(soft, TRUTH) < 0.9 * resolved(image, TRUTH)
        assert frc_half(soft, TRUTH) > 0.7 * frc_half(image, TRUTH)


def test_a_blur_of_a_perfect_object_ends_where_it_passes_half_of_the_contrast():
    half = np.sqrt(2 * np.log(2)) / (np.pi * 1.5)  # of exp(-(pi q)^2 sigma^2 / 2), q of Nyquist
    assert resolved(blurred(TRUTH, 1.5), TRUTH) == pytest.approx(half, abs=1.5 * ONE_RING)


def test_noise_buys_nothing_and_a_sharpening_of_it_neither():
    levels = [resolved(noisy(level), TRUTH) for level in (0.02, 0.05, 0.1, 0.6)]
    assert levels == sorted(levels, reverse=True) and levels[0] > 1.3 * levels[2]
    assert levels[3] == 0
    image = noisy(0.04)
    sharp = 2 * image - blurred(image, 1.0)
    assert resolved(sharp, TRUTH) <= resolved(image, TRUTH) + ONE_RING


@pytest.mark.parametrize("wrong", [1.2, 0.8])
def test_a_wrong_level_of_the_amplitude_resolves_nothing_while_the_correlation_sees_none(wrong):
    level = (wrong + AMPLITUDE) * np.exp(1j * PHASE)
    assert resolved(level, TRUTH) == 0
    assert frc_half(level, TRUTH) > 0.9


def test_of_a_pure_phase_object_the_phase_alone_is_asked_for():
    truth = np.exp(1j * PHASE)
    assert resolved(truth, truth) == 1 and 0 < resolved(truth + 0.02 * noise(1, SHAPE), truth) < 1
    assert np.isnan(resolved(truth, np.ones(SHAPE, complex)))


def test_white_noise_ends_it_where_the_bound_of_that_noise_says():
    """Half of the power of complex noise is radial, half tangential."""
    level = 0.03
    density = np.full(SHAPE[0] // 2, level**2 / 2)
    frequency = ring_frequencies(SHAPE)[scored_rings(SHAPE)]
    of_phase, of_amplitude = (PartError(1, 0, 1, density) for _ in range(2))
    bound = Limits("unbiased", of_phase, of_amplitude, frequency, density, density, True, 1.0, 1)
    found = np.median([resolved(noisy(level, seed), TRUTH) for seed in range(9)])
    assert resolved_limit(bound, TRUTH) == pytest.approx(found, abs=3 * ONE_RING)
    with_prior = bound._replace(kind="bayesian")
    assert 0 < resolved_limit(with_prior, TRUTH) < resolved_limit(bound, TRUTH)
