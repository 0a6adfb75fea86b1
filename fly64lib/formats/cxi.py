"""CXI, the Coherent X-ray Imaging Data Bank's HDF5 format (version 1.6), as cdtools, SHARP and
ptychodus write it.

    entry_1/data_1/data, or entry_1/instrument_1/detector_1/data     (n, rows, columns) counts
    entry_1/sample_1/geometry_1/translation                          (n, 3) m, (x, y, z) of the
    sample
    entry_1/instrument_1/detector_1/{distance, x_pixel_size, y_pixel_size, basis_vectors, mask},
    source_1/energy (J)
    entry_1/instrument_1/source_1/illumination                       probe, entry_1/image_1/data
    object: where given

The sample moves against the probe, and detector rows and columns run along the basis vectors b0, b1
(by default -y and -x): row = -translation . b0 / |b0|, column likewise. Programs differ in that
sign; the orientation check finds out."""

from pathlib import Path

import numpy as np

from fly64lib.formats.fly64_group import read_own, store_counts, write_own
from fly64lib.formats.hdf5 import Hdf5File, h5py_module
from fly64lib.formats.raw import (
    CHARGE_C,
    PLANCK_J_M,
    RawScan,
    array_blocks,
    as_modes,
    as_object,
    stack_reader,
    stack_shape,
)
from ptycho_torch.data.contract import ScanData
from ptycho_torch.data.npz import broken
from ptycho_torch.files import atomic_path

DETECTOR, SOURCE, OWN = (
    "entry_1/instrument_1/detector_1",
    "entry_1/instrument_1/source_1",
    "entry_1/fly64",
)
DATA = ("entry_1/data_1/data", f"{DETECTOR}/data")
TRANSLATION = (
    "entry_1/sample_1/geometry_1/translation",
    "entry_1/data_1/translation",
    f"{DETECTOR}/translation",
)
SIGNAL = 0x1000  # the one mask bit that marks a good pixel: it has signal above the background


def recognised(file: Hdf5File) -> bool:
    return file.find(*DATA) is not None


def read(file: Hdf5File, path: Path) -> RawScan:
    """Read the first entry of a CXI file."""
    key, where = file.find(*DATA), file.find(*TRANSLATION)
    if key is None or where is None:
        raise broken(
            path,
            (DATA if key is None else TRANSLATION)[0],
            "missing",
            "patterns and a sample translation for each",
            "add it; fly64 reads entry_1 only",
        )
    translation = file.read(where, "iuf")
    if translation.ndim != 2 or translation.shape[1] not in (2, 3) or not len(translation):
        raise broken(
            path, where, f"shape {translation.shape}", "(n, 3), x, y, z in m", "store it so"
        )
    translation = np.pad(translation.astype(np.float64), ((0, 0), (0, 3 - translation.shape[1])))
    dataset = file.dataset(key, "iuf")
    leading, axis, detector = stack_shape(dataset.shape, len(translation), path, key)
    patterns, n = stack_reader(dataset, leading, axis), len(translation)
    basis, step = _geometry(file, path)
    scan = RawScan(
        path,
        "cxi",
        n,
        detector,
        lambda: array_blocks(patterns, n, detector[0] * detector[1]),
        -translation @ basis.T,
        "m",
        values="intensity",
        zero_frequency="centre",
        detector_step_per_m=step,
    )
    mask = file.find(f"{DETECTOR}/mask")
    if mask:
        bits = file.read(mask, "iu").reshape(-1, *file.dataset(mask, "iu").shape[-2:])
        if bits.shape[1:] != detector:
            raise broken(
                path,
                mask,
                f"shape {bits.shape}",
                f"{detector} as the patterns",
                "store the patterns' own mask",
            )
        scan.bad = ((bits != 0) & (bits != SIGNAL)).any(0)
    illumination = file.find(f"{SOURCE}/illumination")
    if illumination:
        scan.probe = as_modes(file.read(illumination), path, illumination)
    return read_own(file, OWN, _with_object(file, path, scan))


