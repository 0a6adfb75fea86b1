"""What any method can reach: the Cramer-Rao bound of an object, and the Bayesian reference that
knows its class.

Unbiased: covariance F^-1, F the Fisher information (:mod:`fly64lib.evaluation.information`). With
an object on a finer grid than the detector's, what it holds beyond the detector's grid counts as
known: presuming it can only lower a bound, and without it some of it reaches the counts so faintly
that no solver ends. Bayesian: (F + C^-1)^-1 on the object's own grid, where C makes amplitude and
phase of the change stationary Gaussian fields with spectra and coherence of the specimen's class.
The score's gauge is projected out of the covariance over the region. Traces and ring spectra come
from random signs z, E[z^T X z] = tr X, with one conjugate-gradient solve each: F is applied, never
stored."""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from fly64lib.evaluation import rings
from fly64lib.evaluation.detector_grid import DetectorGrid
from fly64lib.evaluation.gauge import MAX_SHIFT_PX, Region, checked
from fly64lib.evaluation.information import Information, gauge_projector, solve
from fly64lib.evaluation.metrics import Pair
from fly64lib.evaluation.spectrum import ClassSpectrum
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.physics.geometry import Geometry

Image = np.ndarray  # (h, w), also (k, h, w)


class PartError(NamedTuple):
    """Expected squared error of phase or amplitude, over the region and ring by ring."""

    mse: float  # rad^2, or in units of the empty object's amplitude squared
    mse_error: float  # standard error of the stochastic trace
    range: float  # of the truth, as fly64lib.evaluation.metrics
    density: rings.Rings  # normalised as ClassSpectrum's

    @property
    def psnr(self) -> float:
        """dB, to first order; a score's wrapped phase error saturates at pi^2 / 3."""
        return float(10 * np.log10(self.range**2 / self.mse)) if self.range > 0 else float("nan")

    def at_dose(self, factor: float) -> "PartError":
        mse, error, density = self.mse / factor, self.mse_error / factor, self.density / factor
        return PartError(mse, error, self.range, density)


class Limits(NamedTuple):
    """Expected squared error of an ideal method over the scored region, to first order;
    `kind` is "unbiased" (Cramer-Rao; a method with a prior may pass it) or "bayesian"."""

    kind: str
    phase: PartError
    amplitude: PartError
    frequency: rings.Rings  # from the first ring to Nyquist, fraction of Nyquist
    frc_error: rings.Rings  # power density of the complex error as the FRC's window sees it
    frc_signal: rings.Rings  # that of the object itself; with a prior, what the prior expects of it
    probe_known: bool
    photons_per_pixel: float  # mean over the region
    iterations: int

    @property
    def frc(self) -> rings.Rings:
        """Ring correlation with the truth that such an error allows, r its power over the signal's:
        1 / sqrt(1 + r), as an unbiased error is uncorrelated with the truth, or sqrt(1 - r), as a
        posterior mean's error is uncorrelated with the image."""
        ratio = self.frc_error / np.maximum(self.frc_signal, np.finfo(float).tiny)
        if self.kind == "unbiased":
            return 1 / np.sqrt(1 + ratio)
        return np.sqrt(np.maximum(1 - ratio, 0))

    def at_dose(self, factor: float) -> "Limits":
        """The unbiased bound at `factor` times the dose."""
        if self.kind != "unbiased":
            raise ConfigError(
                "a Bayesian reference doesn't scale with dose, as its prior doesn't: call limits()"
                " again with the probe times sqrt(factor)"
            )
        if not factor > 0:
            raise ConfigError(f"at_dose got factor = {factor}; expected a positive ratio of doses")
        parts = {"phase": self.phase.at_dose(factor), "amplitude": self.amplitude.at_dose(factor)}
        error, photons = self.frc_error / factor, self.photons_per_pixel * factor
        return self._replace(**parts, frc_error=error, photons_per_pixel=photons)


def limits(
    object: Complex[np.ndarray, "H W"],
    geometry: Geometry,
    region: Region,
    prior_spectrum: ClassSpectrum | None = None,
    *,
    probe_known: bool = True,
    sign_vectors: int = 4,
    iterations: int = 3000,
    tolerance: float = 1e-2,
    seed: int = 0,
) -> Limits:
    """The bound of `object` in `region` (rows, columns of the detector's grid, where it is scored)
    for exposures on the whole object (`scan.geometry(whole=True)`).

    sum |probe|^2 is the dose. `prior_spectrum` turns the unbiased bound into the Bayesian
    reference. Unknown are the lit pixels of the canvas (with a prior, all), and without
    `probe_known` the probe, of which nothing is presumed. The score's gauge is projected out: the
    global phase, with an unknown probe also scale, ramp and shift, and then the region loses a
    border of `MAX_SHIFT_PX`, as the score's. For so many random `sign_vectors` the system is solved
    to a relative preconditioned residual of `tolerance` (1e-2 leaves less than 0.01 dB), in
    `object`'s precision.

    Raises :class:`DataContractError` for arrays that don't fit each other, its `Unbounded` for a
    region with unlit pixels and no prior (infinite variance); :class:`PtychoError` if the solver
    hasn't converged after `iterations`."""
    grid, margin = DetectorGrid.of(geometry), 0 if probe_known else MAX_SHIFT_PX
    canvas = _checked(object, geometry)
    scored = grid.image(canvas)
    region = _scored(scored, region, margin)
    if sign_vectors < 2:
        raise ConfigError(f"limits got sign_vectors = {sign_vectors}; 2 or more state an error")
    geometry, truth = geometry.under(geometry.probe.to(canvas.dtype)), scored[region]
    random, fine = torch.Generator().manual_seed(seed), grid.on_canvas(region)
    signs = torch.randint(2, (sign_vectors, *truth.shape, 2), generator=random)
    with torch.no_grad():
        coarse = grid if prior_spectrum is None and grid.finer > 1 else None
        where = region if coarse else fine
        information = Information(geometry, canvas, where, prior_spectrum, probe_known, coarse)
        remove = gauge_projector(scored, region, probe_known)
        z = torch.view_as_complex(2 * signs.to(canvas.real.dtype) - 1) * truth.sgn()
        start = scored.new_zeros(sign_vectors, *scored.shape)
        start[:, region[0], region[1]] = remove(z)
        start = start if coarse else grid.adjoint(start, canvas.shape)
        found, steps = solve(information, information.join(start), iterations, tolerance)
        found = information.split(found)[0]
        y = remove((found if coarse else grid.image(found))[:, region[0], region[1]])
        photons = float(geometry.fluence()[0][fine].mean()) * grid.finer**2
    prior_spectrum = prior_spectrum and prior_spectrum.seen_at(grid.finer)
    facts = {"probe_known": probe_known, "iterations": steps, "photons_per_pixel": photons}
    return _summary(z.numpy(), y.numpy(), truth.numpy(), prior_spectrum, **facts)


