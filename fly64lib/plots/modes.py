"""Pictures of probes."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Complex
from matplotlib.figure import Figure

_FAINT = 1e-3  # of the brightest pixel: a phase there is noise

Modes = Complex[np.ndarray, "modes M M"]


def modes(probes: Mapping[str, Modes]) -> Figure:
    """Amplitude and phase of every mode of probes, two rows a probe, the strongest mode first, with
    its share of the power. An amplitude scale for each mode; no phase where there is no light."""
    across = max(map(len, probes.values()))
    size = {"figsize": (2.3 * across + 0.8, 4.8 * len(probes)), "layout": "constrained"}
    figure = Figure(**size)
    axes = figure.subplots(2 * len(probes), across, squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for number, (name, probe) in enumerate(probes.items()):
        power = np.square(np.abs(probe)).sum((1, 2))
        for column, mode in enumerate(np.argsort(-power)):
            amplitude = np.abs(probe[mode])
            lit = np.square(amplitude) > _FAINT * np.square(amplitude).max()
            bright, turned = axes[2 * number : 2 * number + 2, column]
            bright.imshow(amplitude, "magma", vmin=0)
            title = f"{name}, mode {column + 1}\n{power[mode] / power.sum():.1%} of the power"
            bright.set_title(title, fontsize="small")
            phase = np.where(lit, np.angle(probe[mode]), np.nan)
            drawn = turned.imshow(phase, "twilight", vmin=-np.pi, vmax=np.pi)
    figure.colorbar(drawn, ax=axes, label="phase / rad", shrink=0.5)
    return figure
