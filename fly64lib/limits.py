"""What any method can reach: the Cramer-Rao bound of an object, and the Bayesian reference that knows its class.

Poisson counts of mean I = sum_m |psi_m|^2 tell about a small change v of the object O (complex, inner product Re <u, v>)

    F v = sum_j A_j^H [ u_j 4 Re sum_m conj(u_jm) (A_j v)_m ],     u = psi / sqrt(I),   A_j v = F(P_j cut_j v),

that is sum dI dI^T / I with dI = 2 Re conj(psi) A v (Wei et al., arXiv 2003.05475); with an unknown probe A_j acts on its
change too. Unbiased: covariance F^-1. Bayesian: (F + C^-1)^-1, where C makes amplitude and phase of the change
independent stationary Gaussian fields with the specimen class's spectra. From the covariance, as from an image before
it is scored, the gauge is projected out over the region. Traces and ring spectra come from stochastic probing,
E[z^T X z] = tr X for random signs z, with one conjugate-gradient solve a vector: F is applied, never stored.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy.signal.windows import hann, tukey
from torch import Tensor

from fly64lib.alignment import MAX_SHIFT_PX
from fly64lib.metrics import TUKEY_TAPER, Pair
from ptycho_torch import optics
from ptycho_torch.canvas import Patterns
from ptycho_torch.errors import ConfigError, DataContractError, PtychoError
from ptycho_torch.patches import cut, in_field, paste, split_positions

_LIT = 1e-4  # of the region's median fluence: dimmer pixels count as known; 1e-6 changes fly001's bounds by < 0.01 dB
_LEAST_POWER = 1e-7  # of a class's largest power density: a ring without any would count as known exactly

Rings = Float[np.ndarray, " rings"]
Region = tuple[slice, slice]


@dataclass(frozen=True, eq=False)
class ClassSpectrum:
    """Mean power density of a class of specimens; its mean over the frequencies of an image is the pixel variance."""

    frequency: Rings  # fraction of Nyquist, 0 .. sqrt(2)
    amplitude: Rings  # of |O|
    phase: Rings  # of the unwrapped arg O, rad^2

    def on_grid(self, shape: tuple[int, int]) -> Float[np.ndarray, "2 H W"]:
        """Amplitude's and phase's density at every frequency of an FFT grid, log-linear between rings."""
        frequency = 2 * np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))
        floor = _LEAST_POWER * max(self.amplitude.max(), self.phase.max())
        return np.stack([np.exp(np.interp(frequency, self.frequency, np.log(np.maximum(power, floor))))
                         for power in (self.amplitude, self.phase)])


def class_spectrum(objects: Iterable[Complex[np.ndarray, "H W"]]) -> ClassSpectrum:
    """Spectra of one or more example objects of a class, all of one shape, cropped to what a scan would see.

    Mean over objects and rings of |FFT(w (f - mean))|^2 / sum w^2, w a Hann window: without it the jump between
    opposite borders puts a 1 / q^2 tail over the class's own. The mean of a class isn't known better than its slowest
    variation: ring 0 takes the density of ring 1.
    """
    objects = [np.asarray(image) for image in objects]
    if not objects or any(image.ndim != 2 or image.shape != objects[0].shape or not np.iscomplexobj(image)
                          or not np.isfinite(image).all() for image in objects):
        raise DataContractError(f"class spectrum: objects of {[(i.shape, i.dtype.name) for i in objects]} came; one or "
                                "more finite complex (H, W) arrays of one shape are needed")
    shape = objects[0].shape
    ring, window = _rings(shape), np.outer(*(hann(size + 2)[1:-1] for size in shape))
    total = np.zeros((2, ring.max() + 1))
    for image in objects:
        for row, part in enumerate((np.abs(image), Pair(image, image).true_phase)):
            power = np.abs(np.fft.fft2(window * (part - np.average(part, weights=window))))**2
            total[row] += np.bincount(ring.ravel(), power.ravel())
    density = total / (np.bincount(ring.ravel()) * len(objects) * (window**2).sum())
    density[:, 0] = density[:, 1]
    return ClassSpectrum(np.arange(ring.max() + 1) * 2 / min(shape), *density)


@dataclass(frozen=True, eq=False)
class Limits:
    """Expected squared error over the scored region of an ideal method, to first order in the error.

    `kind` is "unbiased" (Cramer-Rao; a method with a prior may pass it) or "bayesian". The `_error` fields are standard
    errors of the stochastic traces. Ring densities are normalised as :class:`ClassSpectrum`'s, from the first ring to
    Nyquist, seen through the FRC's window. PSNRs use the truth's range, as :mod:`fly64lib.metrics`.
    """

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
    complex_density: Rings  # of the complex error
    signal_density: Rings  # of the complex object itself; with a prior, what the prior expects of it
    photons_per_pixel: float  # mean over the region
    iterations: int

    @property
    def phase_psnr(self) -> float:
        """dB above the truth's phase range; a wrapped error saturates, so below some 15 dB no such thing is seen."""
        return _psnr(self.phase_range, self.phase_mse)

    @property
    def amplitude_psnr(self) -> float:
        """dB above the truth's amplitude range."""
        return _psnr(self.amplitude_range, self.amplitude_mse)

    @property
    def frc(self) -> Rings:
        """Ring correlation with the truth that such an error allows, r its power over the signal's.

        1 / sqrt(1 + r): an unbiased error is uncorrelated with the truth. sqrt(1 - r): a posterior mean's error is
        uncorrelated with the image.
        """
        ratio = self.complex_density / np.maximum(self.signal_density, np.finfo(float).tiny)
        return 1 / np.sqrt(1 + ratio) if self.kind == "unbiased" else np.sqrt(np.maximum(1 - ratio, 0))

    def at_dose(self, factor: float) -> "Limits":
        """The unbiased bound at `factor` times the dose: information grows with dose, a prior doesn't."""
        if self.kind != "unbiased":
            raise ConfigError("a Bayesian reference doesn't scale with dose, as its prior doesn't: call limits() again "
                              "with the probe times sqrt(factor)")
        if not factor > 0:
            raise ConfigError(f"at_dose got factor = {factor}; expected a positive ratio of doses")
        scaled = {name: getattr(self, name) / factor for name in (
            "phase_mse", "phase_mse_error", "amplitude_mse", "amplitude_mse_error", "phase_density",
            "amplitude_density", "complex_density")}
        return replace(self, photons_per_pixel=self.photons_per_pixel * factor, **scaled)


