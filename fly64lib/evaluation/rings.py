"""Rings of equal spatial frequency: the Fourier ring correlation, spectral densities, and where a
correlation falls under a threshold.

Rings are 1 / min(H, W) cycles per px wide, circles in frequency for non-square images as well. Ring
0 holds the mean; Nyquist is ring min(H, W) // 2."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import fft
from scipy.signal.windows import hann, tukey

from fly64lib.evaluation.gauge import TooSmall, has_contrast
from ptycho_torch.errors import DataContractError

TUKEY_TAPER = 0.25  # share of each side under the two Hann edges of the FRC window
SLOW_RINGS = 2  # lowest rings that a slow error may spoil without counting as lost resolution

Rings = Float[np.ndarray, " rings"]
Window = Float[np.ndarray, "H W"]


class FRC(NamedTuple):
    """Fourier ring correlation from the first ring outwards; ring 0, which holds the mean, is left
    out. `n_pixels` is a ring's number of independent Fourier pixels, (sum w^2)^2 / (N sum w^4) of
    all, as the window w makes neighbours alike: those in other rings count too, so it is a lower
    bound, and a threshold on the safe side."""

    frequency: Rings  # fraction of Nyquist
    correlation: Rings
    n_pixels: Rings


def frequencies(shape: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """Frequency of each FFT bin, fraction of Nyquist."""
    return 2 * np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))


def ring_numbers(shape: tuple[int, int]) -> Int[np.ndarray, " pixels"]:
    """Ring of each FFT bin, one row of the image behind the other."""
    return np.rint(min(shape) / 2 * frequencies(shape)).astype(int).ravel()


def ring_frequencies(shape: tuple[int, int]) -> Rings:
    """Frequency of every ring from 0 to the corner, fraction of Nyquist."""
    return np.arange(ring_numbers(shape).max() + 1) * 2 / min(shape)


def ring_sum(values: Float[np.ndarray, "H W"]) -> Rings:
    return np.bincount(ring_numbers(values.shape), values.ravel())


def ring_mean(values: Float[np.ndarray, "H W"]) -> Rings:
    return ring_sum(values) / np.bincount(ring_numbers(values.shape))


def scored_rings(shape: tuple[int, int]) -> slice:
    """The rings from the first to Nyquist."""
    return slice(1, min(shape) // 2 + 1)


def tukey_window(shape: tuple[int, int], taper: float = TUKEY_TAPER) -> Window:
    return np.outer(*(tukey(size, taper) for size in shape))


def hann_window(shape: tuple[int, int]) -> Window:
    """Without its two zeros on each axis."""
    return np.outer(*(hann(size + 2)[1:-1] for size in shape))


def varying(image: np.ndarray, window: Window) -> np.ndarray:
    """The image without its mean (weighted by the window), through the window."""
    return window * (image - np.average(image, weights=window))


def frc_curve(a: np.ndarray, b: np.ndarray, apodize: bool = True) -> FRC:
    """Re sum A conj(B) / sqrt(sum |A|^2 sum |B|^2) over rings of the spectra of two complex images
    (H, W); Saxton & Baumeister, J. Microsc. 127, 127 (1982).

    The mean is taken out first, then a Tukey window (`TUKEY_TAPER`) is laid on, so that neither a
    common mean nor the jump at the border correlates. The real part is taken: the phase between the
    images is to be removed before, and the modulus would be positive for noise. An image without
    contrast has no spectrum: 0 on all rings, so a flat object resolves nothing."""
    alike = np.shape(a) == np.shape(b) and np.ndim(a) == 2 and min(np.shape(a)) >= 4
    if not alike or not (np.isfinite(a).all() and np.isfinite(b).all()):
        small = np.shape(a) == np.shape(b) and np.ndim(a) == 2 and min(np.shape(a)) < 4
        raise (TooSmall if small else DataContractError)(
            f"FRC: images of {np.shape(a)} and {np.shape(b)}; two of one shape (H, W) with at least"
            " 4 px a side and without NaN or infinity are needed"
        )
    shape = np.shape(a)
    window = tukey_window(shape, TUKEY_TAPER if apodize else 0.0)
    seen = (varying(o, window) if has_contrast(o) else np.zeros(shape) for o in (a, b))
    first, second = map(fft.fft2, seen)
    power = np.sqrt(ring_sum(np.abs(first) ** 2) * ring_sum(np.abs(second) ** 2))
    cross = ring_sum((first * np.conj(second)).real)
    correlation = np.divide(cross, power, out=np.zeros_like(power), where=power > 0)
    independent = (window**2).sum() ** 2 / (window.size * (window**4).sum())
    pixels = independent * ring_sum(np.ones(shape))
    rings = scored_rings(shape)
    return FRC(ring_frequencies(shape)[rings], correlation[rings], pixels[rings])


def ring_density(image: np.ndarray) -> tuple[Rings, Rings]:
    """Frequencies (fraction of Nyquist), spectral density (mean power per pixel) of an image
    (H, W) on the FRC's rings, mean and window as for the FRC. White noise of variance v has v."""
    window, rings = tukey_window(np.shape(image)), scored_rings(np.shape(image))
    power = np.abs(fft.fft2(varying(image, window))) ** 2 / (window**2).sum()
    return ring_frequencies(np.shape(image))[rings], ring_mean(power)[rings]


def half_bit_threshold(n_pixels: np.ndarray | float) -> np.ndarray | float:
    """FRC where a ring of `n_pixels` has half a bit a pixel: SNR (sqrt 2 - 1) / 2 in each of two
    halves; van Heel & Schatz, J. Struct. Biol. 151, 250 (2005)."""
    root = np.sqrt(n_pixels)
    return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)


def first_crossing(curve: FRC, threshold: np.ndarray | float) -> float:
    """Frequency at which the correlation, once above `threshold`, first falls under it; linear
    between rings, 1 if none falls.

    The lowest `SLOW_RINGS` may lie under it: a slow error over the whole field is no loss of
    resolution (the other metrics see it). 0 if the next does as well."""
    above = curve.correlation - threshold
    reached = np.flatnonzero(above[: SLOW_RINGS + 1] >= 0)
    if reached.size == 0:
        return 0.0
    return reach(curve.frequency[reached[0] :], above[reached[0] :])


def reach(frequency: Rings, margin: Rings) -> float:
    """Frequency at which a margin first falls under 0, linear between rings; 1 if it never does, 0
    if the first is under it."""
    under = np.flatnonzero(margin < 0)
    if under.size == 0:
        return 1.0
    k = under[0]
    if k == 0:
        return 0.0
    part = margin[k - 1] / (margin[k - 1] - margin[k])
    return float(frequency[k - 1] + part * (frequency[k] - frequency[k - 1]))
