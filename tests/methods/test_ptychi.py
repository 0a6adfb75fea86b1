"""pty-chi behind our protocol: its object lies on our canvas, its probe is in photons, and its
silent failures are errors.

Each run is a real one, in a process of its own, on counts of the oracle's physics. Most of the
processes are forked by the project's server, as a study's are.
"""

import importlib.util
import os
import subprocess
from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from small_scan import seen_region, small_raw, small_scan

from fly64lib.design.study import ScanDesign, split_file
from fly64lib.evaluation.detector_grid import DetectorGrid
from fly64lib.evaluation.gauge import align
from fly64lib.evaluation.judgement import judge, on_detector_grid
from fly64lib.generation import generate_datasets
from fly64lib.methods.forked import SERVER
from fly64lib.methods.ptychi import DM, LSQML, RPIE, LSQMLFine
from fly64lib.simulation.probes import defocused
from ptycho_torch.errors import ConfigError, DataContractError, MissingDependencyError, PtychoError
from ptycho_torch.files import json_text
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan

GEOMETRY = {"N": 32, "across": 7}


@pytest.fixture
def forked(monkeypatch, served):
    monkeypatch.setenv(SERVER, served[SERVER])


def quality(image: np.ndarray, raw: RawDataTorch) -> float:
    region = seen_region(raw)
    return oracle.psnr_phase(image[region], raw.scan.object_guess[region])


@pytest.mark.slow
def test_from_bright_data_lsqml_puts_the_object_on_our_canvas_to_a_fiftieth_of_a_pixel():
    """Sub-pixel positions, a canvas of odd sides with the scan off its middle, only the global
    phase removed; rows and columns of the detector not measured, which taken for zeros leave 22
    dB."""
    scan, mask = small_scan(1e7, **GEOMETRY), np.ones((32, 32), bool)
    mask[:, 13:16] = mask[20:22] = False
    down, right = 4 + (scan.canvas_shape[0] + 4 + 1) % 2, 7 + (scan.canvas_shape[1] + 7 + 1) % 2
    wider = np.pad(scan.object_guess, ((down, 0), (right, 0)), constant_values=1)
    assert wider.shape[0] % 2 and wider.shape[1] % 2
    seen = {"diffraction": scan.diffraction * mask, "detector_mask": mask, "object_guess": wider}
    shifted = {"xcoords": scan.xcoords + right, "ycoords": scan.ycoords + down}
    moved = RawDataTorch(replace(scan, **seen, **shifted), "moved.npz")
    result = LSQML(epochs=60, batch_size=30).reconstruct(moved)
    assert result.object.shape == wider.shape and result.object.dtype == np.complex64
    assert result.probe is None and quality(result.object, moved) > 45
    region = seen_region(moved)
    found = align(result.object[region], wider[region], "unknown_probe")
    assert found.registered and np.abs(found.shift_px).max() < 0.02
    assert np.abs(found.ramp_rad_per_px).max() < 2e-3
    # The probe's photons set the object's scale: pty-chi kept it as it was.
    assert found.scale == pytest.approx(1, abs=0.003)
    assert [row["epoch"] for row in result.trace] == list(range(1, 61))
    # pty-chi counts the masked pixels' misfit too, which stays.
    assert result.trace[-1]["loss"] < 0.8 * result.trace[0]["loss"]
    assert result.cost.seconds > 0 and result.cost.cpu_seconds > 0
    assert result.settings["noise_model"] == "poisson" and json_text(result.settings)
    assert "pty-chi" in result.note


@pytest.mark.parametrize("further", ["1", "4"])
def test_a_worker_gets_the_threads_asked_for_and_else_the_environment_that_a_server_has(
    monkeypatch, further
):
    seen = {}

    def started(command, **given):
        seen.update(given["env"])
        raise OSError("not started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MKL_NUM_THREADS", further)  # as Snakemake does
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with pytest.raises(OSError, match="not started"):
        LSQML(threads=1).reconstruct(small_raw(1e4, N=32, across=3))
    assert seen == os.environ | {"MKL_NUM_THREADS": "1"}


@pytest.mark.slow
def test_lsqml_refines_a_defocused_probe_and_returns_it_in_photons(forked):
    raw = small_raw(1e6, **GEOMETRY)
    scan, start = raw.scan, defocused(raw.probe, 0.7).numpy()
    how = {"probe": "refine", "probe_defocus_rad": 0.7}
    result = LSQML(epochs=80, batch_size=30, **how).reconstruct(raw)

    def likeness(probe: np.ndarray) -> float:
        return abs(np.vdot(probe, scan.probe)) / np.linalg.norm(probe) / np.linalg.norm(scan.probe)

    assert result.probe.shape == scan.probe.shape and result.probe.dtype == np.complex64
    assert likeness(start) < 0.95 and likeness(result.probe) > 0.98
    photons = (np.abs(scan.probe) ** 2).sum()
    assert (np.abs(result.probe) ** 2).sum() == pytest.approx(photons, rel=1e-4)
    region = seen_region(raw)
    level = np.abs(scan.object_guess[region]).mean()
    assert np.abs(result.object[region]).mean() == pytest.approx(level, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "batch_size"), [(RPIE, 1), (DM, 200)])