def _summary(z: Image, y: Image, truth: Image, prior: ClassSpectrum | None, **facts: Any) -> Limits:
    """Traces and ring densities from sign vectors z (k, h, w) and covariance times z, y.

    Through the FRC's own window; a posterior's error is so steep that this short taper would drown
    its weak rings in the strong ones' noise: there a Hann window measures, and what leaks through
    the FRC's is computed."""
    shape, size, to_truth = truth.shape, np.abs(truth), np.abs(truth) / truth
    taper = rings.tukey_window(shape)
    window = taper if prior is None else rings.hann_window(shape)
    twice, scored = (2 * shape[0], 2 * shape[1]), rings.scored_rings(shape)

    def part(a: Image, b: Image, values: Image, power: Any) -> PartError:
        """Mean over the sign vectors, its standard error, and rings."""
        each = (a.astype(float) * b).mean((1, 2))
        mse, error = float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5)
        return PartError(mse, error, float(np.ptp(values)), density(a, b, power)[scored])

    def density(a: Image, b: Image, power: Image | float) -> rings.Rings:
        """Cross-spectrum over the sign vectors' own, times that on average: far less noisy."""
        a, b = np.fft.fft2(window * a), np.fft.fft2(window * b)
        cross, own = (a.conj() * b).real.sum(0), (np.abs(a) ** 2).sum(0)
        share = rings.ring_mean(cross) / rings.ring_mean(own)
        return share * (window**2 * power).sum() / (window**2).sum()

    def seen(through: Image, density_twice: Image) -> rings.Rings:
        """Expected ring density, through a window, of a field of a given density on (2 h, 2 w)."""
        overlap = np.fft.ifft2(np.abs(np.fft.fft2(through, twice)) ** 2) / (through**2).sum()
        return rings.ring_mean(np.fft.fft2(np.fft.ifft2(density_twice) * overlap).real[::2, ::2])

    def as_scored(density: rings.Rings) -> rings.Rings:
        on_grid = np.interp(rings.frequencies(twice), rings.ring_frequencies(shape), density)
        return seen(taper, on_grid)[scored]

    if prior is None:
        spectrum = np.abs(np.fft.fft2(rings.varying(truth, taper))) ** 2
        signal = rings.ring_mean(spectrum)[scored] / (taper**2).sum()
        error = density(z, y, 2.0)[scored]
    else:  # in the frame of the truth's phasors the prior is stationary
        signal = as_scored(seen(window, prior.of_change(twice, truth)[:2].sum(0)))
        error = as_scored(density(z * to_truth, y * to_truth, 2.0))
    tangential, radial = [(v / truth).imag for v in (z, y)], [(v * to_truth).real for v in (z, y)]
    phase = part(*tangential, Pair(truth, truth).phase.truth, size**-2.0)
    amplitude, frequency = part(*radial, size, 1.0), rings.ring_frequencies(shape)[scored]
    kind = "unbiased" if prior is None else "bayesian"
    return Limits(kind, phase, amplitude, frequency, error, signal, **facts)


def _checked(object: np.ndarray, geometry: Geometry) -> Complex[Tensor, "H W"]:
    """The object as a tensor, or the error that says what does not fit."""
    checked("limits: object", object)
    if geometry.shape != (1, *object.shape):
        raise DataContractError(
            f"limits: a geometry on canvases of {geometry.shape} for an object of {object.shape};"
            " make it of the whole object: whole=True"
        )
    return torch.as_tensor(np.ascontiguousarray(object))


def _scored(image: Complex[Tensor, "h w"], region: Region, margin: int) -> Region:
    """The region without its margin, or the error that says what does not fit."""
    ends = [part.indices(size)[:2] for part, size in zip(region, image.shape, strict=True)]
    rows, columns = (slice(start + margin, stop - margin) for start, stop in ends)
    scored = image[rows, columns]
    if min(rows.stop - rows.start, columns.stop - columns.start) < 4 or not scored.all():
        raise DataContractError(
            f"limits: rows {rows.start}..{rows.stop - 1}, columns {columns.start}.."
            f"{columns.stop - 1} of an object of {tuple(image.shape)} px are to be scored; 4 px a "
            "side or more are needed, none of them 0, where a phase has no meaning"
        )
    return rows, columns
