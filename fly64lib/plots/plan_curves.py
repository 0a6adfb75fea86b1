"""Resolution over photons: the limit, and what was measured, for a plan."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from fly64lib.plots.styles import PALETTE, label

Line = tuple[np.ndarray, np.ndarray]  # photons per pixel, resolution in nm


def plan_curves(lines: Mapping[str, Sequence[Line]], wanted_nm: float) -> Figure:
    """Each name's lines in one colour, the first name's black and dashed; grey the resolution that
    is wanted."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    for number, (name, own) in enumerate(lines.items()):
        colour = PALETTE[(number - 1) % len(PALETTE)] if number else "black"
        for k, (photons, resolution) in enumerate(own):
            style, text = ("o-" if number else "--"), (label(name) if k == 0 else None)
            ax.loglog(photons, resolution, style, color=colour, markersize=3, label=text)
    ax.axhline(wanted_nm, color="0.6", linewidth=0.8, label="wanted")
    ax.set(xlabel="photons per pixel of the detector's grid", ylabel="resolution (FRC 0.5) / nm")
    ax.legend(fontsize="small")
    return figure
