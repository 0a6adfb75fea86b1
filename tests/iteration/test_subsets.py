"""How many subsets a pass takes, and where passes on subsets lead."""

import pytest
import torch
from small_scan import noiseless, small_raw

from ptycho_torch.iteration.canvas import canvas_steps, empty
from ptycho_torch.iteration.subsets import balanced_subsets, schedule, settling, steps_of_pass
from ptycho_torch.physics.geometry import Geometry

APART = torch.tensor([0, 9, 80, 89])  # the corners of the scan


@pytest.fixture(scope="module")
def geometry() -> Geometry:
    return noiseless(1e4)[0].geometry


def test_overlap_supports_subsets_and_separate_patterns_support_none(geometry):
    assert balanced_subsets(geometry) >= 4
    assert balanced_subsets(geometry.at(APART)) == 1


def test_the_number_of_subsets_falls_to_one_at_the_end(geometry):
    count = balanced_subsets(geometry)
    for plan in (schedule(geometry, 5), schedule(geometry, 40), settling(geometry, 3)):
        assert plan[0] == count and plan[-1] == 1 and plan == sorted(plan, reverse=True)
    assert len(schedule(geometry, 40)) == 40
    # As many passes on each number of subsets; those beyond four are taken on all patterns.
    for rounds in (1, 4, 6):
        plan, levels = settling(geometry, rounds), count.bit_length()
        assert len(plan) == rounds * levels
        assert [plan.count(count >> level) for level in range(levels - 1)] == [min(rounds, 4)] * (
            levels - 1
        )
    for few in (schedule(geometry, 1), schedule(geometry.at(APART), 1)):
        assert len(few) == 1
    assert set(schedule(geometry.at(APART), 7) + settling(geometry.at(APART), 2)) == {1}


@pytest.mark.parametrize("count", [1, 4])
def test_the_steps_of_a_pass_take_every_pattern_once_and_no_step_is_too_long(geometry, count):
    steps = steps_of_pass(geometry, count, penalty=5.0)
    assert sum(step.share for step in steps) == pytest.approx(1) and len(steps) == count
    if count > 1:
        taken = torch.cat([step.indices for step in steps])
        assert sorted(taken.tolist()) == list(range(len(geometry)))
    for step in steps:
        part = geometry if step.indices is None else geometry.at(step.indices)
        curvature = 2 * torch.maximum(part.fluence() / step.share, geometry.fluence()) + 5
        # The floor is a thousandth of the brightest pixel.
        least = curvature + 1e-3 * geometry.fluence().max()
        torch.testing.assert_close(1 / step.length, least, rtol=1e-3, atol=0)


def test_passes_on_subsets_come_nearer_to_the_truth_than_as_many_on_all_patterns():
    patterns, truth = noiseless(1e5)
    light = patterns.geometry.fluence()

    def error(passes) -> float:
        found = canvas_steps(patterns, empty(patterns.geometry), passes)
        found = found * torch.exp(-1j * torch.angle((light * found * truth.conj()).sum()))
        return float((light * (found - truth).abs().square()).sum().sqrt())

    assert error(schedule(patterns.geometry, 5)) < 0.5 * error(5)


def test_settling_ends_where_many_steps_on_all_patterns_end():
    patterns = small_raw(1e4).patterns()
    start, light = empty(patterns.geometry), patterns.geometry.fluence()
    plans = settling(patterns.geometry, 60), 300
    found, end = (canvas_steps(patterns, start, plan, smoothness=10.0) for plan in plans)

    def apart(image: torch.Tensor) -> float:
        return float(((image - end).abs().square() * light).sum())

    assert apart(found) < 0.01 * apart(start)
