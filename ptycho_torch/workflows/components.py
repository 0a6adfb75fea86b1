"""Training, whole: data, model, Lightning trainer, checkpoint and bundle in one call."""

import csv
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.utils.data import Dataset

from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.count_statistics import count_statistics
from ptycho_torch.errors import ConfigError, MissingDependencyError, PtychoError
from ptycho_torch.files import atomic_path
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.training.bundle import save_bundle, write_tensors
from ptycho_torch.training.lightning_module import PtychoLightning
from ptycho_torch.training.loaders import FieldDataModule, PtychoDataModule

log = logging.getLogger(__name__)
# Lightning announces devices and products at every fit; its warnings stay.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)


def train_cdi_model_torch(
    train_data: RawDataTorch,
    test_data: RawDataTorch | None,
    config: TrainingConfig,
    fields: Dataset | None = None,
) -> dict[str, Any]:
    """Train on `train_data`; `test_data` is only watched (`val_loss`), nothing is chosen by it.

    The objective "procedural" trains on simulated `fields`
    (:class:`~ptycho_torch.training.loaders.FieldDataModule`) instead; of `train_data` it takes the
    probe alone, and nothing is watched. Writes `metrics.csv`, `model.ckpt` (unless checkpointing is
    off) and `bundle.pt` into `config.output_dir`; an existing `model.ckpt` of an unfinished run of
    the same configuration is continued. Returns a dict of model, history (a dict per epoch),
    final_loss, epochs, images, groups, bundle, bundle_sha256, checkpoint, seconds, cpu_seconds, and
    patterns_per_second (scored patterns per second of training, features included)."""
    output = Path(config.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    # With `deterministic`, torch would fill every new tensor before it is written to: a search for
    # bugs, an eighth of the time.
    torch.utils.deterministic.fill_uninitialized_memory = False
    lightning.seed_everything(config.seed, verbose=False)
    wall, cpu = time.perf_counter(), _cpu_seconds()
    if (fields is None) == (config.model.objective == "procedural"):
        raise ConfigError(
            f"objective={config.model.objective!r} with{'out' if fields is None else ''} simulated"
            " fields; 'procedural' trains on them, the others on patterns"
        )
    data = (
        PtychoDataModule(train_data, test_data, config)
        if fields is None
        else FieldDataModule(fields, config)
    )
    module = PtychoLightning(config.to_dict(), train_data.probe)
    history = _History(output / "metrics.csv")
    checkpoint = output / "model.ckpt"
    epoch_steps = len(data.train_dataloader())
    epochs = config.max_epochs or -(-config.steps // epoch_steps)
    resumed, data.first_epoch = _resumable(checkpoint, config, epochs)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator=_accelerator(config),
        devices=config.devices,
        # Forked processes have the data already; Lightning's default starts the whole program again
        # in each.
        strategy="auto" if config.devices == 1 else "ddp_fork",
        use_distributed_sampler=False,
        logger=_logger(config),
        callbacks=[history, *_callbacks(config, epoch_steps)],
        enable_checkpointing=config.checkpointing,
        enable_progress_bar=config.progress,
        enable_model_summary=False,
        deterministic=config.deterministic,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=output,
        limit_val_batches=0 if test_data is None or fields is not None else None,
        # The environment also inside a Slurm job, whose tasks Lightning would take for its own.
        plugins=[_AtomicCheckpoints(), LightningEnvironment()],
    )
    with warnings.catch_warnings():
        # Lightning 2.6 asks torch's tree utilities by a name that torch 2.15 deprecates; nothing
        # here can change it.
        warnings.filterwarnings(
            "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=FutureWarning
        )
        warnings.filterwarnings(
            "ignore", message=r"`isinstance\(treespec, LeafSpec\)`", category=DeprecationWarning
        )
        # A job is one machine's, also inside a Slurm allocation; Lightning looks for srun wherever
        # Slurm is installed.
        warnings.filterwarnings(
            "ignore", message="The `srun` command is available on your system but is not used"
        )
        # The job's folder holds its log before its first checkpoint.
        warnings.filterwarnings(
            "ignore", message=r"Checkpoint directory .* exists and is not empty"
        )
        # Batches are mapped from a file and cut by index: a worker process costs more than it
        # brings (num_workers = 0).
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    wall, cpu = time.perf_counter() - wall, _cpu_seconds() - cpu
    rows = history.read()
    final = rows[-1]["train_loss"]
    if not torch.isfinite(torch.tensor(final)):
        raise PtychoError(
            f"training ended with a loss of {final}; try a smaller learning_rate (now"
            f" {config.learning_rate})"
        )
    images, groups = (len(data.train.images), len(data.train)) if fields is None else (0, 0)
    statistics = {
        "images": images,
        "groups": groups,
        "photons_per_exposure": train_data.photons_per_exposure,
        "counts": count_statistics(train_data.scan.diffraction).summary(),
        "source": str(train_data.source),
        "metadata": train_data.metadata,
    }
    bundle = output / "bundle.pt"
    sha256 = save_bundle(bundle, module.model.cpu(), config, statistics)
    scored = groups * config.model.images_per_group * config.thinnings * (epochs - data.first_epoch)
    return {
        "model": module.model,
        "history": rows,
        "final_loss": final,
        "epochs": len(rows),
        "images": images,
        "groups": groups,
        "bundle": bundle,
        "bundle_sha256": sha256,
        "checkpoint": checkpoint if config.checkpointing else None,
        "seconds": wall,
        "cpu_seconds": cpu,
        "patterns_per_second": scored / wall,
    }


class _History(lightning.Callback):
    """Losses per epoch, in a file: the process that trained may not be the one that goes on. Kept
    here and not by a logger, so that every logger choice leaves the same metrics.csv."""

    def __init__(self, path: Path) -> None:
        self.path, self.rows = path, []

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, **losses})
        log.info(
            "epoch %d of %d: %s",
            trainer.current_epoch + 1,
            trainer.max_epochs,
            ", ".join(f"{name} {value:.5g}" for name, value in losses.items()),
        )

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def read(self) -> list[dict[str, float]]:
        """A dict per epoch."""
        with self.path.open(newline="") as file:
            return [
                {name: int(text) if name == "epoch" else float(text) for name, text in row.items()}
                for row in csv.DictReader(file)
            ]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])


