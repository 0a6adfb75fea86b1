"""pty-chi behind our protocol: its object lies on our canvas, its probe is in photons, and its
silent failures are told.

Each run is a real one, in a process of its own, on counts of the oracle's physics.
"""

import importlib.util
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
from small_scan import seen_region, small_scan

from fly64lib.evaluation.gauge import align
from fly64lib.methods.ptychi import LSQML
from fly64lib.simulation.probes import defocused
from ptycho_torch.data.contract import ScanData, write_npz, write_scan
from ptycho_torch.errors import ConfigError, DataContractError, MissingDependencyError, PtychoError
from ptycho_torch.files import json_text
from ptycho_torch.memmap_bridge import RawDataTorch

GEOMETRY = {"N": 32, "across": 7}


def written(folder: Path, scan: ScanData) -> Path:
    write_scan(folder / "scan.npz", scan)
    return folder / "scan.npz"


def quality(image: np.ndarray, scan: ScanData) -> float:
    region = seen_region(RawDataTorch(scan, Path("scan.npz")))
    return oracle.psnr_phase(image[region], scan.object_guess[region])


def test_from_bright_data_lsqml_puts_the_object_on_our_canvas_to_a_fiftieth_of_a_pixel(tmp_path):
    """Sub-pixel positions, a canvas of odd sides with the scan off its middle, only the global
    phase removed."""
    scan = small_scan(1e7, **GEOMETRY)
    down, right = 4 + (scan.canvas_shape[0] + 4 + 1) % 2, 7 + (scan.canvas_shape[1] + 7 + 1) % 2
    wider = np.pad(scan.object_guess, ((down, 0), (right, 0)), constant_values=1)
    assert wider.shape[0] % 2 and wider.shape[1] % 2
    moved = replace(
        scan, object_guess=wider, xcoords=scan.xcoords + right, ycoords=scan.ycoords + down
    )
    result = LSQML(epochs=120, batch_size=30).reconstruct(written(tmp_path, moved))
    assert (
        result.object.shape == wider.shape
        and result.object.dtype == np.complex64
        and result.probe is None
    )
    assert quality(result.object, moved) > 45
    region = seen_region(RawDataTorch(moved, Path("scan.npz")))
    found = align(result.object[region], wider[region], "unknown_probe")
    assert (
        found.registered
        and np.abs(found.shift_px).max() < 0.02
        and np.abs(found.ramp_rad_per_px).max() < 2e-3
    )
    assert found.scale == pytest.approx(
        1, abs=0.003
    )  # the probe's photons set the object's scale: pty-chi kept it as it was
    assert [row["epoch"] for row in result.trace] == list(range(1, 121))
    assert result.trace[-1]["loss"] < 0.1 * result.trace[0]["loss"]
    assert result.seconds > 0 and result.cpu_seconds > 0
    assert (
        result.settings["noise_model"] == "poisson"
        and json_text(result.settings)
        and "pty-chi" in result.note
    )


def test_lsqml_refines_a_defocused_probe_and_returns_it_in_photons(tmp_path):
    scan = small_scan(1e6, **GEOMETRY)
    path = written(tmp_path, scan)
    start = defocused(RawDataTorch(scan, path).probe, 0.7).numpy()
    result = LSQML(epochs=80, batch_size=30, probe="refine", probe_defocus_rad=0.7).reconstruct(
        path
    )

    def likeness(probe: np.ndarray) -> float:
        return abs(np.vdot(probe, scan.probe)) / np.linalg.norm(probe) / np.linalg.norm(scan.probe)

    assert result.probe.shape == scan.probe.shape and result.probe.dtype == np.complex64
    assert likeness(start) < 0.95 and likeness(result.probe) > 0.98
    assert (np.abs(result.probe) ** 2).sum() == pytest.approx(
        (np.abs(scan.probe) ** 2).sum(), rel=1e-4
    )
    region = seen_region(RawDataTorch(scan, path))
    assert np.abs(result.object[region]).mean() == pytest.approx(
        np.abs(scan.object_guess[region]).mean(), rel=0.03
    )


@pytest.mark.parametrize("method", ["rpie", "dm"])
def test_other_methods_by_name_reconstruct_as_well(method, tmp_path):
    scan = small_scan(1e6, **GEOMETRY)
    result = LSQML(method=method, epochs=25).reconstruct(written(tmp_path, scan))
    assert LSQML(method=method).name == method
    assert quality(result.object, scan) > quality(np.ones_like(scan.object_guess), scan) + 3
    assert result.settings["batch_size"] == {"rpie": 1, "dm": 200}[method]


def test_an_object_that_pty_chi_lost_to_infinity_is_an_error(tmp_path):
    path = written(
        tmp_path, small_scan(1e5, **GEOMETRY)
    )  # a batch of rPIE steps that overlap overshoots and grows
    with pytest.raises(
        PtychoError, match=r"not finite \(first epoch .*smaller momentum or batch_size"
    ):
        LSQML(method="rpie", batch_size=56, epochs=60).reconstruct(path)


def test_what_the_worker_said_last_is_in_the_error(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(PtychoError, match=r"(?s)ended with status 1.*torch finds no GPU here"):
        LSQML(device="gpu", epochs=1).reconstruct(written(tmp_path, small_scan(1e3, **GEOMETRY)))


def test_a_worker_that_takes_too_long_is_stopped(tmp_path):
    with pytest.raises(
        PtychoError,
        match=r"took longer than timeout_s=1 and was stopped after \d+ of 100000 epochs",
    ):
        LSQML(timeout_s=1, epochs=100000).reconstruct(
            written(tmp_path, small_scan(1e3, **GEOMETRY))
        )


@pytest.fixture
def no_process(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)


def test_without_pty_chi_the_message_says_what_to_install(tmp_path, monkeypatch, no_process):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fly64\[lsqml\]'"):
        LSQML().reconstruct(tmp_path / "scan.npz")


@pytest.mark.parametrize(
    "key, spoil, says",
    [
        ("diffraction", lambda a: np.where(a == a.max(), np.nan, a), "NaN"),
        ("diffraction", lambda a: np.where(a == a.max(), -a, a), "negative"),
        ("xcoords", lambda a: a + 20, "leave the object"),
        ("ycoords", lambda a: np.full_like(a, np.nan), "NaN"),
    ],
)
def test_data_that_pty_chi_would_answer_with_nan_never_reach_it(
    key, spoil, says, tmp_path, no_process
):
    scan = small_scan(1e3, **GEOMETRY)
    arrays = {
        "diffraction": scan.diffraction,
        "xcoords": scan.xcoords,
        "ycoords": scan.ycoords,
        "probeGuess": scan.probe[0],
        "objectGuess": scan.object_guess,
    }
    arrays[key] = spoil(arrays[key]).astype(arrays[key].dtype)
    write_npz(tmp_path / "scan.npz", arrays)
    with pytest.raises(DataContractError, match=f"(?s){key}.*{says}"):
        LSQML().reconstruct(tmp_path / "scan.npz")


def test_an_odd_detector_is_refused(tmp_path, no_process):
    scan = small_scan(1e3, N=9, across=3)
    with pytest.raises(DataContractError, match="even"):
        LSQML().reconstruct(written(tmp_path, scan))


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
        {"relaxation": 2.0},
    ],
    ids=str,
)
def test_settings_without_meaning_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        LSQML(**wrong)