def limits(object: Complex[np.ndarray, "H W"], probe: Complex[np.ndarray, "modes N N"],
           xcoords: Float[np.ndarray, " n"], ycoords: Float[np.ndarray, " n"], region: Region,
           prior_spectrum: ClassSpectrum | None = None, *, probe_known: bool = True, probes: int = 4,
           iterations: int = 1000, tolerance: float = 1e-2, seed: int = 0) -> Limits:
    """The bound of `object` in `region` (rows, columns) for patterns at the given patch centres (px) under `probe`.

    sum |probe|^2 is the dose. `prior_spectrum` turns the unbiased bound into the Bayesian reference. Unknown are the lit
    pixels of the canvas (with a prior, all), and without `probe_known` the probe; the score's gauge is projected out
    over the region: the global phase, with an unknown probe also scale, ramp and shift, and the region loses its border
    of `MAX_SHIFT_PX` as the score's does. `probes` random sign vectors are solved for by conjugate gradients to a
    relative preconditioned residual of `tolerance`, in the precision of `object` (complex64 is enough).

    Raises :class:`DataContractError` for arrays that don't fit each other or a region with unlit pixels and no prior
    (infinite variance), :class:`PtychoError` if the solver hasn't converged after `iterations`.
    """
    region = _checked(object, probe, xcoords, ycoords, region, probes, probe_known)
    canvas = torch.as_tensor(np.ascontiguousarray(object))
    corners, residual = split_positions(torch.as_tensor(np.stack([ycoords, xcoords], 1), dtype=torch.float64), len(probe[0]))
    patterns = Patterns(lambda chunk: None, in_field(corners), residual.to(canvas.real.dtype),
                        torch.as_tensor(np.ascontiguousarray(probe)).to(canvas.dtype), (1, *canvas.shape))
    truth = canvas[region]
    with torch.no_grad():
        information = Information(patterns, canvas, region, prior_spectrum, probe_known)
        generator = torch.Generator().manual_seed(seed)
        signs = 2 * torch.randint(2, (probes, *truth.shape, 2), generator=generator).to(canvas.real.dtype) - 1
        z = torch.view_as_complex(signs) * truth / truth.abs()
        remove = _gauge_projector(canvas, region, probe_known)
        start = torch.zeros(probes, *canvas.shape, dtype=canvas.dtype)
        start[:, region[0], region[1]] = remove(z)
        found, steps = _solve(information, information.join(start), iterations, tolerance)
        y = remove(information.split(found)[0][:, region[0], region[1]])
    return _summary(z.numpy(), y.numpy(), np.asarray(object)[region], prior_spectrum, probe_known=probe_known,
                    iterations=steps, photons_per_pixel=float(patterns.fluence()[0][region].mean()))


