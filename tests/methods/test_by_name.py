"""The list of methods: what stands in it is enough for the sweep to ask for the right trainings and
bundles."""

import pytest

from fly64lib.design import CONTROL_VIEWS, VIEW_GRIDSIZE, VIEWS
from fly64lib.methods.base import registry as catalogue
from fly64lib.methods.registry import (
    METHODS,
    Method,
    Network,
    base_of,
    described,
    network_of,
    networks,
)
from fly64lib.plots.curves import method_colour, method_styles
from fly64lib.report.rows import _trained_for
from fly64lib.training import artifact_folder


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("objective", ["poisson", "supervised"])
def test_a_conditions_network_lies_where_phase_e_puts_it(view, objective):
    assert (
        Network(objective).folder(1e4, view)
        == artifact_folder("", 1e4, view, VIEW_GRIDSIZE[view], objective).as_posix()
    )


@pytest.mark.parametrize("view", CONTROL_VIEWS)
def test_a_control_view_takes_the_baselines_network(view):
    assert Network("poisson").folder(1e3, view) == "dose_1000/baseline/gs1"


def test_one_network_serves_every_dose_and_view_of_its_replicate():
    shared = Network("poisson", scope="replicate")
    assert {
        shared.folder(dose, view) for dose in (1e3, 1e5) for view in (*VIEWS, *CONTROL_VIEWS)
    } == {"sim/poisson"}


def test_a_refined_method_needs_the_network_of_the_one_it_starts_from_and_no_other():
    assert base_of("pinn+refine") == "pinn" and network_of("pinn+refine") is METHODS["pinn"].network
    assert networks(("pinn+refine",), "condition") == networks(
        ("pinn", "classical", "pinn+refine"), "condition"
    )
    assert (
        network_of("classical+refine") is None
        and networks(("classical", "flat"), "condition") == []
    )


def test_different_trainings_never_share_a_folder():
    trained = {
        network.folder(1e3, "dense")
        for network in networks(METHODS, "condition") + networks(METHODS, "replicate")
    }
    assert len(trained) == len(
        {id(method.network) for method in METHODS.values() if method.network}
    )


def test_every_method_has_a_line_for_the_reports_reader():
    assert all(described(name) for name in METHODS)
    assert described("nobody's") == ""


def test_a_training_that_serves_all_conditions_is_counted_for_its_own_method(monkeypatch):
    monkeypatch.setitem(
        catalogue.METHODS, "pinn-sim", Method("pretrained", Network("poisson", scope="replicate"))
    )
    assert _trained_for("sim/poisson", "pinn") == "pinn-sim"
    assert _trained_for("dose_1000/baseline/gs1", "pinn") == "pinn"


def test_a_refined_method_has_its_bases_colour_and_another_line():
    names = ["pinn", "pinn+refine", "classical"]
    assert (
        method_colour("pinn", names)
        == method_colour("pinn+refine", names)
        != method_colour("classical", names)
    )
    styles = method_styles(names)
    assert styles["pinn"][1] != styles["pinn+refine"][1]
