"""Procedural objects to train on: by seed, of contrast, each family unlike the others, and none a
specimen."""

from itertools import combinations

import numpy as np
import pytest

from fly64lib.design.registries import SPECIMENS
from fly64lib.simulation.families import FAMILIES, drawn
from fly64lib.simulation.specimens import siemens_star

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


def test_without_a_name_all_families_are_drawn(monkeypatch):
    drew = []

    def noted(name: str):
        return lambda shape, rng: drew.append(name) or np.zeros(shape, complex)

    for name in FAMILIES:
        monkeypatch.setitem(FAMILIES, name, noted(name))
    for seed in range(60):
        drawn((8, 8), seed)
    assert set(drew) == set(FAMILIES) and len(drew) == 60


def edges(image: np.ndarray) -> float:
    """Kurtosis of the phase's slopes: 2 of a Gaussian field, large where slopes are rare."""
    phase = np.angle(image)
    squared = np.diff(phase, axis=0)[:, 1:] ** 2 + np.diff(phase, axis=1)[1:] ** 2
    return float((squared**2).mean() / squared.mean() ** 2)


def details(image: np.ndarray) -> float:
    """Share of the phase's power beyond a third of the Nyquist frequency."""
    phase = np.angle(image) - np.angle(image).mean()
    rows, columns = map(np.hanning, phase.shape)
    power = np.abs(np.fft.fft2(phase * rows[:, None] * columns)) ** 2
    down, right = map(np.fft.fftfreq, phase.shape)
    return float(power[np.hypot(down[:, None], right) > 1 / 6].sum() / power.sum())


def test_families_are_unlike_each_other():
    """In how sharp their edges are and how fine their details; and a seed is another object."""
    batch = {name: [drawn(SHAPE, seed, name) for seed in range(6)] for name in FAMILIES}
    sharp = {name: np.median(list(map(edges, images))) for name, images in batch.items()}
    fine = {name: np.median(list(map(details, images))) for name, images in batch.items()}
    assert sharp["fields"] < 3 < 6 < sharp["particles"]
    assert fine["glyphs"] > 10 * fine["cells"]
    for one, two in combinations(FAMILIES, 2):
        alike = [likeness(a, b) for a, b in zip(batch[one], batch[two], strict=True)]
        assert np.median(alike) < 0.5, (one, two)


def likeness(one: np.ndarray, two: np.ndarray) -> float:
    """Correlation of the phases, either sign."""
    return abs(np.corrcoef(np.angle(one).ravel(), np.angle(two).ravel())[0, 1])


def test_no_object_is_a_specimen():
    shape = (116, 116)
    specimens = [draw(shape, seed) for draw in SPECIMENS.values() for seed in (0, 1)]
    for family in FAMILIES:
        for seed in range(3):
            image = drawn(shape, seed, family)
            assert max(likeness(image, specimen) for specimen in specimens) < 0.5, family


def test_no_object_is_a_star():
    """None shows what a star does: one 30-fold harmonic, in step, on every circle about its
    centre."""
    radii, angle = np.arange(25, 75, 2)[:, None], np.linspace(0, 2 * np.pi, 720, endpoint=False)
    rows = np.rint(113.7 + radii * np.sin(angle)).astype(int)
    columns = np.rint(104.5 + radii * np.cos(angle)).astype(int)

    def harmonic(image: np.ndarray) -> float:
        return abs((np.angle(image)[rows, columns] * np.exp(-30j * angle)).mean())

    star = harmonic(siemens_star((232, 232), 0))
    assert star > 0.15
    for family in FAMILIES:
        seeds = range(12 if family == "spokes" else 2)
        assert max(harmonic(drawn((232, 232), seed, family)) for seed in seeds) < 0.1 * star
