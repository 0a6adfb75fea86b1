"""Procedural objects to train on: by seed, of contrast, and each family unlike the others."""

import numpy as np
import pytest

from fly64lib.simulation.families import FAMILIES, drawn

SHAPE = (120, 150)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_gives_the_same_object_for_a_seed_and_others_for_others(family):
    first, again, other = (drawn(SHAPE, seed, family) for seed in (1, 1, 2))
    assert first.shape == SHAPE and np.array_equal(first, again)
    assert np.abs(first - other).std() > 0.01


@pytest.mark.parametrize("family", FAMILIES)
def test_objects_are_finite_of_contrast_and_no_brighter_than_an_object_can_be(family):
    batch = np.stack([drawn(SHAPE, seed, family) for seed in range(8)])
    assert np.isfinite(batch).all() and np.abs(batch).max() <= np.exp(0.3) + 1e-9
    assert np.abs(batch).min() > 0.2
    contrast = np.abs(batch / batch.mean((1, 2), keepdims=True) - 1).std((1, 2))
    assert np.median(contrast) > 0.03 and contrast.max() > 1.5 * contrast.min()


def test_without_a_name_all_families_are_drawn():
    batch = [drawn((60, 60), seed) for seed in range(60)]
    names = {
        name
        for seed, image in enumerate(batch)
        for name in FAMILIES
        if np.array_equal(image, _named(seed, name))
    }
    assert names == set(FAMILIES)


def _named(seed: int, family: str) -> np.ndarray | None:
    """The object of a seed whose own choice was this family."""
    rng = np.random.default_rng(seed)
    if rng.choice(list(FAMILIES)) != family:
        return None
    return drawn((60, 60), seed)
