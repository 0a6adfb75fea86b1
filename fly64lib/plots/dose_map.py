"""The map: dose against overlap, one panel a method, coloured by what is resolved.

Columns are views. Those of single images stand in order of their overlap; overlap 0 and each view
of another kind stand apart, for no line leads from one kind of view to another."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fly64lib.evaluation.columns import Column, number
from fly64lib.plots.styles import reference_styles

Line = Float[np.ndarray, "views 3"]  # smallest, median, largest dose of replicates
_GAP = 0.35  # of a column, between groups
_CONTOUR = "#d3137d"
_COLOURS = "viridis"
_CROSS = 0.5  # opacity: the number under it stays readable
_ROOM = 4  # most columns whose cells have room for an interval


class DoseMap(NamedTuple):
    """What the panels of one target show. A line holds -inf where the target is met at the lowest
    dose already, inf where it isn't at the highest, nan where nothing was measured."""

    column: Column
    target: float
    heads: list[str]  # of the views
    groups: list[int]  # of the views; those of one group stand side by side
    doses: list[float]  # photons per exposure, rising
    per_pixel: Float[np.ndarray, " views"]  # photons per object pixel for a photon per exposure
    cells: Mapping[str, Float[np.ndarray, "doses views replicates"]]  # of methods; nan: not there
    lines: Mapping[str, Line]  # doses where the target is met, of methods and limits
    pixel_nm: float | None = None  # of the grid that objects are scored on

    @property
    def in_nyquist(self) -> bool:
        return self.column.unit == "Nyquist"

    def meets(self, values: np.ndarray) -> np.ndarray:
        sign = 1 if self.column.higher_is_better else -1
        return sign * values >= sign * self.target

    def text(self, value: float) -> str:
        """A value as cells write it: half a period in nm where the pixel's size is known."""
        if self.in_nyquist and self.pixel_nm:
            return f"{self.pixel_nm / value:.0f}" if value > 0 else "none"
        return f"{value:.2f}" if self.in_nyquist else self.column.text(value)[:5]


def panel(shown: DoseMap, method: str) -> Figure:
    """One method's map. Cells hold the median of the replicates; where it misses the target they
    are crossed out. Magenta: the dose where the target is met, its band the replicates' range;
    black: the limits' doses; dotted: equal photons per object pixel."""
    figure = Figure(figsize=(4.6, 3.7))
    ax = figure.add_axes((0.13, 0.135, 0.64, 0.85))
    left, edges = _places(shown.groups), _edges(shown.doses)
    values = shown.cells[method]
    drawn, span = None, _span(shown)
    for group in dict.fromkeys(shown.groups):
        of = [k for k, one in enumerate(shown.groups) if one == group]
        x = np.append(left[of], left[of[-1]] + 1)
        middle = _median(values[:, of])
        drawn = ax.pcolormesh(x, edges, middle, cmap=_COLOURS, vmin=span[0], vmax=span[1])
        for name, line in shown.lines.items():
            if name == method or name in reference_styles():
                _contour(ax, line[of], x, name, (edges[0], edges[-1]))
        _equal_photons(ax, shown, of, x, (edges[0], edges[-1]))
    for (i, k), _ in np.ndenumerate(values[..., 0]):
        _cell(ax, shown, values[i, k], (left[k], left[k] + 1), edges[i : i + 2], span)
    ax.set_yscale("log")
    ax.set(xlim=(left[0], left[-1] + 1), ylim=(edges[0], edges[-1]))
    ax.set_xticks(left + 0.5, shown.heads)
    ax.set_yticks(shown.doses, [_short(dose) for dose in shown.doses])
    ax.minorticks_off()
    ax.tick_params(length=2, labelsize="small")
    ax.set(xlabel="linear overlap", ylabel="photons per exposure")
    _scale(figure, drawn, shown)
    return figure


