"""Gradients of the Poisson likelihood by the object and the probe, and of the penalty on slopes.

A gradient is taken in the sense of d f / d conj(O). The negative log-likelihood of counts n under
expected counts I = s sum_m |w_m|^2 + b has the gradient sum_m conj(P_m) F^-1[s (1 - n / I) w_m] by
a patch (Thibault & Guizar-Sicairos, New J. Phys. 14, 063004 (2012)); s is an exposure's brightness,
0 where a pixel was not measured, and b a background."""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ptycho_torch.physics import optics
from ptycho_torch.physics.geometry import Patterns
from ptycho_torch.physics.noise import SMALLEST_COUNT, poisson_deviance
from ptycho_torch.physics.patches import paste

# Counts added above and below the ratio n / I: a photon on a dark pixel takes no infinite step.
DARK = 0.003

Canvas = Complex[Tensor, "canvases H W"]


def gradient(
    canvas: Canvas,
    patterns: Patterns,
    indices: Int[Tensor, " m"] | None = None,
    scored: bool = True,
    dark: float = DARK,
) -> tuple[Canvas, Float[Tensor, ""]]:
    """Gradient of the negative log-likelihood by conj(O), and the summed deviance (0 if not
    `scored`), of all patterns or of those with the given indices.

    `dark` counts lie below the ratio n / I; with 0 the gradient is the deviance's own, flat where
    that is clamped."""
    geometry = patterns.geometry
    forward, adjoint, modulation = geometry.round_trip()
    modulated, slope = canvas * modulation, torch.zeros_like(canvas)
    deviance = torch.zeros((), dtype=torch.float64, device=canvas.device)
    for chunk in geometry.chunks(indices):
        probes, counts = geometry.probes(chunk), patterns.measured(chunk)
        waves = forward(probes * geometry.patches(modulated, chunk)[:, None])
        expected = geometry.counted(_summed(optics.intensity(waves)), chunk)
        excess = excess_of(expected, counts, geometry.sensitivity(chunk), dark)
        if not dark:
            excess = torch.where(expected > SMALLEST_COUNT, excess, 0.0)
        back = _summed(probes.conj() * adjoint(excess[:, None] * waves))
        slope += paste(back, geometry.address[chunk], geometry.shape)
        if scored:
            deviance += poisson_deviance(expected, counts).sum()
    return slope * modulation, deviance


def joint_gradient(
    canvas: Canvas,
    probe: Complex[Tensor, "modes M M"],
    patterns: Patterns,
    indices: Int[Tensor, " m"] | None = None,
) -> tuple[Canvas, Complex[Tensor, "modes M M"]]:
    """Gradients of the negative log-likelihood by conj(O) and conj(P), of all patterns or of those
    with the given indices.

    The waves are linear in each of the two, so that each gradient is an adjoint: of cutting, or of
    shifting the probe."""
    geometry = patterns.geometry.under(probe)
    geometry.require_rest("the probe")
    forward, adjoint, modulation = geometry.round_trip()
    modulated = canvas * modulation
    by_object, by_probe = torch.zeros_like(canvas), torch.zeros_like(probe)
    for chunk in geometry.chunks(indices):
        patches = geometry.patches(modulated, chunk)[:, None]
        shift = geometry.residual_px[chunk]
        probes = optics.shift_probe(probe, shift)
        waves = forward(probes * patches)
        expected = geometry.counted(_summed(optics.intensity(waves)), chunk)
        counts = patterns.measured(chunk)
        excess = excess_of(expected, counts, geometry.sensitivity(chunk))[:, None]
        back = adjoint(excess * waves)
        on_patches = _summed(probes.conj() * back)
        by_object += paste(on_patches, geometry.address[chunk], geometry.shape)
        by_probe += optics.shift_probe_adjoint(patches.conj() * back, shift)
    return by_object * modulation, by_probe


def mean_deviance(canvas: Complex[Tensor, "1 H W"], patterns: Patterns) -> float:
    """Mean Poisson deviance per measured detector pixel of a canvas against patterns on it."""
    return float(deviances(canvas, patterns).mean())


def deviances(canvas: Complex[Tensor, "1 H W"], patterns: Patterns) -> Float[Tensor, " n"]:
    """That of each pattern, float64."""
    geometry, found = patterns.geometry, []
    for chunk in geometry.chunks():
        expected = geometry.expected(canvas, chunk)
        of_pixels = poisson_deviance(expected, patterns.counts(chunk)).double()
        found.append(of_pixels.sum((-2, -1)) / geometry.measured_px)
    return torch.cat(found)


def roughness_gradient(canvas: Canvas) -> Canvas:
    """Gradient of sum |grad O|^2 by conj(O): minus the Laplacian, nothing flowing over the
    border."""
    slope = torch.zeros_like(canvas)
    for axis in (-2, -1):
        size, difference = canvas.shape[axis] - 1, torch.diff(canvas, dim=axis)
        slope.narrow(axis, 0, size).sub_(difference)
        slope.narrow(axis, 1, size).add_(difference)
    return slope


def excess_of(
    expected: Float[Tensor, "n N N"],
    counts: Float[Tensor, "n N N"],
    sensitivity: Float[Tensor, "n_or_1 *N_N"] | None = None,
    dark: float = DARK,
) -> Float[Tensor, "n N N"]:
    """sensitivity (1 - n / I), the derivative of the negative log-likelihood by the intensity."""
    excess = 1 - (counts + dark) / (expected + dark)
    return excess if sensitivity is None else excess * sensitivity


def _summed(of_modes: Tensor) -> Tensor:
    """Sum over the modes; of a single one without a copy."""
    return of_modes[:, 0] if of_modes.shape[1] == 1 else of_modes.sum(1)
