"""Metrics of a complex object against the truth, each stated and each the same for every method.

`METRICS` maps a name to a function of (reconstruction, truth), both complex (H, W) and already
cropped to the scored region, aligned inside with the gauge of a known probe
(:mod:`fly64lib.evaluation.gauge`). :func:`score` gives all of them from one alignment, in either
gauge; :func:`score_table` adds the flat object, the truth and the skill.

Phase. The error is wrapped, arg(reconstruction conj(truth)) in (-pi, pi]: no unwrapping of a noisy
image decides a number. (MS-)SSIM compares the truth's unwrapped phase, from its minimum up, with
the same plus the wrapped error. Amplitude. |O| as it is: with a known probe no scale is free, and
none is removed. Range. The truth's max - min over the region (phase: unwrapped, rad; amplitude:
|O|), never 2 pi or 255, which flatter. Where the truth has no range (a pure phase object's
amplitude), PSNR and SSIM do not exist: nan. A perfect PSNR is inf. JSON has neither;
:func:`json_rows` makes them null."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Complex, Float
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.signal.windows import tukey
from skimage.restoration import unwrap_phase

from fly64lib.evaluation.gauge import MAX_SHIFT_PX, MIN_SIDE_PX, NO_CONTRAST, align, has_contrast
from ptycho_torch.errors import DataContractError

SSIM_SIGMA_PX, SSIM_RADIUS_PX = 1.5, 5  # Wang et al. 2004: an 11 x 11 px window
MS_SSIM_WEIGHTS = (
    np.array([0.0448, 0.2856, 0.3001]) / 0.6305
)  # the first three of Wang et al. 2003, sum made 1
TUKEY_TAPER = 0.25  # share of each side under the two Hann edges of the FRC window
SLOW_RINGS = 2  # lowest rings that a slow error may spoil without counting as lost resolution
_ROUNDING = 1e-7  # of the range: what float32 files lose; smaller errors count as none

Image = Float[np.ndarray, "H W"]
Rings = Float[np.ndarray, " rings"]
Metric = Callable[[np.ndarray, np.ndarray], float]
METRICS: dict[str, Metric] = {}
_OF_PAIR: dict[str, Callable[["Pair"], float]] = {}


@dataclass(frozen=True, eq=False)
class Pair:
    """An aligned reconstruction and the truth, with what several metrics need."""

    image: Complex[np.ndarray, "H W"]
    truth: Complex[np.ndarray, "H W"]

    @classmethod
    def aligned(
        cls, reconstruction: np.ndarray, truth: np.ndarray, gauge: str = "known_probe"
    ) -> "Pair":
        """Align; with an unknown probe also leave out the border of `MAX_SHIFT_PX` that a shift may
        have made up."""
        image, truth = align(reconstruction, truth, gauge).image, np.asarray(truth, np.complex128)
        keep = slice(MAX_SHIFT_PX, -MAX_SHIFT_PX) if gauge == "unknown_probe" else slice(None)
        return cls(image[keep, keep], truth[keep, keep])

    @cached_property
    def phase_error(self) -> Image:
        return np.angle(self.image * self.truth.conj())

    @cached_property
    def true_phase(self) -> Image:
        """Unwrapped, from 0 up: SSIM's luminance term depends on the zero, which a phase has
        not."""
        phase = unwrap_phase(np.angle(self.truth), rng=0)
        return phase - phase.min()

    @cached_property
    def amplitudes(self) -> tuple[Image, Image]:
        return np.abs(self.image), np.abs(self.truth)

    @cached_property
    def frc(self) -> "FRC":
        return frc_curve(self.image, self.truth)


def _metric(of_pair: Callable[[Pair], float]) -> Metric:
    """Enter a function of an aligned pair into `METRICS`, as a function of (reconstruction,
    truth)."""

    def metric(reconstruction: np.ndarray, truth: np.ndarray) -> float:
        return of_pair(Pair.aligned(reconstruction, truth))

    metric.__name__ = metric.__qualname__ = of_pair.__name__
    metric.__doc__ = of_pair.__doc__
    METRICS[of_pair.__name__], _OF_PAIR[of_pair.__name__] = metric, of_pair
    return metric


@_metric
def phase_psnr(pair: Pair) -> float:
    """10 log10(peak^2 / mean wrapped phase error^2), dB; peak = range of the truth's unwrapped
    phase (rad)."""
    return _psnr(pair.phase_error, pair.true_phase)


@_metric
def phase_ssim(pair: Pair) -> float:
    """Structural similarity of the phase images; window, constants and source as :func:`ssim`;
    range the truth's."""
    return ssim(pair.true_phase + pair.phase_error, pair.true_phase)


