"""CXI, the Coherent X-ray Imaging Data Bank's HDF5 format (version 1.6), as cdtools, SHARP and
ptychodus write it, in the group entry_1:

    data_1/data, or instrument_1/detector_1/data     (n, rows, columns) counts
    sample_1/geometry_1/translation                  (n, 3) m, (x, y, z) of the sample
    instrument_1/detector_1/{distance, x_pixel_size, y_pixel_size, basis_vectors, mask}
    instrument_1/source_1/energy                     J
    instrument_1/source_1/illumination               probe, where there
    image_1/data                                     object, where there

The sample moves against the probe, and detector rows and columns run along the basis vectors b0, b1
(by default -y and -x): row = -translation . b0 / |b0|, column likewise. Programs differ in that
sign; the orientation check finds out."""

from pathlib import Path

import numpy as np
from scipy.constants import c, e, h

from fly64lib.formats import hdf5, own_group
from fly64lib.formats.base import Access, Format, Optics
from fly64lib.formats.raw import RawScan, Size, Stack, as_modes, as_object, need, optional
from fly64lib.formats.tables import UNUSED, same
from ptycho_torch.data.container import refused
from ptycho_torch.data.scan import ScanData
from ptycho_torch.files import atomic_path

DETECTOR, SOURCE = "entry_1/instrument_1/detector_1", "entry_1/instrument_1/source_1"
DATA = ("entry_1/data_1/data", f"{DETECTOR}/data")
_HOLDERS = ("entry_1/sample_1/geometry_1", "entry_1/data_1", DETECTOR)
TRANSLATION = tuple(f"{name}/translation" for name in _HOLDERS)
IMAGE, OWN = "entry_1/image_1/data", "entry_1/fly64"
SIGNAL = 0x1000  # the one mask bit that marks a good pixel: it has signal above the background


def read(path: Path, access: Access) -> RawScan:
    """Read the first entry of a CXI file."""
    file = access.hdf5(path)
    key = need(file, "patterns; fly64 reads entry_1 only", *DATA)
    where = need(file, "a sample translation for each pattern", *TRANSLATION)
    translation = file.read(where, "iuf")
    if translation.ndim != 2 or translation.shape[1] not in (2, 3) or not len(translation):
        text = f"shape {translation.shape}; expected (n, 3), x, y, z in m; store it so"
        raise refused(path, where, text)
    basis, sizes = _geometry(file)
    positions = -translation.astype(np.float64) @ basis[:, : translation.shape[1]].T
    stack = Stack(file.dataset(key), len(translation), path, key)
    scan = RawScan(path, [stack], positions, "m", "intensity", "centre")
    scan.sizes = sizes
    _check_twice(file, scan, key, where, translation)
    scan.probe = optional(file, as_modes, f"{SOURCE}/illumination")
    scan.bad = _bad_pixels(file, scan.detector_px)
    scan.metadata, scan.extra, scan.ours = own_group.read_own(file, OWN)
    # the object is used where the file also says how it lies under the positions
    offset = [file.attribute(OWN, f"offset_{axis}_px") for axis in "yx"]
    pixel_m = file.attribute(OWN, "object_pixel_m")
    if None not in offset and pixel_m and 0 < pixel_m < 1:
        if len(sizes) < 3:
            scan.detector_step_per_m = 1 / (scan.detector_px[0] * pixel_m)
        if file.find(IMAGE):
            scan.object_guess, scan.offset_px = as_object(file, IMAGE), tuple(offset)
    return scan


def write(path: Path, scan: ScanData, optics: Optics) -> list[Path]:
    """Write one entry; its optics only if energy and distance are given."""
    h5py, object_pixel_m = hdf5.h5py_module(), optics.object_pixel_m(path)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file["cxi_version"], file["number_of_entries"] = 160, 1
        detector, source = file.create_group(DETECTOR), file.create_group(SOURCE)
        own_group.store_counts(detector, "data", scan)
        detector["data"].attrs["axes"] = "translation:y:x"
        if optics.energy_kev and optics.distance_m:
            wavelength_m = h * c / (optics.energy_kev * 1e3 * e)
            pixel_m = wavelength_m * optics.distance_m / (scan.N * object_pixel_m)
            source["energy"], source["wavelength"] = h * c / wavelength_m, wavelength_m
            detector["distance"] = optics.distance_m
            detector["x_pixel_size"] = detector["y_pixel_size"] = pixel_m
            detector["basis_vectors"] = np.array([[0, -pixel_m], [-pixel_m, 0], [0, 0]])
        source["illumination"] = scan.probe
        file[IMAGE] = scan.object_guess
        places = np.stack([scan.xcoords, scan.ycoords, np.zeros(scan.n)], 1)
        file[TRANSLATION[0]] = places * object_pixel_m
        file[DATA[0]] = h5py.SoftLink(f"/{DATA[1]}")
        for name in TRANSLATION[1:]:
            file[name] = h5py.SoftLink(f"/{TRANSLATION[0]}")
        numbers = {"object_pixel_m": object_pixel_m, "offset_y_px": 0.0, "offset_x_px": 0.0}
        own_group.write_own(file.create_group(OWN), scan, **numbers)
    return [path]


def _bad_pixels(file: hdf5.Hdf5File, detector_px: tuple[int, int]) -> np.ndarray | None:
    """Pixels that the mask, or one of several, marks by any bit but that of a signal."""
    if (name := file.find(f"{DETECTOR}/mask")) is None:
        return None
    bits = file.read(name, "iub")
    if bits.shape[-2:] != detector_px or not bits.size:
        expected = f"{detector_px} as the patterns; store the patterns' own mask"
        raise refused(file.path, name, f"shape {bits.shape}; expected {expected}")
    bits = bits.reshape(-1, *detector_px)
    return ((bits != 0) & (bits != SIGNAL)).any(0)


