"""Which images a view holds: spacing, tightness, exclusiveness, evenness, and that seeds alone
decide."""

import numpy as np
import pytest

from fly64lib.design.study import ViewDesign
from fly64lib.simulation.scans import snake_scan
from fly64lib.simulation.views import choose_views, select_groups, spread
from ptycho_torch.errors import ConfigError

CONTROLS = ("", "_spread", "_fluence")


def distances(a, b):
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


@pytest.fixture(scope="module")
def half():
    """The snake's positions (y, x) above a guard band of 30 px."""
    positions = snake_scan()
    y = positions[:, 0]
    return positions[y > (y.min() + y.max()) / 2 + 15]


@pytest.fixture(scope="module")
def scattered():
    return np.random.default_rng(5).uniform([0, 0], [40, 70], (4000, 2))


@pytest.mark.parametrize("spacing, groups", [(9.0, 99), (24.0, 18)])
def test_a_probe_of_30_px_gives_about_99_dense_and_18_sparse_groups_of_the_snakes_half(
    half, spacing, groups
):
    counts = [len(select_groups(half, spacing, seed=seed)) for seed in range(8)]
    assert np.mean(counts) == pytest.approx(groups, rel=0.08)


@pytest.mark.parametrize("spacing", [4.0, 9.0])
def test_centres_are_a_spacing_apart_and_no_position_is_left_that_could_be_another(
    scattered, spacing
):
    centres = scattered[select_groups(scattered, spacing, seed=1)[:, 0]]
    apart = distances(centres, centres)
    assert apart[np.triu_indices(len(centres), 1)].min() >= spacing
    assert distances(scattered, centres).min(axis=1).max() < spacing


def test_centres_fill_the_plane_as_random_sequential_addition_of_discs_does():
    positions = np.random.default_rng(0).uniform(
        0, 60, (200_000, 2)
    )  # fewer candidates end short of jamming
    centres = positions[select_groups(positions, 3.0, images_per_group=1, seed=3)[:, 0]]
    inner = ((centres > 5) & (centres < 55)).all(axis=1).sum()
    assert inner * np.pi * 1.5**2 / 50**2 == pytest.approx(
        0.547, abs=0.02
    )  # jamming coverage of discs in the plane


def test_a_group_is_its_centre_and_the_images_nearest_to_it(half):
    for centre, *others in select_groups(half, 9.0, seed=4):
        r = np.linalg.norm(half - half[centre], axis=1)
        assert r[others].max() <= np.sort(np.delete(r, centre))[2] + 1e-12


@pytest.mark.parametrize("spacing", [1.5, 3.0, 6.0])
def test_an_image_serves_one_group_even_where_a_coarse_scan_makes_groups_compete(spacing):
    y, x = np.meshgrid(np.arange(9) * 3.0, np.arange(14) * 3.0, indexing="ij")
    groups = select_groups(np.stack([y.ravel(), x.ravel()], axis=1), spacing, seed=2)
    assert len(groups) > 9 and len(np.unique(groups)) == groups.size


def test_on_a_raster_whose_pitch_is_the_spacing_rounding_does_not_decide():
    line = np.stack([np.zeros(50), 0.1 * np.arange(50)], axis=1)
    assert len(select_groups(line, 0.1, images_per_group=1, seed=0)) == 50


def test_the_selection_follows_the_seed_and_not_the_origin_of_the_positions(scattered):
    groups = select_groups(scattered, 7.3, seed=11)
    np.testing.assert_array_equal(groups, select_groups(scattered, 7.3, seed=11))
    np.testing.assert_array_equal(groups, select_groups(scattered + [64, -32], 7.3, seed=11))
    assert not np.array_equal(groups[:20], select_groups(scattered, 7.3, seed=12)[:20])


@pytest.mark.parametrize("n, groups", [(0, 0), (3, 0), (4, 1)])
def test_fewer_images_than_a_group_needs_make_no_group(n, groups):
    assert select_groups(np.arange(2.0 * n).reshape(n, 2), 1e3, seed=0).shape == (groups, 4)


