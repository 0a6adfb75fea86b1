"""The one `reconstruct()`: a trained model and a data file to an object. Notebooks, phases and the
shell all call it."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.iteration.canvas import Patterns
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.features import (
    fluence_of,
    group_layout,
    group_side,
    make_features,
    view_layout,
)
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.network.stitching import stitch
from ptycho_torch.physics import optics
from ptycho_torch.physics.noise import poisson_deviance
from ptycho_torch.physics.patches import cut, in_field, split_positions
from ptycho_torch.training.samples import choose_groups

_FIELDS_AT_ONCE = 64


@dataclass(frozen=True)
class Reconstruction:
    """An object on the data file's canvas, and what it took."""

    object: Complex[Tensor, "H W"]  # 1 where no photon went
    fluence: Float[Tensor, "H W"]  # photons per object pixel that the probe brought
    images: np.ndarray  # indices of the patterns that were used
    seconds: float  # wall time
    cpu_seconds: float


def reconstruct(model: PtychoModel, raw: RawDataTorch, config: TrainingConfig) -> Reconstruction:
    """Object of all groups of `raw` (chosen by `config` as in training), from all its photons,
    without truth.

    The network's fields are stitched with their free phases synchronised. The model's probe has to
    be the data's own up to its brightness: another one is refused, since every feature and weight
    depends on it."""
    check_probe(model.probe, raw)
    wall, cpu = time.perf_counter(), time.process_time()
    groups = torch.from_numpy(choose_groups(raw, config))
    images = torch.from_numpy(np.unique(groups.numpy()))
    probe = raw.probe.to(model.probe.device)
    model.eval()
    with torch.no_grad():
        if config.model.context == "view":
            layouts = [(view_layout(raw.positions[images], raw.N), images)]
        else:
            side = group_side(raw.positions[groups], raw.N)
            layouts = [
                (group_layout(raw.positions[chunk], raw.N, side), chunk.reshape(-1))
                for chunk in groups.split(_FIELDS_AT_ONCE)
            ]
        fields, corners, weights = [], [], []
        for layout, members in layouts:
            features = make_features(
                lambda i, members=members: raw.counts(members[i]), layout, probe, config.model
            )
            fields.append(model.object_canvas(features))
            corners.append(layout.origin)
            weights.append(fluence_of(features.channels))
        shape = tuple(raw.object_guess.shape)
        merged, fluence = _merge(torch.cat(fields), torch.cat(corners), torch.cat(weights), shape)
        if config.model.context == "group":
            # Not the summed weights: an image may be in several groups, its photons went through
            # the object once.
            corner, residual = split_positions(raw.positions[images], raw.N)
            fluence = Patterns(
                raw.counts, in_field(corner), residual, probe, (1, *shape)
            ).fluence()[0]
    return Reconstruction(
        merged.cpu(),
        fluence.cpu(),
        images.numpy(),
        time.perf_counter() - wall,
        time.process_time() - cpu,
    )


def check_probe(probe: Complex[Tensor, "modes N N"], raw: RawDataTorch) -> None:
    """Refuse data of another size or probe than a model was trained for."""
    if probe.shape != raw.probe.shape:
        what = (
            "patterns of another N" if raw.N != probe.shape[-1] else "another number of probe modes"
        )
        raise ConfigError(
            f"{raw.source}: its probe is {tuple(raw.probe.shape)}, the model was trained for "
            f"{tuple(probe.shape)}: {what}; train for this data or choose another bundle"
        )
    own, other = probe.cpu(), raw.probe
    likeness = (own.conj() * other).sum().abs() / (own.norm() * other.norm())
    if likeness < 0.99:
        raise ConfigError(
            f"{raw.source}: its probe has a correlation of {likeness:.3f} with the one the model"
            " was trained under, at least 0.99 is needed; train for this probe or choose another"
            " bundle"
        )


def data_deviance(
    canvas: Complex[Tensor, "H W"], raw: RawDataTorch, images: np.ndarray | None = None
) -> float:
    """Mean Poisson deviance per detector pixel of an object against the measured counts (a perfect
    model: about 1).

    `images` defaults to all patterns. The object's global phase does not matter.
    """
    images = torch.arange(raw.n) if images is None else torch.from_numpy(np.asarray(images))
    corners, residual = split_positions(raw.positions, raw.N)
    total = 0.0
    for chunk in images.split(_FIELDS_AT_ONCE):
        patches = cut(canvas[None].to(raw.probe), in_field(corners[chunk]), raw.N)
        expected = optics.expected_counts(patches, optics.shift_probe(raw.probe, residual[chunk]))
        total += float(poisson_deviance(expected, raw.counts(chunk)).double().sum())
    return total / (len(images) * raw.N**2)


def _merge(
    fields: Tensor, corners: Tensor, weights: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Stitch fields that may reach over the object's edge: on a larger canvas, cropped
    afterwards."""
    before = (-corners.amin(0)).clamp_min(0)
    after = (corners.amax(0) + torch.tensor(fields.shape[-2:]) - torch.tensor(shape)).clamp_min(0)
    padded = tuple((torch.tensor(shape) + before + after).tolist())
    merged, fluence = stitch(fields, corners + before, weights, padded)
    crop = (
        slice(int(before[0]), int(before[0]) + shape[0]),
        slice(int(before[1]), int(before[1]) + shape[1]),
    )
    return merged[crop], fluence[crop]
