"""Pictures from arrays: they take what was computed and change no number.

Every function returns or saves a matplotlib Figure, made without pyplot's global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Circle, Rectangle

from fly64lib.evaluation.gauge import Region, align
from fly64lib.evaluation.limits import Limits
from fly64lib.evaluation.rings import FRC, half_bit_threshold, ring_density
from fly64lib.plots.styles import Style, label, method_styles, reference_styles
from fly64lib.simulation.overlap_measures import nearest_distances
from fly64lib.simulation.scans import Positions
from fly64lib.simulation.views import View
from ptycho_torch.files import atomic_path

_COLOURS = {"phase / rad": "viridis", "amplitude": "gray"}
_ERRORS = "RdBu_r"
_BEYOND = "#D55E00", "#0072B2"  # amplitudes over and under the colour scale, which gray hides
_NO_TICKS = {"xticks": [], "yticks": []}
_ZOOM = 2  # of the insets
_SHARES = (0.5, 99.5)  # per cent of the truth's pixels between the ends of a colour scale

Image = np.ndarray
Objects = Mapping[str, Image]
Cells = Mapping[tuple[str, str], Image]  # by row and column
Names = Sequence[str]
Bounds = Mapping[str, Limits]


def objects(
    reconstructions: Objects,
    truth: np.ndarray | None,
    region: Region,
    errors: bool = False,
    gauge: str = "known_probe",
) -> Figure:
    """Phase and amplitude of objects side by side, the gauge removed; `errors` adds a row of the
    wrapped phase error and one of the amplitude's. One colour scale each: 0.5 to 99.5 % of the
    truth's (without truth, of the first image's) range; amplitudes beyond it are orange (over) and
    blue (under)."""
    reference = (truth if truth is not None else next(iter(reconstructions.values())))[region]
    turn = np.exp(-1j * np.angle(reference.sum()))
    shown = {"truth": reference * turn} if truth is not None else {}
    for name, image in reconstructions.items():
        shown[name] = align(image[region], reference, gauge).image * turn
    phases = np.percentile(np.angle(reference * turn), _SHARES)
    amplitudes = np.percentile(np.abs(reference), _SHARES)
    rows = [("phase / rad", np.angle, phases), ("amplitude", np.abs, amplitudes)]
    if errors and truth is not None:
        of_truth = shown["truth"]
        for name, part, ends in (
            ("phase error / rad", lambda image: np.angle(image * of_truth.conj()), phases),
            ("amplitude error", lambda image: np.abs(image) - np.abs(of_truth), amplitudes),
        ):
            spread = 0.5 * np.ptp(ends) or 1.0
            rows.append((name, part, (-spread, spread)))
    height, width = reference.shape
    # Not lower than the labels beside it.
    panel = max(12.0 * height / width / len(shown), 0.85) + 0.15
    figure = Figure(figsize=(13.0, len(rows) * panel + 0.5), layout="constrained")
    axes = figure.subplots(len(rows), 1, squeeze=False, subplot_kw=_NO_TICKS)[:, 0]
    for ax, (name, part, ends) in zip(axes, rows, strict=True):
        drawn = _drawn(ax, _side_by_side([part(image) for image in shown.values()]), name, ends)
        ax.spines[:].set_visible(False)
        ax.set_ylabel(name.replace(" / ", "\n/ ").replace(" error", "\nerror"))
        extend = "both" if name == "amplitude" else "neither"
        figure.colorbar(drawn, ax=ax, shrink=0.9, pad=0.01, extend=extend)
    middles = np.arange(len(shown)) * (width + _gap(width)) + (width - 1) / 2
    axes[0].set_xticks(middles, [label(name).replace("+", "\n+") for name in shown])
    axes[0].tick_params(top=False, labeltop=True, bottom=False, labelbottom=False, pad=2)
    return figure


def _gap(width: int) -> int:
    """Empty columns between two images of this width."""
    return max(1, width // 24)


def _side_by_side(images: Sequence[Image]) -> Image:
    """Images of one size in a row, gaps of NaN between them: one axes draws in a fraction of the
    time that one for each would take."""
    height, width = images[0].shape
    gap = np.full((height, _gap(width)), np.nan)
    parts = [part for image in images for part in (gap, image)][1:]
    return np.concatenate(parts, axis=1)


def image_grid(
    images: Cells,
    rows: Names,
    columns: Names,
    truth: Image,
    region: Region,
    called: str = "truth",
) -> Figure:
    """Phase of objects keyed by (row, column) over the region, the truth (or what it is `called`)
    on top; gaps say "missing". The colour scale is the truth's 0.5 to 99.5 % range, the global
    phases removed. An inset has the middle of each image, twice as large."""
    reference = truth[region] * np.exp(-1j * np.angle(truth[region].sum()))
    ends = np.percentile(np.angle(reference), _SHARES)
    height = (2.6 * reference.shape[0] / reference.shape[1] + 0.12) * (len(rows) + 1) + 0.4
    figure = Figure(figsize=(0.9 + 2.6 * len(columns), height), layout="constrained")
    axes = figure.subplots(len(rows) + 1, len(columns), squeeze=False, subplot_kw=_NO_TICKS)
    for (i, j), ax in np.ndenumerate(axes):
        image = images.get((rows[i - 1], columns[j])) if i else truth
        if image is None:
            place = {"ha": "center", "va": "center", "transform": ax.transAxes}
            ax.text(0.5, 0.5, "missing", color="0.5", **place)
        else:
            phase = np.angle(align(image[region], reference).image)
            drawn = _drawn(ax, phase, "phase / rad", ends)
            _inset(ax, phase, ends)
        if i == 0:
            ax.set_title(columns[j], fontsize="medium")
        if j == 0:
            ax.set_ylabel(rows[i - 1] if i else called)
    figure.colorbar(drawn, ax=axes, label="phase / rad", shrink=0.6, pad=0.01)
    return figure


def _inset(ax: Axes, phase: Image, ends: Sequence[float]) -> None:
    """The middle, `_ZOOM` times as large, in the lower right corner."""
    height, width = phase.shape
    side = int(0.5 * min(phase.shape) / _ZOOM)
    y, x = (height - side) // 2, (width - side) // 2
    share = _ZOOM * side / width, _ZOOM * side / height
    inset = ax.inset_axes((1 - share[0], 0, *share), xticks=[], yticks=[])
    _drawn(inset, phase[y : y + side, x : x + side], "phase / rad", ends)
    for edge in inset.spines.values():
        edge.set(color="white", linewidth=1.2)
    frame = {"fill": False, "edgecolor": "white", "linewidth": 0.8}
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), side, side, **frame))


def _drawn(ax: Axes, values: np.ndarray, name: str, ends: Sequence[float]) -> AxesImage:
    (low, high), colours = ends, colormaps[_COLOURS.get(name, _ERRORS)]
    if name == "amplitude":
        colours = colours.with_extremes(over=_BEYOND[0], under=_BEYOND[1])
    return ax.imshow(values, colours, vmin=low, vmax=high, interpolation="nearest")


def loss_curves(history: Sequence[Mapping[str, float]], same: bool = False) -> Figure:
    """Training and watched loss over epochs; `same`: both are of the same patterns."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    title = "loss on photons that the network's input did not contain"
    ax = figure.subplots(subplot_kw={"xlabel": "epoch", "ylabel": "loss", "title": title})
    epochs = [row["epoch"] + 1 for row in history]
    halves = {"train_loss": "training half", "val_loss": "held-out half, only watched"}
    if same:
        halves = {"train_loss": "training", "val_loss": "the same patterns, watched: no test"}
    for key, half in halves.items():
        if key in history[0]:
            ax.plot(epochs, [row[key] for row in history], ".-", label=half)
    ax.legend()
    return figure


