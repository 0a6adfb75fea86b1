"""Accelerated gradient steps on the shared canvas: the physics in the network's input, refinement,
and the classical control.

Minimises, over an object canvas O on which all patterns of a field lie,

    f(O) = sum_j sum_q [ I_jq - n_jq log I_jq ] + tikhonov * sum |O - prior|^2 + smoothness * sum
    |grad (O - prior)|^2

with I_j = |F(P_j cut_j O)|^2, by Nesterov steps with gradient restart (O'Donoghue & Candes 2015),
preconditioned by 1 / (2 sum |P|^2 + tikhonov + 8 smoothness), the Poisson curvature along the data
(Wei et al., arXiv 2003.05475). The gradient is taken in the sense of d f / d conj(O). A pass may
take its steps on one of several subsets of the patterns after the other (Kim, Ramani & Fessler,
IEEE Trans. Med. Imaging 34, 167 (2015)): as many steps for the cost of one."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ptycho_torch.physics import optics
from ptycho_torch.physics.noise import SMALLEST_COUNT, poisson_deviance
from ptycho_torch.physics.patches import cut, paste

# patterns held at once: few enough for a CPU's cache; results do not depend on it beyond rounding
CHUNK = 64
# of up to this many 64 px patterns the shifted probes are kept, beyond it they are made again
_CACHED_PATTERNS = 2048
# counts added below the Poisson ratio n / I, so that a photon on a dark pixel takes no infinite
# step
_DARK = 0.003
MOST_SUBSETS = 16
_PASSES_A_LEVEL = 3  # of a schedule, before the number of subsets is halved
# a subset may bring a pixel this many times its fair share of photons, mean over the photons
_BALANCE = 1.6


@dataclass(frozen=True)
class Patterns:
    """Measured patterns of one or more fields and where they lie. `counts` serves any indices, from
    memory or a file."""

    counts: Callable[[Tensor], Float[Tensor, "n N N"]]
    address: Int[Tensor, "n 3"]
    residual_px: Float[Tensor, "n 2"]
    probe: Complex[Tensor, "modes N N"]
    canvas_shape: tuple[int, int, int]
    passes: bool = (
        True  # several passes will be made over them: shifted probes and counts are worth keeping
    )
    _kept: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.address)

    @property
    def N(self) -> int:
        return self.probe.shape[-1]

    def chunks(self, indices: Int[Tensor, " m"] | None = None) -> Iterator[Int[Tensor, " chunk"]]:
        """Indices of all patterns, or of the given ones, CHUNK at a time."""
        indices = (
            torch.arange(len(self), device=self.address.device) if indices is None else indices
        )
        return iter(indices.split(CHUNK))

    def probes(self, indices: Int[Tensor, " n"]) -> Complex[Tensor, "n modes N N"]:
        """The probe at the sub-pixel part of each position."""
        return self._of(
            "probes", lambda chunk: optics.shift_probe(self.probe, self.residual_px[chunk]), indices
        )

    def measured(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n N N"]:
        """The counts."""
        return self._of("counts", self.counts, indices)

    def fluence(self) -> Float[Tensor, "fields H W"]:
        """Photons per object pixel, sum over positions and modes of |P|^2."""
        return self.subset_fluence(1)[0]

    def places(self) -> Int[Tensor, " n"]:
        """A number 0 .. MOST_SUBSETS - 1 for each pattern; neighbours have different ones."""
        if "places" not in self._kept:
            places = torch.zeros(len(self), dtype=torch.long)
            for turn, leaf in enumerate(_neighbourhoods(self.address.cpu().numpy(), MOST_SUBSETS)):
                places[leaf] = (
                    torch.arange(len(leaf)) + (turn if len(leaf) < MOST_SUBSETS else 0)
                ) % MOST_SUBSETS
            self._kept["places"] = places.to(self.address.device)
        return self._kept["places"]

    def subset_fluence(self, count: int) -> Float[Tensor, "count fields H W"]:
        """Fluence of each of `count` subsets (a power of two): the patterns whose places are equal
        modulo `count`."""
        if "fluence" not in self._kept:
            several = (
                MOST_SUBSETS if self.canvas_shape[0] == 1 else 1
            )  # several fields are small and stepped whole
            fluence = torch.zeros(several, *self.canvas_shape, device=self.address.device)
            address = self.address.clone()
            address[:, 0] += self.places() % several if several > 1 else 0
            for chunk in self.chunks():
                power = optics.intensity(self.probes(chunk)).sum(1)
                fluence += paste(power, address[chunk], fluence.flatten(0, 1).shape).view(
                    fluence.shape
                )
            self._kept["fluence"] = fluence
        fluence = self._kept["fluence"]
        return fluence.view(-1, count, *self.canvas_shape).sum(0)

    def _of(self, name: str, make: Callable[[Tensor], Tensor], indices: Tensor) -> Tensor:
        """What `make` gives for indices; kept for all of a scan that is small enough."""
        if not self.passes or len(self) * self.N**2 > _CACHED_PATTERNS * 64**2:
            return make(indices)
        if name not in self._kept:
            self._kept[name] = torch.cat([make(chunk) for chunk in self.chunks()])
        return self._kept[name][indices]


def gradient(
    canvas: Complex[Tensor, "fields H W"],
    patterns: Patterns,
    indices: Int[Tensor, " m"] | None = None,
    scored: bool = True,
    dark: float = _DARK,
) -> tuple[Complex[Tensor, "fields H W"], Float[Tensor, ""]]:
    """Gradient of the Poisson negative log-likelihood with respect to conj(O), and the summed
    deviance (0 if not `scored`).

    Of all patterns, or of those with the given indices. `dark` counts lie below the gradient's
    ratio n / I; 0: it is the deviance's own, flat where that is clamped."""
    forward, adjoint, modulation = optics.round_trip(
        patterns.N, tuple(canvas.shape[-2:]), canvas.device
    )
    modulated, slope = canvas * modulation, torch.zeros_like(canvas)
    deviance = torch.zeros((), dtype=torch.float64, device=canvas.device)
    for chunk in patterns.chunks(indices):
        address, probes, counts = (
            patterns.address[chunk],
            patterns.probes(chunk),
            patterns.measured(chunk),
        )
        waves = forward(probes * cut(modulated, address, patterns.N)[:, None])
        expected = _summed(optics.intensity(waves))
        excess = 1 - (counts + dark) / (expected + dark)
        if not dark:
            excess = torch.where(expected > SMALLEST_COUNT, excess, 0.0)
        back = _summed(probes.conj() * adjoint(excess[:, None] * waves))
        slope += paste(back, address, patterns.canvas_shape)
        if scored:
            deviance += poisson_deviance(expected, counts).sum()
    return slope * modulation, deviance


