"""The Fisher information that Poisson counts give about an object, as an operator; its inverse by
conjugate gradients; and the gauge, taken out of an error.

Counts of mean I = s sum_m |psi_m|^2 + b depend on a small complex change v of the object O, with Re
<u, v> as product and u = s psi / sqrt(I), by (Wei et al., arXiv 2003.05475)

    F v = sum dI dI^T v / I = sum_j 4 A_j^H [ u_j Re sum_m conj(u_jm) (A_j v)_m ],

A_j v = F(P_j cut_j v); an unknown probe's change joins v."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from fly64lib.evaluation.detector_grid import DetectorGrid
from fly64lib.evaluation.gauge import Region
from fly64lib.evaluation.spectrum import ClassSpectrum
from ptycho_torch.errors import DataContractError, PtychoError
from ptycho_torch.iteration.gain import Gain, filtered, inverse, plus
from ptycho_torch.physics import optics
from ptycho_torch.physics.geometry import Geometry
from ptycho_torch.physics.patches import paste

# Of the region's median fluence; dimmer pixels count as known (1e-6: bounds < 0.01 dB away).
_LIT = 1e-4

Canvas = Complex[Tensor, "H W"]
Prior = ClassSpectrum | None
Canvases = Complex[Tensor, "k H W"]
Probes = Complex[Tensor, "k modes M M"]
Unknowns = Complex[Tensor, "k unknowns"]  # canvas and, if unknown, probe, one behind the other


class Unbounded(DataContractError):
    """Pixels of the region get no light: without a prior their error has no bound."""


class Information:
    """F, with a prior F + C^-1, on the canvas and, if unknown, the probe behind it.

    With a `grid` the canvas that is unknown is the detector's, and so is `region`: what the object
    holds beyond it counts as known."""

    def __init__(
        self,
        geometry: Geometry,
        canvas: Canvas,
        region: Region,
        prior: Prior,
        probe_known: bool,
        grid: DetectorGrid | None = None,
    ) -> None:
        self.geometry, self.canvas, self.probe_known = geometry, canvas, probe_known
        self.grid, self.shape = grid, grid.shape(canvas.shape) if grid else tuple(canvas.shape)
        # A modulated canvas spares the shifts of each pattern; a probe's change would have to be
        # modulated patch by patch.
        self.transforms = (
            partial(optics.propagate, N=geometry.N),
            partial(optics.backpropagate, M=geometry.M),
            torch.ones(()),
        )
        if probe_known:
            self.transforms = geometry.round_trip()
        fluence = geometry.fluence()[0].to(canvas.real.dtype)
        if grid:  # photons on what a pixel of the detector's grid spreads over
            fluence = _spread_over(fluence, grid, self.shape)
        least = _LIT * fluence[region].median()
        self.phasor = torch.where(canvas == 0, 1, canvas.sgn())
        self.prior_precision = self.prior_gain = None
        lit = fluence > least if prior is None else torch.ones_like(fluence)
        self.unknown = lit.to(fluence.dtype)
        if prior is not None:
            covariance = prior.of_change(tuple(canvas.shape), canvas[region].numpy())
            precision = inverse(torch.as_tensor(covariance))
            even = torch.full_like(precision[:2], 2 * float(fluence[region].mean()))
            self.prior_precision = precision.to(fluence.dtype)
            self.prior_gain = inverse(plus(precision, even)).to(fluence.dtype)
        elif dark := int((fluence[region] <= least).sum()):
            raise Unbounded(
                f"{dark} pixels of the region get no more than {_LIT} of its median fluence:"
                " score a smaller region, or give a prior_spectrum for a finite bound"
            )
        # Of the two directions of a change, 4 |P|^2 each, a pattern measures the one along u.
        self.pixel_gain = self.unknown / (2 * fluence).clamp_min(1e-30)
        patches = (geometry.patches(canvas.abs().square()[None], c) for c in geometry.chunks())
        self.probe_gain = 0.5 / sum(patch.sum(0) for patch in patches)

    def split(self, x: Unknowns) -> tuple[Canvases, Probes]:
        """Canvases and probes of the unknowns; no modes where the probe is known."""
        size, M = self.unknown.numel(), self.geometry.M
        return x[:, :size].view(-1, *self.shape), x[:, size:].view(len(x), -1, M, M)

    def join(self, canvases: Canvases, probes: Probes | None = None) -> Unknowns:
        """The inverse of :meth:`split`; without `probes` they are zero."""
        if probes is None:
            size = 0 if self.probe_known else self.geometry.probe.numel()
            probes = canvases.new_zeros(len(canvases), size)
        return torch.cat([canvases.flatten(1), probes.flatten(1)], 1)

    def apply(self, x: Unknowns) -> Unknowns:
        """(F + C^-1) x."""
        geometry, (changes, probe_changes) = self.geometry, self.split(x)
        lit_changes, canvas = changes * self.unknown, self.canvas
        if self.grid:
            lit_changes = self.grid.spread(lit_changes, canvas.shape)
        result, probe_result = torch.zeros_like(lit_changes), torch.zeros_like(probe_changes)
        forward, adjoint, modulation = self.transforms
        canvas, lit_changes = canvas * modulation, lit_changes * modulation
        for chunk in geometry.chunks():
            probes, patches = geometry.probes(chunk), geometry.patches(canvas[None], chunk)[:, None]
            waves = forward(probes * patches)
            expected = geometry.counted(optics.intensity(waves).sum(1), chunk)
            u = waves * expected.clamp_min(1e-30).rsqrt()[:, None]
            if (sensitivity := geometry.sensitivity(chunk)) is not None:
                u = u * sensitivity[:, None]
            shift = geometry.residual_px[chunk]
            for k, change in enumerate(lit_changes):
                wave_change = forward(probes * geometry.patches(change[None], chunk)[:, None])
                if not self.probe_known:
                    wave_change += forward(patches * optics.shift_probe(probe_changes[k], shift))
                along = u.real * wave_change.real + u.imag * wave_change.imag
                returned = adjoint(4 * u * along.sum(1, keepdim=True))
                on_patches = (probes.conj() * returned).sum(1)
                result[k] += paste(on_patches, geometry.address[chunk], geometry.shape)[0]
                if not self.probe_known:
                    on_probes = patches.conj() * returned
                    probe_result[k] += optics.shift_probe_adjoint(on_probes, shift)
        result *= modulation
        if self.grid:  # the adjoint of the spread
            result = self.grid.image(result) * self.grid.finer**2
        result *= self.unknown
        if self.prior_precision is not None:
            result += self._filtered(changes, self.prior_precision)
        return self.join(result, probe_result)

    def precondition(self, x: Unknowns) -> Unknowns:
        """An approximate inverse: 1 / (2 sum |P|^2) a pixel; with a prior, of an even fluence."""
        changes, probe_changes = self.split(x)
        alone = self.prior_gain is None
        changes = changes * self.pixel_gain if alone else self._filtered(changes, self.prior_gain)
        return self.join(changes, probe_changes * self.probe_gain)

    def _filtered(self, changes: Canvases, gain: Gain) -> Canvases:
        """Radial (amplitude) and tangential (phase) part, filtered on the periodic canvas."""
        parts = torch.view_as_real(changes * self.phasor.conj()).movedim(-1, 1)
        gain = gain[..., : parts.shape[-1] // 2 + 1]  # real fields; a gain of the frequency alone
        parts = torch.stack([filtered(part, gain) for part in parts])
        return torch.complex(parts[:, 0], parts[:, 1]) * self.phasor


def _spread_over(
    fluence: Float[Tensor, "H W"], grid: DetectorGrid, shape: tuple[int, int]
) -> Float[Tensor, "h w"]:
    """sum_r |s(r)|^2 fluence(r) for each pixel of the detector's grid, s what it spreads over."""
    one = torch.zeros(shape, dtype=torch.promote_types(fluence.dtype, torch.complex64))
    one[0, 0] = 1
    kernel = grid.spread(one, fluence.shape).abs().square()
    seen = torch.fft.ifft2(torch.fft.fft2(fluence) * torch.fft.fft2(kernel).conj()).real
    rows, columns = ((torch.arange(side) * grid.finer).round().long() for side in shape)
    return seen[rows[:, None], columns].clamp_min(0)


