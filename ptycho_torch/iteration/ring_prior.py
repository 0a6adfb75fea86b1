"""A prior whose spectrum is the scan's own, ring by ring.

A power law says how fast an image's spectrum falls, and nothing of where it bends. Here log
amplitude and phase have variances and a correlation in each of 32 rings of frequency, which the
counts themselves give by expectation and maximisation (Dempster, Laird, Rubin, J. R. Stat. Soc. B
39, 1 (1977)): of a fitted object's power and what its posterior leaves open, the mean over a ring
is the ring's covariance. What is left open at a frequency is taken from the information's mean over
that ring, at twelve levels of the fluence."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ptycho_torch.iteration.gain import Gain, inverse, plus
from ptycho_torch.iteration.image_prior import ImagePrior, Logs, Prior, ProductPrior, object_of
from ptycho_torch.iteration.newton import Newton

_RINGS = 32
_ROUNDS, _STEPS = 3, (6,)  # conjugate gradient steps of each
_LEVELS = 12  # of the fluence
_LEAST = 1e-9  # variance of a ring
_MOST = 0.99  # correlation


class RingPrior(NamedTuple):
    """Variance of log amplitude and phase, and their correlation, in rings of equal width, up to
    the corner of the grid."""

    variance: Float[Tensor, "2 rings"]
    correlation: Float[Tensor, " rings"]

    def precision(self, shape: tuple[int, int], like: Tensor) -> Gain:
        """Half the inverse covariance on the grid of `rfft2`, between the middles of rings
        log-linear for the variance and linear for the correlation: what
        :class:`~ptycho_torch.iteration.newton.Newton` adds to the likelihood's curvature."""
        place = (_frequency(shape, like) * _RINGS - 0.5).clamp(0, _RINGS - 1)
        below = place.long().clamp_max(_RINGS - 2)
        rings = torch.cat([self.variance.log(), self.correlation[None]]).to(like)
        share = place - below
        at = rings[:, below] * (1 - share) + rings[:, below + 1] * share
        variance = at[:2].exp()
        beside = at[2:] * variance.prod(0, keepdim=True).sqrt()
        return inverse(2 * torch.cat([variance, beside]))


def to_settings(prior: Prior) -> dict[str, Any]:
    """A prior as a result's settings hold it: `rings`, or a power law's fields, and `beside` them
    the prior about an empty object, where the law is about another."""
    if isinstance(prior, RingPrior):
        return {"rings": {name: part.tolist() for name, part in prior._asdict().items()}}
    if isinstance(prior, ProductPrior):
        return prior.near._asdict() | {"beside": to_settings(prior.image)}
    return prior._asdict()


def from_settings(settings: Mapping[str, Any]) -> Prior | None:
    """The prior that a result's settings hold; None where they hold none."""
    if rings := settings.get("rings"):
        return RingPrior(**{name: torch.tensor(rings[name]) for name in RingPrior._fields})
    if not settings.get("weight"):
        return None
    law = ImagePrior(**{name: settings[name] for name in ImagePrior._fields})
    beside = from_settings(settings.get("beside") or {})
    return ProductPrior(law, beside) if beside else law


def ring_prior(newton: Newton, logs: Logs, first: ImagePrior) -> tuple[Logs, RingPrior]:
    """The spectrum that patterns ask for, and their object under it, from an object that was solved
    under a power law."""
    shape = newton.shape
    ring = (_frequency(shape, logs) * _RINGS).long().clamp_max(_RINGS - 1).flatten().cpu()
    # of a real image a column of `rfft2` stands for two, but for the first and an even last
    twice = torch.full((shape[0], shape[1] // 2 + 1), 2.0, dtype=torch.float64)
    twice[:, 0] = 1
    if shape[1] % 2 == 0:
        twice[:, -1] = 1
    members = torch.bincount(ring, twice.flatten(), minlength=_RINGS)
    prior: ImagePrior | RingPrior = first
    for _ in range(_ROUNDS):
        open_ = _left_open(newton, logs, prior.precision(shape, logs))
        away = logs - logs.mean((-2, -1), keepdim=True)
        amplitude, phase = torch.fft.rfft2(away, norm="ortho")
        own = (amplitude.abs().square(), phase.abs().square(), (amplitude * phase.conj()).real)
        weighted = (plus(torch.stack(own), open_).cpu() * twice).flatten(1)
        sums = torch.stack([torch.bincount(ring, part, minlength=_RINGS) for part in weighted])
        *variance, beside = sums / members.clamp_min(1)
        variance = torch.stack(variance).clamp_min(_LEAST)
        prior = RingPrior(variance, (beside / variance.prod(0).sqrt()).clamp(-_MOST, _MOST))
        logs = newton.solve(logs, prior, _STEPS)
    return logs, prior


def _left_open(newton: Newton, logs: Logs, precision: Gain) -> Gain:
    """About the posterior's covariance at each frequency."""
    weight = newton.fluence * object_of(logs)[0].abs().square()
    order = weight.flatten().sort().values
    middles = (torch.arange(_LEVELS, device=order.device) + 0.5) / _LEVELS * len(order)
    levels = order[middles.long()]
    parts = (inverse(2 * plus(precision, level * newton.response)) for level in levels)
    return sum(parts) / _LEVELS


def _frequency(shape: tuple[int, int], like: Tensor) -> Float[Tensor, "H K"]:
    """Of the grid of `rfft2`, as a share of the largest, that of the corner."""
    place = {"device": like.device, "dtype": like.dtype}
    down, right = torch.fft.fftfreq(shape[0], **place), torch.fft.rfftfreq(shape[1], **place)
    return (down[:, None].square() + right.square()).sqrt() / 0.5**0.5