def _summed(of_modes: Tensor) -> Tensor:
    """Sum over the modes; of a single one without a copy."""
    return of_modes[:, 0] if of_modes.shape[1] == 1 else of_modes.sum(1)


def canvas_steps(
    patterns: Patterns,
    start: Complex[Tensor, "fields H W"],
    passes: int | Sequence[int],
    tikhonov: float = 0.0,
    prior: Complex[Tensor, "fields H W"] | float = 1.0,
    smoothness: float = 0.0,
    observe: Callable[[int, Tensor], bool | None] | None = None,
) -> Complex[Tensor, "fields H W"]:
    """Accelerated passes over the patterns, from `start`; the canvas that they end with.

    `passes` is their number, each one step on all patterns, or a sequence of how many subsets each
    pass steps on. `tikhonov` and `smoothness` (photons per object pixel) pull towards `prior` and
    towards its slopes. `observe(pass, canvas)` sees the canvas after each pass, and may end the
    iteration by returning True."""
    schedule = [1] * passes if isinstance(passes, int) else list(passes)
    plans: dict[int, list] = {}
    current = ahead = start
    momentum = torch.ones(
        len(start), 1, 1, device=start.device
    )  # one a field: none may depend on its company
    for number, count in enumerate(schedule):
        if count not in plans:
            plans[count] = _plan(patterns, count, tikhonov + 8 * smoothness)
        for indices, share, step in plans[count]:
            slope = gradient(ahead, patterns, indices, scored=False)[0] / share
            if tikhonov:
                slope = slope + tikhonov * (ahead - prior)
            if smoothness:
                slope = slope + smoothness * roughness_gradient(ahead - prior)
            following = ahead - slope * step
            uphill = (slope.conj() * (following - current)).real.sum((-2, -1), keepdim=True) > 0
            momentum = torch.where(uphill, 1.0, momentum)
            grown = (1 + (1 + 4 * momentum**2).sqrt()) / 2
            ahead = following + (momentum - 1) / grown * (following - current)
            current, momentum = following, grown
        if observe is not None and observe(number, current):
            break
    return current


