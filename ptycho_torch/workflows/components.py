"""Training, whole: data, model, Lightning trainer, checkpoint and bundle in one call."""

import csv
import logging
import math
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch import loggers
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.plugins.environments import LightningEnvironment

from ptycho_torch.commands import cpu_seconds
from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.count_statistics import count_statistics
from ptycho_torch.errors import ConfigError, MissingDependencyError, PtychoError
from ptycho_torch.files import atomic_path
from ptycho_torch.iteration.thinning import split_photons
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.training.bundle import load_bundle, save_bundle, shipped
from ptycho_torch.training.held_out import HeldOut
from ptycho_torch.training.lightning_module import AtomicCheckpointIO, PtychoLightning, resumable
from ptycho_torch.training.loaders import loader
from ptycho_torch.training.samples import Split

log = logging.getLogger(__name__)
# Lightning announces devices and products at every fit; its warnings stay.
logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
_HARMLESS = (
    # Lightning 2.6 asks torch's tree utilities by a name that torch 2.15 deprecates.
    r"`isinstance\(treespec, LeafSpec\)`",
    # A job is one machine's; Lightning looks for srun wherever Slurm is installed.
    "The `srun` command is available on your system but is not used",
    # Batches are mapped from a file and cut by index: a worker costs more than it brings.
    ".*does not have many workers.*",
    "You defined a `validation_step` but have no `val_dataloader`",  # nothing is held out
)


