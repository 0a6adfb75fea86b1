"""Exposures of a sample that moves, against the mean of an oracle's patterns on the way.

The probe moves on one patch and closes on itself there; where it fades to the patch's edge, as
beams do, this is the sample's motion: tests/methods/test_classical.py."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from small_scan import random_patterns

from ptycho_torch.errors import ConfigError
from ptycho_torch.iteration.exposures import position_slopes
from ptycho_torch.iteration.slopes import joint_gradient
from ptycho_torch.physics.geometry import Geometry, moments, ways


def test_expected_counts_are_the_mean_of_those_on_the_way():
    random = np.random.default_rng(0)
    image = random.normal(size=(23, 27)) + 1j * random.normal(size=(23, 27))
    probe = random.normal(size=(2, 9, 9)) + 1j * random.normal(size=(2, 9, 9))
    places = random.uniform([6, 6], [16, 20], (5, 2))
    way = ways(places, 2.5)
    np.testing.assert_allclose(np.hypot(*way.T), 2.5)
    made = Geometry.of(torch.from_numpy(places), torch.from_numpy(probe), image.shape, whole=True)
    geometry = replace(made, way_px=torch.from_numpy(way))
    found = geometry.expected(torch.from_numpy(image)[None], torch.arange(5)).numpy()
    expected = [_seen(image, probe, *one) for one in zip(places, way, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    some = torch.tensor([3, 1])
    again = geometry.at(some).expected(torch.from_numpy(image)[None], torch.arange(2)).numpy()
    np.testing.assert_allclose(again, [expected[3], expected[1]], rtol=1e-6)


def _seen(image: np.ndarray, probe: np.ndarray, place: np.ndarray, way: np.ndarray) -> np.ndarray:
    (patch,) = oracle.patches(image, *place[:, None], 9)
    rest = oracle.corner_and_rest(*place, 9)[2:]
    beams = (oracle.moved(mode, *(rest + share * way)) for mode in probe for share in moments(2.5))
    waves = [oracle.far_field(beam * patch) for beam in beams]
    return (np.abs(waves) ** 2).sum(0) / len(moments(2.5))


def test_a_probe_or_positions_are_not_sought_under_a_way():
    still, canvas = random_patterns(N=7)
    moving = replace(still.geometry, way_px=torch.ones(len(still), 2))
    patterns = replace(still, geometry=moving)
    with pytest.raises(ConfigError, match="sample moves"):
        joint_gradient(canvas, moving.probe, patterns)
    with pytest.raises(ConfigError, match="sample moves"):
        position_slopes(canvas, patterns)


def test_a_stage_that_stands_has_no_way():
    places = np.array([[0.0, 0], [0, 0], [0, 0], [3, 4], [6, 8]])
    np.testing.assert_allclose(ways(places, 2.0), [[0, 0]] * 2 + [[1.2, 1.6]] * 3)
