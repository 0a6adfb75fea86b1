"""Canvas steps against the oracle's diffraction: gradient, fluence, convergence to the truth, the
pull of the prior."""

import numpy as np
import oracle
import pytest
import small_scan
import torch

from ptycho_torch.iteration import canvas as canvas_module
from ptycho_torch.iteration.canvas import (
    Patterns,
    balanced_subsets,
    canvas_steps,
    gradient,
    schedule,
    settling,
)
from ptycho_torch.network.features import group_layout, view_layout
from ptycho_torch.physics.noise import poisson_deviance
from ptycho_torch.physics.patches import on_canvas, split_positions


def noiseless(
    dose: float, dtype: torch.dtype = torch.complex64, **kinds
) -> tuple[Patterns, torch.Tensor]:
    """Patterns with the oracle's expected counts on the whole object, and that object."""
    image, probe, y, x, expected = small_scan.geometry(**kinds)
    scale = dose / expected.sum((1, 2)).mean()
    counts = torch.from_numpy(expected * scale).to(dtype.to_real())
    corners, rest = split_positions(torch.from_numpy(np.stack([y, x], 1)), probe.shape[-1])
    patterns = Patterns(
        lambda i: counts[i],
        on_canvas(corners),
        rest.to(dtype.to_real()),
        torch.from_numpy(probe * scale**0.5).to(dtype),
        (1, *image.shape),
    )
    return patterns, torch.from_numpy(image).to(dtype)[None]


def error(canvas: torch.Tensor, truth: torch.Tensor, patterns: Patterns) -> float:
    """Relative error, weighted by the photons that each pixel saw, global phase removed."""
    weight = patterns.fluence()[0].double().numpy() ** 0.5
    a, b = canvas[0].numpy() * weight, truth[0].numpy() * weight
    return float(np.linalg.norm(oracle.without_phase(a, b) - b) / np.linalg.norm(b))


@pytest.mark.parametrize("modes", [1, 2])
def test_the_engine_expects_what_the_oracle_expects_of_every_position(modes):
    patterns, truth = noiseless(1e5, modes=modes)
    _, deviance = gradient(truth, patterns)
    # Not 0: positions keep their sub-pixel part in single precision. A wrong sign of the shift
    # gives about 1e6.
    assert float(deviance) < 1.0 and gradient(torch.ones_like(truth), patterns)[1] > 1e5


@pytest.mark.parametrize("modes", [1, 2])
def test_the_gradient_is_the_slope_of_the_log_likelihood(modes):
    patterns, truth = noiseless(300.0, torch.complex128, modes=modes)
    rng = np.random.default_rng(0)
    start = truth + 0.1 * torch.from_numpy(oracle.complex_field(rng, *truth.shape))
    direction = torch.from_numpy(oracle.complex_field(rng, *truth.shape))

    def half_deviance(t: float) -> float:
        return float(gradient(start + t * direction, patterns)[1]) / 2

    slope = gradient(start, patterns, dark=0.0)[
        0
    ]  # a small bias on dark pixels is deliberate elsewhere
    numerical = (half_deviance(1e-4) - half_deviance(-1e-4)) / 2e-4
    # d f = 2 Re <df/d conj(O), dO>
    assert 2 * float((slope.conj() * direction).sum().real) == pytest.approx(numerical, rel=1e-5)


def test_fluence_is_the_probes_power_laid_down_at_every_position():
    image, probe, y, x, expected = small_scan.geometry(modes=2)
    patterns, _ = noiseless(1e4, modes=2)
    scale = 1e4 / expected.sum((1, 2)).mean()
    np.testing.assert_allclose(
        patterns.fluence()[0],
        scale * oracle.fluence(image.shape, probe, y, x),
        rtol=1e-4,
        atol=1e-3,
    )


def test_shifted_probes_are_the_same_whatever_was_asked_before():
    patterns, _ = noiseless(1.0, modes=2)
    for indices in (torch.arange(3), torch.arange(5), torch.tensor([0, 4, 2]), torch.arange(3)):
        came, alone = patterns.probes(indices), noiseless(1.0, modes=2)[0].probes(indices)
        assert came.shape == (len(indices), 2, 32, 32) and bool((came == alone).all())


@pytest.mark.parametrize("modes", [1, 2])
def test_steps_converge_to_the_true_object_without_noise(modes):
    patterns, truth = noiseless(1e5, modes=modes)
    found = canvas_steps(patterns, torch.ones_like(truth), 120)
    assert (
        error(found, truth, patterns) < 0.01 < 0.3 < error(torch.ones_like(truth), truth, patterns)
    )
    assert gradient(found, patterns)[1] < 1e-4 * gradient(torch.ones_like(truth), patterns)[1]


def test_steps_stay_at_the_truth():
    patterns, truth = noiseless(1e5)
    assert error(canvas_steps(patterns, truth, 5), truth, patterns) < 1e-4


