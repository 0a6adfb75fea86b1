"""Arrays in an npz file, read without trusting the file, and mapped instead of loaded.

`np.load(path, mmap_mode="r")` ignores the mode for an npz, a zip of `.npy` members; `np.load` also
allocates what a header claims before it looks at the bytes. Here

- every header is first compared with the bytes that are there; nothing is allocated before that;
- a *stored* member (`np.savez`, :func:`write_npz`) is mapped where it lies in the file;
- a *deflated* one (`np.savez_compressed`) is unpacked once, in chunks, to an `.npy` file in a cache
  folder, and that is mapped. Its name is a hash of path, size, time and checksum, so that a changed
  file is never served from the cache;
- checksums are verified, pickled arrays are never opened, and whatever else is wrong with the file
  is a :class:`DataContractError` that names file and key, what was found and expected, what to do.
"""

import hashlib
import math
import mmap
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from ptycho_torch.data.container import check_container, damaged, data_start, key_of, refused
from ptycho_torch.files import atomic_path

CHUNK = 2**20
_KINDS = {  # how files begin
    b"PK": "a truncated or damaged zip",
    b"\x93NUMPY": "a single .npy array",
    b"\x89HDF": "an HDF5 file",
    b"BZh": "a bzip2 file",
    b"\x1f\x8b": "a gzip file",
}
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Member:
    """One array of the file, known by its header only."""

    info: zipfile.ZipInfo
    dtype: np.dtype
    shape: tuple[int, ...]
    order: str  # in memory: "C" or "F"
    header: bytes  # magic and header, up to the first value

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class NpzFile:
    """The arrays of an open npz, `members` by key: :meth:`read` one or :meth:`map` it."""

    def __init__(self, path: Path, handle: BinaryIO, archive: zipfile.ZipFile) -> None:
        self.path, self._handle, self._archive = path, handle, archive
        check_container(path, handle, archive)
        self.members = {key_of(info): self._member(info) for info in archive.infolist()}

    def keys(self) -> list[str]:
        """Names of all arrays, in order of the alphabet."""
        return sorted(self.members)

    def find(self, *names: str) -> str | None:
        """The first of these names that is a key here."""
        return next((name for name in names if name in self.members), None)

    def read(self, key: str) -> np.ndarray:
        """The array in memory; allocated only as large as the file's bytes."""
        member, values = self.members[key], bytearray()
        for chunk in self._values(key):
            values += chunk
        return np.ndarray(member.shape, member.dtype, values, order=member.order)

    def map(self, key: str, cache_dir: str | Path | None = None) -> np.ndarray:
        """The array mapped read-only, through the cache folder if it is deflated (default
        :func:`cache_folder`). It does not name its file: nobody is led from patterns to the truth
        beside them."""
        member = self.members[key]
        if member.nbytes == 0:
            return self.read(key)
        start, file = len(member.header), self._handle
        if member.info.compress_type == zipfile.ZIP_DEFLATED:
            file = self._unpack(key, cache_dir)
        else:
            for _ in self._values(key):  # to the end, for the checksum
                pass
            start += data_start(self._handle, member.info)
        mapped = np.memmap(file, member.dtype, "r", start, member.shape, member.order)
        mapped.filename = None
        return mapped

    def _member(self, info: zipfile.ZipInfo) -> Member:
        key = key_of(info)
        try:
            with self._archive.open(info) as stream:
                shape, fortran, dtype = _HEADERS[npy.read_magic(stream)](stream)
                length = stream.tell()
                stream.seek(0)
                header = stream.read(length)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise damaged(self.path, key, error) from error
        except Exception as error:  # whatever the parsers trip over is the file's fault
            text = f"its npy header cannot be read ({type(error).__name__}: {str(error)[:200]})"
            text += "; expected an array as np.savez writes it; write the file again"
            raise refused(self.path, key, text) from error
        if dtype.hasobject:
            text = f"a pickled array (dtype {dtype}); expected plain numbers or text; opening it"
            text += " could run code, so it is refused: save the values with a numeric dtype"
            raise refused(self.path, key, text)
        order, held = "F" if fortran else "C", info.file_size - len(header)
        member = Member(info, dtype, shape, order, header)
        if dtype.itemsize == 0 or min(shape, default=0) < 0 or member.nbytes != held:
            text = f"the header claims {str(shape)[:100]} {dtype} = {member.nbytes} bytes but the"
            text += f" member holds {held}; expected both to agree; write the file again"
            raise refused(self.path, key, text)
        return member

    def _values(self, key: str) -> Iterator[bytes]:
        """The bytes of the values in chunks; complete and with the right checksum, or an error."""
        member = self.members[key]
        left = member.nbytes
        try:
            with self._archive.open(member.info) as stream:
                stream.read(len(member.header))
                while chunk := stream.read(CHUNK):  # zipfile compares the checksum at the end
                    left -= len(chunk)
                    yield chunk
        except Exception as error:  # as above
            raise damaged(self.path, key, error) from error
        if left:
            raise damaged(self.path, key, f"{left} bytes are missing")

    def _unpack(self, key: str, cache_dir: str | Path | None) -> Path:
        member, status = self.members[key], os.fstat(self._handle.fileno())
        of_file = (self.path.resolve(), status.st_size, status.st_mtime_ns)
        name = "|".join(map(str, (*of_file, key, member.info.CRC, member.header)))
        folder = Path(cache_dir) if cache_dir else cache_folder(self.path)
        target = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.npy"
        if target.is_file() and target.stat().st_size == member.info.file_size:
            return target
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if shutil.disk_usage(folder).free < member.info.file_size:
                raise OSError("not enough free space")
            with atomic_path(target) as temporary, temporary.open("wb") as out:
                out.write(member.header)
                for chunk in self._values(key):
                    out.write(chunk)
        except OSError as error:
            text = f"its {member.nbytes} bytes cannot be unpacked to {folder} ({error}); expected a"
            text += " writable cache folder with room; pass another cache_dir, or store the file"
            text += " uncompressed (np.savez), which needs none"
            raise refused(self.path, key, text) from error
        return target


