"""Loaders as Lightning takes them: in which order the batches of a split, or simulated fields, are
shown.

The order depends on (seed, epoch) alone, so that an interrupted run continues with the same
batches."""

from collections.abc import Iterator

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ptycho_torch.config import TrainingConfig
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.features import Features
from ptycho_torch.network.model import Batch
from ptycho_torch.training.samples import Split


class GroupSampler(Sampler):
    """Every group once under every thinning, in batches of one thinning; the order is drawn from
    (seed, epoch).

    Of several processes each takes its share of every batch: together they step as one would.
    """

    def __init__(
        self,
        groups: int,
        thinnings: int,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        rank: int = 0,
        processes: int = 1,
    ):
        self.groups, self.thinnings, self.batch_size, self.seed, self.shuffle = (
            groups,
            thinnings,
            batch_size,
            seed,
            shuffle,
        )
        self.rank, self.processes, self.epoch = rank, processes, 0

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
            items += [
                (thinning, self._share(order[i : i + self.batch_size]))
                for i in range(0, self.groups, self.batch_size)
            ]
        picks = rng.permutation(len(items)) if self.shuffle else range(len(items))
        return iter([items[i] for i in picks])

    def _share(self, batch: np.ndarray) -> list[int]:
        """This process's part of a batch; of one smaller than their number, its last group for the
        ones left over."""
        return batch[min(self.rank, len(batch) - 1) :: self.processes].tolist()


class PtychoDataModule(lightning.LightningDataModule):
    """Both splits as loaders. The held-out split is only watched: nothing is chosen by it."""

    def __init__(self, train: RawDataTorch, test: RawDataTorch | None, config: TrainingConfig):
        super().__init__()
        self.config = config
        self.first_epoch = (
            0  # of a resumed run: Lightning draws the first order before it names the epoch
        )
        self.train = Split(train, config)
        self.test = Split(test, config) if test is not None else None

    def train_dataloader(self) -> DataLoader:
        config = self.config
        sampler = GroupSampler(
            len(self.train),
            config.thinnings,
            config.batch_size,
            config.seed,
            True,
            *_place(self.trainer),
        )
        sampler.set_epoch(self.first_epoch)
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader | list:
        if self.test is None:
            return []
        return self._loader(
            self.test,
            GroupSampler(
                len(self.test), 1, self.config.batch_size, 0, False, *_place(self.trainer)
            ),
        )

    def _loader(self, split: Split, sampler: GroupSampler) -> DataLoader:
        return DataLoader(
            split, batch_size=None, sampler=sampler, num_workers=self.config.num_workers
        )

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        if device.type == "cpu":
            return batch
        return Batch(*(_moved(part, device) for part in batch))


class FieldSampler(Sampler):
    """Seeds of simulated fields: every epoch `per_epoch` new ones, each shown `repeats` times, in
    an order of its own.

    Several processes take as many steps as one, each with a field of its own at each step.
    """

    def __init__(self, per_epoch: int, repeats: int, seed: int, rank: int = 0, processes: int = 1):
        self.per_epoch, self.repeats, self.seed, self.rank, self.processes = (
            per_epoch,
            repeats,
            seed,
            rank,
            processes,
        )
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch, also after a resume."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.per_epoch * self.repeats

    def __iter__(self) -> Iterator[int]:
        first = (self.seed * 100_003 + self.epoch) * self.per_epoch
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self))
        order = np.roll(order, self.rank * len(self) // self.processes)
        return iter((first + order % self.per_epoch).tolist())


class FieldDataModule(lightning.LightningDataModule):
    """Simulated fields as a loader; `fields[seed]` is a
    :class:`~ptycho_torch.network.model.FieldBatch`."""

    PER_EPOCH, REPEATS = 25, 8

    def __init__(self, fields: Dataset, config: TrainingConfig):
        super().__init__()
        self.fields, self.config, self.first_epoch = fields, config, 0

    def train_dataloader(self) -> DataLoader:
        per_epoch = min(
            self.PER_EPOCH, -(-self.config.steps // self.REPEATS)
        )  # a short training draws no field for nothing
        sampler = FieldSampler(per_epoch, self.REPEATS, self.config.seed, *_place(self.trainer))
        sampler.set_epoch(self.first_epoch)
        return DataLoader(
            self.fields, batch_size=None, sampler=sampler, num_workers=self.config.num_workers
        )

    def val_dataloader(self) -> list:
        return []


def _place(trainer: lightning.Trainer | None) -> tuple[int, int]:
    """(rank, number) of the processes that train together."""
    return (trainer.global_rank, trainer.world_size) if trainer else (0, 1)


def _moved(part: object, device: torch.device) -> object:
    if isinstance(part, Features):
        return Features(*(tensor.to(device) for tensor in part))
    return part.to(device) if isinstance(part, Tensor) else part