def roughness_gradient(canvas: Complex[Tensor, "fields H W"]) -> Complex[Tensor, "fields H W"]:
    """Gradient of sum |grad O|^2 by conj(O): minus the Laplacian, nothing flowing over the
    border."""
    slope = torch.zeros_like(canvas)
    for axis in (-2, -1):
        size, difference = canvas.shape[axis] - 1, torch.diff(canvas, dim=axis)
        slope.narrow(axis, 0, size).sub_(difference)
        slope.narrow(axis, 1, size).add_(difference)
    return slope


def schedule(patterns: Patterns, passes: int) -> list[int]:
    """Subsets of each of `passes`: as many as the scan's overlap bears, fewer in the end, all
    patterns in the last.

    Steps on subsets gain most at first and end beside the minimum, where views with little overlap
    would even part from it: three passes on as many, three on half as many, and so on; the last one
    brings it home."""
    count = balanced_subsets(patterns)
    plan = [max(1, count >> number // _PASSES_A_LEVEL) for number in range(passes)]
    return [*plan[:-1], 1] if passes > 1 else plan


def settling(patterns: Patterns, rounds: int) -> list[int]:
    """Subsets of each pass on the way to the minimum: `rounds` passes on as many as the overlap
    bears, on half of them, ..., on all patterns at once. More than four on subsets can part from it
    for good: further ones are taken on all patterns."""
    count = balanced_subsets(patterns)
    halvings = count.bit_length() - 1
    on_subsets = [count >> halved for halved in range(halvings) for _ in range(min(rounds, 4))]
    return on_subsets + [1] * (rounds * (halvings + 1) - len(on_subsets))


def balanced_subsets(patterns: Patterns) -> int:
    """The largest power of two of subsets, at most MOST_SUBSETS, that each light the canvas as the
    whole does.

    Several fields are small and stepped whole: 1.
    """
    count, fluence = MOST_SUBSETS if patterns.canvas_shape[0] == 1 else 1, patterns.fluence()
    while count > 1:
        # A pixel's fluence in the subset that favours it, were that subset the whole scan.
        favoured = (
            patterns.subset_fluence(count) / _shares(patterns, count)[:, None, None, None]
        ).amax(0)
        if (
            favoured * fluence
        ).sum() < _BALANCE * fluence.square().sum():  # false for an empty subset's 0 / 0
            break
        count //= 2
    return count


def _shares(patterns: Patterns, count: int) -> Float[Tensor, " count"]:
    return torch.bincount(patterns.places() % count, minlength=count) / len(patterns)


def _plan(
    patterns: Patterns, count: int, penalty: float
) -> list[tuple[Tensor | None, float, Tensor]]:
    """A pass: the indices of each subset, its share of the patterns, and its step, the inverse of a
    bound on the curvature.

    The floor keeps pixels that no photon reaches from being divided by zero; their gradient is zero
    as well."""
    fluence = patterns.fluence()
    least = penalty + 1e-3 * fluence.amax((-2, -1), keepdim=True)
    if count == 1:
        return [(None, 1.0, (2 * fluence + least).reciprocal())]
    places = patterns.places() % count
    return [
        (
            torch.nonzero(places == place)[:, 0],
            share,
            (2 * torch.maximum(fluence, own / share) + least).reciprocal(),
        )
        for place, (share, own) in enumerate(
            zip(_shares(patterns, count).tolist(), patterns.subset_fluence(count), strict=True)
        )
        if share
    ]


def _neighbourhoods(address: np.ndarray, size: int) -> list[np.ndarray]:
    """Indices of the patches in groups of `size` neighbours, by halving along the longer side (a
    k-d tree's leaves)."""
    waiting, leaves = [np.arange(len(address))], []
    while waiting:
        members = waiting.pop()
        if len(members) <= size:
            leaves.append(members)
            continue
        places = address[members]
        members = members[np.argsort(places[:, np.ptp(places, axis=0).argmax()], kind="stable")]
        middle = min(max(size, round(len(members) / 2 / size) * size), len(members) - 1)
        waiting += [members[middle:], members[:middle]]
    return leaves
