"""The choice of a prior: by photons held out, about any centre."""

import pytest
import torch
from small_scan import seen_region, small_raw

from ptycho_torch.iteration.image_prior import ImagePrior, logs_of, object_of
from ptycho_torch.iteration.newton import Newton, start
from ptycho_torch.iteration.prior_search import choose, split
from ptycho_torch.iteration.slopes import mean_deviance


def parts(dose: float):
    raw = small_raw(dose)
    return raw, split(raw, raw.patterns(), 0.8, seed=0)


@pytest.mark.parametrize("dose", [300.0, 1e4])
def test_the_prior_chosen_explains_photons_held_out_best_of_all_tried(dose):
    raw, (fitted, judging) = parts(dose)
    chosen = choose(fitted, judging)
    assert chosen.deviance == min(chosen.tried.values()) == chosen.tried[chosen.prior]
    free = Newton(fitted).solve(start(fitted), ImagePrior(0.01))
    assert chosen.deviance < mean_deviance(object_of(free), judging)


def test_fewer_photons_ask_for_no_other_object():
    """A weight is a variance of the object: brighter data choose one of the same order."""
    weights = [choose(*parts(dose)[1]).prior.weight for dose in (1e3, 1e5)]
    assert 0.03 < weights[0] / weights[1] < 30


def test_a_centre_that_is_the_truth_is_held_firmly_and_another_object_loosely():
    raw, (fitted, judging) = parts(1e3)
    truth = fitted.geometry.crop(raw.object_guess)
    fluence = fitted.geometry.fluence()
    region = seen_region(raw)
    assert region
    first = ImagePrior(100.0, 2.0, 3.0)
    right = choose(fitted, judging, logs_of(truth, fluence), first)
    wrong = choose(fitted, judging, logs_of(truth.flip(-1, -2), fluence), first)
    assert right.prior.weight > 3 * wrong.prior.weight and right.deviance < wrong.deviance


def test_a_steeper_prior_pivots_where_it_balances_the_counts():
    _, (fitted, judging) = parts(1e4)
    tried = choose(fitted, judging).tried
    fluence = Newton(fitted).fluence
    photons = float(fluence.square().sum() / fluence.sum())
    first, *others = tried
    cut = {p: (photons / p.weight) ** (1 / p.slope) for p in tried}
    turned = [p for p in others if p.slope != first.slope]
    assert turned and any(abs(cut[p] / cut[q] - 1) < 1e-3 for p in turned for q in tried if p != q)


def test_the_same_photons_choose_the_same_bits():
    _, (fitted, judging) = parts(1e3)
    one, two = (choose(fitted, judging) for _ in range(2))
    assert one.prior == two.prior and torch.equal(one.logs, two.logs)
