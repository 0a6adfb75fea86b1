"""Counts drawn, thinned and scored: moments and independence measured, closed forms and Monte Carlo
beside the code."""

import numpy as np
import pytest
import torch
from scipy import stats

from ptycho_torch.physics.noise import (
    amplitude_misfit,
    draw_counts,
    perfect_deviance,
    poisson_deviance,
    thin_counts,
)

DRAWS = 40_000


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("rate", [0.02, 1.5, 12.0, 900.0])
def test_drawn_counts_are_whole_with_the_mean_and_variance_of_a_poisson_law(rate):
    counts = draw_counts(torch.full((DRAWS,), rate), generator(1)).double().numpy()
    assert (counts == np.rint(counts)).all() and counts.min() >= 0
    # Five standard errors; the variance of a sample variance is (mu4 - mu2^2) / n, mu4 = rate + 3
    # rate^2.
    assert abs(counts.mean() - rate) < 5 * (rate / DRAWS) ** 0.5
    assert abs(counts.var() - rate) < 5 * ((rate + 2 * rate**2) / DRAWS) ** 0.5


def test_small_counts_follow_the_poisson_probabilities():
    counts = draw_counts(torch.full((DRAWS,), 1.5), generator(2)).numpy().astype(int)
    seen = np.bincount(np.minimum(counts, 7), minlength=8)
    law = np.append(stats.poisson.pmf(np.arange(7), 1.5), stats.poisson.sf(6, 1.5))
    assert stats.chisquare(seen, law * DRAWS).pvalue > 1e-3


def test_the_same_generator_state_draws_the_same_counts_and_another_seed_others():
    rates = torch.rand(50, generator=generator(0)) * 9
    assert torch.equal(draw_counts(rates, generator(3)), draw_counts(rates, generator(3)))
    assert not torch.equal(draw_counts(rates, generator(3)), draw_counts(rates, generator(4)))


@pytest.mark.parametrize("rate", [0.4, 6.0, 2000.0])
def test_thinned_halves_are_two_independent_poisson_draws(rate):
    keep = 0.7
    counts = draw_counts(torch.full((40, 25, 40), rate), generator(5))
    kept = thin_counts(counts, keep, torch.arange(40))
    rest = counts - kept
    assert (kept == kept.round()).all() and (kept >= 0).all() and (rest >= 0).all()
    for part, mean in ((kept, keep * rate), (rest, (1 - keep) * rate)):
        values = part.double().numpy().ravel()
        assert abs(values.mean() - mean) < 5 * (mean / values.size) ** 0.5
        assert abs(values.var() - mean) < 5 * ((mean + 2 * mean**2) / values.size) ** 0.5
    # Without the Poisson law of the total, e.g. of a copy of the counts, the two would be
    # correlated.
    correlation = np.corrcoef(kept.ravel(), rest.ravel())[0, 1]
    assert abs(correlation) < 5 / DRAWS**0.5


def test_a_pattern_is_thinned_the_same_in_any_batch_and_otherwise_under_another_seed():
    counts = draw_counts(torch.full((6, 5, 9), 4.0), generator(6))
    seeds = torch.tensor(
        [11, 22, 33, 44, 55, -66]
    )  # 64-bit words read as signed numbers may be negative
    whole = thin_counts(counts, 0.5, seeds)
    parts = torch.cat([thin_counts(counts[i : i + 2], 0.5, seeds[i : i + 2]) for i in (0, 2, 4)])
    assert torch.equal(whole, parts)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    assert torch.equal(thin_counts(counts[order], 0.5, seeds[order]), whole[order])
    assert not torch.equal(thin_counts(counts, 0.5, seeds + 1), whole)


def test_thinning_takes_nothing_from_global_random_state():
    counts = torch.full((2, 3, 3), 9.0)
    before = torch.get_rng_state()
    thin_counts(counts, 0.5, torch.tensor([1, 2]))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_deviance_is_twice_the_log_likelihood_ratio_to_the_saturated_model():
    rng = np.random.default_rng(7)
    rates, counts = rng.uniform(0.01, 30, (4, 6, 9)), rng.poisson(5, (4, 6, 9)).astype(float)
    saturated = np.where(counts > 0, stats.poisson.logpmf(counts, np.maximum(counts, 1e-300)), 0.0)
    expected = 2 * (saturated - stats.poisson.logpmf(counts, rates))
    came = poisson_deviance(torch.from_numpy(rates), torch.from_numpy(counts))
    np.testing.assert_allclose(came, expected, rtol=1e-9, atol=1e-9)