@contextmanager
def open_npz(path: str | Path) -> Iterator[NpzFile]:
    """Open an npz, container and headers checked; arrays mapped from it outlive the block."""
    path = Path(path)
    try:
        handle = path.open("rb")
    except OSError as error:
        text = f"cannot be opened ({error.strerror}); expected a readable npz file; check the path"
        raise refused(path, None, text) from error
    with handle:
        try:
            archive = zipfile.ZipFile(handle)
        except Exception as error:  # a damaged directory makes zipfile raise nearly anything
            handle.seek(0)
            start = handle.read(8)
            kinds = (kind for magic, kind in _KINDS.items() if start.startswith(magic))
            text = next(kinds, "not a zip file") if start else "empty (0 bytes)"
            text += "; expected an npz file that holds the keys of DATA-001; copy or write it again"
            text += f", or convert it: fly64 import {path} DST.npz"
            raise refused(path, None, text) from error
        with archive:
            yield NpzFile(path, handle, archive)


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays stored, to be mapped; atomically, in chunks; the same ones as the same bytes."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for key, array in arrays.items():
            info = zipfile.ZipInfo(f"{key}.npy")  # its date is constant
            with archive.open(info, "w", force_zip64=True) as stream:
                if not (isinstance(array, np.memmap) and array.flags.c_contiguous and array.ndim):
                    npy.write_array(stream, np.asanyarray(array), allow_pickle=False)
                    continue
                npy.write_array_header_1_0(stream, npy.header_data_from_array_1_0(array))
                step = max(1, CHUNK // max(1, array[:1].nbytes))
                for first in range(0, len(array), step):
                    stream.write(array[first : first + step].tobytes())
                    release(array)


def release(array: np.ndarray) -> None:
    """Give back the memory in which a mapped file has been read or written so far. The file keeps
    it, and it is read again where it is needed."""
    if isinstance(array, np.memmap) and array.mode != "c" and hasattr(mmap, "MADV_DONTNEED"):
        array._mmap.madvise(mmap.MADV_DONTNEED)


def cache_folder(path: Path) -> Path:
    """Where a compressed file is unpacked: `.fly64-cache` beside it; for a read-only folder (no
    write permission for this user, or, as root sees it, none at all) one of this user's own in the
    temporary folder, refused if it belongs to someone else."""
    folder = path.resolve().parent
    if os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222:
        return folder / ".fly64-cache"
    private = Path(tempfile.gettempdir()) / f"fly64-cache-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.is_symlink() or private.stat().st_uid != os.getuid():
        text = f"its folder is read-only and {private} belongs to another user; expected a cache"
        raise refused(path, None, f"{text} folder of this user; pass cache_dir")
    return private