class Information:
    """F, with a prior F + C^-1, on rows of unknowns: the canvas and, with an unknown probe, the probe behind it."""

    def __init__(self, patterns: Patterns, canvas: Complex[Tensor, "H W"], region: Region,
                 prior: ClassSpectrum | None, probe_known: bool) -> None:
        self.patterns, self.canvas, self.probe_known = patterns, canvas, probe_known
        self.phasor = torch.where(canvas == 0, 1, canvas / canvas.abs())
        fluence = patterns.fluence()[0]
        self.prior_power = None if prior is None else torch.as_tensor(prior.on_grid(canvas.shape)).to(fluence.dtype)
        least = _LIT * fluence[region].median()
        if prior is None and (fluence[region] <= least).any():
            raise DataContractError(
                f"{int((fluence[region] <= least).sum())} pixels of the region get no more than {_LIT} of its median "
                "fluence: their unbiased bound is infinite. Score a smaller region, or give a prior_spectrum")
        self.unknown = (fluence > least).to(fluence.dtype) if prior is None else torch.ones_like(fluence)
        # The curvature along the data, half of 4 sum |P|^2 as a pattern tells one of two directions (u_j of random phase).
        self.pixel_scale = self.unknown / (2 * fluence).clamp_min(1e-30)
        self.wiener = None if prior is None else 1 / (2 * fluence[region].mean() + 1 / self.prior_power)
        power = canvas.abs().square()[None]
        self.probe_scale = 0.5 / sum(cut(power, patterns.address[i], patterns.N).sum(0) for i in patterns.chunks())

    def split(self, x: Complex[Tensor, "k unknowns"]) -> tuple[Complex[Tensor, "k H W"], Complex[Tensor, "k modes N N"]]:
        """Canvases and probes of rows of unknowns."""
        size = self.canvas.numel()
        return x[:, :size].view(-1, *self.canvas.shape), x[:, size:].view(len(x), -1, self.patterns.N, self.patterns.N)

    def join(self, canvases: Complex[Tensor, "k H W"], probes: Complex[Tensor, "k modes N N"] | None = None
             ) -> Complex[Tensor, "k unknowns"]:
        """The inverse of :meth:`split`; no probes stand for no change of them."""
        if probes is None:
            probes = canvases.new_zeros(len(canvases), 0 if self.probe_known else self.patterns.probe.numel())
        return torch.cat([canvases.flatten(1), probes.flatten(1)], 1)

    def apply(self, x: Complex[Tensor, "k unknowns"]) -> Complex[Tensor, "k unknowns"]:
        """(F + C^-1) x."""
        patterns, (changes, probe_changes) = self.patterns, self.split(x)
        told, told_probe = torch.zeros_like(changes), torch.zeros_like(probe_changes)
        for chunk in patterns.chunks():
            address, probes, residual = patterns.address[chunk], patterns.probes(chunk), patterns.residual_px[chunk]
            patches = cut(self.canvas[None], address, patterns.N)
            waves = optics.detector_waves(patches, probes)
            u = waves / waves.abs().square().sum(1, keepdim=True).clamp_min(1e-30).sqrt()
            for k, change in enumerate(changes * self.unknown):
                wave_change = optics.detector_waves(cut(change[None], address, patterns.N), probes)
                if not self.probe_known:
                    shifted = optics.shift_probe(probe_changes[k], residual)
                    wave_change = wave_change + optics.detector_waves(patches, shifted)
                back = 4 * u * (u.conj() * wave_change).real.sum(1, keepdim=True)
                told[k] += paste(optics.detector_waves_adjoint(back, probes), address, patterns.canvas_shape)[0]
                if not self.probe_known:
                    at_probe = patches.conj()[:, None] * optics.backpropagate(back)
                    told_probe[k] += torch.autograd.functional.vjp(  # the adjoint of shift_probe, which is linear
                        lambda p, by=residual: optics.shift_probe(p, by), probe_changes[k], at_probe)[1]
        told = told * self.unknown
        if self.prior_power is not None:
            told = told + self._filtered(changes, 1 / self.prior_power)
        return self.join(told, told_probe)

    def precondition(self, x: Complex[Tensor, "k unknowns"]) -> Complex[Tensor, "k unknowns"]:
        """An approximate inverse: 1 / (2 sum |P|^2) a pixel; with a prior, that of an even fluence."""
        changes, probe_changes = self.split(x)
        changes = changes * self.pixel_scale if self.wiener is None else self._filtered(changes, self.wiener)
        return self.join(changes, probe_changes * self.probe_scale)

    def _filtered(self, changes: Complex[Tensor, "k H W"], gains: Float[Tensor, "2 H W"]) -> Complex[Tensor, "k H W"]:
        """Radial (amplitude) and tangential (phase) parts of changes, each filtered on the periodic canvas."""
        parts = torch.view_as_real(changes * self.phasor.conj()).movedim(-1, 1)
        parts = torch.fft.ifft2(torch.fft.fft2(parts) * gains).real
        return torch.complex(parts[:, 0], parts[:, 1]) * self.phasor


