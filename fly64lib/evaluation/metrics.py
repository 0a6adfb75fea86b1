"""Metrics of a complex object against the truth, each stated and each the same for every method.

A metric is an object with its column (name, label, unit, format, which way is better) and what it
computes from an aligned pair. Called with (reconstruction, truth), both complex (H, W) and cropped
to the scored region, it first aligns them as with a known probe. All are in the registry
`fly64lib.design.registries.METRICS`; another package enters its own (docs/extending.md):

    @metric("phase bias", "rad", higher_is_better=False)
    def phase_bias(pair):
        return float(pair.phase_error.mean())

Phase. The error is wrapped, arg(reconstruction conj(truth)) in (-pi, pi]: no unwrapping of a noisy
image decides a number. (MS-)SSIM compares the truth's unwrapped phase, from its minimum up, with
the same plus the wrapped error. Amplitude. |O| as it is: with a known probe no scale is free, and
none is removed. Range. The truth's max - min over the region (phase: unwrapped, rad; amplitude:
|O|), never 2 pi or 255, which flatter. Where the truth has no range (a pure phase object's
amplitude), PSNR and SSIM do not exist: nan. A perfect PSNR is inf."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Complex
from skimage.restoration import unwrap_phase

from fly64lib.evaluation.columns import Column
from fly64lib.evaluation.gauge import align, judged
from fly64lib.evaluation.rings import FRC, first_crossing, frc_curve, half_bit_threshold
from fly64lib.evaluation.similarity import Image, has_range, ms_ssim, ssim

_ROUNDING = 1e-7  # of the range: what float32 files lose; smaller errors count as none

Object = Complex[np.ndarray, "H W"]


class Part(NamedTuple):
    """Phase or amplitude of a pair."""

    image: Image
    truth: Image
    error: Image


@dataclass(frozen=True, eq=False)
class Pair:
    """An aligned reconstruction and the truth, with what several metrics need."""

    image: Object
    truth: Object

    @classmethod
    def aligned(cls, image: Object, truth: Object, gauge: str = "known_probe") -> "Pair":
        """Align; with an unknown probe also leave out the border that a shift may have made up."""
        inside = judged(gauge)
        return cls(align(image, truth, gauge).image[inside], np.asarray(truth, complex)[inside])

    @cached_property
    def phase(self) -> Part:
        """The truth's is unwrapped and starts at 0, as SSIM's luminance term depends on the zero,
        which a phase has not; the reconstruction's is that plus the wrapped error."""
        truth, error = unwrap_phase(np.angle(self.truth), rng=0), self.phase_error
        truth = truth - truth.min()
        return Part(truth + error, truth, error)

    @cached_property
    def phase_error(self) -> Image:
        """Wrapped, rad."""
        return np.angle(self.image * self.truth.conj())

    @cached_property
    def amplitude(self) -> Part:
        image, truth = np.abs(self.image), np.abs(self.truth)
        return Part(image, truth, image - truth)

    @cached_property
    def frc(self) -> FRC:
        return frc_curve(self.image, self.truth)


Computation = Callable[[Pair], float]


@dataclass(frozen=True, kw_only=True)
class Metric(Column):
    """A column that is computed from an aligned pair, and how its skill counts: its gain over a
    flat object, which knows nothing. "share": (value - flat) / (truth - flat), 0 for the flat
    object and 1 for the truth; "difference": value - flat, for decibels."""

    compute: Computation
    skill_is: Literal["share", "difference"] = "share"

    def __call__(self, reconstruction: np.ndarray, truth: np.ndarray) -> float:
        return self.compute(Pair.aligned(reconstruction, truth))

    def skill(self, value: float, flat: float, truth: float) -> float:
        """Skill of a value, given those of flat object and truth; nan where these score alike."""
        if self.skill_is == "difference":
            return value - flat
        return (value - flat) / (truth - flat) if truth != flat else float("nan")

    @property
    def skill_column(self) -> Column:
        """Only a difference, which has the metric's unit, stands in tables."""
        name, label = f"{self.name}_skill", f"{self.label} above flat"
        if self.skill_is == "difference":
            return Column(name, label, self.unit, self.format, shown=self.shown)
        return Column(name, label, shown="rows")


def metric(label: str, unit: str = "", **attributes: Any) -> Callable[[Computation], Metric]:
    """Make a function of an aligned pair a :class:`Metric` of its name, with these `attributes`."""
    return lambda compute: Metric(compute.__name__, label, unit, compute=compute, **attributes)


def _psnr(part: Part) -> float:
    """10 log10(peak^2 / mean error^2), dB; peak = max - min of the truth."""
    peak, mse = np.ptp(part.truth), (part.error**2).mean()
    if not has_range(part.truth, peak):
        return float("nan")
    return float("inf") if mse <= (_ROUNDING * peak) ** 2 else float(10 * np.log10(peak**2 / mse))


_KINDS: dict[str, Callable[[Part], float]] = {
    "PSNR": _psnr,
    "SSIM": lambda part: ssim(part.image, part.truth),
    "MS-SSIM": lambda part: ms_ssim(part.image, part.truth),
    "MAE": lambda part: float(np.abs(part.error).mean()),
    "MSE": lambda part: float((part.error**2).mean()),
}


def _of(part: str, kind: str, **attributes: Any) -> Metric:
    """A metric of "phase" or "amplitude"."""
    name = f"{part}_{kind}".lower().replace("-", "_")
    attributes |= {"compute": lambda pair: _KINDS[kind](getattr(pair, part))}
    return Metric(name, f"{part} {kind}", **attributes)


_IN_DB = {"unit": "dB", "skill_is": "difference", "curve": True}
phase_psnr = _of("phase", "PSNR", **_IN_DB)
amplitude_psnr = _of("amplitude", "PSNR", **_IN_DB)
phase_ssim = _of("phase", "SSIM", shown="rows")
amplitude_ssim = _of("amplitude", "SSIM", shown="rows")
phase_ms_ssim = _of("phase", "MS-SSIM")
amplitude_ms_ssim = _of("amplitude", "MS-SSIM")
# Mean |wrapped error|, 0..pi (a random phase has pi/2), and its square, 0..pi^2 (pi^2/3).
phase_mae = _of("phase", "MAE", unit="rad", higher_is_better=False, shown="report")
phase_mse = _of("phase", "MSE", unit="rad²", higher_is_better=False, shown="rows")
# In units of the empty object's amplitude, and of its square.
amplitude_mae = _of("amplitude", "MAE", higher_is_better=False, shown="rows")
amplitude_mse = _of("amplitude", "MSE", higher_is_better=False, shown="rows")


@metric("resolution (FRC 0.5, past ring 2)", "Nyquist", curve=True)
def frc_half(pair: Pair) -> float:
    """Frequency, fraction of Nyquist 0..1, up to which the FRC with the truth is at least 0.5; the
    two coarsest rings may lie under it (:func:`~fly64lib.evaluation.rings.first_crossing`).

    No filter changes the FRC: :mod:`~fly64lib.evaluation.faithful` also asks for contrast."""
    return first_crossing(pair.frc, 0.5)


@metric("resolution (half bit)", "Nyquist", shown="report")
def frc_half_bit(pair: Pair) -> float:
    """The same for the :func:`half_bit_threshold`, which was derived for two noisy halves.

    Against a noise-free truth FRC = sqrt(SNR / (1 + SNR)) is higher than between halves, so this
    crossing lies above the half-bit resolution of a blind measurement: compare methods by it, not
    with the literature."""
    return first_crossing(pair.frc, half_bit_threshold(pair.frc.n_pixels))
