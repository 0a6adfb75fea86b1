"""Accelerated passes on an object canvas, or on canvas and probe together.

They minimise, over an object canvas O on which all patterns lie,

    f(O) = sum_j sum_q [ I_jq - n_jq log I_jq ] + tikhonov * sum |O - prior|^2
           + smoothness * sum |grad (O - prior)|^2,        I_j = sum_m |F(P_mj cut_j O)|^2

by Nesterov steps, preconditioned by 1 / (2 sum |P|^2 + tikhonov + 8 smoothness), the Poisson
curvature along the data (Wei et al., arXiv 2003.05475). They make the network's input, refine its
object, and are the classical control."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Complex
from torch import Tensor

from ptycho_torch.iteration.nesterov import Nesterov
from ptycho_torch.iteration.slopes import Canvas, gradient, joint_gradient, roughness_gradient
from ptycho_torch.iteration.subsets import Step, steps_of_pass
from ptycho_torch.physics.geometry import Geometry, Patterns

_RENEWAL = 10  # joint steps between two renewals of the preconditioner, while the probe changes
_WHOLE = Step(None, 1.0, torch.ones(()))  # of joint steps, whose curvatures give the length
_FOUND = 5  # steps between two looks at what is unknown of the exposures

Renew = Callable[[Tensor, Patterns], Patterns]


def empty(geometry: Geometry) -> Canvas:
    """The canvas of an empty object: 1 everywhere."""
    return torch.ones(geometry.shape, dtype=geometry.probe.dtype, device=geometry.probe.device)


def canvas_steps(
    patterns: Patterns,
    start: Canvas,
    passes: int | Sequence[int],
    tikhonov: float = 0.0,
    prior: Canvas | float = 1.0,
    smoothness: float = 0.0,
    observe: Callable[[int, Tensor], bool | None] | None = None,
    renew: Renew | None = None,
) -> Canvas:
    """Accelerated passes over the patterns, from `start`; the canvas that they end with.

    `passes` is their number, each one step on all patterns, or a sequence of how many subsets each
    pass steps on (:mod:`~ptycho_torch.iteration.subsets`). `tikhonov` and `smoothness` (photons per
    object pixel) pull towards `prior` and towards its slopes. `observe(pass, canvas)` sees the
    canvas after each pass, and may end the iteration by returning True. `renew(canvas, patterns)`
    gives the patterns to go on with after every fifth pass, such as
    :class:`ptycho_torch.iteration.exposures.Unknown`."""
    schedule = [1] * passes if isinstance(passes, int) else list(passes)
    steps: dict[int, list] = {}
    # One momentum a canvas: none may depend on its company.
    iteration = Nesterov((start,), torch.ones(len(start), 1, 1, device=start.device))
    for number, count in enumerate(schedule):
        if count not in steps:
            steps[count] = steps_of_pass(patterns.geometry, count, tikhonov + 8 * smoothness)
        for step in steps[count]:
            (at,) = iteration.at
            slope = gradient(at, patterns, step.indices, scored=False)[0] / step.share
            if tikhonov:
                slope = slope + tikhonov * (at - prior)
            if smoothness:
                slope = slope + smoothness * roughness_gradient(at - prior)
            iteration.move((slope,), (at - slope * step.length,))
        if renew is not None and number % _FOUND == _FOUND - 1:
            patterns = renew(iteration.reached[0], patterns)
            steps.clear()
        if observe is not None and observe(number, iteration.reached[0]):
            break
    return iteration.reached[0]


def joint_steps(
    patterns: Patterns,
    start: Canvas,
    passes: int | Sequence[int],
    smoothness: float = 0.0,
    observe: Callable[[int, Tensor, Patterns], None] | None = None,
    renew: Renew | None = None,
) -> tuple[Canvas, Patterns]:
    """Accelerated steps on object and probe together: the canvas, and the patterns under the probe
    that goes with it.

    The scale that the two may trade is fixed by keeping the probe's photons: without it, the
    penalty would empty the object into the probe. `passes` and `renew` as in :func:`canvas_steps`;
    `observe(pass, canvas, patterns)` sees each pass."""
    schedule = [1] * passes if isinstance(passes, int) else list(passes)
    photons = patterns.geometry.probe.abs().square().sum()
    start = start, patterns.geometry.probe
    iteration = Nesterov(start, torch.ones((), dtype=torch.float64, device=start[0].device))
    taken = _RENEWAL
    for number, count in enumerate(schedule):
        steps = [_WHOLE]
        if count > 1:
            steps = steps_of_pass(patterns.geometry, count, 8 * smoothness)
        for step in steps:
            if taken >= _RENEWAL:
                curvatures = _curvatures(patterns.geometry, iteration.reached[0], smoothness)
                taken = 0
            at, probe_at = iteration.at
            slopes = joint_gradient(at, probe_at, patterns, step.indices)
            slope, probe_slope = (one / step.share for one in slopes)
            if smoothness:
                slope = slope + smoothness * roughness_gradient(at)
            probe = probe_at - probe_slope / curvatures[1]
            probe = probe * (photons / probe.abs().square().sum()).sqrt()
            curvature = curvatures[0]
            if step.indices is not None:  # a subset may light a pixel more than its share
                curvature = torch.maximum(curvature, 2 / step.length)
            iteration.move((slope, probe_slope), (at - slope / curvature, probe))
            patterns = patterns.under(iteration.reached[1])
            taken += 1
        if renew is not None and number % _FOUND == _FOUND - 1:
            patterns = renew(iteration.reached[0], patterns)
            # a mean brightness goes into the probe
            before, photons = photons, patterns.geometry.probe.abs().square().sum()
            iteration.scale(1, (photons / before).sqrt())
        if observe is not None:
            observe(number, iteration.reached[0], patterns)
    return iteration.reached[0], patterns


def _curvatures(
    geometry: Geometry, canvas: Complex[Tensor, "1 H W"], smoothness: float
) -> tuple[Tensor, Tensor]:
    """Bounds of the curvature: 2 sum |P|^2 + 8 smoothness for the object, 2 sum |O|^2 for the
    probe, the data's part twice, since two blocks that move together may need steps half as long.

    Floors keep what no photon reaches from being divided by 0."""
    fluence, power = geometry.fluence(), canvas.abs().square()
    seen = sum(geometry.patches(power, chunk).sum(0) for chunk in geometry.chunks())
    least = 1e-2 * fluence.amax()
    return 4 * fluence + 8 * smoothness + least, 4 * seen + 0.8 * seen.mean()
