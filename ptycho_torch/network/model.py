"""The physics-informed model: features -> network -> object canvas -> expected counts.

The probe, a buffer here and nowhere else in training, alone carries the counts' scale."""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from ptycho_torch.config import NETWORKS, ModelConfig
from ptycho_torch.network.features import CHANNELS, Features, fluence_of
from ptycho_torch.network.poisson_loss import poisson_loss
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns
from ptycho_torch.physics.patches import cut

Canvases = Complex[Tensor, "canvases H W"]
Probe = Complex[Tensor, "modes M M"]
_PLENTY = 30.0  # photons per object pixel


class Batch(NamedTuple):
    """One optimiser step's data: the canvases' features and the patterns that score them."""

    features: Features
    address: Int[Tensor, "n 3"]  # (canvas, row, column) of each scored patch
    residual_px: Float[Tensor, "n 2"]
    counts: Float[Tensor, "n N N"]  # photons that the features have not seen
    share: float  # their share of all photons
    truth: Complex[Tensor, "n M M"] | None  # truth patches, loaded for supervised training only
    detector: Detector
    brightness: Float[Tensor, " n"] | None

    @property
    def size(self) -> int:
        return len(self.address)


class PtychoModel(nn.Module):
    """Object and expected counts from features, for a fixed probe."""

    probe: Probe

    def __init__(self, config: ModelConfig, probe: Probe):
        super().__init__()
        self.config = config
        self.register_buffer("probe", probe)
        self.network = NETWORKS[config.network](CHANNELS, config)

    def object_canvas(self, features: Features, symmetry: int = 0) -> Canvases:
        """The solved canvas times the network's correction, computed in one of 8 orientations.

        Under plenty of light the network's output counts in standard deviations of the canvas's
        noise, which falls with the root of the fluence: what it has not learned then costs little.
        Under little light it counts as it is: it has much to correct there, and few steps to learn
        it in."""
        correction = _orient_back(self.network(_orient(features.channels, symmetry)), symmetry)
        share = torch.rsqrt(1 + fluence_of(features.channels) / _PLENTY)
        return features.base * torch.exp(correction * share)

    def loss(self, canvas: Canvases, batch: Batch) -> Float[Tensor, ""]:
        """Poisson loss of the unseen photons; supervised, the probe-weighted squared error to the
        truth patches."""
        if self.config.objective == "poisson":
            geometry = Geometry(
                batch.address,
                batch.residual_px,
                self.probe,
                tuple(canvas.shape),
                detector=batch.detector,
                brightness=batch.brightness,
                passes=False,
            )
            patterns = Patterns(geometry.fainter(batch.share), batch.counts.__getitem__)
            return poisson_loss(canvas, patterns, batch.counts.sum())
        patches = cut(canvas, batch.address, self.probe.shape[-1])
        weight = self.probe.abs().square().sum(0)
        own = batch.address[:, 0]  # each canvas has a global phase of its own, which no data fix
        overlap = (weight * patches.detach() * batch.truth.conj()).sum((-2, -1))
        overlap = overlap.new_zeros(len(canvas)).index_add(0, own, overlap)[own, None, None]
        error = patches * torch.exp(-1j * torch.angle(overlap)) - batch.truth
        return (weight * error.abs().square()).sum() / (weight.sum() * len(patches))


def _orient(image: Tensor, symmetry: int) -> Tensor:
    turned = torch.rot90(image, symmetry % 4, (-2, -1))
    return turned.flip(-1) if symmetry >= 4 else turned


def _orient_back(image: Tensor, symmetry: int) -> Tensor:
    unflipped = image.flip(-1) if symmetry >= 4 else image
    return torch.rot90(unflipped, -(symmetry % 4), (-2, -1))
