"""The map of a study with a planted answer shows that answer, at any doses and overlaps."""

import numpy as np
import pytest
from made_up_study import CRITICAL, planted_row, share, write_study
from pandas import concat

from fly64lib.plots.dose_map import panel
from fly64lib.report.dose_map import columns_of, dose_map, head
from fly64lib.report.questions import by_budget, by_exposure, gains
from fly64lib.report.rows import collect
from fly64lib.report.sentences import sentences
from fly64lib.report.study_page import _controls

METHODS = ("good", "lsqml", "flat", "cramer_rao")
GRIDS = {
    "3 x 3": ((1e3, 1e4, 1e5), (0.8, 0.5, 0.2)),
    "7 x 7": ((300, 1e3, 3e3, 1e4, 3e4, 1e5, 1e6), (0.9, 0.8, 0.7, 0.5, 0.3, 0.1, 0)),
    "odd": ((500, 7e3, 2e5), (0.65, 0.35, 0)),
}


def planted(tmp_path, grid="7 x 7", replicates=1, more=()):
    doses, overlaps = GRIDS[grid]
    views = (*(f"single_{overlap}" for overlap in overlaps), *more)
    study = write_study(tmp_path, replicates, views, METHODS, doses=doses, row=planted_row)
    return collect(study).table


@pytest.mark.parametrize("grid", GRIDS)
def test_the_contour_is_the_planted_photons_per_pixel_at_every_overlap(tmp_path, grid):
    rows = planted(tmp_path, grid)
    shown = dose_map(rows, "resolved", 0.5)
    views = columns_of(rows)
    assert shown.heads == [f"{overlap:.0%}" for overlap in GRIDS[grid][1]]
    for method, critical in CRITICAL.items():
        for view, line in zip(views, shown.lines[method], strict=True):
            expected = critical / share(view)
            if shown.doses[0] < expected < shown.doses[-1]:
                assert line == pytest.approx(np.full(3, expected))
            else:
                assert line[1] == (-np.inf if expected < shown.doses[0] else np.inf)
    for cells in shown.cells.values():
        assert (np.diff(cells[..., 0], axis=0) >= 0).all(), "more dose never resolves less"
        assert (np.diff(cells[..., 0], axis=1) <= 0).all(), "fewer exposures never resolve more"
    met = shown.meets(shown.cells["good"][..., 0])
    photons = np.outer(shown.doses, shown.per_pixel)
    assert (met == (photons >= CRITICAL["good"])).all()


def test_overlap_0_and_named_views_are_columns_of_their_own(tmp_path):
    rows = planted(tmp_path, more=("baseline", "dense", "sparse", "single_0.5_fluence"))
    shown = dose_map(rows, "resolved", 0.5)
    assert shown.heads[-4:] == ["0%", "baseline", "dense", "sparse"]
    assert shown.groups == [0] * 6 + [1, 2, 3, 4]
    assert head("single_0.35") == "35%"


def test_replicates_are_a_band_and_the_limits_a_line(tmp_path):
    rows = planted(tmp_path, replicates=3)
    shown = dose_map(rows, "resolved", 0.5)
    low, middle, high = shown.lines["good"][3]
    assert [middle / low, high / low] == pytest.approx([1.1, 1.2])
    figure = panel(shown, "good")
    lines = [line.get_linestyle() for line in figure.axes[0].lines]
    assert "--" in lines and figure.axes[0].collections
    crossed = (~shown.meets(np.median(shown.cells["good"], -1))).sum()
    diagonals = [one for one in figure.axes[0].lines if one.get_alpha() == 0.5]
    assert len(diagonals) == 2 * crossed > 0


def test_a_cell_that_was_not_run_says_so_and_one_dose_alone_is_a_map(tmp_path):
    rows = planted(tmp_path, "3 x 3")
    gone = (rows.dose == 1e3) & (rows["view"] == "single_0.5") & (rows.method == "good")
    texts = panel(dose_map(rows[~gone], "resolved", 0.5), "good").axes[0].texts
    assert "not run" in {text.get_text() for text in texts}
    assert panel(dose_map(rows[rows.dose == 1e4], "phase_psnr", 20.0), "good").axes


