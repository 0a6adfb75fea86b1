"""A prior whose spectrum is the scan's own, ring by ring.

A power law says how fast an image's spectrum falls, and nothing of where it bends. Here log
amplitude and phase have a variance in each of 32 rings of frequency, which the counts themselves
give by expectation and maximisation (Dempster, Laird, Rubin, J. R. Stat. Soc. B 39, 1 (1977)): of a
fitted object's power and what its posterior leaves open, the mean over a ring is the ring's
variance. What is left open at a frequency is taken from the information's mean over that ring, at
twelve levels of the fluence."""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from ptycho_torch.iteration.image_prior import ImagePrior, Logs, object_of
from ptycho_torch.iteration.newton import Newton

_RINGS = 32
_ROUNDS, _STEPS = 3, (6,)  # conjugate gradient steps of each
_LEVELS = 12  # of the fluence
_LEAST = 1e-9  # variance of a ring


class RingPrior(NamedTuple):
    """Variance of log amplitude and phase in rings of equal width, up to the corner of the grid."""

    variance: Float[Tensor, "2 rings"]

    def precision(self, shape: tuple[int, int], like: Tensor) -> Float[Tensor, "2 H K"]:
        """1 / (2 variance) on the grid of `rfft2`, log-linear between the middles of rings: what
        :class:`~ptycho_torch.iteration.newton.Newton` adds to the likelihood's curvature."""
        place = (_frequency(shape, like) * _RINGS - 0.5).clamp(0, _RINGS - 1)
        below = place.long().clamp_max(_RINGS - 2)
        share, logs = place - below, self.variance.to(like).log()
        return 0.5 * torch.exp(-(logs[:, below] * (1 - share) + logs[:, below + 1] * share))


def ring_prior(newton: Newton, logs: Logs, first: ImagePrior) -> tuple[Logs, RingPrior]:
    """The spectrum that patterns ask for, and their object under it, from an object that was solved
    under a power law."""
    shape = newton.shape
    ring = (_frequency(shape, logs) * _RINGS).long().clamp_max(_RINGS - 1).flatten()
    # of a real image a column of `rfft2` stands for two, but for the first and an even last
    twice = torch.full((shape[0], shape[1] // 2 + 1), 2.0, dtype=torch.float64)
    twice[:, 0] = 1
    if shape[1] % 2 == 0:
        twice[:, -1] = 1
    members = torch.bincount(ring.cpu(), twice.flatten(), minlength=_RINGS)
    precision, prior = first.precision(shape, logs), None
    for _ in range(_ROUNDS):
        open_ = _left_open(newton, logs, precision)
        away = logs - logs.mean((-2, -1), keepdim=True)
        power = torch.fft.rfft2(away, norm="ortho").abs().square() + open_
        weighted = (power.cpu() * twice).flatten(1)
        sums = [torch.bincount(ring.cpu(), part, minlength=_RINGS) for part in weighted]
        variance = (torch.stack(sums) / members.clamp_min(1)).clamp_min(_LEAST)
        prior = RingPrior(variance)
        precision = prior.precision(shape, logs)
        logs = newton.solve(logs, prior, _STEPS)
    return logs, prior


def _left_open(
    newton: Newton, logs: Logs, precision: Float[Tensor, "2 H K"]
) -> Float[Tensor, "2 H K"]:
    """About the posterior's variance at each frequency."""
    weight = newton.fluence * object_of(logs)[0].abs().square()
    order = weight.flatten().sort().values
    middles = (torch.arange(_LEVELS, device=order.device) + 0.5) / _LEVELS * len(order)
    parts = (0.5 / (level * newton.response + precision) for level in order[middles.long()])
    return sum(parts) / _LEVELS


def _frequency(shape: tuple[int, int], like: Tensor) -> Float[Tensor, "H K"]:
    """Of the grid of `rfft2`, as a share of the largest, that of the corner."""
    place = {"device": like.device, "dtype": like.dtype}
    down, right = torch.fft.fftfreq(shape[0], **place), torch.fft.rfftfreq(shape[1], **place)
    return (down[:, None].square() + right.square()).sqrt() / 0.5**0.5
