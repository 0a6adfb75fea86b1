"""A lopsided scan without symmetry, and the files that people reported: what was wrong with them is
planted here."""

from pathlib import Path

import h5py
import numpy as np
import oracle
from scipy.constants import c, e, h
from scipy.ndimage import gaussian_filter

WAVELENGTH_M, DISTANCE_M, PIXEL_M, N = 1.4e-10, 2.0, 75e-6, 32
OBJECT_PIXEL_M = WAVELENGTH_M * DISTANCE_M / (N * PIXEL_M)
DETECTOR = "entry_1/instrument_1/detector_1"


def reported_scan() -> dict[str, np.ndarray]:
    """Counts (90, N, N), positions (90, 2) row by row of a 9 x 10 raster, probe, object."""
    rng, r = np.random.default_rng(5), np.arange(N) - N // 2
    rows, columns = np.meshgrid(r, r, indexing="ij")
    edge = np.exp(-((((rows - 1) / 5.5) ** 2 + ((columns + 2) / 4.5) ** 2) ** 2))
    rough = gaussian_filter(rng.normal(size=(N, N)), 3, mode="wrap") * 8
    probe = edge * np.exp(1j * (0.035 * (rows**2 + 1.3 * columns**2) + rough))
    probe *= (2e4 / (np.abs(probe) ** 2).sum()) ** 0.5
    at = np.mgrid[:9, :10].reshape(2, -1).T * 3.0 + rng.integers(-1, 2, (90, 2)) + 20
    shape = tuple((at.max(0) + 20).astype(int))
    phase, dark = (gaussian_filter(rng.normal(size=shape), 2.5) * 8 for _ in range(2))
    image = (1 - 0.15 * np.clip(dark, 0, 2)) * np.exp(1j * phase)
    counts = rng.poisson(oracle.expected_counts(image, probe[None], *at.T))
    return {"counts": counts, "at": at, "probe": probe.astype(np.complex64), "object": image}


def metres(at: np.ndarray) -> np.ndarray:
    return (at - at.mean(0)) * OBJECT_PIXEL_M


def write_cxi(
    path: Path, scan: dict, data: np.ndarray | None = None, probe: bool = True, **packing: object
) -> Path:
    at = metres(scan["at"])
    with h5py.File(path, "w") as file:
        data = scan["counts"].astype(np.uint32) if data is None else data
        packing = {"chunks": (1, N, N)} | packing if packing else {}
        file.create_dataset(f"{DETECTOR}/data", data=data, **packing)
        file[f"{DETECTOR}/distance"], file[f"{DETECTOR}/x_pixel_size"] = DISTANCE_M, PIXEL_M
        file["entry_1/instrument_1/source_1/energy"] = h * c / WAVELENGTH_M
        if probe:
            file["entry_1/instrument_1/source_1/illumination"] = scan["probe"]
        xyz = np.stack([at[:, 1], at[:, 0], 0 * at[:, 0]], 1)
        file["entry_1/sample_1/geometry_1/translation"] = xyz
    return path


def write_pair(folder: Path, scan: dict, order: np.ndarray, numbers: np.ndarray | None) -> Path:
    """pty-chi's pair with positions in `order`, and their numbers unless None."""
    with h5py.File(folder / "x_dp.hdf5", "w") as file:
        file["dp"] = scan["counts"]
    with h5py.File(folder / "x_para.hdf5", "w") as file:
        file["probe"] = (scan["probe"] / N)[None, None]
        file["object"] = np.ones((1, 66, 69), np.complex64)
        file["object"].attrs.update(pixel_height_m=OBJECT_PIXEL_M, pixel_width_m=OBJECT_PIXEL_M)
        for name, values in zip("yx", metres(scan["at"])[order].T, strict=True):
            file[f"probe_position_{name}_m"] = values
        if numbers is not None:
            file["probe_position_indexes"] = numbers
    return folder / "x_dp.hdf5"


def write_ptyd(path: Path, scan: dict, **keys: object) -> Path:
    with h5py.File(path, "w") as file:
        file["chunks/0/data"], file["chunks/0/positions"] = scan["counts"], metres(scan["at"])
        file["meta/energy"], file["meta/distance"] = h * c / WAVELENGTH_M / e / 1e3, DISTANCE_M
        file["meta/psize"] = [PIXEL_M, PIXEL_M]
        for key, value in keys.items():
            name = key.replace("__", "/")
            if name in file:
                del file[name]
            file[name] = value
    return path
