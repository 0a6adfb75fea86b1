"""The robustness study: its conditions, what a condition leaves and what a rerun keeps, and its
curves."""

import csv
from dataclasses import replace

import pytest

from fly64lib.notebook import datasets
from fly64lib.notebook.parameters import RobustnessParameters
from fly64lib.notebook.robustness import STRENGTHS, conditions, curves, run_conditions, write_rows
from fly64lib.simulation.imperfections import Imperfections
from ptycho_torch.errors import ConfigError
from ptycho_torch.files import read_json

TINY = {
    "imperfection": "jitter_px",
    "strengths": 1,
    "method": "pinn,flat",
    "scan_step": 8,
    "training_steps": 1,
}


def test_the_conditions_are_the_undisturbed_one_and_the_largest_strengths_of_each_asked_for():
    asked = RobustnessParameters(imperfection="motion_px,dead_share", strengths=2)
    assert conditions(asked) == [
        ("none", 0.0),
        ("motion_px", 4.0),
        ("motion_px", 8.0),
        ("dead_share", 0.03),
        ("dead_share", 0.1),
    ]
    assert len(conditions(replace(asked, strengths=4))) == 9
    with pytest.raises(ConfigError, match="imperfection='rain' is not one of probe_error"):
        conditions(replace(asked, imperfection="rain"))
    with pytest.raises(ConfigError, match="strengths=5: expected less than or equal to 4"):
        replace(asked, strengths=5)
    for name, (strengths, _) in STRENGTHS.items():
        assert list(strengths) == sorted(strengths) and all(
            Imperfections(**{name: one}) for one in strengths
        )


class Made(Exception):
    """Data are about to be made."""


@pytest.mark.slow
def test_a_condition_is_scored_against_the_undisturbed_truth_and_a_rerun_goes_on(
    tmp_path, monkeypatch
):
    parameters = RobustnessParameters(**TINY, output_root=str(tmp_path))
    first = next(iter(run_conditions(parameters)))  # stopped after one condition
    made = []
    original = datasets.generate_datasets
    monkeypatch.setattr(
        datasets,
        "generate_datasets",
        lambda *given, **kinds: (made.append(kinds["imperfections"]), original(*given, **kinds))[1],
    )

    def refused(*given, **kinds):
        raise Made

    again = list(run_conditions(parameters))
    assert again[0] == first and made == [Imperfections(jitter_px=2.0)]
    scores = {
        (row["imperfection"], row["method"]): row["phase_psnr_skill"]
        for rows in again
        for row in rows
    }
    assert scores["none", "pinn"] > 2 + scores["jitter_px", "pinn"]
    assert scores["none", "flat"] == scores["jitter_px", "flat"] == 0
    deviance = {
        row["imperfection"]: row["deviance"]
        for rows in again
        for row in rows
        if row["method"] == "truth"
    }
    assert (
        deviance["jitter_px"] > 1.2 * deviance["none"]
    )  # the truth at the stored positions does not fit
    assert read_json(tmp_path / "jitter_px_2" / "rows.json")["imperfections"]["jitter_px"] == 2.0
    assert (
        not list(tmp_path.rglob("patched_*.npz")) and len(list(tmp_path.rglob("object.npz"))) == 4
    )
    monkeypatch.setattr(datasets, "generate_datasets", refused)
    with pytest.raises(Made):  # other parameters: not the kept rows
        next(iter(run_conditions(replace(parameters, dose=2e4))))


def test_the_table_and_the_curves_hold_every_point_and_the_undisturbed_one_first(tmp_path):
    rows = [
        {
            "imperfection": name,
            "strength": strength,
            "method": method,
            "phase_psnr_skill": 10 - strength,
        }
        for name, strength in (
            ("none", 0.0),
            ("motion_px", 4.0),
            ("motion_px", 8.0),
            ("jitter_px", 2.0),
        )
        for method in ("pinn", "lsqml", "flat")
    ]
    axes = [ax for ax in curves(rows, ("pinn", "lsqml")).axes if ax.axison]
    assert [ax.get_xlabel() for ax in axes] == [
        STRENGTHS["jitter_px"][1],
        STRENGTHS["motion_px"][1],
    ]
    assert [
        line.get_xydata().tolist()
        for line in axes[1].lines
        if line.get_label() in ("pinn", "lsqml")
    ] == [[[0, 10], [4, 6], [8, 2]]] * 2
    with write_rows(rows, tmp_path / "rows.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
