"""What any method can reach: the Cramer-Rao bound of an object, and the Bayesian reference that
knows its class.

Poisson counts of mean I = sum_m |psi_m|^2 tell of a small complex change v of the object O, with Re
<u, v> as product,

    F v = sum dI dI^T v / I = sum_j 4 A_j^H [ u_j Re sum_m conj(u_jm) (A_j v)_m ],   u = psi /
    sqrt(I),

A_j v = F(P_j cut_j v) (Wei et al., arXiv 2003.05475); an unknown probe's change joins v. Unbiased:
covariance F^-1. Bayesian: (F + C^-1)^-1, where C makes amplitude and phase of the change
independent stationary Gaussian fields with the spectra of the specimen's class. From the
covariance, as from an image before it is scored, the gauge is projected out over the region. Traces
and ring spectra come from random signs z, E[z^T X z] = tr X, with one conjugate-gradient solve
each: F is applied, never stored."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy.signal.windows import hann, tukey
from torch import Tensor

from fly64lib.evaluation.gauge import MAX_SHIFT_PX
from fly64lib.evaluation.metrics import TUKEY_TAPER, Pair
from ptycho_torch.errors import ConfigError, DataContractError, PtychoError
from ptycho_torch.physics import optics
from ptycho_torch.physics.geometry import Geometry
from ptycho_torch.physics.patches import cut, paste

# of the region's median fluence: dimmer pixels count as known; 1e-6 changes fly001's bounds by <
# 0.01 dB
_LIT = 1e-4
_LEAST_POWER = (
    1e-7  # of a class's largest power density: a ring without any would count as known exactly
)

Rings = Float[np.ndarray, " rings"]
Region = tuple[slice, slice]
Canvases = Complex[Tensor, "k H W"]
Unknowns = Complex[Tensor, "k unknowns"]  # canvas and, if unknown, probe, one behind the other


@dataclass(frozen=True, eq=False)
class ClassSpectrum:
    """Mean power density of a class of specimens; its mean over the frequencies of an image is the
    pixel variance."""

    frequency: Rings  # fraction of Nyquist, 0 .. sqrt(2)
    amplitude: Rings  # of |O|
    phase: Rings  # of the unwrapped arg O, rad^2

    def on_grid(self, shape: tuple[int, int]) -> Float[np.ndarray, "2 H W"]:
        """Amplitude's and phase's density at every frequency of an FFT grid, log-linear between
        rings."""
        floor = _LEAST_POWER * max(self.amplitude.max(), self.phase.max())
        return np.stack(
            [
                np.exp(
                    np.interp(
                        _frequencies(shape), self.frequency, np.log(np.maximum(density, floor))
                    )
                )
                for density in (self.amplitude, self.phase)
            ]
        )


def class_spectrum(objects: Iterable[Complex[np.ndarray, "H W"]]) -> ClassSpectrum:
    """Spectra of one or more example objects of a class, all of one shape, cropped to what a scan
    would see.

    Mean over objects and rings of |FFT(w (f - mean))|^2 / sum w^2, w a Hann window: without it the
    jump between opposite borders puts a 1 / q^2 tail over the class's own. The mean of a class
    isn't known better than its slowest variation: ring 0 takes the density of ring 1."""
    objects = [np.asarray(image) for image in objects]
    if not objects or any(
        image.ndim != 2
        or image.shape != objects[0].shape
        or not np.iscomplexobj(image)
        or not np.isfinite(image).all()
        for image in objects
    ):
        raise DataContractError(
            f"class spectrum: objects of {[(i.shape, i.dtype.name) for i in objects]} came; one or "
            "more finite complex (H, W) arrays of one shape are needed"
        )
    shape = objects[0].shape
    window, power = _hann(shape), np.zeros((2, *shape))
    for image in objects:
        for total, part in zip(power, (np.abs(image), Pair(image, image).true_phase), strict=True):
            total += np.abs(np.fft.fft2(window * (part - np.average(part, weights=window)))) ** 2
    density = np.stack([_ring_mean(total) for total in power]) / (len(objects) * (window**2).sum())
    density[:, 0] = density[:, 1]
    return ClassSpectrum(_ring_frequency(shape), *density)


