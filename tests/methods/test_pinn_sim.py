"""The network that comes with the package: for any scan of its pixels, and no other."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_scan import small_raw

from fly64lib.design.study import ScanDesign, split_file
from fly64lib.evaluation.judgement import judge
from fly64lib.generation import generate_datasets
from fly64lib.methods.classical import Classical
from fly64lib.methods.learned import PinnSim, PinnSimRefined
from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.inference.apply import reconstruct
from ptycho_torch.iteration.thinning import split_photons
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.training.bundle import load_bundle, shipped
from ptycho_torch.training.held_out import HeldOut
from ptycho_torch.workflows.components import train_cdi_model_torch


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> RawDataTorch:
    """Every eighth row and sample of a specimen that no training saw, few photons."""
    root = tmp_path_factory.mktemp("kept_out")
    design = ScanDesign(doses=(3e3,), specimen="labyrinth", M=96, scan_step=8, simulation="matched")
    generate_datasets(root, design)
    return open_scan(split_file(root, 3e3, "test"))


def test_it_is_better_than_the_classical_row_on_a_specimen_that_it_has_not_seen(scan):
    methods = {"classical": Classical(), "pinn-sim": PinnSim(), "refined": PinnSimRefined()}
    blind = scan.without_truth()
    objects = {name: method.reconstruct(blind).object for name, method in methods.items()}
    rows = {row["method"]: row for row in judge(objects, scan)}
    gain = [
        rows["refined"][f"{part}_psnr"] - rows["classical"][f"{part}_psnr"]
        for part in ("phase", "amplitude")
    ]
    assert gain[0] > 0.6 and gain[1] > 0.2, rows


def test_it_serves_another_probe_of_the_same_pixels(scan):
    turned = scan.under(np.ascontiguousarray(scan.scan.probe.conj()))
    found = PinnSim().reconstruct(turned.without_truth())
    assert np.isfinite(found.object).all()


def test_other_pixels_are_refused_and_the_message_says_what_to_do(scan):
    with pytest.raises(ConfigError, match=r"N = 32, M = 32; make one \(python -m .*\), or put the"):
        PinnSim().reconstruct(small_raw(1e3))
    bundle = shipped(64, 96)
    with pytest.raises(ConfigError, match=r"N, M are \(32, 32\), the network knows \(64, 96\)"):
        PinnSim(bundle=bundle).reconstruct(small_raw(1e3))


def test_the_bundle_is_small_and_says_what_it_was_made_of():
    path = shipped(64, 96)
    bundle = load_bundle(path)
    assert path.stat().st_size < 5e6 and bundle.config.model.objective == "general"
    assert bundle.statistics["canvases"] > 400 and bundle.statistics["M"] == 96
    assert replace(bundle.config, seed=0) == bundle.config


@pytest.mark.slow
def test_an_adapted_network_has_moved_and_its_history_has_the_photons_held_out(scan, tmp_path):
    config = TrainingConfig(output_dir=str(tmp_path), checkpointing=False, logger="none")
    settings = {"start": "shipped", "steps": 6, "thinnings": 2, "learning_rate": 3e-4}
    trained = train_cdi_model_torch(scan.without_truth(), None, config.with_settings(settings))
    adapted = load_bundle(trained["bundle"])
    assert (adapted.config.model.width, adapted.config.model.objective) == (32, "poisson")
    assert len(trained["history"]) == 3 and "held_out" in trained["history"][0]
    first = load_bundle(shipped(64, 96))
    pairs = zip(adapted.model.parameters(), first.model.parameters(), strict=True)
    assert not all(torch.equal(one, other) for one, other in pairs)
    found = reconstruct(adapted.model, scan.without_truth(), adapted.config)
    assert torch.isfinite(torch.view_as_real(found.object)).all()


def test_a_network_that_training_ruins_is_left_as_it_was(scan):
    """What photons held out like best is kept, the first state included."""
    fitted, rest = split_photons(scan.without_truth(), 0.9, seed=0)
    watch = HeldOut(fitted, rest, torch.arange(scan.n))
    model = load_bundle(shipped(64, 96)).model
    module = SimpleNamespace(model=model)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    watch.on_train_start(None, module)
    first = watch.best
    with torch.no_grad():
        for weights in model.network.parameters():
            weights += 0.05 * torch.randn(weights.shape, generator=torch.manual_seed(0))
    assert watch.deviance(model) > first
    assert watch._look(module) > watch.best == first
    watch.on_train_end(None, module)
    after = model.network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
