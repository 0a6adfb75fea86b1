"""What an import made of a file, at a glance."""

from pathlib import Path

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from fly64lib.formats.orientation import OrientationChoice
from ptycho_torch.data.checks import pattern_chunks
from ptycho_torch.data.contract import ScanData
from ptycho_torch.files import atomic_path


def draw_import(path: str | Path, scan: ScanData, choice: OrientationChoice) -> None:
    """Draw mean pattern, probe, positions, the object that the orientation check saw, and its
    deviances, as PNG."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    (pattern, probe, places), (phase, amplitude, bars) = figure.subplots(2, 3)
    mean = (
        sum(
            np.square(block, dtype=np.float64).sum(0)
            for _, block in pattern_chunks(scan.diffraction)
        )
        / scan.n
    )
    positive = mean[mean > 0]
    shown = pattern.imshow(
        mean, norm=LogNorm(max(positive.min(), positive.max() * 1e-6), positive.max(), clip=True)
    )
    figure.colorbar(shown, ax=pattern, label="photons")
    pattern.plot(scan.N // 2, scan.N // 2, "r+")
    pattern.set(title="mean pattern; + zero frequency", xlabel="column / px", ylabel="row / px")
    shown = probe.imshow((np.abs(scan.probe) ** 2).sum(0))
    figure.colorbar(shown, ax=probe, label="photons")
    probe.set(
        title=f"probe, {scan.modes} mode{'s' if scan.modes > 1 else ''}:"
        f" {scan.metadata['probe_kind']}",
        xlabel="px",
    )
    places.plot(scan.xcoords, scan.ycoords, "-", lw=0.4, c="0.8")
    places.scatter(scan.xcoords, scan.ycoords, s=3, c=np.arange(scan.n), cmap="viridis")
    places.set(
        title=f"{scan.n} positions, {choice.chosen}",
        xlim=(0, scan.canvas_shape[1]),
        ylim=(scan.canvas_shape[0], 0),
        aspect="equal",
        xlabel="x / px",
        ylabel="y / px",
    )
    seen = "object" if scan.metadata["object_kind"] != "initial" else "middle, a few steps"
    canvas = scan.object_guess if choice.canvas is None else choice.canvas
    for axes, image, label in (
        (phase, np.angle(canvas), "phase / rad"),
        (amplitude, np.abs(canvas), "amplitude"),
    ):
        low, high = np.percentile(image, [5, 95])
        figure.colorbar(
            axes.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-3)),
            ax=axes,
            label=label,
        )
        axes.set(title=f"{label.split(' /')[0]}: {seen}", xlabel="px")
    if choice.deviance:
        names = sorted(choice.deviance, key=choice.deviance.get, reverse=True)
        bars.barh(
            names,
            [choice.deviance[name] for name in names],
            color=["tab:green" if name == choice.chosen else "0.7" for name in names],
        )
        bars.set(xlim=(0.9 * min(choice.deviance.values()), None))
    bars.set(title="orientation of the positions", xlabel="deviance per pixel, lowest is best")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=90)
