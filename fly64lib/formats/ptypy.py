"""PtyPy's `.ptyd` (HDF5), read by its published description.

    chunks/K/data (m, N, N)        counts
    chunks/K/positions (m, 2)      m, (y, x)
    chunks/K/weights, meta/weight2d    0 where a pixel is bad, where there
    meta/energy, distance, psize   keV, m, m

The file holds neither probe nor object. Chunks are taken in the order of their number; frames
without a position cannot be used."""

from pathlib import Path

import numpy as np
from scipy.constants import c, e, h

from fly64lib.formats.base import Access, Format
from fly64lib.formats.hdf5 import Hdf5File, open_hdf5
from fly64lib.formats.raw import RawScan, Stack
from ptycho_torch.data.container import refused


def read(path: Path, access: Access) -> RawScan:
    """Read a `.ptyd` whose chunks lie in it."""
    file = access.files.enter_context(open_hdf5(path))
    numbers = sorted((name for name in file.keys("chunks") if name.isdigit()), key=int)
    if not numbers:
        text = "no chunk; expected chunks/0/data and so on; prepare the file again"
        raise refused(path, "chunks", text)
    stacks, places = [], []
    for name in (f"chunks/{number}" for number in numbers):
        data, at = file.dataset(f"{name}/data"), file.read(f"{name}/positions", "iuf")
        if len(data.shape) != 3 or at.shape != (data.shape[0], 2) or 0 in data.shape:
            found = f"patterns {data.shape} and positions {at.shape}; expected (m, N, N) and (m, 2)"
            raise refused(path, name, f"{found}; prepare the file again with positions")
        stacks.append(Stack(data, len(at), path, data.name))
        places.append(at.astype(np.float64))
        if (found := stacks[-1].detector_px) != (px := stacks[0].detector_px):
            text = f"patterns of {found} px; expected {px} px as in the first chunk"
            raise refused(path, data.name, f"{text}; prepare the file again")
    scan = RawScan(path, stacks, np.concatenate(places), "m", "intensity", "centre")
    scan.bad, scan.detector_step_per_m = _bad_pixels(file, numbers, px), _step(file)
    label = file.text("meta/label")
    scan.metadata = {} if label in (None, "None", "") else {"label": label}
    return scan


def _bad_pixels(file: Hdf5File, numbers: list[str], px: tuple[int, int]) -> np.ndarray:
    """Pixels of weight 0 in any pattern."""
    bad = np.zeros(px, bool)
    named = [f"chunks/{number}/weights" for number in numbers] + ["meta/weight2d"]
    for weight in (file.dataset(name) for name in named if file.find(name)):
        if 0 in weight.shape and weight.name != named[-1]:
            continue  # PtyPy's way to say that all are 1
        if weight.shape[-2:] != px:
            text = f"shape {weight.shape}; expected weights of {px} px; prepare it again"
            raise refused(file.path, weight.name, text)
        if len(weight.shape) == 3:
            for block in Stack(weight, weight.shape[0], file.path, weight.name).blocks():
                bad |= (block == 0).any(0)
        else:
            bad |= (weight[()].reshape(-1, *px) == 0).any(0)
    return bad


def _step(file: Hdf5File) -> float | None:
    """Detector step in 1/m, if the file says all of energy, distance and one size of pixels."""
    energy_kev, distance_m = file.number("meta/energy"), file.number("meta/distance")
    pixel = file.read("meta/psize", "iuf").reshape(-1) if file.find("meta/psize") else np.zeros(1)
    square = pixel.size > 0 and 0 < pixel[0] < 1 and (pixel == pixel[0]).all()
    if energy_kev is None or distance_m is None or not square:
        return None
    return float(pixel[0]) * energy_kev * 1e3 * e / (h * c * distance_m)


FORMAT = Format(kind="HDF5", keys=("chunks/0/data",), read=read)
