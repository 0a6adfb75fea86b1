"""Metrics against closed forms and against scikit-image and torchmetrics, on odd non-square complex
objects."""

import json

import numpy as np
import pytest
import torch
from scored_objects import NEAR, SHAPE, TRUTH, smooth
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)

from fly64lib.design.registries import METRICS
from fly64lib.evaluation.gauge import scored_region
from fly64lib.evaluation.scores import absences, json_rows, score, score_table
from fly64lib.evaluation.similarity import ms_ssim, ssim
from ptycho_torch.errors import DataContractError


def phases(reconstruction, truth):
    """Small phases, aligned and shifted to the truth's minimum by hand."""
    rotation = np.angle((reconstruction.conj() * truth).sum())
    return tuple(
        np.angle(o) - np.angle(truth).min() for o in (reconstruction * np.exp(1j * rotation), truth)
    )


def both(reconstruction, truth):
    return {
        "phase": phases(reconstruction, truth),
        "amplitude": (np.abs(reconstruction), np.abs(truth)),
    }


@pytest.mark.parametrize("name", METRICS)
def test_a_global_phase_of_either_object_changes_no_metric(name):
    for angle in (3.1, -1.7):
        assert METRICS[name](np.exp(1j * angle) * NEAR, TRUTH) == pytest.approx(
            METRICS[name](NEAR, TRUTH), rel=1e-9
        )
        assert METRICS[name](NEAR, np.exp(1j * angle) * TRUTH) == pytest.approx(
            METRICS[name](NEAR, TRUTH), rel=1e-9
        )


@pytest.mark.parametrize("quantity", ["phase", "amplitude"])
def test_psnr_is_that_of_scikit_image_with_the_range_of_the_truth(quantity):
    image, truth = both(NEAR, TRUTH)[quantity]
    expected = peak_signal_noise_ratio(truth, image, data_range=np.ptp(truth))
    assert METRICS[f"{quantity}_psnr"](NEAR, TRUTH) == pytest.approx(expected)


@pytest.mark.parametrize("quantity", ["phase", "amplitude"])
def test_ssim_and_ms_ssim_are_those_of_torchmetrics_where_the_window_fits(quantity):
    """torchmetrics averages SSIM, but not contrast, over a mirrored border as well: its own MS-SSIM
    is only near."""
    image, truth = (torch.from_numpy(a)[None, None] for a in both(NEAR, TRUTH)[quantity])
    data_range, betas = (
        float(truth.max() - truth.min()),
        np.array([0.0448, 0.2856, 0.3001]) / 0.6305,
    )
    whole = multiscale_structural_similarity_index_measure(
        image, truth, data_range=data_range, normalize="relu", betas=tuple(betas)
    )
    similarities, contrasts = [], []
    for _ in betas:
        _, full = structural_similarity_index_measure(
            image, truth, data_range=data_range, return_full_image=True
        )
        similarities.append(float(full[..., 5:-5, 5:-5].mean()))
        contrasts.append(
            float(
                structural_similarity_index_measure(
                    image, truth, data_range=data_range, return_contrast_sensitivity=True
                )[1]
            )
        )
        image, truth = (torch.nn.functional.avg_pool2d(a, 2) for a in (image, truth))
    three = np.prod(np.array([*contrasts[:2], similarities[2]]) ** betas)
    assert METRICS[f"{quantity}_ssim"](NEAR, TRUTH) == pytest.approx(similarities[0], abs=1e-6)
    assert METRICS[f"{quantity}_ms_ssim"](NEAR, TRUTH) == pytest.approx(three, abs=1e-6)
    assert METRICS[f"{quantity}_ms_ssim"](NEAR, TRUTH) == pytest.approx(float(whole), abs=0.03)


def test_an_inverted_image_has_ms_ssim_0_for_its_negative_contrast_is_clipped():
    image = smooth(5)
    assert ssim(image.max() - image, image - image.min()) < 0
    assert ms_ssim(image.max() - image, image - image.min()) == 0


