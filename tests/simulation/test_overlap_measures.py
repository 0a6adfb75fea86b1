"""The four measured figures against closed forms, brute force and hand-drawn cases."""

import tracemalloc

import numpy as np
import pytest

from fly64lib.simulation.overlap_measures import (
    disc_overlap,
    fluence_figures,
    fluence_map,
    geometry_figures,
    scanned_region,
)
from fly64lib.simulation.scans import snake_scan


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def test_the_disc_overlap_is_1_at_0_and_39_percent_at_half_a_diameter_and_0_from_a_diameter_on():
    np.testing.assert_allclose(
        disc_overlap(np.array([0, 15, 30, 31, 1e9]), 30.0), [1, 0.39100, 0, 0, 0], atol=5e-6
    )


@pytest.mark.parametrize("distance", [0.7, 5.0, 9.9])
def test_the_disc_overlap_is_the_common_area_counted_on_a_fine_grid(distance):
    y, x = np.mgrid[-5:5:1000j, -5:15:2000j]
    common = ((y**2 + x**2 < 25) & (y**2 + (x - distance) ** 2 < 25)).sum() / (
        y**2 + x**2 < 25
    ).sum()
    assert disc_overlap(distance, 10.0) == pytest.approx(common, abs=2e-3)


def test_the_disc_overlap_averages_a_quarter_over_all_partners_closer_than_a_diameter():
    t = (np.arange(20_000) + 0.5) / 20_000
    assert 2 * (t * disc_overlap(t, 1.0)).mean() == pytest.approx(0.25, abs=1e-6)


def test_a_square_group_has_four_sides_and_two_diagonals(rng):
    square = np.array([[0, 0], [0, 3], [3, 0], [3, 3.0]]) + [11, 17]
    positions = rng.permutation(np.concatenate([square, square + 100]))
    groups = np.array([np.flatnonzero(positions[:, 0] < 50), np.flatnonzero(positions[:, 0] > 50)])
    figures = geometry_figures(positions, groups, 10.0, 3)
    expected = (4 * disc_overlap(3.0, 10.0) + 2 * disc_overlap(3 * 2**0.5, 10.0)) / 6
    assert figures["within_groups"]["mean_disc_overlap"] == pytest.approx(expected)
    assert figures["between_images"]["mean_disc_overlap"] == pytest.approx(
        expected
    )  # with K = 3, the same pairs
    between = figures["between_groups"]
    assert between["mean_disc_overlap"] is None and between["pairs_closer_than_D"] == 0
    assert between["groups_without_partner"] == 2 and between["smallest_px"] == pytest.approx(
        100 * 2**0.5, rel=0.05
    )


def test_all_figures_agree_with_brute_force_also_where_groups_share_their_centre(rng):
    positions = rng.uniform([0, 0], [40, 70], (300, 2))
    groups = np.array([rng.choice(300, 4, replace=False) for _ in range(90)])
    groups[5, 0] = groups[6, 0] = groups[7, 0]
    D, K = 8.0, 5
    apart = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    figures = geometry_figures(positions, groups, D, K)
    inner = np.array([apart[g[i], g[j]] for g in groups for i in range(4) for j in range(i)])
    nearest = np.sort(apart, axis=1)[:, 1 : K + 1]
    between = [apart[groups[i, 0], groups[j, 0]] for i in range(90) for j in range(i)]
    closer = np.array([d for d in between if d < D])
    assert figures["within_groups"]["mean_disc_overlap"] == pytest.approx(
        np.mean(disc_overlap(inner, D))
    )
    assert figures["within_groups"]["mean_distance_px"] == pytest.approx(np.mean(inner))
    assert figures["between_images"]["mean_disc_overlap"] == pytest.approx(
        np.mean(disc_overlap(nearest, D))
    )
    assert figures["between_groups"]["pairs_closer_than_D"] == len(closer)
    assert figures["between_groups"]["mean_disc_overlap"] == pytest.approx(
        np.mean(disc_overlap(closer, D))
    )


def test_one_image_and_one_group_have_no_pairs_and_say_so_by_null():
    figures = geometry_figures(np.array([[3.0, 4.0]]), None, 5.0, 7)
    assert figures["groups"] == 1 and figures["between_groups"]["groups_without_partner"] == 1
    for name in ("within_groups", "between_images", "between_groups"):
        assert figures[name]["mean_disc_overlap"] is None


@pytest.mark.parametrize("N", [8, 9])
def test_the_fluence_is_the_sum_of_the_probes_pasted_at_their_corners(rng, N):
    shape, n = (31, 44), 50
    probe = rng.normal(size=(2, N, N)) + 1j * rng.normal(size=(2, N, N))
    positions = np.stack([rng.uniform(N / 2, side - N / 2, n) for side in shape], axis=1)
    expected = np.zeros(shape)
    for y, x in positions:
        row, column = round(y - N / 2), round(x - N / 2)
        expected[row : row + N, column : column + N] += (np.abs(probe) ** 2).sum(axis=0)
    np.testing.assert_allclose(fluence_map(positions, probe, shape), expected, atol=1e-10)
    assert expected.sum() == pytest.approx(n * (np.abs(probe) ** 2).sum())


def test_a_patch_is_lit_below_and_right_of_its_corner():
    probe = np.zeros((1, 4, 4), dtype=complex)
    probe[0, 3, 1] = 2j  # one row below and one column left of the middle (2, 2)
    lit = np.argwhere(fluence_map(np.array([[6.0, 9.0]]), probe, (12, 20)) > 1e-9)
    assert lit.tolist() == [[7, 8]]


def test_pixels_under_a_tenth_of_the_mean_are_those_that_a_hole_in_the_scan_leaves_dark():
    positions = np.stack(
        np.meshgrid(np.arange(5.0, 15), np.arange(5.0, 45), indexing="ij"), axis=-1
    ).reshape(-1, 2)
    positions = positions[
        (positions[:, 1] < 20) | (positions[:, 1] >= 30)
    ]  # 10 columns of 40 are missing
    probe = np.full((1, 1, 1), 3.0 + 0j)  # a probe of one pixel, 9 photons
    figures = fluence_figures(positions + 0.5, probe, (20, 60), scanned_region(positions))
    assert figures["region_px"] == [5, 15, 5, 45] and figures["photons_per_exposure"] == 9
    assert figures["photons_per_pixel"] == pytest.approx(9 * 0.75)
    assert figures["share_under_tenth"] == pytest.approx(0.25)


def test_the_scanned_region_is_the_box_of_the_positions_rounded_inwards():
    region = scanned_region(np.array([[2.2, 7.0], [9.9, 3.4]]))
    assert region == (slice(3, 10), slice(4, 8))
    assert scanned_region(np.array([[2.5, 7.5]])) == (slice(3, 4), slice(8, 9))


def test_the_full_scan_of_10304_positions_is_measured_without_an_array_of_all_pairs():
    positions, probe = snake_scan(), np.ones((1, 64, 64), complex)
    tracemalloc.start()
    geometry_figures(positions, None, 30.0, 7)
    fluence_figures(positions, probe, (232, 232), scanned_region(positions))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(positions) ** 2 / 2  # bytes: half of one such array of numbers
