"""The report's curves, from rows to matplotlib Figures: small single panels; no number is changed.

A curve is the median over replicates, its bar their range from the smallest to the largest (one
replicate: no bar). With n replicates that range holds the population's median with probability 1 -
2^(1 - n), whatever the distribution."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from fly64lib.design.study import controlled_view
from fly64lib.evaluation.columns import LIMITS, REFERENCES, Column, columns
from fly64lib.plots.styles import Style, reference_styles

Styles = Mapping[str, Style]


class Axis(NamedTuple):
    """Of one metric's panels: column, range over the rows of methods, and a target to mark. Limits
    and the flat object may lie beyond: they would press the methods together."""

    column: Column
    span: tuple[float, float]
    target: float | None = None

    @classmethod
    def of(cls, rows: DataFrame, column: Column, target: float | None = None) -> "Axis | None":
        """The axis for these rows; None where they have no values."""
        values = rows.loc[~rows.method.isin(REFERENCES)].get(column.name)
        if values is None or not values.notna().any():
            return None
        low, high = float(values.min()), float(values.max())
        margin = 0.06 * (high - low) or 0.5
        linear, logarithmic = (low - margin, high + margin), (low / 1.1, high * 1.1)
        return cls(column, logarithmic if column.logarithmic else linear, target)

    def panel(self, x: str) -> tuple[Figure, Axes]:
        """An empty panel over the column `x`."""
        figure = Figure(figsize=(4.4, 3.3))
        # Fixed: laying out each of some fifty panels takes a second.
        ax = figure.add_axes((0.145, 0.15, 0.835, 0.83))
        ax.set_xscale("log")
        ax.set_yscale("log" if self.column.logarithmic else "linear")
        ax.set(xlabel=columns()[x].title, ylabel=self.column.title, ylim=self.span)
        ax.minorticks_off()  # a quarter of the time that a panel takes
        ax.grid(color="0.92")
        ax.set_axisbelow(True)
        if self.target is not None:
            ax.axhline(self.target, color="0.55", linewidth=0.8)
        return figure, ax


def replicate_range(rows: DataFrame, x: str, y: str) -> Float[np.ndarray, "n 4"]:
    """Points of x, median, smallest and largest y over replicates, of each condition with both."""
    if not {x, y} <= set(rows.columns):
        return np.empty((0, 4))
    conditions = rows.dropna(subset=[x, y]).groupby(["dose", "view"])
    values = [conditions[x].median(), *(conditions[y].agg(k) for k in ("median", "min", "max"))]
    points = np.stack([part.to_numpy(float) for part in values], 1)
    return points[np.lexsort(points.T[::-1])]


def over(axis: Axis, rows: DataFrame, x: str, styles: Styles) -> Figure:
    """The metric over `x`: a line for each method, reference and limit in `styles`."""
    figure, ax = axis.panel(x)
    for name, style in styles.items():
        _curve(ax, rows[rows.method == name], x, axis.column.name, style)
    return figure


def by_view(axis: Axis, rows: DataFrame, styles: Styles) -> Figure:
    """One method's metric over photons per object pixel, a line for each view in `styles`: views on
    one line differ by photons only, views apart at the same photons by how these are spread."""
    figure, ax = axis.panel("photons_per_pixel")
    for view, style in styles.items():
        own = rows[rows["view"] == view]
        limits = reference_styles(LIMITS) if view == controlled_view(view) else {}
        for name, look in ({None: style} | limits).items():
            chosen = own[own.method == name if name else ~own.method.isin(REFERENCES)]
            _curve(ax, chosen, "photons_per_pixel", axis.column.name, look)
    return figure


def _curve(ax: Axes, rows: DataFrame, x: str, y: str, style: Style) -> None:
    """An arrow at the edge marks each point beyond it."""
    points = replicate_range(rows, x, y)
    if len(points):
        at, middle, low, high = points.T
        bars = [middle - low, high - middle] if (high > low).any() else None
        ax.errorbar(at, middle, yerr=bars, capsize=2.5, markersize=5, **style.keywords)
        bottom, top = ax.get_ylim()
        for beyond, edge, arrow in ((middle > top, top, "^"), (middle < bottom, bottom, "v")):
            look = {"color": style.colour, "markersize": 5, "clip_on": False}
            ax.plot(at[beyond], np.full(beyond.sum(), edge), arrow, **look)
