"""The gauge is found with the right sign and to 0.02 px, and nothing but the gauge is removed."""

import numpy as np
import pytest
from scipy.stats import rice
from skimage.registration import phase_cross_correlation

from fly64lib.evaluation.gauge import MAX_SHIFT_PX, align, in_gauge_of, scored_region
from ptycho_torch.errors import ConfigError, DataContractError

ROWS, COLUMNS = 61, 84
INNER = (slice(MAX_SHIFT_PX, -MAX_SHIFT_PX),) * 2
RNG = np.random.default_rng(3)
CENTRES, WIDTHS = RNG.uniform((-4, -4), (66, 88), (70, 2)), RNG.uniform(1.5, 5, 70)
HEIGHTS = RNG.normal(0, 0.4, (70, 2))


def blobs(down=0.0, right=0.0):
    """An object of Gaussians, evaluated (not interpolated) with its content moved `down` and
    `right` (px)."""
    r, c = np.mgrid[:ROWS, :COLUMNS]
    distance = (r[..., None] - down - CENTRES[:, 0]) ** 2 + (
        c[..., None] - right - CENTRES[:, 1]
    ) ** 2
    phase, absorption = np.moveaxis(np.exp(-distance / (2 * WIDTHS**2)) @ HEIGHTS, -1, 0)
    return np.exp(1j * phase - 0.2 * np.abs(absorption))


def texture(down=0.0, right=0.0):
    """A fine random object of plane waves up to half of Nyquist, of which no border continues the
    other."""
    rng = np.random.default_rng(8)
    frequency, weight = (
        rng.uniform(-1.5, 1.5, (400, 2)),
        rng.normal(size=400) + 1j * rng.normal(size=400),
    )
    r, c = np.arange(ROWS) - down, np.arange(COLUMNS) - right
    return (
        (np.exp(1j * np.outer(r, frequency[:, 0])) * weight)
        @ np.exp(1j * np.outer(frequency[:, 1], c))
        / 28
    )


def ramp(slope, offset=0.0):
    r, c = np.mgrid[:ROWS, :COLUMNS]
    return np.exp(1j * (offset + slope[0] * r + slope[1] * c))


def noise(sigma, seed=0, shape=(ROWS, COLUMNS)):
    rng = np.random.default_rng(seed)
    return sigma / np.sqrt(2) * (rng.normal(size=shape) + 1j * rng.normal(size=shape))


def test_the_scored_region_is_the_bounding_box_of_the_positions_rounded_inwards_with_y_as_rows():
    x, y = np.array([40.2, 120.0, 77.0]), np.array([30.0, 61.5, 99.9])
    assert scored_region(x, y, (232, 232)) == (slice(30, 100), slice(41, 121))


@pytest.mark.parametrize(
    ("x", "y", "says"),
    [
        ([10.0, 90.0], [10.0, 99.5], "columns 10..90, outside the canvas"),
        ([10.0, np.nan], [10.0, 90.0], "NaN"),
        ([10.0], [10.0, 90.0], "xcoords"),
        ([], [], "at least one"),
        ([-0.9, 80.0], [-1.5, 90.0], "outside"),
    ],
)
def test_positions_that_give_no_region_are_refused(x, y, says):
    with pytest.raises(DataContractError, match=says):
        scored_region(np.array(x), np.array(y), (100, 90))


def test_with_a_known_probe_only_the_global_phase_is_removed():
    truth = blobs()
    rotated = align(np.exp(-2.5j) * truth, truth)
    assert np.allclose(rotated.image, truth, atol=1e-14)
    assert rotated.phase_rad == pytest.approx(2.5)
    spoilt = 1.7 * ramp((0.02, -0.01)) * blobs(1, 0)
    kept = align(spoilt, truth)
    assert np.allclose(kept.image / spoilt, np.exp(1j * kept.phase_rad))
    assert (kept.scale, kept.registered, *kept.ramp_rad_per_px, *kept.shift_px) == (
        1,
        True,
        0,
        0,
        0,
        0,
    )


@pytest.mark.parametrize("slope", [(0.0, 0.0), (0.013, -0.021), (-0.7, 0.4), (2.9, -3.0)])
@pytest.mark.parametrize("make", [blobs, texture])
def test_with_an_unknown_probe_a_pure_ramp_a_phase_and_a_scale_cost_nothing(make, slope):
    truth = make()
    found = align(0.6 * ramp(slope, 1.0) * truth, truth, "unknown_probe")
    assert found.registered
    assert np.allclose(found.ramp_rad_per_px, np.negative(slope), atol=1e-8)
    assert found.scale == pytest.approx(1 / 0.6)
    assert np.abs(found.image - truth)[INNER].max() < 1e-6


def test_content_one_row_too_low_and_two_columns_too_far_left_is_moved_up_and_right():
    canvas = RNG.normal(size=(80, 90)) + 1j * RNG.normal(size=(80, 90)) + 2
    found = align(canvas[9:59, 12:72], canvas[10:60, 10:70], "unknown_probe")
    assert np.allclose(found.shift_px, (-1, 2), atol=0.01)


@pytest.mark.parametrize("moved", [(0.37, 0.0), (-1.5, 0.62), (2.9, -2.9), (-0.05, 2.41)])
@pytest.mark.parametrize("make", [blobs, texture])
def test_a_known_shift_is_found_to_a_fiftieth_of_a_pixel_together_with_ramp_phase_and_scale(
    make, moved
):
    truth, slope = make(), (0.11, -0.23)
    found = align(1.4 * ramp(slope, -2.0) * make(*moved), truth, "unknown_probe")
    assert np.abs(found.shift_px + moved).max() < 0.02
    assert np.allclose(found.ramp_rad_per_px, np.negative(slope), atol=1e-3)
    assert found.scale == pytest.approx(1 / 1.4, rel=0.01)


