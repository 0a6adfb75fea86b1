"""Training end to end on a small twin: leaves the flat object, gives the same bits, survives a
crash, writes safe files."""

import csv
import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import lightning
import numpy as np
import oracle
import pytest
import torch
from small_scan import seen_region, small_raw, small_scan

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.contract import write_scan
from ptycho_torch.errors import ConfigError, MissingDependencyError, PtychoError
from ptycho_torch.inference.apply import reconstruct
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.training.bundle import load_bundle
from ptycho_torch.training.lightning_module import PtychoLightning
from ptycho_torch.training.samples import Split
from ptycho_torch.workflows import components

MODEL = ModelConfig(N=32, width=8, depth=2)


@pytest.fixture(autouse=True)
def _torch_settings_restored():
    threads = torch.get_num_threads()
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def small(output: Path, model: dict | None = None, **training) -> TrainingConfig:
    """Three steps an epoch, four epochs, one thread."""
    given = {
        "n_images": 24,
        "batch_size": 8,
        "thinnings": 1,
        "max_epochs": 4,
        "threads": 1,
        "logger": "none",
        "checkpoint_steps": 1,
    }
    return TrainingConfig(
        model=replace(MODEL, **(model or {})), output_dir=str(output), **given | training
    )


def train(config: TrainingConfig, test: bool = False, **scan):
    return components.train_cdi_model_torch(
        small_raw(1e4, **scan), small_raw(1e4, noise_seed=7) if test else None, config
    )


def weights(result: dict) -> list[torch.Tensor]:
    return list(result["model"].network.state_dict().values())


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


# --- it learns ---


