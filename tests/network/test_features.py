"""The network's input: the object solved under two priors and the fluence, whatever the phase and
the dose."""

import numpy as np
import oracle
import torch
from small_scan import geometry, small_raw

from ptycho_torch.iteration.image_prior import object_of
from ptycho_torch.network.features import CHANNELS, fluence_of, make_features
from ptycho_torch.physics.geometry import Patterns


def test_the_channels_are_the_solved_canvases_and_the_fluence():
    raw = small_raw(1e6)
    features, place = make_features(raw.patterns()), raw.geometry()
    assert features.channels.shape == (1, CHANNELS, *place.shape[1:])
    truth = place.crop(raw.object_guess)[0]
    for stage in (features.channels[0, :2], features.channels[0, 2:4]):
        canvas = object_of(stage)[0]
        lit = features.channels[0, -1] > 1.5  # 1,000 photons a pixel
        turn = torch.exp(1j * torch.angle((truth * canvas.conj())[lit].sum()))
        assert (canvas * turn - truth)[lit].abs().square().mean() ** 0.5 < 0.05
    np.testing.assert_allclose(object_of(features.channels[0, 2:4]), features.base, atol=1e-6)
    _, _, y, x, _ = geometry()
    light = oracle.fluence(raw.object_guess.shape, raw.probe.numpy().astype(complex), y, x)
    light = light[place.window]
    np.testing.assert_allclose(features.channels[0, -1], np.log10(light + 0.1) / 2, atol=1e-3)
    np.testing.assert_allclose(fluence_of(features.channels)[0], light, rtol=1e-3, atol=1e-3)


def test_the_loose_prior_leaves_more_of_the_noise_than_the_firm_one():
    channels = make_features(small_raw(1e3).patterns()).channels[0]
    rough = [torch.diff(channels[part]).square().mean() for part in range(4)]
    assert rough[0] > 3 * rough[2] and rough[1] > 3 * rough[3]


def test_a_canvas_global_phase_is_taken_out():
    features = make_features(small_raw(1e4).patterns())
    assert abs(float(torch.angle((fluence_of(features.channels) * features.base).sum()))) < 1e-5


def test_a_share_of_the_photons_under_a_fainter_probe_shows_the_same_object():
    whole = small_raw(1e6).patterns()
    part = whole.geometry.under(whole.geometry.probe * 0.3**0.5)
    faint = make_features(Patterns(part, lambda i: whole.counts(i) * 0.3))
    bright = make_features(whole)
    lit = bright.channels[:, -1] > 1.5  # 1,000 photons a pixel
    # Nearly: the priors hold a faint canvas more firmly.
    difference, level = (faint.base - bright.base)[lit], bright.base[lit].mean()
    contrast = (bright.base - level)[lit]
    assert difference.abs().square().mean() < 1e-2 * contrast.abs().square().mean()
    fainter = (bright.channels - faint.channels)[:, -1][lit]
    np.testing.assert_allclose(fainter, -np.log10(0.3) / 2, atol=1e-2)
