"""Steps of positions are told without what they share."""

import numpy as np
import pytest

from fly64lib.evaluation.moves import moves
from fly64lib.plots.positions import moved


def test_a_common_shift_is_none_and_the_rest_is_told_in_px_of_the_object():
    stated = np.random.default_rng(0).uniform(0, 90, (11, 2))
    assert moves(stated, stated) is None and moves(stated, stated + [3, -2]) is None
    steps = np.zeros((11, 2))
    steps[7] = 1.1, 0.0
    found = moves(stated, stated + steps + [3, -2])
    np.testing.assert_allclose(found.steps_px[[7, 0]], [[1, 0], [-0.1, 0]], atol=1e-9)
    assert (found.farthest, found.most_px) == (7, pytest.approx(1))
    assert found.rms_px == pytest.approx(np.sqrt((1 + 10 * 0.01) / 11))
    assert str(found) == (
        "positions moved by 0.32 px of the object (rms), by 1 px at most (exposure 7)"
    )


def test_the_picture_has_an_arrow_from_each_stated_position_the_way_it_went():
    stated = np.random.default_rng(0).uniform(0, 90, (11, 2))
    steps = np.random.default_rng(1).normal(size=(11, 2))
    plan, order, _ = moved(moves(stated, stated + steps)).axes
    (arrows,) = plan.collections
    np.testing.assert_allclose(arrows.get_offsets(), stated[:, ::-1])
    np.testing.assert_allclose(np.stack([arrows.V, arrows.U], 1), steps - steps.mean(0), atol=1e-12)
    assert plan.yaxis_inverted()
    rows, columns = (line.get_ydata() for line in order.lines)
    np.testing.assert_allclose(np.stack([rows, columns], 1), steps - steps.mean(0))