def test_the_deviance_falls_with_every_early_step_on_noisy_data():
    raw = small_scan.small_raw(1e4)
    layout = view_layout(raw.positions, raw.N)
    patterns = Patterns(raw.counts, layout.address, layout.residual_px, raw.probe, layout.shape)
    start = torch.ones(layout.shape, dtype=torch.complex64)
    seen = [float(gradient(start, patterns)[1])]
    canvas_steps(
        patterns,
        start,
        8,
        observe=lambda _, canvas: seen.append(float(gradient(canvas, patterns)[1])),
    )
    assert all(later < earlier for earlier, later in zip(seen, seen[1:], strict=False))
    assert seen[0] == pytest.approx(oracle_deviance(raw), rel=1e-5)  # the empty object's own


def oracle_deviance(raw) -> float:
    flat = np.ones(raw.object_guess.shape)
    expected = oracle.expected_counts(
        flat, raw.probe.numpy().astype(complex), *raw.positions.numpy().T
    )
    counts = raw.counts(slice(None)).double()
    return float(poisson_deviance(torch.from_numpy(expected), counts).sum())


def test_tikhonov_pulls_to_its_prior_and_the_more_so_the_fewer_photons_there_are():
    prior = 0.6 - 0.3j

    def distance(dose: float, tikhonov: float) -> float:
        patterns, truth = noiseless(dose)
        found = canvas_steps(
            patterns, torch.ones_like(truth), 60, tikhonov, prior=torch.full_like(truth, prior)
        )
        lit = patterns.fluence() > 0.2 * patterns.fluence().max()
        return float((found[lit] - prior).abs().mean())

    assert distance(1e3, 1e7) < 1e-3 < 0.3 < distance(1e3, 0.0)
    assert distance(1e2, 30.0) < 0.5 * distance(1e5, 30.0)


def test_where_no_photon_falls_the_start_stays_and_tikhonov_alone_acts():
    image, probe, y, x, expected = small_scan.geometry()
    N, shape = probe.shape[-1], (1, image.shape[0] + 20, image.shape[1])
    corners, rest = split_positions(torch.from_numpy(np.stack([y, x], 1)), N)
    patterns = Patterns(
        lambda i: torch.from_numpy(expected[i.numpy()] * 1e4).float(),
        on_canvas(corners),
        rest,
        torch.from_numpy(probe * 100).to(torch.complex64),
        shape,
    )
    start = torch.full(shape, 0.5 + 0.5j, dtype=torch.complex64)
    dark = patterns.fluence() == 0
    assert dark[:, -20:].all()
    assert torch.equal(canvas_steps(patterns, start, 10)[dark], start[dark])
    assert ((canvas_steps(patterns, start, 200, 1e3)[dark] - 1).abs() < 0.1).all()


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_the_number_of_patterns_held_at_once_does_not_change_the_result(chunk, monkeypatch):
    patterns, truth = noiseless(1e4, modes=2)
    expected = canvas_steps(patterns, torch.ones_like(truth), 5)
    for memory in (0, 10**6):  # with shifted probes made again for every chunk, and kept
        monkeypatch.setattr(canvas_module, "CHUNK", chunk)
        monkeypatch.setattr(canvas_module, "_CACHED_PATTERNS", memory)
        patterns._kept.clear()
        found = canvas_steps(patterns, torch.ones_like(truth), 5)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_a_canvas_comes_out_the_same_alone_and_in_a_stack_with_others():
    raw = small_scan.small_raw(1e4)
    positions = raw.positions[torch.tensor([[0, 1, 10, 11], [33, 34, 43, 44], [60, 61, 71, 70]])]
    images = torch.tensor([0, 1, 10, 11, 33, 34, 43, 44, 60, 61, 71, 70])

    def run(chosen: list[int]) -> torch.Tensor:
        layout = group_layout(positions[chosen], raw.N, 48)
        members = images.view(3, 4)[chosen].reshape(-1)
        patterns = Patterns(
            lambda i: raw.counts(members[i]),
            layout.address,
            layout.residual_px,
            raw.probe,
            layout.shape,
        )
        # Tikhonov makes the iteration overshoot, and restart its momentum, within a few steps.
        return canvas_steps(patterns, torch.ones(layout.shape, dtype=torch.complex64), 30, 4.0)

    together = run([0, 1, 2])
    for field in range(3):
        np.testing.assert_allclose(run([field])[0], together[field], rtol=0, atol=1e-5)


def test_an_observer_ends_the_iteration():
    patterns, truth = noiseless(1e4)
    steps = []
    found = canvas_steps(
        patterns,
        torch.ones_like(truth),
        50,
        observe=lambda step, _: steps.append(step) or step == 3,
    )
    assert steps == [0, 1, 2, 3]
    np.testing.assert_array_equal(found, canvas_steps(patterns, torch.ones_like(truth), 4))