def test_ms_ssim_needs_44_px_as_its_window_must_fit_on_the_third_scale():
    image = smooth(6, shape=(44, 51))
    assert ms_ssim(image, image) == pytest.approx(1)
    with pytest.raises(DataContractError, match="43 x 51 px.*44 px"):
        ms_ssim(image[1:], image[1:])


@pytest.mark.parametrize(
    ("shape", "lacking"),
    [((44, 51), 0), ((30, 33), 2), ((11, 40), 2), ((10, 40), 4), ((3, 40), 6)],
)
def test_metrics_that_do_not_exist_on_a_small_region_are_absent_with_their_reason(shape, lacking):
    truth = (1 - 0.1 * smooth(3, shape=shape) / 9) * np.exp(0.3j * smooth(2, shape=shape))
    near = truth * np.exp(0.02j * smooth(4, shape=shape))
    near_row, flat, true = score_table({"near": near}, truth)
    values = {name: near_row[name] for name in METRICS}
    assert sum(np.isnan(list(values.values()))) == lacking
    assert np.isfinite(near_row["phase_psnr"])
    reasons = absences([near_row, flat, true])
    assert len(reasons) == bool(lacking)
    for reason in reasons:
        assert "phase MS-SSIM" in reason and f"{shape[0]} x {shape[1]} px are scored" in reason


def test_a_checkerboard_of_phase_errors_has_their_size_as_mae_and_its_square_as_mse():
    truth, epsilon = np.exp(0.3j * smooth(2, shape=(60, 82))), 0.02
    wrong = truth * np.exp(1j * epsilon * (-1.0) ** np.indices(truth.shape).sum(0))
    assert METRICS["phase_mae"](wrong, truth) == pytest.approx(epsilon)
    assert METRICS["phase_mse"](wrong, truth) == pytest.approx(epsilon**2)
    assert METRICS["phase_psnr"](wrong, truth) == pytest.approx(
        20 * np.log10(np.ptp(np.angle(truth)) / epsilon)
    )


def test_a_random_phase_is_off_by_half_pi_on_average():
    random = np.exp(2j * np.pi * np.random.default_rng(0).random((200, 201)))
    truth = np.exp(0.2j * smooth(1, shape=random.shape))
    assert METRICS["phase_mae"](random, truth) == pytest.approx(np.pi / 2, abs=0.03)
    assert METRICS["phase_mse"](random, truth) == pytest.approx(np.pi**2 / 3, abs=0.1)


def test_no_jump_of_two_pi_is_seen_in_an_object_of_several_turns():
    phase, error = 3.0 * smooth(2, 6.0), 0.05 * smooth(4)
    error -= np.angle(np.exp(1j * error).mean())
    truth, near = np.exp(1j * phase), np.exp(1j * (phase + error))
    assert np.ptp(phase) > 3 * np.pi
    assert METRICS["phase_psnr"](near, truth) == pytest.approx(
        peak_signal_noise_ratio(phase, phase + error, data_range=np.ptp(phase)), abs=1e-3
    )
    assert METRICS["phase_ssim"](near, truth) == pytest.approx(
        structural_similarity(
            phase + error - phase.min(),
            phase - phase.min(),
            data_range=np.ptp(phase),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        ),
        abs=1e-5,
    )


def test_with_a_known_probe_a_wrong_scale_of_the_amplitude_is_an_error():
    mean = np.abs(TRUTH).mean()
    assert METRICS["amplitude_mae"](1.1 * TRUTH, TRUTH) == pytest.approx(0.1 * mean)
    assert METRICS["amplitude_mse"](1.1 * TRUTH, TRUTH) == pytest.approx(
        0.01 * (np.abs(TRUTH) ** 2).mean()
    )
    assert METRICS["phase_mae"](1.1 * TRUTH, TRUTH) == pytest.approx(0, abs=1e-12)


def test_a_pure_phase_object_has_no_amplitude_range_so_psnr_and_ssim_do_not_exist_but_errors_do():
    truth = np.exp(0.3j * smooth(2)).astype(np.complex64)
    values = score(NEAR, truth)
    assert all(np.isnan(values[f"amplitude_{name}"]) for name in ("psnr", "ssim", "ms_ssim"))
    assert values["amplitude_mae"] > 0 and np.isfinite(values["phase_psnr"])


