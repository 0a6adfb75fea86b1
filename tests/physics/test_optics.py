"""The physics against sums written out in numpy, on odd and non-square grids, with complex probes
of two modes."""

import numpy as np
import oracle
import pytest
import torch

from ptycho_torch.physics import optics

# (6, 8) and (9, 12) disagree about the sign of an even grid's shift theorem and about fftshift
# against ifftshift.
GRIDS = [(6, 8), (9, 12), (8, 8), (7, 5), (10, 6), (1, 4)]
# M pixels of the object to N of the detector: M = N, 1.5 N, 2 N, odd ones, and mixed
SIDES = [(8, 8), (9, 9), (12, 8), (16, 8), (15, 7), (15, 8), (12, 7)]


def complex_tensor(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(oracle.complex_field(np.random.default_rng(seed), *shape))


def inner(a: torch.Tensor, b: torch.Tensor) -> complex:
    """<a, b>, conjugate linear in a."""
    return complex((a.conj() * b).sum())


@pytest.mark.parametrize("grid", GRIDS)
def test_propagation_is_the_centred_fourier_sum(grid):
    field = complex_tensor(0, 2, 3, *grid)
    np.testing.assert_allclose(
        optics.propagate(field).numpy(), oracle.far_field(field.numpy()), atol=1e-12
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_propagation_there_and_back_returns_the_field_and_keeps_its_power(grid):
    field = complex_tensor(1, 2, *grid)
    wave = optics.propagate(field)
    np.testing.assert_allclose(optics.backpropagate(wave).numpy(), field.numpy(), atol=1e-12)
    assert float(wave.abs().square().sum()) == pytest.approx(
        float(field.abs().square().sum()), rel=1e-12
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_backpropagation_is_the_adjoint_of_propagation(grid):
    field, wave = complex_tensor(2, *grid), complex_tensor(3, *grid)
    assert inner(wave, optics.propagate(field)) == pytest.approx(
        inner(optics.backpropagate(wave), field), rel=1e-12
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_a_plane_wave_lands_in_one_detector_pixel_and_an_even_beam_on_pixel_half_n(grid):
    rows, columns = grid
    flat = optics.propagate(torch.ones(grid, dtype=torch.complex128))
    expected = np.zeros(grid, complex)
    expected[rows // 2, columns // 2] = np.sqrt(rows * columns)
    np.testing.assert_allclose(flat.numpy(), expected, atol=1e-12)
    tilted = (
        torch.exp(2j * torch.pi * torch.arange(columns) / columns).expand(grid).to(torch.complex128)
    )
    lit = np.unravel_index(int(optics.propagate(tilted).abs().argmax()), grid)
    assert lit == (
        rows // 2,
        (columns // 2 + 1) % columns,
    )  # a phase that rises with the column sends light to the right


@pytest.mark.parametrize("grid", GRIDS)
def test_a_shifted_probe_is_its_trigonometric_interpolation(grid):
    probe = complex_tensor(4, 2, *grid)
    shifts = torch.tensor([[0.3, -0.45], [0.0, 0.5], [-0.5, 0.0], [2.0, -1.0]], dtype=torch.float64)
    came = optics.shift_probe(probe, shifts)
    assert came.shape == (4, 2, *grid)
    for one, (down, right) in zip(came.numpy(), shifts.tolist(), strict=True):
        np.testing.assert_allclose(one, oracle.moved(probe.numpy(), down, right), atol=1e-12)


def test_a_probe_shifted_by_whole_pixels_moves_down_and_right():
    probe = complex_tensor(5, 2, 9, 12)
    came = optics.shift_probe(probe, torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64))
    np.testing.assert_allclose(came[0].numpy(), np.roll(probe.numpy(), 1, axis=1), atol=1e-12)
    np.testing.assert_allclose(came[1].numpy(), np.roll(probe.numpy(), 2, axis=2), atol=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_a_shift_keeps_the_power_of_every_mode_and_is_undone_by_its_opposite(grid):
    probe = complex_tensor(6, 2, *grid)
    shift = torch.tensor([[0.37, -0.21]], dtype=torch.float64)
    there = optics.shift_probe(probe, shift)
    np.testing.assert_allclose(
        there[0].abs().square().sum((-2, -1)), probe.abs().square().sum((-2, -1)), rtol=1e-12
    )
    np.testing.assert_allclose(
        optics.shift_probe(there[0], -shift)[0].numpy(), probe.numpy(), atol=1e-12
    )


@pytest.mark.parametrize("grid", GRIDS)
def test_expected_counts_are_the_incoherent_sum_over_modes(grid):
    patches, probes = complex_tensor(7, 3, *grid), complex_tensor(8, 3, 2, *grid)
    came = optics.expected_counts(patches, probes).numpy()
    waves = oracle.far_field(probes.numpy() * patches.numpy()[:, None])
    np.testing.assert_allclose(came, (np.abs(waves) ** 2).sum(1), rtol=1e-11, atol=1e-12)
    assert (
        np.abs(came - np.abs(waves.sum(1)) ** 2).max() > 0.1
    )  # modes that interfered would give another pattern


@pytest.mark.parametrize("grid", GRIDS)
def test_a_phase_object_loses_no_photon_and_an_empty_one_shows_the_probes_power(grid):
    probes = complex_tensor(9, 3, 2, *grid)
    phase = torch.exp(1j * complex_tensor(10, 3, *grid).real)
    power = probes.abs().square().sum((1, 2, 3))
    for patches in (phase, torch.ones_like(phase)):
        np.testing.assert_allclose(
            optics.expected_counts(patches, probes).sum((1, 2)), power, rtol=1e-12
        )


def test_the_gradient_of_the_expected_counts_is_the_numerical_one():
    patches, probes = (
        complex_tensor(14, 2, 4, 5).requires_grad_(),
        complex_tensor(15, 2, 2, 4, 5).requires_grad_(),
    )
    assert torch.autograd.gradcheck(optics.expected_counts, (patches, probes))


def test_single_precision_agrees_with_double_precision_to_rounding():
    patches, probe = complex_tensor(16, 3, 9, 9), complex_tensor(17, 2, 9, 9)
    shift = torch.tensor([[0.1, 0.4], [-0.5, 0.5], [0.0, 0.25]], dtype=torch.float64)
    double = optics.expected_counts(patches, optics.shift_probe(probe, shift))
    single = optics.expected_counts(
        patches.to(torch.complex64), optics.shift_probe(probe.to(torch.complex64), shift.float())
    )
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, double, rtol=2e-5, atol=1e-4)


@pytest.mark.parametrize(("M", "N"), SIDES)
def test_a_detector_keeps_the_middle_of_the_far_field_and_its_adjoint_puts_it_back(M, N):
    field, wave = complex_tensor(20, 2, M, M), complex_tensor(21, 2, N, N)
    # every pixel as a sum: frequency k - N // 2 of the field about pixel M // 2
    place, frequency = np.arange(M) - M // 2, np.arange(N) - N // 2
    W = np.exp(-2j * np.pi * np.outer(frequency, place) / M) / np.sqrt(M)
    seen = optics.propagate(field, N)
    np.testing.assert_allclose(seen.numpy(), W @ field.numpy() @ W.T, atol=1e-12)
    back = optics.backpropagate(wave, M)
    assert inner(wave, seen) == pytest.approx(inner(back, field), rel=1e-12)


@pytest.mark.parametrize("grid", GRIDS)
def test_the_way_back_from_shifted_probes_is_the_adjoint_of_the_shift(grid):
    probe, waves = complex_tensor(22, 2, *grid), complex_tensor(23, 3, 2, *grid)
    shift = torch.tensor([[0.3, -0.45], [0.0, 0.5], [-0.2, 1.1]], dtype=torch.float64)
    there = inner(waves, optics.shift_probe(probe, shift))
    assert there == pytest.approx(inner(optics.shift_probe_adjoint(waves, shift), probe), rel=1e-12)


def test_the_slopes_of_a_shifted_probe_are_the_numerical_ones():
    probe, shift = complex_tensor(24, 2, 6, 9), torch.tensor([[0.3, -0.4]], dtype=torch.float64)
    found = optics.probe_slopes(probe, shift)
    for axis in range(2):
        step = torch.zeros(1, 2, dtype=torch.float64)
        step[0, axis] = 1e-5
        ends = [optics.shift_probe(probe, shift + sign * step) for sign in (1, -1)]
        torch.testing.assert_close(found[axis], (ends[0] - ends[1]) / 2e-5, atol=1e-7, rtol=1e-7)


@pytest.mark.parametrize(("M", "N"), SIDES)
def test_the_round_trip_has_the_centred_transforms_intensities_and_its_way_back(M, N):
    rng = np.random.default_rng(M)
    canvas = torch.from_numpy(oracle.complex_field(rng, 21, 24))
    probe = torch.from_numpy(oracle.complex_field(rng, M, M))
    weight = torch.from_numpy(rng.random((N, N)))
    forward, adjoint, modulation = optics.round_trip(M, N, (21, 24), canvas.device)
    for row, column in ((0, 0), (3, 2), (4, 7)):
        window = (slice(row, row + M), slice(column, column + M))
        waves = optics.propagate(probe * canvas[window], N)
        plain = forward(probe * (canvas * modulation)[window])
        torch.testing.assert_close(optics.intensity(plain), waves.abs().square())
        back = torch.zeros_like(canvas)
        back[window] = probe.conj() * adjoint(weight * plain)
        torch.testing.assert_close(
            (back * modulation)[window], probe.conj() * optics.backpropagate(weight * waves, M)
        )