# --- subsets ---


def test_subsets_part_the_patterns_and_neighbours_go_to_different_ones():
    patterns, _ = noiseless(1e4)
    places = patterns.places()
    assert (
        len(places) == len(patterns)
        and torch.bincount(places % 4, minlength=4).min() > 0.8 * len(patterns) / 4
    )
    corners = patterns.address[:, 1:].double()

    def gap(corners: torch.Tensor) -> float:
        return float(torch.cdist(corners, corners).fill_diagonal_(torch.inf).amin(1).median())

    assert min(gap(corners[places % 4 == place]) for place in range(4)) > 1.4 * gap(corners)


@pytest.mark.parametrize("count", [1, 2, 8, 16])
def test_the_subsets_fluences_add_up_to_the_whole(count):
    patterns, _ = noiseless(1e4, modes=2)
    parts = patterns.subset_fluence(count)
    assert parts.shape == (count, *patterns.canvas_shape)
    torch.testing.assert_close(parts.sum(0), patterns.fluence(), rtol=1e-4, atol=1e-3)
    chosen = torch.nonzero(patterns.places() % count == count - 1)[:, 0]
    alone = Patterns(
        patterns.counts,
        patterns.address[chosen],
        patterns.residual_px[chosen],
        patterns.probe,
        patterns.canvas_shape,
    ).fluence()
    torch.testing.assert_close(parts[-1], alone, rtol=1e-4, atol=1e-3)


def test_the_gradients_of_the_subsets_add_up_to_the_whole():
    patterns, truth = noiseless(1e4)
    start = torch.ones_like(truth)
    whole, deviance = gradient(start, patterns)
    parts = [
        gradient(start, patterns, torch.nonzero(patterns.places() % 4 == place)[:, 0])
        for place in range(4)
    ]
    torch.testing.assert_close(sum(part[0] for part in parts), whole, rtol=1e-3, atol=1e-2)
    assert float(sum(part[1] for part in parts)) == pytest.approx(float(deviance), rel=1e-5)


def test_overlap_bears_subsets_and_separate_patterns_bear_none():
    image, probe, y, x, _ = small_scan.geometry()
    assert balanced_subsets(noiseless(1e4)[0]) >= 4
    apart = [0, 9, 80, 89]  # the corners of the scan
    corners, rest = split_positions(torch.from_numpy(np.stack([y, x], 1)[apart]), probe.shape[-1])
    lonely = Patterns(
        lambda i: torch.zeros(len(i), 32, 32),
        on_canvas(corners),
        rest,
        torch.from_numpy(probe).to(torch.complex64),
        (1, *image.shape),
    )
    assert balanced_subsets(lonely) == 1


def test_passes_on_subsets_come_nearer_to_the_truth_than_as_many_on_all_patterns():
    patterns, truth = noiseless(1e5)
    start = torch.ones_like(truth)
    plan = schedule(patterns, 5)
    assert plan[0] > 1 == plan[-1] and plan == sorted(plan, reverse=True)
    assert error(canvas_steps(patterns, start, plan), truth, patterns) < 0.5 * error(
        canvas_steps(patterns, start, 5), truth, patterns
    )


def test_settling_ends_where_many_steps_on_all_patterns_end():
    raw = small_scan.small_raw(1e4)
    layout = view_layout(raw.positions, raw.N)
    patterns = Patterns(raw.counts, layout.address, layout.residual_px, raw.probe, layout.shape)
    start = torch.ones(layout.shape, dtype=torch.complex64)
    ends = [
        canvas_steps(patterns, start, plan, smoothness=10.0)
        for plan in (settling(patterns, 60), 300)
    ]
    light = patterns.fluence()
    apart = ((ends[0] - ends[1]).abs().square() * light).sum() / (
        (start - ends[1]).abs().square() * light
    ).sum()
    assert float(apart) < 0.01


def test_smoothness_keeps_the_slopes_of_its_prior_and_leaves_its_level_to_the_data():
    patterns, truth = noiseless(1e3)
    prior = truth * 0.9  # all slopes a tenth too flat, the level a tenth too low
    lit = patterns.fluence() > 0.2 * patterns.fluence().max()

    def found(smoothness: float) -> torch.Tensor:
        image = canvas_steps(patterns, prior, 150, prior=prior, smoothness=smoothness)
        return image * torch.exp(-1j * torch.angle((image * truth.conj())[lit].sum()))

    def slopes_kept(image: torch.Tensor) -> float:
        change = image - prior
        return float(torch.diff(change)[lit[..., 1:] & lit[..., :-1]].abs().square().sum())

    free, held = found(0.0), found(300.0)
    assert slopes_kept(held) < 0.25 * slopes_kept(free)
    assert float(held[lit].abs().mean()) == pytest.approx(float(truth[lit].abs().mean()), rel=0.03)
