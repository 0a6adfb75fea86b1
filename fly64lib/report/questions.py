"""What people ask of the page: a dose or a budget is given, what do I get and how; what is gained.

Values between measured doses are interpolated, linear in log(photons); none is extrapolated. One is
the median of replicates that have it, with their range."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from pandas import DataFrame

from fly64lib.evaluation.columns import columns, number
from fly64lib.plots.styles import label
from fly64lib.report.answers import Needed, methods, named, needed_photons, usable
from fly64lib.report.dose_map import columns_of, place
from fly64lib.report.intervals import with_interval
from fly64lib.report.sentences import peer_of

_STEPS = (1, 2, 5)
_SAME = 1e-9  # of log(photons): rounding
_ALWAYS = {"dose": 2000.0, "photons_per_pixel": 50.0}  # that people have asked for


class Option(NamedTuple):
    """A method in a view, and the metric that it reaches at the photons asked for."""

    method: str
    view: str
    values: list[float]  # of replicates
    share: float  # photons per object pixel for a photon per exposure

    @property
    def middle(self) -> float:
        return float(np.median(self.values))


def value_text(metric: str, values: list[float], pixel_nm: float | None) -> str:
    """A metric with its interval; a share of Nyquist as half a period in nm."""
    column = columns()[metric]
    if column.unit == "Nyquist" and pixel_nm:
        if min(values) <= 0:
            return (
                "nothing"
                if max(values) <= 0
                else f"nothing, at best {pixel_nm / max(values):.0f} nm"
            )
        return f"{with_interval([pixel_nm / value for value in values])} nm"
    return f"{with_interval(values)} {column.unit}".strip()


def grid(rows: DataFrame, over: str) -> list[float]:
    """Photons to ask for: 1, 2, 5, 10, ... within what was measured."""
    low, high = rows[over].min(), rows[over].max()
    steps = {step * 10.0**power for power in range(-3, 10) for step in _STEPS}
    return sorted(one for one in steps | {_ALWAYS[over]} if low <= one <= high)


class Curve(NamedTuple):
    """A method in a view: the metric over log(photons) of each replicate, and the photons per
    object pixel for one per exposure."""

    method: str
    view: str
    points: list[tuple[np.ndarray, np.ndarray]]
    share: float


def curves(rows: DataFrame, metric: str, over: str) -> list[Curve]:
    """Of all usable methods in the rows' views that are no controls."""
    rows, found = named(rows).dropna(subset=[metric]).sort_values(over), []
    for (name, view), own in rows[rows.method.isin(usable(rows))].groupby(["method", "view"]):
        points = [
            (np.log(one[over].to_numpy(float)), one[metric].to_numpy(float))
            for _, one in own.groupby("replicate")
        ]
        found.append(Curve(name, view, points, float((own.photons_per_pixel / own.dose).median())))
    return found


def options(known: list[Curve], metric: str, photons: float) -> list[Option]:
    """All methods and views that have a value at these photons, the best first; of equals the one
    that takes the fewest exposures."""
    sign, found, at = (1 if columns()[metric].higher_is_better else -1), [], np.log(photons)
    for curve in known:
        inside = [(x, y) for x, y in curve.points if x[0] - _SAME <= at <= x[-1] + _SAME]
        if inside:
            values = [float(np.interp(at, x, y)) for x, y in inside]
            found.append(Option(curve.method, curve.view, values, curve.share))
    return sorted(found, key=lambda one: (-sign * one.middle, one.share))


def by_exposure(
    rows: DataFrame, metric: str, target: float, pixel_nm: float | None
) -> Iterator[list[str]]:
    """For each dose: what is best, what it gives; the least overlap that meets the target; the
    peer's best."""
    rows = named(rows)
    order, known = columns_of(rows), curves(rows, metric, "dose")
    for dose in grid(rows, "dose"):
        if not (found := options(known, metric, dose)):
            continue
        best = found[0]
        met = [
            one for one in found if _meets(metric, target)(min(one.values, key=_badness(metric)))
        ]
        spaced = [one for one in met if one.view.startswith("single_")]
        least = max(spaced, key=lambda one: order.index(one.view), default=None)
        yield [
            number(dose),
            f"{label(best.method)}, {place(best.view)}",
            value_text(metric, best.values, pixel_nm),
            number(dose * best.share),
            f"{label(least.method)}, {place(least.view)}" if least else "none of those tried",
            _of_peer(found, peer_of(methods(rows)), metric, pixel_nm),
        ]


def by_budget(rows: DataFrame, metric: str, pixel_nm: float | None) -> Iterator[list[str]]:
    """For each number of photons per object pixel: what is best, what it gives; the peer's best."""
    rows = named(rows)
    known = curves(rows, metric, "photons_per_pixel")
    for photons in grid(rows, "photons_per_pixel"):
        if found := options(known, metric, photons):
            best = found[0]
            yield [
                number(photons),
                value_text(metric, best.values, pixel_nm),
                f"{label(best.method)}, {place(best.view)}",
                number(photons / best.share),
                _of_peer(found, peer_of(methods(rows)), metric, pixel_nm),
            ]


def gains(rows: DataFrame, metric: str, target: float) -> tuple[list[str], list[list[str]]]:
    """Heads and lines: by how much each method needs fewer photons than the peer, in each view."""
    rows = named(rows)
    needs, views = needed_photons(rows, metric, target), columns_of(rows)
    lines, peer = [], peer_of(methods(rows))
    for name in methods(rows):
        cells = [_gain(needs.get((name, v), []), needs.get((peer, v), [])) for v in views]
        if name != peer:
            lines.append([label(name), *cells])
    return [place(view) for view in views], lines


def _gain(own: list[Needed], peer: list[Needed]) -> str:
    """The peer's photons over the method's, of the replicates that both have."""
    pairs = list(zip(own, peer, strict=False))
    if not pairs or len(own) != len(peer):
        return "not run"
    kinds = {(mine.kind, theirs.kind) for mine, theirs in pairs}
    ratios = [theirs.photons / mine.photons for mine, theirs in pairs]
    if kinds == {(">", ">")}:
        return "neither meets it"
    if kinds == {("<", "<")}:
        return "both at the fewest tried"
    if all(mine != ">" for mine, _ in kinds) and all(theirs != "<" for _, theirs in kinds):
        bound = "" if kinds == {("=", "=")} else "at least "
        return f"{bound}{with_interval(ratios if not bound else [min(ratios)])}"
    if all(mine != "<" for mine, _ in kinds) and all(theirs != ">" for _, theirs in kinds):
        return f"at most {with_interval([max(ratios)])}"
    return "undecided"


def _of_peer(found: list[Option], peer: str, metric: str, pixel_nm: float | None) -> str:
    own = next((one for one in found if one.method == peer), None)
    return f"{value_text(metric, own.values, pixel_nm)} {place(own.view)}" if own else "not run"


def _meets(metric: str, target: float) -> Callable[[float], bool]:
    higher = columns()[metric].higher_is_better
    return lambda value: value >= target if higher else value <= target


def _badness(metric: str) -> Callable[[float], float]:
    return lambda value: value if columns()[metric].higher_is_better else -value
