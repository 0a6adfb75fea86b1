"""What DATA-001 holds and another format has no place for, in a group of our own of an HDF5 file,
so that nothing is lost on the way out and back; and counts as a data set."""

import json

import numpy as np

from fly64lib.formats.hdf5 import Hdf5File
from ptycho_torch.data.checks import pattern_chunks
from ptycho_torch.data.container import refused
from ptycho_torch.data.count_statistics import count_statistics
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


def read_own(file: Hdf5File, name: str) -> tuple[dict, dict[str, np.ndarray], bool]:
    """Metadata and keys that :func:`write_own` kept in a group, and whether it is there."""
    if (text := file.text(f"{name}/metadata")) is None:
        return {}, {}, False
    try:
        metadata = {**json.loads(text)}
    except (ValueError, RecursionError, TypeError) as error:
        said = f"no JSON object ({str(error)[:100]}); expected what fly64 export wrote"
        raise refused(file.path, f"{name}/metadata", f"{said}; export again") from error
    arrays = {key: file.read(f"{name}/keys/{key}", "iufcbS") for key in file.keys(f"{name}/keys")}
    for key, value in arrays.items():
        arrays[key] = np.char.decode(value, "utf-8") if value.dtype.kind == "S" else value
    return metadata, arrays, True


def store_counts(group: object, name: str, scan: ScanData) -> None:
    """diffraction^2 as a data set: uint32 where every square is whole, else float64 (exact)."""
    counts = count_statistics(scan.diffraction)
    whole = counts.not_whole == 0 and counts.values[-1] < 2**32 - 1
    packing = {"chunks": (1, scan.N, scan.N), "compression": "gzip", "compression_opts": 1}
    kind = np.uint32 if whole else np.float64
    stack = group.create_dataset(name, scan.diffraction.shape, kind, **packing)
    for first, block in pattern_chunks(scan.diffraction):
        squares = np.square(block, dtype=np.float64)
        stack[first : first + len(squares)] = np.rint(squares) if whole else squares
