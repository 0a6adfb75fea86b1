"""Patches with free phases to one object: synchronised, weighted by light, empty where nothing was
seen."""

import numpy as np
import oracle
import pytest
import torch

from fly64lib.simulation.specimens import SPECIMENS
from ptycho_torch.network.stitching import stitch
from ptycho_torch.physics.patches import cut, in_field

SIDE = 16


def scene(rows: int, columns: int, step: int, noise: float = 0.0, seed: int = 0):
    """Truth, its patches in random phases (and with complex noise), corners in random order,
    weights of a soft disc."""
    rng = np.random.default_rng(seed)
    corners = np.array([(step * i, step * j) for i in range(rows) for j in range(columns)])
    corners = corners[rng.permutation(len(corners))]
    shape = tuple((corners.max(0) + SIDE).tolist())
    truth = SPECIMENS["siemens_star"](shape, seed)
    patches = np.stack([truth[r : r + SIDE, c : c + SIDE] for r, c in corners])
    patches = patches + noise * oracle.complex_field(rng, *patches.shape) / 2**0.5
    patches = patches * np.exp(2j * np.pi * rng.random(len(corners)))[:, None, None]
    axis = np.arange(SIDE) - (SIDE - 1) / 2
    weights = np.broadcast_to(
        np.exp(-(axis[:, None] ** 2 + axis**2) / (SIDE / 3) ** 2), patches.shape
    )
    return (
        truth,
        torch.from_numpy(patches).to(torch.complex64),
        torch.from_numpy(corners),
        torch.from_numpy(weights.copy()).float(),
        shape,
    )


def error(came: torch.Tensor, truth: np.ndarray) -> float:
    return float(np.abs(oracle.without_phase(came.numpy(), truth) - truth).max())


@pytest.mark.parametrize("chain", [(10, 10, 8), (1, 100, 10), (40, 2, 12), (3, 3, 4)])
def test_random_phases_of_a_chain_of_perfect_patches_are_synchronised(chain):
    for seed in range(3):
        truth, patches, corners, weights, shape = scene(*chain, seed=seed)
        merged, _ = stitch(patches, corners, weights, shape)
        assert error(merged, truth) < 1e-2
        assert error(stitch(patches, corners, weights, shape, synchronise=False)[0], truth) > 0.3


def test_noisy_patches_are_averaged_and_not_only_the_phase_of_the_first_is_kept():
    truth, patches, corners, weights, shape = scene(10, 10, 5, noise=0.5)
    merged, total = stitch(patches, corners, weights, shape)
    seen = (total > 0.5 * total.max()).numpy()
    residual = (oracle.without_phase(merged.numpy(), truth) - truth)[seen]
    # Independent noise of variance 0.25 under weights w: sum w^2 / (sum w)^2 of it is left.
    left = np.sqrt(
        0.25 * (stitch(patches, corners, weights**2, shape)[1] / total**2).numpy()[seen].mean()
    )
    assert np.sqrt(np.mean(np.abs(residual) ** 2)) == pytest.approx(left, rel=0.15)


def test_the_mean_is_weighted_by_how_well_each_patch_saw_a_pixel():
    patches = torch.stack([torch.full((4, 4), 1.0 + 0j), torch.full((4, 4), 3.0 + 0j)]).to(
        torch.complex64
    )
    weights = torch.stack([torch.full((4, 4), 3.0), torch.full((4, 4), 1.0)])
    merged, total = stitch(patches, torch.tensor([[0, 0], [0, 2]]), weights, (4, 6))
    np.testing.assert_allclose(merged[0].abs(), [1, 1, 1.5, 1.5, 3, 3], rtol=1e-6)
    np.testing.assert_allclose(total[0], [3, 3, 4, 4, 1, 1])


def test_patches_land_at_their_row_and_column():
    patch = torch.zeros(1, 3, 3, dtype=torch.complex64)
    patch[0, 0, 2] = 5
    merged, _ = stitch(patch, torch.tensor([[4, 1]]), torch.ones(1, 3, 3), (9, 6))
    assert torch.nonzero(merged.abs() > 4).tolist() == [[4, 3]]


def test_unseen_pixels_are_empty_and_have_no_weight():
    truth, patches, corners, weights, shape = scene(2, 2, 8)
    merged, total = stitch(patches, corners + 3, weights, (shape[0] + 9, shape[1] + 9))
    assert (merged[:3] == 1).all() and (merged[:, -6:] == 1).all() and (total[:3] == 0).all()
    assert torch.isfinite(merged.abs()).all()


def test_islands_that_share_no_pixel_are_each_whole():
    truth, patches, corners, weights, shape = scene(3, 3, 8)
    twice = torch.cat([corners, corners + torch.tensor([0, shape[1] + 5])])
    merged, _ = stitch(
        patches.repeat(2, 1, 1), twice, weights.repeat(2, 1, 1), (shape[0], 2 * shape[1] + 5)
    )
    assert (
        error(merged[:, : shape[1]], truth) < 1e-2
        and error(merged[:, shape[1] + 5 :], truth) < 1e-2
    )


def test_a_single_patch_and_patches_without_light_come_through():
    truth, patches, corners, weights, shape = scene(1, 1, 8)
    np.testing.assert_allclose(stitch(patches, corners, weights, shape)[0], patches[0], atol=1e-6)
    truth, patches, corners, weights, shape = scene(3, 3, 4)
    patches[0], weights[0] = 77, 0
    merged, total = stitch(patches, corners, weights, shape)
    assert error(merged[total > 0.1], truth[(total > 0.1).numpy()]) < 1e-2


def test_stitching_is_left_inverse_to_cutting():
    truth, _, corners, weights, shape = scene(4, 5, 6)
    canvas = torch.from_numpy(truth).to(torch.complex64)
    merged, _ = stitch(
        cut(canvas[None], in_field(corners), SIDE), corners, weights, shape, synchronise=False
    )
    np.testing.assert_allclose(merged, canvas, atol=1e-5)
