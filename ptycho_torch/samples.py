"""Training data: groups of images under one of several thinnings, as the batches the model takes.

A `Split` is one data file as training sees it: which images, which groups, where they lie. Batches are drawn by a
sampler whose order depends on (seed, epoch) alone, so that an interrupted run continues with the same batches.
"""

from collections.abc import Iterator
from functools import lru_cache

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.features import Features, group_layout, group_side, make_features, view_layout
from ptycho_torch.grouping import draw_groups
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.model import Batch
from ptycho_torch.thinning import ThinnedCounts


def choose_groups(raw: RawDataTorch, config: TrainingConfig) -> np.ndarray:
    """Groups of image indices (G, C) for a data file: the named view's own, or drawn anew (OVERSAMPLING-001).

    Stored groups are never mixed or split: `n_images` keeps whole groups, and combinations do not cross them.
    """
    C = config.model.images_per_group
    rng = np.random.default_rng(config.subsample_seed)
    if raw.groups is not None and C > 1:
        if raw.groups.shape[1] != C:
            raise ConfigError(f"{raw.source}: its groups hold {raw.groups.shape[1]} images, gridsize "
                              f"{config.model.gridsize} asks for {C}")
        if config.n_groups is not None and config.n_groups > len(raw.groups):
            raise ConfigError(f"n_groups={config.n_groups}, but {raw.source} is a named view of {len(raw.groups)} groups")
        wanted = len(raw.groups) if config.n_groups is None else config.n_groups
        if config.n_images is not None:
            wanted = min(wanted, max(1, config.n_images // C))
        return raw.groups[np.sort(rng.permutation(len(raw.groups))[:wanted])]
    images = np.arange(raw.n)
    if config.n_images is not None and config.n_images < raw.n:
        images = np.sort(rng.permutation(raw.n)[:config.n_images])
    groups = draw_groups(raw.positions[images].numpy(), C, config.neighbor_count, config.n_groups, config.grouping_seed)
    return images[groups]


class Split(Dataset):
    """Batches of one data file; an item is asked for by (thinning, groups)."""

    def __init__(self, raw: RawDataTorch, config: TrainingConfig):
        if raw.N != config.model.N:
            raise ConfigError(f"{raw.source} holds {raw.N} px patterns, the configuration says N={config.model.N}")
        self.raw, self.config = raw, config
        groups = choose_groups(raw, config)
        self.images = torch.from_numpy(np.unique(groups))
        self.groups = torch.from_numpy(np.searchsorted(self.images.numpy(), groups))  # within `images`
        self.positions = raw.positions[self.images]
        self._view = view_layout(self.positions, raw.N) if config.model.context == "view" else None
        self._side = None if self._view else group_side(self.positions[self.groups], raw.N)
        self._thinned = lru_cache(maxsize=None)(self._thin)
        self._view_features = lru_cache(maxsize=None)(self._make_view_features)

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, key: tuple[int, list[int]]) -> Batch:
        thinning, chosen = key
        config, thinned = self.config, self._thinned(thinning)
        groups = self.groups[chosen]
        if self._view is not None:
            images = groups.reshape(-1)
            features = self._view_features(thinning)
            address, residual = self._view.address[images], self._view.residual_px[images]
        else:
            images = groups.reshape(-1)
            layout = group_layout(self.positions[groups], self.raw.N, self._side)
            kept = thinned.kept(images)
            features = make_features(lambda i: kept[i], layout, self.raw.probe * config.keep**0.5, config.model)
            address, residual = layout.address, layout.residual_px
        supervised = config.model.objective == "supervised"
        truth = self.raw.truth_patches(self.images[images]) if supervised else None
        return Batch(features, address, residual, thinned.rest(images), 1 - config.keep, truth)

    def _thin(self, thinning: int) -> ThinnedCounts:
        seed = self.config.seed * 1024 + thinning  # thinnings <= 1024, so no two runs share a split
        return ThinnedCounts(self.raw, self.images, self.config.keep, seed)

    def _make_view_features(self, thinning: int) -> Features:
        probe = self.raw.probe * self.config.keep**0.5
        return make_features(self._thinned(thinning).kept, self._view, probe, self.config.model)


class GroupSampler(Sampler):
    """Every group once under every thinning, in batches of one thinning; the order is drawn from (seed, epoch)."""

    def __init__(self, groups: int, thinnings: int, batch_size: int, seed: int, shuffle: bool = True):
        self.groups, self.thinnings, self.batch_size, self.seed, self.shuffle = (groups, thinnings, batch_size, seed,
                                                                                 shuffle)
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.thinnings * -(-self.groups // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        items = []
        for thinning in range(self.thinnings):
            order = rng.permutation(self.groups) if self.shuffle else np.arange(self.groups)
            items += [(thinning, order[i:i + self.batch_size].tolist()) for i in range(0, self.groups, self.batch_size)]
        picks = rng.permutation(len(items)) if self.shuffle else range(len(items))
        return iter([items[i] for i in picks])


class PtychoDataModule(lightning.LightningDataModule):
    """Both splits as loaders. The held-out split is only watched: nothing is chosen by it."""

    def __init__(self, train: RawDataTorch, test: RawDataTorch | None, config: TrainingConfig):
        super().__init__()
        self.config = config
        self.first_epoch = 0  # of a resumed run: Lightning draws the first order before it names the epoch
        self.train = Split(train, config)
        self.test = Split(test, config) if test is not None else None

    def train_dataloader(self) -> DataLoader:
        config = self.config
        sampler = GroupSampler(len(self.train), config.thinnings, config.batch_size, config.seed)
        sampler.set_epoch(self.first_epoch)
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader | list:
        if self.test is None:
            return []
        return self._loader(self.test, GroupSampler(len(self.test), 1, self.config.batch_size, 0, shuffle=False))

    def _loader(self, split: Split, sampler: GroupSampler) -> DataLoader:
        return DataLoader(split, batch_size=None, sampler=sampler, num_workers=self.config.num_workers)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        if device.type == "cpu":
            return batch
        return Batch(*(_moved(part, device) for part in batch))


class FieldSampler(Sampler):
    """Seeds of simulated fields: every epoch `per_epoch` new ones, each shown `repeats` times, in an order of its own."""

    def __init__(self, per_epoch: int, repeats: int, seed: int):
        self.per_epoch, self.repeats, self.seed, self.epoch = per_epoch, repeats, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.per_epoch * self.repeats

    def __iter__(self) -> Iterator[int]:
        first = (self.seed * 100_003 + self.epoch) * self.per_epoch
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self))
        return iter((first + order % self.per_epoch).tolist())


class FieldDataModule(lightning.LightningDataModule):
    """Simulated fields as a loader; `fields[seed]` is a :class:`~ptycho_torch.model.FieldBatch`."""

    PER_EPOCH, REPEATS = 25, 8

    def __init__(self, fields: Dataset, config: TrainingConfig):
        super().__init__()
        self.fields, self.config, self.first_epoch = fields, config, 0

    def train_dataloader(self) -> DataLoader:
        per_epoch = min(self.PER_EPOCH, -(-self.config.steps // self.REPEATS))  # a short training draws no field for nothing
        sampler = FieldSampler(per_epoch, self.REPEATS, self.config.seed)
        sampler.set_epoch(self.first_epoch)
        return DataLoader(self.fields, batch_size=None, sampler=sampler, num_workers=self.config.num_workers)

    def val_dataloader(self) -> list:
        return []


def _moved(part: object, device: torch.device) -> object:
    if isinstance(part, Features):
        return Features(*(tensor.to(device) for tensor in part))
    return part.to(device) if isinstance(part, Tensor) else part