@_metric
def phase_ms_ssim(pair: Pair) -> float:
    """Structural similarity of the phase images on three scales, see :func:`ms_ssim`; range the
    truth's."""
    return ms_ssim(pair.true_phase + pair.phase_error, pair.true_phase)


@_metric
def phase_mae(pair: Pair) -> float:
    """Mean |wrapped phase error|, rad, 0..pi; a random phase has pi/2."""
    return float(np.abs(pair.phase_error).mean())


@_metric
def phase_mse(pair: Pair) -> float:
    """Mean squared wrapped phase error, rad^2, 0..pi^2; a random phase has pi^2/3."""
    return float((pair.phase_error**2).mean())


@_metric
def amplitude_psnr(pair: Pair) -> float:
    """10 log10(peak^2 / mean (|O| - |truth|)^2), dB; peak = max - min of |truth|. No scale is
    fitted."""
    image, truth = pair.amplitudes
    return _psnr(image - truth, truth)


@_metric
def amplitude_ssim(pair: Pair) -> float:
    """Structural similarity of |O|; window, constants and source as :func:`ssim`; range the
    truth's."""
    return ssim(*pair.amplitudes)


@_metric
def amplitude_ms_ssim(pair: Pair) -> float:
    """Structural similarity of |O| on three scales, see :func:`ms_ssim`; range the truth's."""
    return ms_ssim(*pair.amplitudes)


@_metric
def amplitude_mae(pair: Pair) -> float:
    """Mean ||O| - |truth||, in units of the empty object's amplitude 1."""
    return float(np.abs(np.subtract(*pair.amplitudes)).mean())


@_metric
def amplitude_mse(pair: Pair) -> float:
    """Mean (|O| - |truth|)^2, in units of the empty object's amplitude squared."""
    return float((np.subtract(*pair.amplitudes) ** 2).mean())


@_metric
def frc_half(pair: Pair) -> float:
    """Frequency, fraction of Nyquist 0..1, up to which the FRC of object and truth stays at or
    above 0.5."""
    return first_crossing(pair.frc, 0.5)


@_metric
def frc_half_bit(pair: Pair) -> float:
    """Frequency, fraction of Nyquist 0..1, up to which the FRC with the truth is above
    :func:`half_bit_threshold`.

    The threshold was derived for two noisy halves. Against a noise-free truth FRC = sqrt(SNR / (1 +
    SNR)) is higher than between halves, so this crossing lies above the half-bit resolution of a
    blind measurement: compare methods by it, not with the literature."""
    return first_crossing(pair.frc, half_bit_threshold(pair.frc.n_pixels))


def _psnr(error: Image, truth: Image) -> float:
    peak, mse = np.ptp(truth), (error**2).mean()
    if peak <= NO_CONTRAST * np.abs(truth).max():
        return float("nan")
    return float("inf") if mse <= (_ROUNDING * peak) ** 2 else float(10 * np.log10(peak**2 / mse))


def ssim(image: Image, truth: Image) -> float:
    """Structural similarity, Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13, 600
    (2004).

    Gaussian window of sigma 1.5 px, 11 x 11 px, only where it fits; K1 = 0.01, K2 = 0.03; data
    range = max - min of `truth` (nan where that is 0); population covariances. 1 for identical
    images."""
    return _ssim_terms(image, truth, np.ptp(truth))[0]


def ms_ssim(image: Image, truth: Image) -> float:
    """Structural similarity on three scales, Wang, Simoncelli, Bovik, Asilomar (2003).

    Product of the mean contrast-structure terms at full and half and the mean SSIM at quarter size,
    to the powers 0.0448, 0.2856, 0.3001 over their sum (five scales would need 176 px). Each scale
    is the mean over 2 x 2 px of the one before; window and constants as :func:`ssim`, range = max -
    min of the full-size `truth`. A negative term counts as 0, as it has no real power. Raises
    :class:`DataContractError` for a side under 44 px."""
    if min(truth.shape) < MIN_SIDE_PX:
        raise DataContractError(
            f"MS-SSIM: the images have {truth.shape[0]} x {truth.shape[1]} px; three scales need "
            f"{MIN_SIDE_PX} px on each side (with an unknown probe {MAX_SHIFT_PX} px more at each "
            "border): score a larger region"
        )
    data_range, terms = np.ptp(truth), []
    for scale in range(len(MS_SSIM_WEIGHTS)):
        if scale:
            image, truth = _halved(image), _halved(truth)
        similarity, contrast = _ssim_terms(image, truth, data_range)
        terms.append(contrast)
    terms[-1] = similarity
    return float(np.prod(np.maximum(terms, 0) ** MS_SSIM_WEIGHTS))


