"""Training as Lightning sees it: one loss, AdamW, a cosine to zero, eight orientations drawn from
(seed, step)."""

from typing import Any

import lightning
import torch
from jaxtyping import Complex
from torch import Tensor

from ptycho_torch.config import TrainingConfig
from ptycho_torch.network.model import Batch, FieldBatch, PtychoModel

_WARMUP_STEPS = 20


class PtychoLightning(lightning.LightningModule):
    """Trains a :class:`PtychoModel`. Its checkpoint holds tensors and plain types only."""

    def __init__(self, config: dict[str, Any], probe: Complex[Tensor, "modes N N"]):
        super().__init__()
        self.save_hyperparameters({"config": config})
        self.config = TrainingConfig.from_dict(config)
        self.model = PtychoModel(self.config.model, probe)

    def training_step(self, batch: Batch | FieldBatch, index: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + self.global_step)
        symmetry = int(torch.randint(8, (1,), generator=generator))
        loss = self.model.loss(self.model.object_canvas(batch.features, symmetry), batch)
        size = len(batch.truth) if isinstance(batch, FieldBatch) else len(batch.address)
        self.log("train_loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        loss = self.model.loss(self.model.object_canvas(batch.features), batch)
        self.log(
            "val_loss",
            loss,
            on_step=False,
            on_epoch=True,
            sync_dist=True,
            batch_size=len(batch.address),
        )

    def configure_optimizers(self) -> dict[str, Any]:
        optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
        )
        total = max(1, int(self.trainer.estimated_stepping_batches))
        warmup = min(_WARMUP_STEPS, max(1, total // 5))

        def share(step: int) -> float:
            rise = min(1.0, (step + 1) / warmup)
            return (
                rise
                * 0.5
                * (1 + torch.cos(torch.tensor(torch.pi * min(step, total) / total)).item())
            )

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
