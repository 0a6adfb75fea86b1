"""The snake of fly001 against the published facts and the measured positions."""

from pathlib import Path

import numpy as np
import pytest

from fly64lib.simulation.scans import snake_scan
from ptycho_torch.errors import ConfigError


def test_snake_has_the_published_count_range_and_pitches():
    y, x = snake_scan().T
    assert len(x) == len(y) == 10_304 and x.dtype == y.dtype == np.float64
    assert [x.min(), x.max()] == pytest.approx([33.5, 198.5], abs=0.6)
    assert [y.min(), y.max()] == pytest.approx([33.1, 198.9], abs=0.05)
    rows_x, rows_y = x[:10_300].reshape(100, 103), y[:10_300].reshape(100, 103)
    assert abs(np.diff(rows_x[:, 10:], axis=1)) == pytest.approx(1.653, abs=0.005)
    assert np.diff(rows_y[:, 50]) == pytest.approx(-1.658, abs=0.001)


def test_rows_alternate_in_direction_and_y_never_rises():
    y, x = snake_scan().T
    direction = np.sign(x[:10_300].reshape(100, 103)[:, 90] - x[:10_300].reshape(100, 103)[:, 10])
    assert np.array_equal(direction, np.tile([1, -1], 50))
    assert np.diff(y).max() < 1e-12


def test_the_stage_never_jumps_and_stands_about_three_samples_at_a_turn():
    y, x = snake_scan().T
    assert np.hypot(np.diff(x), np.diff(y)).max() < 2.0
    turn = slice(103 * 5 - 2, 103 * 5 + 10)
    assert 3 <= np.sum(abs(np.diff(x[turn])) < 0.1) <= 4


def test_patches_lie_within_the_canvas_at_both_published_sizes():
    for scale, N, canvas in ((1, 64, 232), (2, 128, 464)):
        for coordinate in snake_scan(scale).T:
            assert (
                np.rint(coordinate - N / 2).min() >= 0
                and np.rint(coordinate + N / 2).max() <= canvas
            )


def test_scale_multiplies_and_must_be_positive():
    np.testing.assert_array_equal(2 * snake_scan(), snake_scan(2))
    with pytest.raises(ConfigError, match="scale = 0"):
        snake_scan(0)


def test_snake_follows_the_measured_positions_to_a_tenth_of_a_step(real_scan_path: Path):
    with np.load(real_scan_path) as file:
        index, x, y = file["scan_index"], file["xcoords"], file["ycoords"]
    distance = np.linalg.norm(snake_scan()[index] - np.stack([y, x], axis=1), axis=1)
    assert np.sqrt(np.mean(distance**2)) < 0.16 and distance.max() < 0.4


def test_a_step_keeps_whole_rows_and_their_first_samples_in_scan_order():
    whole, few = snake_scan(), snake_scan(step=10)
    np.testing.assert_array_equal(few[:11], whole[:103:10])
    assert len(few) == 10 * 11 + 1 and np.isin(few[:, 0], whole[:, 0]).all()
