"""Training data: groups of images under one of several thinnings, as the model's batches."""

from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Dataset

from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.grouping import choose_groups
from ptycho_torch.errors import ConfigError
from ptycho_torch.iteration.thinning import ThinnedCounts
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.features import Features, make_features
from ptycho_torch.network.model import Batch
from ptycho_torch.physics.geometry import Patterns


class Split(Dataset):
    """Batches of one data file; an item is asked for by (thinning, groups)."""

    def __init__(self, raw: RawDataTorch, config: TrainingConfig):
        if raw.N != config.model.N:
            text = f"{raw.source} holds {raw.N} px patterns"
            raise ConfigError(f"{text}, the configuration says N={config.model.N}")
        self.raw, self.config = raw, config
        groups = choose_groups(raw.scan, config, raw.source)
        self.images = torch.from_numpy(np.unique(groups))
        # within `images`
        self.groups = torch.from_numpy(np.searchsorted(self.images.numpy(), groups))
        self.geometry = raw.geometry(self.images)
        self._thinned = lru_cache(maxsize=None)(self._thin)
        self._features = lru_cache(maxsize=None)(self._make_features)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, key: tuple[int, list[int]]) -> Batch:
        thinning, chosen = key
        config, thinned = self.config, self._thinned(thinning)
        images = self.groups[chosen].reshape(-1)
        features, geometry = self._features(thinning), self.geometry.at(images)
        supervised = config.model.objective == "supervised"
        truth = self.raw.truth_patches(self.images[images]) if supervised else None
        return Batch(
            features,
            geometry.address,
            geometry.residual_px,
            thinned.rest(images),
            1 - config.keep,
            truth,
            geometry.detector,
            geometry.brightness,
        )

    def _thin(self, thinning: int) -> ThinnedCounts:
        seed = self.config.seed * 1024 + thinning  # thinnings <= 1024, so no two runs share a split
        return ThinnedCounts(self.raw, self.images, self.config.keep, seed)

    def _make_features(self, thinning: int) -> Features:
        patterns = Patterns(self.geometry.fainter(self.config.keep), self._thinned(thinning).kept)
        with torch.no_grad():
            return make_features(patterns)
