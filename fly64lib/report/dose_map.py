"""The map's numbers, from rows: what each dose and overlap gives, and where a target is met."""

from collections.abc import Sequence

import numpy as np
from pandas import DataFrame

from fly64lib.design.study import SINGLE, linear_overlap
from fly64lib.evaluation.columns import columns
from fly64lib.plots.dose_map import DoseMap, Line
from fly64lib.report.answers import Needed, methods, named, needed_photons
from fly64lib.report.rows import view_order


def columns_of(rows: DataFrame) -> list[str]:
    """The map's columns: views of single images from the densest to overlap 0, then the named."""
    return sorted(named(rows)["view"].unique(), key=_place)


def _place(view: str) -> tuple:
    return not view.startswith(SINGLE), view_order(view)


def group_of(view: str) -> str:
    """Views of one group are joined by a line; overlap 0 and each named view stand alone."""
    spaced = view.startswith(SINGLE) and linear_overlap(view)
    return SINGLE if spaced else view


def head(view: str) -> str:
    """A column's head: its overlap, or its name."""
    return f"{linear_overlap(view):.0%}" if view.startswith(SINGLE) else view


def place(view: str) -> str:
    """A view in a sentence."""
    overlap = linear_overlap(view)
    if view.startswith(SINGLE):
        return f"at {overlap:.0%} overlap" if overlap else "without overlap"
    if overlap is None:
        return "at every position" if view == "baseline" else f"in the view {view}"
    return f"in tight groups at {overlap:.0%} overlap ({view})"


def viewed(view: str) -> str:
    """An overlap view named by its number."""
    if not view.startswith(SINGLE):
        return f"tight groups of four neighbouring images, a linear overlap of {view} apart"
    overlap = linear_overlap(view)
    apart = f"{1 - overlap:g} of the probe's diameter apart: a linear overlap of {overlap:.0%}"
    return f"single images, {apart}" if overlap else "single images that share no lit pixel"


def pixel_nm_of(rows: DataFrame) -> float | None:
    """Of the grid that objects are scored on, where the rows say it."""
    sizes = rows["pixel_nm"].dropna() if "pixel_nm" in rows else ()
    return float(sizes.median()) if len(sizes) else None


def dose_map(rows: DataFrame, metric: str, target: float) -> DoseMap:
    """The map of one target over all doses and views but controls."""
    rows, views = named(rows), columns_of(rows)
    doses, replicates = sorted(rows.dose.unique()), sorted(rows.replicate.unique())
    groups = list(dict.fromkeys(map(group_of, views)))
    cells = {}
    for name in methods(rows):
        own = rows[rows.method == name].set_index(["dose", "view", "replicate"])[metric]
        shape = len(doses), len(views), len(replicates)
        every = [(d, v, r) for d in doses for v in views for r in replicates]
        cells[name] = own.reindex(every).to_numpy(float).reshape(shape)
    needs = needed_photons(rows, metric, target, "dose")
    names = dict.fromkeys(name for name, _ in needs)
    shares = (rows.photons_per_pixel / rows.dose).groupby(rows["view"]).median()
    return DoseMap(
        column=columns()[metric],
        target=target,
        heads=[head(view) for view in views],
        groups=[groups.index(group_of(view)) for view in views],
        doses=doses,
        per_pixel=shares[views].to_numpy(),
        cells=cells,
        lines={name: _line([needs.get((name, view), ()) for view in views]) for name in names},
        pixel_nm=pixel_nm_of(rows),
    )


def _line(needs: Sequence[Sequence[Needed]]) -> Line:
    """Smallest, median and largest dose of the replicates for each view."""
    found = np.full((len(needs), 3), np.nan)
    for line, own in zip(found, needs, strict=True):
        if ordered := sorted(need.place for need in own):
            # of an even number of replicates the larger middle one: met by at least half of them
            line[:] = ordered[0], ordered[len(ordered) // 2], ordered[-1]
            if all(np.isfinite(ordered)):
                line[1] = np.median(ordered)
    return found
