"""In which order training sees the batches of a split.

It depends on (seed, epoch) alone, so that an interrupted run continues with the same batches."""

from collections.abc import Iterator

import numpy as np
from torch import distributed
from torch.utils.data import DataLoader, Sampler

from ptycho_torch.config import TrainingConfig
from ptycho_torch.training.samples import Split


class GroupSampler(Sampler):
    """Every group once under every thinning, in batches of one thinning, in an order drawn from
    (seed, epoch); to watch a held-out split, once under the first thinning and as they come.

    Of several processes each takes its share of every batch: together they step as one would."""

    def __init__(self, groups: int, config: TrainingConfig, drawn: bool = True):
        self.seed, self.epoch = config.seed, 0
        self.groups, self.batch_size, self.drawn = groups, config.batch_size, drawn
        self.thinnings = config.thinnings if drawn else 1

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch, also after a resume."""
        self.epoch = epoch

    def place(self) -> tuple[int, int]:
        """(rank, number) of the processes that train together."""
        if distributed.is_available() and distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
        return 0, 1

    def __len__(self) -> int:
        return self.thinnings * -(-self.groups // self.batch_size)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        rng, items = np.random.default_rng([self.seed, self.epoch]), []
        for thinning in range(self.thinnings):
            order = rng.permutation(self.groups) if self.drawn else np.arange(self.groups)
            for first in range(0, self.groups, self.batch_size):
                items.append((thinning, self._share(order[first : first + self.batch_size])))
        picks = rng.permutation(len(items)) if self.drawn else range(len(items))
        return iter([items[i] for i in picks])

    def _share(self, batch: np.ndarray) -> list[int]:
        """This process's part of a batch; its last group for those that a small one leaves over."""
        rank, processes = self.place()
        return batch[min(rank, len(batch) - 1) :: processes].tolist()


def loader(data: Split, config: TrainingConfig, drawn: bool = True) -> DataLoader:
    """Batches of a split, in a `drawn` order to train on."""
    sampler = GroupSampler(len(data), config, drawn)
    return DataLoader(data, batch_size=None, sampler=sampler, num_workers=config.num_workers)