def frc_curves(curves: Mapping[str, FRC], limits: Bounds | None = None) -> Figure:
    """Fourier ring correlation with the truth, both thresholds and what the limits allow."""
    figure, ax = _over_frequency("FRC with the truth")
    styles = method_styles([name for name in curves if name != "truth"])
    for name, style in styles.items():
        curve = curves[name]
        ax.plot(curve.frequency, curve.correlation, label=label(name), **_line(style))
    for name, bound in (limits or {}).items():
        ax.plot(bound.frequency, bound.frc, **_limit_line(name))
    reference = next(iter(curves.values()))
    half_bit = half_bit_threshold(reference.n_pixels)
    ax.axhline(0.5, color="0.8", linewidth=2, zorder=0, label="0.5")
    ax.plot(reference.frequency, half_bit, color="0.6", linewidth=0.8, label="half bit")
    ax.set_ylim(-0.1, 1.05)
    return _with_legend(figure)


def error_spectra(errors: Objects, limits: Bounds | None = None) -> Figure:
    """Spectral density of phase errors (H, W), rad^2, over frequency, and of the limits."""
    figure, ax = _over_frequency("phase error density / rad$^2$")
    for name, style in method_styles([name for name in errors if name != "truth"]).items():
        ax.semilogy(*ring_density(errors[name]), label=label(name), **_line(style))
    for name, bound in (limits or {}).items():
        ax.semilogy(bound.frequency, bound.phase.density, **_limit_line(name))
    return _with_legend(figure)


