"""Simulated canvases: counts are those of the drawn object, the set is wide, a network learns
from it."""

import numpy as np
import oracle
import pytest
import torch
from small_scan import small_raw

from fly64lib.simulation import procedural_canvases as pretraining
from fly64lib.simulation.probes import outer_half_maximum_diameter, zone_plate_probe
from fly64lib.simulation.procedural_canvases import ProceduralCanvases, positions
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.network.features import Features, fluence_of
from ptycho_torch.network.model import PtychoModel, SimulatedBatch, simulated_loss
from ptycho_torch.training.loaders import SimulatedSampler
from ptycho_torch.workflows.components import train_cdi_model_torch

MODEL = ModelConfig(N=64, objective="procedural", width=8, depth=2)


@pytest.fixture(scope="module")
def canvases() -> ProceduralCanvases:
    return ProceduralCanvases(
        torch.from_numpy(zone_plate_probe(64)[None].astype(np.complex64)), MODEL
    )


def test_a_canvas_is_the_same_from_its_seed_and_differs_from_others(canvases):
    again = ProceduralCanvases(
        canvases.probe * 7, MODEL
    )  # the probe's brightness is the dose's to set
    first, second, other = canvases[3], again[3], canvases[4]
    torch.testing.assert_close(first.truth, second.truth)
    torch.testing.assert_close(
        first.features.channels, second.features.channels, rtol=1e-3, atol=1e-3
    )
    assert first.truth.shape != other.truth.shape or not torch.equal(first.truth, other.truth)


def test_bright_canvases_show_their_own_object(canvases, monkeypatch):
    monkeypatch.setattr(pretraining, "DOSES", (3e6, 3.1e6))
    bright = ProceduralCanvases(canvases.probe, ModelConfig(objective="procedural"))
    for seed in (1, 2, 5):
        canvas = bright[seed]
        lit = (fluence_of(canvas.features.channels) > fluence_of(canvas.features.channels).mean())[
            0
        ].numpy()
        found, truth = canvas.features.base[0].numpy()[lit], canvas.truth[0].numpy()[lit]
        assert (
            np.abs(oracle.without_phase(found, truth) - truth).std()
            < 0.35 * np.abs(truth - truth.mean()).std()
        )


def test_canvases_span_the_doses_and_all_kinds_of_views(canvases, monkeypatch):
    monkeypatch.setattr(pretraining, "make_features", lambda patterns: patterns.geometry.fluence())
    unsolved = ProceduralCanvases(canvases.probe, MODEL)
    light = [float(unsolved[seed].features.max()) for seed in range(25)]
    assert min(light) < 30 and max(light) > 3000
    rng, D = np.random.default_rng(0), 32.0
    nearest = []
    for _ in range(40):
        at = positions(rng, D)
        gaps = np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1))
        nearest.append(np.median(np.sort(gaps, axis=1)[:, 1]) / D)
    assert min(nearest) < 0.08 and max(nearest) > 0.2  # tight groups, and single images


def test_the_details_keep_their_size_for_any_probe():
    large = torch.from_numpy(zone_plate_probe(128)[None].astype(np.complex64))
    assert outer_half_maximum_diameter(large.numpy()) > 1.5 * 32
    canvas = ProceduralCanvases(large, ModelConfig(N=128, objective="procedural"))[0]
    assert canvas.truth.shape == canvas.features.base.shape and min(canvas.truth.shape[1:]) >= 128


def test_the_loss_is_decibels_and_blind_to_the_global_phase():
    rng = np.random.default_rng(1)
    truth = torch.from_numpy(np.exp(0.3 * oracle.complex_field(rng, 1, 20, 30))).to(torch.complex64)
    noise = torch.from_numpy(oracle.complex_field(rng, 1, 20, 30)).to(torch.complex64)
    fluence = torch.full((1, 20, 30), 50.0)
    losses = [
        float(simulated_loss(truth * (1 + level * noise), truth, fluence)) for level in (0.1, 0.01)
    ]
    assert losses[0] - losses[1] == pytest.approx(
        4, abs=0.05
    )  # 20 dB less in amplitude and in phase
    turned = float(simulated_loss(truth * (1 + 0.1 * noise) * np.exp(2j), truth, fluence))
    assert turned == pytest.approx(losses[0], abs=1e-3)
    dark = fluence.clone()
    dark[:, :, 15:] = 0
    spoilt = truth * torch.where(dark > 0, 1 + 0.1 * noise, 5.0)
    assert float(simulated_loss(spoilt, truth, dark)) == pytest.approx(
        losses[0], abs=0.1
    )  # nobody sees the dark


@pytest.mark.slow
def test_a_network_learns_from_canvases_and_the_same_seed_gives_the_same_bits(
    canvases, tmp_path, monkeypatch
):
    monkeypatch.setattr(SimulatedSampler, "PER_EPOCH", 3)
    raw = small_raw(1e4, N=64, across=3)

    def trained(folder: str) -> dict:
        config = TrainingConfig(
            model=MODEL,
            steps=48,
            output_dir=str(tmp_path / folder),
            logger="none",
            checkpointing=False,
        )
        return train_cdi_model_torch(raw, None, config, ProceduralCanvases(raw.probe, MODEL))

    first, second = trained("first"), trained("second")
    assert first["history"] == second["history"] and first["epochs"] == 2
    canvas = ProceduralCanvases(raw.probe, MODEL)[10**6]
    untrained = PtychoModel(MODEL, raw.probe)
    losses = [
        float(model.loss(model.object_canvas(canvas.features), canvas).detach())
        for model in (first["model"], untrained)
    ]
    assert losses[0] < losses[1] - 0.002  # of a canvas that it has not seen


def test_the_objective_and_what_is_trained_on_have_to_agree(canvases, tmp_path):
    config = TrainingConfig(model=MODEL, output_dir=str(tmp_path))
    with pytest.raises(ConfigError, match="objective='procedural' without simulated canvases"):
        train_cdi_model_torch(small_raw(), None, config)


def test_every_parameter_gets_a_gradient_from_a_canvas(canvases):
    model = PtychoModel(MODEL, canvases.probe)
    for name, weights in model.network.named_parameters():
        if name == "head.weight" or name.endswith("body.3.weight"):  # they start at zero
            torch.nn.init.normal_(weights, std=0.1)
    canvas = canvases[0]
    batch = SimulatedBatch(Features(*canvas.features), canvas.truth)
    model.loss(model.object_canvas(batch.features, 3), batch).backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in model.network.parameters())
