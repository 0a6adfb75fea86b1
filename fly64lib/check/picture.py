"""A scan at a glance, from what :mod:`fly64lib.check.examination` measured; nothing is computed
here that decides a verdict."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from fly64lib.check.examination import UNEVEN_FACTOR, Examination
from fly64lib.simulation.overlap_measures import nearest_distances
from ptycho_torch.data.count_statistics import saturation


def draw(found: Examination) -> Figure:
    """Mean pattern, counts, exposures; coverage, spacing, object: with the faults that were found
    marked, and the verdicts."""
    figure = Figure(figsize=(14.5, 10.8), layout="constrained")
    axes = figure.subplot_mosaic(
        [["pattern", "counts", "exposures"], ["coverage", "spacing", "object"], ["text"] * 3],
        height_ratios=(1, 1, 0.62),
    )
    for name, paint in {
        "pattern": _pattern,
        "counts": _counts,
        "exposures": _exposures,
        "coverage": _coverage,
        "spacing": _spacing,
        "object": _object,
        "text": _text,
    }.items():
        paint(axes[name], found)
    figure.suptitle(
        f"{found.source.name}: {sum(one.good for one in found.verdicts)} of {len(found.verdicts)}"
        " without a warning"
    )
    return figure


def _pattern(ax: Axes, found: Examination) -> None:
    drawn = ax.imshow(np.log10(found.counts.mean + 1e-2), cmap="magma", interpolation="nearest")
    middle = found.scan.N // 2
    offset = next(one for one in found.verdicts if one.what == "beam centre").values["offset_px"]
    ax.plot(middle, middle, "+", color="white", markersize=12, label="N // 2")
    ax.plot(
        middle + offset[1], middle + offset[0], "x", color="tab:cyan", markersize=8, label="beam"
    )
    for where, marker, colour, name in (
        (found.dead, "s", "lime", "dead"),
        (found.hot, "o", "red", "hot"),
    ):
        if len(where):
            ax.plot(
                where[:, 1],
                where[:, 0],
                marker,
                color=colour,
                markerfacecolor="none",
                markersize=9,
                linestyle="none",
                label=f"{name}, {len(where)}",
            )
    ax.set(title="mean pattern", xlabel="column", ylabel="row")
    ax.legend(fontsize="x-small", loc="upper right", facecolor="0.25", labelcolor="white")
    ax.figure.colorbar(drawn, ax=ax, shrink=0.9, label="log$_{10}$(counts + 0.01)")


def _counts(ax: Axes, found: Examination) -> None:
    values, numbers = found.counts.values, found.counts.numbers
    ax.loglog(np.maximum(values, 0.5), numbers, ".", markersize=3, color="tab:blue")
    if piled := saturation(found.counts):
        ax.axvline(
            piled[0], color="tab:red", label=f"saturated: {piled[1]} values at {piled[0]:.0f}"
        )
        ax.legend(fontsize="x-small")
    ax.set(
        title="how often each count occurs",
        xlabel="photons in a pixel (0 drawn at 0.5)",
        ylabel="pixels in all patterns",
    )
    ax.grid(alpha=0.3)


def _exposures(ax: Axes, found: Examination) -> None:
    photons, median = found.counts.photons, np.median(found.counts.photons)
    ax.plot(photons, ".", markersize=3, color="tab:blue", label="measured")
    uneven = next(one for one in found.verdicts if one.what == "exposures").values["uneven"]
    if uneven:
        ax.plot(
            uneven,
            photons[uneven],
            "o",
            color="tab:red",
            markerfacecolor="none",
            label=f"uneven, {len(uneven)}",
        )
    probe = next(one for one in found.verdicts if one.what == "dose").values["probe_photons"]
    ax.axhline(probe, color="tab:orange", linestyle="--", label="the probe through an empty object")
    ax.set(
        title="photons of each pattern",
        xlabel="pattern",
        ylabel="photons",
        ylim=(
            min(photons.min(), median / UNEVEN_FACTOR, probe) * 0.9,
            max(photons.max(), median * 1.3, probe) * 1.05,
        ),
    )
    ax.legend(fontsize="x-small")
    ax.grid(alpha=0.3)


def _coverage(ax: Axes, found: Examination) -> None:
    drawn = ax.imshow(found.fluence, cmap="viridis", interpolation="nearest")
    ax.plot(found.scan.xcoords, found.scan.ycoords, ".", color="white", markersize=1.5, alpha=0.6)
    ax.contour(found.inside, [0.5], colors="white", linewidths=0.7)
    if found.holes.any():
        ax.contour(found.holes, [0.5], colors="red", linewidths=1.5)
    ax.set(
        title="coverage: fluence, positions, hull"
        + (", holes in red" if found.holes.any() else ""),
        xlabel="x / px",
        ylabel="y / px",
    )
    ax.figure.colorbar(drawn, ax=ax, shrink=0.9, label="photons per object pixel")


def _spacing(ax: Axes, found: Examination) -> None:
    positions = np.stack([found.scan.ycoords, found.scan.xcoords], axis=1)
    nearest = nearest_distances(positions, 1).ravel()
    if nearest.size:
        ax.hist(
            nearest,
            np.linspace(0, max(nearest.max(), found.diameter_px or 0) * 1.02, 61),
            color="tab:blue",
        )
    if found.diameter_px:
        for part, style in ((1, "-"), (0.5, ":")):
            ax.axvline(
                part * found.diameter_px,
                color="tab:red",
                linestyle=style,
                label="D" if part == 1 else "D / 2",
            )
        ax.legend(fontsize="x-small")
    ax.set(title="distance to the nearest other position", xlabel="px", ylabel="positions")


def _object(ax: Axes, found: Examination) -> None:
    image = found.scan.object_guess * np.exp(
        -1j * np.angle(found.scan.object_guess[found.inside].sum())
    )
    low, high = np.percentile(np.angle(image[found.inside]), (0.5, 99.5))
    drawn = ax.imshow(
        np.angle(image), cmap="gray", vmin=low, vmax=max(high, low + 1e-3), interpolation="nearest"
    )
    ax.contour(found.inside, [0.5], colors="tab:orange", linewidths=0.7)
    if found.diameter_px:
        ax.add_patch(
            Circle(
                (found.scan.xcoords[0], found.scan.ycoords[0]),
                found.diameter_px / 2,
                fill=False,
                color="tab:cyan",
            )
        )
    kind = found.scan.metadata.get("object_kind", "of unstated kind")
    ax.set(title=f"object ({kind}); circle: probe, D", xlabel="x / px", ylabel="y / px")
    ax.figure.colorbar(drawn, ax=ax, shrink=0.9, label="phase / rad")


def _text(ax: Axes, found: Examination) -> None:
    ax.axis("off")
    for row, one in enumerate(found.verdicts):
        ax.text(
            0.0,
            1 - row / len(found.verdicts),
            f"{'ok' if one.good else 'LOOK':5s} {one.what}: {one.found}",
            va="top",
            family="monospace",
            fontsize=8.5,
            color="black" if one.good else "tab:red",
            transform=ax.transAxes,
        )