@dataclass(frozen=True, eq=False)
class Limits:
    """Expected squared error over the scored region of an ideal method, to first order in the
    error.

    `kind` is "unbiased" (Cramer-Rao; a method with a prior may pass it) or "bayesian". The `_error`
    fields are standard errors of the stochastic traces. Rings run from the first to Nyquist;
    densities are normalised as :class:`ClassSpectrum`'s. PSNRs use the truth's range, as
    :mod:`fly64lib.evaluation.metrics`."""

    kind: str
    probe_known: bool
    phase_mse: float  # rad^2
    phase_mse_error: float
    amplitude_mse: float
    amplitude_mse_error: float
    phase_range: float  # rad
    amplitude_range: float
    frequency: Rings  # fraction of Nyquist
    phase_density: Rings  # rad^2
    amplitude_density: Rings
    frc_error: Rings  # power density of the complex error as the FRC's window sees it
    frc_signal: Rings  # that of the object itself; with a prior, what the prior expects of it
    photons_per_pixel: float  # mean over the region
    iterations: int

    @property
    def phase_psnr(self) -> float:
        """dB. A score's wrapped phase error saturates at pi^2 / 3; this one, to first order,
        doesn't."""
        return _psnr(self.phase_range, self.phase_mse)

    @property
    def amplitude_psnr(self) -> float:
        """dB."""
        return _psnr(self.amplitude_range, self.amplitude_mse)

    @property
    def frc(self) -> Rings:
        """Ring correlation with the truth that such an error allows, r its power over the signal's.

        1 / sqrt(1 + r): an unbiased error is uncorrelated with the truth. sqrt(1 - r): a posterior
        mean's error is uncorrelated with the image."""
        ratio = self.frc_error / np.maximum(self.frc_signal, np.finfo(float).tiny)
        return (
            1 / np.sqrt(1 + ratio) if self.kind == "unbiased" else np.sqrt(np.maximum(1 - ratio, 0))
        )

    def at_dose(self, factor: float) -> "Limits":
        """The unbiased bound at `factor` times the dose: information grows with dose, a prior
        doesn't."""
        if self.kind != "unbiased":
            raise ConfigError(
                "a Bayesian reference doesn't scale with dose, as its prior doesn't: call limits()"
                " again with the probe times sqrt(factor)"
            )
        if not factor > 0:
            raise ConfigError(f"at_dose got factor = {factor}; expected a positive ratio of doses")
        errors = (
            "phase_mse",
            "phase_mse_error",
            "amplitude_mse",
            "amplitude_mse_error",
            "phase_density",
            "amplitude_density",
            "frc_error",
        )
        return replace(
            self,
            photons_per_pixel=self.photons_per_pixel * factor,
            **{name: getattr(self, name) / factor for name in errors},
        )


