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
_LEAST_ERROR = 1e-7  # mean squared, under the log: what an exact canvas would score


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


class SimulatedBatch(NamedTuple):
    """One optimiser step's simulated canvases, whose objects are known everywhere."""

    features: Features
    truth: Canvases

    @property
    def size(self) -> int:
        return len(self.truth)


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

    def loss(self, canvas: Canvases, batch: Batch | SimulatedBatch) -> Float[Tensor, ""]:
        """Poisson loss of the unseen photons; supervised, the probe-weighted squared error to the
        truth patches; of simulated canvases :func:`simulated_loss`."""
        if isinstance(batch, SimulatedBatch):
            return simulated_loss(canvas, batch.truth, fluence_of(batch.features.channels))
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


def simulated_loss(
    canvas: Canvases, truth: Canvases, fluence: Float[Tensor, "canvases H W"]
) -> Float[Tensor, ""]:
    """log10 of the mean squared errors of amplitude and of phase, added; mean over canvases, whose
    global phase is removed.

    A decibel is worth the same at every dose, so that one network can learn all of them. A pixel's
    weight is its fluence up to the median of the lit ones, so that the bright middle does not
    decide alone."""
    lit = torch.where(fluence > 0.1 * fluence.mean((-2, -1), keepdim=True), fluence, torch.nan)
    weight = torch.minimum(lit, lit.flatten(1).nanmedian(1).values[:, None, None]).nan_to_num(0)
    weight = weight / weight.sum((-2, -1), keepdim=True)
    turn = torch.angle((weight * canvas.detach() * truth.conj()).sum((-2, -1), keepdim=True))
    change = (canvas * torch.exp(-1j * turn) - truth) * truth.conj() / truth.abs().clamp_min(0.1)
    parts = (change.real, change.imag)  # amplitude, phase
    errors = [(weight * part.square()).sum((-2, -1)) + _LEAST_ERROR for part in parts]
    return (torch.log10(errors[0]) + torch.log10(errors[1])).mean()


def _orient(image: Tensor, symmetry: int) -> Tensor:
    turned = torch.rot90(image, symmetry % 4, (-2, -1))
    return turned.flip(-1) if symmetry >= 4 else turned


def _orient_back(image: Tensor, symmetry: int) -> Tensor:
    unflipped = image.flip(-1) if symmetry >= 4 else image
    return torch.rot90(unflipped, -(symmetry % 4), (-2, -1))
