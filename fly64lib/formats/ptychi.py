"""The HDF5 pair of pty-chi and ptychodus, and PtychoShelves' variant of it.

    X_dp.hdf5    dp (n, N, N) counts
    X_para.hdf5  probe (.., modes, N, N)

                 of pty-chi: probe_position_x_m, probe_position_y_m (n,); object (1, H, W) with the
                 attributes pixel_height_m, pixel_width_m, center_x_m, center_y_m

                 of PtychoShelves: ppX, ppY (n,) in m, lambda m, dx m

pty-chi's Fourier transform is not normalised: its probe is ours divided by N. Its positions count
from the object's centre: patch centre = (position - centre) / pixel + round(H / 2)."""

from pathlib import Path

import numpy as np

from fly64lib.formats.base import Access, Format, Optics
from fly64lib.formats.hdf5 import Hdf5File, h5py_module
from fly64lib.formats.own_group import read_own, store_counts, write_own
from fly64lib.formats.raw import RawScan, Stack, as_modes, as_object, columns, optional
from fly64lib.formats.tables import UNUSED, same, unused
from ptycho_torch.data.container import refused
from ptycho_torch.data.scan import ScanData
from ptycho_torch.files import atomic_path

SHELVES, PTYCHI = ("ppY", "ppX"), ("probe_position_y_m", "probe_position_x_m")
NUMBERS = "probe_position_indexes"
TABLE = {  # of both files
    "dp": "patterns",
    NUMBERS: "the pattern that each position belongs to, counted from 0",
    **dict.fromkeys((*SHELVES, *PTYCHI), "positions; the same if both kinds are there"),
    "probe": "probe; its pixel is checked",
    "object": "object and its pixel",
    "dx": "pixel of the object; checked against the others",
    "lambda": f"{UNUSED}: the pixel says enough",
    "fly64/*": "fly64's own",
    "opr_mode_weights": f"{UNUSED}: the probe is the same for all",
    "opr_weights": f"{UNUSED}: the probe is the same for all",
    "loss*": f"{UNUSED}",
    "detector_distance": f"{UNUSED}: the pixel says enough",
    "z_*": f"{UNUSED}: the pixel says enough",
    "object_layer_*": f"{UNUSED}: one slice",
    "slice_spacings*": f"{UNUSED}: one slice",
    "comments": f"{UNUSED}",
    "name": f"{UNUSED}",
    "N_scans": f"{UNUSED}",
}
ENDINGS = ("_dp.hdf5", "_para.hdf5", ".hdf5", ".h5")


def _parameter_file(path: Path, given: Path | None) -> Path:
    """The file beside the patterns' one, by the usual names, unless it is given."""
    pairs = (("_dp.", "_para."), ("dp", "para"), ("dp", "metadata"))
    usual = [path.with_name(path.name.replace(*pair)) for pair in pairs if pair[0] in path.name]
    found = given or next((other for other in usual if other.is_file()), None)
    if found is None:
        named = f" ({usual[0].name})" if usual else ""
        text = f"patterns only, and no parameter file beside it{named}; expected the pair of files,"
        text += " patterns and parameters; name the other one: --parameters FILE"
        raise refused(path, None, text)
    return found


def read(path: Path, access: Access) -> RawScan:
    """Read a pair."""
    file = access.hdf5(path)
    parameters = access.hdf5(_parameter_file(path, access.parameters))
    shelves = parameters.find("ppX") is not None
    positions = columns(parameters, *(SHELVES if shelves else PTYCHI))
    stack = Stack(file.dataset("dp"), len(positions), path, "dp")
    scan = RawScan(path, [stack], positions, "m", "intensity", "centre")
    if shelves and parameters.find(PTYCHI[0]):
        same(scan, PTYCHI[0], SHELVES[0], columns(parameters, *PTYCHI), positions)
    scan.probe = optional(parameters, as_modes, "probe")
    if scan.probe is not None:
        scan.probe = scan.probe * scan.probe.shape[-1]
    scale = parameters.number("dx") if shelves else parameters.attribute("object", "pixel_height_m")
    pixel_m = scale if scale is not None and 0 < scale < 1 else None
    if pixel_m:
        scan.detector_step_per_m = 1 / (scan.detector_px[0] * pixel_m)
    if not shelves:
        scan.object_guess = image = optional(parameters, as_object, "object")
        if image is not None and pixel_m:
            centre_m = (parameters.attribute("object", f"center_{axis}_m") or 0.0 for axis in "yx")
            places = zip(image.shape, centre_m, strict=True)
            scan.offset_px = tuple(float(np.rint(edge / 2) - at / pixel_m) for edge, at in places)
    _check_pixels(parameters, scan)
    scan.metadata, scan.extra, scan.ours = read_own(parameters, "fly64")
    if parameters.find(NUMBERS):
        scan.numbers = columns(parameters, NUMBERS)[:, 0]
    # fly64 once wrote the index in the whole scan there
    if scan.ours and np.array_equal(scan.numbers, scan.extra.get("scan_index")):
        scan.numbers = None
    scan.notes += unused(TABLE, parameters.names())
    return scan


def _check_pixels(parameters: Hdf5File, scan: RawScan) -> None:
    """Wherever the object's pixel is stated, it is the same."""
    places = [
        (key, f"pixel_{axis}_m") for key in ("object", "probe") for axis in ("height", "width")
    ]
    stated = {f"{key}, {name}": parameters.attribute(key, name) for key, name in places}
    stated |= {"dx": parameters.number("dx")}
    stated = {name: value for name, value in stated.items() if value is not None and value > 0}
    for name, value in stated.items():
        first = next(iter(stated))
        same(scan, name, first, value, stated[first])


def write(path: Path, scan: ScanData, optics: Optics) -> list[Path]:
    """Write PREFIX_dp.hdf5 and PREFIX_para.hdf5; `path` is the prefix or either name."""
    h5py, prefix, pixel_m = h5py_module(), path.name, optics.object_pixel_m(path)
    for ending in ENDINGS:
        prefix = prefix.removesuffix(ending)
    patterns, parameters = (path.with_name(f"{prefix}_{part}.hdf5") for part in ("dp", "para"))
    centre = np.rint(np.array(scan.canvas_shape) / 2)
    with atomic_path(patterns) as first, atomic_path(parameters) as second:
        with h5py.File(first, "w") as file:
            store_counts(file, "dp", scan)
        with h5py.File(second, "w") as file:
            file["probe"] = (scan.probe / scan.N)[None]
            file["object"] = scan.object_guess[None]
            sizes = {"pixel_height_m": pixel_m, "pixel_width_m": pixel_m}
            file["object"].attrs.update(sizes, center_x_m=0.0, center_y_m=0.0)
            for name, values in zip(PTYCHI, ((scan.positions - centre) * pixel_m).T, strict=True):
                file[name] = values
            file[NUMBERS] = np.arange(scan.n)
            write_own(file.create_group("fly64"), scan)
    return [patterns, parameters]


FORMAT = Format(kind="HDF5", keys=("dp",), read=read, write=write, table=TABLE)
