"""Counts: drawing them, thinning them, scoring them. One Poisson model for all three.

Thinning a Poisson count n with probability p gives two *independent* Poisson counts of means p I
and (1 - p) I. A reconstruction made from the first can so be scored on the second without truth and
without favouring one that fits noise. Training, and every knob tuned without truth, rest on this.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

SMALLEST_COUNT = 1e-9  # keeps log and division finite where the model expects nothing


def draw_counts(expected: Float[Tensor, "..."], generator: torch.Generator) -> Float[Tensor, "..."]:
    """Poisson counts of the given means, drawn from `generator` only."""
    return torch.poisson(expected, generator=generator)


def thin_counts(
    counts: Float[Tensor, "n H W"], keep: float, seeds: Int[Tensor, " n"]
) -> Float[Tensor, "n H W"]:
    """The part of `counts` that a binomial draw with probability `keep` keeps; `counts` minus it is
    independent of it.

    Each pattern has its own seed, so that the same draw can be made again in another batch or
    chunk."""
    generator = torch.Generator(device=counts.device)
    kept = torch.zeros_like(counts)
    for pattern, out, seed in zip(counts, kept, seeds.tolist(), strict=True):
        lit = pattern > 0
        drawn = pattern[lit]
        generator.manual_seed(seed)
        out[lit] = torch.binomial(drawn, torch.full_like(drawn, keep), generator=generator)
    return kept


def poisson_deviance(
    expected: Float[Tensor, "..."], counts: Float[Tensor, "..."]
) -> Float[Tensor, "..."]:
    """Pixelwise Poisson deviance 2 (I - n + n log(n / I)), zero where I = n.

    Twice the negative log-likelihood above that of a model that fits every pixel: the same
    gradient, and a mean of about 1 a pixel for a perfect model where counts are large
    (:func:`perfect_deviance` gives it at any dose)."""
    expected = expected.clamp_min(SMALLEST_COUNT)
    # One logarithm of a ratio: half the time of xlogy, which is not vectorised, and no difference
    # of two large numbers.
    return 2 * (expected - counts + counts * torch.log(counts.clamp_min(SMALLEST_COUNT) / expected))


def amplitude_misfit(
    expected: Float[Tensor, "..."], counts: Float[Tensor, "..."], generator: torch.Generator
) -> tuple[float, float, float]:
    """sum |sqrt n - sqrt I| of counts n, that of counts drawn from the model's I, which no model
    could avoid, and sum sqrt n: quotients are the field's R and what counting alone makes of it."""
    root, drawn = expected.sqrt(), draw_counts(expected, generator).sqrt()
    parts = (counts.sqrt() - root).abs(), (drawn - root).abs(), counts.sqrt()
    own, by_counting, whole = (float(part.sum(dtype=torch.float64)) for part in parts)
    return own, by_counting, max(whole, SMALLEST_COUNT)


def perfect_deviance(expected: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Mean of :func:`poisson_deviance` when the counts really come from `expected`: what a perfect
    model scores.

    E[2 (n log n - n log I)] by summing the Poisson series, as far as the largest I asks of those
    that need about as many terms, for I above 50 by its expansion 1 + 1/(6 I)."""
    rate = expected.double().clamp_min(SMALLEST_COUNT)
    perfect, least = 1 + 1 / (6 * rate), 0.0
    for most in (0.5, 4.0, 16.0, 50.0):
        few = (rate > least) & (rate <= most)
        perfect[few], least = _by_series(rate[few]), most
    return perfect.to(expected.dtype)


def _by_series(rate: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    log_rate, share, total = torch.log(rate), torch.exp(-rate), torch.zeros_like(rate)
    most = float(rate.max()) if len(rate) else 0.0
    for n in range(1, int(most + 12 * most**0.5 + 16)):
        share.mul_(rate).div_(n)  # of exposures that count n
        total.addcmul_(share, math.log(n) - log_rate, value=2 * n)
    return total