def test_its_other_methods_reconstruct_as_well(method, batch_size, forked):
    raw = small_raw(1e6, N=32, across=5)
    result = method(epochs=15 if method is RPIE else 25).reconstruct(raw)
    assert quality(result.object, raw) > quality(np.ones_like(result.object), raw) + 3
    assert result.settings["batch_size"] == batch_size
    assert result.settings["method"] == method.method


@pytest.mark.slow
def test_an_object_that_pty_chi_lost_to_infinity_is_an_error(forked):
    # A batch of rPIE steps that overlap overshoots and grows.
    with pytest.raises(
        PtychoError, match=r"not finite \(first epoch .*smaller momentum or batch_size"
    ):
        RPIE(batch_size=56, epochs=60).reconstruct(small_raw(1e5, **GEOMETRY))


def test_what_the_worker_said_last_is_in_the_error(tmp_path, monkeypatch):
    (tmp_path / "ptychi.py").write_text("raise RuntimeError('a broken installation')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(PtychoError, match=r"(?s)ended with status 1.*a broken installation"):
        LSQML(epochs=1).reconstruct(small_raw(1e3, **GEOMETRY))


def test_a_worker_that_takes_too_long_is_stopped():
    says = r"took longer than timeout_s=1 and was stopped after \d+ of 100000 epochs"
    with pytest.raises(PtychoError, match=says):
        LSQML(timeout_s=1, epochs=100000).reconstruct(small_raw(1e3, **GEOMETRY))


@pytest.fixture
def no_process(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_without_pty_chi_the_message_says_what_to_install(monkeypatch, no_process):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fly64\[lsqml\]'"):
        LSQML().reconstruct(small_raw(1e3, **GEOMETRY))


@pytest.mark.parametrize(
    ("name", "spoil", "says"),
    [
        ("diffraction", lambda a: np.where(a == a.max(), np.nan, a), "diffraction.*NaN"),
        ("diffraction", lambda a: np.where(a == a.max(), -a, a), "diffraction.*negative"),
        ("xcoords", lambda a: a + 20, "xcoords.*leave the object"),
        ("ycoords", lambda a: np.full_like(a, np.nan), "ycoords.*NaN"),
    ],
)
def test_data_that_pty_chi_would_answer_with_nan_never_reach_it(name, spoil, says, no_process):
    scan = small_scan(1e3, **GEOMETRY)
    values = getattr(scan, name)
    wrong = replace(scan, **{name: spoil(values).astype(values.dtype)})
    with pytest.raises(DataContractError, match=f"(?s){says}"):
        LSQML().reconstruct(RawDataTorch(wrong, "wrong.npz"))


def test_a_gpu_that_is_not_there_is_refused(monkeypatch, no_process):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="device='gpu' was asked for, and torch finds no GPU"):
        LSQML(device="gpu").reconstruct(small_raw(1e3, **GEOMETRY))


def test_an_odd_detector_is_refused(no_process):
    with pytest.raises(DataContractError, match="even"):
        LSQML().reconstruct(small_raw(1e3, N=9, across=3))


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "epie"},
        {"noise_model": "none"},
        {"epochs": 0},
        {"batch_size": 0},
        {"probe": "maybe"},
        {"device": "tpu"},
        {"momentum": -1.0},
        {"timeout_s": 0.0},
    ],
    ids=str,
)
def test_settings_without_meaning_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LSQML(**wrong)


def test_the_difference_map_relaxes_by_a_share():
    with pytest.raises(ConfigError, match="relaxation"):
        DM(relaxation=2.0)


@pytest.mark.slow
def test_on_the_objects_grid_lsqml_explains_the_light_beside_the_detector(tmp_path, forked):
    """On its own grid pty-chi folds that light back; its object is spread over the finer one."""
    generate_datasets(tmp_path, ScanDesign(doses=(1e6,), scan_step=8, M=96))
    scan = open_scan(split_file(tmp_path, 1e6, "test"))
    found = {
        method.__name__: method(epochs=25, batch_size=20).reconstruct(scan.without_truth())
        for method in (LSQML, LSQMLFine)
    }
    assert {image.object.shape for image in found.values()} == {scan.scan.canvas_shape}
    rows = judge({name: one.object for name, one in found.items()}, scan)
    psnr = {row["method"]: row["phase_psnr"] for row in rows}
    assert psnr["LSQMLFine"] > psnr["LSQML"] + 3 > psnr["flat"] + 6
    coarse = on_detector_grid(found["LSQML"].object, scan)
    again = DetectorGrid.of(scan).spread(torch.from_numpy(coarse), scan.scan.canvas_shape)
    np.testing.assert_allclose(again, found["LSQML"].object, atol=1e-5)