def write(
    path: Path,
    scan: ScanData,
    object_pixel_m: float,
    energy_kev: float | None = None,
    distance_m: float | None = None,
) -> list[Path]:
    """Write one entry. Without energy and distance the file states positions and object pixel, and
    no optics."""
    h5py = h5py_module()
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file["cxi_version"], file["number_of_entries"] = 160, 1
        detector, source = file.create_group(DETECTOR), file.create_group(SOURCE)
        store_counts(detector, "data", scan)
        detector["data"].attrs["axes"] = "translation:y:x"
        if energy_kev and distance_m:
            wavelength_m = PLANCK_J_M / (energy_kev * 1e3 * CHARGE_C)
            pixel_m = wavelength_m * distance_m / (scan.N * object_pixel_m)
            source["energy"], source["wavelength"], detector["distance"] = (
                PLANCK_J_M / wavelength_m,
                wavelength_m,
                distance_m,
            )
            detector["x_pixel_size"] = detector["y_pixel_size"] = pixel_m
            detector["basis_vectors"] = np.array([[0, -pixel_m], [-pixel_m, 0], [0, 0]])
        source["illumination"] = scan.probe
        file["entry_1/image_1/data"] = scan.object_guess
        metres = np.stack([scan.xcoords, scan.ycoords, np.zeros(scan.n)], 1) * object_pixel_m
        file[TRANSLATION[0]] = metres
        for name, target in (
            (DATA[0], DATA[1]),
            (TRANSLATION[1], TRANSLATION[0]),
            (TRANSLATION[2], TRANSLATION[0]),
        ):
            file[name] = h5py.SoftLink(f"/{target}")
        write_own(
            file.create_group(OWN),
            scan,
            object_pixel_m=object_pixel_m,
            offset_y_px=0.0,
            offset_x_px=0.0,
        )
    return [path]


def _geometry(file: Hdf5File, path: Path) -> tuple[np.ndarray, float | None]:
    """Unit vectors (2, 3) of detector rows and columns, and the detector's step in 1/m if the file
    tells it."""
    basis = np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    x_pixel, y_pixel = (file.number(f"{DETECTOR}/{name}_pixel_size") for name in "xy")
    pixel_m = y_pixel or x_pixel
    named = f"{DETECTOR}/basis_vectors"
    if file.find(named):
        vectors = file.read(named, "iuf").astype(np.float64)
        vectors = vectors.T if vectors.shape == (3, 2) else vectors
        lengths = np.linalg.norm(vectors, axis=-1) if vectors.shape == (2, 3) else np.zeros(1)
        if not (np.isfinite(lengths).all() and (lengths > 0).all()):
            raise broken(
                path,
                named,
                f"shape {vectors.shape}, lengths {lengths.tolist()[:3]}",
                "two vectors along rows and columns",
                "leave it out or correct it",
            )
        basis, pixel_m, (y_pixel, x_pixel) = vectors / lengths[:, None], float(lengths[0]), lengths
    energy, distance_m = file.number(f"{SOURCE}/energy"), file.number(f"{DETECTOR}/distance")
    wavelength_m = file.number(f"{SOURCE}/wavelength") or (PLANCK_J_M / energy if energy else None)
    if x_pixel and y_pixel and abs(x_pixel - y_pixel) > 1e-3 * x_pixel:
        raise broken(
            path,
            f"{DETECTOR}/x_pixel_size",
            f"{x_pixel:g} m, and {y_pixel:g} m along y",
            "square pixels",
            "resample the patterns to square pixels first",
        )
    return basis, (
        pixel_m / (wavelength_m * distance_m) if pixel_m and wavelength_m and distance_m else None
    )


def _with_object(file: Hdf5File, path: Path, scan: RawScan) -> RawScan:
    """The image that is larger than the detector, if the file also says where it lies under the
    positions."""
    offset = [file.attribute(OWN, f"offset_{axis}_px") for axis in "yx"]
    pixel_m = file.attribute(OWN, "object_pixel_m")
    if None in offset or not pixel_m or not 0 < pixel_m < 1:
        return scan
    if scan.detector_step_per_m is None:
        scan.detector_step_per_m = 1 / (scan.detector_px[0] * pixel_m)
    image = file.find("entry_1/image_1/data")
    if image:
        scan.object_guess, scan.offset_px = as_object(file.read(image), path, image), tuple(offset)
    return scan
