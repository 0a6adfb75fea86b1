"""Networks of other packages: trained, bundled and reloaded like the project's own."""

import pytest
import torch
from other_package import installed
from small_scan import small_raw

from ptycho_torch.config import NETWORKS, ModelConfig, TrainingConfig
from ptycho_torch.errors import DataContractError
from ptycho_torch.inference.apply import reconstruct
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.training.bundle import load_bundle
from ptycho_torch.workflows.components import train_cdi_model_torch

PIXELWISE = """
import torch
class Entry(torch.nn.Module):
    def __init__(self, channels, config):
        super().__init__()
        self.mix = torch.nn.Conv2d(channels, 2, 1)
        self.register_buffer("seen", torch.tensor(config.width))
    def forward(self, image):
        return torch.complex(*self.mix(image).unbind(1))
"""


def test_a_network_of_another_package_trains_and_its_bundle_needs_that_package(tmp_path):
    with installed(tmp_path / "site", NETWORKS, "pixelwise", PIXELWISE):
        model = ModelConfig(N=32, network="pixelwise", width=8)
        training = {"max_epochs": 1, "thinnings": 1, "logger": "none", "checkpointing": False}
        config = TrainingConfig(model=model, output_dir=str(tmp_path), **training)
        raw = small_raw(1e4)
        trained = train_cdi_model_torch(raw, None, config)
        loaded = load_bundle(trained["bundle"]).model
        assert type(loaded.network).__module__ == "other_pixelwise"
        assert int(loaded.network.seen) == 8
        images = [reconstruct(one, raw, config).object for one in (trained["model"], loaded)]
        untrained = reconstruct(PtychoModel(model, raw.probe), raw, config).object
        assert torch.equal(*images) and not torch.equal(images[0], untrained)
    with pytest.raises(DataContractError, match="network='pixelwise' is not known; there are unet"):
        load_bundle(trained["bundle"])
