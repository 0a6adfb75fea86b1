"""The network's input and the batches: fields laid out by the positions, photons split once, groups
kept whole."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, small_raw

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.iteration import thinning
from ptycho_torch.iteration.canvas import Patterns, canvas_steps, schedule
from ptycho_torch.iteration.thinning import ThinnedCounts
from ptycho_torch.network.features import (
    channel_count,
    group_layout,
    group_side,
    make_features,
    view_layout,
)
from ptycho_torch.training.samples import Split

MODEL = ModelConfig(N=32, canvas_passes=(2, 6))
NAMED = np.array(
    [[0, 1, 10, 11], [33, 34, 43, 44], [60, 61, 70, 71], [5, 6, 15, 16], [82, 83, 73, 72]]
)


def config(**model) -> TrainingConfig:
    return TrainingConfig(model=replace(MODEL, **model), batch_size=7, thinnings=2)


# --- layouts ---


def test_the_views_field_is_the_bounding_box_of_all_patches():
    raw = small_raw()
    layout = view_layout(raw.positions, raw.N)
    corners = np.array([oracle.corner_and_rest(*at, raw.N) for at in raw.positions.tolist()])
    np.testing.assert_array_equal(layout.address[:, 1:] + layout.origin, corners[:, :2])
    np.testing.assert_allclose(layout.residual_px, corners[:, 2:], atol=1e-6)
    assert layout.address.amin(0).tolist() == [0, 0, 0]
    assert (layout.address.amax(0)[1:] + raw.N).tolist() == list(layout.shape[1:]) and layout.shape[
        0
    ] == 1


def test_every_group_has_a_field_around_its_own_patches_as_small_as_the_widest_allows():
    raw = small_raw()
    positions = raw.positions[torch.from_numpy(NAMED)]
    side = group_side(positions, raw.N)
    layout = group_layout(positions, raw.N, side)
    assert (
        layout.shape == (5, side, side)
        and layout.address[:, 0].tolist() == np.repeat(range(5), 4).tolist()
    )
    corners = np.array(
        [oracle.corner_and_rest(*at, raw.N)[:2] for at in positions.reshape(-1, 2).tolist()]
    )
    np.testing.assert_array_equal(
        layout.address[:, 1:] + layout.origin.repeat_interleave(4, 0), corners
    )
    inside = layout.address[:, 1:].view(5, 4, 2)
    assert inside.amin() >= 0 and inside.amax() == side - raw.N  # the widest group fills it
    slack = (side - raw.N - inside.amax(1)) - inside.amin(1)
    assert ((slack == 0) | (slack == 1)).all()  # the others lie in its middle


# --- features ---


def features_of(raw, keep: float = 1.0, model: ModelConfig = MODEL):
    layout = view_layout(raw.positions, raw.N)
    return (
        make_features(lambda i: raw.counts(i) * keep, layout, raw.probe * keep**0.5, model),
        layout,
    )


def test_the_channels_are_the_steps_canvases_and_the_fluence():
    raw = small_raw(1e4)
    features, layout = features_of(raw)
    assert features.channels.shape == (1, channel_count(MODEL), *layout.shape[1:])
    patterns = Patterns(raw.counts, layout.address, layout.residual_px, raw.probe, layout.shape)
    plan = schedule(patterns, max(MODEL.canvas_passes))
    for stage, passes in enumerate(MODEL.canvas_passes):
        canvas = canvas_steps(
            patterns,
            torch.ones(layout.shape, dtype=torch.complex64),
            plan[:passes],
            smoothness=MODEL.smoothness,
        )
        shown = torch.complex(
            features.channels[:, 2 * stage] + 1, features.channels[:, 2 * stage + 1]
        )
        turn = (shown / canvas).mean()
        assert abs(abs(turn) - 1) < 1e-4
        np.testing.assert_allclose(shown, canvas * turn, atol=1e-4)
    np.testing.assert_allclose(
        torch.complex(features.channels[:, 2] + 1, features.channels[:, 3]),
        features.base,
        atol=1e-6,
    )
    _, _, y, x, _ = geometry()
    light = oracle.fluence(raw.object_guess.shape, raw.probe.numpy().astype(complex), y, x)
    (row, column), (_, height, width) = layout.origin[0].tolist(), layout.shape
    np.testing.assert_allclose(
        features.channels[0, -1],
        np.log10(light[row : row + height, column : column + width] + 0.1) / 2,
        atol=1e-3,
    )


def test_a_fields_global_phase_is_taken_out():
    raw = small_raw(1e4)
    features, layout = features_of(raw)
    weight = 10 ** (2 * features.channels[:, -1]) - 0.1
    assert abs(float(torch.angle((weight * features.base).sum()))) < 1e-5


def test_a_share_of_the_photons_under_a_fainter_probe_shows_the_same_object():
    raw, free = small_raw(1e5), replace(MODEL, smoothness=0.0)
    whole, faint = features_of(raw, model=free)[0], features_of(raw, 0.3, free)[0]
    lit = whole.channels[:, -1] > 1.5  # 1,000 photons a pixel
    # Nearly: the floor under dark detector pixels is a constant number of photons.
    difference, contrast = (
        (faint.base - whole.base)[lit],
        (whole.base - whole.base[lit].mean())[lit],
    )
    assert difference.abs().square().mean() < 1e-3 * contrast.abs().square().mean()
    np.testing.assert_allclose(
        (whole.channels - faint.channels)[:, -1][lit], -np.log10(0.3) / 2, atol=1e-2
    )


# --- thinning ---


def test_the_photons_of_a_pattern_are_split_without_loss_and_the_parts_are_independent():
    raw = small_raw(1e4)
    images = torch.arange(2, raw.n, 2)
    split = ThinnedCounts(raw, images, 0.7, seed=4)
    everything = torch.arange(len(images))
    kept, rest = split.kept(everything), split.rest(everything)
    assert torch.equal(kept + rest, raw.counts(images)) and (kept >= 0).all() and (rest >= 0).all()
    expected = geometry()[-1][images.numpy()]
    expected *= 1e4 / geometry()[-1].sum((1, 2)).mean()
    noise = [
        (part.numpy() - share * expected) / np.sqrt(share * expected + 1e-9)
        for part, share in ((kept, 0.7), (rest, 0.3))
    ]
    lit = expected > 1
    assert abs(np.corrcoef(noise[0][lit], noise[1][lit])[0, 1]) < 5 / lit.sum() ** 0.5
    assert all(abs(part[lit].var() - 1) < 0.05 for part in noise)


def test_a_split_depends_on_the_seed_and_not_on_how_many_patterns_are_held_at_once(monkeypatch):
    raw, images = small_raw(1e4), torch.arange(20)
    first = ThinnedCounts(raw, images, 0.5, seed=4).kept(images)
    monkeypatch.setattr(thinning, "CHUNK", 3)
    assert torch.equal(ThinnedCounts(raw, images, 0.5, seed=4).kept(images), first)
    assert torch.equal(
        ThinnedCounts(raw, images, 0.5, seed=4).kept(torch.tensor([7, 3])), first[[7, 3]]
    )
    assert not torch.equal(ThinnedCounts(raw, images, 0.5, seed=5).kept(images), first)


def test_a_split_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    split = ThinnedCounts(small_raw(1e4), torch.arange(5), 0.5, seed=0)
    assert list(tmp_path.iterdir()) == [] and split.kept(torch.arange(5)).sum() > 0


# --- batches ---


@pytest.mark.parametrize("context", ["view", "group"])
@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_batch_scores_its_own_images_by_the_photons_the_input_has_not_seen(context, gridsize):
    raw = small_raw(1e4)
    settings = config(context=context, gridsize=gridsize)
    split = Split(raw, replace(settings, n_images=40))
    batch = split[1, [3, 0, 5]]
    images = split.images[split.groups[[3, 0, 5]].reshape(-1)]
    assert len(images) == 3 * gridsize**2 and len(split.images) == 40
    whole = raw.counts(images)
    kept = whole - batch.counts
    assert (batch.counts >= 0).all() and (kept >= 0).all() and batch.share == pytest.approx(0.2)
    assert float(kept.sum() / whole.sum()) == pytest.approx(settings.keep, abs=0.01)
    assert batch.truth is None
    # Where each patch lies: the same field pixels belong to the same object pixels.
    corners = np.array([oracle.corner_and_rest(*at, 32) for at in raw.positions[images].tolist()])
    field = batch.address[:, 0]
    for one in field.unique():
        offset = corners[field == one, :2] - batch.address[field == one, 1:].numpy()
        assert (offset == offset[0]).all()
    np.testing.assert_allclose(batch.residual_px, corners[:, 2:], atol=1e-6)
    assert len(field.unique()) == (1 if context == "view" else 3) == len(batch.features.base)
    if context == "group":  # the input is made of the group's own kept photons
        layout = group_layout(raw.positions[images].view(3, -1, 2), 32, split._side)
        again = make_features(
            lambda i: kept[i], layout, raw.probe * settings.keep**0.5, settings.model
        )
        np.testing.assert_allclose(batch.features.base, again.base, atol=1e-5)


def test_the_views_input_is_made_of_the_photons_that_no_batch_scores():
    raw, settings = small_raw(1e4), config()
    split = Split(raw, settings)
    batch = split[1, list(range(len(split)))]
    kept = raw.counts(split.images) - batch.counts
    again = make_features(
        lambda i: kept[i], view_layout(raw.positions, 32), raw.probe * settings.keep**0.5, MODEL
    )
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
    split = Split(raw, config(objective="supervised", gridsize=2, context="group"))
    images = split.images[split.groups[[8, 2]].reshape(-1)].numpy()
    image, _, y, x, _ = geometry()
    np.testing.assert_allclose(
        split[0, [8, 2]].truth, oracle.patches(image, y[images], x[images], 32), atol=1e-6
    )
    with pytest.raises(DataContractError, match="Y"):
        Split(small_raw(), config(objective="supervised"))[0, [4]]


def test_data_of_another_detector_size_are_refused_by_name():
    with pytest.raises(
        ConfigError, match="small_scan.npz holds 32 px patterns, the configuration says N=64"
    ):
        Split(small_raw(), config(N=64))
