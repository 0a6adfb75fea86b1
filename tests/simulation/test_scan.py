"""The snake of fly001 against the published facts and the measured positions; rasters against their
own limits."""

from pathlib import Path

import numpy as np
import pytest

from fly64lib.simulation.scans import raster_scan, snake_scan
from ptycho_torch.errors import ConfigError


def test_snake_has_the_published_count_range_and_pitches():
    x, y = snake_scan()
    assert len(x) == len(y) == 10_304 and x.dtype == y.dtype == np.float64
    assert [x.min(), x.max()] == pytest.approx([33.5, 198.5], abs=0.6)
    assert [y.min(), y.max()] == pytest.approx([33.1, 198.9], abs=0.05)
    rows_x, rows_y = x[:10_300].reshape(100, 103), y[:10_300].reshape(100, 103)
    assert abs(np.diff(rows_x[:, 10:], axis=1)) == pytest.approx(1.653, abs=0.005)
    assert np.diff(rows_y[:, 50]) == pytest.approx(-1.658, abs=0.001)


def test_rows_alternate_in_direction_and_y_never_rises():
    x, y = snake_scan()
    direction = np.sign(x[:10_300].reshape(100, 103)[:, 90] - x[:10_300].reshape(100, 103)[:, 10])
    assert np.array_equal(direction, np.tile([1, -1], 50))
    assert np.diff(y).max() < 1e-12


def test_the_stage_never_jumps_and_stands_about_three_samples_at_a_turn():
    x, y = snake_scan()
    assert np.hypot(np.diff(x), np.diff(y)).max() < 2.0
    turn = slice(103 * 5 - 2, 103 * 5 + 10)
    assert 3 <= np.sum(abs(np.diff(x[turn])) < 0.1) <= 4


def test_patches_lie_within_the_canvas_at_both_published_sizes():
    for scale, N, canvas in ((1, 64, 232), (2, 128, 464)):
        for coordinate in snake_scan(scale):
            assert (
                np.rint(coordinate - N / 2).min() >= 0
                and np.rint(coordinate + N / 2).max() <= canvas
            )


def test_scale_multiplies_and_must_be_positive():
    for one, two in zip(snake_scan(), snake_scan(2), strict=True):
        np.testing.assert_array_equal(2 * one, two)
    with pytest.raises(ConfigError, match="scale = 0"):
        snake_scan(0)


def test_snake_follows_the_measured_positions_to_a_tenth_of_a_step(real_scan_path: Path):
    with np.load(real_scan_path) as file:
        index, x, y = file["scan_index"], file["xcoords"], file["ycoords"]
    ours_x, ours_y = (coordinate[index] for coordinate in snake_scan())
    distance = np.hypot(ours_x - x, ours_y - y)
    assert np.sqrt(np.mean(distance**2)) < 0.16 and distance.max() < 0.4


def test_raster_is_a_centred_grid_row_by_row():
    x, y = raster_scan((20, 31), 8, 5.0)
    np.testing.assert_array_equal(np.unique(x), [5.5, 10.5, 15.5, 20.5, 25.5])
    np.testing.assert_array_equal(np.unique(y), [5.0, 10.0, 15.0])
    assert np.array_equal(x[:5], np.unique(x)) and np.all(y[:5] == 5.0)


def test_jitter_is_bounded_seeded_and_keeps_patches_within():
    shape, N, jitter = (64, 81), 32, 1.5
    x, y = raster_scan(shape, N, 4.0, jitter, seed=5)
    for coordinate, size in ((x, shape[1]), (y, shape[0])):
        assert coordinate.min() >= N / 2 and coordinate.max() <= size - N / 2
    regular_x, regular_y = raster_scan((64 - 3, 81 - 3), N, 4.0)
    assert (
        1 < abs(x - regular_x - 1.5).max() <= jitter
        and 1 < abs(y - regular_y - 1.5).max() <= jitter
    )
    assert all(
        np.array_equal(a, b)
        for a, b in zip((x, y), raster_scan(shape, N, 4.0, jitter, seed=5), strict=True)
    )
    assert not np.array_equal(x, raster_scan(shape, N, 4.0, jitter, seed=6)[0])


def test_a_raster_without_room_or_step_is_refused():
    with pytest.raises(ConfigError, match="no room"):
        raster_scan((40, 30), 32, 4.0)
    with pytest.raises(ConfigError, match="step = 0"):
        raster_scan((40, 40), 32, 0)