def test_impossible_groups_are_refused_with_the_reason(scattered):
    with pytest.raises(ConfigError, match="neighbor_count=2 cannot fill groups of 4"):
        select_groups(scattered, 5.0, images_per_group=4, neighbor_count=2)
    with pytest.raises(ConfigError, match="positive number of pixels"):
        select_groups(scattered, 0.0)


def test_spread_images_lie_as_far_apart_as_the_gaps_between_them_are_wide(half):
    chosen = spread(half, 72, seed=3)
    apart = distances(half[chosen], half[chosen])[np.triu_indices(72, 1)]
    assert (
        len(np.unique(chosen)) == 72
        and distances(half, half[chosen]).min(axis=1).max() <= apart.min()
    )
    random = np.random.default_rng(0).choice(len(half), 72, replace=False)
    assert distances(half[random], half[random])[np.triu_indices(72, 1)].min() < apart.min() / 3


def test_spread_takes_images_not_places():
    np.testing.assert_array_equal(
        spread(np.zeros((5, 2)), 5), np.arange(5)
    )  # a stage that stood still
    for count in (0, 6):
        with pytest.raises(ConfigError, match="out of 5"):
            spread(np.zeros((5, 2)), count)


def test_controls_hold_the_named_views_photons_spread_or_in_every_exposure(half):
    views, skipped = choose_views(half, 30.0, ViewDesign())
    assert not skipped
    by_name = {view.name: view for view in views}
    assert list(by_name) == [
        "baseline",
        *(name + control for name in ("dense", "sparse") for control in CONTROLS),
    ]
    for name in ("dense", "sparse"):
        named, few, every = (by_name[name + control] for control in CONTROLS)
        assert len(few.images) == len(named.images) == named.groups.size and few.groups is None
        assert len(every.images) == len(half) and every.keep * len(half) == pytest.approx(
            len(named.images)
        )
        np.testing.assert_array_equal(np.sort(named.groups.ravel()), np.arange(len(named.images)))


def test_any_overlap_is_a_view_and_no_other_view_changes_with_it(half):
    views, skipped = choose_views(half, 30.0, ViewDesign(views=("sparse", "0.5")))
    assert not skipped
    names = [name + control for name in ("sparse", "0.5") for control in CONTROLS]
    assert [view.name for view in views] == ["baseline", *names]
    middle = next(view for view in views if view.name == "0.5")
    centres = half[middle.images][middle.groups[:, 0]]
    assert distances(centres, centres)[np.triu_indices(len(centres), 1)].min() >= 15.0
    assert middle.selection["linear_overlap"] == 0.5
    alone = {view.name: view for view in choose_views(half, 30.0, ViewDesign())[0]}
    np.testing.assert_array_equal(views[1].images, alone["sparse"].images)
    assert len(alone["sparse"].images) < len(middle.images) < len(alone["dense"].images)


def test_a_replicate_moves_the_selection(half):
    first, second = (
        choose_views(half, 30.0, ViewDesign(replicate=r, controls=False))[0][1].images
        for r in (0, 1)
    )
    assert not np.array_equal(first, second)


def test_the_custom_view_keeps_a_share_of_the_images_and_regroups_them(half):
    custom = choose_views(half, 30.0, ViewDesign(s_img=0.1, n_groups=2000))[0][-1]
    kept = round(0.1 * len(half))
    assert (
        custom.name == "custom" and len(custom.images) == kept and custom.groups.shape == (2000, 4)
    )
    assert len({frozenset(group) for group in custom.groups.tolist()}) == 2000
    few = choose_views(half, 30.0, ViewDesign(n_groups=5))[0][-1]
    assert (
        len(few.groups) == 5 and len(few.images) <= 20
    )  # images outside the groups bring no photons


def test_views_too_small_for_one_group_are_skipped_by_name_with_the_reason(half):
    views, skipped = choose_views(half[:3], 30.0, ViewDesign(s_img=0.5))
    assert [view.name for view in views] == ["baseline"]
    assert set(skipped) == {
        "custom",
        *(name + control for name in ("dense", "sparse") for control in CONTROLS),
    }
    assert skipped["sparse"] == "3 images cannot form one group of 4 (gridsize 2)"
