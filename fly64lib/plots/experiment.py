"""The experiment in pictures: where the probe goes at each overlap, a pattern at each dose, the
probe."""

from collections.abc import Mapping

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fly64lib.simulation.scans import Positions

_LEAST, _ACROSS = 3, 4  # panels in a row
_NO_TICKS = {"xticks": [], "yticks": []}


def scan_plan(positions: Mapping[str, Positions], diameter: float) -> Figure:
    """For each name the positions (y, x) and discs of the probe's diameter, in one unit; one disc
    is filled."""
    every = np.concatenate(list(positions.values()))
    (top, left), (bottom, right) = every.min(0) - diameter / 2, every.max(0) + diameter / 2
    across = min(_ACROSS, max(_LEAST, len(positions)))
    down = -(-len(positions) // across)
    height = (bottom - top) / (right - left) * 11 / across + 0.3
    figure = Figure(figsize=(11, height * down + 0.1), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, subplot_kw=_NO_TICKS).ravel()
    for ax in axes[len(positions) :]:
        ax.remove()
    for ax, (name, places) in zip(axes, positions.items(), strict=False):
        y, x = places.T
        middle = np.argmin(np.hypot(*(places - (places.max(0) + places.min(0)) / 2).T))
        for chosen, look in (
            (slice(None), {"facecolors": "none", "edgecolors": "#0b5fa5", "linewidths": 0.6}),
            ([middle], {"facecolors": "#D55E0088", "edgecolors": "#D55E00"}),
        ):
            discs = np.full(len(x[chosen]), diameter)
            offsets = np.stack([x[chosen], y[chosen]], 1)
            about = {"units": "xy", "offsets": offsets, "offset_transform": ax.transData}
            ax.add_collection(
                EllipseCollection(discs, discs, np.zeros(len(discs)), **about, **look)
            )
        ax.plot(x, y, ".", color="#1c2733", markersize=2)
        ax.set(aspect="equal", xlim=(left, right), ylim=(bottom, top))
        ax.set_title(f"{name}: {len(x):,} exposures", fontsize="medium")
    return figure


def patterns(counts: Mapping[str, np.ndarray]) -> Figure:
    """Counts (N, N) of one exposure for each name, on one logarithmic scale; white: no photon."""
    figure = Figure(figsize=(11, 11 / max(len(counts), _LEAST) + 0.2), layout="constrained")
    axes = figure.subplots(1, len(counts), squeeze=False, subplot_kw=_NO_TICKS)[0]
    scale = LogNorm(1, max(2.0, *(float(one.max()) for one in counts.values())))
    for ax, (name, image) in zip(axes, counts.items(), strict=True):
        drawn = ax.imshow(np.ma.masked_less(image, 0.5), "viridis", norm=scale)
        ax.set_title(f"{name}: {image.sum():,.0f} counted", fontsize="medium")
    figure.colorbar(drawn, ax=list(axes), label="photons a pixel", shrink=0.8, pad=0.01)
    return figure


def probe_modes(probe: np.ndarray) -> Figure:
    """Amplitude and phase of the strongest mode of a probe (M, M) or (modes, M, M)."""
    mode = probe.reshape(-1, *probe.shape[-2:])[0]
    size = np.abs(mode) / np.abs(mode).max()
    figure = Figure(figsize=(6.6, 3), layout="constrained")
    parts = figure.subplots(1, 2, subplot_kw=_NO_TICKS)
    for ax, (title, image, colours, ends) in zip(
        parts,
        (
            ("amplitude / its largest", size, "magma", (0, 1)),
            (
                "phase / rad, where lit",
                np.ma.masked_where(size < 0.02, np.angle(mode)),
                "twilight",
                (-np.pi, np.pi),
            ),
        ),
        strict=True,
    ):
        drawn = ax.imshow(image, colours, vmin=ends[0], vmax=ends[1])
        ax.set_title(title, fontsize="medium")
        figure.colorbar(drawn, ax=ax, shrink=0.85)
    return figure
