"""Pictures from arrays: they take what was computed and change no number.

Figures are made without pyplot, so that no global state is touched; every function returns a
matplotlib Figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fly64lib.evaluation.gauge import Region, align
from fly64lib.evaluation.limits import Limits
from fly64lib.evaluation.rings import FRC, half_bit_threshold, ring_density
from ptycho_torch.files import atomic_path


def objects(
    reconstructions: Mapping[str, np.ndarray],
    truth: np.ndarray | None,
    region: Region,
    errors: bool = False,
) -> Figure:
    """Phase and amplitude of objects side by side on one colour scale each, the global phase
    removed.

    The scale is the truth's (or, without truth, the first image's) 0.5 to 99.5 % range. `errors`
    adds a row with the wrapped phase error."""
    reference = truth if truth is not None else next(iter(reconstructions.values()))
    reference = reference[region]
    shown = {"truth": reference} if truth is not None else {}
    shown |= {
        name: align(image[region], reference).image for name, image in reconstructions.items()
    }
    turn = np.exp(-1j * np.angle(reference.sum()))
    shown = {name: image * turn for name, image in shown.items()}
    limits = [
        np.percentile(part, (0.5, 99.5)) for part in (np.angle(reference * turn), np.abs(reference))
    ]
    rows = [
        ("phase / rad", np.angle, "viridis", limits[0]),
        ("amplitude", np.abs, "gray", limits[1]),
    ]
    if errors and truth is not None:
        spread = 0.5 * np.ptp(limits[0])
        rows.append(
            (
                "phase error / rad",
                lambda image: np.angle(image * np.conj(shown["truth"])),
                "RdBu_r",
                (-spread, spread),
            )
        )
    height, width = reference.shape
    panel = 12.0 / len(shown)
    figure = Figure(
        figsize=(13.0, len(rows) * (panel * height / width + 0.35) + 0.2), layout="constrained"
    )
    axes = figure.subplots(len(rows), len(shown), squeeze=False)
    for row, (label, part, colours, (low, high)) in zip(axes, rows, strict=True):
        for ax, (name, image) in zip(row, shown.items(), strict=True):
            drawn = ax.imshow(
                part(image), cmap=colours, vmin=low, vmax=high, interpolation="nearest"
            )
            ax.set(xticks=[], yticks=[], title=name)
        row[0].set_ylabel(label)
        figure.colorbar(drawn, ax=list(row), shrink=0.9, pad=0.01)
    return figure


def loss_curves(history: Sequence[Mapping[str, float]]) -> Figure:
    """Training and watched loss over epochs."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    ax = figure.subplots()
    epochs = [row["epoch"] + 1 for row in history]
    for key, label in (
        ("train_loss", "training half"),
        ("val_loss", "held-out half, only watched"),
    ):
        if key in history[0]:
            ax.plot(epochs, [row[key] for row in history], ".-", label=label)
    ax.set(
        xlabel="epoch",
        ylabel="loss",
        title="loss on photons that the network's input did not contain",
    )
    ax.legend()
    return figure


def frc_curves(curves: Mapping[str, FRC], limits: Mapping[str, Limits] | None = None) -> Figure:
    """Fourier ring correlation with the truth over frequency, with both thresholds and what the
    limits allow."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    ax = figure.subplots()
    for name, curve in curves.items():
        if name != "truth":
            ax.plot(curve.frequency, curve.correlation, label=name)
    for (name, bound), style in zip((limits or {}).items(), ("--", "-."), strict=False):
        ax.plot(bound.frequency, bound.frc, style, color="black", label=name)
    reference = next(iter(curves.values()))
    ax.axhline(0.5, color="0.6", linestyle=":", label="0.5")
    ax.plot(
        reference.frequency,
        half_bit_threshold(reference.n_pixels),
        color="0.6",
        linestyle="-",
        linewidth=0.8,
        label="half bit",
    )
    ax.set(
        xlabel="spatial frequency / Nyquist",
        ylabel="FRC with the truth",
        ylim=(-0.1, 1.05),
        xlim=(0, 1),
    )
    ax.legend(fontsize="small", ncols=2)
    return figure


def error_spectra(
    errors: Mapping[str, np.ndarray], limits: Mapping[str, Limits] | None = None
) -> Figure:
    """Spectral density of phase errors (H, W), rad^2, over frequency, with the limits'
    densities."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    ax = figure.subplots()
    for name, error in errors.items():
        if name != "truth":
            ax.semilogy(*ring_density(error), label=name)
    for (name, bound), style in zip((limits or {}).items(), ("--", "-."), strict=False):
        ax.semilogy(bound.frequency, bound.phase_density, style, color="black", label=name)
    ax.set(
        xlabel="spatial frequency / Nyquist", ylabel="phase error density / rad$^2$", xlim=(0, 1)
    )
    ax.legend(fontsize="small", ncols=2)
    return figure


def heat_map(values: np.ndarray, rows: Sequence[str], columns: Sequence[str], label: str) -> Figure:
    """A labelled matrix with its numbers; rows trained, columns tested."""
    figure = Figure(figsize=(3.5 + 0.55 * len(columns), 3 + 0.4 * len(rows)), layout="constrained")
    ax = figure.subplots()
    drawn = ax.imshow(values, cmap="viridis", aspect="auto")
    ax.set(
        xticks=range(len(columns)), yticks=range(len(rows)), xlabel="tested on", ylabel="trained on"
    )
    ax.set_xticklabels(columns, rotation=60, ha="right", fontsize="small")
    ax.set_yticklabels(rows, fontsize="small")
    bright = values > (values.min() + values.max()) / 2
    for (i, j), value in np.ndenumerate(values):
        ax.text(
            j,
            i,
            f"{value:.1f}",
            ha="center",
            va="center",
            fontsize="small",
            color="black" if bright[i, j] else "white",
        )
    figure.colorbar(drawn, ax=ax, label=label)
    return figure


def saved(figure: Figure, path: str | Path) -> str:
    """Save a figure as PNG, atomically, and return its path: what a notebook displays is the file
    on disk."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=110)
    return str(path)
