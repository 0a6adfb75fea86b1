"""Simulated canvases to train on: procedural objects under an experiment's own probe.

What `pinn-sim` learns from. Nothing of the experiment but its probe is used: neither its patterns
nor any truth. Positions are those of the study's kinds of views (tight groups, dense or sparse, and
jittered single images), of other sizes and spacings."""

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.utils.data import Dataset

from fly64lib.simulation.families import drawn_window
from fly64lib.simulation.probes import outer_half_maximum_diameter
from fly64lib.simulation.views import select_groups
from ptycho_torch.config import ModelConfig
from ptycho_torch.network.features import make_features
from ptycho_torch.network.model import SimulatedBatch
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns
from ptycho_torch.physics.noise import draw_counts
from ptycho_torch.training.loaders import SimulatedSampler

DOSES = (400.0, 250_000.0)  # photons per exposure, drawn evenly on a logarithmic axis
KINDS = {"dense": 0.35, "sparse": 0.35, "single": 0.3}  # kind of view: how often


class ProceduralCanvases(Dataset):
    """Canvases by seed; those of an epoch are kept, since each is shown several times."""

    def __init__(self, probe: Complex[Tensor, "modes M M"], model: ModelConfig):
        self.probe, self.model = probe / probe.abs().square().sum().sqrt(), model
        self.diameter_px = outer_half_maximum_diameter(probe.numpy())
        self._made = lru_cache(maxsize=SimulatedSampler.PER_EPOCH)(self._make)

    def __getitem__(self, seed: int) -> SimulatedBatch:
        return self._made(seed)

    def _make(self, seed: int) -> SimulatedBatch:
        rng = np.random.default_rng(seed)
        places = torch.from_numpy(positions(rng, self.diameter_px))
        geometry = Geometry.of(places, self.probe, detector=Detector(self.model.N))
        image = drawn_window(geometry.shape[1:], round(232 * geometry.M / 64), rng)
        canvas = torch.from_numpy(image)[None]
        geometry = geometry.under(self.probe * np.exp(rng.uniform(*np.log(DOSES))) ** 0.5)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        expected = (geometry.expected(canvas, chunk) for chunk in geometry.chunks())
        counts = torch.cat([draw_counts(mean, generator) for mean in expected])
        patterns = Patterns(geometry, counts.__getitem__)
        return SimulatedBatch(make_features(patterns), canvas)


def positions(rng: np.random.Generator, diameter_px: float) -> Float[np.ndarray, "n 2"]:
    """Patch centres (y, x) in px of one of KINDS of views, over an area of 1.7 .. 3.3 by 2.3 .. 5.3
    probe diameters D. Groups are chosen from a raster as dense as fly001's."""
    D = diameter_px
    height, width = rng.uniform(1.7, 3.3) * D, rng.uniform(2.3, 5.3) * D
    kind = rng.choice(list(KINDS), p=list(KINDS.values()))
    step = (rng.uniform(0.11, 0.4) if kind == "single" else 0.055) * D
    axes = np.arange(0, height, step), np.arange(0, width, step)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    centres = grid + rng.uniform(-0.3, 0.3, grid.shape) * step
    if kind != "single":
        spacing = {"dense": 0.3, "sparse": 0.8}[kind] * D * rng.uniform(0.85, 1.2)
        centres = centres[np.unique(select_groups(centres, spacing, seed=int(rng.integers(2**31))))]
    return centres + rng.uniform(0, 1, 2)