def _geometry(file: hdf5.Hdf5File) -> tuple[np.ndarray, dict[str, Size]]:
    """Unit vectors (2, 3) of detector rows and columns; energy, distance and pixel where there."""
    basis, pixels = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]]), {}
    for name in ("y_pixel_size", "x_pixel_size"):
        if value := file.number(f"{DETECTOR}/{name}"):
            pixels[f"{DETECTOR}/{name}"] = value
    if named := file.find(f"{DETECTOR}/basis_vectors"):
        vectors = file.read(named, "iuf").astype(np.float64)
        vectors = vectors.T if vectors.shape == (3, 2) else vectors
        lengths = np.linalg.norm(vectors, axis=-1) if vectors.shape == (2, 3) else np.zeros(1)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            found = f"shape {vectors.shape}, lengths {lengths.tolist()[:3]}"
            expected = "two vectors along rows and columns; leave it out or correct it"
            raise refused(file.path, named, f"{found}; expected {expected}")
        if abs(lengths[0] - lengths[1]) > 1e-3 * lengths[0]:
            text = (
                f"pixels of {lengths[0]:g} and {lengths[1]:g} m; expected square pixels; resample"
            )
            raise refused(file.path, named, f"{text} the patterns to them first")
        basis = vectors / lengths[:, None]
        if abs(lengths[0] - 1) > 1e-6:  # unit vectors say no size
            pixels[named] = float(lengths[0])
    sizes = {}
    for key, value in pixels.items():
        first = sizes.setdefault("pixel", Size(key, value, "m", value))
        if abs(value - first.value) > 1e-3 * first.value:
            text = f"{value:g} m, and {first.value:g} m in {first.key!r}; expected one size of"
            text += " square pixels; correct or remove the wrong one, or resample the patterns"
            raise refused(file.path, key, text)
    if distance := file.number(f"{DETECTOR}/distance"):
        sizes["distance"] = Size(f"{DETECTOR}/distance", distance, "m", distance)
    if energy := file.number(f"{SOURCE}/energy"):
        sizes["energy"] = Size(f"{SOURCE}/energy", energy, "J", energy / e / 1e3)
    if wavelength := file.number(f"{SOURCE}/wavelength"):
        kev = h * c / (wavelength * e * 1e3)
        sizes.setdefault("energy", Size(f"{SOURCE}/wavelength", wavelength, "m", kev))
    return basis, sizes


def _check_twice(
    file: hdf5.Hdf5File, scan: RawScan, key: str, where: str, translation: np.ndarray
) -> None:
    """What the format keeps in two places is the same in both."""
    for name in TRANSLATION:
        if name != where and file.find(name):
            same(scan, name, where, file.read(name, "iuf"), translation)
    energy, wavelength = (file.number(f"{SOURCE}/{name}") for name in ("energy", "wavelength"))
    if energy and wavelength:
        kev = energy / e / 1e3
        if 1e-3 < kev < 1e4:  # another unit is told where sizes are judged
            same(scan, f"{SOURCE}/wavelength", f"{SOURCE}/energy", wavelength, h * c / energy)
    if key != DATA[1] and file.find(DATA[1]):
        one, other = (file.dataset(name, "iufb") for name in (key, DATA[1]))
        if one.shape != other.shape:
            text = f"{other.shape}, and {one.shape} in {key!r}; expected the same patterns in both"
            raise refused(file.path, DATA[1], f"{text}; correct or remove the wrong one")
        ends = (one[-1:], other[-1:]) if one.shape[0] else (one[:0], other[:0])
        same(scan, DATA[1], key, np.nan_to_num(ends[0]), np.nan_to_num(ends[1]))
    if (entries := file.number("number_of_entries")) and entries > 1:
        scan.notes.append(f"the first of {entries:.0f} entries is read")


TABLE = {
    **dict.fromkeys(DATA, "patterns"),
    **dict.fromkeys(TRANSLATION, "positions; the same wherever they stand"),
    f"{DETECTOR}/mask": "bad pixels",
    f"{DETECTOR}/distance": "optics",
    f"{DETECTOR}/[xy]_pixel_size": "optics; both, and the basis vectors, the same",
    f"{DETECTOR}/basis_vectors": "optics and axes",
    f"{SOURCE}/energy": "optics, J",
    f"{SOURCE}/wavelength": "checked against the energy",
    f"{SOURCE}/illumination": "probe",
    IMAGE: "object, where fly64 wrote it",
    f"{OWN}/*": "fly64's own",
    "cxi_version": "versions up to 1.6 have the keys above",
    "number_of_entries": "told, where there are several",
    f"{DETECTOR}/data_dark": f"{UNUSED}: subtract nothing from counts",
    f"{DETECTOR}/corner_position": f"{UNUSED}: the beam is found in the mean pattern",
    "entry_1/image_1/*": f"{UNUSED}: a result of another program",
    "entry_1/start_time": f"{UNUSED}",
    "entry_1/end_time": f"{UNUSED}",
    "entry_1/title": f"{UNUSED}",
    "entry_1/sample_1/name": f"{UNUSED}",
}
FORMAT = Format(kind="HDF5", keys=DATA, read=read, write=write, endings=(".cxi",), table=TABLE)
