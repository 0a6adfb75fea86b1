"""Draws forward_model.png, the picture of docs/forward_model.md: the twin's pupil, a pattern far
beyond the detector, and what a model on the detector's grid gets wrong.

    python docs/images/draw_forward_model.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from fly64lib.design.study import ScanDesign
from fly64lib.simulation.experiment import embedded_experiment, expected_patterns
from ptycho_torch.physics.geometry import Detector, Geometry
from ptycho_torch.physics.optics import propagate

DOSE, N = 1e5, 64


def patterns(M: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of one exposure: the far field of 4 N pixels, the detector's counts, and those that the truth
    on M pixels gives, photons."""
    experiment = embedded_experiment(ScanDesign(scan_step=8, M=M))
    middle = len(experiment.positions_px) // 2
    one = replace(experiment, positions_px=experiment.positions_px[middle : middle + 1])
    far, seen = expected_patterns(replace(one, N=4 * N)), expected_patterns(one)
    scale = DOSE / seen.sum()
    probe = torch.from_numpy(one.coarse_probe) * scale**0.5
    places, shape = torch.from_numpy(one.positions_px), one.canvas_shape
    geometry = Geometry.of(places, probe, shape, whole=True, detector=Detector(N))
    modelled = geometry.expected(torch.from_numpy(one.truth)[None], torch.arange(1))
    return far[0] * scale, seen[0] * scale, modelled[0].numpy()


def draw(path: Path) -> None:
    """The four panels, as a PNG."""
    probe = embedded_experiment(ScanDesign(scan_step=16)).probe
    pupil = propagate(torch.from_numpy(probe[0])).abs().numpy()
    (far, seen, folded), finer = patterns(N), patterns(3 * N // 2)[2]
    figure = Figure(figsize=(13, 3.6), layout="constrained")
    axes = figure.subplots(1, 4)
    axes[0].imshow(pupil, cmap="gray")
    axes[0].set_title("pupil of the beam")
    axes[1].imshow(np.log10(far + 0.01), cmap="magma")
    axes[1].set_title("one pattern, log$_{10}$ photons")
    for ax in axes[:2]:
        box = {"fill": False, "edgecolor": "tab:cyan", "linewidth": 1.5}
        ax.add_patch(Rectangle((1.5 * N, 1.5 * N), N, N, **box))
        ax.set(xlim=(N, 3 * N), ylim=(3 * N, N), xlabel="frame: the detector")
    for ax, model, name in ((axes[2], folded, "M = N"), (axes[3], finer, "M = 1.5 N")):
        error = (model - seen) / np.sqrt(seen + 1)
        drawn = ax.imshow(error, cmap="RdBu_r", vmin=-5, vmax=5)
        ax.set_title(f"{name}: error of the truth")
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    figure.colorbar(drawn, ax=axes[2:], label="standard deviations at $10^5$ photons")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(Path(__file__).with_name("forward_model.png"))
