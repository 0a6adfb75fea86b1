"""Loaders as Lightning takes them: in which order the batches of a split, or simulated canvases,
are shown.

The order depends on (seed, epoch) alone, so that an interrupted run continues with the same
batches."""

from collections.abc import Iterator

import lightning
import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_torch.config import TrainingConfig
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.training.samples import Split

Place = tuple[int, int]  # (rank, number) of the processes that train together
ALONE = (0, 1)


class _EpochSampler(Sampler):
    """Items in an order drawn from (seed, epoch); Lightning names the epoch."""

    def __init__(self, seed: int, place: Place):
        self.seed, (self.rank, self.processes), self.epoch = seed, place, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch, also after a resume."""
        self.epoch = epoch

    def _rng(self) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.epoch])


class GroupSampler(_EpochSampler):
    """Every group once under every thinning, in batches of one thinning, in a drawn order; to watch
    a held-out split, once under the first thinning and as they come.

    Of several processes each takes its share of every batch: together they step as one would."""

    def __init__(
        self, groups: int, config: TrainingConfig, place: Place = ALONE, drawn: bool = True
    ):
        super().__init__(config.seed, place)
        self.groups, self.batch_size, self.drawn = groups, config.batch_size, drawn
        self.thinnings = config.thinnings if drawn else 1

    def __len__(self) -> int:
        return self.thinnings * -(-self.groups // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        rng, items = self._rng(), []
        for thinning in range(self.thinnings):
            order = rng.permutation(self.groups) if self.drawn else np.arange(self.groups)
            for first in range(0, self.groups, self.batch_size):
                items.append((thinning, self._share(order[first : first + self.batch_size])))
        picks = rng.permutation(len(items)) if self.drawn else range(len(items))
        return iter([items[i] for i in picks])

    def _share(self, batch: np.ndarray) -> list[int]:
        """This process's part of a batch; of one smaller than their number, its last group for the
        ones left over."""
        return batch[min(self.rank, len(batch) - 1) :: self.processes].tolist()


class SimulatedSampler(_EpochSampler):
    """Seeds of simulated canvases: every epoch `per_epoch` new ones, each shown `repeats` times.

    Several processes take as many steps as one, each with a canvas of its own at each step."""

    def __init__(self, per_epoch: int, repeats: int, seed: int, place: Place = ALONE):
        super().__init__(seed, place)
        self.per_epoch, self.repeats = per_epoch, repeats

    def __len__(self) -> int:
        return self.per_epoch * self.repeats

    def __iter__(self) -> Iterator[int]:
        first = (self.seed * 100_003 + self.epoch) * self.per_epoch
        order = np.roll(self._rng().permutation(len(self)), self.rank * len(self) // self.processes)
        return iter((first + order % self.per_epoch).tolist())


class _DataModule(lightning.LightningDataModule):
    # Of a resumed run: Lightning draws the first order before it names the epoch.
    first_epoch = 0

    def __init__(self, config: TrainingConfig):
        super().__init__()
        self.config = config

    def _place(self) -> Place:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else ALONE

    def _loader(self, data: Dataset, sampler: _EpochSampler) -> DataLoader:
        sampler.set_epoch(self.first_epoch)
        workers = self.config.num_workers
        return DataLoader(data, batch_size=None, sampler=sampler, num_workers=workers)


class PtychoDataModule(_DataModule):
    """Both splits as loaders. The held-out split is only watched: nothing is chosen by it."""

    def __init__(self, train: RawDataTorch, test: RawDataTorch | None, config: TrainingConfig):
        super().__init__(config)
        self.train = Split(train, config)
        self.test = Split(test, config) if test is not None else None

    def train_dataloader(self) -> DataLoader:
        sampler = GroupSampler(len(self.train), self.config, self._place())
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader | list:
        if self.test is None:
            return []
        sampler = GroupSampler(len(self.test), self.config, self._place(), drawn=False)
        return self._loader(self.test, sampler)


class SimulatedDataModule(_DataModule):
    """Simulated canvases as a loader; `canvases[seed]` is a
    :class:`~ptycho_torch.network.model.SimulatedBatch`."""

    PER_EPOCH, REPEATS = 25, 8

    def __init__(self, canvases: Dataset, config: TrainingConfig):
        super().__init__(config)
        self.canvases = canvases

    def train_dataloader(self) -> DataLoader:
        # A short training draws no canvas for nothing.
        per_epoch = min(self.PER_EPOCH, -(-self.config.steps // self.REPEATS))
        sampler = SimulatedSampler(per_epoch, self.REPEATS, self.config.seed, self._place())
        return self._loader(self.canvases, sampler)

    def val_dataloader(self) -> list:
        return []
