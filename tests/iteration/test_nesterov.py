"""The accelerated iteration against the same written out for one number."""

import numpy as np
import pytest
import torch

from ptycho_torch.iteration.nesterov import Nesterov

CURVATURES = (1.0, 0.1, 0.003)  # the first is there in one step, the second overshoots and restarts
STEPS = 120


def written_out(curvatures: np.ndarray, start: np.ndarray) -> list[np.ndarray]:
    """Nesterov's iteration on sum c x^2 / 2, one momentum for all, with steps of 1."""
    reached = at = start
    t, path = 1.0, []
    for _ in range(STEPS):
        slope = curvatures * at
        following = at - slope
        if (slope * (following - reached)).sum() > 0:
            t = 1.0
        after = (1 + np.sqrt(1 + 4 * t**2)) / 2
        at = following + (t - 1) / after * (following - reached)
        reached, t = following, after
        path.append(reached)
    return path


def run(start: tuple[torch.Tensor, ...], curvatures: tuple, momentum: torch.Tensor) -> list:
    iteration, path = Nesterov(start, momentum), []
    for _ in range(STEPS):
        slopes = [c * at for c, at in zip(curvatures, iteration.at, strict=True)]
        moved = [at - slope for at, slope in zip(iteration.at, slopes, strict=True)]
        iteration.move(slopes, tuple(moved))
        path.append([part.numpy().ravel() for part in iteration.reached])
    return path


def test_each_canvas_has_a_momentum_of_its_own():
    curvatures = torch.tensor(CURVATURES, dtype=torch.float64).view(3, 1, 1)
    start = torch.full((3, 1, 1), 1 - 2j, dtype=torch.complex128)
    found = run((start,), (curvatures,), torch.ones(3, 1, 1, dtype=torch.float64))
    alone = [written_out(np.array([c, c]), np.array([1.0, -2.0])) for c in CURVATURES]
    for step, (together,) in enumerate(found):
        expected = [path[step] @ [1, 1j] for path in alone]
        np.testing.assert_allclose(together, expected, rtol=1e-12, atol=1e-15)


def test_tensors_that_move_together_share_one_momentum():
    first, second = CURVATURES[1:]
    start = torch.tensor([[[1.0]]], dtype=torch.float64), torch.tensor([2.0, -1.0]).double()
    found = run(start, (first, second), torch.ones((), dtype=torch.float64))
    expected = written_out(np.array([first, second, second]), np.array([1.0, 2.0, -1.0]))
    np.testing.assert_allclose([np.concatenate(point) for point in found], expected, rtol=1e-12)


@pytest.mark.parametrize("curvature", CURVATURES[1:])
def test_it_comes_nearer_than_as_many_plain_steps(curvature):
    start = torch.ones(1, 1, 1, dtype=torch.float64)
    found = run((start,), (curvature,), torch.ones(1, 1, 1, dtype=torch.float64))
    assert abs(found[-1][0].item()) < 0.1 * (1 - curvature) ** STEPS