def _over_frequency(ylabel: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(8.2, 3.8), layout="constrained")
    about = {"xlabel": "spatial frequency / Nyquist", "ylabel": ylabel, "xlim": (0, 1)}
    return figure, figure.subplots(subplot_kw=about)


def _with_legend(figure: Figure) -> Figure:
    """Beside the curves, never over them."""
    figure.legend(loc="outside right upper", fontsize="small", frameon=False)
    return figure


def _line(style: Style) -> dict[str, object]:
    """A method's look without markers: a curve has a point at every ring."""
    return style.keywords | {"marker": ""}


def _limit_line(name: str) -> dict[str, object]:
    return reference_styles()[name].keywords | {"label": label(name), "linewidth": 1.5}


def draw_view(path: Path, positions_px: Positions, view: View, D_px: float, title: str) -> None:
    """Draw a view's images among all positions (y, x), and histograms of spacing, as PNG.

    A colour for each group (without groups, each image); the circle has the probe's diameter D. No
    wall-clock time goes into the file: the same view gives the same bytes."""
    chosen, groups = positions_px[view.images], view.groups
    groups = np.arange(len(chosen))[:, None] if groups is None else groups
    colours = colormaps["tab20"](np.arange(len(groups)) % 20)
    figure = Figure(figsize=(11, 4.5))
    margins = {"left": 0.06, "right": 0.98, "top": 0.92, "bottom": 0.25}
    plan, histogram = figure.subplots(1, 2, gridspec_kw=margins)
    y, x = positions_px.T
    plan.scatter(x, y, s=1, c="0.85", label="all positions of the split")
    y, x = chosen[groups.ravel()].T
    each = np.repeat(colours, groups.shape[1], axis=0)
    plan.scatter(x, y, s=4, c=each, label="chosen, a colour for each group")
    y, x = chosen[groups[0, 0]]
    label = f"probe, D = {D_px:g} px"
    plan.add_patch(Circle((x, y), D_px / 2, fill=False, label=label))
    title = f"{title}: {len(chosen)} images, {len(groups)} groups"
    plan.set(aspect="equal", xlabel="x / px", ylabel="y / px", title=title)
    plan.invert_yaxis()
    spacings = {"image to nearest image": nearest_distances(chosen, 1)}
    if groups.shape[1] > 1:
        spacings["centre to nearest centre"] = nearest_distances(chosen[np.unique(groups[:, 0])], 1)
    edges = np.linspace(0, max([D_px, *(s.max() for s in spacings.values() if s.size)]), 61)
    for label, spacing in spacings.items():
        histogram.hist(spacing.ravel(), edges, histtype="stepfilled", alpha=0.6, label=label)
    histogram.set(xlabel="distance / px", ylabel="number", title="spacing")
    histogram.axvline(D_px, color="0.5", linestyle=":", label="D")
    for axes in (plan, histogram):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, fontsize="x-small")
    saved(figure, path, dpi=100)


def deviation(phase_rad: np.ndarray) -> Figure:
    """A map of the phase's standard deviation, rad."""
    height, width = phase_rad.shape
    figure = Figure(figsize=(7.0, 6.2 * height / width + 0.5), layout="constrained")
    ax = figure.subplots(subplot_kw=_NO_TICKS)
    drawn = ax.imshow(phase_rad, "magma", vmin=0, vmax=np.percentile(phase_rad, _SHARES[1]))
    figure.colorbar(drawn, ax=ax, label="standard deviation of the phase / rad")
    return figure


def saved(figure: Figure, path: str | Path, dpi: int = 110) -> str:
    """Save a figure as PNG, atomically; the path: what a notebook displays is the file on disk."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=dpi)
    return str(path)
