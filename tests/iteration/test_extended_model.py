"""Likelihood, gradients and steps on a detector smaller than the far field, with pixels that were
not measured, exposures of different brightness and a background: against sums in numpy."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch

from ptycho_torch.iteration.canvas import canvas_steps, joint_steps
from ptycho_torch.iteration.exposures import (
    Unknown,
    affine_step,
    background_step,
    balanced,
    brightness_step,
    moved,
    position_slopes,
    position_step,
    positions_of,
    shrunk,
)
from ptycho_torch.iteration.slopes import gradient, joint_gradient
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns

SIDES = [(8, 8), (12, 8), (16, 8), (15, 7)]


def setting(M: int, N: int, photons: float = 300.0, modes: int = 2, side: int = 5):
    """Geometry of side^2 exposures with everything at once, a canvas, and their expected counts
    from plain sums."""
    rng = np.random.default_rng(M + N)
    y, x = np.indices((side, side)).reshape(2, -1) * 1.7 + M / 2 + rng.uniform(0, 1, (2, side**2))
    place = np.hypot(*(np.indices((M, M)) - M // 2)) / (M / 5)
    bump = np.exp(-(place**2) * np.array([1.0, 1.7])[:modes, None, None])
    probe = bump * (1 + 0.3 * oracle.complex_field(rng, modes, M, M))
    probe *= (photons / (np.abs(probe) ** 2).sum()) ** 0.5
    mask, background = rng.random((N, N)) > 0.2, rng.uniform(0.1, 0.5, (N, N))
    bright = rng.uniform(0.5, 1.5, side**2)
    shape = (M + int(1.7 * side) + 2,) * 2
    canvas = np.exp(0.2 * oracle.complex_field(rng, *shape))
    detector = Detector(N, torch.from_numpy(mask), torch.from_numpy(background))
    places = torch.from_numpy(np.stack([y, x], 1))
    how = {"whole": True, "detector": detector, "brightness": torch.from_numpy(bright)}
    geometry = Geometry.of(places, torch.from_numpy(probe), shape, **how)
    geometry = replace(geometry, residual_px=geometry.residual_px.double())
    kept = slice(M // 2 - N // 2, M // 2 - N // 2 + N)
    far = oracle.expected_counts(canvas, probe, y, x)[:, kept, kept]
    expected = (bright[:, None, None] * far + background) * mask
    return geometry, torch.from_numpy(canvas)[None], torch.from_numpy(expected)


def patterns_of(geometry: Geometry, counts: torch.Tensor) -> Patterns:
    return Patterns(geometry, counts.__getitem__)


def half_deviance(canvas: torch.Tensor, patterns: Patterns) -> float:
    return float(gradient(canvas, patterns)[1]) / 2


@pytest.mark.parametrize(("M", "N"), SIDES)
def test_expected_counts_are_the_sums_of_the_equation(M, N):
    geometry, canvas, expected = setting(M, N)
    came = geometry.expected(canvas, torch.arange(len(geometry)))
    torch.testing.assert_close(came, expected, rtol=1e-6, atol=1e-6)
    assert (came[:, ~geometry.detector.mask] == 0).all()


@pytest.mark.parametrize(("M", "N"), SIDES)
def test_the_gradients_are_the_slopes_of_the_likelihood(M, N):
    geometry, canvas, expected = setting(M, N)
    rng = np.random.default_rng(1)
    patterns = patterns_of(geometry, torch.from_numpy(rng.poisson(expected).astype(float)))
    start = canvas + 0.1 * torch.from_numpy(oracle.complex_field(rng, *canvas.shape))
    exact = gradient(start, patterns, dark=0.0)[0]
    slope, by_probe = joint_gradient(start, geometry.probe, patterns)

    def along_object(t: float) -> float:
        return half_deviance(start + t * exact / exact.norm(), patterns)

    def along_probe(t: float) -> float:
        return half_deviance(start, patterns.under(geometry.probe + t * by_probe / by_probe.norm()))

    # a small bias of the joint one on dark pixels is deliberate
    for found, along, precision in ((exact, along_object, 1e-5), (by_probe, along_probe, 1e-2)):
        numerical = (along(1e-5) - along(-1e-5)) / 2e-5
        assert 2 * float(found.norm()) == pytest.approx(numerical, rel=precision)
    assert float((slope - exact).norm()) < 0.02 * float(exact.norm())


@pytest.mark.parametrize(("M", "N"), SIDES)
def test_the_slope_by_position_is_the_numerical_one(M, N):
    geometry, canvas, expected = setting(M, N, photons=1e5)
    off = replace(geometry, residual_px=geometry.residual_px + 0.2)
    found = position_slopes(canvas, patterns_of(off, expected))
    for axis in range(2):
        step = torch.zeros(1, 2, dtype=torch.float64)
        step[0, axis] = 1e-4
        ends = [
            replace(off, residual_px=off.residual_px + sign * step).expected(
                canvas, torch.arange(len(off))
            )
            for sign in (1, -1)
        ]
        lit = expected > 0
        each = [
            (torch.where(lit, e - expected * torch.log(e.clamp_min(1e-9)), 0)).sum((1, 2))
            for e in ends
        ]
        numerical = (each[0] - each[1]) / 2e-4
        torch.testing.assert_close(
            found.slope[:, axis], numerical, rtol=1e-2, atol=1e-2 * float(numerical.abs().mean())
        )


@pytest.mark.parametrize(("M", "N"), [(8, 8), (16, 8)])
def test_position_steps_lead_back_to_the_true_positions(M, N):
    geometry, canvas, expected = setting(M, N, photons=1e6)
    rng, most = np.random.default_rng(2), 0.3
    error = torch.from_numpy(rng.uniform(-0.4, 0.4, (len(geometry), 2)))
    error -= error.mean(0)
    off = moved(geometry, error)
    assert not torch.equal(off.address, geometry.address)  # some patches lie a pixel farther
    torch.testing.assert_close(positions_of(off), positions_of(geometry) + error)
    first = position_step(position_slopes(canvas, patterns_of(off, expected)), most)
    assert float(first.norm(dim=1).max()) <= most + float(first.mean(0).norm()) + 0.05
    for _ in range(12):
        step = position_step(position_slopes(canvas, patterns_of(off, expected)), most)
        off = moved(off, step)
    left = positions_of(off) - positions_of(geometry)
    assert float(left.abs().max()) < 0.02


def test_displacements_are_shrunk_to_nothing_where_they_are_noise_and_kept_where_they_are_not():
    rng = np.random.default_rng(0)
    spread = torch.from_numpy(np.tile(np.diag([4.0, 25.0]), (2000, 1, 1)))  # variances 0.25, 0.04
    noise = torch.from_numpy(rng.standard_normal((2000, 2)) * [0.5, 0.2])
    assert float(shrunk(noise, spread).square().mean().sqrt()) < 0.1
    true = torch.from_numpy(rng.standard_normal((2000, 2)))
    error = (shrunk(true + noise, spread) - true).square().mean(0)
    # the posterior's variance, 1 / (1 + 4) and 1 / (1 + 25)
    torch.testing.assert_close(error, torch.tensor([0.2, 1 / 26]).double(), rtol=0.1, atol=0)


def test_a_scan_scaled_turned_and_sheared_as_a_whole_is_found_as_a_whole():
    geometry, canvas, expected = setting(16, 8, photons=1e6)
    true = positions_of(geometry)
    A = torch.tensor([[0.04, -0.03], [0.05, -0.02]], dtype=torch.float64)
    off = moved(geometry, (true - true.mean(0)) @ A.T)
    for _ in range(10):
        slopes = position_slopes(canvas, patterns_of(off, expected))
        off = moved(off, affine_step(slopes, positions_of(off), 0.5))
    assert float((positions_of(off) - true).abs().max()) < 0.01


def test_brightness_and_background_are_found_and_no_step_lowers_the_likelihood():
    geometry, canvas, expected = setting(16, 8, photons=1e5)
    known = geometry.detector
    start = replace(geometry, brightness=None, detector=known._replace(background=None))
    patterns = patterns_of(start, expected)
    deviances = []
    for _ in range(200):
        patterns = balanced(brightness_step(canvas, patterns), probe_known=False)
        patterns = background_step(canvas, patterns)
        deviances.append(half_deviance(canvas, patterns))
    assert (np.diff(deviances) < 1e-6 * deviances[0]).all() and deviances[-1] < 0.05 * deviances[0]
    found, scale = patterns.geometry, geometry.brightness.mean()
    torch.testing.assert_close(found.brightness, geometry.brightness / scale, rtol=0.01, atol=0.01)
    power = found.probe.abs().square().sum() / geometry.probe.abs().square().sum()
    assert float(power) == pytest.approx(float(scale), rel=0.01)
    assert (found.detector.background >= 0).all()


@pytest.mark.parametrize("joint", [False, True])
def test_steps_go_on_with_what_is_found_of_the_exposures(joint):
    geometry, canvas, expected = setting(12, 8, photons=1e5, modes=1)
    error = torch.from_numpy(np.random.default_rng(3).uniform(-0.3, 0.3, (len(geometry), 2)))
    off = patterns_of(moved(geometry, error - error.mean(0)), expected)
    unknown = Unknown(off, ("positions",), 0.2, not joint)
    before = half_deviance(canvas, off)
    if joint:
        came, last = joint_steps(off, canvas, 30, renew=unknown)
        torch.testing.assert_close(last.geometry.residual_px, unknown.patterns.geometry.residual_px)
    else:
        came = canvas_steps(off, canvas, 30, renew=unknown)
    kept = unknown.patterns.under(last.geometry.probe) if joint else unknown.patterns
    assert half_deviance(came, kept) < 0.1 * before
    without = joint_steps(off, canvas, 30) if joint else (canvas_steps(off, canvas, 30), off)
    assert half_deviance(came, kept) < 0.5 * half_deviance(*without)


def test_pixels_that_were_not_measured_cannot_move_an_object():
    geometry, canvas, expected = setting(12, 8)
    other = expected.clone()
    slopes = gradient(canvas, patterns_of(geometry, expected))
    masked = ~geometry.detector.mask
    assert (other[:, masked] == 0).all()
    everywhere = replace(geometry, detector=geometry.detector._replace(mask=None))
    wrong = gradient(canvas, patterns_of(everywhere, other))
    assert float(slopes[1]) < 1e-3 < float(wrong[1])  # zeros would have been taken for counts


def test_a_scan_with_a_share_of_its_photons_is_that_share_of_its_expectation():
    geometry, canvas, expected = setting(12, 8)
    came = geometry.fainter(0.25).expected(canvas, torch.arange(len(geometry)))
    torch.testing.assert_close(came, 0.25 * expected, rtol=1e-6, atol=1e-6)