def limits(
    object: Complex[np.ndarray, "H W"],
    probe: Complex[np.ndarray, "modes N N"],
    xcoords: Float[np.ndarray, " n"],
    ycoords: Float[np.ndarray, " n"],
    region: Region,
    prior_spectrum: ClassSpectrum | None = None,
    *,
    probe_known: bool = True,
    probes: int = 4,
    iterations: int = 1000,
    tolerance: float = 1e-2,
    seed: int = 0,
) -> Limits:
    """The bound of `object` in `region` (rows, columns) for patterns at the given patch centres
    (px) under `probe`.

    sum |probe|^2 is the dose. `prior_spectrum` turns the unbiased bound into the Bayesian
    reference. Unknown are the lit pixels of the canvas (with a prior, all), and without
    `probe_known` the probe, of which nothing is presumed. The score's gauge is projected out over
    the region: the global phase, with an unknown probe also scale, ramp and shift, and then the
    region loses a border of `MAX_SHIFT_PX`, as the score's. `probes` random sign vectors are solved
    for to a relative preconditioned residual of `tolerance` (1e-2 leaves less than 0.01 dB), in
    `object`'s precision.

    Raises :class:`DataContractError` for arrays that don't fit each other, or a region with unlit
    pixels and no prior (infinite variance); :class:`PtychoError` if the solver hasn't converged
    after `iterations`."""
    region = _checked(object, probe, xcoords, ycoords, region, probes, probe_known)
    canvas, probe = (torch.as_tensor(np.ascontiguousarray(array)) for array in (object, probe))
    centres = torch.as_tensor(np.stack([ycoords, xcoords], 1), dtype=torch.float64)
    geometry = Geometry.of(centres, probe.to(canvas.dtype), canvas.shape, whole=True)
    truth = canvas[region]
    signs = torch.randint(
        2, (probes, *truth.shape, 2), generator=torch.Generator().manual_seed(seed)
    )
    with torch.no_grad():
        information = Information(geometry, canvas, region, prior_spectrum, probe_known)
        remove = gauge_projector(canvas, region, probe_known)
        z = torch.view_as_complex(2 * signs.to(canvas.real.dtype) - 1) * truth.sgn()
        start = canvas.new_zeros(probes, *canvas.shape)
        start[:, region[0], region[1]] = remove(z)
        found, steps = _solve(information, information.join(start), iterations, tolerance)
        y = remove(information.split(found)[0][:, region[0], region[1]])
        photons = float(geometry.fluence()[0][region].mean())
    return _summary(
        z.numpy(),
        y.numpy(),
        truth.numpy(),
        prior_spectrum,
        probe_known=probe_known,
        iterations=steps,
        photons_per_pixel=photons,
    )