def _solve(information: Information, b: Tensor, iterations: int, tolerance: float) -> tuple[Tensor, int]:
    """Preconditioned conjugate gradients, all rows at once. The null directions are absent from `b`, and stay so."""
    def dot(a: Tensor, b: Tensor) -> Tensor:
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
    raise PtychoError(f"limits: the residual is {float((size / first).max())**0.5:.1e} after {iterations} iterations, "
                      f"{tolerance:.1e} was asked for; allow more iterations, or a looser tolerance if the object is "
                      "complex64 and the tolerance under 1e-5")


def _gauge_projector(canvas: Complex[Tensor, "H W"], region: Region, probe_known: bool) -> Callable[[Tensor], Tensor]:
    """Projector that removes from errors over the region what the score's alignment removes, to first order.

    The phase fit arg sum conj(image) truth takes out the component along i O. With an unknown probe the fit also takes
    out those along O (the score's ratio of summed amplitudes does so up to the contrast squared), i x O, i y O, and the
    derivatives of O along y and x, here of its mirrored continuation as in the score.
    """
    truth = canvas[region]
    directions = [1j * truth]
    if not probe_known:
        rows, columns = (torch.linspace(-1, 1, size, dtype=canvas.real.dtype) for size in truth.shape)
        mirrored = torch.cat([canvas, canvas.flip(0)], 0)
        mirrored = torch.fft.fft2(torch.cat([mirrored, mirrored.flip(1)], 1))
        frequencies = (2j * torch.pi * torch.fft.fftfreq(size) for size in mirrored.shape)
        y_slope, x_slope = (torch.fft.ifft2(mirrored * f)[region]
                            for f in (next(frequencies)[:, None], next(frequencies)[None]))
        directions += [truth, 1j * rows[:, None] * truth, 1j * columns * truth, y_slope, x_slope]
    columns_of = torch.view_as_real(torch.stack(directions).to(canvas.dtype)).flatten(1).T
    basis = torch.linalg.qr(columns_of).Q

    def remove(errors: Complex[Tensor, "k h w"]) -> Complex[Tensor, "k h w"]:
        flat = torch.view_as_real(errors).flatten(1)
        return torch.view_as_complex((flat - flat @ basis @ basis.T).view(*errors.shape, 2))
    return remove


