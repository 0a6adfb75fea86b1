"""A prior's spectrum ring by ring: it is the object's own where photons are many, and is used where
photons held out prefer it."""

import numpy as np
import pytest
import torch
from small_scan import seen_region, small_raw

from fly64lib.methods.classical import Classical
from ptycho_torch.errors import ConfigError
from ptycho_torch.iteration import prior_search
from ptycho_torch.iteration.image_prior import ImagePrior, filtered
from ptycho_torch.iteration.newton import Newton, start
from ptycho_torch.iteration.ring_prior import RingPrior, ring_prior


def radius(shape: tuple[int, int]) -> np.ndarray:
    """Of each frequency of a whole transform, as a share of the corner's."""
    down, right = np.fft.fftfreq(shape[0]), np.fft.fftfreq(shape[1])
    return np.hypot(down[:, None], right) / 0.5**0.5


@pytest.mark.parametrize("shape", [(31, 40), (48, 37)])
def test_a_variance_is_the_power_of_what_the_precision_describes(shape):
    """x^T P x and x^T x / (2 v) are the same for a white prior; between rings it is log-linear."""
    like = torch.zeros(1, dtype=torch.float64)
    white = RingPrior(torch.full((2, 32), 0.3, dtype=torch.float64)).precision(shape, like)
    field = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    energy = (field * filtered(field, white)).sum()
    torch.testing.assert_close(energy, field.square().sum() / 0.6)
    middles = (np.arange(32) + 0.5) / 32
    falling = RingPrior(torch.from_numpy(np.exp([-9 * middles, -5 * middles])))
    expected = 0.5 * np.exp(9 * np.clip(radius(shape), middles[0], middles[-1]))
    found = falling.precision(shape, like)[0].numpy()
    np.testing.assert_allclose(found, expected[:, : shape[1] // 2 + 1], rtol=1e-6)


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


def test_it_takes_the_place_of_the_power_law_only_where_photons_held_out_prefer_it(monkeypatch):
    raw, settings = small_raw(1e4, across=7), {"steps": 12}
    law, asked = Classical(**settings), Classical(spectrum="rings", **settings)
    judged = []

    def verdict(answer):
        def clearly_less(ours, others):
            judged.append((float(ours.mean()), float(others.mean())))
            return answer

        return clearly_less

    before = law.reconstruct(raw)
    # the law's search is made: the rule below is of the rings alone
    parts = prior_search.parts_of(raw, 0.8, 0)
    own = prior_search.choose_alone(raw, (0.8, 0), parts)
    monkeypatch.setattr(prior_search, "clearly_less", verdict(False))
    refused = asked.reconstruct(raw)
    assert np.array_equal(refused.object, before.object) and refused.settings["rings"] is None
    monkeypatch.setattr(prior_search, "clearly_less", verdict(True))
    taken = asked.reconstruct(raw)
    assert len(taken.settings["rings"][0]) == 32 and "ring by ring" in taken.note
    region = seen_region(raw)
    assert np.abs(taken.object - before.object)[region].max() > 1e-3
    assert len(judged) == 2 and own.prior.weight == refused.settings["weight"]


def test_a_weight_that_is_given_leaves_nothing_to_choose():
    with pytest.raises(ConfigError, match="leave weight=3.0 out"):
        Classical(spectrum="rings", weight=3.0)
