"""Gradients against the oracle: the adjoint of the linearised diffraction, and the slope of the
likelihood."""

import numpy as np
import oracle
import pytest
import torch
from small_scan import noiseless, random_patterns

from ptycho_torch.iteration.slopes import DARK, gradient, joint_gradient, roughness_gradient
from ptycho_torch.physics.geometry import Patterns


@pytest.mark.parametrize("N", [6, 7])  # even patches ride on a checkerboard of the 9 x 12 canvas
def test_the_gradients_way_back_is_the_adjoint_of_the_linearised_diffraction(N):
    """For any change dO: <v, dI> = 2 Re <slope, dO>, where counts are such that 1 - n / I is v.

    So for the probe. Two modes, two canvases, everything complex, the forward side in numpy.
    """
    patterns, canvas = random_patterns(N, modes=2, canvases=2)
    geometry, rng = patterns.geometry, np.random.default_rng(4)
    probe, rests = geometry.probe.numpy(), geometry.residual_px.numpy()

    def waves(canvas: np.ndarray, probe: np.ndarray) -> np.ndarray:
        cut = [canvas[c, row : row + N, column : column + N] for c, row, column in geometry.address]
        beams = [oracle.moved(probe, *rest) for rest in rests]
        return oracle.far_field(np.stack(beams) * np.stack(cut)[:, None])

    there = waves(canvas.numpy(), probe)
    expected = (np.abs(there) ** 2).sum(1)
    weight = rng.uniform(-1, 1, expected.shape)

    def weighing(dark: float) -> Patterns:
        counts = torch.from_numpy((expected + dark) * (1 - weight) - dark)
        return Patterns(geometry, counts.__getitem__)

    change, probe_change = (
        oracle.complex_field(rng, *point.shape) for point in (canvas, geometry.probe)
    )

    def along(moved: np.ndarray) -> float:
        return 2 * (weight[:, None] * there.conj() * moved).sum().real

    def inner(slope: torch.Tensor, change: np.ndarray) -> float:
        return 2 * np.vdot(slope.numpy(), change).real

    by_object, by_probe = along(waves(change, probe)), along(waves(canvas.numpy(), probe_change))
    for dark in (0.0, DARK):
        found = gradient(canvas, weighing(dark), dark=dark)[0]
        assert inner(found, change) == pytest.approx(by_object, rel=1e-9)
    found, probe_found = joint_gradient(canvas, geometry.probe, weighing(DARK))
    assert inner(found, change) == pytest.approx(by_object, rel=1e-9)
    assert inner(probe_found, probe_change) == pytest.approx(by_probe, rel=1e-9)


@pytest.mark.parametrize("modes", [1, 2])
def test_the_gradient_is_the_slope_of_the_log_likelihood(modes):
    patterns, truth = noiseless(300.0, torch.complex128, modes=modes)
    rng = np.random.default_rng(0)
    start = truth + 0.1 * torch.from_numpy(oracle.complex_field(rng, *truth.shape))
    direction = torch.from_numpy(oracle.complex_field(rng, *truth.shape))

    def half_deviance(t: float) -> float:
        return float(gradient(start + t * direction, patterns)[1]) / 2

    # A small bias on dark pixels is deliberate elsewhere.
    slope = gradient(start, patterns, dark=0.0)[0]
    numerical = (half_deviance(1e-4) - half_deviance(-1e-4)) / 2e-4
    # d f = 2 Re <df/d conj(O), dO>
    assert 2 * float((slope.conj() * direction).sum().real) == pytest.approx(numerical, rel=1e-5)


@pytest.mark.parametrize("modes", [1, 2])
def test_the_engine_expects_what_the_oracle_expects_of_every_position(modes):
    patterns, truth = noiseless(1e5, modes=modes)
    _, deviance = gradient(truth, patterns)
    # Not 0: positions keep their sub-pixel part in single precision. A wrong sign of the shift
    # gives about 1e6.
    assert float(deviance) < 1.0 and gradient(torch.ones_like(truth), patterns)[1] > 1e5


def test_the_gradients_of_the_subsets_add_up_to_the_whole():
    patterns, truth = noiseless(1e4)
    start, places = torch.ones_like(truth), patterns.geometry.places() % 4
    whole, deviance = gradient(start, patterns)
    subsets = [torch.nonzero(places == place)[:, 0] for place in range(4)]
    parts = [gradient(start, patterns, subset) for subset in subsets]
    torch.testing.assert_close(sum(part[0] for part in parts), whole, rtol=1e-3, atol=1e-2)
    assert float(sum(part[1] for part in parts)) == pytest.approx(float(deviance), rel=1e-5)


def test_the_roughness_gradient_is_the_slope_of_the_summed_squared_differences_of_neighbours():
    rng = np.random.default_rng(3)
    at, towards = oracle.complex_field(rng, 5, 8), oracle.complex_field(rng, 5, 8)

    def roughness(image: np.ndarray) -> float:
        return sum((np.abs(np.diff(image, axis=axis)) ** 2).sum() for axis in (0, 1))

    slope = roughness_gradient(torch.from_numpy(at)[None])[0].numpy()
    assert 2 * np.vdot(slope, towards).real == pytest.approx(
        (roughness(at + 1e-5 * towards) - roughness(at - 1e-5 * towards)) / 2e-5, rel=1e-7
    )