class Information:
    """F, with a prior F + C^-1, on the unknowns: the canvas and, with an unknown probe, the probe
    behind it."""

    def __init__(
        self,
        geometry: Geometry,
        canvas: Complex[Tensor, "H W"],
        region: Region,
        prior: ClassSpectrum | None,
        probe_known: bool,
    ) -> None:
        self.geometry, self.canvas, self.probe_known = geometry, canvas, probe_known
        # A modulated canvas spares the shifts of each pattern; a probe's change would have to be
        # modulated patch by patch.
        self.transforms = (
            optics.round_trip(geometry.N, tuple(canvas.shape), canvas.device)
            if probe_known
            else (optics.propagate, optics.backpropagate, torch.ones(()))
        )
        fluence = geometry.fluence()[0].to(canvas.real.dtype)
        least = _LIT * fluence[region].median()
        if prior is None and (fluence[region] <= least).any():
            raise DataContractError(
                f"{int((fluence[region] <= least).sum())} pixels of the region get no more than "
                f"{_LIT} of its median fluence: their unbiased bound is infinite. Score a smaller "
                "region, or give a prior_spectrum"
            )
        self.phasor = torch.where(canvas == 0, 1, canvas.sgn())
        self.prior_power = (
            None
            if prior is None
            else torch.as_tensor(_of_change(prior, canvas.shape, canvas[region].numpy())).to(
                fluence.dtype
            )
        )
        self.unknown = (
            (fluence > least).to(fluence.dtype) if prior is None else torch.ones_like(fluence)
        )
        # Of the two directions of a change, 4 |P|^2 each if all were told, a pattern tells one:
        # that along u.
        self.pixel_gain = self.unknown / (2 * fluence).clamp_min(1e-30)
        self.prior_gain = (
            None if prior is None else 1 / (2 * fluence[region].mean() + 1 / self.prior_power)
        )
        power = canvas.abs().square()[None]
        self.probe_gain = 0.5 / sum(
            cut(power, geometry.address[i], geometry.N).sum(0) for i in geometry.chunks()
        )

    def split(self, x: Unknowns) -> tuple[Canvases, Complex[Tensor, "k modes N N"]]:
        """Canvases and probes of the unknowns; no modes where the probe is known."""
        size, N = self.canvas.numel(), self.geometry.N
        return x[:, :size].view(-1, *self.canvas.shape), x[:, size:].view(len(x), -1, N, N)

    def join(
        self, canvases: Canvases, probes: Complex[Tensor, "k modes N N"] | None = None
    ) -> Unknowns:
        """The inverse of :meth:`split`; without `probes` they are zero."""
        if probes is None:
            probes = canvases.new_zeros(
                len(canvases), 0 if self.probe_known else self.geometry.probe.numel()
            )
        return torch.cat([canvases.flatten(1), probes.flatten(1)], 1)

    def apply(self, x: Unknowns) -> Unknowns:
        """(F + C^-1) x."""
        geometry, (changes, probe_changes) = self.geometry, self.split(x)
        told, probes_told = torch.zeros_like(changes), torch.zeros_like(probe_changes)
        forward, adjoint, modulation = self.transforms
        canvas, changes_known = self.canvas * modulation, changes * self.unknown * modulation
        for chunk in geometry.chunks():
            address, probes, residual = (
                geometry.address[chunk],
                geometry.probes(chunk),
                geometry.residual_px[chunk],
            )
            patches = cut(canvas[None], address, geometry.N)[:, None]
            waves = forward(probes * patches)
            u = waves * optics.intensity(waves).sum(1, keepdim=True).clamp_min(1e-30).rsqrt()
            for k, change in enumerate(changes_known):
                wave_change = forward(probes * cut(change[None], address, geometry.N)[:, None])
                if not self.probe_known:
                    wave_change += forward(patches * optics.shift_probe(probe_changes[k], residual))
                back = (
                    4
                    * u
                    * (u.real * wave_change.real + u.imag * wave_change.imag).sum(1, keepdim=True)
                )
                returned = adjoint(back)
                told[k] += paste((probes.conj() * returned).sum(1), address, geometry.shape)[0]
                if (
                    not self.probe_known
                ):  # shift_probe is linear: its vector-Jacobian product is its adjoint
                    _, probe_told = torch.autograd.functional.vjp(
                        lambda p, by=residual: optics.shift_probe(p, by),
                        probe_changes[k],
                        patches.conj() * returned,
                    )
                    probes_told[k] += probe_told
        told *= modulation
        told *= self.unknown
        if self.prior_power is not None:
            told += self._filtered(changes, 1 / self.prior_power)
        return self.join(told, probes_told)

    def precondition(self, x: Unknowns) -> Unknowns:
        """An approximate inverse: 1 / (2 sum |P|^2) a pixel; with a prior, that of an even
        fluence."""
        changes, probe_changes = self.split(x)
        changes = (
            changes * self.pixel_gain
            if self.prior_gain is None
            else self._filtered(changes, self.prior_gain)
        )
        return self.join(changes, probe_changes * self.probe_gain)

    def _filtered(self, changes: Canvases, gains: Float[Tensor, "2 H W"]) -> Canvases:
        """Radial (amplitude) and tangential (phase) parts of the changes, each filtered on the
        periodic canvas."""
        parts = torch.view_as_real(changes * self.phasor.conj()).movedim(-1, 1)
        gains = gains[
            ..., : parts.shape[-1] // 2 + 1
        ]  # real fields, and gains of the frequency alone
        parts = torch.fft.irfft2(torch.fft.rfft2(parts) * gains, s=parts.shape[-2:])
        return torch.complex(parts[:, 0], parts[:, 1]) * self.phasor


def _solve(
    information: Information, b: Unknowns, iterations: int, tolerance: float
) -> tuple[Unknowns, int]:
    """Preconditioned conjugate gradients, all rows at once. The null directions are absent from
    `b`, and stay so."""

    def dot(a: Unknowns, b: Unknowns) -> Float[Tensor, "k 1"]:
        return (a.conj() * b).real.sum(1, keepdim=True, dtype=torch.float64)

    x, residual = torch.zeros_like(b), b
    direction = steered = information.precondition(b)
    size = first = dot(residual, steered)
    for step in range(iterations):
        image = information.apply(direction)
        length = (size / dot(direction, image)).to(b.real.dtype)
        x, residual = x + length * direction, residual - length * image
        steered = information.precondition(residual)
        before, size = size, dot(residual, steered)
        if (size <= tolerance**2 * first).all():
            return x, step + 1
        direction = steered + (size / before).to(b.real.dtype) * direction
    raise PtychoError(
        f"limits: the relative residual is {float((size / first).max()) ** 0.5:.1e} after"
        f" {iterations} iterations, {tolerance:.1e} was asked for: allow more iterations or a"
        " looser tolerance (an object in complex64 cannot give 1e-5)"
    )


