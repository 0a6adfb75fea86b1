"""The network's input: the canvases of the passes and the fluence, whatever the phase and the
dose."""

from dataclasses import replace

import numpy as np
import oracle
import torch
from small_scan import geometry, small_raw

from ptycho_torch.config import ModelConfig
from ptycho_torch.iteration.canvas import canvas_steps, empty
from ptycho_torch.iteration.subsets import schedule
from ptycho_torch.network.features import Features, channel_count, fluence_of, make_features
from ptycho_torch.physics.geometry import Patterns

MODEL = ModelConfig(N=32)


def complex_channels(features: Features, stage: int) -> torch.Tensor:
    return torch.complex(features.channels[:, 2 * stage] + 1, features.channels[:, 2 * stage + 1])


def test_the_channels_are_the_passes_canvases_and_the_fluence():
    raw = small_raw(1e4)
    patterns, features = raw.patterns(), make_features(raw.patterns(), MODEL)
    place = patterns.geometry
    assert features.channels.shape == (1, channel_count(MODEL), *place.shape[1:])
    plan = schedule(place, max(MODEL.canvas_passes))
    for stage, passes in enumerate(MODEL.canvas_passes):
        start, smoothness = empty(place), MODEL.smoothness
        canvas = canvas_steps(patterns, start, plan[:passes], smoothness=smoothness)
        shown = complex_channels(features, stage)
        turn = (shown / canvas).mean()
        assert abs(abs(turn) - 1) < 1e-4
        np.testing.assert_allclose(shown, canvas * turn, atol=1e-4)
    np.testing.assert_allclose(complex_channels(features, 1), features.base, atol=1e-6)
    _, _, y, x, _ = geometry()
    light = oracle.fluence(raw.object_guess.shape, raw.probe.numpy().astype(complex), y, x)
    light = light[place.window]
    np.testing.assert_allclose(features.channels[0, -1], np.log10(light + 0.1) / 2, atol=1e-3)
    np.testing.assert_allclose(fluence_of(features.channels)[0], light, rtol=1e-3, atol=1e-3)


def test_a_canvas_global_phase_is_taken_out():
    features = make_features(small_raw(1e4).patterns(), MODEL)
    assert abs(float(torch.angle((fluence_of(features.channels) * features.base).sum()))) < 1e-5


def test_a_share_of_the_photons_under_a_fainter_probe_shows_the_same_object():
    free, whole = replace(MODEL), small_raw(1e5).patterns()
    part = whole.geometry.under(whole.geometry.probe * 0.3**0.5)
    faint = make_features(Patterns(part, lambda i: whole.counts(i) * 0.3), free)
    bright = make_features(whole, free)
    lit = bright.channels[:, -1] > 1.5  # 1,000 photons a pixel
    # Nearly: the floor under dark detector pixels is a constant number of photons.
    difference, level = (faint.base - bright.base)[lit], bright.base[lit].mean()
    contrast = (bright.base - level)[lit]
    assert difference.abs().square().mean() < 1e-3 * contrast.abs().square().mean()
    fainter = (bright.channels - faint.channels)[:, -1][lit]
    np.testing.assert_allclose(fainter, -np.log10(0.3) / 2, atol=1e-2)
