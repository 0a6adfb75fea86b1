"""Crop, bin, counts or amplitude, the place of zero frequency, bad pixels."""

import numpy as np
import oracle
import pytest

from ptycho_torch.data.checks import mean_photons


def amplitudes(counts: np.ndarray) -> np.ndarray:
    return np.sqrt(counts).astype(np.float32)


def test_cropping_the_detector_doubles_the_object_pixel_and_halves_positions(
    made, raw_file, imported
):
    source = raw_file(objectGuess=made["object"])
    options = "--crop 16 --zero-frequency centre --orientation as-given --pixel-size-nm 50"
    got = imported(source, options)
    central = slice(8, 24), slice(8, 24)
    np.testing.assert_array_equal(got.diffraction, amplitudes(made["counts"][:, *central]))
    np.testing.assert_array_equal(got.positions, made["positions"] / 2)
    assert got.metadata["object_pixel_nm"] == pytest.approx(100)
    assert got.metadata["object_kind"] == "reconstruction"
    wave = oracle.far_field(got.probe[0].astype(complex))
    full = oracle.far_field(made["probe"].astype(complex))[central]
    wave, full = wave / np.linalg.norm(wave), full / np.linalg.norm(full)
    np.testing.assert_allclose(wave, full, rtol=0, atol=1e-6)
    assert got.canvas_shape == (37, 39)  # 73 x 77 grown to even edges, halved
    # pixel i of the result was pixel 2 i
    assert np.abs(got.object_guess[10, 12] - made["object"][20, 24]) < 0.35


@pytest.mark.parametrize("k", [2, 3])
def test_binning_sums_counts_and_the_probe_follows_the_middle_of_the_blocks(raw_file, imported, k):
    """A narrow lopsided probe on k times more detector pixels: the binned forward model has to
    predict the sums."""
    rng, N = np.random.default_rng(4), 24
    r = np.arange(N * k) - N * k // 2
    narrow = 100 * np.exp(-((r[:, None] - 1) ** 2 + (r + 2.0) ** 2) / 8) * np.exp(0.15j * r)
    image = np.exp(0.5j * rng.normal(size=(N * k + 9, N * k + 9)))
    y, x = rng.integers(0, 8, (2, 5)) + N * k / 2
    fine = np.rint(oracle.expected_counts(image, narrow[None], y, x))
    keys = {"xcoords": x, "ycoords": y, "probeGuess": narrow, "objectGuess": image}
    source = raw_file(diff3d=fine.astype(np.uint32), **keys)
    got = imported(source, f"--bin {k} --zero-frequency centre --orientation as-given")
    counts = fine.reshape(5, N, k, N, k).sum((2, 4))
    np.testing.assert_allclose(got.diffraction**2, counts, rtol=1e-6)
    np.testing.assert_array_equal(got.positions, np.stack([y, x], 1))

    def error(probe: np.ndarray) -> float:
        model = oracle.expected_counts(image, probe, y, x)
        return np.abs(model - counts).sum() / counts.sum()

    first = N * (k - 1) // 2
    still = narrow[first : first + N, first : first + N]  # the same probe without the ramp
    assert error(got.probe.astype(complex)) < 0.03
    assert error(still[None]) > 3 * error(got.probe.astype(complex))


def test_amplitudes_and_zero_frequency_at_the_corner_are_found_and_unclear_values_asked_for(
    made, raw_file, imported, refused
):
    counts = np.zeros((90, 32, 32))
    counts[:, 10:23, 10:23] = made["counts"][:, 10:23, 10:23]
    corner = np.fft.ifftshift(amplitudes(counts), axes=(1, 2))
    got = imported(raw_file(diff3d=None, diffraction=corner), "--orientation as-given")
    np.testing.assert_array_equal(got.diffraction, amplitudes(counts))
    about = got.metadata["import"]
    assert (about["values"], about["zero_frequency"]) == ("amplitude", "corner")
    source = raw_file(diff3d=None, diffraction=counts * 0.3712)
    assert "neither are their squares" in refused(source, "")
    scale = f"--values intensity --photons-per-unit {1 / 0.3712} --round"
    got = imported(source, f"{scale} --orientation as-given")
    np.testing.assert_array_equal(got.diffraction, amplitudes(counts))
    no_beam = np.random.default_rng(1).poisson(9.0, (90, 32, 32))
    said = refused(raw_file(diff3d=no_beam), "")
    assert "say --zero-frequency centre or --zero-frequency corner" in said


def test_bad_pixels_are_refused_and_count_nothing_only_when_asked(
    made, raw_file, imported, refused
):
    counts = made["counts"].astype(np.float32)
    counts[3, 5, 6], counts[4, 7, 8] = -1, np.nan
    source = raw_file(diff3d=counts)
    said = refused(source)
    assert "2 bad values in 2 pixels" in said and "first at pattern 3, pixel [5, 6]" in said
    options = "--zero-frequency centre --bad-pixels zero --orientation as-given"
    got = imported(source, options)
    assert set(zip(*np.nonzero(got.extra["bad_pixels"]), strict=True)) == {(5, 6), (7, 8)}
    assert not got.diffraction[:, 5, 6].any() and got.diffraction[:, 9, 9].any()
    # what the message advises
    assert "--bad-pixels mask" in said and "--bad-values zero" in said
    clipped = imported(source, "--zero-frequency centre --bad-values zero --orientation as-given")
    assert clipped.diffraction[3, 5, 6] == 0 and clipped.diffraction[5, 9, 9] > 0
    assert (clipped.diffraction != np.sqrt(made["counts"]).astype(np.float32)).sum() <= 2
    got = imported(source, options.replace("pixels zero", "pixels mask"))
    assert set(zip(*np.nonzero(~got.detector_mask), strict=True)) == {(5, 6), (7, 8)}
    assert not got.diffraction[:, 5, 6].any() and "bad_pixels" not in got.extra
    again = raw_file(diff3d=None, diffraction=got.diffraction, detector_mask=got.detector_mask)
    assert "2 bad pixels (2 by the file's mask" in refused(again)


def test_a_probe_in_other_units_is_scaled_to_the_measured_photons(made, raw_file, imported):
    got = imported(raw_file(probeGuess=made["probe"] * 1e-3))
    assert (np.abs(got.probe) ** 2).sum() == pytest.approx(mean_photons(got.diffraction), rel=1e-5)
    assert got.metadata["import"]["probe_scaled_by"] > 100
