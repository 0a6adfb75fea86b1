"""What is said beside an object belongs to the patterns that made it: those of every notebook that
reconstructs, and each method uses all patterns that it gets."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_scan import small_scan

from fly64lib.design.registries import METHODS
from fly64lib.evaluation.judgement import region_of
from fly64lib.methods import forked
from fly64lib.methods.base import attribute
from fly64lib.methods.by_name import reconstruct
from fly64lib.notebook import infer, robustness, train
from fly64lib.notebook.datasets import made
from fly64lib.notebook.parameters import InferParameters, RobustnessParameters, TrainParameters
from fly64lib.simulation.overlap_measures import fluence_map
from fly64lib.training import run_training_job
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.contract import write_scan
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.training.bundle import save_bundle


def photons(scan: RawDataTorch, images: np.ndarray) -> float:
    """Photons per object pixel that these patterns' probe brought to the scan's region."""
    positions = scan.scan.positions[images]
    return fluence_map(positions, scan.scan.probe, scan.scan.canvas_shape)[region_of(scan)].mean()


def trained(folder: Path, file: Path, **given: object) -> tuple[dict, np.ndarray]:
    """The one run of metrics.json and the patterns of object.npz after what train.ipynb does."""
    network = {"width": 8, "depth": 2, "thinnings": 1, "logger": "none"}
    short = {"training": network, "N": 32, "steps": 2}
    files = {"train_npz": str(file), "test_npz": str(file), "output_dir": str(folder)}
    parameters = TrainParameters(**short | files | given)
    jobs = train.training_jobs(parameters)
    results = {one: run_training_job(jobs[one], config=parameters.config) for one in jobs}
    judged = {label: train.judge_job(job, label) for label, job in jobs.items()}
    train.write_results(parameters, jobs, results, judged)
    (run,) = json.loads((folder / "metrics.json").read_text())["runs"]
    with np.load(folder / "object.npz", allow_pickle=False) as arrays:
        made = arrays["object"], arrays["images"]
    scan = open_scan(file)
    own = data_deviance(torch.from_numpy(made[0]), scan.subset(made[1]))
    assert run["rows"][0]["deviance"] == pytest.approx(own, rel=1e-5)
    return run, made[1]


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("scan") / "scan.npz"
    write_scan(file, small_scan(1e4, N=32, across=13))
    return file


@pytest.mark.parametrize("n_images", [40, None])
def test_train_states_the_photons_of_the_patterns_that_made_the_object(
    scan_file: Path, tmp_path: Path, n_images: int | None
) -> None:
    scan = open_scan(scan_file)
    run, images = trained(tmp_path, scan_file, n_images=n_images)
    assert len(images) == run["images"] == (n_images or scan.n)
    for row in run["rows"]:
        assert row["photons_per_pixel"] == pytest.approx(photons(scan, images), rel=0.02)


def test_a_scan_too_small_for_ssim_is_trained_and_judged_by_what_there_is(tmp_path: Path) -> None:
    file = tmp_path / "scan.npz"
    write_scan(file, small_scan(1e4, N=32, across=8))  # 30 x 33 px
    run, _ = trained(tmp_path, file)
    row, *_ = run["rows"]
    assert row["phase_ms_ssim"] is None and "no phase MS-SSIM" in row["absent"]
    assert np.isfinite(row["phase_psnr"])


def bundle(folder: Path, scan: RawDataTorch) -> Path:
    """Of a network that was trained on few patterns."""
    torch.manual_seed(1)
    config = TrainingConfig(model=ModelConfig(N=32, width=8, depth=2), n_images=20)
    model = PtychoModel(config.model, scan.probe)
    about = {"images": 20, "photons_per_exposure": 1e4, "source": "train.npz"}
    save_bundle(folder / "bundle.pt", model, config, about)
    return folder / "bundle.pt"


def test_infer_states_the_photons_of_all_patterns(scan_file: Path, tmp_path: Path) -> None:
    scan = open_scan(scan_file)
    files = {"bundle": str(bundle(tmp_path, scan)), "data_npz": str(scan_file)}
    for row in infer.apply_bundle(InferParameters(**files)).rows:
        assert row["photons_per_pixel"] == pytest.approx(photons(scan, np.arange(scan.n)), rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("view", ["baseline", "sparse"])
def test_robustness_states_the_photons_of_the_view(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: str
) -> None:
    monkeypatch.setattr(robustness.shutil, "rmtree", lambda folder: None)  # the data stay
    asked = {"imperfection": "motion_px", "strengths": 1, "method": "classical", "view": view}
    asked |= {"scan_step": 8}
    settings = {"classical": {"weight": 10.0, "steps": 2}}
    parameters = RobustnessParameters(**asked, settings=settings, output_root=str(tmp_path))
    first, *_ = robustness.run_conditions(parameters)
    files = made(tmp_path / "none" / "data", parameters.scan_design, view)
    scan, whole = open_scan(files["test"]), open_scan(files["whole"])
    assert (scan.n < whole.n) == (view == "sparse")
    light = fluence_map(scan.scan.positions, scan.scan.probe, scan.scan.canvas_shape)
    for row in first:
        own = light[region_of(whole)].mean()
        assert row["photons_per_pixel"] == pytest.approx(own, rel=0.02)


SHIPPED = ("pinn-sim", "pinn-sim+refine")  # of 64 px
NO_METHODS = ("flat", "truth")
QUICK = {"classical": {"weight": 10.0, "steps": 2}}


@pytest.mark.slow
@pytest.mark.parametrize("method", [one for one in METHODS if one not in NO_METHODS])
def test_a_method_uses_every_pattern_that_it_gets(
    method: str, tmp_path: Path, served: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the photons of its scan are those that made its object."""
    monkeypatch.setenv(forked.SERVER, served[forked.SERVER])  # pty-chi's methods are processes
    size = {"N": 64, "across": 3} if method in SHIPPED else {"N": 32, "across": 5}
    scan = RawDataTorch(small_scan(1e4, **size), "scan.npz")
    if method in SHIPPED:
        scan = scan.finer(96)
    settings = QUICK.get(method, {})
    if attribute(METHODS[method], "network"):
        settings = {"bundle": bundle(tmp_path, scan)}
    if attribute(METHODS[method], "own_notebook"):
        settings = {"epochs": 2}
    last, changed = scan.n - 1, scan.scan.diffraction.copy()
    changed[last] = changed[0]
    other = RawDataTorch(replace(scan.scan, diffraction=changed), "scan.npz")
    found = [reconstruct(one, method, **settings).object for one in (scan, other)]
    where = np.abs(found[0] - found[1])
    y, x = scan.scan.positions[last].astype(int)
    assert where[y - 4 : y + 4, x - 4 : x + 4].max() > 1e-4
