"""What the sweep, the report and the phases learn of a method by its name: which training it needs,
and where its bundle lies."""

import pytest

from fly64lib.design.registries import METHODS
from fly64lib.design.study import controls_of
from fly64lib.methods.base import Network
from fly64lib.methods.by_name import (
    base_of,
    described,
    method_of,
    network_of,
    networks,
    own_notebook,
)
from ptycho_torch.errors import ConfigError


@pytest.mark.parametrize("view", [*controls_of("dense"), *controls_of("single_0.5")])
def test_a_control_view_takes_the_baselines_network(view):
    assert Network("poisson").folder(1e3, view) == "dose_1000/baseline/gs1"


def test_a_refined_method_needs_the_network_of_the_one_it_starts_from_and_no_other():
    assert base_of("pinn+refine") == base_of("pinn") == "pinn"
    for name in METHODS:
        assert network_of(name) == network_of(base_of(name))
    several = networks(("pinn", "classical", "pinn+refine"))
    assert networks(("pinn+refine",)) == several == [network_of("pinn")]
    assert networks(("classical", "flat")) == []


def test_different_trainings_never_share_a_folder():
    trained = networks(METHODS)
    assert len({network.folder(1e3, "dense") for network in trained}) == len(set(trained)) == 2


def test_an_objectives_method_is_the_one_whose_network_is_trained_with_it():
    found = {one: method_of(one) for one in ("poisson", "supervised", "general")}
    assert found == {"poisson": "pinn", "supervised": "supervised", "general": "pinn-sim"}
    with pytest.raises(ConfigError, match="no method needs a network of objective 'guess'"):
        method_of("guess")


def test_every_method_has_a_line_for_the_reports_reader():
    assert all(described(name) for name in METHODS)
    assert described("nobody's") == ""


def test_only_the_slow_ones_have_a_notebook_of_their_own():
    assert {name for name in METHODS if own_notebook(name)} == {"lsqml", "lsqml-fine", "rpie", "dm"}
