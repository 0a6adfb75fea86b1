"""The HDF5 pair of pty-chi and ptychodus, and PtychoShelves' variant of it.

    X_dp.hdf5    dp (n, N, N) counts
    X_para.hdf5  probe (.., modes, N, N), probe_position_x_m, probe_position_y_m (n,), object (1, H,
    W) with the
                 attributes pixel_height_m, pixel_width_m, center_x_m, center_y_m          (pty-chi)
                 ppX, ppY (n,) in m, lambda m, dx m
                 (PtychoShelves)

pty-chi's Fourier transform is not normalised: its probe is ours divided by N. Its positions count
from the object's centre: patch centre = (position - centre) / pixel + round(H / 2)."""

from contextlib import ExitStack
from pathlib import Path

import numpy as np

from fly64lib.formats.fly64_group import read_own, store_counts, write_own
from fly64lib.formats.hdf5 import Hdf5File, h5py_module, open_hdf5
from fly64lib.formats.raw import (
    RawScan,
    array_blocks,
    as_modes,
    as_object,
    column,
    stack_reader,
    stack_shape,
)
from ptycho_torch.data.contract import ScanData
from ptycho_torch.data.npz import broken
from ptycho_torch.files import atomic_path


def recognised(file: Hdf5File) -> bool:
    return file.find("dp") is not None


def parameter_file(path: Path, given: Path | None) -> Path:
    """The file beside the patterns' one, by the usual names, unless it is given."""
    names = [
        path.with_name(path.name.replace(old, new))
        for old, new in (("_dp.", "_para."), ("dp", "para"), ("dp", "metadata"))
        if old in path.name
    ]
    found = given or next((name for name in names if name.is_file()), None)
    if found is None:
        raise broken(
            path,
            None,
            "patterns only, and no parameter file beside it"
            + (f" ({names[0].name})" if names else ""),
            "the pair of files, patterns and parameters",
            "name the other one: --parameters FILE",
        )
    return found


def read(file: Hdf5File, path: Path, given: Path | None, keep: ExitStack) -> RawScan:
    """Read a pair; `keep` closes the second file."""
    beside = parameter_file(path, given)
    parameters = keep.enter_context(open_hdf5(beside))
    shelves = parameters.find("ppX") is not None
    names = ("ppY", "ppX") if shelves else ("probe_position_y_m", "probe_position_x_m")
    y, x = (column(parameters.read(name, "iuf"), beside, name) for name in names)
    if len(x) != len(y):
        raise broken(
            beside,
            names[0],
            f"{len(y)} values",
            f"{len(x)} as in {names[1]!r}",
            "store both for every pattern",
        )
    dataset = file.dataset("dp", "iuf")
    leading, axis, detector = stack_shape(dataset.shape, len(x), path, "dp")
    read_patterns, n = stack_reader(dataset, leading, axis), len(x)
    scan = RawScan(
        path,
        "ptychi",
        n,
        detector,
        lambda: array_blocks(read_patterns, n, detector[0] * detector[1]),
        np.stack([y, x], 1),
        "m",
        values="intensity",
        zero_frequency="centre",
    )
    pixel_m = (
        parameters.number("dx") if shelves else parameters.attribute("object", "pixel_height_m")
    )
    if pixel_m is not None and 0 < pixel_m < 1:
        scan.detector_step_per_m = 1 / (detector[0] * pixel_m)
    if parameters.find("probe"):
        probe = as_modes(parameters.read("probe"), beside, "probe")
        scan.probe = probe * probe.shape[-1]
    if parameters.find("object") and not shelves:
        scan.object_guess = as_object(parameters.read("object"), beside, "object")
        if scan.detector_step_per_m:
            centre = [
                (parameters.attribute("object", f"center_{axis}_m") or 0.0) / pixel_m
                for axis in "yx"
            ]
            scan.offset_px = tuple(
                float(np.rint(edge / 2) - at)
                for edge, at in zip(scan.object_guess.shape, centre, strict=True)
            )
    return read_own(parameters, "fly64", scan)


def write(path: Path, scan: ScanData, object_pixel_m: float) -> list[Path]:
    """Write the pair PREFIX_dp.hdf5, PREFIX_para.hdf5 for a `path` that is the prefix or either
    name."""
    h5py, prefix = h5py_module(), path.name
    for ending in ("_dp.hdf5", "_para.hdf5", ".hdf5", ".h5"):
        prefix = prefix.removesuffix(ending)
    patterns, parameters = (path.with_name(f"{prefix}_{part}.hdf5") for part in ("dp", "para"))
    centre = [np.rint(edge / 2) for edge in scan.canvas_shape]
    with atomic_path(patterns) as first, atomic_path(parameters) as second:
        with h5py.File(first, "w") as file:
            store_counts(file, "dp", scan)
        with h5py.File(second, "w") as file:
            file["probe"] = (scan.probe / scan.N)[None]
            file["object"] = scan.object_guess[None]
            for name, value in (
                ("pixel_height_m", object_pixel_m),
                ("pixel_width_m", object_pixel_m),
                ("center_x_m", 0.0),
                ("center_y_m", 0.0),
            ):
                file["object"].attrs[name] = value
            file["probe_position_y_m"] = (scan.ycoords - centre[0]) * object_pixel_m
            file["probe_position_x_m"] = (scan.xcoords - centre[1]) * object_pixel_m
            file["probe_position_indexes"] = (
                np.arange(scan.n) if scan.scan_index is None else scan.scan_index
            )
            write_own(file.create_group("fly64"), scan)
    return [patterns, parameters]
