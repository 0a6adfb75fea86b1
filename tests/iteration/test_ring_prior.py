"""A prior's spectrum ring by ring: it is the object's own where photons are many, and is used where
photons held out prefer it."""

import json

import numpy as np
import pytest
import torch
from small_scan import seen_region, small_raw

from fly64lib.methods.classical import Classical
from ptycho_torch.iteration import prior_search
from ptycho_torch.iteration.gain import filtered
from ptycho_torch.iteration.image_prior import ImagePrior, ProductPrior
from ptycho_torch.iteration.newton import Newton, start
from ptycho_torch.iteration.ring_prior import RingPrior, from_settings, ring_prior, to_settings


def radius(shape: tuple[int, int]) -> np.ndarray:
    """Of each frequency of a whole transform, as a share of the corner's."""
    down, right = np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1])
    return np.hypot(down[:, None], right) / 0.5**0.5


@pytest.mark.parametrize("shape", [(31, 40), (48, 37)])
def test_a_variance_is_the_power_of_what_the_precision_describes(shape):
    """x^T P x and x^T x / (2 v) are the same for a white prior; between rings it is log-linear."""
    like, none = torch.zeros(1, dtype=torch.float64), torch.zeros(32, dtype=torch.float64)
    white = RingPrior(torch.full((2, 32), 0.3, dtype=torch.float64), none).precision(shape, like)
    field = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    energy = (field * filtered(field, white)).sum()
    torch.testing.assert_close(energy, field.square().sum() / 0.6)
    middles = (np.arange(32) + 0.5) / 32
    variance = torch.from_numpy(np.exp([-9 * middles, -5 * middles]))
    at = np.clip(radius(shape), middles[0], middles[-1])[:, : shape[1] // 2 + 1]
    found = RingPrior(variance, none).precision(shape, like)[0].numpy()
    np.testing.assert_allclose(found, 0.5 * np.exp(9 * at), rtol=1e-6)
    coupled = RingPrior(variance, torch.from_numpy(0.9 - middles)).precision(shape, like).numpy()
    between = (0.9 - at) * np.exp(-7 * at)
    covariance = np.array([[np.exp(-9 * at), between], [between, np.exp(-5 * at)]])
    expected = 0.5 * np.linalg.inv(np.moveaxis(covariance, (0, 1), (-2, -1)))
    for part, (row, column) in zip(coupled, ((0, 0), (1, 1), (0, 1)), strict=True):
        np.testing.assert_allclose(part, expected[..., row, column], rtol=1e-6)


def test_bright_data_give_the_power_of_the_object_itself():
    raw = small_raw(1e7, across=8)
    patterns = raw.patterns()
    newton, law = Newton(patterns), ImagePrior(0.1, 3.0, 1.0)
    first = newton.solve(start(patterns), law, (16, 16, 16))
    logs, found = ring_prior(newton, first, law)
    power = np.abs(np.fft.fft2(logs[1] - logs[1].mean(), norm="ortho")) ** 2
    at = radius(logs.shape[1:])
    for ring in (1, 2, 4):  # where the object is far above the noise
        own = power[(at * 32).astype(int) == ring].mean()
        assert float(found.variance[1, ring]) == pytest.approx(own, rel=0.1)
    both = [np.fft.fft2(part - part.mean()) for part in logs.numpy()]
    for ring in (1, 2, 4):
        inside = (at * 32).astype(int) == ring
        amplitude, phase = (part[inside] for part in both)
        own = (amplitude * phase.conj()).real.sum() / (
            np.linalg.norm(amplitude) * np.linalg.norm(phase)
        )
        assert float(found.correlation[ring]) == pytest.approx(own, abs=0.1)


def test_it_takes_the_place_of_the_power_law_only_where_photons_held_out_prefer_it(monkeypatch):
    raw, other = small_raw(1e4, across=7), small_raw(1e4, across=7)
    settings = {"steps": 12}
    law, asked = Classical(spectrum="law", **settings), Classical(**settings)
    judged = []

    def verdict(answer):
        def clearly_less(ours, others):
            judged.append((float(ours.mean()), float(others.mean())))
            return answer

        return clearly_less

    before, again = law.reconstruct(raw), law.reconstruct(other)
    assert np.array_equal(before.object, again.object)
    # the laws' searches are made: the rule below is of the rings alone
    monkeypatch.setattr(prior_search, "clearly_less", verdict(False))
    refused = asked.reconstruct(raw)
    assert np.array_equal(refused.object, before.object) and refused.settings["rings"] is None
    monkeypatch.setattr(prior_search, "clearly_less", verdict(True))
    taken = asked.reconstruct(other)
    assert len(taken.settings["rings"]["correlation"]) == 32 and "ring by ring" in taken.note
    region = seen_region(raw)
    assert np.abs(taken.object - before.object)[region].max() > 1e-3
    assert len(judged) == 2 and before.settings["weight"] == refused.settings["weight"]


def test_a_weight_that_is_given_leaves_nothing_to_choose():
    raw = small_raw(1e5, across=5)
    found = Classical(weight=3.0, steps=3).reconstruct(raw)
    assert found.settings["rings"] is None and found.settings["weight"] == 3.0


LAW = ImagePrior(3.0, 2.5, 7.0, correlation=0.6)
RINGS = RingPrior(torch.linspace(3, 0.1, 64).view(2, 32), torch.linspace(0.9, -0.2, 32))


@pytest.mark.parametrize("prior", [LAW, RINGS, ProductPrior(LAW, LAW), ProductPrior(LAW, RINGS)])
def test_a_prior_comes_back_from_the_settings_of_a_result(prior):
    found = from_settings(json.loads(json.dumps(to_settings(prior))) | {"steps": 3})
    shape, like = (9, 12), torch.zeros(1)
    assert torch.equal(found.precision(shape, like), prior.precision(shape, like))
    assert from_settings({"rings": None, "weight": 0.0}) is None