def variation(image: np.ndarray, raw) -> float:
    """Spread between the patches at all positions, pixel by pixel: 0 for a flat or a repeated
    patch."""
    patches = oracle.patches(image, *raw.positions.numpy().T, raw.N)
    light = raw.probe[0].abs().numpy()
    return float(np.sqrt((light**2 * np.abs(patches - patches.mean(0)) ** 2).mean()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_short_training_leaves_the_flat_object_and_lowers_the_loss_on_photons_it_has_not_seen(
    gridsize, seed, tmp_path
):
    raw = small_raw(1e3)  # few photons: the priors leave room
    training = {"learning_rate": 5e-3, "max_epochs": 12, "n_images": None, "batch_size": 16}
    config = small(tmp_path, {"gridsize": gridsize}, seed=seed, **training)
    model = components.train_cdi_model_torch(raw, None, config)["model"]
    image, truth = reconstruct(model, raw, config).object.numpy(), raw.object_guess.numpy()
    region, flat = seen_region(raw), np.ones_like(truth)
    assert variation(image, raw) > 0.5 * variation(truth, raw) > 0.05
    gained = oracle.psnr_phase(image[region], truth[region]) - oracle.psnr_phase(
        flat[region], truth[region]
    )
    assert gained > 4  # dB
    other = Split(raw, replace(config, seed=99))  # the same images, their photons split anew
    batch = other[0, list(range(len(other)))]
    with torch.no_grad():
        trained, start, even = (
            float(model.loss(canvas, batch))
            for canvas in (
                model.object_canvas(batch.features),
                batch.features.base,
                torch.ones_like(batch.features.base),
            )
        )
    assert trained < start < even


def test_supervised_training_brings_the_object_nearer_to_the_truth_than_the_input(tmp_path):
    config = small(tmp_path, {"objective": "supervised"}, max_epochs=12, learning_rate=5e-3)
    raw = small_raw(1e3, truth=True)
    result = components.train_cdi_model_torch(raw, None, config)
    region, truth = seen_region(raw), raw.object_guess.numpy()
    found, steps = (
        oracle.without_phase(reconstruct(model, raw, config).object.numpy()[region], truth[region])
        for model in (result["model"], PtychoModel(config.model, raw.probe))
    )
    assert np.linalg.norm(found - truth[region]) < 0.9 * np.linalg.norm(steps - truth[region])


def test_two_modes_and_stored_groups_train(tmp_path):
    groups = np.array([[0, 1, 10, 11], [33, 34, 43, 44], [60, 61, 70, 71], [5, 6, 15, 16]])
    raw = small_raw(1e4, modes=2, groups=groups)
    result = components.train_cdi_model_torch(
        raw, None, small(tmp_path, {"gridsize": 2}, n_images=None, max_epochs=2)
    )
    assert (result["groups"], result["images"]) == (4, 16) and result["model"].probe.shape == (
        2,
        32,
        32,
    )


# --- the same bits ---


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(tmp_path):
    first, again, other = (
        train(small(tmp_path / name, seed=seed)) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert same(first, again) and first["history"] == again["history"]
    assert not same(first, other)


@pytest.mark.slow
def test_another_process_gives_the_same_bits(tmp_path):
    write_scan(tmp_path / "scan.npz", small_scan(1e4))
    config = small(tmp_path / "there", {"gridsize": 2}, max_epochs=2)
    code = (
        "import sys, json\nfrom ptycho_torch.config import TrainingConfig\nfrom"
        " ptycho_torch.memmap_bridge import PyTorchMemmapBridge\nfrom ptycho_torch.workflows import"
        " components\nraw ="
        " PyTorchMemmapBridge(sys.argv[1]).raw_data_torch\ncomponents.train_cdi_model_torch(raw,"
        " None, TrainingConfig(**json.loads(sys.argv[2])))\n"
    )
    subprocess.run(
        [sys.executable, "-c", code, tmp_path / "scan.npz", json.dumps(config.to_dict())],
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    raw = PyTorchMemmapBridge(tmp_path / "scan.npz").raw_data_torch
    torch.manual_seed(77)  # what this process has drawn before must not matter
    here = components.train_cdi_model_torch(
        raw, None, replace(config, output_dir=str(tmp_path / "here"))
    )
    assert same(here, {"model": load_bundle(tmp_path / "there" / "bundle.pt").model})


def test_the_held_out_data_are_watched_and_change_nothing(tmp_path):
    alone, watched = train(small(tmp_path / "a")), train(small(tmp_path / "b"), test=True)
    assert same(alone, watched)
    assert (
        all(np.isfinite(row["val_loss"]) for row in watched["history"])
        and "val_loss" not in alone["history"][0]
    )


# --- a run that was cut off ---


class Crash(Exception):
    pass


def crash_at(step: int, monkeypatch, error: type[BaseException] = Crash) -> None:
    """Training dies when it comes to this optimiser step."""
    original = PtychoLightning.training_step

    def dying(self, batch, index):
        if self.global_step == step:
            raise error
        return original(self, batch, index)

    monkeypatch.setattr(PtychoLightning, "training_step", dying)


@pytest.mark.slow
def test_a_crashed_run_goes_on_from_its_checkpoint_to_the_weights_of_an_uninterrupted_one(
    tmp_path, monkeypatch
):
    whole, config = train(small(tmp_path / "whole"), test=True), small(tmp_path / "cut")
    with monkeypatch.context() as patch:
        crash_at(7, patch)  # in the third epoch of three steps
        with pytest.raises(Crash):
            train(config, test=True)
    assert (
        not (tmp_path / "cut" / "bundle.pt").exists()
        and (tmp_path / "cut" / "model.ckpt").is_file()
    )
    steps = []
    original = PtychoLightning.training_step
    monkeypatch.setattr(
        PtychoLightning,
        "training_step",
        lambda self, batch, index: steps.append(self.global_step) or original(self, batch, index),
    )
    resumed = train(config, test=True)
    assert steps == list(range(6, 12))
    assert same(resumed, whole) and resumed["history"] == whole["history"]
    assert [row["epoch"] for row in resumed["history"]] == [0, 1, 2, 3] and resumed["epochs"] == 4
    # The rate counts what this call has trained, not what it found done.
    assert resumed["patterns_per_second"] * resumed["seconds"] == pytest.approx(6 * 8)


def test_checkpoints_are_some_steps_apart_and_the_last_epoch_has_one(tmp_path, monkeypatch):
    """Three steps an epoch: five steps take two epochs."""
    seen = []
    monkeypatch.setattr(
        components.AtomicCheckpointIO,
        "save_checkpoint",
        lambda self, checkpoint, path, storage_options=None: seen.append(checkpoint["global_step"]),
    )
    train(small(tmp_path, checkpoint_steps=5, max_epochs=5))
    assert seen == [6, 12, 15]


def test_ctrl_c_leaves_a_checkpoint_and_no_bundle_of_an_unfinished_training(tmp_path, monkeypatch):
    handler = signal.getsignal(signal.SIGINT)
    crash_at(7, monkeypatch, KeyboardInterrupt)
    try:
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            train(small(tmp_path))
    finally:
        signal.signal(signal.SIGINT, handler)  # Lightning ignores further Ctrl-C on its way out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.ckpt"]


def test_a_checkpoint_of_another_configuration_or_of_a_finished_run_is_not_continued(tmp_path):
    first = train(small(tmp_path))
    again = train(small(tmp_path))
    assert same(first, again) and len(again["history"]) == 4
    other = train(small(tmp_path, seed=1))
    assert len(other["history"]) == 4 and same(other, train(small(tmp_path / "fresh", seed=1)))


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
def test_a_damaged_checkpoint_is_refused_by_name(tmp_path, content):
    (tmp_path / "model.ckpt").write_bytes(content)
    with pytest.raises(PtychoError, match="model.ckpt: cannot be read .*remove it to train afresh"):
        train(small(tmp_path))
    assert (tmp_path / "model.ckpt").read_bytes() == content


# --- what it writes ---


def plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(plain, value)) and all(map(plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(plain, value))
    return type(value) in (torch.Tensor, str, int, float, bool, type(None))


def test_the_checkpoint_loads_without_unpickling_code(tmp_path):
    result = train(small(tmp_path))
    saved = torch.load(result["checkpoint"], map_location="cpu", weights_only=True)
    assert saved["hyper_parameters"]["config"] == small(tmp_path).to_dict()
    assert plain(torch.load(result["checkpoint"], map_location="cpu", weights_only=False))


def test_a_training_leaves_checkpoint_bundle_and_metrics_and_tells_what_it_did(tmp_path):
    config = small(tmp_path / "out", thinnings=2)
    result = train(config, test=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "bundle.pt",
        "metrics.csv",
        "model.ckpt",
    ]
    rows = list(csv.DictReader((tmp_path / "out" / "metrics.csv").read_text().splitlines()))
    assert [float(row["train_loss"]) for row in rows] == [
        row["train_loss"] for row in result["history"]
    ]
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3] and float(rows[-1]["val_loss"]) > 0
    assert result["final_loss"] == result["history"][-1]["train_loss"] and result["epochs"] == 4
    assert (result["images"], result["groups"]) == (24, 24)
    assert result["patterns_per_second"] * result["seconds"] == pytest.approx(24 * 2 * 4)
    bundle = load_bundle(result["bundle"])
    assert (
        bundle.sha256 == result["bundle_sha256"]
        and bundle.config == config
        and same(result, {"model": bundle.model})
    )
    assert bundle.statistics["images"] == 24 and bundle.statistics["metadata"]["dose"] == 1e4
    assert bundle.statistics["photons_per_exposure"] == pytest.approx(1e4, rel=0.01)


def test_without_checkpointing_there_is_only_the_bundle_and_the_metrics(tmp_path):
    result = train(small(tmp_path, checkpointing=False))
    assert result["checkpoint"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle.pt", "metrics.csv"]


def test_the_number_of_steps_decides_the_epochs_where_none_are_given(tmp_path):
    assert train(small(tmp_path, max_epochs=None, steps=7))["epochs"] == 3  # of 3 steps each


def test_every_logger_leaves_the_same_metrics(tmp_path):
    texts = []
    for logger in ("none", "csv"):
        train(small(tmp_path / logger, logger=logger, max_epochs=2))
        texts.append((tmp_path / logger / "metrics.csv").read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("logger", "packages"),
    [("tensorboard", ["tensorboard", "tensorboardX"]), ("mlflow", ["mlflow"])],
)
def test_a_logger_that_is_not_installed_is_named_with_what_to_install(
    logger, packages, tmp_path, monkeypatch
):
    def absent(*_, **__):
        raise ModuleNotFoundError(f"No module named {packages[0]!r}")

    name = {"tensorboard": "TensorBoardLogger", "mlflow": "MLFlowLogger"}[logger]
    monkeypatch.setattr(lightning.pytorch.loggers, name, absent)
    with pytest.raises(
        MissingDependencyError, match=rf"logger='{logger}' needs .* pip install 'fly64\[{logger}\]'"
    ):
        train(small(tmp_path, logger=logger))


def test_a_gpu_that_is_not_there_is_refused_and_not_replaced_by_the_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="accelerator='gpu', but torch sees no GPU here"):
        train(small(tmp_path, accelerator="gpu"))


def test_a_training_that_diverges_says_so_and_leaves_no_bundle(tmp_path, monkeypatch):
    original = PtychoModel.loss
    monkeypatch.setattr(PtychoModel, "loss", lambda *arguments: original(*arguments) * float("nan"))
    with pytest.raises(
        PtychoError, match="training ended with a loss of nan; try a smaller learning_rate"
    ):
        train(small(tmp_path))
    assert not (tmp_path / "bundle.pt").exists()


def test_the_threads_are_those_of_the_configuration(tmp_path, monkeypatch):
    seen, original = [], PtychoLightning.training_step
    monkeypatch.setattr(
        PtychoLightning,
        "training_step",
        lambda self, batch, index: (
            seen.append(torch.get_num_threads()) or original(self, batch, index)
        ),
    )
    train(small(tmp_path, threads=2, max_epochs=1))
    assert set(seen) == {2}


def test_unsupervised_training_never_looks_at_truth_or_object(tmp_path):
    scan = small_scan(1e4, truth=True)
    blind = replace(scan, truth_patches=None, object_guess=np.ones_like(scan.object_guess))
    results = []
    for name, one in (("seeing", scan), ("blind", blind)):
        write_scan(tmp_path / f"{name}.npz", one)
        raw = PyTorchMemmapBridge(tmp_path / f"{name}.npz").raw_data_torch
        results.append(
            components.train_cdi_model_torch(raw, None, small(tmp_path / name, max_epochs=2))
        )
    assert same(*results)


@pytest.mark.slow
def test_two_processes_train_together_as_one_would(tmp_path):
    """To rounding at first; Adam then divides small gradients by their own size, rounding and
    all."""
    one = train(small(tmp_path / "one", learning_rate=1e-4), test=True)
    two = train(small(tmp_path / "two", learning_rate=1e-4, devices=2), test=True)
    assert two["epochs"] == one["epochs"] == 4 and (tmp_path / "two" / "bundle.pt").is_file()
    for number, (ours, theirs) in enumerate(zip(one["history"], two["history"], strict=True)):
        assert theirs == pytest.approx(ours, rel=1e-4 if number == 0 else 2e-3)
    for ours, theirs in zip(weights(one), weights(two), strict=True):
        torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-4)
    start = train(small(tmp_path / "start", learning_rate=1e-8))
    assert (
        max(float((a - b).abs().max()) for a, b in zip(weights(start), weights(one), strict=True))
        > 5e-4
    )