def test_a_truth_in_the_gauge_of_an_image_is_that_image_everywhere():
    truth, slope, region = blobs(), (0.11, -0.23), (slice(5, -9), slice(7, -4))
    image = 1.4 * ramp(slope, -2.0) * blobs(1.3, -0.6)
    found = in_gauge_of(truth, image, region)
    assert np.linalg.norm((found - image)[INNER]) < 0.01 * np.linalg.norm(image[INNER])
    assert np.linalg.norm((found - truth)[INNER]) > np.linalg.norm(truth[INNER])


def test_a_shift_of_a_smooth_object_leaves_a_fiftieth_of_its_error_after_alignment():
    truth, moved = blobs(), blobs(1.3, -0.6)
    error = [
        np.linalg.norm((image - truth)[INNER])
        for image in (align(moved, truth).image, align(moved, truth, "unknown_probe").image)
    ]
    assert error[1] < 0.02 * error[0]


def test_the_found_shift_agrees_in_sign_and_size_with_scikit_image():
    truth, moved = blobs(), blobs(0.4, -1.3)
    window = np.outer(np.hanning(ROWS), np.hanning(COLUMNS))
    other, *_ = phase_cross_correlation(
        *(window * (o - o.mean()) for o in (truth, moved)), upsample_factor=100, normalization=None
    )
    assert np.allclose(align(moved, truth, "unknown_probe").shift_px, other, atol=0.05)


def test_the_image_is_what_the_stated_equation_gives():
    truth, spoilt = blobs(), 0.8 * ramp((0.05, 0.02), 0.3) * blobs(2, -1)
    found = align(spoilt, truth, "unknown_probe")
    r, c = np.mgrid[:ROWS, :COLUMNS]
    slope = found.ramp_rad_per_px
    flattened = spoilt * np.exp(1j * (slope[0] * (r - ROWS // 2) + slope[1] * (c - COLUMNS // 2)))
    by_hand = found.scale * np.exp(1j * found.phase_rad) * np.roll(flattened, (-2, 1), (0, 1))
    assert np.abs(found.image - by_hand)[INNER].max() < 1e-3


def test_noise_hides_neither_shift_nor_ramp_and_does_not_bias_them():
    truth, moved = blobs(), 1.2 * ramp((0.03, -0.02)) * blobs(0.8, -1.7)
    found = [align(moved + noise(0.4, seed), truth, "unknown_probe") for seed in range(8)]
    assert all(a.registered for a in found)
    assert np.allclose(np.mean([a.shift_px for a in found], 0), (-0.8, 1.7), atol=0.06)
    assert np.allclose(np.mean([a.ramp_rad_per_px for a in found], 0), (-0.03, 0.02), atol=4e-4)


def test_noise_shrinks_by_the_mean_modulus_where_least_squares_would_shrink_by_power():
    """|1 + n| is Rice distributed; a complex least-squares factor is 1 / (1 + sigma^2)."""
    truth, sigma = blobs() / np.abs(blobs()), 0.5
    noisy = truth + noise(sigma)
    s = sigma / np.sqrt(2)
    expected = 1 / rice.mean(1 / s, scale=s)
    least_squares = np.vdot(noisy, truth).real / np.vdot(noisy, noisy).real
    scale = align(noisy, truth, "unknown_probe").scale
    assert scale == pytest.approx(expected, abs=0.01)
    assert scale > 0.92 > 0.82 > least_squares


@pytest.mark.parametrize(
    "lost",
    [
        np.ones((ROWS, COLUMNS), complex),
        0.3j * ramp((0.2, -0.7)),
        (0.9 * ramp((0.011, 0.002))).astype(np.complex64),
        1 + noise(0.1, 5),
        blobs()[::-1, ::-1],
        blobs(5.0, 0.0),
    ],
    ids=["flat", "ramp", "float32 ramp", "flat with noise", "another object", "five pixels off"],
)
def test_what_does_not_show_the_object_registers_nowhere_and_says_so(lost):
    found = align(lost, blobs(), "unknown_probe")
    assert not found.registered
    assert np.array_equal(found.shift_px, (0, 0))
    assert np.abs(found.image).sum() == pytest.approx(np.abs(blobs()).sum(), rel=0.05)


def test_against_a_flat_truth_nothing_registers():
    assert not align(blobs(), np.ones((ROWS, COLUMNS), complex), "unknown_probe").registered


def test_noise_alone_is_not_called_registered():
    assert (
        sum(align(1 + noise(0.2, seed), blobs(), "unknown_probe").registered for seed in range(12))
        == 0
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda o: np.angle(o), "float64.*complex object"),
        (lambda o: o[None], "shape"),
        (lambda o: np.where(np.arange(COLUMNS) == 3, np.nan, o), "61 NaN"),
        (lambda o: o[:-1], r"\(60, 84\), truth \(61, 84\)"),
        (lambda o: 0 * o, "nothing to align"),
    ],
)
def test_an_image_that_cannot_be_aligned_is_refused_with_the_reason(change, says):
    for gauge in ("known_probe", "unknown_probe"):
        with pytest.raises(DataContractError, match=says):
            align(change(blobs()), blobs(), gauge)


def test_an_unknown_gauge_is_refused():
    with pytest.raises(ConfigError, match="'probe'.*known_probe, unknown_probe"):
        align(blobs(), blobs(), "probe")