def gauge_projector(
    canvas: Complex[Tensor, "H W"], region: Region, probe_known: bool
) -> Callable[[Tensor], Tensor]:
    """Projector that takes from errors (k, h, w) over the region what the score's alignment does,
    to first order.

    The fit of a phase, arg sum conj(image) truth, takes out the error's part along i O; with an
    unknown probe, the joint fit also those along O (the score's ratio of summed amplitudes does so
    up to the contrast squared), i x O, i y O, and the derivatives of O along y and x."""
    truth = canvas[region]
    directions = [1j * truth]
    if not probe_known:
        rows, columns = (
            torch.linspace(-1, 1, size, dtype=canvas.real.dtype) for size in truth.shape
        )
        directions += [truth, 1j * rows[:, None] * truth, 1j * columns * truth]
        mirrored = torch.cat([canvas, canvas.flip(0)], 0)  # has no jump where it closes on itself
        spectrum = torch.fft.fft2(torch.cat([mirrored, mirrored.flip(1)], 1))
        for axis, size in enumerate(spectrum.shape):
            slope = (
                2j
                * torch.pi
                * torch.fft.fftfreq(size, dtype=canvas.real.dtype).reshape([(-1, 1), (1, -1)][axis])
            )
            directions.append(torch.fft.ifft2(slope * spectrum)[region])
    basis = torch.linalg.qr(torch.view_as_real(torch.stack(directions)).flatten(1).T).Q

    def remove(errors: Complex[Tensor, "k h w"]) -> Complex[Tensor, "k h w"]:
        flat = torch.view_as_real(errors).flatten(1)
        return torch.view_as_complex((flat - flat @ basis @ basis.T).view(*errors.shape, 2))

    return remove


def _summary(
    z: np.ndarray, y: np.ndarray, truth: np.ndarray, prior: ClassSpectrum | None, **facts: Any
) -> Limits:
    """Traces and ring densities from sign vectors z (k, h, w) and covariance times z, y.

    Through the FRC's own window; a posterior's error is so steep that this short taper would drown
    its weak rings in the strong ones' noise, so there a Hann window measures, and what leaks
    through the FRC's is put in by computation."""
    shape, size, to_truth = truth.shape, np.abs(truth), np.abs(truth) / truth
    taper = np.outer(*(tukey(side, TUKEY_TAPER) for side in shape))
    window = taper if prior is None else _hann(shape)
    twice, scored = (2 * shape[0], 2 * shape[1]), slice(1, min(shape) // 2 + 1)
    amplitude, phase = (
        ((z * to_truth).real, (y * to_truth).real),
        ((z / truth).imag, (y / truth).imag),
    )

    def trace(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        each = (a.astype(float) * b).mean((1, 2))
        return float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5)

    def density(a: np.ndarray, b: np.ndarray, power: np.ndarray | float) -> np.ndarray:
        """Cross-spectrum over the sign vectors' own, times what that is on average: far less noisy
        than without."""
        a, b = np.fft.fft2(window * a), np.fft.fft2(window * b)
        share = _ring_mean((a.conj() * b).real.sum(0)) / _ring_mean((np.abs(a) ** 2).sum(0))
        return share * (window**2 * power).sum() / (window**2).sum()

    def seen(through: np.ndarray, density_twice: np.ndarray) -> np.ndarray:
        """Expected ring density, through a window, of a stationary field of a given density on (2
        h, 2 w) px."""
        overlap = np.fft.ifft2(np.abs(np.fft.fft2(through, twice)) ** 2) / (through**2).sum()
        return _ring_mean(np.fft.fft2(np.fft.ifft2(density_twice) * overlap).real[::2, ::2])

    def as_scored(rings: np.ndarray) -> np.ndarray:
        return seen(taper, np.interp(_frequencies(twice), _ring_frequency(shape), rings))[scored]

    if prior is None:
        spectrum = np.fft.fft2(taper * (truth - np.average(truth, weights=taper)))
        signal, error = (
            _ring_mean(np.abs(spectrum) ** 2)[scored] / (taper**2).sum(),
            density(z, y, 2.0)[scored],
        )
    else:  # in the frame of the truth's phasors the prior is stationary
        signal = as_scored(seen(window, _of_change(prior, twice, truth).sum(0)))
        error = as_scored(density(z * to_truth, y * to_truth, 2.0))
    (phase_mse, phase_mse_error), (amplitude_mse, amplitude_mse_error) = (
        trace(*phase),
        trace(*amplitude),
    )
    return Limits(
        kind="unbiased" if prior is None else "bayesian",
        phase_mse=phase_mse,
        phase_mse_error=phase_mse_error,
        amplitude_mse=amplitude_mse,
        amplitude_mse_error=amplitude_mse_error,
        phase_range=float(np.ptp(Pair(truth, truth).true_phase)),
        amplitude_range=float(np.ptp(size)),
        frequency=_ring_frequency(shape)[scored],
        phase_density=density(*phase, size**-2.0)[scored],
        amplitude_density=density(*amplitude, 1.0)[scored],
        frc_error=error,
        frc_signal=signal,
        **facts,
    )


def _of_change(
    prior: ClassSpectrum, shape: tuple[int, int], truth: np.ndarray
) -> Float[np.ndarray, "2 H W"]:
    """Densities of the radial and the tangential change, |O| times that of the phase with |O| at
    its mean power."""
    return prior.on_grid(shape) * np.array([1, np.mean(np.abs(truth) ** 2)])[:, None, None]


def _frequencies(shape: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """Frequency of each FFT bin, fraction of Nyquist."""
    return 2 * np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))


