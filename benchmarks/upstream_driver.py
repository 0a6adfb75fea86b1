"""Trains and applies the original PtychoPINN in its own environment; a separate program that
`upstream.py` starts.

    PYTHONPATH=CHECKOUT UPSTREAM_PYTHON upstream_driver.py job.json

The job names an npz of photon counts and positions (written by `upstream.py`), the settings, and
the CPU seconds that training may take. It uses that package's public Python interface alone: its
in-memory data set and data module, its Lightning module under a plain Lightning trainer, and its
reassembly. Nothing of fly64 can be imported here, since both packages are called ptycho_torch."""

import json
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import lightning
import numpy as np
import torch
from ptycho_torch.config_params import DataConfig, InferenceConfig, ModelConfig, TrainingConfig
from ptycho_torch.dataloader import PtychoDataset
from ptycho_torch.lightning_utils import CIStatisticsCallback
from ptycho_torch.model import PtychoPINN_Lightning
from ptycho_torch.reassembly import reconstruct_image_barycentric
from ptycho_torch.train_utils import InMemoryPtychoDataModule


class CpuBudget(lightning.Callback):
    """Ends training after the batch in which this process has spent its CPU seconds, and counts the
    patterns shown."""

    def __init__(self, seconds: float, images: int):
        self.seconds, self.images = seconds, images
        self.patterns, self.start, self.losses = 0, 0.0, []

    def on_fit_start(self, trainer, module):
        self.start = time.process_time()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.patterns += len(batch[0]) * self.images
        if time.process_time() - self.start > self.seconds:
            trainer.should_stop = True

    def on_validation_epoch_end(self, trainer, module):
        self.losses.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def configs(settings: dict, n: int) -> tuple:
    """Their four configurations for photon counts under a calibrated probe; everything not named
    keeps its default."""
    images, grouped = settings["gridsize"] ** 2, settings["gridsize"] > 1
    data = DataConfig(
        N=n,
        C=images,
        grid_size=(settings["gridsize"],) * 2,
        nphotons=settings["dose"],
        K=images - 1,
        n_subsample=1,  # the nearest three: the view's own groups
        x_bounds=(0.0, 1.0),  # the files hold nothing but trusted positions
        y_bounds=(0.0, 1.0),
        scale_contract_version="ci_intensity_v2",
        measurement_domain="count_intensity",
    )
    model = ModelConfig(
        C_model=images,
        C_forward=images,
        object_big=grouped,
        physics_forward_mode="rectangular_scaled",
        cnn_output_mode="real_imag",
        rect_s1s2_init="data",
        cbam_encoder=settings["attention"],
        training_patch_weighting=settings["merge"],
    )
    training = TrainingConfig(
        device="cpu",
        strategy="auto",
        num_workers=0,
        batch_size=settings["batch_size"],
        epochs=10_000,
        learning_rate=settings["learning_rate"],
        scheduler=settings["scheduler"],
        torch_loss_mode="poisson",
        orchestrator="Lightning",
    )
    return data, model, training, InferenceConfig(batch_size=settings["inference_batch"])


def main(job_file: str) -> None:
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    settings, folder = job["settings"], Path(job_file).parent
    torch.set_num_threads(job["threads"])
    lightning.seed_everything(settings["seed"])
    with np.load(job["data"], allow_pickle=False) as arrays:
        given = dict(arrays)
    data, model_config, training, inference = configs(settings, given["probe"].shape[-1])

    def dataset(split: str) -> PtychoDataset:
        counts, positions = given[f"{split}_counts"], given[f"{split}_positions"]
        return PtychoDataset.from_np(counts, given["probe"], positions, model_config, data)

    module = PtychoPINN_Lightning(
        model_config, data, training, inference, parity_init_scheme=settings["start"]
    )
    module.lr = settings["learning_rate"]
    train = InMemoryPtychoDataModule(dataset("train"), training, val_split=0.05)
    train.setup("fit")
    module.calibrate_rect_s1s2(next(iter(train.train_dataloader())))
    budget = CpuBudget(job["cpu_seconds"], settings["gridsize"] ** 2)
    trainer = lightning.Trainer(
        max_epochs=training.epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[budget, CIStatisticsCallback()],
        default_root_dir=folder,
    )
    cpu = time.process_time()
    trainer.fit(module, datamodule=train)
    training_cpu = time.process_time() - cpu

    test, costs = dataset("test"), []
    while not costs or (sum(costs) < 3 and len(costs) < 3):  # of short ones the fastest counts
        cpu = time.process_time()
        canvas, _, extra = reconstruct_image_barycentric(
            module, test, training, data, model_config, inference, verbose=False
        )
        costs.append(time.process_time() - cpu)
    whole = canvas.detach().reshape(canvas.shape[-2:]).numpy().astype(np.complex64)
    center = extra[-1]["scan_com"].numpy()[::-1].astype(np.float64)  # (row, column)
    np.savez(folder / "upstream.npz", canvas=whole, center_px=center)
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000
    packages = {name: version(name) for name in ("lightning", "numpy", "tensordict")}
    result = {
        "training_cpu_seconds": training_cpu,
        "training_patterns": budget.patterns,
        "steps": trainer.global_step,
        "epochs": trainer.current_epoch,
        "inference_cpu_seconds": min(costs),
        "inference_patterns": len(given["test_counts"]),
        "parameters": sum(p.numel() for p in module.parameters()),
        "peak_memory_mb": peak,
        "losses": budget.losses,
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            **packages,
        },
    }
    (folder / "upstream.json").write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
