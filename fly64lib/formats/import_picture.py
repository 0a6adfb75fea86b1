"""What an import made of a file, at a glance."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fly64lib.formats.images import show_object
from fly64lib.formats.orientation import OrientationChoice
from ptycho_torch.data.checks import pattern_chunks
from ptycho_torch.data.contract import ScanData
from ptycho_torch.files import atomic_path


def draw_import(path: str | Path, scan: ScanData, choice: OrientationChoice) -> None:
    """Draw mean pattern, probe, positions, the object that the orientation check saw, and its
    deviances, as PNG."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    (pattern, probe, places), (phase, amplitude, bars) = figure.subplots(2, 3)
    blocks = (block for _, block in pattern_chunks(scan.diffraction))
    mean = sum(np.square(block, dtype=np.float64).sum(0) for block in blocks) / scan.n
    low, high = mean[mean > 0].min(), mean.max()
    shown = pattern.imshow(mean, norm=LogNorm(max(low, high * 1e-6), high, clip=True))
    figure.colorbar(shown, ax=pattern, label="photons")
    pattern.plot(scan.N // 2, scan.N // 2, "r+")
    pattern.set(title="mean pattern; + zero frequency", xlabel="column / px", ylabel="row / px")
    shown = probe.imshow((np.abs(scan.probe) ** 2).sum(0))
    figure.colorbar(shown, ax=probe, label="photons")
    kind, modes = scan.metadata["probe_kind"], f"{scan.modes} mode{'s' * (scan.modes > 1)}"
    probe.set(title=f"probe, {modes}: {kind}", xlabel="px")
    (height, width), (y, x) = scan.canvas_shape, scan.positions.T
    places.plot(x, y, "-", lw=0.4, c="0.8")
    places.scatter(x, y, s=3, c=np.arange(scan.n), cmap="viridis")
    places.set(title=f"{scan.n} positions, {choice.chosen}", xlabel="x / px", ylabel="y / px")
    places.set(xlim=(0, width), ylim=(height, 0), aspect="equal")
    seen = "object" if scan.metadata["object_kind"] != "initial" else "middle, a few steps"
    show_object(
        (phase, amplitude), scan.object_guess if choice.canvas is None else choice.canvas, 5
    )
    phase.set(title=f"phase: {seen}", xlabel="px")
    amplitude.set(title=f"amplitude: {seen}", xlabel="px")
    if choice.deviance:
        names = sorted(choice.deviance, key=choice.deviance.get, reverse=True)
        colours = ["tab:green" if name == choice.chosen else "0.7" for name in names]
        bars.barh(names, [choice.deviance[name] for name in names], color=colours)
        bars.set(xlim=(0.9 * min(choice.deviance.values()), None))
    bars.set(title="orientation of the positions", xlabel="deviance per pixel, lowest is best")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90)
