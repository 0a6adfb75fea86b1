"""The HDF5 pair of pty-chi and ptychodus, and PtychoShelves' variant of it.

    X_dp.hdf5    dp (n, N, N) counts
    X_para.hdf5  probe (.., modes, N, N)

                 of pty-chi: probe_position_x_m, probe_position_y_m (n,); object (1, H, W) with the
                 attributes pixel_height_m, pixel_width_m, center_x_m, center_y_m

                 of PtychoShelves: ppX, ppY (n,) in m, lambda m, dx m

pty-chi's Fourier transform is not normalised: its probe is ours divided by N. Its positions count
from the object's centre: patch centre = (position - centre) / pixel + round(H / 2).
"""

from pathlib import Path

import numpy as np

from fly64lib.formats.base import Access, Format, Optics
from fly64lib.formats.fly64_group import read_own, store_counts, write_own
from fly64lib.formats.hdf5 import Hdf5File, h5py_module, open_hdf5
from fly64lib.formats.raw import RawScan, Stack, as_modes, as_object, columns, optional
from ptycho_torch.data.container import refused
from ptycho_torch.data.scan import ScanData
from ptycho_torch.files import atomic_path

SHELVES, PTYCHI = ("ppY", "ppX"), ("probe_position_y_m", "probe_position_x_m")
ENDINGS = ("_dp.hdf5", "_para.hdf5", ".hdf5", ".h5")


def parameter_file(path: Path, given: Path | None) -> Path:
    """The file beside the patterns' one, by the usual names, unless it is given."""
    pairs = (("_dp.", "_para."), ("dp", "para"), ("dp", "metadata"))
    usual = [path.with_name(path.name.replace(*pair)) for pair in pairs if pair[0] in path.name]
    found = given or next((other for other in usual if other.is_file()), None)
    if found is None:
        named = f" ({usual[0].name})" if usual else ""
        raise refused(
            path,
            None,
            f"patterns only, and no parameter file beside it{named}; expected the pair of files,"
            " patterns and parameters; name the other one: --parameters FILE",
        )
    return found


def read(path: Path, access: Access) -> RawScan:
    """Read a pair."""
    file = access.files.enter_context(open_hdf5(path))
    beside = parameter_file(path, access.parameters)
    parameters = access.files.enter_context(open_hdf5(beside))
    shelves = parameters.find("ppX") is not None
    positions = columns(parameters, *(SHELVES if shelves else PTYCHI))
    stack = Stack(file.dataset("dp"), len(positions), path, "dp")
    known = {"values": "intensity", "zero_frequency": "centre"}
    scan = RawScan(path, [stack], positions, "m", **known)
    scan.probe = optional(parameters, as_modes, "probe")
    if scan.probe is not None:
        scan.probe = scan.probe * scan.probe.shape[-1]
    scale = parameters.number("dx") if shelves else parameters.attribute("object", "pixel_height_m")
    pixel_m = scale if scale is not None and 0 < scale < 1 else None
    if pixel_m:
        scan.detector_step_per_m = 1 / (scan.detector_px[0] * pixel_m)
    if not shelves:
        scan.object_guess = optional(parameters, as_object, "object")
        scan.offset_px = _offset_px(parameters, scan.object_guess, pixel_m)
    read_own(parameters, "fly64", scan)
    return scan


def _offset_px(
    parameters: Hdf5File, image: np.ndarray | None, pixel_m: float | None
) -> tuple[float, float] | None:
    """From positions that count from the object's centre to ones from its corner."""
    if image is None or pixel_m is None:
        return None
    centre_m = [parameters.attribute("object", f"center_{axis}_m") or 0.0 for axis in "yx"]
    return tuple(
        float(np.rint(edge / 2) - at / pixel_m)
        for edge, at in zip(image.shape, centre_m, strict=True)
    )


def write(path: Path, scan: ScanData, optics: Optics) -> list[Path]:
    """Write the pair PREFIX_dp.hdf5, PREFIX_para.hdf5 for a `path` that is the prefix or either
    name."""
    h5py, prefix, pixel_m = h5py_module(), path.name, optics.object_pixel_m(path)
    for ending in ENDINGS:
        prefix = prefix.removesuffix(ending)
    patterns, parameters = (path.with_name(f"{prefix}_{part}.hdf5") for part in ("dp", "para"))
    centre = np.rint(np.array(scan.canvas_shape) / 2)
    index = np.arange(scan.n) if scan.scan_index is None else scan.scan_index
    with atomic_path(patterns) as first, atomic_path(parameters) as second:
        with h5py.File(first, "w") as file:
            store_counts(file, "dp", scan)
        with h5py.File(second, "w") as file:
            file["probe"] = (scan.probe / scan.N)[None]
            file["object"] = scan.object_guess[None]
            for name in ("pixel_height_m", "pixel_width_m"):
                file["object"].attrs[name] = pixel_m
            file["object"].attrs["center_x_m"] = file["object"].attrs["center_y_m"] = 0.0
            for name, values in zip(PTYCHI, ((scan.positions - centre) * pixel_m).T, strict=True):
                file[name] = values
            file["probe_position_indexes"] = index
            write_own(file.create_group("fly64"), scan)
    return [patterns, parameters]


FORMAT = Format(kind="HDF5", keys=("dp",), read=read, write=write)
