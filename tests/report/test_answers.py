"""The answers are what the rows say: photons needed, standing, gaps."""

import shutil

import numpy as np
import pytest
from made_up_study import SHARE, write_study

from fly64lib.report.answers import (
    best_view,
    missing,
    need_text,
    needed,
    needed_photons,
    standing,
)
from fly64lib.report.rows import collect
from fly64lib.report.study_page import answer
from ptycho_torch.files import read_json, write_json

VIEWS = ("baseline", "dense", "sparse")


def test_photons_needed_are_those_of_a_metric_linear_in_log_photons():
    points = [(photons, 2 + 10 * np.log10(photons)) for photons in (4.0, 40.0, 400.0)]
    found = needed(points[::-1], 20.0)
    assert found.kind == "=" and found.photons == pytest.approx(10**1.8)


def test_a_target_met_at_once_or_never_is_a_bound_and_not_a_number():
    at_once, never = (
        needed(points, 20.0)
        for points in ([(4.0, 30.0), (40.0, 31.0)], [(4.0, 10.0), (400.0, 19.9)])
    )
    assert at_once == ("<", 4.0) and at_once.place == -np.inf
    assert never == (">", 400.0) and never.place == np.inf
    assert need_text([at_once]) == "met at 4.0, the fewest tried"
    assert need_text([never, never]) == "not met by 400"


def test_a_metric_that_falls_again_with_more_photons_does_not_count_as_reached_before():
    found = needed([(1.0, 25.0), (10.0, 15.0), (100.0, 25.0)], 20.0)
    assert found.kind == "=" and found.photons == pytest.approx(10**1.5)


def test_of_a_metric_that_is_better_small_the_target_is_met_from_above():
    points = [(1.0, 4.0), (10.0, 2.0), (100.0, 0.5)]
    found = needed(points, 1.25, higher_is_better=False)
    assert found.kind == "=" and found.photons == pytest.approx(10**1.5)
    assert needed(points, 0.1, higher_is_better=False) == (">", 100.0)


def test_replicates_give_a_median_and_a_range_and_one_replicate_none(tmp_path):
    alone = needed_photons(collect(write_study(tmp_path / "1")).table, "phase_psnr", 20.0)
    assert need_text(alone["good", "baseline"]) == "63"
    study = collect(write_study(tmp_path / "3", replicates=3))
    three = needed_photons(study.table, "phase_psnr", 20.0)
    assert need_text(three["good", "dense"]) == "50 ± 12"
    assert need_text(three["good", "baseline"]) == (
        "met at 40, the fewest tried (1 of 3); 57 ± 6 (2 of 3)"
    )
    assert need_text([]) == "not run"
    assert best_view(three, "poor") is None
    assert best_view(three, "good")[1] == pytest.approx(10**1.7)


def test_a_deviance_that_falls_with_photons_is_needed_below_its_target(tmp_path):
    """It is 10 / PSNR, here between those at 20 and 200 photons per pixel."""
    rows = collect(write_study(tmp_path)).table
    (found,) = needed_photons(rows, "deviance_held_out", 0.5)["good", "dense"]
    high, low = (10 / (2 + 10 * np.log10(photons)) for photons in (20, 200))
    assert found.photons == pytest.approx(20 * 10 ** ((high - 0.5) / (high - low)))


def test_standing_counts_conditions_above_the_flat_object_and_the_limits(tmp_path):
    good, poor = standing(collect(write_study(tmp_path)).table)
    assert (good["conditions"], good["best"], poor["best"]) == (9, 9, 0)
    assert good["below_flat"] == ["dose 1,000 sparse, replicate 0"]  # 2 + 10 log10(4) < 9
    assert good["cramer_rao"]["above"] == 0 and good["cramer_rao"]["compared"] == 9
    gaps = [
        -2 * np.log10(SHARE[view] * dose)
        for view in ("baseline", "dense", "sparse")
        for dose in (1e3, 1e4, 1e5)
    ]
    assert good["cramer_rao"]["median_db"] == pytest.approx(np.median(gaps))


def test_cells_that_others_lead_one_to_expect_are_named_when_they_are_not_there(tmp_path):
    study = write_study(tmp_path, views=("baseline", "dense"))
    path = study / "replicate_0/phase_g/dose_1000/dense/comparison.json"
    rows = [one for one in read_json(path)["rows"] if one["method"] != "poor"]
    write_json(path, {"rows": rows, "versions": {}})
    shutil.rmtree(study / "replicate_0/phase_g/dose_100000/baseline")
    assert missing(collect(study).table, VIEWS) == [
        "view sparse: in no condition",
        "dose 1,000 dense, replicate 0: poor",
        "dose 100,000 baseline, replicate 0: all",
    ]
    found = collect(study)
    text = answer(found, found.table, {"phase_psnr": 20.0})
    assert "3 gaps" in text and "dose 1,000 dense, replicate 0: poor" in text


def test_one_replicate_says_that_it_has_no_interval(tmp_path):
    study = collect(write_study(tmp_path))
    assert "no interval" in answer(study, study.table, {"phase_psnr": 20.0})
