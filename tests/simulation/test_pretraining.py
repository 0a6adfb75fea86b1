"""Pretraining: canvases by seed, kept and found again, and a bundle that any scan can use."""

import numpy as np
import oracle
import pytest
import torch

from fly64lib.simulation import pretraining
from fly64lib.simulation.pretraining import (
    canvas,
    drawn_probe,
    main,
    positions,
    simulated,
    simulated_loss,
)
from ptycho_torch.network.features import fluence_of
from ptycho_torch.training.bundle import load_bundle

N = M = 32


def test_a_canvas_depends_on_its_seed_alone_and_is_kept(tmp_path):
    channels, truth = canvas(tmp_path, 3, N, M)
    again = simulated(3, N, M)
    assert torch.equal(channels, again.features.channels[0].half())
    assert torch.equal(truth, again.truth[0])
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert torch.equal(canvas(tmp_path, 3, N, M)[0], channels)
    assert file.stat().st_mtime_ns == written
    assert not torch.equal(canvas(tmp_path, 4, N, M)[1], truth)


def test_probes_and_positions_span_what_users_have():
    rng = np.random.default_rng(0)
    probes = [drawn_probe(rng, 96) for _ in range(12)]
    assert len({probe.tobytes() for probe in probes}) > 4
    counts = [len(positions(rng, 40.0)) for _ in range(40)]
    assert min(counts) < 40 and max(counts) == 350


def test_the_command_writes_a_bundle_and_resumes_with_the_canvases_it_has(tmp_path, monkeypatch):
    monkeypatch.setattr(pretraining, "_WINDOW_PX", 24)
    folder, out = tmp_path / "canvases", tmp_path / "out.pt"
    sizes = ["--N", str(N), "--M", str(M), "--count", "3", "--width", "8", "--depth", "2"]
    assert main([str(folder), str(out), *sizes, "--steps", "3"]) == 0
    bundle = load_bundle(out)
    assert bundle.config.model.objective == "general" and bundle.statistics["steps"] == 3
    first = out.read_bytes()
    assert main([str(folder), str(out), *sizes, "--steps", "3"]) == 0
    assert out.read_bytes() == first


@pytest.mark.parametrize("seed", range(3))
def test_a_window_keeps_channels_and_truth_together(seed):
    made = simulated(seed, N, 64)
    channels, truth = made.features.channels[0].half(), made.truth[0]
    # what is known of the object is put where its estimate is, to follow both
    channels[2:4] = torch.stack([truth.abs().log(), torch.angle(truth)]).half()
    rng = np.random.default_rng(seed)
    found = None
    while found is None:
        found = pretraining.window(rng, *_padded(channels, truth))
    seen, known = found
    again = torch.exp(torch.complex(seen[2], seen[3]))
    turn = (again * known.conj()).mean()
    torch.testing.assert_close(again, known * turn / turn.abs(), rtol=0, atol=0.01)


def _padded(channels: torch.Tensor, truth: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """At least a window's size."""
    repeat = [-(-pretraining._WINDOW_PX // side) for side in truth.shape]
    return channels.repeat(1, *repeat), truth.repeat(*repeat)


def test_the_loss_is_decibels_and_blind_to_the_global_phase_and_the_dark():
    rng = np.random.default_rng(1)
    truth = torch.from_numpy(np.exp(0.3 * oracle.complex_field(rng, 1, 20, 30))).to(torch.complex64)
    noise = torch.from_numpy(oracle.complex_field(rng, 1, 20, 30)).to(torch.complex64)
    fluence = torch.full((1, 20, 30), 50.0)

    def loss(change: torch.Tensor, light: torch.Tensor = fluence) -> float:
        return float(simulated_loss(truth * change, truth, light))

    # 20 dB less in amplitude and in phase
    assert loss(1 + 0.1 * noise) - loss(1 + 0.01 * noise) == pytest.approx(4, abs=0.05)
    turned = (1 + 0.1 * noise) * np.exp(2j)
    assert loss(turned) == pytest.approx(loss(1 + 0.1 * noise), abs=1e-3)
    dark = fluence.clone()
    dark[:, :, 15:] = 0
    spoilt = torch.where(dark > 0, 1 + 0.1 * noise, 5.0)
    assert loss(spoilt, dark) == pytest.approx(loss(1 + 0.1 * noise), abs=0.1)


def test_bright_canvases_show_their_own_object(monkeypatch):
    monkeypatch.setattr(pretraining, "DOSES", (3e6, 3.1e6))
    monkeypatch.setattr(pretraining, "_OWN_OPTICS", 1.0)
    for seed in (1, 2):
        made = simulated(seed, 64, 64)
        lit = fluence_of(made.features.channels)[0]
        lit = (lit > lit.mean()).numpy()
        found, truth = made.features.base[0].numpy()[lit], made.truth[0].numpy()[lit]
        error = np.abs(oracle.without_phase(found, truth) - truth).std()
        assert error < 0.35 * np.abs(truth - truth.mean()).std()
