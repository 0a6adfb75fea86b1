"""HDF5 files read without trusting them: nothing outside the file is opened, and no claim is
believed before it is checked.

Every access goes through :class:`Hdf5File`: whatever h5py trips over is a
:class:`DataContractError`, a shape that claims far more than the file stores is refused before
anything is allocated, and external links, external storage and virtual data sets (which read other
files of whoever opens them) are refused by name.

What DATA-001 holds and another format has no place for is kept in a group of our own, so that
nothing is lost: :func:`write_own`, :func:`read_own`."""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from ptycho_torch.data.checks import pattern_chunks
from ptycho_torch.data.container import BOMB_BYTES, BOMB_RATIO, MAX_BYTES, refused
from ptycho_torch.data.count_statistics import count_statistics
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import MissingDependencyError, PtychoError
from ptycho_torch.files import json_text

MAX_TEXT = 2**24  # bytes of one text, such as metadata
_OPTIONAL = {"Y": "truth_patches", "scan_index": "scan_index", "groups": "groups"}
_OWN_DATA = "expected a file that holds its own data; copy it whole first, say with h5repack"


def h5py_module() -> ModuleType:
    """h5py, or how to install it."""
    try:
        import h5py
    except ImportError as error:
        text = "HDF5 files (CXI, pty-chi, PtyPy) need h5py: pip install 'fly64[formats]'"
        raise MissingDependencyError(text) from error
    return h5py


@contextmanager
def open_hdf5(path: str | Path) -> Iterator["Hdf5File"]:
    """Open an HDF5 file for reading."""
    h5py = h5py_module()
    with _blamed(Path(path), None):
        handle = h5py.File(path, "r")
    with handle:
        yield Hdf5File(Path(path), handle)


class Hdf5File:
    """Data sets of an open file by their full name; `path` is named in errors."""

    def __init__(self, path: Path, handle: object) -> None:
        self.path, self._handle, self._h5py = path, handle, h5py_module()

    def find(self, *names: str) -> str | None:
        """The first of these names that is a data set here."""
        sets = (name for name in names if isinstance(self._item(name), self._h5py.Dataset))
        return next(sets, None)

    def keys(self, group: str = "/") -> list[str]:
        """Names in a group, if it is there; not those that h5py gives as bytes, as no text."""
        item = self._item(group)
        with _blamed(self.path, group):
            names = item if isinstance(item, self._h5py.Group) else ()
            return sorted(key for key in names if isinstance(key, str))

    def dataset(self, name: str, kinds: str = "iuf") -> "Dataset":
        """A data set of numbers, checked but not read. `kinds`: dtype kinds that are taken."""
        item = self._item(name)
        with _blamed(self.path, name):
            if not isinstance(item, self._h5py.Dataset):
                do = "see docs/import_export.md for what a file of this format must hold"
                raise refused(self.path, name, f"missing; expected a data set; {do}")
            if item.is_virtual or item.external:
                raise refused(self.path, name, f"its values lie in other files; {_OWN_DATA}")
            shape, dtype = item.shape, item.dtype
            paired = dtype.names == ("real", "imag") and "c" in kinds
            if shape is None or dtype.itemsize == 0 or not (dtype.kind in kinds or paired):
                text = f"dtype {dtype}; expected numbers; store plain numbers"
                raise refused(self.path, name, text)
            claimed, stored = math.prod(shape) * dtype.itemsize, item.id.get_storage_size()
            chunk = math.prod(item.chunks or (1,)) * dtype.itemsize
            packed = claimed > BOMB_BYTES and claimed > BOMB_RATIO * stored
            if claimed > MAX_BYTES or chunk > BOMB_BYTES or packed:
                text = f"{stored} stored bytes claim to hold {claimed} ({shape} {dtype}); expected"
                text += f" at most {MAX_BYTES} bytes, at most {BOMB_RATIO} times what is stored, in"
                text += f" chunks of at most {BOMB_BYTES}; store it uncompressed if it is real"
                raise refused(self.path, name, text)
        return Dataset(self.path, name, item)

    def read(self, name: str, kinds: str = "iufc") -> np.ndarray:
        """A whole data set of numbers."""
        return self.dataset(name, kinds)[()]

    def number(self, name: str) -> float | None:
        """One finite positive number; None if there is none of this name."""
        if not self.find(name) or math.prod((dataset := self.dataset(name)).shape) != 1:
            return None
        value = float(dataset[()].reshape(-1)[0])
        return value if np.isfinite(value) and value > 0 else None

    def text(self, name: str) -> str | None:
        """A text data set; None if there is none."""
        item = self._item(name)
        with _blamed(self.path, name):
            scalar = isinstance(item, self._h5py.Dataset) and item.shape == ()
            if not scalar or item.id.get_storage_size() > MAX_TEXT:
                return None
            value = item[()]
            return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    def attribute(self, name: str, attribute: str) -> float | None:
        """A number kept as an attribute of a data set or group; None if there is none."""
        item = self._item(name)
        with _blamed(self.path, name):
            value = np.asarray(None if item is None else item.attrs.get(attribute))
            one = value.size == 1 and value.dtype.kind in "iuf"
            return float(value.reshape(-1)[0]) if one else None

    def _item(self, name: str, hops: int = 16) -> object:
        """The group or data set, if there. Soft links are followed here: none leaves the file."""
        parts = [part for part in name.split("/") if part]
        with _blamed(self.path, name):
            item, h5py = self._handle, self._h5py
            for depth, part in enumerate(parts):
                link = item.get(part, getlink=True) if isinstance(item, h5py.Group) else None
                if link is None:
                    return None
                if isinstance(link, h5py.SoftLink) and hops:
                    start = [] if link.path.startswith("/") else parts[:depth]
                    return self._item("/".join([*start, link.path, *parts[depth + 1 :]]), hops - 1)
                if not isinstance(link, h5py.HardLink):
                    text = f"a link to another file, or in a circle; {_OWN_DATA}"
                    raise refused(self.path, "/".join(parts[: depth + 1]), text)
                item = item[part]
            return item


class Dataset:
    """A data set that is sliced like an array; errors in reading name the file."""

    def __init__(self, path: Path, name: str, item: object) -> None:
        self.path, self.name, self._item = path, name, item
        self.shape, self.dtype = item.shape, item.dtype

    def __getitem__(self, at: object) -> np.ndarray:
        with _blamed(self.path, self.name):
            return np.asarray(self._item[at])


@contextmanager
def _blamed(path: Path, key: str | None) -> Iterator[None]:
    """Whatever h5py trips over is the file's fault."""
    try:
        yield
    except (PtychoError, MemoryError):
        raise
    except FileNotFoundError as error:
        text = "no such file; expected a readable HDF5 file; check the path"
        raise refused(path, key, text) from error
    except Exception as error:
        why = f"{type(error).__name__}: {str(error)[:200]}"
        text = f"cannot be read ({why}); expected a complete HDF5 file; copy or write it again"
        raise refused(path, key, text) from error


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
