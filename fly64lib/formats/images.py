"""The object of a scan as an image: TIFF with phase and amplitude as numbers, PNG to look at."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fly64lib.formats.base import Format, Optics
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import MissingDependencyError
from ptycho_torch.files import atomic_path


def write_tiff(path: Path, scan: ScanData, optics: Optics) -> list[Path]:
    """Phase (rad) and amplitude of objectGuess as two float32 channels; ImageJ reads the pixel size
    from it."""
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