def _ssim_terms(a: Image, b: Image, data_range: float) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure term over the pixels where the window fits."""
    if data_range <= NO_CONTRAST * np.abs(b).max():
        return float("nan"), float("nan")
    inner = slice(SSIM_RADIUS_PX, -SSIM_RADIUS_PX)

    def local(image: np.ndarray) -> np.ndarray:
        return gaussian_filter(image, SSIM_SIGMA_PX, radius=SSIM_RADIUS_PX)[inner, inner]

    mean_a, mean_b, c1, c2 = local(a), local(b), (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    variances = local(a * a) - mean_a**2 + local(b * b) - mean_b**2
    contrast = (2 * (local(a * b) - mean_a * mean_b) + c2) / (variances + c2)
    luminance = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return float((luminance * contrast).mean()), float(contrast.mean())


def _halved(image: Image) -> np.ndarray:
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    return image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))


@dataclass(frozen=True, eq=False)
class FRC:
    """Fourier ring correlation, ring by ring outwards; the ring around zero, which holds the mean,
    is left out.

    `n_pixels` is the number of independent Fourier pixels of a ring, (sum w^2)^2 / (N sum w^4) of
    all, as the window w makes neighbours alike. That counts neighbours in other rings too: a lower
    bound, so a threshold on the safe side."""

    frequency: Rings  # fraction of Nyquist
    correlation: Rings
    n_pixels: Rings


def frc_curve(a: np.ndarray, b: np.ndarray, apodize: bool = True) -> FRC:
    """Re sum A conj(B) / sqrt(sum |A|^2 sum |B|^2) over rings of the spectra of two complex images
    (H, W).

    Saxton & Baumeister, J. Microsc. 127, 127 (1982). The mean (weighted by the window) is taken out
    first, then a Tukey window (`TUKEY_TAPER`) is laid on, so that neither a common mean nor the
    jump at the border correlates. Rings are 1 / min(H, W) cycles per px wide, circles in frequency
    for non-square images as well. The real part is taken: the phase between the images is to be
    removed before, and the modulus would be positive for noise. An image without contrast has no
    spectrum: 0 on all rings, so a flat object resolves nothing."""
    if np.shape(a) != np.shape(b) or np.ndim(a) != 2 or min(np.shape(a)) < 4:
        raise DataContractError(
            f"FRC: images of {np.shape(a)} and {np.shape(b)}; two of one shape (H, W) with at "
            "least 4 px a side are needed"
        )
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise DataContractError("FRC: an image holds NaN or infinity")
    (rows, columns), side = np.shape(a), min(np.shape(a))
    taper = TUKEY_TAPER if apodize else 0.0
    window = np.outer(tukey(rows, taper), tukey(columns, taper))
    spectra = []
    for image in (a, b):
        varying = window * (image - np.average(image, weights=window))
        spectra.append(fft.fft2(varying) if has_contrast(image) else np.zeros((rows, columns)))
    ring = (
        np.rint(side * np.hypot(fft.fftfreq(rows)[:, None], fft.fftfreq(columns)[None]))
        .astype(int)
        .ravel()
    )

    def ring_sum(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring, values.ravel())[1 : side // 2 + 1]

    power = np.sqrt(ring_sum(np.abs(spectra[0]) ** 2) * ring_sum(np.abs(spectra[1]) ** 2))
    cross = ring_sum((spectra[0] * np.conj(spectra[1])).real)
    correlation = np.divide(cross, power, out=np.zeros_like(power), where=power > 0)
    independent = (window**2).sum() ** 2 / (window.size * (window**4).sum())
    return FRC(
        np.arange(1, side // 2 + 1) * 2 / side,
        correlation,
        independent * ring_sum(np.ones(ring.size)),
    )


def ring_density(image: np.ndarray) -> tuple[Rings, Rings]:
    """Spectral density of an image (H, W) over the FRC's rings: (fraction of Nyquist, mean power
    per pixel).

    The image's mean (weighted by the window) is taken out and a Tukey window laid on, as for the
    FRC. White noise of variance v has density v on every ring."""
    (rows, columns), side = np.shape(image), min(np.shape(image))
    window = np.outer(tukey(rows, TUKEY_TAPER), tukey(columns, TUKEY_TAPER))
    power = (
        np.abs(fft.fft2(window * (image - np.average(image, weights=window)))) ** 2
        / (window**2).sum()
    )
    ring = (
        np.rint(side * np.hypot(fft.fftfreq(rows)[:, None], fft.fftfreq(columns)[None]))
        .astype(int)
        .ravel()
    )
    density = np.bincount(ring, power.ravel()) / np.bincount(ring)
    return np.arange(1, side // 2 + 1) * 2 / side, density[1 : side // 2 + 1]


def half_bit_threshold(n_pixels: np.ndarray | float) -> np.ndarray | float:
    """FRC where a ring of `n_pixels` carries half a bit a pixel; van Heel & Schatz, J. Struct.
    Biol. 151, 250 (2005).

    (0.2071 + 1.9102 / sqrt(n)) / (1.2071 + 0.9102 / sqrt(n)): SNR (sqrt 2 - 1) / 2 in each of two
    halves."""
    root = np.sqrt(n_pixels)
    return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)


def first_crossing(curve: FRC, threshold: np.ndarray | float) -> float:
    """Frequency at which the correlation, once it has been above `threshold`, first falls under it;
    linear between rings.

    The two lowest rings may lie under the threshold: a slow error over the whole field is no loss
    of resolution (the other metrics see it). 0 if the third does as well, 1 if no ring falls: the
    last one reaches Nyquist."""
    above = curve.correlation - threshold
    reached = np.flatnonzero(above[: SLOW_RINGS + 1] >= 0)
    if reached.size == 0:
        return 0.0
    under = np.flatnonzero(above[reached[0] :] < 0) + reached[0]
    if under.size == 0:
        return 1.0
    k = under[0]
    part = above[k - 1] / (above[k - 1] - above[k])
    return float(curve.frequency[k - 1] + part * (curve.frequency[k] - curve.frequency[k - 1]))


def score(
    reconstruction: np.ndarray, truth: np.ndarray, gauge: str = "known_probe"
) -> dict[str, float]:
    """All `METRICS` of one reconstruction from a single alignment.

    With a known probe the numbers of `METRICS`. With an unknown probe the region is smaller by
    `MAX_SHIFT_PX` at each border, for truth, flat object and every method alike."""
    pair = Pair.aligned(reconstruction, truth, gauge)
    return {name: of_pair(pair) for name, of_pair in _OF_PAIR.items()}


def skill(name: str, value: float, flat: float, truth_value: float) -> float:
    """(value - flat) / (truth - flat): 0 for the flat object, 1 for the truth; for a PSNR the dB
    above flat.

    A flat object is what knowing nothing gives. nan where flat and truth score alike.
    """
    if name.endswith("_psnr"):
        return value - flat
    return (value - flat) / (truth_value - flat) if truth_value != flat else float("nan")


def score_table(
    reconstructions: Mapping[str, np.ndarray], truth: np.ndarray, gauge: str = "known_probe"
) -> list[dict[str, str | float]]:
    """One row per method: `method`, every metric, and `<metric>_skill`; the rows `flat` and `truth`
    always close it.

    The flat object is 1 everywhere (an empty beam path), aligned in the same gauge as any other.
    Under the names `flat` and `truth` only those objects are accepted, for the skill is measured
    from them."""
    references = {"flat": np.ones_like(truth), "truth": truth}
    for name in references.keys() & reconstructions.keys():
        given = reconstructions[name]
        if np.shape(given) != np.shape(truth) or not np.allclose(given, references[name]):
            raise DataContractError(
                f"the row {name!r} is not the {name} object; give this reconstruction another name"
            )
    scores = {
        name: score(image, truth, gauge)
        for name, image in {**reconstructions, **references}.items()
    }
    flat, best = scores["flat"], scores["truth"]
    order = [name for name in scores if name not in references] + list(references)
    return [
        {
            "method": name,
            **scores[name],
            **{
                f"{metric}_skill": skill(metric, value, flat[metric], best[metric])
                for metric, value in scores[name].items()
            },
        }
        for name in order
    ]


def json_rows(rows: list[dict[str, str | float]]) -> list[dict[str, str | float | None]]:
    """The rows with None for inf and nan, which JSON does not have."""
    return [
        {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in row.items()
        }
        for row in rows
    ]
