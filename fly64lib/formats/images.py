"""The object of a scan as an image: TIFF with phase and amplitude as numbers, PNG to look at; and
the picture of an import."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fly64lib.formats.base import Format, Optics
from fly64lib.formats.orientation import OrientationChoice
from ptycho_torch.data.checks import pattern_chunks
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import MissingDependencyError
from ptycho_torch.files import atomic_path


def write_tiff(path: Path, scan: ScanData, optics: Optics) -> list[Path]:
    """Phase (rad) and amplitude of objectGuess as float32 channels, with the pixel for ImageJ."""
    try:
        import tifffile
    except ImportError as error:
        raise MissingDependencyError("TIFF needs tifffile: pip install 'fly64[formats]'") from error
    image, nm = scan.object_guess, optics.pixel_size_nm
    channels = np.stack([np.angle(image), np.abs(image)]).astype(np.float32)
    about = {"axes": "CYX", "Labels": ["phase / rad", "amplitude"], "unit": "um" if nm else "pixel"}
    scale = {"resolution": (1e3 / nm, 1e3 / nm)} if nm else {}
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, channels, imagej=True, metadata=about, **scale)
    return [path]


def write_png(path: Path, scan: ScanData, optics: Optics) -> list[Path]:
    """Phase and amplitude of objectGuess, with a scale bar."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), layout="constrained")
    axes = figure.subplots(1, 2)
    show_object(axes, scan.object_guess, 0.5)
    for panel in axes:
        _scale_bar(panel, scan.canvas_shape, optics.pixel_size_nm)
        panel.set_axis_off()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)
    return [path]


def show_object(axes: Sequence[object], image: np.ndarray, cut: float) -> None:
    """Phase and amplitude on two axes, each without its lowest and highest `cut` percent."""
    parts = (np.angle(image), "phase / rad"), (np.abs(image), "amplitude")
    for panel, (values, label) in zip(axes, parts, strict=True):
        low, high = np.percentile(values, [cut, 100 - cut])
        drawn = panel.imshow(values, cmap="gray", vmin=low, vmax=max(high, low + 1e-3))
        panel.figure.colorbar(drawn, ax=panel, label=label)


def draw_import(path: str | Path, scan: ScanData, choice: OrientationChoice) -> None:
    """What an import made of a file, at a glance: also what the orientation check saw."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

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
    image = scan.object_guess if choice.canvas is None else choice.canvas
    show_object((phase, amplitude), image, 5)
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


def _scale_bar(axes: object, shape: tuple[int, int], pixel_nm: float | None) -> None:
    """A bar of 1, 2 or 5 times a power of ten, about a fifth of the width, below the image."""
    size, unit = (pixel_nm, "nm") if pixel_nm else (1.0, "px")
    fifth, below = shape[1] * size / 5, shape[0] * 1.04
    decade = 10 ** np.floor(np.log10(fifth))
    length = decade * max(step for step in (1, 2, 5) if step * decade <= fifth)
    label = f"{length / 1e3:g} um" if unit == "nm" and length >= 1e3 else f"{length:g} {unit}"
    bar = {"lw": 4, "solid_capstyle": "butt", "clip_on": False}
    axes.plot([0, length / size], [below] * 2, "k-", **bar)
    axes.text(length / size + shape[1] * 0.02, below, label, va="center")


TIFF = Format(write=write_tiff, endings=(".tif", ".tiff"))
PNG = Format(write=write_png, endings=(".png",))
