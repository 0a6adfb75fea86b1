"""The one `reconstruct()`: a trained model and a data file to an object. Notebooks, phases and the
shell all call it."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.grouping import choose_groups
from ptycho_torch.errors import ConfigError
from ptycho_torch.iteration.slopes import mean_deviance
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.features import fluence_of, make_features
from ptycho_torch.network.model import PtychoModel

_DARK = 1e-9  # of the largest fluence: a pixel below it has seen nothing
_LIKENESS = 0.99  # least correlation of the data's probe with the model's


@dataclass(frozen=True)
class Reconstruction:
    """An object on the data file's canvas, and what it took."""

    object: Complex[Tensor, "H W"]  # 1 where no photon went
    fluence: Float[Tensor, "H W"]  # photons per object pixel that the probe brought
    images: np.ndarray  # indices of the patterns that were used
    seconds: float  # wall time
    cpu_seconds: float


def reconstruct(model: PtychoModel, raw: RawDataTorch, config: TrainingConfig) -> Reconstruction:
    """Object of all groups of `raw` (chosen by `config` as in training), from all their photons,
    without truth.

    The model's probe has to be the data's own up to its brightness: another one is refused, since
    every feature and weight depends on it. A general model serves any probe of its size."""
    if model.config.objective == "general":
        check_sides(model, raw)
    else:
        check_probe(model.probe, raw)
    wall, cpu = time.perf_counter(), time.process_time()
    images = np.unique(choose_groups(raw.scan, config, raw.source))
    patterns = raw.patterns(images).under(raw.probe.to(model.probe.device))
    model.eval()
    with torch.no_grad():
        name = "features", images.tobytes(), str(model.probe.device)
        features = raw.once(name, lambda: make_features(patterns))
        canvas, fluence = model.object_canvas(features).cpu(), fluence_of(features.channels).cpu()
    seen = fluence > _DARK * fluence.max()
    geometry = patterns.geometry
    return Reconstruction(
        geometry.embed(torch.where(seen, canvas, 1.0)),
        geometry.embed(fluence, outside=0.0),
        images,
        time.perf_counter() - wall,
        time.process_time() - cpu,
    )


def check_sides(model: PtychoModel, raw: RawDataTorch) -> None:
    """Refuse data with other pixels than a general model was trained on."""
    own, other = (model.config.N, model.probe.shape[-1]), (raw.N, raw.M)
    if own != other:
        text = f"{raw.source}: its N, M are {other}, the network knows {own}: put the scan on that"
        raise ConfigError(f"{text} grid (fly64 probe --M {own[1]})")


def check_probe(probe: Complex[Tensor, "modes N N"], raw: RawDataTorch) -> None:
    """Refuse data of another size or probe than a model was trained for."""
    if probe.shape != raw.probe.shape:
        what = "another side" if raw.M != probe.shape[-1] else "another number of modes"
        text = f"{raw.source}: its probe is {tuple(raw.probe.shape)}, the model was trained for"
        text += f" {tuple(probe.shape)}: {what}; train for this data or choose another bundle"
        raise ConfigError(text)
    own, other = probe.cpu(), raw.probe
    likeness = (own.conj() * other).sum().abs() / (own.norm() * other.norm())
    if likeness < _LIKENESS:
        text = f"{raw.source}: its probe has a correlation of {likeness:.3f} with the one the model"
        text += f" was trained under, at least {_LIKENESS} is needed; train for this probe or"
        raise ConfigError(f"{text} choose another bundle")


def data_deviance(
    canvas: Complex[Tensor, "H W"], raw: RawDataTorch, images: np.ndarray | None = None
) -> float:
    """Mean Poisson deviance per detector pixel of an object against the measured counts (a perfect
    model: about 1).

    `images` defaults to all patterns. The object's global phase does not matter."""
    patterns = raw.patterns(images, whole=True)
    return mean_deviance(canvas[None].to(raw.probe), patterns)