def _rings(shape: tuple[int, int]) -> np.ndarray:
    """Ring number of each FFT bin, rings 1 / min(H, W) cycles per px wide, as the FRC's."""
    return np.rint(min(shape) / 2 * _frequencies(shape)).astype(int)


def _ring_frequency(shape: tuple[int, int]) -> Rings:
    return np.arange(_rings(shape).max() + 1) * 2 / min(shape)


def _ring_mean(values: Float[np.ndarray, "H W"]) -> Rings:
    ring = _rings(values.shape).ravel()
    return np.bincount(ring, values.ravel()) / np.bincount(ring)


def _hann(shape: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """Hann window without its two zeros on each axis."""
    return np.outer(*(hann(size + 2)[1:-1] for size in shape))


def _psnr(data_range: float, mse: float) -> float:
    return float(10 * np.log10(data_range**2 / mse)) if data_range > 0 else float("nan")


def _checked(
    object: np.ndarray,
    probe: np.ndarray,
    xcoords: np.ndarray,
    ycoords: np.ndarray,
    region: Region,
    probes: int,
    probe_known: bool,
) -> Region:
    """The region to score, or the error that says what doesn't fit."""
    for name, array, axes in (("object", object, "H W"), ("probe", probe, "modes N N")):
        if (
            np.ndim(array) != len(axes.split())
            or not np.iscomplexobj(array)
            or not np.isfinite(array).all()
        ):
            raise DataContractError(
                f"limits: {name} is {np.asarray(array).dtype} of shape {np.shape(array)}; a finite "
                f"complex array ({axes}) is needed"
            )
    if np.shape(xcoords) != np.shape(ycoords) or np.ndim(xcoords) != 1 or np.size(xcoords) == 0:
        raise DataContractError(
            f"limits: xcoords {np.shape(xcoords)}, ycoords {np.shape(ycoords)}; both must be (n,)"
        )
    if probes < 2:
        raise ConfigError(f"limits got probes = {probes}; 2 or more are needed to state an error")
    margin = 0 if probe_known else MAX_SHIFT_PX
    ends = [part.indices(size)[:2] for part, size in zip(region, np.shape(object), strict=True)]
    rows, columns = (slice(start + margin, stop - margin) for start, stop in ends)
    if min(rows.stop - rows.start, columns.stop - columns.start) < 4 or not np.all(
        object[rows, columns]
    ):
        raise DataContractError(
            f"limits: rows {rows.start}..{rows.stop - 1}, columns {columns.start}.."
            f"{columns.stop - 1} of an object of {np.shape(object)} px are to be scored; 4 px a "
            "side or more are needed, none of them 0, where a phase has no meaning"
        )
    return rows, columns
