"""Accelerated gradient steps on the shared canvas: the physics in the network's input, and the classical control.

Minimises, over an object canvas O on which all patterns of a field lie,

    f(O) = sum_j sum_q [ I_jq - n_jq log I_jq ] + tikhonov * sum_r |O_r - 1|^2,     I_j = |F(P_j cut_j O)|^2

by Nesterov steps with gradient restart (O'Donoghue & Candes 2015), preconditioned by 1 / (2 sum |P|^2 + tikhonov),
the Poisson curvature along the data (Wei et al., arXiv 2003.05475). The gradient is taken in the sense of d f / d conj(O).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ptycho_torch import optics
from ptycho_torch.noise import poisson_deviance
from ptycho_torch.patches import cut, paste

CHUNK = 256  # patterns held at once; results do not depend on it beyond rounding
_CACHED_PROBES = 2048  # shifted probes of up to this many 64 px patterns are kept, beyond it they are made again
_DARK = 0.003  # counts added below the Poisson ratio n / I, so that a photon on a dark pixel takes no infinite step


@dataclass(frozen=True)
class Patterns:
    """Measured patterns of one or more fields and where they lie. `counts` serves any indices, from memory or a file."""

    counts: Callable[[Tensor], Float[Tensor, "n N N"]]
    address: Int[Tensor, "n 3"]
    residual_px: Float[Tensor, "n 2"]
    probe: Complex[Tensor, "modes N N"]
    canvas_shape: tuple[int, int, int]
    _probes: dict = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.address)

    @property
    def N(self) -> int:
        return self.probe.shape[-1]

    def chunks(self) -> Iterator[Int[Tensor, " chunk"]]:
        """Indices of all patterns, CHUNK at a time."""
        return iter(torch.arange(len(self), device=self.address.device).split(CHUNK))

    def probes(self, indices: Int[Tensor, " n"]) -> Complex[Tensor, "n modes N N"]:
        """The probe at the sub-pixel part of each position."""
        key = tuple(indices.tolist())
        if key not in self._probes:
            shifted = optics.shift_probe(self.probe, self.residual_px[indices])
            if len(self) * self.N**2 > _CACHED_PROBES * 64**2:
                return shifted
            self._probes[key] = shifted
        return self._probes[key]

    def fluence(self) -> Float[Tensor, "fields H W"]:
        """Photons per object pixel, sum over positions and modes of |P|^2."""
        total = torch.zeros(self.canvas_shape, device=self.address.device)
        for chunk in self.chunks():
            power = self.probes(chunk).abs().square().sum(1)
            total += paste(power, self.address[chunk], self.canvas_shape)
        return total


def gradient(canvas: Complex[Tensor, "fields H W"], patterns: Patterns
             ) -> tuple[Complex[Tensor, "fields H W"], Float[Tensor, ""]]:
    """Gradient of the Poisson negative log-likelihood with respect to conj(O), and the summed deviance."""
    slope = torch.zeros_like(canvas)
    deviance = torch.zeros((), dtype=torch.float64, device=canvas.device)
    for chunk in patterns.chunks():
        address, probes, counts = patterns.address[chunk], patterns.probes(chunk), patterns.counts(chunk)
        waves = optics.detector_waves(cut(canvas, address, patterns.N), probes)
        expected = waves.abs().square().sum(1)
        excess = 1 - (counts + _DARK) / (expected + _DARK)
        slope += paste(optics.detector_waves_adjoint(excess[:, None] * waves, probes), address, patterns.canvas_shape)
        deviance += poisson_deviance(expected, counts).sum()
    return slope, deviance


def canvas_steps(patterns: Patterns, start: Complex[Tensor, "fields H W"], steps: int, tikhonov: float = 0.0,
                 prior: Complex[Tensor, "fields H W"] | float = 1.0,
                 observe: Callable[[int, Tensor, float], bool] | None = None) -> Complex[Tensor, "fields H W"]:
    """`steps` accelerated steps from `start`.

    `tikhonov` (photons per pixel) pulls towards `prior`. `observe(step, canvas, deviance)` sees each step's canvas and
    the deviance of the point it started from, and may end the iteration by returning True.
    """
    fluence = patterns.fluence()
    # The floor keeps pixels that no photon reaches from being divided by zero; their gradient is zero as well.
    curvature = 2 * fluence + tikhonov + 1e-3 * fluence.amax((-2, -1), keepdim=True)
    current = ahead = start
    momentum = torch.ones(len(start), 1, 1, device=start.device)  # one a field: none may depend on its company
    for step in range(steps):
        slope, deviance = gradient(ahead, patterns)
        if tikhonov:
            slope = slope + tikhonov * (ahead - prior)
        following = ahead - slope / curvature
        uphill = (slope.conj() * (following - current)).real.sum((-2, -1), keepdim=True) > 0
        momentum = torch.where(uphill, 1.0, momentum)
        grown = (1 + (1 + 4 * momentum**2).sqrt()) / 2
        ahead = following + (momentum - 1) / grown * (following - current)
        current, momentum = following, grown
        if observe is not None and observe(step, current, float(deviance)):
            break
    return current
