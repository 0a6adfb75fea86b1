"""The image prior that a scan itself asks for, without truth.

The photons are split in two; the object of each prior tried is fitted to the one part, and the
other says how well it is explained. Weight, slope and the amplitude's share are moved one by one,
downhill, until no move helps by more than chance: the gain varies from pattern to pattern, and its
sum has to stand out from that. A steeper or flatter prior keeps the frequency at which it holds as
firmly as the counts do: there the slope pivots.

About an empty object amplitude and phase may be coupled: the search goes on with their correlation,
and what it brings must stand out further, since a wrong sign costs more than none. Beside the law
that is chosen so stands a spectrum of the scan's own, ring by ring. About another object, a
network's, the law is sought beside what was chosen about an empty one."""

from collections.abc import Callable
from math import log
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ptycho_torch.iteration.image_prior import ImagePrior, Logs, Prior, ProductPrior, object_of
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
CORRELATIONS = (-0.98, -0.95, -0.85, -0.6, 0.0, 0.6, 0.85, 0.95, 0.98)
FIRST = ImagePrior(10**1.5, 4.0, 30.0)
_STEPS = (5,)  # of a prior, each from the object of the last one that helped
_SETTLED = (8,)  # before a spectrum by rings is taken from an object
_SIGMAS = 0.5  # a gain must be larger than that many of its standard deviations
_COUPLED = 1.5  # and that of all moves with a correlation than that many


class Chosen(NamedTuple):
    """A prior, its object on the part of the photons that was fitted, and all that were tried."""

    law: ImagePrior
    logs: Logs
    deviances: Float[Tensor, " n"]  # per measured pixel of the photons held out of each pattern
    tried: dict[ImagePrior, float]  # their means
    rings: RingPrior | None = None  # in place of the law
    beside: Prior | None = None  # about an empty object, while the law is about another

    @property
    def prior(self) -> Prior:
        """What the object was found under."""
        return ProductPrior(self.law, self.beside) if self.beside else self.rings or self.law


def clearly_less(
    ours: Float[Tensor, " n"], others: Float[Tensor, " n"], sigmas: float = _SIGMAS
) -> bool:
    """Whether the deviances of patterns are less than under another object by more than chance."""
    gains = others - ours
    return bool(gains.sum() > sigmas * gains.std() * len(gains) ** 0.5)


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
    rings: bool = True,
    tried: Callable[[], Any] = lambda: None,
) -> Chosen:
    """The prior of a whole scan about an empty object, by the `parts` that a split of its `photons`
    (share and seed) gave: a power law, or `rings` where they are better; sought once for a scan in
    memory."""
    law = scan.once(("prior", *photons), lambda: choose(*parts, tried=tried))
    return scan.once(("rings", *photons), lambda: rings_if_better(*parts, law)) if rings else law


def rings_if_better(fitted: Patterns, judging: Patterns, law: Chosen) -> Chosen:
    """A spectrum ring by ring, where its object explains the `judging` photons better by more than
    chance than that of the chosen power law; else the law as it is."""
    newton = Newton(fitted)
    settled = newton.solve(law.logs, law.law, _SETTLED)
    logs, rings = ring_prior(newton, settled, law.law)
    ours, others = (deviances(object_of(one), judging) for one in (logs, settled))
    better = clearly_less(ours, others)
    return law._replace(logs=logs, deviances=ours, rings=rings) if better else law


def choose(
    fitted: Patterns,
    judging: Patterns,
    centre: Logs | None = None,
    first: ImagePrior = FIRST,
    tried: Callable[[], Any] = lambda: None,
    beside: Prior | None = None,
) -> Chosen:
    """The power law about an empty object, or about a `centre` with another prior `beside`, whose
    object explains the `judging` photons best; `tried` is called after each."""
    newton, scores = Newton(fitted), {}
    photons = float(newton.fluence.square().sum() / newton.fluence.sum())

    def solved(since: Logs, law: ImagePrior, steps: tuple[int, ...]) -> Logs:
        if centre is None:
            return newton.solve(since, law, steps)
        if beside is None:
            return newton.solve(since, law, steps, centre)
        both = ProductPrior(law, beside)
        return newton.solve(since, both, steps, both.centre(centre))

    def moved(law: ImagePrior, axis: str, by: int) -> ImagePrior | None:
        value, axes = getattr(law, axis), AXES | {"correlation": CORRELATIONS}
        values = axes[axis]
        if axis == "correlation":
            place = values.index(value) + by
        else:
            place = min(range(len(values)), key=lambda at: abs(log(values[at] / value))) + by
        if not 0 <= place < len(values):
            return None
        other = law._replace(**{axis: values[place]})
        pivot = (photons / law.weight) ** ((law.slope - other.slope) / law.slope)
        return other._replace(weight=other.weight * pivot)

    def judged(law: ImagePrior, since: Logs) -> Chosen:
        found = solved(since, law, _STEPS)
        own = deviances(object_of(found), judging)
        scores[law] = float(own.mean())
        tried()
        return Chosen(law, found, own, scores, beside=beside)

    def downhill(best: Chosen, axes: tuple[str, ...]) -> Chosen:
        improved = True
        while improved:
            improved = False
            for axis in axes:
                for by in (1, -1):
                    while (law := moved(best.law, axis, by)) and law not in scores:
                        other = judged(law, best.logs)
                        if not clearly_less(other.deviances, best.deviances):
                            break
                        best, improved = other, True
        return best

    begun = solved(start(fitted) if centre is None else centre, first, (8,))
    best = downhill(judged(first, begun), tuple(AXES))
    if centre is not None:
        return best
    coupled = downhill(best, ("correlation", *AXES))
    return coupled if clearly_less(coupled.deviances, best.deviances, _COUPLED) else best
