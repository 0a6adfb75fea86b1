"""A bundle on a scan: the same object from Python, shell and notebook, a file that the next reader
takes, and clear refusals."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from run_notebook import papermill
from small_scan import small_scan

from fly64lib.cli.main import main
from fly64lib.notebook.paths import notebook
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.inference.apply import reconstruct
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.training.bundle import load_bundle, save_bundle

CONFIG = TrainingConfig(model=ModelConfig(N=32, width=8, depth=2), n_images=20)


def written(folder: Path, name: str, scan: ScanData) -> Path:
    write_scan(folder / f"{name}.npz", scan)
    return folder / f"{name}.npz"


@pytest.fixture
def work(tmp_path, monkeypatch) -> Path:
    """A folder with a bundle and a scan of its probe at another dose, and the process in it."""
    scan = small_scan(1e4, N=32)
    torch.manual_seed(1)
    model = PtychoModel(CONFIG.model, torch.from_numpy(scan.probe))
    torch.nn.init.normal_(model.network.head.weight, std=0.01)
    save_bundle(
        tmp_path / "bundle.pt",
        model,
        CONFIG,
        {"images": 20, "photons_per_exposure": 1e4, "source": "old/train.npz"},
    )
    written(tmp_path, "scan", small_scan(3e4, 5, N=32, across=13))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_command_writes_a_scan_with_the_object_of_reconstruct_and_a_picture(work, capsys):
    assert main(["reconstruct", "--bundle", "bundle.pt", "--data", "scan.npz"]) == 0
    said = capsys.readouterr().out
    assert (
        "trained on 20 patterns of train.npz, at 1e+04 photons per exposure; this scan has 3e+04\n"
        in said
    )
    assert "phase PSNR / dB" in said and "not scored" not in said
    assert (
        f"results: {work / 'scan_object.npz'}" in said and "| pinn |" in said and "| flat |" in said
    )
    assert (work / "scan_object.png").stat().st_size > 10_000
    came, before = read_scan("scan_object.npz"), read_scan("scan.npz")
    bundle, raw = load_bundle("bundle.pt"), PyTorchMemmapBridge("scan.npz").raw_data_torch
    whole = reconstruct(bundle.model, raw, replace(bundle.config, n_images=None))
    assert len(whole.images) == raw.n > 20
    np.testing.assert_array_equal(came.object_guess, whole.object.numpy())
    # The file's map leaves the sub-pixel shift of the probe out (fluence_map): every photon, on the
    # integer grid.
    assert came.extra["fluence"].sum() == pytest.approx(float(whole.fluence.sum()), rel=1e-3)
    assert np.corrcoef(came.extra["fluence"].ravel(), whole.fluence.numpy().ravel())[0, 1] > 0.99
    np.testing.assert_array_equal(came.diffraction, before.diffraction)
    assert (
        came.metadata["object_kind"] == "reconstruction"
        and came.metadata["dose"] == before.metadata["dose"]
    )
    assert came.metadata["reconstruction"]["bundle_sha256"] == bundle.sha256
    assert main(["check", "scan_object.npz"]) in (
        0,
        1,
    )  # an untrained correction of the steps: DATA-001 it is


@pytest.mark.slow
def test_the_notebook_gives_the_same_file(served, work):
    assert (
        main(["reconstruct", "--bundle=bundle.pt", "--data=scan.npz", "--output", "by_shell.npz"])
        == 0
    )
    run = papermill(
        notebook("infer"),
        work,
        served=served,
        bundle="bundle.pt",
        data_npz="scan.npz",
        output_npz="deep/by_notebook.npz",
    )
    assert run.returncode == 0, run.stderr
    one, other = read_scan("by_shell.npz"), read_scan("deep/by_notebook.npz")
    np.testing.assert_array_equal(one.object_guess, other.object_guess)
    assert f"results: {work / 'deep' / 'by_notebook.npz'}" in (work / "out.ipynb").read_text()


def test_a_scan_too_small_for_the_metrics_still_gets_its_object(work, capsys):
    written(work, "small", small_scan(1e4, 5, N=32))
    assert main(["reconstruct", "--bundle", "bundle.pt", "--data", "small.npz"]) == 0
    said = capsys.readouterr().out
    assert "no phase MS-SSIM, amplitude MS-SSIM: " in said and "| pinn |" in said
    assert "phase PSNR / dB" in said
    assert read_scan("small_object.npz").metadata["object_kind"] == "reconstruction"


def other_probe(scan: ScanData) -> ScanData:
    return replace(scan, probe=np.roll(scan.probe, 5, axis=2))


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (
            lambda: small_scan(1e4, N=64, across=4),
            "its probe is (1, 64, 64), the model was trained for (1, 32, 32): "
            "another side; train for this data or choose another bundle",
        ),
        (
            lambda: small_scan(1e4, N=32, modes=2),
            "trained for (1, 32, 32): another number of modes",
        ),
        (lambda: other_probe(small_scan(1e4, N=32)), "its probe has a correlation of "),
    ],
    ids=["another N", "another number of modes", "another probe"],
)
def test_data_of_another_probe_or_size_are_refused_with_the_reason(work, capsys, scan, reason):
    written(work, "other", scan())
    assert main(["reconstruct", "--bundle", "bundle.pt", "--data", "other.npz"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: other.npz: ") and reason in said.err
    assert not list(work.glob("other_object*"))


def test_the_grids_options_and_a_bundle_do_not_mix(work, capsys):
    asked = ["reconstruct", "--bundle", "bundle.pt", "--data", "scan.npz", "--method", "lsqml"]
    assert main(asked) == 2
    assert "Unrecognized options: --method, lsqml" in capsys.readouterr().err
