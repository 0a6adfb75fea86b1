"""The classical control, the reference rows, and what all methods share."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, seen_region, small_raw, small_scan

from fly64lib.methods.base import MethodResult, orthogonal_modes, photons_restored, with_modes
from fly64lib.methods.classical import (
    Classical,
    empty,
    expected_discrepancy,
    fit,
    joint_gradient,
    roughness_gradient,
)
from fly64lib.methods.reference import Flat, Truth
from fly64lib.reconstruction import MethodSettings, ReconstructionJob
from fly64lib.simulation.probes import defocused
from ptycho_torch.data.contract import ScanData, write_scan
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.files import json_text
from ptycho_torch.iteration.canvas import _DARK, Patterns, canvas_steps, gradient
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.features import view_layout
from ptycho_torch.physics.noise import perfect_deviance

GEOMETRY = {"N": 32, "across": 7}


def patterns_of(raw, probe=None) -> Patterns:
    layout = view_layout(raw.positions, raw.N)
    counts = raw.counts(slice(None))
    return Patterns(
        lambda i: counts[i],
        layout.address,
        layout.residual_px,
        raw.probe if probe is None else probe,
        layout.shape,
    )


def quality(result: MethodResult | np.ndarray, raw) -> float:
    image = result.object if isinstance(result, MethodResult) else result
    region = seen_region(raw)
    return oracle.psnr_phase(image[region], raw.object_guess.numpy()[region])


def written(folder: Path, scan: ScanData) -> Path:
    write_scan(folder / "scan.npz", scan)
    return folder / "scan.npz"


def test_the_roughness_gradient_is_the_slope_of_the_summed_squared_differences_of_neighbours():
    rng = np.random.default_rng(3)
    at, towards = oracle.complex_field(rng, 5, 8), oracle.complex_field(rng, 5, 8)

    def roughness(image: np.ndarray) -> float:
        return sum((np.abs(np.diff(image, axis=axis)) ** 2).sum() for axis in (0, 1))

    slope = roughness_gradient(torch.from_numpy(at)[None])[0].numpy()
    assert 2 * np.vdot(slope, towards).real == pytest.approx(
        (roughness(at + 1e-5 * towards) - roughness(at - 1e-5 * towards)) / 2e-5, rel=1e-7
    )


def test_the_joint_gradient_is_the_slope_of_the_likelihood_along_object_and_probe():
    image, probe, y, x, expected = geometry(N=8, across=3, modes=2)
    rng = np.random.default_rng(5)
    probe = probe * 30
    counts = rng.poisson(expected * 900).astype(float)
    layout = view_layout(torch.from_numpy(np.stack([y, x], 1)), 8)
    (top, left), (_, height, width) = layout.origin[0].tolist(), layout.shape
    image = image[top : top + height, left : left + width] * (
        1 + 0.1 * oracle.complex_field(rng, height, width)
    )
    patterns = Patterns(
        lambda i: torch.from_numpy(counts)[i],
        layout.address,
        layout.residual_px.double(),
        torch.from_numpy(probe),
        layout.shape,
    )
    slopes = joint_gradient(torch.from_numpy(image)[None], patterns.probe, patterns)

    def likelihood(image: np.ndarray, probe: np.ndarray) -> float:
        expected = oracle.expected_counts(image, probe, y - top, x - left)
        return (expected - (counts + _DARK) * np.log(expected + _DARK)).sum()

    for which, slope in enumerate(slopes):
        point = [image, probe]
        towards = oracle.complex_field(rng, *point[which].shape)
        ends = []
        for sign in (1, -1):
            moved = list(point)
            moved[which] = point[which] + sign * 1e-5 * towards
            ends.append(likelihood(*moved))
        assert 2 * np.vdot(slope.numpy().reshape(towards.shape), towards).real == pytest.approx(
            (ends[0] - ends[1]) / 2e-5, rel=1e-4
        )


def test_with_a_known_probe_and_no_penalty_the_fit_is_the_canvas_iteration():
    patterns = patterns_of(small_raw(1e4, **GEOMETRY))
    own, _ = fit(patterns, empty(patterns), 0.0, 12)
    torch.testing.assert_close(
        own, canvas_steps(patterns, empty(patterns), 12), rtol=1e-4, atol=1e-4
    )


def test_bright_data_and_the_true_probe_give_the_object_on_the_files_own_canvas(tmp_path):
    raw = small_raw(1e7, **GEOMETRY)
    scan = raw.scan
    margin = np.pad(
        scan.object_guess, ((3, 0), (5, 2)), constant_values=1
    )  # patches start off the corner of this canvas
    moved = replace(scan, object_guess=margin, xcoords=scan.xcoords + 5, ycoords=scan.ycoords + 3)
    result = Classical(tikhonov=0.0, steps=100).reconstruct(written(tmp_path, moved))
    assert result.object.dtype == np.complex64 and result.object.shape == margin.shape
    assert quality(result.object[3:, 5:-2], raw) > 40
    first = int(np.rint(moved.xcoords - 16).min())
    assert (result.object[:, :first] == 1).all()
    assert result.probe is None and [row["step"] for row in result.trace] == [
        1,
        *range(10, 101, 10),
    ]
    assert result.trace[-1]["deviance"] < 0.1 * result.trace[0]["deviance"]


def test_the_weight_chosen_on_held_out_photons_beats_no_penalty_where_photons_are_few(tmp_path):
    raw = small_raw(300, **GEOMETRY)
    path = written(tmp_path, raw.scan)
    by_weight = {
        weight: quality(Classical(tikhonov=weight).reconstruct(path), raw)
        for weight in (0.0, 3.0, 30.0)
    }
    result = Classical().reconstruct(path)
    assert result.settings["tikhonov"] > 0 and "held out" in result.note
    assert quality(result, raw) > max(by_weight[0.0] + 3, max(by_weight.values()) - 1.5)


def test_the_search_ends_behind_the_valley_and_finds_what_all_weights_would(tmp_path):
    """Weights far beyond the valley change nothing, and are not fitted."""
    path = written(tmp_path, small_scan(1e3, **GEOMETRY))
    result = Classical(weights=(0.0, 0.001, 0.01, 3.0, 30.0, 300.0), steps=20).reconstruct(path)
    tried = dict(zip(result.settings["weights"], result.settings["searched_deviance"], strict=True))
    fitted = [weight for weight, deviance in tried.items() if deviance is not None]
    assert len(fitted) < len(tried) and fitted == sorted(tried)[-len(fitted) :]
    assert result.settings["tikhonov"] == min(fitted, key=tried.get) and tried[fitted[0]] > min(
        map(tried.get, fitted)
    )


def test_a_weight_chosen_without_truth_ignores_the_files_object(tmp_path):
    scan = small_scan(1e3, **GEOMETRY)
    other = replace(scan, object_guess=np.ones_like(scan.object_guess))
    method = Classical(weights=(0.0, 3.0, 30.0), steps=20, search_steps=6)
    first = method.reconstruct(written(tmp_path, scan))
    second = method.reconstruct(written(tmp_path, other))
    np.testing.assert_array_equal(first.object, second.object)
    assert first.settings == second.settings


def test_the_discrepancy_takes_the_largest_weight_that_explains_the_counts(tmp_path):
    raw = small_raw(1e3, **GEOMETRY)
    path = written(tmp_path, raw.scan)
    result = Classical(knob="discrepancy").reconstruct(path)
    weights, chosen = result.settings["weights"], result.settings["tikhonov"]
    patterns = patterns_of(raw)
    for weight, explains in ((chosen, True), (weights[weights.index(chosen) + 1], False)):
        canvas, _ = fit(patterns, empty(patterns), weight, 60)
        deviance = float(gradient(canvas, patterns)[1]) / (raw.n * raw.N**2)
        assert (deviance <= expected_discrepancy(patterns, canvas)) == explains
    assert quality(result, raw) > quality(Classical(tikhonov=0.0).reconstruct(path), raw)


def test_an_object_that_explains_nothing_is_told_by_the_discrepancys_note(tmp_path):
    scan = small_scan(1e5, **GEOMETRY)
    wrong = replace(scan, probe=np.roll(scan.probe, 7, axis=-1) * np.complex64(2))
    result = Classical(knob="discrepancy", steps=3, search_steps=3).reconstruct(
        written(tmp_path, wrong)
    )
    assert result.settings["tikhonov"] == 0 and "no fit reached" in result.note


def test_the_expected_discrepancy_is_the_mean_of_the_perfect_deviance():
    raw = small_raw(1e3, **GEOMETRY)
    _, probe, y, x, _ = geometry(**GEOMETRY)
    expected = oracle.expected_counts(raw.object_guess.numpy(), raw.probe.numpy(), y, x)
    patterns = patterns_of(raw)
    (top, left), (_, height, width) = (
        view_layout(raw.positions, raw.N).origin[0].tolist(),
        patterns.canvas_shape,
    )
    canvas = raw.object_guess[None, top : top + height, left : left + width]
    assert expected_discrepancy(patterns, canvas) == pytest.approx(
        float(perfect_deviance(torch.from_numpy(expected)).mean()), rel=1e-3
    )


def test_refining_recovers_a_defocused_probe_in_photons_and_the_object_with_it(tmp_path):
    raw = small_raw(1e5, **GEOMETRY)
    path = written(tmp_path, raw.scan)
    wrong = {"probe_defocus_rad": 0.7, "tikhonov": 1.0, "steps": 100}
    kept = Classical(**wrong).reconstruct(path)
    refined = Classical(**wrong, probe="refine").reconstruct(path)

    def likeness(probe: np.ndarray) -> float:
        return (
            abs(np.vdot(probe, raw.probe.numpy()))
            / np.linalg.norm(probe)
            / np.linalg.norm(raw.probe.numpy())
        )

    start = defocused(raw.probe, 0.7).numpy()
    assert likeness(start) < 0.95 and likeness(refined.probe) > 0.985
    assert (np.abs(refined.probe) ** 2).sum() == pytest.approx(
        (np.abs(raw.probe.numpy()) ** 2).sum(), rel=1e-4
    )
    assert quality(refined, raw) > quality(kept, raw) + 3
    assert refined.trace[-1]["deviance"] < kept.trace[-1]["deviance"]


def test_a_defocused_probe_keeps_its_power_and_comes_back_under_the_opposite_defocus():
    probe = torch.from_numpy(geometry(N=16, across=3, modes=2)[1])
    wrong = defocused(probe, 1.0)
    assert float(wrong.abs().square().sum()) == pytest.approx(
        float(probe.abs().square().sum()), rel=1e-6
    )
    before, after = oracle.far_field(probe.numpy()), oracle.far_field(wrong.numpy())
    q = np.arange(16) - 8
    square = q[:, None] ** 2 + q**2
    mean = (square * np.abs(before) ** 2).sum() / (np.abs(before) ** 2).sum()
    np.testing.assert_allclose(
        after, before * np.exp(1j * square / mean), atol=1e-6
    )  # only phases turn, 1 rad in the mean
    torch.testing.assert_close(defocused(wrong, -1.0), probe)


def test_restoring_the_photons_leaves_the_exit_waves_alone():
    rng = np.random.default_rng(2)
    image, probe = oracle.complex_field(rng, 5, 5), oracle.complex_field(rng, 2, 5, 5)
    same, scaled = photons_restored(image, probe, 123.0)
    assert (np.abs(scaled) ** 2).sum() == pytest.approx(123.0)
    np.testing.assert_allclose(same * scaled, image * probe)


def test_flat_is_the_empty_object_and_truth_only_what_is_said_to_be_true(tmp_path):
    scan = small_scan(1e3, **GEOMETRY)
    path = written(tmp_path, scan)
    assert (Flat().reconstruct(path).object == np.ones(scan.canvas_shape)).all()
    np.testing.assert_array_equal(Truth().reconstruct(path).object, scan.object_guess)
    measured = replace(scan, metadata={"object_kind": "reconstruction"})
    with pytest.raises(DataContractError, match="object_kind is 'reconstruction'"):
        Truth().reconstruct(written(tmp_path, measured))
    with pytest.raises(DataContractError, match="'not stated'"):
        Truth().reconstruct(written(tmp_path, replace(scan, metadata={})))


@pytest.mark.parametrize(
    "method", [Flat(), Truth(), Classical(steps=2, search_steps=1)], ids=lambda method: method.name
)
def test_every_result_carries_its_cost_and_settings_that_json_holds(method, tmp_path):
    result = method.reconstruct(written(tmp_path, small_scan(1e3, **GEOMETRY)))
    assert result.seconds > 0 and result.cpu_seconds >= 0
    assert result.peak_memory_mb is None or result.peak_memory_mb > 10
    assert json_text(result.settings) and json_text(result.trace) and result.note


def test_modes_that_the_file_lacks_are_found(tmp_path):
    """Counts of a two-mode beam, a file that knows one: its exact shape, and all of the photons."""
    scan = small_scan(1e5, modes=2, **GEOMETRY)
    raw, photons = RawDataTorch(scan, Path("scan.npz")), (np.abs(scan.probe) ** 2).sum()
    alone = replace(
        scan,
        probe=scan.probe[:1] * np.float32((photons / (np.abs(scan.probe[0]) ** 2).sum()) ** 0.5),
    )
    path, how = written(tmp_path, alone), {"tikhonov": 1.0, "steps": 150, "probe": "refine"}
    one, two = (Classical(**how, probe_modes=count).reconstruct(path) for count in (1, 2))
    assert two.probe.shape == (2, 32, 32) and (np.abs(two.probe) ** 2).sum() == pytest.approx(
        photons, rel=1e-4
    )
    assert np.abs(np.vdot(two.probe[0], two.probe[1])) < 1e-3 * photons
    assert two.trace[-1]["deviance"] < 0.6 * one.trace[-1]["deviance"]
    assert quality(two, raw) > quality(one, raw) + 6
    second = (np.abs(two.probe[1]) ** 2).sum() / photons
    true = np.linalg.svd(scan.probe.reshape(2, -1), compute_uv=False)[1] ** 2 / photons
    assert second == pytest.approx(true, rel=0.1)


def test_a_start_of_modes_keeps_power_and_what_is_there_and_orthogonal_modes_the_intensity():
    probe = small_raw(1e4, modes=2, **GEOMETRY).probe
    more = with_modes(probe, 5)
    power = more.abs().square().sum((1, 2))
    assert more.shape == (5, 32, 32) and float(power.sum()) == pytest.approx(
        float(probe.abs().square().sum()), rel=1e-5
    )
    torch.testing.assert_close(more[:2] / more[:2].abs().max(), probe / probe.abs().max())
    assert (
        float(power[2:].max()) < 0.015 * float(power.sum())
        and torch.linalg.matrix_rank(more.flatten(1)) == 5
    )
    torch.testing.assert_close(with_modes(probe, 1), probe)
    torch.testing.assert_close(with_modes(probe, 2), probe)
    other = orthogonal_modes(more)
    patches = torch.exp(1j * torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(
        *(torch.fft.fft2(beam * patches).abs().square().sum(1) for beam in (other, more)),
        rtol=1e-3,
        atol=1e-2,
    )
    overlaps = other.flatten(1) @ other.flatten(1).conj().T
    assert float((overlaps - torch.diag(overlaps.diagonal())).abs().max()) < 1e-3 * float(
        power.sum()
    )


def test_only_the_classical_row_is_asked_for_modes():
    job = ReconstructionJob(1e3, "dense", "test", "classical", Path("data.npz"), Path("out"))
    settings = MethodSettings(probe="refine", probe_modes=3)
    assert settings.method(job).probe_modes == 3
    with pytest.raises(
        ConfigError, match="probe_modes=3 is for classical; lsqml keeps the modes of the file"
    ):
        settings.method(replace(job, method="lsqml"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"knob": "guess"},
        {"probe": "unknown"},
        {"steps": 0},
        {"keep": 1.5},
        {"weights": ()},
        {"weights": (-1.0,)},
        {"tikhonov": -1.0},
        {"probe_modes": 0},
        {"probe_modes": 2},
    ],
    ids=str,
)
def test_settings_without_meaning_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Classical(**wrong)
