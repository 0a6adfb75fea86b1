"""The physics-informed model: features -> network -> object canvas -> diffraction -> expected counts.

The probe is a buffer here and nowhere else in training; the counts' scale is in it and in nothing else.
"""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor, nn

from ptycho_torch import optics
from ptycho_torch.config import ModelConfig
from ptycho_torch.features import Features, channel_count, fluence_of
from ptycho_torch.network import CanvasUNet
from ptycho_torch.noise import poisson_loss
from ptycho_torch.patches import cut


class Batch(NamedTuple):
    """One optimiser step's data: the fields' features and the patterns that score them."""

    features: Features
    address: Int[Tensor, "n 3"]  # (field, row, column) of each scored patch
    residual_px: Float[Tensor, "n 2"]
    counts: Float[Tensor, "n N N"]  # photons that the features have not seen
    share: float  # their share of all photons
    truth: Complex[Tensor, "n N N"] | None  # truth patches, loaded for supervised training only


class PtychoModel(nn.Module):
    """Object and expected counts from features, for a fixed probe."""

    probe: Complex[Tensor, "modes N N"]

    def __init__(self, config: ModelConfig, probe: Complex[Tensor, "modes N N"]):
        super().__init__()
        self.config = config
        self.register_buffer("probe", probe)
        self.network = CanvasUNet(channel_count(config), config.width, config.depth)

    def object_canvas(self, features: Features, symmetry: int = 0) -> Complex[Tensor, "fields H W"]:
        """The passes' canvas plus the network's correction, computed in one of the 8 orientations of the square.

        The network's output counts in standard deviations of the canvas's noise, which falls with the root of the
        fluence: outputs of order 1 then serve every dose, and little light does not have to be learned away.
        """
        correction = _orient_back(self.network(_orient(features.channels, symmetry)), symmetry)
        return features.base + correction * torch.rsqrt(1 + fluence_of(features.channels))

    def expected_counts(self, patches: Complex[Tensor, "n N N"], residual_px: Float[Tensor, "n 2"], share: float = 1.0
                        ) -> Float[Tensor, "n N N"]:
        """Expected counts of object patches under the probe at `share` of its photons."""
        return optics.expected_counts(patches, optics.shift_probe(self.probe * share**0.5, residual_px))

    def loss(self, canvas: Complex[Tensor, "fields H W"], batch: Batch) -> Float[Tensor, ""]:
        """Poisson loss of the unseen photons, or, supervised, the probe-weighted squared error to the truth patches."""
        patches = cut(canvas, batch.address, self.config.N)
        if self.config.objective == "poisson":
            return poisson_loss(self.expected_counts(patches, batch.residual_px, batch.share), batch.counts)
        weight = self.probe.abs().square().sum(0)
        field = batch.address[:, 0]  # each has a global phase of its own, which no data fix
        overlap = (weight * patches.detach() * batch.truth.conj()).sum((-2, -1))
        overlap = overlap.new_zeros(len(canvas)).index_add(0, field, overlap)[field, None, None]
        error = patches * torch.exp(-1j * torch.angle(overlap)) - batch.truth
        return (weight * error.abs().square()).sum() / (weight.sum() * len(patches))


def _orient(image: Tensor, symmetry: int) -> Tensor:
    turned = torch.rot90(image, symmetry % 4, (-2, -1))
    return turned.flip(-1) if symmetry >= 4 else turned


def _orient_back(image: Tensor, symmetry: int) -> Tensor:
    unflipped = image.flip(-1) if symmetry >= 4 else image
    return torch.rot90(unflipped, -(symmetry % 4), (-2, -1))
