"""What any method can reach: the Cramer-Rao bound of an object, and the Bayesian reference that
knows its class.

Unbiased: covariance F^-1, F the Fisher information (:mod:`fly64lib.evaluation.information`).
Bayesian: (F + C^-1)^-1, where C makes amplitude and phase of the change independent stationary
Gaussian fields with the spectra of the specimen's class. From the covariance, as from an image
before it is scored, the gauge is projected out over the region. Traces and ring spectra come from
random signs z, E[z^T X z] = tr X, with one conjugate-gradient solve each: F is applied, never
stored."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float

from fly64lib.evaluation.gauge import MAX_SHIFT_PX, Region
from fly64lib.evaluation.information import Information, gauge_projector, solve
from fly64lib.evaluation.metrics import Pair
from fly64lib.evaluation.rings import (
    Rings,
    frequencies,
    hann_window,
    ring_frequencies,
    ring_mean,
    scored_rings,
    tukey_window,
    varying,
)
from fly64lib.evaluation.spectrum import ClassSpectrum
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.physics.geometry import Geometry

_OF_ERRORS = ("mse", "mse_error", "density")  # fields of phase and amplitude


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
        if self.kind == "unbiased":
            return 1 / np.sqrt(1 + ratio)
        return np.sqrt(np.maximum(1 - ratio, 0))

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
        errors = [f"{part}_{what}" for part in ("phase", "amplitude") for what in _OF_ERRORS]
        scaled = {name: getattr(self, name) / factor for name in (*errors, "frc_error")}
        return replace(self, photons_per_pixel=self.photons_per_pixel * factor, **scaled)


def limits(
    object: Complex[np.ndarray, "H W"],
    probe: Complex[np.ndarray, "modes N N"],
    xcoords: Float[np.ndarray, " n"],
    ycoords: Float[np.ndarray, " n"],
    region: Region,
    prior_spectrum: ClassSpectrum | None = None,
    *,
    probe_known: bool = True,
    sign_vectors: int = 4,
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
    region loses a border of `MAX_SHIFT_PX`, as the score's. For so many random `sign_vectors` the
    system is solved to a relative preconditioned residual of `tolerance` (1e-2 leaves less than
    0.01 dB), in `object`'s precision.

    Raises :class:`DataContractError` for arrays that don't fit each other, or a region with unlit
    pixels and no prior (infinite variance); :class:`PtychoError` if the solver hasn't converged
    after `iterations`."""
    _check(object, probe, xcoords, ycoords, sign_vectors)
    region = _scored(object, region, 0 if probe_known else MAX_SHIFT_PX)
    canvas, probe = (torch.as_tensor(np.ascontiguousarray(array)) for array in (object, probe))
    centres = torch.as_tensor(np.stack([ycoords, xcoords], 1), dtype=torch.float64)
    geometry = Geometry.of(centres, probe.to(canvas.dtype), canvas.shape, whole=True)
    truth = canvas[region]
    random = torch.Generator().manual_seed(seed)
    signs = torch.randint(2, (sign_vectors, *truth.shape, 2), generator=random)
    with torch.no_grad():
        information = Information(geometry, canvas, region, prior_spectrum, probe_known)
        remove = gauge_projector(canvas, region, probe_known)
        z = torch.view_as_complex(2 * signs.to(canvas.real.dtype) - 1) * truth.sgn()
        start = canvas.new_zeros(sign_vectors, *canvas.shape)
        start[:, region[0], region[1]] = remove(z)
        found, steps = solve(information, information.join(start), iterations, tolerance)
        y = remove(information.split(found)[0][:, region[0], region[1]])
        photons = float(geometry.fluence()[0][region].mean())
    facts = {"probe_known": probe_known, "iterations": steps, "photons_per_pixel": photons}
    return _summary(z.numpy(), y.numpy(), truth.numpy(), prior_spectrum, **facts)


