"""Curves draw the median and range of replicates, and methods, limits and views look as the legend
says."""

import numpy as np
import pytest
from made_up_study import write_study

from fly64lib.evaluation.columns import columns
from fly64lib.plots.curves import Axis, by_view, over, replicate_range
from fly64lib.plots.styles import (
    label,
    method_colour,
    method_styles,
    reference_styles,
    view_styles,
)
from fly64lib.report.rows import collect


def test_curves_draw_replicate_ranges_and_both_limits(tmp_path):
    rows = collect(write_study(tmp_path, replicates=3)).table
    points = replicate_range(rows[rows.method == "good"], "dose", "phase_psnr")
    assert len(points) == 9 and np.allclose(points[:, 3] - points[:, 2], 2)
    axis = Axis.of(rows, columns()["phase_psnr"], 20.0)
    styles = reference_styles() | method_styles(["good", "poor"])
    figure = over(axis, rows[rows["view"] == "dense"], "dose", styles)
    drawn = figure.axes[0].containers
    assert len(drawn) == 5 and {"--", "-."} < {line.lines[0].get_linestyle() for line in drawn}
    bars = drawn[-1].lines[2][0].get_segments()
    assert all(np.ptp(segment[:, 1]) == pytest.approx(2) for segment in bars)
    resolution = Axis.of(rows, columns()["frc_half"], 0.5)
    good = rows[rows.method != "poor"]
    assert len(by_view(resolution, good, view_styles(["dense"])).axes[0].containers) == 4


def test_all_panels_of_a_metric_share_one_scale_and_one_without_values_has_none(tmp_path):
    rows = collect(write_study(tmp_path)).table
    axis = Axis.of(rows, columns()["phase_psnr"])
    known = rows.phase_psnr[rows.method.isin(["good", "poor"])]
    assert axis.span[1] < rows.phase_psnr.max(), "a limit may lie beyond"
    assert axis.span[0] < known.min() and axis.span[1] > known.max()
    assert Axis.of(rows, columns()["amplitude_mae"]) is None


def test_a_refined_method_has_its_bases_colour_and_another_line():
    names = ["lsqml", "pinn", "pinn+refine"]
    colours = [method_colour(name, names) for name in names]
    assert colours[0] != colours[1] == colours[2]
    styles = method_styles(names)
    assert styles["pinn"].line != styles["pinn+refine"].line
    assert styles["pinn"].dashes == "none" != styles["pinn+refine"].dashes


def test_a_control_has_its_views_colour_and_any_overlap_has_one():
    styles = view_styles(["baseline", "dense", "0.5", "dense_spread", "0.5_fluence"])
    named = [styles[view].colour for view in ("baseline", "dense", "0.5")]
    assert len(set(named)) == 3
    assert styles["dense_spread"].colour == named[1] and styles["0.5_fluence"].colour == named[2]
    assert styles["dense_spread"].hollow and not styles["dense"].hollow
    assert label("cramer_rao") == "Cramér-Rao limit" and label("dense_spread") == "dense spread"
