"""A scan at a glance; nothing is computed here that decides a verdict."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from fly64lib.check.examination import Examination
from fly64lib.check.measurements import UNEVEN_FACTOR, Measurements


def draw(found: Examination) -> Figure:
    """Six panels with the faults that were found marked, and the verdicts under them."""
    figure = Figure(figsize=(14.5, 10.8), layout="constrained")
    panels = (_pattern, _counts, _exposures, _coverage, _spacing, _object)
    axes = figure.subplot_mosaic("012;345;ttt", height_ratios=(1, 1, 0.62))
    for number, paint in enumerate(panels):
        paint(axes[str(number)], found.of)
    _text(axes["t"], found)
    good = sum(one.good for one in found.verdicts.values())
    figure.suptitle(f"{found.of.source.name}: {good} of {len(found.verdicts)} without a warning")
    return figure


def _pattern(ax: Axes, of: Measurements) -> None:
    drawn = ax.imshow(np.log10(of.counts.mean + 1e-2), cmap="magma", interpolation="nearest")
    middle, (rows, columns) = of.scan.N // 2, of.offset_px
    ax.plot(middle, middle, "+", color="white", markersize=12, label="N // 2")
    ax.plot(middle + columns, middle + rows, "x", color="tab:cyan", markersize=8, label="beam")
    _mark(ax, *of.dead.T[::-1], "dead", marker="s", color="lime", markersize=9)
    _mark(ax, *of.hot.T[::-1], "hot", marker="o", color="red", markersize=9)
    ax.set(title="mean pattern", xlabel="column", ylabel="row")
    ax.legend(fontsize="x-small", loc="upper right", facecolor="0.25", labelcolor="white")
    ax.figure.colorbar(drawn, ax=ax, shrink=0.9, label="log$_{10}$(counts + 0.01)")


def _counts(ax: Axes, of: Measurements) -> None:
    values, numbers = of.counts.values, of.counts.numbers
    ax.loglog(np.maximum(values, 0.5), numbers, ".", markersize=3, color="tab:blue")
    if of.saturated:
        level, piled = of.saturated
        ax.axvline(level, color="tab:red", label=f"saturated: {piled} values at {level:.0f}")
        ax.legend(fontsize="x-small")
    ax.set(title="how often each count occurs", ylabel="pixels in all patterns")
    ax.set(xlabel="photons in a pixel (0 drawn at 0.5)")
    ax.grid(alpha=0.3)


def _exposures(ax: Axes, of: Measurements) -> None:
    photons, median = of.counts.photons, np.median(of.counts.photons)
    ax.plot(photons, ".", markersize=3, color="tab:blue", label="measured")
    _mark(ax, of.uneven, photons[of.uneven], "uneven", marker="o", color="tab:red")
    probe, empty = of.probe_photons, "the probe through an empty object"
    ax.axhline(probe, color="tab:orange", linestyle="--", label=empty)
    low = min(photons.min(), median / UNEVEN_FACTOR, probe) * 0.9
    high = max(photons.max(), median * 1.3, probe) * 1.05
    ax.set(title="photons of each pattern", xlabel="pattern", ylabel="photons", ylim=(low, high))
    ax.legend(fontsize="x-small")
    ax.grid(alpha=0.3)


def _coverage(ax: Axes, of: Measurements) -> None:
    drawn = ax.imshow(of.fluence, cmap="viridis", interpolation="nearest")
    ax.plot(of.scan.xcoords, of.scan.ycoords, ".", color="white", markersize=1.5, alpha=0.6)
    ax.contour(of.inside, [0.5], colors="white", linewidths=0.7)
    title, (holes, sizes) = "coverage: fluence, positions, hull", of.holes
    if sizes:
        ax.contour(holes, [0.5], colors="red", linewidths=1.5)
        title += ", holes in red"
    ax.set(title=title, xlabel="x / px", ylabel="y / px")
    ax.figure.colorbar(drawn, ax=ax, shrink=0.9, label="photons per object pixel")


def _spacing(ax: Axes, of: Measurements) -> None:
    diameter = of.diameter_px or 0
    if of.nearest_px.size:
        edges = np.linspace(0, max(of.nearest_px.max(), diameter) * 1.02, 61)
        ax.hist(of.nearest_px, edges, color="tab:blue")
    if diameter:
        ax.axvline(diameter, color="tab:red", linestyle="-", label="D")
        ax.axvline(diameter / 2, color="tab:red", linestyle=":", label="D / 2")
        ax.legend(fontsize="x-small")
    ax.set(title="distance to the nearest other position", xlabel="px", ylabel="positions")


def _object(ax: Axes, of: Measurements) -> None:
    image = of.scan.object_guess
    phase = np.angle(image * np.exp(-1j * np.angle(image[of.inside].sum())))
    low, high = np.percentile(phase[of.inside], (0.5, 99.5))
    scale = {"cmap": "gray", "vmin": low, "vmax": max(high, low + 1e-3)}
    drawn = ax.imshow(phase, interpolation="nearest", **scale)
    ax.contour(of.inside, [0.5], colors="tab:orange", linewidths=0.7)
    if of.diameter_px:
        first = (of.scan.xcoords[0], of.scan.ycoords[0])
        ax.add_patch(Circle(first, of.diameter_px / 2, fill=False, color="tab:cyan"))
    kind = of.scan.metadata.get("object_kind", "of unstated kind")
    ax.set(title=f"object ({kind}); circle: probe, D", xlabel="x / px", ylabel="y / px")
    ax.figure.colorbar(drawn, ax=ax, shrink=0.9, label="phase / rad")


def _mark(ax: Axes, x: np.ndarray, y: np.ndarray, name: str, **look: object) -> None:
    """Faults as hollow marks, and how many there are."""
    if len(x):
        hollow = {"markerfacecolor": "none", "linestyle": "none"}
        ax.plot(x, y, label=f"{name}, {len(x)}", **hollow, **look)


def _text(ax: Axes, found: Examination) -> None:
    ax.axis("off")
    for row, (name, one) in enumerate(found.verdicts.items()):
        line = f"{'ok' if one.good else 'LOOK':5s} {name}: {one.found}"
        look = {"fontsize": 8.5, "color": "black" if one.good else "tab:red"}
        place = {"x": 0.0, "y": 1 - row / len(found.verdicts), "transform": ax.transAxes}
        ax.text(s=line, va="top", family="monospace", **look, **place)
