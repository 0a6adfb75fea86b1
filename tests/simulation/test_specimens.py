"""Specimens: one object on every grid, in fly001's ranges, drawn by the seed alone; the star lies
on the real one."""

from pathlib import Path

import numpy as np
import pytest

from fly64lib.design.registries import SPECIMENS
from fly64lib.simulation.probes import fourier_crop
from fly64lib.simulation.specimens import dead_leaves, lines, siemens_star
from ptycho_torch.errors import ConfigError

SCANNED = np.s_[33:199, 33:199]
EVERY = {**SPECIMENS}
FINE = {"circuit": 0.004}  # of thin wires: of their power, more lies in edges


def on_circle(image, radius, angle):
    """Values on circles about the star's centre, nearest pixels."""
    rows, columns = np.rint(113.7 + radius * np.sin(angle)), np.rint(104.5 + radius * np.cos(angle))
    return image[rows.astype(int), columns.astype(int)]


@pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)
def test_a_seed_is_one_specimen_to_the_bit_and_another_seed_another(draw):
    one = draw((45, 60), 7)
    assert one.shape == (45, 60) and one.dtype == np.complex128 and np.isfinite(one).all()
    assert np.array_equal(one, draw((45, 60), 7))
    assert abs(one - draw((45, 60), 8)).max() > 0.05


@pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)
@pytest.mark.parametrize("shape", [(232, 232), (150, 91)])
def test_a_grid_twice_as_fine_shows_the_same_specimen_at_doubled_positions(draw, shape):
    fine = draw((2 * shape[0], 2 * shape[1]), 3)
    np.testing.assert_allclose(fine[::2, ::2], draw(shape, 3), atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_edges_are_soft_enough_for_the_coarse_grid(name):
    """Of the structure of the fine specimen, hardly any lies beyond the coarse grid's Nyquist
    frequency."""
    fine = EVERY[name]((464, 464), 4)
    window = np.hanning(464)[:, None] * np.hanning(
        464
    )  # opposite edges don't meet: that jump is no structure
    structure = (fine - fine.mean()) * window
    kept = fourier_crop(structure, (232, 232), "power")
    assert 1 - np.sum(abs(kept) ** 2) / np.sum(abs(structure) ** 2) < FINE.get(name, 0.001)


@pytest.mark.parametrize("seed", [0, 42, 123])
def test_star_has_the_phase_and_amplitude_ranges_of_fly001(seed):
    star = siemens_star((232, 232), seed)[SCANNED]
    phase, amplitude = np.angle(star), abs(star)
    assert np.percentile(phase, [1, 99]) == pytest.approx([-0.88, 0.27], abs=0.05)
    assert phase.std() == pytest.approx(0.35, abs=0.03)
    assert amplitude.mean() == pytest.approx(1, abs=0.015) and amplitude.std() == pytest.approx(
        0.056, abs=0.005
    )
    # Thick parts absorb, but the amplitude is no copy of the phase.
    assert 0.8 < np.corrcoef(phase.ravel(), amplitude.ravel())[0, 1] < 0.97


def test_star_has_thirty_spokes_about_its_centre_less_what_is_broken():
    star = np.angle(siemens_star((232, 232), 42))

    angle = np.linspace(0, 2 * np.pi, 3600, endpoint=False)

    def spokes_on(radius):
        dark = on_circle(star, radius, angle) < -0.35
        return np.sum(dark & ~np.roll(dark, 1))

    assert 27 <= spokes_on(60) <= 29  # one lost inside the ring, perhaps a nick
    assert 27 <= spokes_on(95) <= 29  # one lost outside
    assert spokes_on(10) == 0  # the hub
    dark_third = [np.percentile(on_circle(star, radius, angle), 15) for radius in (75, 79, 83)]
    assert dark_third[1] > 0.7 * min(
        dark_third[0], dark_third[2]
    )  # phases are negative: the ring cuts the spokes


def test_star_breaks_at_random_places():
    a, b = (np.angle(siemens_star((232, 232), seed)) for seed in (1, 2))
    changed = abs(a - b) > 0.5
    assert 0.005 < changed.mean() < 0.1


def test_the_twin_lies_on_the_measured_star(real_scan_path: Path):
    with np.load(real_scan_path) as file:
        measured = file["objectGuess"][SCANNED]
    twin = siemens_star((232, 232), 42)[SCANNED]
    assert np.corrcoef(np.angle(measured).ravel(), np.angle(twin).ravel())[0, 1] > 0.85
    assert abs(measured).mean() == pytest.approx(abs(twin).mean(), abs=0.02)
    assert abs(measured).std() == pytest.approx(abs(twin).std(), rel=0.1)


@pytest.mark.parametrize("draw", [dead_leaves, lines])
@pytest.mark.parametrize("seed", [1, 2])
def test_other_specimens_share_the_stars_ranges(draw, seed):
    image = draw((232, 232), seed)
    assert np.angle(image).min() >= -0.881 and np.angle(image).max() <= 0.271
    assert np.angle(image).std() > 0.2
    assert abs(image).mean() == pytest.approx(1, abs=0.06) and 0.03 < abs(image).std() < 0.08


def test_a_shape_that_is_no_image_is_refused():
    for draw in EVERY.values():
        with pytest.raises(ConfigError, match="rows, columns"):
            draw((232,), 0)