def test_the_deviance_is_zero_where_the_model_is_the_count_and_positive_elsewhere():
    counts = torch.tensor([0.0, 1.0, 7.0, 1e6], dtype=torch.float64)
    np.testing.assert_allclose(poisson_deviance(counts, counts), 0, atol=2e-9)
    for factor in (0.5, 0.99, 1.01, 2.0):
        assert (poisson_deviance(counts[1:] * factor, counts[1:]) > 0).all()


def test_a_photon_where_none_is_expected_costs_much_but_a_finite_amount():
    cost = poisson_deviance(torch.zeros(3), torch.tensor([0.0, 1.0, 5.0]))
    assert torch.isfinite(cost).all() and cost[0] < 1e-6 and cost[1] > 30


@pytest.mark.parametrize("counts", [[0.0, 6.0, 8.0], [0.4, 1e4, 1.0]])
def test_the_deviance_is_the_double_precision_formula_also_in_single_precision(counts):
    rates, counts = np.array([0.3, 1.01e4, 1e-4]), np.array(counts)
    log = np.log(np.where(counts > 0, counts, 1) / rates)
    came = poisson_deviance(
        torch.tensor(rates, dtype=torch.float32), torch.tensor(counts, dtype=torch.float32)
    )
    np.testing.assert_allclose(came, 2 * (rates - counts + counts * log), rtol=1e-3)


def test_the_gradient_of_the_deviance_is_the_numerical_one():
    rates = torch.tensor([0.3, 4.0, 9.5], dtype=torch.float64, requires_grad=True)
    counts = torch.tensor([0.0, 6.0, 8.0], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda expected: poisson_deviance(expected, counts), (rates,))


@pytest.mark.parametrize("rate", [1e-3, 0.1, 1.0, 7.0, 49.0, 51.0, 400.0])
def test_a_perfect_models_deviance_is_the_monte_carlo_mean(rate):
    counts = torch.from_numpy(np.random.default_rng(10).poisson(rate, 200_000)).double()
    scores = poisson_deviance(torch.full_like(counts, rate), counts).numpy()
    standard_error = scores.std() / len(scores) ** 0.5
    came = float(perfect_deviance(torch.tensor(rate, dtype=torch.float64)))
    assert abs(came - scores.mean()) < 4 * standard_error
    assert standard_error < 0.02 * came or rate < 0.01  # the comparison means something


def test_a_perfect_models_deviance_tends_to_one_and_joins_its_expansion_smoothly():
    rates = torch.tensor([49.999, 50.001, 1e4], dtype=torch.float64)
    below, above, bright = perfect_deviance(rates).tolist()
    assert abs(below - above) < 2e-4 and bright == pytest.approx(1, abs=1e-4)
    assert float(perfect_deviance(torch.zeros(()))) == pytest.approx(0, abs=1e-6)


def test_the_misfit_of_amplitudes_is_the_fields_R_and_what_counting_alone_leaves():
    generator = torch.Generator().manual_seed(3)
    expected = torch.full((200, 300), 40.0, dtype=torch.float64)
    counts = torch.poisson(expected, generator)
    own, by_counting, whole = amplitude_misfit(expected, counts, torch.Generator().manual_seed(1))
    # sqrt n of a large mean deviates by 1/2; the mean of |.| of a Gaussian is sqrt(2 / pi) of that
    assert own / counts.numel() == pytest.approx(0.5 * (2 / torch.pi) ** 0.5, rel=0.02)
    assert by_counting == pytest.approx(own, rel=0.02)
    assert whole == pytest.approx(float(counts.sqrt().sum()))
    wrong = amplitude_misfit(2 * expected, counts, torch.Generator().manual_seed(1))
    assert wrong[0] > 3 * wrong[1] and wrong[2] == whole
