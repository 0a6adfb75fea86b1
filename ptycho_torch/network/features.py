"""The network's input: what canvas passes make of the counts, on the canvas of a scan."""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ptycho_torch.config import ModelConfig
from ptycho_torch.iteration.canvas import canvas_steps, empty
from ptycho_torch.iteration.subsets import schedule
from ptycho_torch.physics.geometry import Patterns


class Features(NamedTuple):
    """Input of the network for a stack of canvases."""

    # real and imaginary parts of the passes' canvases, log fluence
    channels: Float[Tensor, "canvases channels H W"]
    base: Complex[Tensor, "canvases H W"]  # the last of these canvases, global phase removed


def channel_count(config: ModelConfig) -> int:
    """Channels of :class:`Features`: two for each stage of the passes and one for the fluence."""
    return 2 * len(config.canvas_passes) + 1


def make_features(patterns: Patterns, config: ModelConfig) -> Features:
    """Canvases after `config.canvas_passes` passes from an empty object, and log10 of the fluence.

    The patterns' probe carries their photons (a thinned pattern comes with a fainter probe). The
    global phase of each canvas is taken out, so that the network need not know it."""
    geometry, stages = patterns.geometry, []

    def keep(number: int, canvas: Tensor) -> None:
        if number + 1 in config.canvas_passes:
            stages.append(canvas)

    passes = schedule(geometry, max(config.canvas_passes))
    canvas_steps(patterns, empty(geometry), passes, smoothness=config.smoothness, observe=keep)
    fluence = geometry.fluence()
    for number, stage in enumerate(stages):
        phase = torch.angle((fluence * stage).sum((-2, -1), keepdim=True))
        stages[number] = stage * torch.exp(-1j * phase)
    channels = [part for stage in stages for part in (stage.real - 1, stage.imag)]
    channels.append(torch.log10(fluence + 0.1) / 2)
    return Features(torch.stack(channels, dim=1), stages[-1])


def fluence_of(channels: Float[Tensor, "canvases channels H W"]) -> Float[Tensor, "canvases H W"]:
    """Photons per object pixel, from the last channel of :class:`Features`."""
    return (10 ** (2 * channels[:, -1]) - 0.1).clamp_min(0)
