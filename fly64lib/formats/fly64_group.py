"""What DATA-001 holds and another HDF5 format has no place for, kept in a group of our own so that
nothing is lost."""

import json

import numpy as np

from fly64lib.formats.hdf5 import Hdf5File
from fly64lib.formats.raw import RawScan
from ptycho_torch.data.checks import pattern_chunks
from ptycho_torch.data.contract import ScanData
from ptycho_torch.data.npz import broken
from ptycho_torch.files import json_text

_OPTIONAL = {"Y": "truth_patches", "scan_index": "scan_index", "groups": "groups"}


def write_own(group: object, scan: ScanData, **numbers: float) -> None:
    """Metadata, optional and unknown keys of a scan, and `numbers` as attributes, into an h5py
    group."""
    group["metadata"] = json_text(scan.metadata)
    keys = {
        key: value for key, name in _OPTIONAL.items() if (value := getattr(scan, name)) is not None
    } | scan.extra
    for key, value in keys.items():
        group[f"keys/{key}"] = np.char.encode(value, "utf-8") if value.dtype.kind == "U" else value
    for name, value in numbers.items():
        group.attrs[name] = value


def read_own(file: Hdf5File, name: str, scan: RawScan) -> RawScan:
    """Add to `scan` what :func:`write_own` kept in the group `name`, if there is one."""
    text = file.text(f"{name}/metadata")
    if text is None:
        return scan
    try:
        scan.metadata = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise broken(
            file.path,
            f"{name}/metadata",
            f"not JSON ({str(error)[:100]})",
            "what fly64 export wrote",
            "export again",
        ) from error
    if not isinstance(scan.metadata, dict):
        raise broken(
            file.path,
            f"{name}/metadata",
            "not a JSON object",
            "what fly64 export wrote",
            "export again",
        )
    scan.ours = True
    for key in file.children(f"{name}/keys"):
        value = file.read(f"{name}/keys/{key}", "iufcbS")
        scan.extra[key] = np.char.decode(value, "utf-8") if value.dtype.kind == "S" else value
    return scan


def store_counts(group: object, name: str, scan: ScanData) -> None:
    """diffraction^2 as a data set, a pattern at a time: uint32 where every square is whole, else
    float64 (exact)."""
    whole = all(
        (np.abs(squares - np.rint(squares)) <= 1e-6 * squares + 0.05).all()
        and squares.max() < 2**32 - 1
        for squares in _squares(scan)
    )
    stack = group.create_dataset(
        name,
        scan.diffraction.shape,
        np.uint32 if whole else np.float64,
        chunks=(1, scan.N, scan.N),
        compression="gzip",
        compression_opts=1,
    )
    first = 0
    for squares in _squares(scan):
        stack[first : first + len(squares)] = np.rint(squares) if whole else squares
        first += len(squares)


def _squares(scan: ScanData):
    return (np.square(block, dtype=np.float64) for _, block in pattern_chunks(scan.diffraction))
