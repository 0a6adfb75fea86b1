"""How fine a detail is both there and right: contrast and noise of amplitude and phase, ring by
ring.

The Fourier ring correlation alone can be bought: a filter, such as a blur, leaves it as it is, and
so does a wrong level. Here two numbers must hold in every ring, of amplitude and phase alike; a and
t are the spectra of image and truth without their means:

    transfer      Re sum a conj(t) / sum |t|^2                  what share of the contrast arrives
    correlation   Re sum a conj(t) / sqrt(sum |a|^2 sum |t|^2)  1 / sqrt(2) where the noise is as
                                                                strong as the detail that arrives

A filter changes no correlation, so it cannot undo noise, and it lowers the transfer. The means may
differ by the truth's standard deviation at most: a level further off hides the contrast that it
carries. The `COARSE` lowest rings count as one: of a few Fourier pixels each, chance would decide.
"""

from collections.abc import Iterator

import numpy as np
from scipy import fft

from fly64lib.evaluation import rings
from fly64lib.evaluation.limits import Limits
from fly64lib.evaluation.metrics import Object, Pair, Part, metric
from fly64lib.evaluation.similarity import has_range

COARSE = 3  # lowest rings that are one with the mean
CORRELATION = 0.5**0.5  # at least: noise no stronger than what arrives
TRANSFER = 0.5, 1.5  # share of the truth's contrast that must arrive, and the most that may


@metric("resolution (contrast and noise)", "Nyquist", curve=True)
def resolved(pair: Pair) -> float:
    """Frequency, fraction of Nyquist 0..1, up to which amplitude and phase have at least half of
    the truth's contrast and no more noise than detail; linear between rings, 0 if the coarse
    structure or the level is wrong.

    A part in which the truth has no range, such as the amplitude of a pure phase object, is not
    asked for; nan without any."""
    return _reached([_margin(part) for part in _parts(pair)], pair.truth.shape)


def ring_numbers(part: Part) -> tuple[rings.Rings, rings.Rings]:
    """Transfer and correlation of each ring, the coarse band first."""
    window = rings.tukey_window(part.truth.shape)
    image, truth = (fft.fft2(rings.varying(one, window)) for one in (part.image, part.truth))
    cross, of_image, of_truth = (
        _banded(rings.ring_sum(power))
        for power in ((image * truth.conj()).real, np.abs(image) ** 2, np.abs(truth) ** 2)
    )
    tiny = np.finfo(float).tiny
    return cross / (of_truth + tiny), cross / (np.sqrt(of_image * of_truth) + tiny)


def resolved_limit(bound: Limits, truth: Object) -> float:
    """:func:`resolved` of the best that a bound allows on this truth, cropped to what is scored.

    With r the error's power over the truth's: an unbiased method has all contrast, and noise r; a
    posterior mean has 1 - r of the contrast, so half of it where the noise is as strong."""
    most, margins = {"unbiased": 1.0, "bayesian": 0.5}[bound.kind], []
    counts = rings.ring_sum(np.ones(truth.shape))
    pair = Pair(truth, truth)
    for name, part in (("phase", bound.phase), ("amplitude", bound.amplitude)):
        values = getattr(pair, name).truth
        if has_range(values, np.ptp(values)):
            _, signal = rings.ring_density(values)
            ends = 1, len(counts) - len(signal) - 1
            error, signal = (_banded(counts * np.pad(d, ends)) for d in (part.density, signal))
            margins.append(most - error / (signal + np.finfo(float).tiny))
    return _reached(margins, truth.shape)


def _parts(pair: Pair) -> Iterator[Part]:
    return (p for p in (pair.phase, pair.amplitude) if has_range(p.truth, np.ptp(p.truth)))


def _banded(sums: rings.Rings) -> rings.Rings:
    """Ring sums, those of the coarse band as one, without the mean's."""
    return np.concatenate([[sums[1 : COARSE + 1].sum()], sums[COARSE + 1 :]])


def _margin(part: Part) -> rings.Rings:
    """How far each ring is from failing; negative where it fails, in all where the level does."""
    (least, most), (transfer, correlation) = TRANSFER, ring_numbers(part)
    level = 1 - abs(part.error.mean()) / part.truth.std()
    numbers = correlation - CORRELATION, transfer - least, most - transfer
    return np.minimum.reduce([*numbers, np.full_like(transfer, level)])


def _reached(margins: list[rings.Rings], shape: tuple[int, int]) -> float:
    if not margins:
        return float("nan")
    frequency = rings.ring_frequencies(shape)[rings.scored_rings(shape)][COARSE - 1 :]
    return rings.reach(frequency, np.minimum.reduce(margins)[: len(frequency)])
