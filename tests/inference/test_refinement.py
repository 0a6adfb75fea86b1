"""Refinement: it follows the data where photons are many, the network where they are few, and
chooses without truth."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import torch
from small_scan import seen_region, small_raw

from fly64lib.methods.classical import Classical
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.inference import refinement
from ptycho_torch.inference.apply import Reconstruction
from ptycho_torch.inference.refinement import refine
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.model import PtychoModel

CONFIG = TrainingConfig(model=ModelConfig(N=32, width=8))


def error(image, raw) -> float:
    """Root mean square error over the scanned region, global phase removed."""
    region = seen_region(raw)
    found, truth = np.asarray(image)[region], raw.object_guess.numpy()[region]
    return float(np.abs(oracle.without_phase(found, truth) - truth).std())


def answering(image, monkeypatch) -> None:
    """Let the network's part answer `image` for any data."""

    def network(model, raw, config):
        light = torch.ones(raw.object_guess.shape)
        found = torch.as_tensor(image, dtype=torch.complex64)
        return Reconstruction(found, light, np.arange(raw.n), 0.0, 0.0)

    monkeypatch.setattr(refinement, "reconstruct", network)


def refined(image, raw, monkeypatch):
    answering(image, monkeypatch)
    return refine(PtychoModel(CONFIG.model, raw.probe), raw, CONFIG)


def test_with_many_photons_a_wrong_network_is_put_right(monkeypatch):
    raw = small_raw(1e6)
    wrong = raw.object_guess + 0.1 * torch.from_numpy(
        oracle.complex_field(np.random.default_rng(0), *raw.object_guess.shape)
    )
    found = refined(wrong, raw, monkeypatch)
    assert error(found.object, raw) < 0.15 * error(wrong, raw)
    assert found.kept in ("blend", "none")


def test_with_few_photons_a_right_network_is_kept(monkeypatch):
    raw = small_raw(30.0)
    alone = refined(torch.ones_like(raw.object_guess), raw, monkeypatch)
    found = refined(raw.object_guess, raw, monkeypatch)
    assert error(found.object, raw) < 0.3 * error(alone.object, raw)


def test_neither_the_choice_nor_the_object_knows_the_files_object(monkeypatch):
    raw = small_raw(1e4)
    start = raw.object_guess * 1.05
    first, second = (refined(start, one, monkeypatch) for one in (raw, raw.without_truth()))
    assert torch.equal(first.object, second.object) and first.judged == second.judged


def test_what_photons_held_out_like_best_is_kept(monkeypatch):
    found = refined(small_raw(1e3).object_guess, small_raw(1e3), monkeypatch)
    assert list(found.judged) == ["network", "blend", "none"]
    assert found.kept == min(found.judged, key=found.judged.get) != "none"
    assert (found.prior is None) == (found.kept == "network")


def test_a_network_that_knows_another_object_has_no_say(monkeypatch):
    raw = small_raw(1e4)
    other = torch.flip(raw.object_guess, (0, 1))
    found = refined(other, raw, monkeypatch)
    alone = Classical().reconstruct(raw.without_truth()).object
    assert found.kept == "none" and error(found.object, raw) < 1.05 * error(alone, raw)


def test_what_no_pattern_covers_stays_as_the_network_left_it(monkeypatch):
    raw = small_raw(1e4)
    wide = np.pad(raw.scan.object_guess, ((0, 9), (0, 11)), constant_values=0.5)
    raw = RawDataTorch(replace(raw.scan, object_guess=wide), Path("wide.npz"))
    found = refined(raw.object_guess, raw, monkeypatch)
    assert (found.object[-9:] == 0.5).all() and (found.object[:, -11:] == 0.5).all()