def _short(dose: float) -> str:
    """`300`, `3k`, `1M`: labels that leave the map its room."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if dose >= size:
            return f"{dose / size:g}{letter}"
    return f"{dose:g}"


def _places(groups: list[int]) -> Float[np.ndarray, " views"]:
    """Left edge of each column."""
    return np.arange(len(groups)) + _GAP * np.cumsum(np.diff(groups, prepend=groups[0]) != 0)


def _edges(doses: list[float]) -> Float[np.ndarray, " doses+1"]:
    """Between doses, half way on the logarithmic axis; one dose alone has a decade."""
    logs = np.log10(doses)
    between = (logs[1:] + logs[:-1]) / 2
    if not len(between):
        return 10.0 ** (logs[0] + np.array([-0.5, 0.5]))
    ends = 2 * logs[0] - between[0], 2 * logs[-1] - between[-1]
    return 10.0 ** np.concatenate([[ends[0]], between, [ends[1]]])


def _median(values: np.ndarray) -> np.ndarray:
    known = np.ma.masked_invalid(values)
    return np.ma.median(known, -1)


def _span(shown: DoseMap) -> tuple[float, float]:
    """The colours' ends: 0 and 1 of Nyquist, else the methods' own range, never the limits'."""
    if shown.in_nyquist:
        return 0.0, 1.0
    every = np.concatenate([values.ravel() for values in shown.cells.values()])
    return float(np.nanmin(every)), float(np.nanmax(every))


def _contour(ax: Axes, line: Line, x: np.ndarray, name: str, ends: tuple[float, float]) -> None:
    """From edge to edge of a group, level over its outer half columns; where the target is not
    met, or met below all doses, the line leaves the panel there."""
    at = np.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]])
    low, middle, high = np.clip(np.pad(line, ((1, 1), (0, 0)), "edge").T, ends[0] / 9, ends[1] * 9)
    limit = reference_styles().get(name)
    look = {"color": _CONTOUR, "linewidth": 2.2} if limit is None else limit.keywords
    halo = [patheffects.withStroke(linewidth=3.4, foreground="white")]
    if limit is None:
        ax.fill_between(at, low, high, color=_CONTOUR, alpha=0.3, linewidth=0)
    ax.plot(at, middle, path_effects=halo, **(look | {"marker": ""}))


def _equal_photons(ax: Axes, shown: DoseMap, of: list[int], x: np.ndarray, ends: tuple) -> None:
    at = np.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]])
    share = np.pad(shown.per_pixel[of], 1, "edge")
    for decade in range(-3, 9):
        doses = 10.0**decade / share
        ax.plot(at, doses, ":", color="white", linewidth=1.1)
        if of[0] == 0 and ends[0] * 1.05 < doses[0] < ends[1] / 1.05:
            look = {"color": "white", "fontsize": 6.5, "va": "center", "ha": "left"}
            box = {"boxstyle": "square,pad=0.15", "facecolor": "#000000aa", "edgecolor": "none"}
            ax.text(x[0] + 0.02, doses[0], f"{10.0**decade:,g}/px", bbox=box, **look)


def _cell(
    ax: Axes, shown: DoseMap, values: np.ndarray, x: tuple, y: np.ndarray, span: tuple
) -> None:
    """Its number, and a cross where the median misses the target."""
    known = values[np.isfinite(values)]
    place = {"ha": "center", "va": "center", "fontsize": 9 if len(shown.heads) <= _ROOM else 7.5}
    middle = (x[0] + x[1]) / 2, float(np.sqrt(y[0] * y[1]))
    if not len(known):
        ax.text(*middle, "not run", color="0.5", **place)
        return
    median = float(np.median(known))
    bright = (median - span[0]) / ((span[1] - span[0]) or 1) > 0.6
    ink = "black" if bright else "white"
    if not shown.meets(median):
        for ends in (y, y[::-1]):
            ax.plot(x, ends, color=ink, linewidth=0.7, alpha=_CROSS)
    text = shown.text(median)
    if len(known) > 1 and len(shown.heads) <= _ROOM:
        low, high = shown.text(known.min()), shown.text(known.max())
        low, high = (high, low) if shown.in_nyquist and shown.pixel_nm else (low, high)
        text += f"\n{low}–{high}" if low != high else ""
    ax.text(*middle, text, color=ink, linespacing=0.95, **place)


def _scale(figure: Figure, drawn: object, shown: DoseMap) -> None:
    """The colour bar, with the target marked; a share of Nyquist also in nm."""
    bar = figure.colorbar(drawn, cax=figure.add_axes((0.79, 0.135, 0.03, 0.85)))
    bar.ax.tick_params(labelsize="small", length=2)
    bar.set_label(shown.column.unit or shown.column.label, fontsize="small", labelpad=2)
    if shown.in_nyquist and shown.pixel_nm:
        ticks = (0.2, 0.4, 0.6, 0.8, 1.0)
        bar.set_ticks(ticks, labels=[f"{t:g} = {number(shown.pixel_nm / t)} nm" for t in ticks])
        bar.ax.tick_params(labelsize=6.5, pad=1)
        bar.set_label("")
    bar.ax.axhline(shown.target, color=_CONTOUR, linewidth=2)
