"""The order of batches and of simulated canvases: drawn from (seed, epoch) alone, shared by
processes."""

from dataclasses import replace

import numpy as np
import torch
from small_scan import small_raw

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.training.loaders import GroupSampler, loader
from ptycho_torch.training.samples import Split

CONFIG = TrainingConfig(thinnings=3, batch_size=5, seed=1)


def test_an_epoch_shows_every_group_once_under_every_thinning():
    sampler = GroupSampler(23, CONFIG)
    batches = list(sampler)
    assert len(batches) == len(sampler) == 15 and max(len(groups) for _, groups in batches) == 5
    shown = sorted((thinning, group) for thinning, groups in batches for group in groups)
    assert shown == [(thinning, group) for thinning in range(3) for group in range(23)]


def test_the_order_is_drawn_from_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list:
        sampler = GroupSampler(23, replace(CONFIG, seed=seed))
        sampler.set_epoch(epoch)
        return list(sampler)

    torch.manual_seed(0)
    np.random.seed(0)
    first = order(1, 2)
    torch.manual_seed(5)
    np.random.seed(5)
    assert order(1, 2) == first != order(1, 3)
    assert order(2, 2) != first


def test_validation_shows_every_group_once_in_order():
    watched = GroupSampler(7, replace(CONFIG, batch_size=3), drawn=False)
    assert list(watched) == [(0, [0, 1, 2]), (0, [3, 4, 5]), (0, [6])]


def test_a_worker_process_makes_the_same_batches():
    model = ModelConfig(N=32, gridsize=2)
    config = TrainingConfig(model=model, batch_size=7, thinnings=2, n_images=16)
    batches = [
        list(loader(Split(small_raw(1e4), one), one))
        for one in (config, replace(config, num_workers=1))
    ]
    assert len(batches[0]) == len(batches[1]) == 2 * 3
    for here, there in zip(*batches, strict=True):
        assert torch.equal(here.counts, there.counts)
        assert torch.equal(here.features.base, there.features.base)


def of_processes(number: int, sampler: GroupSampler, monkeypatch) -> list[list]:
    """What each of several processes takes of a sampler."""
    taken = []
    for rank in range(number):
        monkeypatch.setattr(GroupSampler, "place", lambda self, rank=rank: (rank, number))
        taken.append(list(sampler))
    return taken


def test_the_processes_shares_make_up_every_batch(monkeypatch):
    sampler = GroupSampler(13, TrainingConfig(thinnings=2, batch_size=4, seed=3))
    whole = list(sampler)
    for batch, *parts in zip(whole, *of_processes(3, sampler, monkeypatch), strict=True):
        assert all(part[0] == batch[0] for part in parts)
        together = sum((part[1] for part in parts), [])
        assert all(part[1] for part in parts) and set(together) == set(batch[1])
        assert len(together) == max(len(batch[1]), 3)
