"""What a file format is to import and export, and which one a file has.

A format is one file with one :class:`Format`, named by one line of
:data:`fly64lib.registries.FORMATS`, or by an entry point of another package.
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fly64lib.formats.hdf5 import HDF5_START, open_hdf5
from fly64lib.formats.raw import RawScan
from fly64lib.registries import FORMATS
from ptycho_torch.data.checks import check_layout
from ptycho_torch.data.npz import NpzFile, open_npz, refused
from ptycho_torch.data.scan import KEYS, ScanData
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.fields import config

Above0 = Annotated[float, Field(gt=0, lt=1e9)]
ZIP_START = b"PK"


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


@dataclass(frozen=True, kw_only=True)
class Format:
    """One format. What it cannot do is None."""

    holds: str  # what it is known by, in a few words: "HDF5 with dp"
    recognises: Callable[[Path], bool] | None = None  # default: by the endings
    read: Callable[[Path, Access], RawScan] | None = None
    write: Callable[[Path, ScanData, Optics], list[Path]] | None = None  # the files written
    endings: tuple[str, ...] = ()  # of names that are this format's, without --format

    def fits(self, path: Path) -> bool:
        """Whether a file is of this format."""
        return self.recognises(path) if self.recognises else path.name.endswith(self.endings)


def readers() -> dict[str, Format]:
    """Formats that can be imported."""
    return {name: entry for name, entry in FORMATS.items() if entry.read}


def writers() -> dict[str, Format]:
    """Formats that can be exported."""
    return {name: entry for name, entry in FORMATS.items() if entry.write}


def reader_of(path: Path, asked: str | None = None) -> str:
    """Name of the format in which a file is read: the one asked for, or the only one that fits."""
    if asked is not None:
        if FORMATS[asked].read is None:
            raise ConfigError(f"{asked} cannot be imported; there are {', '.join(readers())}")
        return asked
    if _is_data001(path):
        raise refused(
            path,
            None,
            "this is a DATA-001 file already; expected another program's file; use it as it is:"
            " every command of fly64 reads it (fly64 export writes it in other formats)",
        )
    found = [name for name, entry in readers().items() if entry.fits(path)]
    if len(found) != 1:
        listed = "; ".join(f"{name}: {entry.holds}" for name, entry in readers().items())
        fits = f", which fits {' and '.join(found)}" if found else ""
        raise refused(
            path,
            None,
            f"{_contents(path)}{fits}; expected the keys of one format ({listed}); name it with"
            " --format, or rename the keys (docs/import_export.md)",
        )
    return found[0]


def writer_of(target: Path, asked: str | None = None) -> str:
    """Name of the format in which a file is written: the one asked for, or by the name's ending."""
    fits = (name for name, entry in writers().items() if target.name.endswith(entry.endings))
    name = asked or next(fits, None)
    if name is None or FORMATS[name].write is None:
        found = f"{asked} cannot be exported" if asked else f"no format goes with {target.suffix!r}"
        raise ConfigError(f"{target}: {found}; pass --format {' | '.join(writers())}")
    return name


def in_npz(fits: Callable[[NpzFile], bool]) -> Callable[[Path], bool]:
    """`recognises` of a format that is an npz file."""

    def recognises(path: Path) -> bool:
        if not _start(path).startswith(ZIP_START):
            return False
        with open_npz(path) as archive:
            return fits(archive)

    return recognises


def in_hdf5(*names: str) -> Callable[[Path], bool]:
    """`recognises` of a format that is an HDF5 file with one of these data sets."""

    def recognises(path: Path) -> bool:
        if _start(path) != HDF5_START:
            return False
        with open_hdf5(path) as file:
            return file.find(*names) is not None

    return recognises


def _keeps_contract(archive: NpzFile) -> bool:
    try:
        check_layout(KEYS, archive.members, archive.path)
    except DataContractError:
        return False
    return True


_is_data001 = in_npz(_keeps_contract)


def _start(path: Path) -> bytes:
    with path.open("rb") as handle:
        return handle.read(len(HDF5_START))


def _contents(path: Path) -> str:
    """What a file seems to be."""
    start = _start(path)
    if start.startswith(ZIP_START):
        with open_npz(path) as archive:
            return f"an npz with the keys {', '.join(archive.keys()[:12]) or 'none'}"
    if start == HDF5_START:
        with open_hdf5(path) as file:
            return f"an HDF5 file with {', '.join(file.keys()[:12])}"
    return f"a file that begins with {start!r}"
