"""What the rows say: photons needed for a target, standing to the flat object and the limits, gaps.

Every statement of the report is computed here from rows; none is written by hand."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from pandas import DataFrame

from fly64lib.design.registries import METHODS
from fly64lib.design.study import controlled_view
from fly64lib.evaluation.columns import LIMITS, REFERENCES, columns
from fly64lib.methods.by_name import network_of
from fly64lib.report.intervals import with_interval
from fly64lib.report.rows import CONDITION, view_order


class Needed(NamedTuple):
    """Photons for a target: "=" interpolated, "<" at the lowest dose already, ">" not even at the
    highest."""

    kind: str
    photons: float

    @property
    def place(self) -> float:
        """The photons where they are known, else -inf or inf: beyond all doses tried."""
        return {"=": self.photons, "<": -np.inf, ">": np.inf}[self.kind]


Points = Iterable[Sequence[float]]
Needs = Mapping[tuple[str, str], Sequence[Needed]]  # by (method, view), one for each replicate


def needed(points: Points, target: float, higher_is_better: bool = True) -> Needed:
    """From which photons per pixel on the metric is at the target or better, at every larger
    measured one too.

    `points` are (photons per pixel, metric) of one method, view and replicate; between the two
    doses around the crossing the metric is taken as linear in log(photons)."""
    sign = 1 if higher_is_better else -1
    points, target = sorted((float(x), sign * float(y)) for x, y in points), sign * target
    failing = [k for k, (_, value) in enumerate(points) if value < target]
    if not failing:
        return Needed("<", points[0][0])
    if failing[-1] == len(points) - 1:
        return Needed(">", points[-1][0])
    (x0, y0), (x1, y1) = points[failing[-1] : failing[-1] + 2]
    return Needed("=", x0 * (x1 / x0) ** ((target - y0) / (y1 - y0)))


def needed_photons(
    rows: DataFrame, metric: str, target: float, over: str = "photons_per_pixel"
) -> dict[tuple, list[Needed]]:
    """(method, view) -> the need of each replicate, of methods and limits that have the metric, in
    the photons of the column `over`: per object pixel, or per exposure ("dose")."""
    if metric not in rows:
        return {}
    higher = columns()[metric].higher_is_better
    known = rows[rows[metric].notna() & ~rows.method.isin(("flat", "truth"))]
    points = [over, metric]
    return {
        key: [needed(one.to_numpy(), target, higher) for _, one in own.groupby("replicate")[points]]
        for key, own in known.groupby(["method", "view"], sort=False)
    }


def need_text(needs: Sequence[Needed]) -> str:
    """The needs of replicates in one cell: those known with their interval, the rest in words."""
    parts = []
    for kind, words in (("<", "met at {}, the fewest tried"), ("=", "{}"), (">", "not met by {}")):
        if same := [need.photons for need in needs if need.kind == kind]:
            exact = kind == "=" and len(same) == len(needs)
            text = words.format(with_interval(same if kind == "=" else [float(np.median(same))]))
            parts.append(
                text
                if exact or len(needs) == len(same)
                else f"{text} ({len(same)} of {len(needs)})"
            )
    return "; ".join(parts) or "not run"


def best_view(needs: Needs, method: str) -> tuple[str, float] | None:
    """The named view where all replicates of a method reach the target with the fewest photons, and
    their median."""
    reached = {
        view: float(np.median([need.photons for need in found]))
        for (name, view), found in needs.items()
        if name == method and view == controlled_view(view) and all(n.kind != ">" for n in found)
    }
    return min(reached.items(), key=lambda item: item[1], default=None)


def methods(rows: DataFrame) -> list[str]:
    """Names of the reconstructions in order of appearance: neither limits nor references."""
    return [name for name in rows.method.unique() if name not in REFERENCES]


def usable(rows: DataFrame) -> list[str]:
    """Methods that an experiment can use: none that learns from the truth."""
    return [name for name in methods(rows) if name not in METHODS or not _taught(name)]


def _taught(name: str) -> bool:
    network = network_of(name)
    return network is not None and network.objective == "supervised"


def views(rows: DataFrame) -> list[str]:
    """The views that rows are of, controls last."""
    return sorted(rows["view"].unique(), key=view_order)


def named(rows: DataFrame) -> DataFrame:
    """The rows of views that are no controls."""
    return rows[rows["view"].map(controlled_view) == rows["view"]]


def standing(rows: DataFrame) -> list[dict]:
    """Per method: in how many conditions of named views above flat, above the limits, and best."""
    rows = named(rows)
    cells = rows.set_index([*CONDITION, "method"])[["phase_psnr", "deviance_held_out"]]
    cells = cells.unstack("method", sort=False)
    psnr, deviance = cells["phase_psnr"], cells["deviance_held_out"]
    every = methods(rows)
    # Of equals, what a method was refined to.
    best = psnr[sorted(every, reverse=True)].dropna(how="all").idxmax(axis="columns")
    found = []
    for name in every:
        own = psnr[name].dropna()
        entry = {"method": name, "conditions": len(own), "best": int((best == name).sum())}
        below = own[own <= psnr["flat"][own.index]]
        entry["below_flat"] = [condition_text(*place) for place in below.index]
        entry["predicts"] = int((deviance[name] < deviance["flat"]).sum())
        for limit in LIMITS:
            gaps = (own - psnr[limit]).dropna() if limit in psnr else own[:0]
            entry[limit] = {"compared": len(gaps), "above": int((gaps > 0).sum())}
            entry[limit]["median_db"] = float(gaps.median()) if len(gaps) else None
        found.append(entry)
    return found


def missing(rows: DataFrame, expected: Sequence[str]) -> list[str]:
    """Conditions to be expected from others: dose x expected view x method x replicate seen."""
    names = list(rows.method.unique())
    present = {key: set(own) for key, own in rows.groupby(list(CONDITION)).method}
    found = [f"view {view}: in no condition" for view in expected if view not in set(rows["view"])]
    there = [view for view in views(named(rows)) if view in expected]
    for place in product(sorted(rows.replicate.unique()), sorted(rows.dose.unique()), there):
        if gone := [name for name in names if name not in present.get(place, ())]:
            what = "all" if gone == names else ", ".join(gone)
            found.append(f"{condition_text(*place)}: {what}")
    return found


def condition_text(replicate: int, dose: float, view: str) -> str:
    return f"dose {dose:,.0f} {view.replace('_', ' ')}, replicate {replicate}"
