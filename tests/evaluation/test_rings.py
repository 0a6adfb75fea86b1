"""Ring correlation pixel by pixel, its spread and thresholds in closed form, and where it ends."""

import numpy as np
import pytest
from scored_objects import SHAPE, TRUTH, noise

from fly64lib.design.registries import METRICS
from fly64lib.evaluation.rings import FRC, first_crossing, frc_curve, half_bit_threshold
from ptycho_torch.errors import DataContractError


def by_loops(a, b):
    """Ring correlation of two small images pixel by pixel, without window."""
    spectra, side, sums = [np.fft.fft2(i - i.mean()) for i in (a, b)], min(a.shape), {}
    for k in range(a.shape[0]):
        for m in range(a.shape[1]):
            f = np.hypot(
                (k if 2 * k < a.shape[0] else k - a.shape[0]) / a.shape[0],
                (m if 2 * m < a.shape[1] else m - a.shape[1]) / a.shape[1],
            )
            entry = sums.setdefault(round(f * side), [0, 0, 0, 0])
            u, v = spectra[0][k, m], spectra[1][k, m]
            for i, term in enumerate(((u * v.conjugate()).real, abs(u) ** 2, abs(v) ** 2, 1)):
                entry[i] += term
    return np.array(
        [(c / np.sqrt(p * q), n) for c, p, q, n in (sums[k] for k in range(1, side // 2 + 1))]
    ).T


@pytest.mark.parametrize("shape", [(9, 12), (13, 7), (10, 10)])
def test_frc_is_the_pixel_by_pixel_sum_over_rings(shape):
    a, b = noise(0, shape), noise(0, shape) + 0.7 * noise(1, shape)
    curve, (correlation, n) = frc_curve(a, b, apodize=False), by_loops(a, b)
    assert np.allclose(curve.correlation, correlation)
    assert np.allclose(curve.n_pixels, n)


def test_frc_of_identical_images_is_1_on_all_rings():
    curve = frc_curve(TRUTH, TRUTH)
    assert np.allclose(curve.correlation, 1)
    assert METRICS["frc_half"](TRUTH, TRUTH) == METRICS["frc_half_bit"](TRUTH, TRUTH) == 1


def test_frc_of_independent_noise_spreads_as_its_pixels_allow_and_stays_under_the_threshold():
    """The spread is 1 / sqrt(2 n): n_pixels is a lower bound of n, the number of all pixels in a
    ring an upper one."""
    curves = [frc_curve(1 + 0.1 * noise(2 * k), 1 + 0.1 * noise(2 * k + 1)) for k in range(200)]
    values, n = np.array([c.correlation for c in curves]), curves[0].n_pixels
    every = frc_curve(noise(0), noise(1), apodize=False).n_pixels
    assert np.abs(values.mean(0)).max() < 0.08
    spread = values.std(0)[3:]
    assert (
        0.85
        < (spread * np.sqrt(2 * n[3:])).mean()
        < 1
        < (spread * np.sqrt(2 * every[3:])).mean()
        < 1.1
    )
    assert (values > half_bit_threshold(n))[:, 0].mean() < 0.02 and not (
        values > half_bit_threshold(n)
    )[:, 1:].any()


def test_frc_with_white_noise_is_the_root_of_signal_over_signal_and_noise():
    signal = noise(0, (201, 160))
    for snr in (4.0, 0.5):
        curve = frc_curve(signal, signal + noise(1, signal.shape) / np.sqrt(snr))
        assert curve.correlation[5:].mean() == pytest.approx(np.sqrt(snr / (1 + snr)), abs=0.02)


@pytest.mark.parametrize("flat", [np.ones(SHAPE, complex), np.full(SHAPE, 0.3 - 2j, np.complex64)])
def test_a_flat_object_has_no_spectrum_so_it_correlates_and_resolves_nothing(flat):
    assert not frc_curve(flat, TRUTH).correlation.any()
    assert METRICS["frc_half"](flat, TRUTH) == METRICS["frc_half_bit"](flat, TRUTH) == 0


def test_a_ramp_across_the_image_correlates_with_the_border_jump_of_another_only_without_a_window():
    r, c = np.mgrid[: SHAPE[0], : SHAPE[1]]
    a, b = 10 * r / SHAPE[0] + 0.05 * noise(0), 10 * r / SHAPE[0] + 0.05 * noise(1)
    assert frc_curve(a, b, apodize=False).correlation[15:].mean() > 0.9
    assert frc_curve(a, b).correlation[15:].mean() < 0.5


def test_a_wave_lies_on_the_ring_of_its_frequency_in_a_non_square_image():
    shape = (64, 128)
    r, c = np.mgrid[:64, :128]
    wave = np.exp(
        2j * np.pi * (12 / 64 * r - 32 / 128 * c)
    )  # 0.3125 cycles per px, 0.625 of Nyquist
    curve = frc_curve(wave + 1e-3 * noise(0, shape), wave + 1e-3 * noise(1, shape), apodize=False)
    assert curve.frequency[curve.correlation.argmax()] == 0.625
    assert np.delete(np.abs(curve.correlation), curve.correlation.argmax()).max() < 0.9


def test_frc_half_finds_the_frequency_where_the_signal_ends():
    shape, cut = (90, 121), 0.44
    f = 2 * np.hypot(np.fft.fftfreq(90)[:, None], np.fft.fftfreq(121)[None])
    spectra = [np.fft.fft2(noise(k, shape)) for k in range(2)]
    truth, image = np.fft.ifft2(spectra[0]), np.fft.ifft2(np.where(f < cut, *spectra))
    assert METRICS["frc_half"](image, truth) == pytest.approx(cut, abs=2 / 90)
    assert METRICS["frc_half_bit"](image, truth) == pytest.approx(cut, abs=4 / 90)


def test_the_half_bit_threshold_is_1_for_one_pixel_and_a_signal_to_noise_of_0_2071_for_many():
    assert half_bit_threshold(1.0) == pytest.approx(1, abs=1e-3)
    assert half_bit_threshold(1e12) == pytest.approx(0.2071 / 1.2071, abs=1e-5)
    assert half_bit_threshold(100.0) == pytest.approx((0.2071 + 0.19102) / (1.2071 + 0.09102))


def test_the_crossing_is_the_first_one_after_slow_errors_interpolated_between_rings():
    f = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    for values, expected in (
        ([1, 0.9, 0.4, 0.8, 0.1], 0.56),
        ([0.4, 1, 1, 1, 1], 1),
        ([0.4, 0.3, 0.9, 0.4, 0.9], 0.76),
        ([0.4, 0.4, 0.4, 1, 1], 0),
        ([1, 1, 1, 1, 0.5], 1),
    ):
        assert first_crossing(
            FRC(f, np.array(values, float), np.full(5, 9.0)), 0.5
        ) == pytest.approx(expected)


def test_frc_refuses_images_that_it_cannot_compare():
    with pytest.raises(DataContractError, match=r"\(59, 83\) and \(58, 83\)"):
        frc_curve(TRUTH, TRUTH[1:])
    with pytest.raises(DataContractError, match="NaN"):
        frc_curve(TRUTH, TRUTH * np.nan)
