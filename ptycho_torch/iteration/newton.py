"""The most likely object under an image prior, by Gauss-Newton steps.

Minimises over log O = a + i phi (:mod:`~ptycho_torch.iteration.image_prior`), about a centre c,

    f = sum_j sum_q [ I_jq - n_jq log I_jq ] + sum_k precision(k) |FT(log O - c)(k)|^2

A step solves the linearised problem, with the Fisher information 2 A^H u Re(u* A) of the counts, by
conjugate gradients. The detector tells slow changes of the phase poorly, a thousand times less than
its details; the preconditioner knows by how much, ring by ring: it is measured on random signs,
which costs two products with the information. Some 20 products then do what hundreds of gradient
steps do not.

Of a probe with several modes the products take the strong ones, for all of the light: the slope is
exact, so that only the way to the minimum changes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ptycho_torch.iteration.canvas import canvas_steps, empty
from ptycho_torch.iteration.gain import Gain, filtered, inverse, plus
from ptycho_torch.iteration.image_prior import ImagePrior, Logs, Prior, logs_of, object_of
from ptycho_torch.iteration.slopes import DARK, excess_of
from ptycho_torch.physics import optics
from ptycho_torch.physics.geometry import Patterns
from ptycho_torch.physics.noise import poisson_deviance
from ptycho_torch.physics.patches import paste

START = 5  # accelerated passes from an empty object, before the object has a logarithm
_START_SMOOTHNESS = 10.0
STEPS = (8, 16)  # conjugate gradient steps of each linearisation
_SOLVED = 1e-3  # relative residual that ends one early
_RINGS = 40  # of the measured response
_LEAST_RESPONSE = 1e-3  # relative to one pixel's own
_INNER = 2  # steps of the preconditioner, which joins what is simple in space and in frequency
_HALVINGS = 4  # of a step that led uphill, at most
_LEADING = 0.95  # of the light: modes that carry that much stand for all in the products

Modes = slice | Int[Tensor, " k"]


class State(NamedTuple):
    """Where an iteration stands."""

    step: int  # conjugate gradient steps behind it
    logs: Logs
    deviance: float  # per measured pixel


def start(patterns: Patterns) -> Logs:
    """Log amplitude and phase after a few passes from an empty object."""
    geometry = patterns.geometry
    canvas = canvas_steps(patterns, empty(geometry), START, smoothness=_START_SMOOTHNESS)
    return logs_of(canvas, geometry.fluence())


class Newton:
    """Gauss-Newton steps on the patterns of one canvas."""

    def __init__(self, patterns: Patterns) -> None:
        geometry = patterns.geometry
        self.patterns, self.geometry = patterns, geometry
        self.fluence, self.shape = geometry.fluence()[0], geometry.shape[1:]
        self.forward, self.adjoint, self.modulation = geometry.round_trip()
        self.response: Float[Tensor, "2 H K"] | None = None
        self.leading = leading_modes(geometry.probe) if geometry.way_px is None else None
        self._known: list[tuple[Logs, Linearised]] = []  # where it began and ended last

    def about(self, logs: Logs) -> "Linearised":
        """The likelihood about an object; the last two are kept, since a search begins at one
        object again and again."""
        for known, linearised in self._known:
            if known is logs:
                return linearised
        return self._keep(logs, Linearised(self, logs))

    def _keep(self, logs: Logs, linearised: "Linearised") -> "Linearised":
        self._known = [*self._known[-1:], (logs, linearised)]
        return linearised

    def solve(
        self,
        logs: Logs,
        prior: Prior,
        steps: Sequence[int] = STEPS,
        centre: Logs | float = 0.0,
        observe: Callable[[State], None] | None = None,
    ) -> Logs:
        """From `logs` to the minimum; `steps` says how many conjugate gradient steps each
        linearisation gets. A step that led uphill is halved. `observe` sees the state before each
        linearisation and at the end."""
        precision = prior.precision(self.shape, logs)
        scale = len(self.patterns) * self.geometry.measured_px
        here, done = self.about(logs), 0
        for count in steps:
            if observe:
                observe(State(done, logs, float(here.deviance) / scale))
            change = here.step(logs - centre, precision, count)
            before = here.penalised(logs - centre, precision)
            for _ in range(_HALVINGS):
                there = Linearised(self, logs + change)
                if there.penalised(logs + change - centre, precision) <= before:
                    break
                change = change / 2
            else:
                break
            logs, here, done = logs + change, there, done + count
        if done:
            self._keep(logs, here)
        if observe:
            observe(State(done, logs, float(here.deviance) / scale))
        return logs


class Linearised:
    """The likelihood about an object: its gradient and Fisher information by log O."""

    def __init__(self, newton: Newton, logs: Logs) -> None:
        self.newton, self.canvas = newton, object_of(logs)
        geometry, slope = newton.geometry, torch.zeros_like(self.canvas)
        self.deviance = torch.zeros((), dtype=torch.float64, device=logs.device)
        self._kept: list[Tensor] | None = [] if geometry.worth_keeping() else None
        for chunk in geometry.chunks():
            waves, expected = self._waves(chunk)
            counts = newton.patterns.measured(chunk)
            excess = excess_of(expected, counts, geometry.sensitivity(chunk))[:, None]
            slope += self._back(excess * waves, chunk, geometry.probes(chunk))
            self.deviance += poisson_deviance(expected, counts).sum()
            if self._kept is not None:
                self._kept.append(self._direction(waves, expected, chunk))
        self.slope = self._parts(slope)

    def penalised(self, away: Logs, precision: Gain) -> float:
        """f, `away` from the prior's centre."""
        return float(self.deviance / 2 + (away * filtered(away, precision)).sum())

    def step(self, away: Logs, precision: Gain, count: int) -> Logs:
        """The change of log O that minimises the linearised f, `away` from the prior's centre."""
        return self.solve(-(self.slope + filtered(away, precision)), precision, count)

    def solve(self, right: Logs, precision: Gain, count: int) -> Logs:
        """(information + precision)^-1 `right`, by so many conjugate gradient steps at most."""
        weight = self.newton.fluence * self.canvas[0].abs().square()
        weight = weight + 1e-3 * self.newton.fluence.amax()
        if self.newton.response is None:
            self.newton.response = self._measured_response(weight.sqrt())
        response = self.newton.response

        split = weight, response, precision
        solution, residual = torch.zeros_like(right), right
        direction = steered = _split_solve(residual, *split)
        size = first = _dot(residual, steered)
        for _ in range(count):
            image = self.information(direction, self.newton.leading)
            image = image + filtered(direction, precision)
            length = (size / _dot(direction, image)).to(right.dtype)
            solution, before = solution + length * direction, residual
            residual = residual - length * image
            steered = _split_solve(residual, *split)
            # the preconditioner is no exact linear map: Polak and Ribiere's weight forgives that
            turn, size = _dot(residual - before, steered) / size, _dot(residual, steered)
            if size <= _SOLVED**2 * first:
                break
            direction = steered + turn.clamp_min(0).to(right.dtype) * direction
        return solution

    def information(self, change: Logs, modes: Modes | None = None) -> Logs:
        """2 A^H u Re(u* A change), u the direction in which a wave's change is counted; of some
        `modes` only, as if they had the light of all."""
        newton, geometry = self.newton, self.newton.geometry
        changed = torch.complex(change[0], change[1])[None] * self.canvas * newton.modulation
        result = torch.zeros_like(changed)
        for number, chunk in enumerate(geometry.chunks()):
            direction, probes = self._at(number, chunk), geometry.probes(chunk)
            if modes is not None:
                direction, probes = direction[:, modes], probes[:, modes]
            waves = newton.forward(probes * geometry.patches(changed, chunk)[:, None])
            parts = torch.view_as_real(direction) * torch.view_as_real(waves)
            along = (parts[..., 0] + parts[..., 1]).sum(1, True)
            result += self._back(direction * (2 * along), chunk, probes)
        return self._parts(result if modes is None else result / _share(geometry.probe, modes))

    def noise(self, generator: torch.Generator) -> Logs:
        """A random gradient whose covariance is the information."""
        newton, geometry = self.newton, self.newton.geometry
        result = torch.zeros_like(self.canvas)
        for number, chunk in enumerate(geometry.chunks()):
            direction = self._at(number, chunk)
            size = len(chunk), 1, geometry.N, geometry.N
            random = torch.randn(size, generator=generator).to(newton.fluence)
            probes = geometry.probes(chunk)
            result += self._back(2**0.5 * direction * random, chunk, probes)
        return self._parts(result)

    def _at(self, number: int, chunk: Tensor) -> Complex[Tensor, "n modes N N"]:
        """The directions of a chunk, kept or made again."""
        kept = self._kept
        return self._direction(*self._waves(chunk), chunk) if kept is None else kept[number]

    def _waves(self, chunk: Tensor) -> tuple[Complex[Tensor, "n modes N N"], Tensor]:
        """Waves on the detector, and the counts that they let expect."""
        geometry = self.newton.geometry
        patches = geometry.patches(self.canvas * self.newton.modulation, chunk)[:, None]
        waves = self.newton.forward(geometry.probes(chunk) * patches)
        return waves, geometry.counted(optics.intensity(waves).sum(1), chunk)

    def _direction(self, waves: Tensor, expected: Tensor, chunk: Tensor) -> Tensor:
        sensitivity = self.newton.geometry.sensitivity(chunk)
        direction = waves * (expected + DARK).rsqrt()[:, None]
        return direction if sensitivity is None else direction * sensitivity[:, None]

    def _back(self, waves: Complex[Tensor, "n modes N N"], chunk: Tensor, probes: Tensor) -> Tensor:
        geometry = self.newton.geometry
        patches = (probes.conj() * self.newton.adjoint(waves)).sum(1)
        return paste(patches, geometry.address[chunk], geometry.shape)

    def _parts(self, by_object: Complex[Tensor, "1 H W"]) -> Logs:
        """A gradient by conj(O), still modulated, as one by log amplitude and phase."""
        by_logs = (by_object * self.newton.modulation * self.canvas.conj())[0]
        return torch.stack([by_logs.real, by_logs.imag])

    def _measured_response(self, root: Float[Tensor, "H W"]) -> Float[Tensor, "2 H K"]:
        """Mean over rings of the information of a frequency, beside a pixel's own."""
        generator, found = torch.Generator().manual_seed(0), []
        frequency = ImagePrior(1.0, slope=1.0, length_px=torch.inf).precision(root.shape, root)[1]
        ring = (frequency / frequency.amax() * _RINGS).long().clamp_max(_RINGS - 1)
        members = torch.bincount(ring.flatten(), minlength=_RINGS).clamp_min(1)
        for part in range(2):
            signs = torch.zeros(2, *root.shape)
            signs[part] = 2.0 * torch.randint(2, root.shape, generator=generator) - 1
            signs = signs.to(root)
            seen = self.information(signs / root, self.newton.leading)[part] / root
            pair = torch.fft.rfft2(signs[part]).conj() * torch.fft.rfft2(seen)
            total = torch.bincount(ring.flatten(), pair.real.flatten(), minlength=_RINGS)
            found.append((total / members / root.numel()).to(root)[ring])
        return torch.stack(found).clamp_min(_LEAST_RESPONSE)


