"""PtyPy's `.ptyd` (HDF5), read by its published description.

    chunks/K/data (m, N, N)        counts
    chunks/K/positions (m, 2)      m, (y, x)
    chunks/K/weights, meta/weight2d    0 where a pixel is bad, where there
    meta/energy, distance, psize   keV, m, m

The file holds neither probe nor object. Chunks are taken in the order of their number; frames
without a position cannot be used."""

from pathlib import Path

import numpy as np

from fly64lib.formats.base import Access, Format
from fly64lib.formats.hdf5 import Hdf5File
from fly64lib.formats.raw import RawScan, Size, Stack
from fly64lib.formats.tables import UNUSED
from ptycho_torch.data.container import refused


def read(path: Path, access: Access) -> RawScan:
    """Read a `.ptyd` whose chunks lie in it."""
    file = access.hdf5(path)
    numbers = sorted((name for name in file.keys("chunks") if name.isdigit()), key=int)
    if not numbers:
        text = "no chunk; expected chunks/0/data and so on; prepare the file again"
        raise refused(path, "chunks", text)
    stacks, places = [], []
    for name in (f"chunks/{number}" for number in numbers):
        data, at = file.dataset(f"{name}/data"), file.read(f"{name}/positions", "iuf")
        if len(data.shape) != 3 or at.ndim != 2 or at.shape[1] != 2 or 0 in data.shape:
            found = f"patterns {data.shape} and positions {at.shape}; expected (m, N, N) and (m, 2)"
            raise refused(path, name, f"{found}; prepare the file again with positions")
        if len(at) != data.shape[0] and len(numbers) > 1:
            found = f"{data.shape[0]} patterns and {len(at)} positions; expected as many of both"
            found += " in each of several chunks"
            raise refused(path, name, f"{found}; prepare the file again with positions")
        stacks.append(Stack(data, len(at), path, data.name))
        places.append(at.astype(np.float64))
        if (found := stacks[-1].detector_px) != (px := stacks[0].detector_px):
            text = f"patterns of {found} px; expected {px} px as in the first chunk"
            raise refused(path, data.name, f"{text}; prepare the file again")
    scan = RawScan(path, stacks, np.concatenate(places), "m", "intensity", "centre")
    scan.bad, scan.sizes = _bad_pixels(file, numbers, px), _sizes(file)
    _check_tied(file, scan, numbers)
    label = file.text("meta/label")
    scan.metadata = {} if label in (None, "None", "") else {"label": label}
    return scan


def _bad_pixels(file: Hdf5File, numbers: list[str], px: tuple[int, int]) -> np.ndarray:
    """Pixels of weight 0 in any pattern."""
    bad = np.zeros(px, bool)
    named = [f"chunks/{number}/weights" for number in numbers] + ["meta/weight2d"]
    for weight in (file.dataset(name, "iufb") for name in named if file.find(name)):
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


def _sizes(file: Hdf5File) -> dict[str, Size]:
    """Energy, distance and detector pixel, those that the file says."""
    sizes = {}
    if energy := file.number("meta/energy"):
        sizes["energy"] = Size("meta/energy", energy, "keV", energy)
    if distance := file.number("meta/distance"):
        sizes["distance"] = Size("meta/distance", distance, "m", distance)
    if file.find("meta/psize"):
        pixel = file.read("meta/psize", "iuf").reshape(-1).astype(np.float64)
        if pixel.size and not (pixel == pixel[0]).all():
            text = f"pixels of {pixel[0]:g} and {pixel[-1]:g} m; expected square pixels; resample"
            raise refused(file.path, "meta/psize", f"{text} the patterns to them first")
        if pixel.size and np.isfinite(pixel[0]) and pixel[0] > 0:
            sizes["pixel"] = Size("meta/psize", float(pixel[0]), "m", float(pixel[0]))
    return sizes


def _check_tied(file: Hdf5File, scan: RawScan, numbers: list[str]) -> None:
    """Frames' numbers, their shape, their count, and the kind of propagation."""
    found = [f"chunks/{number}/indices" for number in numbers]
    found = [name for name in found if file.find(name)]
    if len(found) == len(numbers):
        lists = [file.read(name, "iu").reshape(-1) for name in found]
        for name, values, stack in zip(found, lists, scan.stacks, strict=True):
            if len(values) != stack.n:
                text = (
                    f"{len(values)} indices; expected one for each of {stack.n} patterns; prepare"
                )
                raise refused(file.path, name, f"{text} the file again")
        index = np.concatenate(lists).astype(np.int64)
        values, times = np.unique(index, return_counts=True)
        if (times > 1).any():
            text = f"pattern {values[times > 1][0]} is there twice; expected each once; prepare the"
            raise refused(file.path, found[0], f"{text} file again")
        scan.extra["scan_index"] = index
    if file.find("meta/shape"):
        shape = tuple(file.read("meta/shape", "iuf").reshape(-1).astype(int).tolist())
        if len(shape) in (1, 2) and shape not in (scan.detector_px, scan.detector_px[:1]):
            text = f"{shape}; expected {scan.detector_px}, the patterns' shape; prepare the file"
            raise refused(file.path, "meta/shape", f"{text} again")
    total = file.number("meta/num_frames")
    if total and total != scan.held:
        text = f"{total:.0f} frames were taken by meta/num_frames; the file has {scan.held}"
        scan.notes.append(text)
    if (way := file.text("meta/propagation")) not in (None, "None", "", "farfield"):
        text = f"{way!r}; expected 'farfield': patterns on a distant detector; near-field data"
        raise refused(file.path, "meta/propagation", f"{text} cannot be used; use PtyPy for them")


TABLE = {
    "chunks/*/data": "patterns",
    "chunks/*/positions": "positions",
    "chunks/*/weights": "bad pixels",
    "chunks/*/indices": "scan_index; each once",
    "meta/weight2d": "bad pixels",
    "meta/energy": "optics, keV",
    "meta/distance": "optics",
    "meta/psize": "optics; square",
    "meta/shape": "checked against the patterns",
    "meta/num_frames": "told, where it differs",
    "meta/propagation": "far field only",
    "meta/label": "metadata",
    "meta/*": f"{UNUSED}: how PtyPy prepared the file",
    "info/*": f"{UNUSED}: how PtyPy prepared the file",
    "chunks/*": f"{UNUSED}: how PtyPy prepared the file",
    "data_info*": f"{UNUSED}",
}
FORMAT = Format(kind="HDF5", keys=("chunks/0/data",), read=read, table=TABLE)
