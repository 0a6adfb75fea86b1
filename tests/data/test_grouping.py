"""Groups of neighbours: the seed is a member, neighbours are real, no group twice, seeds used
evenly."""

from math import comb

import numpy as np
import pytest
from small_scan import small_scan

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.grouping import choose_groups, draw_groups
from ptycho_torch.errors import ConfigError

K = 7


def positions(n: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 100, (n, 2))


def nearest(points: np.ndarray, image: int, count: int) -> list[int]:
    """The image's nearest others, nearest first, by sorting all distances."""
    order = np.argsort(np.hypot(*(points - points[image]).T), kind="stable")
    return order[order != image][:count].tolist()


@pytest.mark.parametrize("n_groups", [None, 25, 200])
def test_a_group_is_its_seed_and_distinct_images_out_of_the_seeds_nearest(n_groups):
    points = positions()
    groups = draw_groups(points, 4, K, n_groups, seed=5)
    assert groups.dtype == np.int64 and groups.shape == (n_groups or len(points), 4)
    for seed, *others in groups.tolist():
        assert len({seed, *others}) == 4
        assert set(others) <= set(nearest(points, seed, K))


def test_no_two_groups_hold_the_same_images():
    groups = draw_groups(positions(), 4, K, 600, seed=1)
    assert len({frozenset(group) for group in groups.tolist()}) == 600


@pytest.mark.parametrize(("n_groups", "least", "most"), [(60, 1, 1), (150, 2, 3), (240, 4, 4)])
def test_oversampling_spreads_evenly_over_the_seeds(n_groups, least, most):
    groups = draw_groups(positions(), 4, K, n_groups, seed=2)
    used = np.bincount(groups[:, 0], minlength=60)
    assert (used.min(), used.max()) == (least, most)
    assert (np.bincount(groups.ravel(), minlength=60) > 0).all()  # and no image is left out


def test_fewer_groups_than_images_take_different_seeds_from_all_over_the_scan():
    points = positions(400)
    seeds = draw_groups(points, 4, K, 100, seed=3)[:, 0]
    assert len(set(seeds.tolist())) == 100
    assert all(points[seeds].min(0) < 15) and all(points[seeds].max(0) > 85)


def test_neighbours_are_drawn_without_regard_to_distance():
    points = positions(500)
    groups = draw_groups(points, 4, K, None, seed=4)
    ranks = [
        nearest(points, seed, K).index(other)
        for seed, *others in groups.tolist()
        for other in others
    ]
    share = np.bincount(ranks, minlength=K) / len(ranks)
    np.testing.assert_allclose(share, 1 / K, atol=5 * (1 / K / len(ranks)) ** 0.5)


def test_the_same_seed_draws_the_same_groups_and_another_seed_others():
    points = positions()
    assert np.array_equal(draw_groups(points, 4, K, 90, 7), draw_groups(points, 4, K, 90, 7))
    assert not np.array_equal(draw_groups(points, 4, K, 90, 7), draw_groups(points, 4, K, 90, 8))


def test_groups_of_one_are_the_images_themselves():
    np.testing.assert_array_equal(draw_groups(positions(9), 1, K, None, 0), np.arange(9)[:, None])
    some = draw_groups(positions(50), 1, K, 12, 0)[:, 0]
    assert len(set(some.tolist())) == 12 and some.max() > 25


def test_images_at_one_place_still_form_groups_of_distinct_images():
    groups = draw_groups(np.zeros((9, 2)), 4, 5, 30, seed=0)
    assert all(len(set(group)) == 4 for group in groups.tolist())


def test_every_distinct_group_can_be_had_and_one_more_is_refused_with_their_number():
    points = positions(5)
    everything = comb(
        5, 4
    )  # all five are neighbours of each other: a group is told by who is missing
    assert len(draw_groups(points, 4, 4, everything, 0)) == everything
    with pytest.raises(
        ConfigError,
        match=f"n_groups=6 is more than the {everything} distinct groups of 4 that 5 images",
    ):
        draw_groups(points, 4, 4, 6, 0)


@pytest.mark.parametrize(
    ("n", "C", "neighbours", "n_groups", "says"),
    [
        (3, 4, 7, None, "3 images cannot form a group of 4"),
        (9, 4, 2, None, "neighbor_count=2 is too small for groups of 4: at least 3"),
        (9, 1, 7, 10, "n_groups=10 is more than the 9 images"),
    ],
)
def test_what_cannot_be_grouped_is_refused_with_the_reason(n, C, neighbours, n_groups, says):
    with pytest.raises(ConfigError, match=says):
        draw_groups(positions(n), C, neighbours, n_groups, 0)


# --- of a scan ---

NAMED = np.array(
    [[0, 1, 10, 11], [33, 34, 43, 44], [60, 61, 70, 71], [5, 6, 15, 16], [82, 83, 73, 72]]
)


def chosen(groups: np.ndarray | None = None, gridsize: int = 2, **training) -> np.ndarray:
    config = TrainingConfig(model=ModelConfig(N=32, gridsize=gridsize), **training)
    return choose_groups(small_scan(groups=groups), config, "a.npz")


def test_a_named_views_groups_are_taken_as_they_are():
    assert chosen(NAMED).tolist() == NAMED.tolist()
    few = chosen(NAMED, n_images=9)  # two whole groups
    assert len(few) == 2 and all(group in NAMED.tolist() for group in few.tolist())
    assert len(chosen(NAMED, n_groups=3)) == 3


def test_a_named_views_groups_of_another_size_or_number_are_refused():
    with pytest.raises(ConfigError, match="a.npz: its groups hold 3 images, gridsize 2 asks for 4"):
        chosen(NAMED[:, :3])
    with pytest.raises(ConfigError, match="n_groups=6, but a.npz is a named view of 5 groups"):
        chosen(NAMED, n_groups=6)


def test_without_stored_groups_they_are_drawn_among_the_chosen_images_only():
    groups = chosen(n_images=30)
    assert groups.shape == (30, 4) and len(np.unique(groups)) == 30
    more = chosen(n_images=30, n_groups=70)
    assert more.shape == (70, 4) and np.array_equal(np.unique(more), np.unique(groups))


def test_gridsize_one_takes_every_image_or_as_many_as_asked_for_by_the_subsampling_seed():
    assert chosen(NAMED, 1).ravel().tolist() == list(range(small_scan().n))
    some = [chosen(NAMED, 1, n_images=12, subsample_seed=seed).tolist() for seed in (1, 1, 2)]
    assert len(np.unique(some[0])) == 12 and some[0] == some[1] != some[2]
