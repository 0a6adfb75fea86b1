"""A prior whose spectrum is the scan's own, ring by ring.

A power law says how fast an image's spectrum falls, and nothing of where it bends. Here the
variances of log amplitude and phase are those of a law times a factor of their own in each of 32
rings of frequency, and the two have a correlation there. Within a ring the law goes on: the slowest
phases vary far more than the mean of their ring. The counts themselves give the factors by
expectation and maximisation (Dempster, Laird, Rubin, J. R. Stat. Soc. B 39, 1 (1977)): of a fitted
object's power and what its posterior leaves open, beside the law's, the mean over a ring. What is
left open at a frequency is taken from the information's mean over that ring, at twelve levels of
the fluence."""

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
_LEAST = 1e-4  # factor
_MOST = 0.99  # correlation
_OF_RINGS = ("factor", "correlation")


class RingPrior(NamedTuple):
    """A power law whose variances are multiplied in rings of equal width, up to the corner of the
    grid; each ring has a correlation of its own in place of the law's."""

    law: ImagePrior
    factor: Float[Tensor, "2 rings"]  # of the variance of log amplitude and of phase
    correlation: Float[Tensor, " rings"]

    def precision(self, shape: tuple[int, int], like: Tensor) -> Gain:
        """Half the inverse covariance on the grid of `rfft2`, between the middles of rings
        log-linear for the factor and linear for the correlation: what
        :class:`~ptycho_torch.iteration.newton.Newton` adds to the likelihood's curvature."""
        place = (_frequency(shape, like) * _RINGS - 0.5).clamp(0, _RINGS - 1)
        below = place.long().clamp_max(_RINGS - 2)
        rings = torch.cat([self.factor.log(), self.correlation[None]]).to(like)
        share = place - below
        at = rings[:, below] * (1 - share) + rings[:, below + 1] * share
        variance = at[:2].exp() * _variance(self.law, shape, like)
        beside = at[2:] * variance.prod(0, keepdim=True).sqrt()
        return inverse(2 * torch.cat([variance, beside]))


def to_settings(prior: Prior) -> dict[str, Any]:
    """A prior as a result's settings hold it: a power law's fields, with them `rings`, and `beside`
    them the prior about an empty object, where the law is about another."""
    if isinstance(prior, RingPrior):
        rings = {name: getattr(prior, name).tolist() for name in _OF_RINGS}
        return prior.law._asdict() | {"rings": rings}
    if isinstance(prior, ProductPrior):
        return prior.near._asdict() | {"beside": to_settings(prior.image)}
    return prior._asdict()


def from_settings(settings: Mapping[str, Any]) -> Prior | None:
    """The prior that a result's settings hold; None where they hold none."""
    if not settings.get("weight"):
        return None
    law = ImagePrior(**{name: settings[name] for name in ImagePrior._fields})
    if rings := settings.get("rings"):
        return RingPrior(law, *(torch.tensor(rings[name]) for name in _OF_RINGS))
    beside = from_settings(settings.get("beside") or {})
    return ProductPrior(law, beside) if beside else law


def ring_prior(newton: Newton, logs: Logs, first: ImagePrior) -> tuple[Logs, RingPrior]:
    """The spectrum that patterns ask for beside a power law's, and their object under it, from an
    object that was solved under the law."""
    shape = newton.shape
    ring = (_frequency(shape, logs) * _RINGS).long().clamp_max(_RINGS - 1).flatten().cpu()
    # of a real image a column of `rfft2` stands for two, but for the first and an even last
    twice = torch.full((shape[0], shape[1] // 2 + 1), 2.0, dtype=torch.float64)
    twice[:, 0] = 1
    if shape[1] % 2 == 0:
        twice[:, -1] = 1
    members = torch.bincount(ring, twice.flatten(), minlength=_RINGS)
    prior: ImagePrior | RingPrior = first
    expected = _variance(first, shape, logs)
    expected = torch.cat([expected, expected.prod(0, keepdim=True).sqrt()])
    for _ in range(_ROUNDS):
        open_ = _left_open(newton, logs, prior.precision(shape, logs))
        away = logs - logs.mean((-2, -1), keepdim=True)
        amplitude, phase = torch.fft.rfft2(away, norm="ortho")
        own = (amplitude.abs().square(), phase.abs().square(), (amplitude * phase.conj()).real)
        weighted = ((plus(torch.stack(own), open_) / expected).cpu() * twice).flatten(1)
        sums = torch.stack([torch.bincount(ring, part, minlength=_RINGS) for part in weighted])
        *factor, beside = sums / members.clamp_min(1)
        factor = torch.stack(factor).clamp_min(_LEAST)
        prior = RingPrior(first, factor, (beside / factor.prod(0).sqrt()).clamp(-_MOST, _MOST))
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


def _variance(law: ImagePrior, shape: tuple[int, int], like: Tensor) -> Float[Tensor, "2 H K"]:
    """Of log amplitude and phase under a power law."""
    return 0.5 / law._replace(correlation=0.0).precision(shape, like)


def _frequency(shape: tuple[int, int], like: Tensor) -> Float[Tensor, "H K"]:
    """Of the grid of `rfft2`, as a share of the largest, that of the corner."""
    place = {"device": like.device, "dtype": like.dtype}
    down, right = torch.fft.fftfreq(shape[0], **place), torch.fft.rfftfreq(shape[1], **place)
    return (down[:, None].square() + right.square()).sqrt() / 0.5**0.5
