"""What DATA-001 holds and another HDF5 format has no place for, kept in a group of our own so that
nothing is lost."""

import json
from collections.abc import Iterator

import numpy as np

from fly64lib.formats.hdf5 import Hdf5File
from fly64lib.formats.raw import RawScan
from ptycho_torch.data.checks import pattern_chunks
from ptycho_torch.data.container import refused
from ptycho_torch.data.scan import ScanData
from ptycho_torch.files import json_text

_OPTIONAL = {"Y": "truth_patches", "scan_index": "scan_index", "groups": "groups"}


def write_own(group: object, scan: ScanData, **numbers: float) -> None:
    """Metadata, optional and unknown keys, and `numbers` as attributes, into an h5py group."""
    group["metadata"] = json_text(scan.metadata)
    kept = {key: getattr(scan, name) for key, name in _OPTIONAL.items()}
    for key, value in ({k: v for k, v in kept.items() if v is not None} | scan.extra).items():
        group[f"keys/{key}"] = np.char.encode(value, "utf-8") if value.dtype.kind == "U" else value
    group.attrs.update(numbers)


def read_own(file: Hdf5File, name: str, scan: RawScan) -> None:
    """Add to `scan` what :func:`write_own` kept in the group `name`, if there is one."""
    text = file.text(f"{name}/metadata")
    if text is None:
        return
    try:
        scan.metadata, scan.ours = {**json.loads(text)}, True
    except (ValueError, RecursionError, TypeError) as error:
        said = f"no JSON object ({str(error)[:100]}); expected what fly64 export wrote"
        raise refused(file.path, f"{name}/metadata", f"{said}; export again") from error
    for key in file.keys(f"{name}/keys"):
        value = file.read(f"{name}/keys/{key}", "iufcbS")
        scan.extra[key] = np.char.decode(value, "utf-8") if value.dtype.kind == "S" else value


def store_counts(group: object, name: str, scan: ScanData) -> None:
    """diffraction^2 as a data set: uint32 where every square is whole, else float64 (exact)."""
    whole = all(
        (np.abs(squares - np.rint(squares)) <= 1e-6 * squares + 0.05).all()
        and squares.max() < 2**32 - 1
        for _, squares in _squares(scan)
    )
    packing = {"chunks": (1, scan.N, scan.N), "compression": "gzip", "compression_opts": 1}
    kind = np.uint32 if whole else np.float64
    stack = group.create_dataset(name, scan.diffraction.shape, kind, **packing)
    for first, squares in _squares(scan):
        stack[first : first + len(squares)] = np.rint(squares) if whole else squares


def _squares(scan: ScanData) -> Iterator[tuple[int, np.ndarray]]:
    for first, block in pattern_chunks(scan.diffraction):
        yield first, np.square(block, dtype=np.float64)