def train_cdi_model_torch(
    train_data: RawDataTorch,
    test_data: RawDataTorch | None,
    config: TrainingConfig,
) -> dict[str, Any]:
    """Train on `train_data`; `test_data` is only watched (`val_loss`), nothing is chosen by it.

    From `start` "shipped" the network that comes with the package is adapted, and of its states
    between epochs, the first included, the one is kept that explains best the photons of
    `train_data` held out of everything (:class:`~ptycho_torch.training.held_out.HeldOut`). Writes
    `metrics.csv`, `model.ckpt` (unless checkpointing is
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
    wall, cpu = time.perf_counter(), cpu_seconds()
    if config.model.objective == "general":
        text = "objective='general' is no training on a scan; it is made by"
        raise ConfigError(f"{text} python -m fly64lib.simulation.pretraining")
    callbacks: list[lightning.Callback] = []
    fitted, first = train_data, None
    if config.start == "shipped":
        first = load_bundle(shipped(train_data.N, train_data.M))
        model = replace(first.config.model, objective=config.model.objective)
        config = replace(config, model=replace(model, gridsize=config.model.gridsize))
        fitted, rest = split_photons(train_data, 1 - config.held_out, config.seed)
    data = Split(fitted, config)
    # a shipped network's adaptation is judged by photons of its own scan
    watched = None if test_data is None or first else Split(test_data, config)
    shown = loader(data, config)
    module = PtychoLightning(config.to_dict(), fitted.probe)
    if first:
        module.model.network.load_state_dict(first.model.network.state_dict())
        callbacks.append(HeldOut(fitted, rest, data.images))
    checkpoint, history = output / "model.ckpt", _History(config, len(shown))
    epochs = config.max_epochs or -(-config.steps // len(shown))
    resumed, done = resumable(config, checkpoint, epochs)
    shown.sampler.set_epoch(done)  # Lightning draws the first order before it names the epoch
    trainer = _trainer(config, epochs, [*callbacks, history])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "|".join(_HARMLESS))
        held_out = None if watched is None else loader(watched, config, drawn=False)
        trainer.fit(module, shown, held_out, ckpt_path=resumed, weights_only=True)
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    rows = history.read()
    final = rows[-1]["train_loss"]
    if not math.isfinite(final):
        advice = f"try a smaller learning_rate (now {config.learning_rate})"
        raise PtychoError(f"training ended with a loss of {final}; {advice}")
    module.model.probe = train_data.probe
    used = {"images": len(data.images), "groups": len(data)}
    statistics = used | {
        "photons_per_exposure": train_data.photons_per_exposure,
        "counts": count_statistics(train_data.scan.diffraction).summary(),
        "source": str(train_data.source),
        "metadata": train_data.metadata,
    }
    bundle = output / "bundle.pt"
    sha256 = save_bundle(bundle, module.model.cpu(), config, statistics)
    scored = len(data) * config.model.images_per_group * config.thinnings * (epochs - done)
    return used | {
        "model": module.model,
        "history": rows,
        "final_loss": final,
        "epochs": len(rows),
        "bundle": bundle,
        "bundle_sha256": sha256,
        "checkpoint": checkpoint if config.checkpointing else None,
        "seconds": wall,
        "cpu_seconds": cpu,
        "patterns_per_second": scored / wall,
    }


def _trainer(
    config: TrainingConfig, epochs: int, callbacks: list[lightning.Callback]
) -> lightning.Trainer:
    # Not is_available(): it starts CUDA in this process, and forked ones (devices > 1) could then
    # not use it.
    if config.accelerator == "gpu" and not torch.cuda.device_count():
        advice = "use 'cpu', or 'auto' to take what there is"
        raise ConfigError(f"accelerator='gpu', but torch sees no GPU here; {advice}")
    return lightning.Trainer(
        max_epochs=epochs,
        accelerator=config.accelerator,
        devices=config.devices,
        # Forked processes have the data already; Lightning's default starts the whole program again
        # in each.
        strategy="auto" if config.devices == 1 else "ddp_fork",
        use_distributed_sampler=False,
        logger=_logger(config),
        callbacks=[*callbacks, TQDMProgressBar()] if config.progress else callbacks,
        enable_checkpointing=False,
        enable_progress_bar=config.progress,
        enable_model_summary=False,
        deterministic=config.deterministic,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        default_root_dir=config.output_dir,
        # The environment also inside a Slurm job, whose tasks Lightning would take for its own.
        plugins=[AtomicCheckpointIO(), LightningEnvironment()],
    )


class _History(lightning.Callback):
    """Losses per epoch, in a file: the process that trained may not be the one that goes on. Kept
    here and not by a logger, so that every logger choice leaves the same metrics.csv.

    And `model.ckpt` after every few epochs and after the last: a file takes as long to reach the
    disk as a short epoch to train."""

    def __init__(self, config: TrainingConfig, epoch_steps: int) -> None:
        self.config, self.rows = config, []
        self.path = Path(config.output_dir) / "metrics.csv"
        self.epochs = -(-config.checkpoint_steps // epoch_steps)  # between two checkpoints

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: PtychoLightning) -> None:
        losses = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.rows.append({"epoch": trainer.current_epoch, **losses})
        text = ", ".join(f"{name} {value:.5g}" for name, value in losses.items())
        done = trainer.current_epoch + 1
        log.info("epoch %d of %d: %s", done, trainer.max_epochs, text)
        due = done % self.epochs == 0 or done == trainer.max_epochs
        if self.config.checkpointing and due:
            trainer.save_checkpoint(self.path.with_name("model.ckpt"))

    def on_train_end(self, trainer: lightning.Trainer, module: PtychoLightning) -> None:
        if not trainer.is_global_zero:
            return
        with atomic_path(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def read(self) -> list[dict[str, float]]:
        """A dict per epoch."""
        with self.path.open(newline="") as file:
            rows = [{name: float(row[name]) for name in row} for row in csv.DictReader(file)]
        return [row | {"epoch": int(row["epoch"])} for row in rows]

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = list(state["rows"])


def _logger(config: TrainingConfig) -> loggers.Logger | bool:
    try:
        if config.logger == "csv":
            return loggers.CSVLogger(config.output_dir, name="", version="csv_log")
        if config.logger == "tensorboard":
            return loggers.TensorBoardLogger(config.output_dir, name="", version="tensorboard")
        if config.logger == "mlflow":
            return loggers.MLFlowLogger(save_dir=str(Path(config.output_dir) / "mlflow"))
        return False
    except ModuleNotFoundError as error:
        text = f"logger={config.logger!r} needs a package that is not installed ({error})"
        raise MissingDependencyError(f"{text}; pip install 'fly64[{config.logger}]'") from error
