"""What a stack of patterns says about the detector: one pass over the counts, no model of the
object.

A pattern is the power spectrum of a wave as wide as the probe, so that counts change over two
pixels or more wherever the probe fits its window: what stands out in a single pixel, in all
patterns, is the pixel's own doing. A detector that saturates piles counts up at one value, where
the tail of any mixture of Poisson counts falls."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter, rank_filter

from ptycho_torch.data.checks import pattern_chunks

_AROUND = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)  # the eight neighbours
# Of what is around it; photons in all that it should have seen.
DEAD_SHARE, DEAD_EXPECTED = 0.02, 50.0
# Times its third brightest neighbour; clusters of three still show.
HOT_TIMES, HOT_SIGMA, HOT_NEIGHBOUR = 4.0, 10.0, -3
# A peak or hole that the probe's own pattern has too, to this factor, is no fault.
PEAK_OF_MODEL = 3.0
# Values at the largest count; times what the counts just below it hold.
SATURATED_LEAST, SATURATED_TIMES = 8, 4.0


@dataclass(frozen=True, eq=False)
class CountStatistics:
    """Of photon counts diffraction^2, rounded."""

    photons: np.ndarray  # (n,) photons per pattern
    mean: np.ndarray  # (N, N) counts, mean over patterns
    peak: np.ndarray  # (N, N) largest count of each pixel
    values: np.ndarray  # the counts that occur, rising
    numbers: np.ndarray  # how often each occurs
    not_whole: float  # share of the counts that rounding moved by more than 0.05 + 1e-6 of them

    def summary(self) -> dict[str, float]:
        """The numbers that a bundle and a report keep; photons per pattern, counts per pixel."""
        low, median, high = np.percentile(self.photons, (0, 50, 100))
        empty = self.numbers[self.values == 0].sum() / self.numbers.sum()
        return {
            "patterns": len(self.photons),
            "photons_mean": float(self.photons.mean()),
            "photons_least": float(low),
            "photons_median": float(median),
            "photons_most": float(high),
            "brightest_pixel": float(self.values[-1]),
            "share_of_empty_pixels": float(empty),
            "not_whole": self.not_whole,
        }


def count_statistics(diffraction: np.ndarray) -> CountStatistics:
    """Statistics of amplitudes (n, N, N), perhaps mapped, in one pass."""
    photons, off, (total, peak) = [], 0, np.zeros((2, *diffraction.shape[1:]))
    values, numbers = np.empty(0), np.empty(0, np.int64)
    for _, block in pattern_chunks(diffraction):
        squares = np.square(block, dtype=np.float64)
        counts = np.rint(squares)
        off += int(np.count_nonzero(np.abs(squares - counts) > 0.05 + 1e-6 * squares))
        photons.append(counts.sum((1, 2)))
        total += counts.sum(0)
        peak = np.maximum(peak, counts.max(0))
        found, times = np.unique(counts, return_counts=True)
        values, place = np.unique(np.concatenate([values, found]), return_inverse=True)
        numbers = np.bincount(place, np.concatenate([numbers, times]), len(values)).astype(np.int64)
    mean, not_whole = total / len(diffraction), off / diffraction.size
    return CountStatistics(np.concatenate(photons), mean, peak, values, numbers, not_whole)


def dead_pixels(counts: CountStatistics, model: np.ndarray) -> np.ndarray:
    """(k, 2) rows and columns of pixels without photons where the 7 x 7 around them is bright.

    `model` (N, N) is a mean pattern calculated from the probe: a hole that it has too is not
    reported. What lies in a dark block more than three pixels wide cannot be told from a dark part
    of the pattern."""
    total, n = counts.mean * len(counts.photons), len(counts.photons)
    around, near = (median_filter(image, 7, mode="mirror") for image in (total, model))
    dead = (around >= DEAD_EXPECTED) & (total < DEAD_SHARE * around)
    return np.argwhere(dead & (n * model + 1 > (n * near + 1) * DEAD_SHARE * PEAK_OF_MODEL))


def hot_pixels(counts: CountStatistics, model: np.ndarray) -> np.ndarray:
    """(k, 2) rows and columns of pixels far brighter than their neighbours in several patterns.

    `model` as in :func:`dead_pixels`: a narrow peak of the probe's own pattern is not reported."""
    n = len(counts.photons)
    total = counts.mean * n - counts.peak  # a cosmic ray hits one pattern
    near = _near(counts.mean * n)
    hot = total > HOT_TIMES * near + HOT_SIGMA * np.sqrt(near + 1)
    peak_of_model = (n * model + 1) / (_near(n * model) + 1)
    return np.argwhere(hot & ((total + 1) / (near + 1) > PEAK_OF_MODEL * peak_of_model))


def saturation(counts: CountStatistics) -> tuple[float, int] | None:
    """(count at which the detector saturates, number of values there), or None."""
    top, piled = float(counts.values[-1]), int(counts.numbers[-1])
    width = np.ceil(np.sqrt(top))
    just_below = (counts.values < top) & (counts.values >= top - width)
    expected = counts.numbers[just_below].sum() / max(width, 1)
    least = min(piled, top) >= SATURATED_LEAST
    return (top, piled) if least and piled > SATURATED_TIMES * expected else None


def centre_offset(pattern: np.ndarray, model: np.ndarray) -> tuple[float, float]:
    """(rows, columns) px, at most N / 4, by which a mean pattern (N, N) lies off a calculated one.

    Where their square roots, on the part of the window that both cover, differ least: a
    cross-correlation would favour small shifts, since patterns fill the window. To a fraction of a
    pixel by a parabola through the minimum."""
    N, reach = len(pattern), len(pattern) // 4
    measured = np.sqrt(pattern)
    calculated = np.sqrt(np.maximum(model * pattern.sum() / model.sum(), 0))

    def correlated(image: np.ndarray, other: np.ndarray) -> np.ndarray:
        """sum_r image(r + s) other(r) for shifts s within the reach."""
        spectra = [np.fft.rfft2(one, (2 * N, 2 * N)) for one in (image, other)]
        whole = np.fft.irfft2(spectra[0] * spectra[1].conj(), (2 * N, 2 * N))
        return np.roll(whole, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]

    ones = np.ones_like(measured)
    squares = correlated(measured**2, ones) + correlated(ones, calculated**2)
    misfit = (squares - 2 * correlated(measured, calculated)) / correlated(ones, ones)
    at = np.unravel_index(np.argmin(misfit), misfit.shape)
    offset = []
    for axis, place in enumerate(at):
        line = np.take(misfit, at[1 - axis], axis=1 - axis)
        low, middle, high = line[np.clip((place - 1, place, place + 1), 0, 2 * reach)]
        bend = low - 2 * middle + high
        offset.append(float(place - reach + (0.5 * (low - high) / bend if bend > 0 else 0.0)))
    return offset[0], offset[1]


def _near(image: np.ndarray) -> np.ndarray:
    return rank_filter(image, HOT_NEIGHBOUR, footprint=_AROUND, mode="mirror")