class _AtomicCheckpoints(TorchCheckpointIO):
    """Lightning writes into the system's temporary folder and moves the file: across file systems
    that is a copy, and a process killed during it leaves half a checkpoint."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: None = None
    ) -> None:
        write_tensors(path, checkpoint)


class _Checkpoints(ModelCheckpoint):
    """One after every few epochs and after the last: a file takes as long to reach the disk as a
    short epoch to train."""

    def __init__(self, folder: str, epochs: int):
        super().__init__(
            dirpath=folder,
            filename="model",
            enable_version_counter=False,
            save_on_train_epoch_end=True,
        )
        self.epochs = epochs

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        done = trainer.current_epoch + 1
        if done % self.epochs == 0 or done == trainer.max_epochs:
            super().on_train_epoch_end(trainer, module)


def _callbacks(config: TrainingConfig, epoch_steps: int) -> list[lightning.Callback]:
    callbacks: list[lightning.Callback] = []
    if config.checkpointing:
        callbacks.append(
            _Checkpoints(config.output_dir, -(-config.checkpoint_steps // epoch_steps))
        )
    if config.progress:
        callbacks.append(TQDMProgressBar())
    return callbacks


def _accelerator(config: TrainingConfig) -> str:
    # Not is_available(): it starts CUDA in this process, and forked ones (devices > 1) could then
    # not use it.
    if config.accelerator == "gpu" and not torch.cuda.device_count():
        raise ConfigError(
            "accelerator='gpu', but torch sees no GPU here; use 'cpu', or 'auto' to take what"
            " there is"
        )
    return config.accelerator


def _logger(config: TrainingConfig) -> Logger | bool:
    if config.logger == "none":
        return False
    if config.logger == "csv":
        return CSVLogger(config.output_dir, name="", version="csv_log")
    try:
        if config.logger == "tensorboard":
            from lightning.pytorch.loggers import TensorBoardLogger

            return TensorBoardLogger(config.output_dir, name="", version="tensorboard")
        from lightning.pytorch.loggers import MLFlowLogger

        return MLFlowLogger(save_dir=str(Path(config.output_dir) / "mlflow"))
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"logger={config.logger!r} needs a package that is not installed ({error}); "
            f"pip install 'fly64[{config.logger}]'"
        ) from error


def _resumable(checkpoint: Path, config: TrainingConfig, epochs: int) -> tuple[Path | None, int]:
    """An unfinished run's checkpoint, if it is of this very configuration, and how many epochs it
    has behind it."""
    if not (config.checkpointing and checkpoint.is_file()):
        return None, 0
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        same, done = saved["hyper_parameters"]["config"] == config.to_dict(), saved["epoch"] + 1
    except Exception as error:  # torch raises many kinds for a damaged archive
        raise PtychoError(
            f"{checkpoint}: cannot be read ({type(error).__name__}); remove it to train afresh"
        ) from error
    return (checkpoint, done) if same and done < epochs else (None, 0)


def _cpu_seconds() -> float:
    """Of this process and of those that it waited for."""
    return sum(os.times()[:4])