def leading_modes(probe: Complex[Tensor, "modes M M"]) -> Modes | None:
    """The strongest modes that carry most of the light; None where that takes all of them."""
    power = optics.intensity(probe).sum((1, 2))
    order = power.argsort(descending=True)
    before = power[order].cumsum(0) - power[order]
    count = int((before < _LEADING * power.sum()).sum())
    if not 0 < count < len(power):  # a probe may not be finite: 0
        return None
    first = order[:count].sort().values
    return slice(count) if int(first[-1]) == count - 1 else first  # a slice copies nothing


def _share(probe: Complex[Tensor, "modes M M"], modes: Modes) -> Tensor:
    power = optics.intensity(probe).sum((1, 2))
    return power[modes].sum() / power.sum()


def _dot(a: Logs, b: Logs) -> Float[Tensor, ""]:
    return (a * b).sum(dtype=torch.float64)


def _dot_of_parts(a: Logs, b: Logs) -> Float[Tensor, "2 1 1"]:
    return (a * b).sum((-2, -1), keepdim=True)


def _split_solve(
    right: Logs,
    weight: Float[Tensor, "H W"],
    response: Float[Tensor, "2 H K"],
    precision: Gain,
) -> Logs:
    """About (sqrt(weight) response sqrt(weight) + precision)^-1 right, by a few steps of conjugate
    gradients from the solution for an even weight."""
    root, even = weight.sqrt(), inverse(plus(precision, weight.mean() * response))
    dot = _dot_of_parts if len(precision) == 2 else _dot  # coupled parts are one problem
    found, residual = torch.zeros_like(right), right
    direction = steered = filtered(residual, even)
    size = dot(residual, steered)
    for left in reversed(range(_INNER)):
        image = root * filtered(root * direction, response) + filtered(direction, precision)
        length = size / dot(direction, image).clamp_min(torch.finfo(right.dtype).tiny)
        found = found + length * direction
        if left:
            residual = residual - length * image
            steered, before = filtered(residual, even), size
            size = dot(residual, steered)
            direction = steered + size / before.clamp_min(torch.finfo(right.dtype).tiny) * direction
    return found
