"""The image prior that a scan itself asks for, without truth.

The photons are split in two; the object of each prior tried is fitted to the one part, and the
other says how well it is explained. Weight, slope and the amplitude's share are moved one by one,
downhill, until no move helps by more than chance: the gain varies from pattern to pattern, and its
sum has to stand out from that. A steeper or flatter prior keeps the frequency at which it holds as
firmly as the counts do: there the slope pivots."""

from collections.abc import Callable
from math import log
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ptycho_torch.iteration.image_prior import ImagePrior, Logs, object_of
from ptycho_torch.iteration.newton import Newton, start
from ptycho_torch.iteration.ring_prior import RingPrior, ring_prior
from ptycho_torch.iteration.slopes import deviances
from ptycho_torch.iteration.thinning import ThinnedCounts, split_photons
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.geometry import Patterns

AXES = {
    "weight": tuple(10.0 ** (power / 2) for power in range(-1, 8)),
    "slope": (2.0, 3.0, 4.0),
    "amplitude": (1.0, 3.0, 10.0, 30.0, 100.0),
}
FIRST = ImagePrior(10**1.5, 4.0, 30.0)
_STEPS = (5,)  # of a prior, each from the object of the last one that helped
_SETTLED = (8,)  # before a spectrum by rings is taken from an object
_SIGMAS = 0.5  # a gain must be larger than that many of its standard deviations


class Chosen(NamedTuple):
    """A prior, its object on the part of the photons that was fitted, and all that were tried."""

    prior: ImagePrior
    logs: Logs
    deviances: Float[Tensor, " n"]  # per measured pixel of the photons held out of each pattern
    tried: dict[ImagePrior, float]  # their means


def clearly_less(ours: Float[Tensor, " n"], others: Float[Tensor, " n"]) -> bool:
    """Whether the deviances of patterns are less than under another object by more than chance."""
    gains = others - ours
    return bool(gains.sum() > _SIGMAS * gains.std() * len(gains) ** 0.5)


def split(scan: RawDataTorch, whole: Patterns, keep: float, seed: int) -> tuple[Patterns, Patterns]:
    """The share `keep` of a scan's photons, to be fitted, and the rest, to judge, under what
    `whole` knows of the exposures."""
    photons = ThinnedCounts(scan, torch.arange(scan.n), keep, seed)
    geometry = whole.geometry
    fitted = Patterns(geometry.fainter(keep), photons.kept)
    return fitted, Patterns(geometry.fainter(1 - keep), photons.rest)


def parts_of(scan: RawDataTorch, keep: float, seed: int) -> tuple[Patterns, Patterns]:
    """The same two parts of a whole scan as its file has it; drawn once for a scan in memory."""
    fitted, judging = split_photons(scan, keep, seed)
    return fitted.patterns(), judging.patterns()


def choose_alone(
    scan: RawDataTorch,
    photons: tuple[float, int],
    parts: tuple[Patterns, Patterns],
    tried: Callable[[], Any] = lambda: None,
) -> Chosen:
    """The prior of a whole scan about an empty object, by the `parts` that a split of its `photons`
    (share and seed) gave; sought once for a scan in memory."""
    return scan.once(("prior", *photons), lambda: choose(*parts, tried=tried))


def rings_if_better(fitted: Patterns, judging: Patterns, chosen: Chosen) -> RingPrior | None:
    """A spectrum ring by ring, where its object explains the `judging` photons better by more than
    chance than the chosen power law's; else None."""
    newton = Newton(fitted)
    law = newton.solve(chosen.logs, chosen.prior, _SETTLED)
    logs, rings = ring_prior(newton, law, chosen.prior)
    ours, others = (deviances(object_of(one), judging) for one in (logs, law))
    return rings if clearly_less(ours, others) else None


def choose(
    fitted: Patterns,
    judging: Patterns,
    centre: Logs | float = 0.0,
    first: ImagePrior = FIRST,
    tried: Callable[[], Any] = lambda: None,
) -> Chosen:
    """The prior about a `centre` whose object explains the `judging` photons best; `tried` is
    called after each."""
    newton, scores = Newton(fitted), {}
    logs = newton.solve(start(fitted) if isinstance(centre, float) else centre, first, (8,), centre)

    photons = float(newton.fluence.square().sum() / newton.fluence.sum())

    def moved(prior: ImagePrior, axis: str, by: int) -> ImagePrior | None:
        values, value = AXES[axis], getattr(prior, axis)
        place = min(range(len(values)), key=lambda at: abs(log(values[at] / value))) + by
        if not 0 <= place < len(values):
            return None
        other = prior._replace(**{axis: values[place]})
        pivot = (photons / prior.weight) ** ((prior.slope - other.slope) / prior.slope)
        return other._replace(weight=other.weight * pivot)

    def judged(prior: ImagePrior, since: Logs) -> Chosen:
        found = newton.solve(since, prior, _STEPS, centre)
        own = deviances(object_of(found), judging)
        scores[prior] = float(own.mean())
        tried()
        return Chosen(prior, found, own, scores)

    best = judged(first, logs)
    improved = True
    while improved:
        improved = False
        for axis in AXES:
            for by in (1, -1):
                while (prior := moved(best.prior, axis, by)) and prior not in scores:
                    other = judged(prior, best.logs)
                    if not clearly_less(other.deviances, best.deviances):
                        break
                    best, improved = other, True
    return best