class NotSolved(PtychoError):
    """A limit whose equations the iteration did not solve."""


def solve(F: Information, b: Unknowns, iterations: int, tolerance: float) -> tuple[Unknowns, int]:
    """Solution and number of steps of preconditioned conjugate gradients, all rows at once, to a
    relative residual of `tolerance`; :class:`NotSolved` after `iterations` without. The null
    directions are absent from `b`, and stay so."""

    def dot(a: Unknowns, b: Unknowns) -> Float[Tensor, "k 1"]:
        return (a.conj() * b).real.sum(1, keepdim=True, dtype=torch.float64)

    x, residual = torch.zeros_like(b), b
    direction = steered = F.precondition(b)
    size = first = dot(residual, steered)
    for step in range(iterations):
        image = F.apply(direction)
        length = (size / dot(direction, image)).to(b.real.dtype)
        x, residual = x + length * direction, residual - length * image
        steered = F.precondition(residual)
        before, size = size, dot(residual, steered)
        if (size <= tolerance**2 * first).all():
            return x, step + 1
        direction = steered + (size / before).to(b.real.dtype) * direction
    raise NotSolved(
        f"limits: relative residual {float((size / first).max()) ** 0.5:.1e} after {iterations}"
        f" iterations, not {tolerance:.1e}: allow more or a looser tolerance (complex64 objects"
        " cannot give 1e-5)"
    )


def gauge_projector(canvas: Canvas, region: Region, known: bool) -> Callable[[Canvases], Canvases]:
    """Projector that takes from errors (k, h, w) over the region what the score's alignment does,
    to first order.

    The fit of a phase takes out the error's part along i O; with an unknown probe, the joint fit
    also those along O (the score's ratio of summed amplitudes does so up to the contrast squared),
    i x O, i y O, and the derivatives of O along y and x."""
    truth = canvas[region]
    directions = [1j * truth]
    if not known:
        real = canvas.real.dtype
        rows, columns = (torch.linspace(-1, 1, size, dtype=real) for size in truth.shape)
        directions += [truth, 1j * rows[:, None] * truth, 1j * columns * truth]
        mirrored = torch.cat([canvas, canvas.flip(0)], 0)  # has no jump where it closes on itself
        spectrum = torch.fft.fft2(torch.cat([mirrored, mirrored.flip(1)], 1))
        for size, shape in zip(spectrum.shape, ((-1, 1), (1, -1)), strict=True):
            frequency = torch.fft.fftfreq(size, dtype=real).reshape(shape)
            directions.append(torch.fft.ifft2(2j * torch.pi * frequency * spectrum)[region])
    basis = torch.linalg.qr(torch.view_as_real(torch.stack(directions)).flatten(1).T).Q

    def remove(errors: Canvases) -> Canvases:
        flat = torch.view_as_real(errors).flatten(1)
        return torch.view_as_complex((flat - flat @ basis @ basis.T).view(*errors.shape, 2))

    return remove