def _summary(z: np.ndarray, y: np.ndarray, truth: np.ndarray, prior: ClassSpectrum | None, **facts: Any) -> Limits:
    """Traces and ring densities from sign vectors z (k, h, w) and covariance times z, y."""
    size, phasor = np.abs(truth), truth.conj() / np.abs(truth)
    (z_amplitude, z_phase), (y_amplitude, y_phase) = ((part.real, part.imag / size) for part in (z * phasor, y * phasor))
    ring, window = _rings(truth.shape), np.outer(*(hann(side + 2)[1:-1] for side in truth.shape))
    frequency, scored = np.arange(ring.max() + 1) * 2 / min(truth.shape), slice(1, min(truth.shape) // 2 + 1)

    def ring_mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(ring.ravel(), values.ravel()) / np.bincount(ring.ravel())

    def density(a: np.ndarray, b: np.ndarray, power: np.ndarray | float) -> np.ndarray:
        """Cross-spectrum over the sign vectors' own, times what that is on average: far less noisy than without."""
        a, b = np.fft.fft2(window * a), np.fft.fft2(window * b)
        share = ring_mean((a.conj() * b).real.sum(0)) / ring_mean((np.abs(a)**2).sum(0))
        return share * (window**2 * power).sum() / (window**2).sum()

    def trace(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        each = (a.astype(float) * b).mean((1, 2))
        return float(each.mean()), float(each.std(ddof=1) / len(each)**0.5)

    def scored_density(of_change: np.ndarray) -> np.ndarray:
        """What the FRC's window, whose leakage is that of a short taper, makes of a stationary field's density."""
        double = [2 * side for side in truth.shape]
        taper = np.outer(*(tukey(side, TUKEY_TAPER) for side in truth.shape))
        grid = np.interp(2 * np.hypot(*np.meshgrid(*map(np.fft.fftfreq, double), indexing="ij")), frequency, of_change)
        overlap = np.fft.ifft2(np.abs(np.fft.fft2(taper, double))**2) / (taper**2).sum()
        return ring_mean(np.fft.fft2(np.fft.ifft2(grid) * overlap).real[::2, ::2])[scored]

    (phase, phase_error), (amplitude, amplitude_error) = trace(z_phase, y_phase), trace(z_amplitude, y_amplitude)
    if prior is None:
        taper = np.outer(*(tukey(side, TUKEY_TAPER) for side in truth.shape))
        spectrum = np.fft.fft2(taper * (truth - np.average(truth, weights=taper)))
        signal = ring_mean(np.abs(spectrum)**2)[scored] / (taper**2).sum()
    else:
        signal = scored_density(ring_mean(prior.on_grid(truth.shape).sum(0)))
    return Limits(
        kind="unbiased" if prior is None else "bayesian", phase_mse=phase, phase_mse_error=phase_error,
        amplitude_mse=amplitude, amplitude_mse_error=amplitude_error,
        phase_range=float(np.ptp(Pair(truth, truth).true_phase)), amplitude_range=float(np.ptp(size)),
        frequency=frequency[scored], phase_density=density(z_phase, y_phase, size**-2.0)[scored],
        amplitude_density=density(z_amplitude, y_amplitude, 1.0)[scored],
        complex_density=scored_density(density(z, y, 2.0)), signal_density=signal, **facts)


def _rings(shape: tuple[int, int]) -> np.ndarray:
    """Ring number of each FFT frequency, rings 1 / min(H, W) cycles per px wide, as the FRC's."""
    return np.rint(min(shape) * np.hypot(np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1]))).astype(int)


def _psnr(data_range: float, mse: float) -> float:
    return float(10 * np.log10(data_range**2 / mse)) if data_range > 0 else float("nan")


def _checked(object: np.ndarray, probe: np.ndarray, xcoords: np.ndarray, ycoords: np.ndarray, region: Region,
             probes: int, probe_known: bool) -> Region:
    """The region to score, or the error that says what doesn't fit."""
    for name, array, rank in (("object", object, 2), ("probe", probe, 3)):
        if np.ndim(array) != rank or not np.iscomplexobj(array) or not np.isfinite(array).all():
            raise DataContractError(f"limits: {name} is {np.asarray(array).dtype} of shape {np.shape(array)}; a finite "
                                    f"complex array is needed, {'(H, W)' if rank == 2 else '(modes, N, N)'}")
    if np.shape(xcoords) != np.shape(ycoords) or np.ndim(xcoords) != 1 or np.size(xcoords) == 0:
        raise DataContractError(f"limits: xcoords {np.shape(xcoords)} and ycoords {np.shape(ycoords)} must both be (n,)")
    if probes < 2:
        raise ConfigError(f"limits got probes = {probes}; 2 or more are needed to state an error")
    margin = 0 if probe_known else MAX_SHIFT_PX
    region = tuple(slice(part.indices(size)[0] + margin, part.indices(size)[1] - margin)
                   for part, size in zip(region, np.shape(object), strict=True))
    if any(part.stop - part.start < 4 for part in region):
        raise DataContractError(f"limits: the region {region} has fewer than 4 px on a side, the canvas is "
                                f"{np.shape(object)}" + (f"; {margin} px are lost to the shift" if margin else ""))
    if not np.abs(object[region]).all():
        raise DataContractError("limits: the object is 0 somewhere in the region, where a phase has no meaning")
    return region
