"""The zone-plate probe against its optics, closed forms and the probe recovered from the measured
scan."""

from pathlib import Path

import numpy as np
import pytest

from fly64lib.simulation.probes import (
    ZonePlate,
    fourier_crop,
    outer_half_maximum_diameter,
    perturb_probe,
    power_radius,
    radial_intensity,
    zone_plate_probe,
)
from ptycho_torch.errors import ConfigError, DataContractError


def spectrum(x):
    return np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(x), norm="ortho"))


def gaussian_beam(N, sigma, centre=None):
    """Amplitude whose intensity is a Gaussian of rms `sigma`."""
    row, column = centre or (N // 2, N // 2)
    y, x = np.ogrid[:N, :N]
    return np.exp(-((y - row) ** 2 + (x - column) ** 2) / (4 * sigma**2)).astype(complex)


def complex_noise(shape, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def test_optics_of_fly001_give_56_nm_pixels_and_a_36_px_pupil():
    optics = ZonePlate()
    assert optics.wavelength_m == pytest.approx(1.409e-10, rel=1e-3)
    assert optics.object_pixel_m(64) == pytest.approx(56.4e-9, rel=1e-3)
    assert optics.object_pixel_m(128) == pytest.approx(28.2e-9, rel=1e-3)
    focal_length_m = 2 * 90e-6 * 50e-9 / optics.wavelength_m
    numerical_aperture_px = 90e-6 / focal_length_m * optics.distance_m / 75e-6
    assert optics.pupil_radius_px == pytest.approx(numerical_aperture_px)


@pytest.mark.parametrize(("N", "fine"), [(64, 1), (64, 2), (45, 1), (33, 3)])
def test_power_is_one_on_any_grid(N, fine):
    probe = zone_plate_probe(N, fine)
    assert probe.shape == (N * fine, N * fine) and probe.dtype == np.complex128
    assert np.sum(abs(probe) ** 2) == pytest.approx(1, abs=1e-13)


def test_pupil_is_an_annulus_with_a_dark_stop_of_a_third_of_its_radius():
    far = abs(spectrum(zone_plate_probe(64, 2)))
    q = np.hypot(*np.ogrid[-64:64, -64:64])
    assert far[q < 12.02 - 0.5].max() < 1e-14 and far[q > 36.07 + 0.5].max() < 1e-14
    assert far[(q > 13) & (q < 35)].min() > 0.5 * far.max()


def test_in_focus_a_symmetric_pupil_makes_a_real_probe_that_peaks_at_the_scan_position():
    probe = zone_plate_probe(45, optics=ZonePlate(defocus_mm=0))
    assert abs(probe.imag).max() < 1e-15
    assert np.unravel_index(abs(probe).argmax(), probe.shape) == (22, 22)


def test_defocus_is_free_space_propagation_between_two_probes():
    """exp(-i pi lambda dz q^2) in Fourier space takes the probe at z to the probe at z + dz."""
    near, far = (zone_plate_probe(64, optics=ZonePlate(defocus_mm=z)) for z in (0.3, 0.8))
    q = np.hypot(*np.ogrid[-32:32, -32:32]) * 75e-6 / (1.40891e-10 * 1.92)
    propagated = spectrum(near) * np.exp(-1j * np.pi * 1.40891e-10 * 0.5e-3 * q**2)
    np.testing.assert_allclose(propagated, spectrum(far), atol=1e-5)


def test_defocused_ring_has_the_size_of_the_geometric_shadow():
    """A ray of spatial frequency q lands lambda z q from the axis, so the power stays between the
    pupil's two edges."""
    probe = zone_plate_probe(256, optics=ZonePlate(defocus_mm=1.0))
    edge_px = 1.40891e-10 * 1e-3 / (2 * 50e-9) / (56.356e-9 / 4)  # 100 px
    radius = np.hypot(*np.ogrid[-128:128, -128:128])
    within = (radius > edge_px / 3 - 8) & (radius < edge_px + 8)
    assert np.sum(abs(probe[within]) ** 2) > 0.95


def test_fine_probe_cropped_to_the_detector_is_the_coarse_probe():
    small_pupil = ZonePlate(
        outermost_zone_nm=80
    )  # 22.5 px: within the +-32 px of the coarse detector
    coarse, fine = zone_plate_probe(64, 1, small_pupil), zone_plate_probe(64, 2, small_pupil)
    np.testing.assert_allclose(fourier_crop(fine, (64, 64), "power"), coarse, atol=1e-15)


def test_the_coarse_detector_misses_the_pupils_rim_and_nothing_else():
    fine, coarse = zone_plate_probe(64, 2), zone_plate_probe(64)
    read = fourier_crop(fine, (64, 64), "power")
    power = np.sum(abs(read) ** 2)
    assert 1 - power == pytest.approx(0.055, abs=0.002)
    np.testing.assert_allclose(read / np.sqrt(power), coarse, atol=1e-14)


@pytest.mark.parametrize(
    ("large", "small"),
    [((9, 12), (5, 6)), ((16, 16), (8, 8)), ((15, 10), (15, 7)), ((8, 9), (5, 4))],
)
def test_cropping_an_object_keeps_a_constant_and_a_slow_plane_wave(large, small):
    constant = np.full(large, 0.7 - 0.4j)
    np.testing.assert_allclose(
        fourier_crop(constant, small, "mean"), np.full(small, 0.7 - 0.4j), atol=1e-14
    )

    def wave(
        shape,
    ):  # one period down, one backwards across, over the field of view whatever the sampling
        y, x = np.ogrid[: shape[0], : shape[1]]
        return np.exp(2j * np.pi * (y / shape[0] - x / shape[1]))

    np.testing.assert_allclose(fourier_crop(wave(large), small, "mean"), wave(small), atol=1e-13)


def test_cropping_removes_a_wave_beyond_the_new_nyquist_frequency():
    fast = np.exp(2j * np.pi * np.arange(12) * 5 / 12) * np.ones((9, 1))
    np.testing.assert_allclose(fourier_crop(fast, (9, 6), "mean"), 0, atol=1e-14)


@pytest.mark.parametrize(
    ("large", "small"), [((9, 12), (5, 6)), ((16, 16), (8, 7)), ((15, 10), (15, 10))]
)
def test_cropping_a_probe_keeps_its_central_diffraction_amplitudes(large, small):
    image = complex_noise(large, 1)
    cut = tuple(
        slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(large, small, strict=True)
    )
    np.testing.assert_allclose(
        spectrum(fourier_crop(image, small, "power")), spectrum(image)[cut], atol=1e-13
    )


def test_both_anchors_of_the_crop_agree_for_even_sizes_and_an_integer_ratio():
    image = complex_noise((8, 12), 2)
    mean, power = fourier_crop(image, (4, 6), "mean"), fourier_crop(image, (4, 6), "power")
    np.testing.assert_allclose(2 * mean, power, atol=1e-14)


def test_a_crop_that_enlarges_or_an_unknown_rule_is_refused():
    with pytest.raises(DataContractError, match="within its own"):
        fourier_crop(np.ones((4, 4)), (4, 5), "mean")
    with pytest.raises(DataContractError, match="2-D"):
        fourier_crop(np.ones((2, 4, 4)), (4, 4), "mean")
    with pytest.raises(ConfigError, match="'sum'"):
        fourier_crop(np.ones((4, 4)), (4, 4), "sum")


@pytest.mark.parametrize("centre", [(32, 32), (28.3, 34.6)])
def test_half_maximum_diameter_of_a_gaussian_is_its_fwhm_wherever_it_stands(centre):
    sigma = 6.0
    expected = 2 * sigma * np.sqrt(2 * np.log(2))
    assert outer_half_maximum_diameter(gaussian_beam(64, sigma, centre)) == pytest.approx(
        expected, rel=0.01
    )


def test_half_maximum_diameter_of_a_ring_is_the_outer_one():
    radius = np.hypot(*np.ogrid[-40:40, -40:40])
    ring = np.exp(-((radius - 15) ** 2) / (4 * 2.0**2))
    assert outer_half_maximum_diameter(ring) == pytest.approx(
        2 * (15 + 2.0 * np.sqrt(2 * np.log(2))), rel=0.01
    )


def test_a_probe_that_fills_its_window_has_no_diameter():
    with pytest.raises(DataContractError, match="larger N"):
        outer_half_maximum_diameter(np.ones((16, 16), complex))


def test_power_radius_of_a_gaussian_follows_rayleighs_distribution():
    sigma = 5.0
    beam = gaussian_beam(64, sigma)
    for fraction in (0.5, 0.9, 0.98):
        assert power_radius(beam, fraction) == pytest.approx(
            sigma * np.sqrt(-2 * np.log(1 - fraction)), abs=0.5
        )


def test_power_radius_counts_from_the_scan_position_and_adds_modes_incoherently():
    beam = np.zeros((2, 9, 9), complex)
    beam[0, 4, 4], beam[1, 4, 7] = 1, 1j
    assert (
        power_radius(beam[0]) == 0
        and power_radius(beam, 0.5) == 0
        and power_radius(beam, 0.51) == 3
    )


@pytest.mark.parametrize(
    "probe", [zone_plate_probe(64), zone_plate_probe(33) * np.reshape([1.0, 0.3j], (2, 1, 1))]
)
@pytest.mark.parametrize("error", [0.0, 0.1, 0.8])
def test_perturbed_probe_is_off_by_exactly_the_error_asked_for_at_the_same_power(probe, error):
    wrong = perturb_probe(probe, error, seed=3)
    assert wrong.shape == probe.shape and wrong.dtype == probe.dtype
    assert np.linalg.norm(wrong - probe) == pytest.approx(error * np.linalg.norm(probe), abs=1e-12)
    assert np.linalg.norm(wrong) == pytest.approx(np.linalg.norm(probe), rel=1e-12)
    # No global phase brings it nearer: the error is one of shape.
    assert np.angle(np.vdot(probe, wrong)) == pytest.approx(0, abs=1e-12)


def test_perturbation_is_smooth_seeded_and_refused_beyond_orthogonality():
    probe = zone_plate_probe(64)
    wrong = perturb_probe(probe, 0.2, seed=1)
    assert np.array_equal(wrong, perturb_probe(probe, 0.2, seed=1))
    assert not np.allclose(wrong, perturb_probe(probe, 0.2, seed=2))
    bright = abs(probe) > 0.3 * abs(probe).max()
    ratio = np.where(bright, wrong / np.where(bright, probe, 1), np.nan)
    steps, spread = np.diff(ratio, axis=0), np.nanstd(ratio)
    assert np.nanstd(steps) < 0.25 * spread  # neighbours err alike
    with pytest.raises(ConfigError, match="relative_error"):
        perturb_probe(probe, 1.5, seed=1)


def test_impossible_optics_are_refused_with_the_field_and_the_value():
    with pytest.raises(ConfigError, match="energy_kev=0: expected greater than 0"):
        ZonePlate(energy_kev=0)
    with pytest.raises(ConfigError, match="central_stop_um=200.0 .a diameter."):
        ZonePlate(central_stop_um=200)
    with pytest.raises(ConfigError, match="outer_zone_amplitude=0"):
        ZonePlate(outer_zone_amplitude=0)
    with pytest.raises(ConfigError, match="no pupil"):
        zone_plate_probe(8)
    with pytest.raises(ConfigError, match="fine = 0"):
        zone_plate_probe(64, fine=0)


def test_size_of_the_default_probe_is_near_that_of_fly001():
    probe = zone_plate_probe(64)
    assert outer_half_maximum_diameter(probe) == pytest.approx(30, abs=3)
    assert power_radius(probe) == pytest.approx(23, abs=1.5)
    fine = zone_plate_probe(64, 2)
    assert outer_half_maximum_diameter(fine) / 2 == pytest.approx(
        outer_half_maximum_diameter(probe), rel=0.05
    )


def test_the_recovered_probe_agrees_in_profile_size_and_sign_of_its_phase(real_scan_path: Path):
    with np.load(real_scan_path) as file:
        recovered = file["probeGuess"].astype(complex)
    recovered /= np.linalg.norm(recovered)
    assert outer_half_maximum_diameter(recovered) == pytest.approx(30, abs=0.5)
    assert power_radius(recovered) == pytest.approx(23, abs=1)
    (_, ours), (_, theirs) = radial_intensity(zone_plate_probe(64)), radial_intensity(recovered)
    n = min(len(ours), len(theirs))
    assert np.corrcoef(ours[:n], theirs[:n])[0, 1] > 0.97
    assert abs(np.vdot(zone_plate_probe(64), recovered)) > 0.6
    assert abs(np.vdot(zone_plate_probe(64, optics=ZonePlate(defocus_mm=-0.8)), recovered)) < 0.05
