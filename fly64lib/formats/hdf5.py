"""HDF5 files read without trusting them: nothing outside the file is opened, and no claim is
believed before it is checked.

h5py reports a damaged file by nearly any exception, and follows links to other files. Here every
access goes through :class:`Hdf5File`: what the library trips over is a :class:`DataContractError`,
a data set whose shape claims far more than the file stores is refused before anything is allocated,
and external links, external storage and virtual data sets (all of which read other files of whoever
opens them) are refused by name."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np

from ptycho_torch.data.npz import BOMB_BYTES, BOMB_RATIO, MAX_BYTES, broken
from ptycho_torch.errors import MissingDependencyError, PtychoError

MAX_TEXT = 2**24  # bytes of one text, such as metadata


def h5py_module() -> ModuleType:
    """h5py, or how to install it."""
    try:
        import h5py
    except ImportError as error:
        raise MissingDependencyError(
            "HDF5 files (CXI, pty-chi, PtyPy) need h5py: pip install 'fly64[formats]'"
        ) from error
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
        return next(
            (name for name in names if isinstance(self._item(name), self._h5py.Dataset)), None
        )

    def children(self, name: str) -> list[str]:
        """Names in a group; none if there is no such group. What is not text (h5py gives bytes)
        names nothing known."""
        group = self._item(name)
        with _blamed(self.path, name):
            return (
                sorted(key for key in group if isinstance(key, str))
                if isinstance(group, self._h5py.Group)
                else []
            )

    def dataset(self, name: str, kinds: str = "iufc") -> "Dataset":
        """A data set of numbers, checked but not read. `kinds`: dtype kinds that are taken."""
        item = self._item(name)
        with _blamed(self.path, name):
            if not isinstance(item, self._h5py.Dataset):
                raise broken(
                    self.path,
                    name,
                    "missing",
                    "a data set",
                    "see docs/import_export.md for what a file of this format must hold",
                )
            shape, dtype = item.shape, item.dtype
            if item.is_virtual or item.external:
                raise broken(
                    self.path,
                    name,
                    "its values lie in other files",
                    "a file that holds its own data",
                    "copy it whole first, for instance with h5repack",
                )
            paired = dtype.names == ("real", "imag")
            if (
                shape is None
                or (dtype.kind not in kinds and not (paired and "c" in kinds))
                or dtype.itemsize == 0
            ):
                raise broken(self.path, name, f"dtype {dtype}", "numbers", "store plain numbers")
            claimed, stored = math.prod(shape) * dtype.itemsize, item.id.get_storage_size()
            chunk = math.prod(item.chunks or (1,)) * dtype.itemsize
            if (
                claimed > MAX_BYTES
                or chunk > BOMB_BYTES
                or claimed > BOMB_BYTES
                and claimed > BOMB_RATIO * stored
            ):
                raise broken(
                    self.path,
                    name,
                    f"{stored} stored bytes claim to hold {claimed} ({shape} {dtype})",
                    f"at most {MAX_BYTES} bytes, at most {BOMB_RATIO} times what is stored, in"
                    f" chunks of at most {BOMB_BYTES}",
                    "store it uncompressed if it is real",
                )
        return Dataset(self.path, name, item)

    def read(self, name: str, kinds: str = "iufc") -> np.ndarray:
        """A whole data set of numbers."""
        return self.dataset(name, kinds)[()]

    def number(self, *names: str) -> float | None:
        """The first of these that holds one finite positive number; None if there is none."""
        for name in names:
            if self.find(name):
                dataset = self.dataset(name, "iuf")
                values = dataset[()].reshape(-1) if math.prod(dataset.shape) == 1 else np.zeros(0)
                if values.size and np.isfinite(values[0]) and values[0] > 0:
                    return float(values[0])
        return None

    def text(self, name: str) -> str | None:
        """A text data set; None if there is none."""
        item = self._item(name)
        with _blamed(self.path, name):
            if (
                not isinstance(item, self._h5py.Dataset)
                or item.shape != ()
                or item.id.get_storage_size() > MAX_TEXT
            ):
                return None
            value = item[()]
            return value.decode("utf-8") if isinstance(value, bytes) else str(value)

    def attribute(self, name: str, attribute: str) -> float | None:
        """A positive or negative number kept as an attribute of a data set or group; None if there
        is none."""
        item = self._item(name)
        with _blamed(self.path, name):
            value = None if item is None else item.attrs.get(attribute)
            if value is None or np.size(value) != 1 or np.asarray(value).dtype.kind not in "iuf":
                return None
            return float(np.reshape(value, -1)[0])

    def _item(self, name: str, hops: int = 16) -> object:
        """The group or data set, None if absent. Soft links are followed here, so that none leads
        to another file."""
        parts = [part for part in name.split("/") if part]
        with _blamed(self.path, name):
            links, kinds = self._handle.id.links, self._h5py.h5l
            for depth in range(1, len(parts) + 1):
                upto = "/".join(parts[:depth])
                if depth > 1 and not isinstance(
                    self._handle["/".join(parts[: depth - 1])], self._h5py.Group
                ):
                    return None
                if not links.exists(upto.encode()):
                    return None
                kind = links.get_info(upto.encode()).type
                if kind == kinds.TYPE_SOFT and hops:
                    target = links.get_val(upto.encode()).decode()
                    start = [] if target.startswith("/") else parts[: depth - 1]
                    return self._item("/".join([*start, target, *parts[depth:]]), hops - 1)
                if kind != kinds.TYPE_HARD:
                    raise broken(
                        self.path,
                        upto,
                        "a link to another file, or in a circle",
                        "a file that holds its own data",
                        "copy it whole first, for instance with h5repack",
                    )
            return self._handle["/".join(parts) or "/"]


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
        raise broken(path, key, "no such file", "a readable HDF5 file", "check the path") from error
    except Exception as error:
        raise broken(
            path,
            key,
            f"cannot be read ({type(error).__name__}: {str(error)[:200]})",
            "a complete HDF5 file",
            "copy or write it again",
        ) from error