def test_score_gives_the_numbers_of_all_metrics_from_one_alignment():
    assert score(NEAR, TRUTH) == {name: metric(NEAR, TRUTH) for name, metric in METRICS.items()}


def test_with_an_unknown_probe_ramp_shift_scale_and_phase_cost_nothing():
    canvas = (1 + 0.05 * smooth(1, 3.0, (90, 110))) * np.exp(0.3j * smooth(2, 3.0, (90, 110)))
    r, c = np.mgrid[:60, :80]
    truth = canvas[10:70, 10:90]
    moved = 1.3 * np.exp(1j * (0.02 * r - 0.05 * c)) * canvas[9:69, 12:92]
    known, free = score(moved, truth), score(moved, truth, "unknown_probe")
    assert known["phase_psnr"] < 10 and known["amplitude_mae"] > 0.2
    assert free["phase_psnr"] > 50 and free["amplitude_psnr"] > 50 and free["phase_ms_ssim"] > 0.999
    assert free["frc_half"] == 1


def test_skill_is_0_for_flat_1_for_truth_and_decibels_above_flat_for_psnr():
    assert METRICS["phase_mae"].skill(0.1, flat=0.4, truth=0.0) == pytest.approx(0.75)
    assert METRICS["amplitude_ssim"].skill(0.2, flat=0.2, truth=1.0) == 0
    assert METRICS["phase_psnr"].skill(17.0, flat=11.0, truth=float("inf")) == 6.0
    assert np.isnan(METRICS["amplitude_mae"].skill(0.2, flat=0.0, truth=0.0))


@pytest.mark.parametrize("gauge", ["known_probe", "unknown_probe"])
def test_every_table_closes_with_the_flat_object_and_the_truth_and_fits_into_json(gauge):
    rows = score_table({"near": NEAR}, TRUTH, gauge)
    near, flat, truth = rows
    assert [row["method"] for row in rows] == ["near", "flat", "truth"]
    assert {f"{name}{end}" for name in METRICS for end in ("", "_skill")} | {"method"} == set(near)
    assert all(flat[f"{name}_skill"] == 0 for name in METRICS)
    assert all(
        truth[f"{name}_skill"] == pytest.approx(1) for name in METRICS if not name.endswith("psnr")
    )
    assert truth["phase_psnr"] == truth["amplitude_psnr_skill"] == float("inf")
    assert (
        0 < near["phase_ssim_skill"] < 1
        and near["phase_psnr_skill"] == near["phase_psnr"] - flat["phase_psnr"]
    )
    back = json.loads(json.dumps(json_rows(rows), allow_nan=False))
    assert back[2]["phase_psnr"] is None and back[0] == near


def test_the_names_flat_and_truth_belong_to_those_objects():
    rows = score_table(
        {"truth": TRUTH.astype(np.complex64), "near": NEAR, "flat": np.ones(SHAPE, complex)}, TRUTH
    )
    assert [row["method"] for row in rows] == ["near", "flat", "truth"]
    with pytest.raises(DataContractError, match="'flat' is not the flat object"):
        score_table({"flat": NEAR}, TRUTH)


def test_on_the_real_star_a_flat_object_gets_11_db_of_phase_and_17_db_of_amplitude_not_57(
    real_scan_path,
):
    with np.load(real_scan_path, allow_pickle=False) as scan:
        x, y, star = scan["xcoords"], scan["ycoords"], scan["objectGuess"]
    lower = y < 115
    flat = score_table({}, star[scored_region(x[lower], y[lower], star.shape)])[0]
    assert flat["phase_psnr"] == pytest.approx(11.3, abs=0.1) and flat[
        "amplitude_psnr"
    ] == pytest.approx(16.9, abs=0.1)
    assert flat["phase_ssim"] < 0.2 and flat["amplitude_ssim"] < 0.2 and flat["frc_half"] == 0
