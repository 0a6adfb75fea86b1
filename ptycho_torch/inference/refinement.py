"""Refinement: accelerated passes from a network's object that keep its details as far as the data
bear them out.

    minimise over O   sum_jq [ I_jq - n_jq log I_jq ] + weight * sum |grad (O - network)|^2 + level
    * sum |O - network|^2

with level = 0.01 weight + 0.5. The penalty grows with frequency: a network is least sure of slow
changes over the canvas, which the data of many patterns settle, and surest of what is sharp, where
each pattern says little. (The second term alone ends 0.9 dB lower on dense data at 1e5 photons;
without it, a level that too few photons settle drifts by whole turns.) The weight, in photons per
object pixel, is chosen without truth, on the scan itself: its photons are split in two, network and
passes get one part, and the other judges each weight (:mod:`ptycho_torch.iteration.thinning`). A
weight is a variance of the object, not of the data, so that of the part serves the whole."""

import math
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Int
from torch import Tensor

from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.inference.apply import Reconstruction, data_deviance, reconstruct
from ptycho_torch.iteration.canvas import Patterns, canvas_steps, settling
from ptycho_torch.iteration.thinning import past_the_valley, split_photons
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.features import view_layout
from ptycho_torch.network.model import PtychoModel

WEIGHTS = tuple(
    10.0 ** (power / 2) for power in range(8, 0, -1)
)  # photons per pixel, the firmest hold first
_LEVEL = (
    0.01,
    0.5,
)  # weight of the values: share of the slopes' weight, and at least, as if the network erred by 1 rad


@dataclass(frozen=True)
class Refined(Reconstruction):
    """A refined object, and what it was refined with."""

    weight: float  # photons per object pixel
    judged: dict[
        float, float
    ]  # deviance per detector pixel of the photons held out, by weight tried; empty if it was given


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
    (:func:`ptycho_torch.iteration.canvas.settling`). A `weight` that is known, of a scan like this
    one say, saves the search for it, more than half of the time."""
    if weight is not None and not 0 < weight < math.inf:
        raise ConfigError(
            f"weight={weight} of a refinement; expected a positive number of photons per object"
            " pixel, or None to choose it on photons held out"
        )
    wall, cpu = time.perf_counter(), time.process_time()
    whole = reconstruct(model, raw, config)
    judged = _judged(model, raw, config, seed, whole.images) if weight is None else {}
    weight = weight or min(judged, key=judged.get)
    found = _Pull(raw, torch.from_numpy(whole.images), whole.object).settled(
        whole.object, weight, rounds
    )
    return Refined(
        found,
        whole.fluence,
        whole.images,
        time.perf_counter() - wall,
        time.process_time() - cpu,
        weight,
        judged,
    )


def _judged(
    model: PtychoModel, raw: RawDataTorch, config: TrainingConfig, seed: int, images: np.ndarray
) -> dict[float, float]:
    """Deviance per detector pixel of the photons held out, by weight tried."""
    kept, rest = split_photons(raw, config.keep, seed)
    image = start = reconstruct(model, kept, config).object
    part, judged = _Pull(kept, torch.from_numpy(images), start), {}
    for weight in WEIGHTS:
        image = part.settled(image, weight, 1)
        judged[weight] = data_deviance(image, rest, images)
        if past_the_valley(judged):
            break
    return judged


class _Pull:
    """The counts of some images of a scan, and the object whose details the passes keep."""

    def __init__(self, raw: RawDataTorch, images: Int[Tensor, " n"], prior: Complex[Tensor, "H W"]):
        layout = view_layout(raw.positions[images], raw.N)
        self.patterns = Patterns(
            lambda i: raw.counts(images[i]),
            layout.address,
            layout.residual_px,
            raw.probe,
            layout.shape,
        )
        (row, column), (_, height, width) = layout.origin[0].tolist(), layout.shape
        self.window = (slice(row, row + height), slice(column, column + width))
        self.prior = prior[self.window][None]

    def settled(
        self, start: Complex[Tensor, "H W"], weight: float, rounds: int
    ) -> Complex[Tensor, "H W"]:
        """From `start`, the object that fits the counts and has the prior's slopes; what no pattern
        covers stays."""
        whole = start.clone()
        with torch.no_grad():
            whole[self.window] = canvas_steps(
                self.patterns,
                start[self.window][None],
                settling(self.patterns, rounds),
                _LEVEL[0] * weight + _LEVEL[1],
                self.prior,
                weight,
            )[0]
        return whole
