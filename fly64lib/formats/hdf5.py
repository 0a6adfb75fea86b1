"""HDF5 files read without trusting them: nothing outside the file is opened, and no claim is
believed before it is checked.

Every access goes through :class:`Hdf5File`: whatever h5py trips over is a
:class:`DataContractError`, a shape that claims far more than the file stores is refused before
anything is allocated, and external links, external storage and virtual data sets (which read other
files of whoever opens them) are refused by name unless the user asks for
them; then files of the same folder may be read, and only those."""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import ModuleType

import numpy as np

from ptycho_torch.data.container import BOMB_BYTES, BOMB_RATIO, MAX_BYTES, refused
from ptycho_torch.errors import MissingDependencyError, PtychoError

MAX_TEXT = 2**24  # bytes of one text, such as metadata
MAX_NAMES = 2000  # that are listed
_OWN_DATA = "expected a file that holds its own data; if you trust it, let it read files beside it:"
_OWN_DATA += " --follow-links"
_NEAR = "expected a file in the folder of this one, or below it; put the files beside each other"
_FILTER = (
    "the values are packed by a filter that HDF5 brings as a plugin (bitshuffle, LZ4, Zstd and"
)
_FILTER += " others); expected one that is installed; pip install hdf5plugin"


def h5py_module() -> ModuleType:
    """h5py, or how to install it."""
    try:
        import h5py
    except ImportError as error:
        text = "HDF5 files (CXI, pty-chi, PtyPy) need h5py: pip install 'fly64[formats]'"
        raise MissingDependencyError(text) from error
    with suppress(ImportError):  # a missing filter is named where a file needs it
        import hdf5plugin  # noqa: F401  makes its filters known to h5py
    return h5py


@contextmanager
def open_hdf5(path: str | Path, follow: bool = False) -> Iterator["Hdf5File"]:
    """Open an HDF5 file for reading. `follow`: files of its folder that it links to are read."""
    h5py = h5py_module()
    with _blamed(Path(path), None):
        handle = h5py.File(path, "r")
    with handle, ExitStack() as others:
        yield Hdf5File(Path(path), handle, others if follow else None)


class Hdf5File:
    """Data sets of an open file by their full name; `path` is named in errors. With `others`, files
    of its folder that links name are opened, and closed with it."""

    def __init__(self, path: Path, handle: object, others: ExitStack | None = None) -> None:
        self.path, self._handle, self._h5py = path, handle, h5py_module()
        self._others, self._opened = others, {}

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
            self._check_elsewhere(item, name, kinds)
            shape, dtype = item.shape, item.dtype
            paired = dtype.names == ("real", "imag") and "c" in kinds
            if shape is None or dtype.itemsize == 0 or not (dtype.kind in kinds or paired):
                text = f"dtype {dtype}; expected numbers; store plain numbers"
                raise refused(self.path, name, text)
            claimed, stored = math.prod(shape) * dtype.itemsize, item.id.get_storage_size()
            if item.is_virtual:
                stored = claimed  # its parts have been looked at
            chunk = math.prod(item.chunks or (1,)) * dtype.itemsize
            self._check_filters(item, name)
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

    def names(self) -> list[str]:
        """Full names of all data sets and links of the file, at most MAX_NAMES; no link is
        followed."""
        found, groups, h5py = [], [("", self._handle)], self._h5py
        with _blamed(self.path, None):
            while groups and len(found) < MAX_NAMES:
                above, group = groups.pop()
                for key in group:
                    if not isinstance(key, str):
                        continue
                    name, link = f"{above}{key}", group.get(key, getlink=True)
                    item = group[key] if isinstance(link, h5py.HardLink) else None
                    if isinstance(item, h5py.Group) and name.count("/") < 16:
                        groups.append((f"{name}/", item))
                    elif not (self._others and isinstance(link, h5py.ExternalLink)):
                        found.append(name)
        return sorted(found)

    def _beside(self, other: str, name: str) -> "Hdf5File":
        """A file of this one's folder, open."""
        folder = self.path.resolve().parent
        place = (folder / other).resolve()
        if not place.is_relative_to(folder):
            raise refused(self.path, name, f"a link to {other!r}, elsewhere; {_NEAR}")
        if not place.is_file():
            raise refused(self.path, name, f"a link to {other!r}, which is not there; {_NEAR}")
        if place not in self._opened:
            if len(self._opened) >= MAX_NAMES:
                raise refused(self.path, name, f"links to more than {MAX_NAMES} files; {_NEAR}")
            with _blamed(place, None):
                handle = self._others.enter_context(self._h5py.File(place, "r"))
            self._opened[place] = Hdf5File(place, handle, self._others)
        return self._opened[place]

    def _check_elsewhere(self, item: object, name: str, kinds: str) -> None:
        """Refuse values in other files, unless these may be read and are there."""
        if not (item.is_virtual or item.external):
            return
        if self._others is None:
            raise refused(self.path, name, f"its values lie in other files; {_OWN_DATA}")
        if item.external:
            text = "its values lie in raw files; expected HDF5; copy them into one HDF5 file"
            raise refused(self.path, name, text)
        for part in item.virtual_sources():
            inside = Path(item.file.filename).resolve() == self.path.resolve()
            here = self if part.file_name == "." and inside else self._beside(part.file_name, name)
            if here.path == self.path and part.dset_name.strip("/") == item.name.strip("/"):
                raise refused(self.path, name, f"it holds itself; {_NEAR}")
            here.dataset(part.dset_name, kinds)

    def _check_filters(self, item: object, name: str) -> None:
        """Refuse values packed by a filter that is not installed."""
        h5z, packing = self._h5py.h5z, item.id.get_create_plist()
        codes = [packing.get_filter(number)[0] for number in range(packing.get_nfilters())]
        if missing := [code for code in codes if not h5z.filter_avail(code)]:
            raise refused(self.path, name, f"filter {missing[0]}: {_FILTER}")

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
                if isinstance(link, h5py.ExternalLink) and self._others and hops:
                    beside = self._beside(link.filename, "/".join(parts[: depth + 1]))
                    return beside._item("/".join([link.path, *parts[depth + 1 :]]), hops - 1)
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
