"""Training as Lightning sees it: one loss, AdamW, a cosine to zero, orientations drawn by step; and
checkpoints of an unfinished one, written whole and found again."""

import io
from pathlib import Path
from typing import Any

import lightning
import torch
from jaxtyping import Complex
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import PtychoError
from ptycho_torch.files import atomic_path
from ptycho_torch.network.model import Batch, PtychoModel

_WARMUP_STEPS = 20


class PtychoLightning(lightning.LightningModule):
    """Trains a :class:`PtychoModel`. Its checkpoint holds tensors and plain types only."""

    def __init__(self, config: dict[str, Any], probe: Complex[Tensor, "modes N N"]):
        super().__init__()
        self.save_hyperparameters({"config": config})
        self.config = TrainingConfig(**config)
        self.model = PtychoModel(self.config.model, probe)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.global_step)
        symmetry = int(torch.randint(8, (1,), generator=generator))
        return self._loss("train_loss", batch, symmetry)

    def validation_step(self, batch: Batch, index: int) -> None:
        self._loss("val_loss", batch)

    def _loss(self, name: str, batch: Batch, symmetry: int = 0) -> Tensor:
        loss = self.model.loss(self.model.object_canvas(batch.features, symmetry), batch)
        mean = {"on_step": False, "on_epoch": True, "sync_dist": True}
        self.log(name, loss, batch_size=batch.size, **mean)
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        config = self.config
        optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warmup = min(_WARMUP_STEPS, max(1, total // 5))

        def share(step: int) -> float:
            angle = torch.tensor(torch.pi * min(step, total) / total)
            return min(1.0, (step + 1) / warmup) * 0.5 * (1 + torch.cos(angle).item())

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def resumable(config: TrainingConfig, checkpoint: Path, epochs: int) -> tuple[Path | None, int]:
    """An unfinished run's checkpoint, if it is of this very configuration, and how many epochs it
    has behind it."""
    if not (config.checkpointing and checkpoint.is_file()):
        return None, 0
    try:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)
        same, done = saved["hyper_parameters"]["config"] == config.to_dict(), saved["epoch"] + 1
    except Exception as error:  # torch raises many kinds for a damaged archive
        text = f"{checkpoint}: cannot be read ({type(error).__name__}); remove it to train afresh"
        raise PtychoError(text) from error
    return (checkpoint, done) if same and done < epochs else (None, 0)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes atomically, the same content as the same bytes.

    Lightning writes into the system's temporary folder and moves the file: across file systems that
    is a copy, and a process killed during it leaves half a checkpoint. Here it goes through memory:
    torch names the archive after the file it writes to, and dresses a full disk up as an error of
    its own."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: None = None
    ) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with atomic_path(path) as temporary:
            temporary.write_bytes(buffer.getbuffer())
