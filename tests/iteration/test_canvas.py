"""Canvas steps against the oracle's diffraction: convergence to the truth, the pull of the prior,
and what must not matter."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from small_scan import noiseless, small_raw

from ptycho_torch.iteration.canvas import canvas_steps, empty, joint_steps
from ptycho_torch.iteration.slopes import gradient
from ptycho_torch.physics import geometry as geometry_module
from ptycho_torch.physics.geometry import Patterns
from ptycho_torch.physics.noise import poisson_deviance


def error(canvas: torch.Tensor, truth: torch.Tensor, patterns: Patterns) -> float:
    """Relative error, weighted by the photons that each pixel saw, global phase removed."""
    weight = patterns.geometry.fluence()[0].double().numpy() ** 0.5
    a, b = canvas[0].numpy() * weight, truth[0].numpy() * weight
    return float(np.linalg.norm(oracle.without_phase(a, b) - b) / np.linalg.norm(b))


def lit(patterns: Patterns) -> torch.Tensor:
    fluence = patterns.geometry.fluence()
    return fluence > 0.2 * fluence.max()


@pytest.mark.parametrize("modes", [1, 2])
def test_steps_converge_to_the_true_object_without_noise(modes):
    patterns, truth = noiseless(1e5, modes=modes)
    start = empty(patterns.geometry)
    found = canvas_steps(patterns, start, 120)
    assert error(found, truth, patterns) < 0.01 < 0.3 < error(start, truth, patterns)
    assert gradient(found, patterns)[1] < 1e-4 * gradient(start, patterns)[1]


def test_steps_stay_at_the_truth():
    patterns, truth = noiseless(1e5)
    assert error(canvas_steps(patterns, truth, 5), truth, patterns) < 1e-4


def test_the_deviance_falls_with_every_early_step_on_noisy_data():
    raw = small_raw(1e4)
    patterns, seen = raw.patterns(), []

    def score(_: int, canvas: torch.Tensor) -> None:
        seen.append(float(gradient(canvas, patterns)[1]))

    start = empty(patterns.geometry)
    score(0, start)
    canvas_steps(patterns, start, 8, observe=score)
    assert len(seen) == 9 and all(np.diff(seen) < 0)
    # The first is the empty object's own.
    probe, flat = raw.probe.numpy().astype(complex), np.ones(raw.object_guess.shape)
    expected = torch.from_numpy(oracle.expected_counts(flat, probe, *raw.positions.numpy().T))
    own = poisson_deviance(expected, raw.counts(slice(None)).double()).sum()
    assert seen[0] == pytest.approx(float(own), rel=1e-5)


def test_tikhonov_pulls_to_its_prior_and_the_more_so_the_fewer_photons_there_are():
    prior = 0.6 - 0.3j

    def distance(dose: float, tikhonov: float) -> float:
        patterns, truth = noiseless(dose)
        towards = torch.full_like(truth, prior)
        found = canvas_steps(patterns, torch.ones_like(truth), 60, tikhonov, towards)
        return float((found[lit(patterns)] - prior).abs().mean())

    assert distance(1e3, 1e7) < 1e-3 < 0.3 < distance(1e3, 0.0)
    assert distance(1e2, 30.0) < 0.5 * distance(1e5, 30.0)


def test_where_no_photon_falls_the_start_stays_and_tikhonov_alone_acts():
    patterns, _ = noiseless(1e4)
    _, height, width = patterns.geometry.shape
    larger = replace(patterns.geometry, shape=(1, height + 20, width))
    patterns = replace(patterns, geometry=larger)
    start = torch.full(larger.shape, 0.5 + 0.5j, dtype=torch.complex64)
    dark = larger.fluence() == 0
    assert dark[:, -20:].all()
    assert torch.equal(canvas_steps(patterns, start, 10)[dark], start[dark])
    assert ((canvas_steps(patterns, start, 200, 1e3)[dark] - 1).abs() < 0.1).all()


def test_smoothness_keeps_the_slopes_of_its_prior_and_leaves_its_level_to_the_data():
    patterns, truth = noiseless(1e3)
    prior = truth * 0.9  # all slopes a tenth too flat, the level a tenth too low
    seen = lit(patterns)

    def found(smoothness: float) -> torch.Tensor:
        image = canvas_steps(patterns, prior, 80, prior=prior, smoothness=smoothness)
        return image * torch.exp(-1j * torch.angle((image * truth.conj())[seen].sum()))

    def slopes_changed(image: torch.Tensor) -> float:
        change = torch.diff(image - prior)
        return float(change[seen[..., 1:] & seen[..., :-1]].abs().square().sum())

    free, held = found(0.0), found(300.0)
    assert slopes_changed(held) < 0.25 * slopes_changed(free)
    level = float(truth[seen].abs().mean())
    assert float(held[seen].abs().mean()) == pytest.approx(level, rel=0.03)


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_number_of_patterns_held_at_once_does_not_change_the_result(chunk, monkeypatch):
    patterns, truth = noiseless(1e4, modes=2)
    expected = canvas_steps(patterns, torch.ones_like(truth), 5)
    for memory in (0, 10**6):  # with shifted probes made again for every chunk, and kept
        monkeypatch.setattr(geometry_module, "CHUNK", chunk)
        monkeypatch.setattr(geometry_module, "_CACHED_PATTERNS", memory)
        fresh, _ = noiseless(1e4, modes=2)
        found = canvas_steps(fresh, torch.ones_like(truth), 5)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_a_canvas_comes_out_the_same_alone_and_in_a_stack_with_others():
    raw = small_raw(1e4)
    groups = torch.tensor([[0, 1, 10, 11], [33, 34, 43, 44], [60, 61, 71, 70]])

    def run(chosen: list[int]) -> torch.Tensor:
        images = groups[chosen].reshape(-1)
        part = raw.geometry(whole=True).at(images)
        part.address[:, 0] = torch.arange(len(chosen)).repeat_interleave(4)
        part = replace(part, shape=(len(chosen), *raw.object_guess.shape))
        patterns = Patterns(part, lambda i: raw.counts(images[i]))
        # Tikhonov makes the iteration overshoot, and restart its momentum, within a few steps.
        return canvas_steps(patterns, empty(part), 30, 4.0)

    together = run([0, 1, 2])
    for canvas in range(3):
        np.testing.assert_allclose(run([canvas])[0], together[canvas], rtol=0, atol=1e-5)


def test_an_observer_ends_the_iteration():
    patterns, truth = noiseless(1e4)
    start, steps = torch.ones_like(truth), []
    found = canvas_steps(patterns, start, 50, observe=lambda n, _: steps.append(n) or n == 3)
    assert steps == [0, 1, 2, 3]
    np.testing.assert_array_equal(found, canvas_steps(patterns, start, 4))


def test_joint_steps_find_object_and_probe_and_keep_the_probes_photons():
    patterns, truth = noiseless(1e5, modes=2)
    probe = patterns.geometry.probe
    photons, seen = probe.abs().square().sum(), []
    wrong = probe * torch.exp(0.5j * torch.linspace(-1, 1, probe.shape[-1]) ** 2)
    start = canvas_steps(patterns.under(wrong), torch.ones_like(truth), 20)

    def score(step: int, canvas: torch.Tensor, under: Patterns) -> None:
        seen.append(float(gradient(canvas, under)[1]))
        torch.testing.assert_close(under.geometry.probe.abs().square().sum(), photons)

    canvas, found = joint_steps(patterns.under(wrong), start, 60, observe=score)
    assert len(seen) == 60 and seen[-1] < 0.02 * seen[0]
    assert float(gradient(canvas, found)[1]) == seen[-1]
    assert error(canvas, truth, patterns) < 0.3 * error(start, truth, patterns)
