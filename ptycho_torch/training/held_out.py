"""What a training that starts from a network that knows many objects keeps of itself."""

from typing import Any

import lightning
import torch
from jaxtyping import Int
from torch import Tensor

from ptycho_torch.iteration.slopes import mean_deviance
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.features import make_features
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.training.lightning_module import PtychoLightning


class HeldOut(lightning.Callback):
    """Keeps the weights, the first ones included, whose object explains best the photons that are
    in no input and no loss: `rest` of a scan, under the object of its other photons, `fitted`.

    `held_out` in the history is their deviance per measured pixel."""

    def __init__(self, fitted: RawDataTorch, rest: RawDataTorch, images: Int[Tensor, " n"]) -> None:
        with torch.no_grad():
            self.features = make_features(fitted.patterns(images.numpy()))
        self.rest = rest.patterns(images.numpy())
        self.best, self.weights = float("inf"), None

    def deviance(self, model: PtychoModel) -> float:
        """Of the photons held out, under the object that the model gives."""
        device = model.probe.device
        features = self.features._replace(channels=self.features.channels.to(device))
        with torch.no_grad():
            return mean_deviance(model.object_canvas(features).cpu(), self.rest)

    def _look(self, module: PtychoLightning) -> float:
        found = self.deviance(module.model)
        if found < self.best:
            weights = module.model.network.state_dict()
            self.best = found
            self.weights = {name: value.cpu().clone() for name, value in weights.items()}
        return found

    def on_train_start(self, trainer: lightning.Trainer, module: PtychoLightning) -> None:
        if self.weights is None:  # else it goes on
            self._look(module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: PtychoLightning) -> None:
        self.log("held_out", self._look(module), sync_dist=True)

    def on_train_end(self, trainer: lightning.Trainer, module: PtychoLightning) -> None:
        module.model.network.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best, self.weights = state["best"], state["weights"]
