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
def test_a_factor_multiplies_the_laws_variance_and_each_ring_has_its_correlation(shape):
    like, law = torch.zeros(1, dtype=torch.float64), ImagePrior(3.0, 2.5, 7.0, correlation=0.9)
    none = torch.zeros(32, dtype=torch.float64)
    whole = RingPrior(law, torch.full((2, 32), 4.0, dtype=torch.float64), none)
    apart = law._replace(correlation=0.0).precision(shape, like)
    torch.testing.assert_close(whole.precision(shape, like)[:2], apart / 4)
    middles = (np.arange(32) + 0.5) / 32
    factor = torch.from_numpy(np.exp([-9 * middles, -5 * middles]))
    at = np.clip(radius(shape), middles[0], middles[-1])[:, : shape[1] // 2 + 1]
    variance = 0.5 / apart.numpy() * np.exp([-9 * at, -5 * at])
    coupled = RingPrior(law, factor, torch.from_numpy(0.9 - middles)).precision(shape, like).numpy()
    between = (0.9 - at) * np.sqrt(variance.prod(0))
    covariance = np.array([[variance[0], between], [between, variance[1]]])
    expected = 0.5 * np.linalg.inv(np.moveaxis(covariance, (0, 1), (-2, -1)))
    for part, (row, column) in zip(coupled, ((0, 0), (1, 1), (0, 1)), strict=True):
        np.testing.assert_allclose(part, expected[..., row, column], rtol=1e-6)
    # x^T P x is x^T x / (2 v) under a variance that is v at every frequency
    field = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flat = ImagePrior(1 / 0.6, 0.0, 1.0)
    white = RingPrior(flat, torch.full((2, 32), 2.0, dtype=torch.float64), none)
    energy = (field * filtered(field, white.precision(shape, like))).sum()
    torch.testing.assert_close(energy, field.square().sum() / (4 * 0.3))


def test_bright_data_give_the_power_of_the_object_itself():
    raw = small_raw(1e7, across=8)
    patterns = raw.patterns()
    newton, law = Newton(patterns), ImagePrior(0.1, 3.0, 1.0)
    first = newton.solve(start(patterns), law, (16, 16, 16))
    logs, found = ring_prior(newton, first, law)
    expected = 0.5 / law.precision(newton.shape, logs).numpy()
    twice = np.full(expected.shape[1:], 2.0)  # a column of `rfft2` stands for two, but for the ends
    twice[:, [0] + [-1] * (newton.shape[1] % 2 == 0)] = 1
    both = [np.fft.rfft2(part - part.mean(), norm="ortho") for part in logs.numpy()]
    amplitude, phase = (
        part * (twice / own) ** 0.5 for part, own in zip(both, expected, strict=True)
    )
    at = (radius(newton.shape) * 32).astype(int)[:, : expected.shape[2]]
    for ring in (1, 2, 4):  # where the object is far above the noise
        inside, members = at == ring, twice[at == ring].sum()
        own = [np.vdot(part[inside], part[inside]).real / members for part in (amplitude, phase)]
        np.testing.assert_allclose(found.factor[:, ring], own, rtol=0.1)
        between = np.vdot(amplitude[inside], phase[inside]).real / members
        assert float(found.correlation[ring]) == pytest.approx(
            between / np.prod(own) ** 0.5, abs=0.1
        )


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
RINGS = RingPrior(LAW, torch.linspace(3, 0.1, 64).view(2, 32), torch.linspace(0.9, -0.2, 32))


@pytest.mark.parametrize("prior", [LAW, RINGS, ProductPrior(LAW, LAW), ProductPrior(LAW, RINGS)])
def test_a_prior_comes_back_from_the_settings_of_a_result(prior):
    found = from_settings(json.loads(json.dumps(to_settings(prior))) | {"steps": 3})
    shape, like = (9, 12), torch.zeros(1)
    assert torch.equal(found.precision(shape, like), prior.precision(shape, like))
    assert from_settings({"rings": None, "weight": 0.0}) is None