def test_the_sentence_says_the_planted_numbers_and_the_peers_share(tmp_path):
    rows = planted(tmp_path, replicates=3)
    first, second = sentences(rows, "resolved", 0.5, 56.0, {"good": "More."})
    assert (first.method, second.method) == ("good", "lsqml")
    assert first.text.startswith("resolves 112 nm (0.5 of the Nyquist frequency) with ")
    assert "22 ± 2 per object pixel" in first.text
    assert "a fifth of lsqml's" in first.text and first.text.endswith("More.")
    (alone, _) = sentences(rows[rows.replicate == 0], "resolved", 0.5, 56.0, {})
    assert "20 per object pixel" in alone.text


def test_who_never_gets_there_is_said_to_and_who_is_there_at_once_has_a_bound(tmp_path):
    rows = planted(tmp_path, "3 x 3")
    dark = rows[rows.dose < 2e3]
    texts = {one.method: one.text for one in sentences(dark, "resolved", 0.5, None, {})}
    assert texts["lsqml"].startswith("never resolves 0.5 of the Nyquist")
    assert "at most" in texts["good"] and "lsqml does not get there" in texts["good"]


def test_three_people_get_the_planted_answer(tmp_path):
    rows = planted(tmp_path, replicates=3)
    lines = {line[0]: line for line in by_exposure(rows, "resolved", 0.5, 56.0)}
    best, least = lines["2,000"][1], lines["2,000"][4]
    assert best == "good, at 90% overlap"
    # 20 photons per pixel (24 in the worst replicate) of 2,000 per exposure: share 0.012
    assert least == "good, at 70% overlap"
    lines = {line[0]: line for line in by_budget(rows, "resolved", 56.0)}
    detail = 0.5 + 0.25 * np.log10(50 / CRITICAL["good"] / 1.1)
    assert lines["50"][1].startswith(f"{56 / detail:.1f} ±") and lines["50"][2].startswith("good")
    heads, gained = gains(rows[rows.replicate == 0], "resolved", 0.5)
    (name, *cells) = gained[0]
    assert name == "good" and cells[heads.index("at 50% overlap")] == "5.0"
    assert any(cell.startswith("at least") for cell in cells) or "5.0" in cells


def test_the_peer_on_our_own_grid_is_the_peer_where_it_was_run(tmp_path):
    rows = planted(tmp_path, replicates=3)
    fine = rows[rows.method == "good"].assign(method="lsqml-fine")
    rows = concat([rows, fine], ignore_index=True)
    texts = {one.method: one.text for one in sentences(rows, "resolved", 0.5, 56.0, {})}
    assert "as many as lsqml-fine's within the intervals" in texts["good"]
    assert "5.0 times lsqml-fine's" in texts["lsqml"]
    assert "lsqml" not in texts["lsqml-fine"]
    heads, gained = gains(rows, "resolved", 0.5)
    assert {name for name, *_ in gained} == {"good", "lsqml"}
    assert dict((name, cells) for name, *cells in gained)["lsqml"][
        heads.index("at 50% overlap")
    ].startswith("0.2")


def test_controls_separate_overlap_from_fluence(tmp_path):
    """With photons alone deciding, a view and its fluence control score alike; a method that needs
    overlap differs by what overlap gives."""
    views = ("single_0.2", "single_0.2_fluence")

    def overlap_matters(method, dose, view, replicate):
        one = planted_row(method, dose, view, replicate)
        bonus = 0.1 if view.endswith("_fluence") else 0.0
        return one | {"resolved": one["resolved"] + bonus}

    for row, gap in ((planted_row, 0.0), (overlap_matters, 0.1)):
        folder = tmp_path / row.__name__
        rows = collect(write_study(folder, 1, views, ("good",), row=row)).table
        heads, lines = _controls(rows, {"resolved": 0.5}).values()
        named, fluence = (
            [line["values"][k] for line in lines]
            for k, text in enumerate(heads)
            if text.startswith("resolution") and not text.endswith("spread")
        )
        assert np.subtract(fluence, named) == pytest.approx(np.full(3, gap))
