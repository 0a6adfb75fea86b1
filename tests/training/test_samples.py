"""Batches: the input is made of some photons, and the score of the others."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, small_raw

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.network.features import make_features
from ptycho_torch.physics.geometry import Patterns
from ptycho_torch.training.samples import Split


def config(**model) -> TrainingConfig:
    made = ModelConfig(**{"N": 32} | model)
    return TrainingConfig(model=made, batch_size=7, thinnings=2)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_batch_scores_its_own_images_by_the_photons_the_input_has_not_seen(gridsize):
    raw, settings = small_raw(1e4), replace(config(gridsize=gridsize), n_images=40)
    split = Split(raw, settings)
    batch = split[1, [3, 0, 5]]
    images = split.images[split.groups[[3, 0, 5]].reshape(-1)]
    assert len(images) == 3 * gridsize**2 and len(split.images) == 40
    whole = raw.counts(images)
    kept = whole - batch.counts
    assert (batch.counts >= 0).all() and (kept >= 0).all() and batch.share == pytest.approx(0.2)
    assert float(kept.sum() / whole.sum()) == pytest.approx(settings.keep, abs=0.01)
    assert batch.truth is None
    # Where each patch lies: the same canvas pixels belong to the same object pixels.
    corners = np.array([oracle.corner_and_rest(*at, 32) for at in raw.positions[images].tolist()])
    offset = corners[:, :2] - batch.address[:, 1:].numpy()
    assert (offset == split.geometry.origin).all() and (batch.address[:, 0] == 0).all()
    np.testing.assert_allclose(batch.residual_px, corners[:, 2:], atol=1e-6)


def test_the_input_is_made_of_the_photons_that_no_batch_scores():
    raw, settings = small_raw(1e4), config()
    split = Split(raw, settings)
    batch = split[1, list(range(len(split)))]
    kept = raw.counts(split.images) - batch.counts
    fainter = raw.geometry().under(raw.probe * settings.keep**0.5)
    again = make_features(Patterns(fainter, kept.__getitem__))
    np.testing.assert_allclose(batch.features.channels, again.channels, atol=1e-5)


def test_two_thinnings_split_the_photons_differently_and_another_seed_differently_again():
    raw = small_raw(1e4)
    counts = [
        Split(raw, replace(config(), seed=seed))[thinning, [0, 1]].counts
        for seed, thinning in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert torch.equal(counts[0], counts[3])
    assert not torch.equal(counts[0], counts[1]) and not torch.equal(counts[0], counts[2])


def test_truth_patches_come_with_supervised_batches_only_and_are_those_of_the_images():
    raw = small_raw(truth=True)
    assert Split(raw, config())[0, [4]].truth is None
    split = Split(raw, config(objective="supervised", gridsize=2))
    images = split.images[split.groups[[8, 2]].reshape(-1)].numpy()
    image, _, y, x, _ = geometry()
    truth = oracle.patches(image, y[images], x[images], 32)
    np.testing.assert_allclose(split[0, [8, 2]].truth, truth, atol=1e-6)
    with pytest.raises(DataContractError, match="Y"):
        Split(small_raw(), config(objective="supervised"))[0, [4]]


def test_data_of_another_detector_size_are_refused_by_name():
    with pytest.raises(
        ConfigError, match="small_scan.npz holds 32 px patterns, the configuration says N=64"
    ):
        Split(small_raw(), config(N=64))
