"""The report's curves and image grids: from rows and arrays to matplotlib Figures; no number is
changed here.

A curve is the median over replicates, its bar their range from the smallest to the largest (one
replicate: no bar). With n replicates that range holds the population's median with probability 1 -
2^(1 - n), whatever the distribution. Methods have one colour everywhere; the limits are black.
Panels are small and single, so that a page can stack them."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fly64lib.evaluation.gauge import align
from fly64lib.methods.by_name import base_of
from fly64lib.registries import METHODS

Region = tuple[slice, slice]
Rows = Sequence[Mapping]
LIMITS = {"cramer_rao": "--", "bayesian": "-."}
REFERENCES = ("flat", "truth", *LIMITS)
METRIC_LABELS = {
    "phase_psnr": "phase PSNR / dB",
    "frc_half": "resolution (FRC 0.5) / Nyquist",
    "amplitude_psnr": "amplitude PSNR / dB",
    "phase_ms_ssim": "phase MS-SSIM",
    "deviance_held_out": "held-out deviance / pixel",
}
_X_LABELS = {
    "dose": "photons per exposure",
    "photons_per_pixel": "photons per object pixel",
    "overlap": "measured disc overlap with nearest images",
}
_LOGARITHMIC = ("deviance_held_out",)
# Okabe and Ito's colours, which colour-blind readers can tell apart; names that are not in the list
# share the rest.
_PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_VIEW_STYLE = {
    "baseline": ("o", "-"),
    "dense": ("s", "-"),
    "sparse": ("^", "-"),
    "dense_spread": ("D", ":"),
    "dense_fluence": ("P", ":"),
    "sparse_spread": ("v", ":"),
    "sparse_fluence": ("X", ":"),
}
_VIEW_COLOURS = {"baseline": "#444444", "dense": "#0072B2", "sparse": "#D55E00"}


def method_colour(name: str, names: Sequence[str]) -> str:
    """One colour a method, shared by what starts from it (`pinn`, `pinn+refine`): the same in every
    panel of a report."""
    bases = dict.fromkeys(map(base_of, names))
    order = [known for known in (*METHODS, *sorted(set(bases) - set(METHODS))) if known in bases]
    return _PALETTE[order.index(base_of(name)) % len(_PALETTE)]


def _method_line(name: str) -> str:
    return "-" if name == base_of(name) else ":"


def method_styles(
    names: Sequence[str], limits: Sequence[str] = tuple(LIMITS)
) -> dict[str, tuple[str, str]]:
    """Colour and line of every curve of :func:`over`, for a legend; `limits` are those that the
    study computed."""
    return (
        {name: (method_colour(name, names), _method_line(name)) for name in names}
        | {"flat": ("#999999", ":")}
        | {name: ("#000000", LIMITS[name]) for name in limits}
    )


def view_styles(rows: Rows) -> dict[str, tuple[str, str]]:
    """Colour and line of every curve of :func:`by_view`, for a legend."""
    present = {row["view"] for row in rows}
    return {
        view: (_VIEW_COLOURS[view.split("_")[0]], line)
        for view, (_, line) in _VIEW_STYLE.items()
        if view in present
    }


def replicate_range(rows: Rows, x: str, y: str) -> np.ndarray:
    """Points (n, 4) of x, median, smallest and largest y over replicates of one condition; rows
    without y left out."""
    found: dict[tuple, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.get(x) is not None and row.get(y) is not None:
            found[row["dose"], row["view"]].append((row[x], row[y]))
    points = [
        (np.median([a for a, _ in pairs]), *np.quantile([b for _, b in pairs], (0.5, 0, 1)))
        for pairs in found.values()
    ]
    return np.array(sorted(points)).reshape(-1, 4)


def span(rows: Rows, metric: str) -> tuple[float, float] | None:
    """The metric's range over all rows but the truth's, with a margin: one scale for all panels.
    None: no values."""
    values = [
        row[metric] for row in rows if row.get(metric) is not None and row["method"] != "truth"
    ]
    if not values:
        return None
    low, high = min(values), max(values)
    if metric in _LOGARITHMIC:
        return low / 1.1, high * 1.1
    margin = 0.04 * (high - low) or 0.5
    return low - margin, high + margin


def over(
    rows: Rows,
    x: str,
    metric: str,
    names: Sequence[str],
    target: float | None = None,
    span: tuple[float, float] | None = None,
    annotate: bool = False,
) -> Figure:
    """A metric over `x`: a line for each method in `names`, the flat object and both limits.

    `annotate` writes the views along the lower edge, for an x that follows from the view.
    """
    figure, ax = _panel(x, metric, target, span)
    _references(ax, rows, x, metric)
    for name in names:
        own = [row for row in rows if row["method"] == name]
        _curve(
            ax,
            own,
            x,
            metric,
            color=method_colour(name, names),
            marker="o",
            linestyle=_method_line(name),
            markerfacecolor=None if name == base_of(name) else "white",
        )
    for view, at in {
        row["view"]: row[x] for row in rows if annotate and row.get(x) is not None
    }.items():
        ax.annotate(
            view,
            (at, 0.02),
            xycoords=("data", "axes fraction"),
            rotation=90,
            color="0.45",
            fontsize="small",
            ha="right",
            va="bottom",
        )
    return figure


def by_view(
    rows: Rows, metric: str, target: float | None = None, span: tuple[float, float] | None = None
) -> Figure:
    """One method's metric over photons per object pixel: a line for each view, controls dotted and
    hollow.

    Views that fall on one line differ by photons only; views apart at the same photons differ by
    how they are spread."""
    figure, ax = _panel("photons_per_pixel", metric, target, span)
    for view, (marker, line) in _VIEW_STYLE.items():
        own = [row for row in rows if row["view"] == view]
        if "_" not in view:
            _references(ax, own, "photons_per_pixel", metric)
        colour = _VIEW_COLOURS[view.split("_")[0]]
        _curve(
            ax,
            [row for row in own if row["method"] not in REFERENCES],
            "photons_per_pixel",
            metric,
            color=colour,
            marker=marker,
            linestyle=line,
            markerfacecolor="white" if "_" in view else colour,
        )
    return figure


def image_grid(
    objects: Mapping[tuple[str, str], np.ndarray],
    rows: Sequence[str],
    columns: Sequence[str],
    truth: np.ndarray,
    region: Region,
) -> Figure:
    """Phase of objects keyed by (row, column) over the region, the truth on top; gaps say
    "missing".

    The colour scale is the truth's 0.5 to 99.5 % range, the global phase removed from every object.
    """
    reference = truth[region] * np.exp(-1j * np.angle(truth[region].sum()))
    low, high = np.percentile(np.angle(reference), (0.5, 99.5))
    height = 2.6 * reference.shape[0] / reference.shape[1] + 0.12
    figure = Figure(
        figsize=(0.9 + 2.6 * len(columns), 0.4 + height * (len(rows) + 1)), layout="constrained"
    )
    axes = figure.subplots(len(rows) + 1, len(columns), squeeze=False)
    shown = {
        (name, title): align(image[region], reference).image
        for (name, title), image in objects.items()
    }
    for (i, j), ax in np.ndenumerate(axes):
        image = shown.get((rows[i - 1], columns[j])) if i else reference
        ax.set(xticks=[], yticks=[])
        if image is None:
            ax.text(
                0.5, 0.5, "missing", ha="center", va="center", transform=ax.transAxes, color="0.5"
            )
        else:
            drawn = ax.imshow(
                np.angle(image), cmap="viridis", vmin=low, vmax=high, interpolation="nearest"
            )
        if i == 0:
            ax.set_title(columns[j], fontsize="medium")
        if j == 0:
            ax.set_ylabel(rows[i - 1] if i else "truth")
    figure.colorbar(drawn, ax=axes, label="phase / rad", shrink=0.6, pad=0.01)
    return figure


def _panel(
    x: str, metric: str, target: float | None, span: tuple[float, float] | None
) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.4, 3.3))
    ax = figure.add_axes(
        (0.145, 0.15, 0.835, 0.83)
    )  # fixed: laying out each of some fifty panels takes a second
    ax.set(
        xlabel=_X_LABELS[x],
        ylabel=METRIC_LABELS.get(metric, metric),
        xscale="linear" if x == "overlap" else "log",
        yscale="log" if metric in _LOGARITHMIC else "linear",
        ylim=span,
    )
    ax.grid(color="0.92")
    ax.set_axisbelow(True)
    if target is not None:
        ax.axhline(target, color="0.55", linewidth=0.8)
    return figure, ax


def _curve(ax: Axes, rows: Rows, x: str, metric: str, **style: object) -> None:
    points = replicate_range(rows, x, metric)
    if len(points):
        middle, low, high = points[:, 1], points[:, 2], points[:, 3]
        bars = [middle - low, high - middle] if (high > low).any() else None
        ax.errorbar(
            points[:, 0],
            middle,
            yerr=bars,
            capsize=2.5,
            **{"markersize": 5, "linewidth": 1.5} | style,
        )


def _references(ax: Axes, rows: Rows, x: str, metric: str) -> None:
    _curve(
        ax, [row for row in rows if row["method"] == "flat"], x, metric, color="0.6", linestyle=":"
    )
    for name, line in LIMITS.items():
        own = [row for row in rows if row["method"] == name]
        _curve(ax, own, x, metric, color="black", linestyle=line, linewidth=0.9)