def _summary(
    z: np.ndarray, y: np.ndarray, truth: np.ndarray, prior: ClassSpectrum | None, **facts: Any
) -> Limits:
    """Traces and ring densities from sign vectors z (k, h, w) and covariance times z, y.

    Through the FRC's own window; a posterior's error is so steep that this short taper would drown
    its weak rings in the strong ones' noise, so there a Hann window measures, and what leaks
    through the FRC's is put in by computation."""
    shape, size, to_truth = truth.shape, np.abs(truth), np.abs(truth) / truth
    taper = tukey_window(shape)
    window = taper if prior is None else hann_window(shape)
    twice, scored = (2 * shape[0], 2 * shape[1]), scored_rings(shape)
    amplitude, phase = (
        [(part * to_truth).real for part in (z, y)],
        [(p / truth).imag for p in (z, y)],
    )

    def trace(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        """Mean and standard error over the sign vectors."""
        each = (a.astype(float) * b).mean((1, 2))
        return float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5)

    def density(a: np.ndarray, b: np.ndarray, power: np.ndarray | float) -> np.ndarray:
        """Cross-spectrum over the sign vectors' own, times what that is on average: far less noisy
        than without."""
        a, b = np.fft.fft2(window * a), np.fft.fft2(window * b)
        share = ring_mean((a.conj() * b).real.sum(0)) / ring_mean((np.abs(a) ** 2).sum(0))
        return share * (window**2 * power).sum() / (window**2).sum()

    def seen(through: np.ndarray, density_twice: np.ndarray) -> np.ndarray:
        """Expected ring density, through a window, of a stationary field of a given density on (2
        h, 2 w) px."""
        overlap = np.fft.ifft2(np.abs(np.fft.fft2(through, twice)) ** 2) / (through**2).sum()
        return ring_mean(np.fft.fft2(np.fft.ifft2(density_twice) * overlap).real[::2, ::2])

    def as_scored(rings: np.ndarray) -> np.ndarray:
        return seen(taper, np.interp(frequencies(twice), ring_frequencies(shape), rings))[scored]

    if prior is None:
        spectrum = np.abs(np.fft.fft2(varying(truth, taper))) ** 2
        signal, error = ring_mean(spectrum)[scored] / (taper**2).sum(), density(z, y, 2.0)[scored]
    else:  # in the frame of the truth's phasors the prior is stationary
        signal = as_scored(seen(window, prior.of_change(twice, truth).sum(0)))
        error = as_scored(density(z * to_truth, y * to_truth, 2.0))
    (phase_mse, phase_error), (amplitude_mse, amplitude_error) = trace(*phase), trace(*amplitude)
    return Limits(
        kind="unbiased" if prior is None else "bayesian",
        phase_mse=phase_mse,
        phase_mse_error=phase_error,
        amplitude_mse=amplitude_mse,
        amplitude_mse_error=amplitude_error,
        phase_range=float(np.ptp(Pair(truth, truth).phases[1])),
        amplitude_range=float(np.ptp(size)),
        frequency=ring_frequencies(shape)[scored],
        phase_density=density(*phase, size**-2.0)[scored],
        amplitude_density=density(*amplitude, 1.0)[scored],
        frc_error=error,
        frc_signal=signal,
        **facts,
    )


def _psnr(data_range: float, mse: float) -> float:
    return float(10 * np.log10(data_range**2 / mse)) if data_range > 0 else float("nan")


def _check(
    object: np.ndarray,
    probe: np.ndarray,
    xcoords: np.ndarray,
    ycoords: np.ndarray,
    sign_vectors: int,
) -> None:
    for name, array, axes in (("object", object, "H W"), ("probe", probe, "modes N N")):
        axes_fit = np.ndim(array) == len(axes.split())
        if not (axes_fit and np.iscomplexobj(array) and np.isfinite(array).all()):
            raise DataContractError(
                f"limits: {name} is {np.asarray(array).dtype} of shape {np.shape(array)}; a finite "
                f"complex array ({axes}) is needed"
            )
    if np.shape(xcoords) != np.shape(ycoords) or np.ndim(xcoords) != 1 or np.size(xcoords) == 0:
        raise DataContractError(
            f"limits: xcoords {np.shape(xcoords)}, ycoords {np.shape(ycoords)}; both must be (n,)"
        )
    if sign_vectors < 2:
        raise ConfigError(
            f"limits got sign_vectors = {sign_vectors}; 2 or more are needed to state an error"
        )


def _scored(object: np.ndarray, region: Region, margin: int) -> Region:
    """The region without its margin, or the error that says why it cannot be scored."""
    ends = [part.indices(size)[:2] for part, size in zip(region, np.shape(object), strict=True)]
    rows, columns = (slice(start + margin, stop - margin) for start, stop in ends)
    scored = object[rows, columns]
    if min(rows.stop - rows.start, columns.stop - columns.start) < 4 or not np.all(scored):
        raise DataContractError(
            f"limits: rows {rows.start}..{rows.stop - 1}, columns {columns.start}.."
            f"{columns.stop - 1} of an object of {np.shape(object)} px are to be scored; 4 px a "
            "side or more are needed, none of them 0, where a phase has no meaning"
        )
    return rows, columns
