"""What a file format is to import and export, and which one a file has.

A format is a :class:`Format`, named by one line of :data:`fly64lib.design.registries.FORMATS` or
by an entry point of another package."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from fly64lib.design.registries import FORMATS
from fly64lib.formats.hdf5 import Hdf5File, open_hdf5
from fly64lib.formats.raw import Arrays, RawScan
from ptycho_torch.data.checks import check_layout
from ptycho_torch.data.container import refused
from ptycho_torch.data.npz import open_npz
from ptycho_torch.data.scan import KEYS, ScanData
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.fields import config

Above0 = Annotated[float, Field(gt=0, lt=1e12)]


@config
class Optics:
    """Sizes of an experiment that a DATA-001 file may leave open."""

    pixel_size_nm: Above0 | None = None  # object pixel, else the metadata's object_pixel_nm
    energy_kev: Above0 | None = None  # CXI: with the distance, the optics are written too
    distance_m: Above0 | None = None  # CXI: specimen to detector

    def object_pixel_m(self, target: Path) -> float:
        """Size of the object's pixel, for a format that keeps positions in metres."""
        if self.pixel_size_nm is None:
            text = "no object_pixel_nm in the metadata; expected the size of the object's pixel,"
            raise refused(target, None, f"{text} for positions in metres; pass --pixel-size-nm NM")
        return self.pixel_size_nm * 1e-9


@dataclass(frozen=True)
class Access:
    """What a reader may use beside the file."""

    work: Path  # an empty folder for what has to be unpacked
    files: ExitStack  # closes a file when its patterns have been read
    parameters: Path | None = None  # the second file, where a scan is a pair of files
    follow_links: bool = False  # whether HDF5 files beside this one may be opened by it
    names: object = None  # data sets that the user names: formats.options.Keys

    def hdf5(self, path: Path) -> Hdf5File:
        """An HDF5 file, open until the patterns have been read."""
        return self.files.enter_context(open_hdf5(path, self.follow_links))


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format. A file is known by its keys if the format has any, else by its ending."""

    kind: Literal["npz", "HDF5"] | None = None  # of files that are known by their keys
    keys: tuple[str, ...] = ()  # every file of this format has one of them
    endings: tuple[str, ...] = ()  # of names that are written in this format without --format
    # every key that a file may have, as a pattern of fnmatch, and what becomes of it
    table: Mapping[str, str] = field(default_factory=dict)
    read: Callable[[Path, Access], RawScan] | None = None  # None: it cannot be imported
    # returns the files that were written; None: it cannot be exported
    write: Callable[[Path, ScanData, Optics], list[Path]] | None = None


def formats_that(way: Literal["read", "write"]) -> dict[str, Format]:
    """Formats that can be imported, or exported."""
    return {name: entry for name, entry in FORMATS.items() if getattr(entry, way)}


def reader_of(path: Path, asked: str | None = None, follow: bool = False) -> str:
    """Name of the format in which a file is read: the one asked for, or the only one that fits."""
    known, found = formats_that("read"), []
    if asked is not None:
        if FORMATS[asked].read is None:
            raise ConfigError(f"{asked} cannot be imported; there are {', '.join(known)}")
        return asked
    kind, opened = opened_arrays(path, follow)
    with opened as file:
        if kind == "npz" and _is_data001(file):
            text = "this is a DATA-001 file already; expected another program's file; use it as it"
            text += " is: every command of fly64 reads it (fly64 export writes it in other formats)"
            raise refused(path, None, text)
        for name, entry in known.items():
            if not (entry.keys or entry.endings):
                continue  # read when it is asked for
            by_keys = kind == entry.kind and file is not None and file.find(*entry.keys)
            if by_keys if entry.keys else path.name.endswith(entry.endings):
                found.append(name)
        held = f"an {kind} file with {', '.join(file.keys()[:12]) or 'no keys'}" if file else kind
    if len(found) != 1:
        listed = "; ".join(
            f"{name}: {entry.kind or 'name'} with {' or '.join(entry.keys or entry.endings)}"
            for name, entry in known.items()
            if entry.keys or entry.endings
        )
        fits = f", which fits {' and '.join(found)}" if found else ""
        text = f"{held}{fits}; expected one format ({listed}); name it with --format; or name its"
        text += " data sets: --patterns-key KEY --positions-key KEY (docs/import_export.md)"
        raise refused(path, None, text)
    return found[0]


def writer_of(target: Path, asked: str | None = None) -> str:
    """Name of the format in which a file is written: the one asked for, or by its ending."""
    known = formats_that("write")
    fits = (name for name, entry in known.items() if target.name.endswith(entry.endings))
    name = asked or next(fits, None)
    if name is None or FORMATS[name].write is None:
        found = f"{asked} cannot be exported" if asked else f"no format goes with {target.suffix!r}"
        raise ConfigError(f"{target}: {found}; pass --format {' | '.join(known)}")
    return name


Opened = tuple[str, AbstractContextManager[Arrays | None]]


def opened_arrays(path: Path, follow: bool = False) -> Opened:
    """(kind, arrays) of a file, by its first bytes; (what it begins with, None) of any other."""
    with path.open("rb") as handle:
        start = handle.read(8)
    if start.startswith(b"PK"):
        return "npz", open_npz(path)
    if start == b"\x89HDF\r\n\x1a\n":
        return "HDF5", open_hdf5(path, follow)
    return f"a file that begins with {start!r}", nullcontext()


def is_data001(path: Path) -> bool:
    """Whether a file has the layout of a DATA-001 scan, so that it needs no import."""
    kind, opened = opened_arrays(path)
    with opened as file:
        return kind == "npz" and _is_data001(file)


def _is_data001(file: Arrays) -> bool:
    try:
        check_layout(KEYS, file.members, file.path)
    except DataContractError:
        return False
    return True
