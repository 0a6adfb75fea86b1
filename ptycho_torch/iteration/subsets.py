"""Subsets of the patterns for one step after another: several steps for the cost of a pass.

Steps on subsets gain most at first and end beside the minimum (Kim, Ramani & Fessler, IEEE Trans.
Med. Imaging 34, 167 (2015)), so that their number falls towards the end."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ptycho_torch.physics.geometry import MOST_SUBSETS, Geometry

_PASSES_A_LEVEL = 3  # of a schedule, before the number of subsets is halved
# A subset may bring a pixel this many times its fair share of photons, mean over the photons.
_BALANCE = 1.6


class Step(NamedTuple):
    """A step of a pass: on which patterns (None: all), what share they are, and how long."""

    indices: Int[Tensor, " m"] | None
    share: float
    length: Float[Tensor, "canvases H W"]


def schedule(geometry: Geometry, passes: int) -> list[int]:
    """Subsets of each of `passes`: as many as the scan's overlap bears, fewer in the end, all
    patterns in the last.

    Steps on subsets gain most at first and end beside the minimum, where views with little overlap
    would even part from it: three passes on as many, three on half as many, and so on; the last one
    brings it home."""
    count = balanced_subsets(geometry)
    plan = [max(1, count >> number // _PASSES_A_LEVEL) for number in range(passes)]
    return [*plan[:-1], 1] if passes > 1 else plan


def settling(geometry: Geometry, rounds: int) -> list[int]:
    """Subsets of each pass on the way to the minimum: `rounds` passes on as many as the overlap
    bears, on half of them, ..., on all patterns at once. More than four on subsets can part from it
    for good: further ones are taken on all patterns."""
    count = balanced_subsets(geometry)
    halvings = count.bit_length() - 1
    on_subsets = [count >> halved for halved in range(halvings) for _ in range(min(rounds, 4))]
    return on_subsets + [1] * (rounds * (halvings + 1) - len(on_subsets))


def balanced_subsets(geometry: Geometry) -> int:
    """The largest power of two of subsets, at most MOST_SUBSETS, that each light the canvas as the
    whole does.

    Several canvases are small and stepped whole: 1."""
    count, fluence = MOST_SUBSETS if geometry.shape[0] == 1 else 1, geometry.fluence()
    while count > 1:
        # A pixel's fluence in the subset that favours it, were that subset the whole scan.
        shares = _shares(geometry, count)[:, None, None, None]
        favoured = (geometry.subset_fluence(count) / shares).amax(0)
        # Not true for an empty subset, which gives 0 / 0.
        if (favoured * fluence).sum() < _BALANCE * fluence.square().sum():
            break
        count //= 2
    return count


def _shares(geometry: Geometry, count: int) -> Float[Tensor, " count"]:
    return torch.bincount(geometry.places() % count, minlength=count) / len(geometry)


def steps_of_pass(geometry: Geometry, count: int, penalty: float) -> list[Step]:
    """The steps of a pass on `count` subsets; a length is the inverse of a bound on the curvature.

    The floor keeps pixels that no photon reaches from being divided by zero; their gradient is zero
    as well."""
    fluence = geometry.fluence()
    least = penalty + 1e-3 * fluence.amax((-2, -1), keepdim=True)
    if count == 1:
        return [Step(None, 1.0, (2 * fluence + least).reciprocal())]
    places, shares = geometry.places() % count, _shares(geometry, count).tolist()
    steps = []
    for place, (share, own) in enumerate(zip(shares, geometry.subset_fluence(count), strict=True)):
        if share:
            length = (2 * torch.maximum(fluence, own / share) + least).reciprocal()
            steps.append(Step(torch.nonzero(places == place)[:, 0], share, length))
    return steps
