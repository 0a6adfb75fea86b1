"""Refinement: accelerated passes from a network's object that keep its details as far as the data
support them.

    minimise over O   sum_jq [ I_jq - n_jq log I_jq ] + weight * sum |grad (O - network)|^2
                      + level * sum |O - network|^2,                level = 0.01 weight + 0.5

The penalty grows with frequency: a network is least sure of slow changes over the canvas, which the
data of many patterns settle, and surest of what is sharp, where each pattern says little. (The
second term alone ends 0.9 dB lower on dense data at 1e5 photons; without it, a level that too few
photons settle drifts by whole turns.) The weight, in photons per object pixel, is chosen without
truth, on the scan itself: its photons are split in two, network and passes get one part, and the
other judges each weight (:mod:`ptycho_torch.iteration.thinning`). A weight is a variance of the
object, not of the data, so that of the part serves the whole."""

import math
import time
from dataclasses import dataclass

import torch
from jaxtyping import Complex
from torch import Tensor

from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.inference.apply import Reconstruction, data_deviance, reconstruct
from ptycho_torch.iteration.canvas import canvas_steps
from ptycho_torch.iteration.subsets import settling
from ptycho_torch.iteration.thinning import past_the_valley, split_photons
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.physics.geometry import Patterns

# Photons per pixel, the firmest hold first.
WEIGHTS = tuple(10.0 ** (power / 2) for power in range(8, 0, -1))
# Weight of the values: share of the slopes' weight, and at least, as if the network erred by 1 rad.
_LEVEL = 0.01, 0.5

Object = Complex[Tensor, "H W"]


@dataclass(frozen=True)
class Refined(Reconstruction):
    """A refined object, and what it was refined with."""

    weight: float  # photons per object pixel
    # deviance per detector pixel of the photons held out, by weight tried; empty if it was given
    judged: dict[float, float]


def refine(
    model: PtychoModel,
    raw: RawDataTorch,
    config: TrainingConfig,
    seed: int = 0,
    rounds: int = 4,
    weight: float | None = None,
) -> Refined:
    """The object of a trained model and a data file, refined on the file's counts; as
    :func:`reconstruct`, without truth.

    `rounds` passes are taken for each number of subsets
    (:func:`ptycho_torch.iteration.subsets.settling`). A `weight` that is known, of a scan like this
    one say, saves the search for it, more than half of the time."""
    if weight is not None and not 0 < weight < math.inf:
        text = f"weight={weight} of a refinement; expected a positive number of photons per object"
        raise ConfigError(f"{text} pixel, or None to choose it on photons held out")
    wall, cpu = time.perf_counter(), time.process_time()
    whole = reconstruct(model, raw, config)
    judged = {} if weight is not None else _judged(model, raw, config, seed)
    weight = weight or min(judged, key=judged.get)
    found = settle(raw.patterns(whole.images), whole.object, whole.object, weight, rounds)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    return Refined(found, whole.fluence, whole.images, *seconds, weight, judged)


@torch.no_grad()
def settle(
    patterns: Patterns, start: Object, prior: Object, weight: float, rounds: int = 4
) -> Object:
    """From `start`, the object that fits the counts and has the slopes of `prior`; what no pattern
    covers stays as in `start`."""
    geometry, level = patterns.geometry, _LEVEL[0] * weight + _LEVEL[1]
    passes, first, prior = settling(geometry, rounds), geometry.crop(start), geometry.crop(prior)
    canvas = canvas_steps(patterns, first, passes, level, prior, weight)
    return geometry.embed(canvas, outside=start)


def _judged(
    model: PtychoModel, raw: RawDataTorch, config: TrainingConfig, seed: int
) -> dict[float, float]:
    """Deviance per detector pixel of the photons held out, by weight tried."""
    kept, rest = split_photons(raw, config.keep, seed)
    start = reconstruct(model, kept, config)
    image, part, judged = start.object, kept.patterns(start.images), {}
    for weight in WEIGHTS:
        image = settle(part, image, start.object, weight, rounds=1)
        judged[weight] = data_deviance(image, rest, start.images)
        if past_the_valley(judged):
            break
    return judged
