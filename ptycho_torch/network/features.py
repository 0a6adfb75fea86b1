"""The network's input: what canvas passes make of the counts, on the canvas of a view or of each
group.

A *field* is a canvas with the patterns that lie on it. Context "view" makes one field of all
patterns, context "group" one small field for each group. Everything above the fields is the same
for both."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ptycho_torch.config import ModelConfig
from ptycho_torch.iteration.canvas import Patterns, canvas_steps, schedule
from ptycho_torch.physics.patches import in_field, split_positions


class Features(NamedTuple):
    """Input of the network for a stack of fields."""

    channels: Float[
        Tensor, "fields channels H W"
    ]  # real and imaginary parts of the passes' canvases, log fluence
    base: Complex[Tensor, "fields H W"]  # the last of these canvases, global phase removed


def channel_count(config: ModelConfig) -> int:
    """Channels of :class:`Features`: two for each stage of the passes and one for the fluence."""
    return 2 * len(config.canvas_passes) + 1


class Layout(NamedTuple):
    """Where the images of a stack of fields lie, relative to their field, and where the fields lie
    on the object."""

    address: Int[Tensor, "n 3"]  # (field, row, column) of every image's patch
    residual_px: Float[Tensor, "n 2"]  # sub-pixel part of its position
    origin: Int[Tensor, "fields 2"]  # (row, column) of every field's first pixel on the object
    shape: tuple[int, int, int]  # fields, height, width


def view_layout(positions_px: Float[Tensor, "n 2"], N: int) -> Layout:
    """One field, the bounding box of all patches."""
    corners, residual = split_positions(positions_px, N)
    origin = corners.amin(0)
    height, width = (corners.amax(0) - origin + N).tolist()
    return Layout(in_field(corners - origin), residual, origin[None], (1, height, width))


def group_layout(positions_px: Float[Tensor, "groups C 2"], N: int, side_px: int) -> Layout:
    """One square field of `side_px` (:func:`group_side`) for each group, around its own patches."""
    groups, C = positions_px.shape[:2]
    corners, residual = split_positions(positions_px.reshape(-1, 2), N)
    corners = corners.view(groups, C, 2)
    origin = corners.amin(1) - (side_px - N - (corners.amax(1) - corners.amin(1))) // 2
    field = torch.arange(groups).repeat_interleave(C)
    return Layout(
        in_field((corners - origin[:, None]).view(-1, 2), field),
        residual,
        origin,
        (groups, side_px, side_px),
    )


def group_side(positions_px: Float[Tensor, "groups C 2"], N: int) -> int:
    """Side of a square field in pixels that holds the widest of the groups."""
    corners = split_positions(positions_px.reshape(-1, 2), N)[0].view(*positions_px.shape)
    return N + int((corners.amax(1) - corners.amin(1)).max())


def make_features(
    counts: Callable[[Tensor], Float[Tensor, "n N N"]],
    layout: Layout,
    probe: Complex[Tensor, "modes N N"],
    config: ModelConfig,
) -> Features:
    """Canvases after `config.canvas_passes` accelerated passes from an empty object, and log10 of
    the fluence.

    `probe` carries the photons of `counts` (a thinned pattern comes with a fainter probe). The
    global phase of each field is taken out, so that the network need not know it."""
    patterns = Patterns(counts, layout.address, layout.residual_px, probe, layout.shape)
    stages: list[Tensor] = []

    def keep(number: int, canvas: Tensor) -> None:
        if number + 1 in config.canvas_passes:
            stages.append(canvas)

    start = torch.ones(layout.shape, dtype=probe.dtype, device=probe.device)
    canvas_steps(
        patterns,
        start,
        schedule(patterns, max(config.canvas_passes)),
        smoothness=config.smoothness,
        observe=keep,
    )
    fluence = patterns.fluence()
    stages = [
        stage * torch.exp(-1j * torch.angle((fluence * stage).sum((-2, -1), keepdim=True)))
        for stage in stages
    ]
    channels = [part for stage in stages for part in (stage.real - 1, stage.imag)]
    channels.append(torch.log10(fluence + 0.1) / 2)
    return Features(torch.stack(channels, dim=1), stages[-1])


def fluence_of(channels: Float[Tensor, "fields channels H W"]) -> Float[Tensor, "fields H W"]:
    """Photons per object pixel, from the last channel of :class:`Features`."""
    return (10 ** (2 * channels[:, -1]) - 0.1).clamp_min(0)
