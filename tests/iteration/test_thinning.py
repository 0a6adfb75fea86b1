"""Photons split once, without loss, into two independent parts."""

import numpy as np
import pytest
import torch
from small_scan import geometry, small_raw

from ptycho_torch.iteration import thinning
from ptycho_torch.iteration.thinning import ThinnedCounts, split_photons


def test_the_photons_of_a_pattern_are_split_without_loss_and_the_parts_are_independent():
    raw = small_raw(1e4)
    images = torch.arange(2, raw.n, 2)
    split, everything = ThinnedCounts(raw, images, 0.7, seed=4), torch.arange(len(images))
    kept, rest = split.kept(everything), split.rest(everything)
    assert torch.equal(kept + rest, raw.counts(images)) and (kept >= 0).all() and (rest >= 0).all()
    expected = geometry()[-1]
    expected = expected[images.numpy()] * 1e4 / expected.sum((1, 2)).mean()
    noise = [
        (part.numpy() - share * expected) / np.sqrt(share * expected + 1e-9)
        for part, share in ((kept, 0.7), (rest, 0.3))
    ]
    lit = expected > 1
    assert abs(np.corrcoef(noise[0][lit], noise[1][lit])[0, 1]) < 5 / lit.sum() ** 0.5
    assert all(abs(part[lit].var() - 1) < 0.05 for part in noise)


def test_a_split_depends_on_the_seed_and_not_on_how_many_patterns_are_held_at_once(monkeypatch):
    raw, images = small_raw(1e4), torch.arange(20)

    def kept(indices: torch.Tensor, seed: int = 4) -> torch.Tensor:
        return ThinnedCounts(raw, images, 0.5, seed).kept(indices)

    first = kept(images)
    monkeypatch.setattr(thinning, "CHUNK", 3)
    assert torch.equal(kept(images), first) and not torch.equal(kept(images, seed=5), first)
    assert torch.equal(kept(torch.tensor([7, 3])), first[[7, 3]])


def test_a_split_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    split = ThinnedCounts(small_raw(1e4), torch.arange(5), 0.5, seed=0)
    assert list(tmp_path.iterdir()) == [] and split.kept(torch.arange(5)).sum() > 0


def test_the_two_parts_of_a_scan_add_up_under_probes_that_share_its_power():
    raw, every = small_raw(1e4), slice(None)
    whole, power = raw.counts(every), raw.probe.abs().square().sum()
    kept, rest = split_photons(raw, 0.7, seed=3)
    assert torch.equal(kept.counts(every) + rest.counts(every), whole)
    assert torch.equal(kept.counts([3, 1]), kept.counts(every)[[3, 1]])
    for part, share in ((kept, 0.7), (rest, 0.3)):
        assert float(part.probe.abs().square().sum() / power) == pytest.approx(share, rel=1e-5)
        assert float(part.counts(every).sum() / whole.sum()) == pytest.approx(share, abs=0.01)
