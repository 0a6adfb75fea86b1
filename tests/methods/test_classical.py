"""The classical control: the object of bright data, the weight chosen without truth, the probe
refined with it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, seen_region, small_raw

from fly64lib.evaluation.judgement import judge
from fly64lib.methods import penalised_fit
from fly64lib.methods.base import MethodResult
from fly64lib.methods.classical import Classical
from fly64lib.reconstruction import MethodSettings, ReconstructionJob
from fly64lib.simulation.probes import defocused
from ptycho_torch.data.contract import ScanData
from ptycho_torch.errors import ConfigError, PtychoError
from ptycho_torch.files import json_text
from ptycho_torch.iteration import exposures
from ptycho_torch.memmap_bridge import RawDataTorch

GEOMETRY = {"N": 32, "across": 7}


def quality(result: MethodResult, raw: RawDataTorch) -> float:
    region = seen_region(raw)
    return oracle.psnr_phase(result.object[region], raw.object_guess.numpy()[region])


def photons(probe: np.ndarray) -> float:
    return float((np.abs(probe) ** 2).sum())


def test_bright_data_and_the_true_probe_give_the_object_on_the_files_own_canvas():
    raw = small_raw(1e7, **GEOMETRY)
    scan = raw.scan
    # Patches start off the corner of this canvas.
    margin = np.pad(scan.object_guess, ((3, 0), (5, 2)), constant_values=1)
    moved = replace(scan, object_guess=margin, xcoords=scan.xcoords + 5, ycoords=scan.ycoords + 3)
    result = Classical(weight=0.01, steps=48).reconstruct(RawDataTorch(moved, "scan"))
    assert result.object.dtype == np.complex64 and result.object.shape == margin.shape
    assert quality(replace(result, object=result.object[3:, 5:-2]), raw) > 40
    first = int(np.rint(moved.xcoords - 16).min())
    assert (result.object[:, :first] == 1).all()
    steps = [row["step"] for row in result.trace]
    assert result.probe is None and steps == [0, 16, 48]
    assert result.trace[-1]["deviance"] < 0.2 * result.trace[0]["deviance"]


def test_the_weight_chosen_on_held_out_photons_beats_no_penalty_where_photons_are_few():
    raw = small_raw(300, **GEOMETRY)
    given = [quality(Classical(weight=w).reconstruct(raw), raw) for w in (0.0, 3.0, 30.0)]
    result = Classical().reconstruct(raw)
    assert result.settings["weight"] > 0 and "held out" in result.note
    assert quality(result, raw) > max(given) + 0.2


def test_refining_recovers_a_defocused_probe_in_photons_and_the_object_with_it():
    raw = small_raw(1e5, **GEOMETRY)
    wrong = {"probe_defocus_rad": 0.7, "tikhonov": 1.0, "joint_steps": 100, "weight": 3.0}
    kept = Classical(**wrong).reconstruct(raw)
    refined = Classical(**wrong, probe="refine").reconstruct(raw)
    true = raw.probe.numpy()

    def likeness(probe: np.ndarray) -> float:
        return abs(np.vdot(probe, true)) / np.linalg.norm(probe) / np.linalg.norm(true)

    start = defocused(raw.probe, 0.7).numpy()
    assert likeness(start) < 0.95 and likeness(refined.probe) > 0.985
    assert photons(refined.probe) == pytest.approx(photons(true), rel=1e-4)
    assert quality(refined, raw) > quality(kept, raw) + 3
    assert refined.trace[-1]["deviance"] < kept.trace[-1]["deviance"]


def test_modes_that_the_file_lacks_are_found():
    """Counts of a two-mode beam, a file that knows one: its exact shape, and all of the photons."""
    raw = small_raw(1e5, modes=2, **GEOMETRY)
    probe, light = raw.scan.probe, photons(raw.scan.probe)
    alone = raw.under(probe[:1] * np.float32((light / photons(probe[0])) ** 0.5))
    how = {"tikhonov": 1.0, "joint_steps": 150, "weight": 3.0, "probe": "refine"}
    one, two = (Classical(**how, probe_modes=count).reconstruct(alone) for count in (1, 2))
    assert two.probe.shape == (2, 32, 32) and photons(two.probe) == pytest.approx(light, rel=1e-4)
    assert np.abs(np.vdot(two.probe[0], two.probe[1])) < 1e-3 * light
    assert two.trace[-1]["deviance"] < 0.6 * one.trace[-1]["deviance"]
    assert quality(two, raw) > quality(one, raw) + 6
    true = np.linalg.svd(probe.reshape(2, -1), compute_uv=False)[1] ** 2 / light
    assert photons(two.probe[1]) / light == pytest.approx(true, rel=0.1)


def test_a_result_carries_settings_and_trace_that_json_holds():
    result = Classical(steps=3).reconstruct(small_raw(1e3, **GEOMETRY))
    assert json_text(result.settings) and json_text(result.trace) and result.note


def test_an_object_that_is_not_finite_is_an_error():
    raw = small_raw(1e3, **GEOMETRY)
    with pytest.raises(PtychoError, match="not finite after 3 steps: the probe does not fit"):
        Classical(weight=0.0, steps=3).reconstruct(raw.under(raw.scan.probe * np.complex64(1e20)))


def test_only_a_method_that_finds_modes_is_asked_for_them():
    job = ReconstructionJob(1e3, "dense", "test", "classical", Path("data.npz"), Path("out"))
    settings = MethodSettings(probe="refine", probe_modes=3)
    assert settings.method(job).probe_modes == 3
    with pytest.raises(
        ConfigError, match="probe_modes=3 is for classical; lsqml takes the file's probe as it is"
    ):
        settings.method(replace(job, method="lsqml"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"knob": "guess"},
        {"probe": "unknown"},
        {"steps": 0},
        {"keep": 1.5},
        {"weight": -1.0},
        {"slope": 0.0},
        {"amplitude": 0.0},
        {"tikhonov": -1.0},
        {"probe_modes": 0},
        {"probe_modes": 2},
    ],
    ids=str,
)
def test_settings_without_meaning_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Classical(**wrong)


def test_jittered_positions_are_found_on_the_way_and_right_ones_stay():
    """Compared with a shift free: a common one of all positions is one of the object."""
    raw = small_raw(1e5, N=32, across=9)
    psnr, moved = {}, {}
    for jitter_px in (0.0, 0.4):
        away = jitter_px * np.random.default_rng(3).normal(size=(2, raw.n))
        y, x = raw.scan.ycoords + away[0], raw.scan.xcoords + away[1]
        scan = RawDataTorch(replace(raw.scan, ycoords=y, xcoords=x), raw.source)
        for unknown in ((), ("positions",)):
            method = Classical(unknown=unknown, weight=30.0, joint_steps=60)
            found = method.reconstruct(scan.without_truth())
            row = judge({"one": found.object}, raw, gauge="unknown_probe")[0]
            psnr[jitter_px, unknown] = row["phase_psnr"]
            if unknown:
                moved[jitter_px] = np.abs(found.positions - scan.scan.positions).max()
    assert moved[0.0] < 1e-3 and moved[0.4] > 0.4
    assert psnr[0.0, ("positions",)] == pytest.approx(psnr[0.0, ()], abs=0.1)
    assert psnr[0.4, ("positions",)] > psnr[0.4, ()] + 8
    assert psnr[0.4, ("positions",)] > psnr[0.0, ()] - 6


def test_positions_are_kept_where_photons_held_out_ask_for_them_and_else_put_back():
    scan = small_raw(1e5, N=32, across=5)
    right, random = scan.patterns(), torch.Generator().manual_seed(0)
    away = torch.randn(scan.n, 2, generator=random)
    off = replace(right, geometry=exposures.moved(right.geometry, away))
    settings = Classical(unknown=("positions",))
    for found, stated in ((off, right), (right, off)):
        best, _ = penalised_fit._chosen(scan, found, stated.geometry, settings, lambda: None)
        assert torch.equal(
            exposures.positions_of(best.geometry), exposures.positions_of(right.geometry)
        )
        assert (best is right) == (found is right)


MOTION_PX = 4.0


@pytest.fixture(scope="module")
def still_and_moving() -> dict[str, RawDataTorch]:
    """The same exposures of a sample at rest and of one that moves on, simulated by the oracle."""
    image, probe, y, x, still = geometry(N=32, across=8)
    way = np.gradient(np.stack([y, x], 1), axis=0)
    way /= np.hypot(*way.T)[:, None]
    shares = (np.arange(16) + 0.5) / 16 - 0.5  # twice as many as the model has
    at = [np.stack([y, x], 1) + share * MOTION_PX * way for share in shares]
    moving = np.mean([oracle.expected_counts(image, probe, *one.T) for one in at], 0)
    made = {}
    for name, expected in {"still": still, "moving": moving}.items():
        counts = np.random.default_rng(0).poisson(1e5 * expected / expected.sum((1, 2)).mean())
        beam = probe * (1e5 / expected.sum((1, 2)).mean()) ** 0.5
        scan = ScanData(np.sqrt(counts).astype(np.float32), x, y, beam.astype(np.complex64), image)
        made[name] = RawDataTorch(scan, Path(f"{name}.npz"))
    return made


def test_a_moving_sample_is_explained_by_its_way(still_and_moving):
    raw = still_and_moving["moving"]
    blurred, found = (Classical(motion_px=px).reconstruct(raw) for px in (0.0, MOTION_PX))
    assert quality(found, raw) > quality(blurred, raw) + 3
    perfect = 1.1  # and what a few per cent of the photons in the noise may add
    assert found.trace[-1]["deviance"] < perfect < blurred.trace[-1]["deviance"]


def test_a_sample_at_rest_is_left_at_rest(still_and_moving):
    raw = still_and_moving["still"]
    still, asked = (Classical(motion_px=px).reconstruct(raw) for px in (0.0, MOTION_PX))
    assert "at rest, which photons held out prefer" in asked.note
    assert quality(asked, raw) == pytest.approx(quality(still, raw), abs=0.1)


def test_a_way_asks_for_a_known_probe_and_known_exposures():
    for other in ({"probe": "refine"}, {"unknown": ("positions",)}):
        with pytest.raises(ConfigError, match="motion_px=4"):
            Classical(motion_px=MOTION_PX, **other)
