"""Arrays in an npz file, read without trusting the file, and mapped instead of loaded.

An npz is a zip of `.npy` members. `np.load(path, mmap_mode="r")` ignores the mode for it and loads
every array it is asked for; `np.load` also allocates what a header claims before it looks at the
bytes. Here

- every header is read first and compared with the bytes that are there; nothing is allocated before
  that;
- a *stored* member (`np.savez`, :func:`write_npz`) is mapped where it lies in the file;
- a *deflated* one (`np.savez_compressed`) is unpacked once, in chunks, to an `.npy` file in a cache
  folder, and that is
  mapped. Its name is a hash of path, size, time and checksum, so that a changed file is never
  served from the cache;
- checksums are verified, pickled arrays are never opened, and whatever else is wrong with the file
  is a
  :class:`DataContractError` that names the file, the key, what came, what was expected and what to
  do.
"""

import hashlib
import math
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

from ptycho_torch.errors import DataContractError
from ptycho_torch.files import atomic_path

MAX_MEMBERS = 256
MAX_BYTES = 64 * 2**30  # of one array
BOMB_BYTES, BOMB_RATIO = (
    2**28,
    400,
)  # deflate packs constants 1000 : 1, photon counts less than 50 : 1
DESCRIPTOR = 24  # bytes that a streaming writer may leave after a member
CHUNK = 2**20


def broken(source: object, key: str | None, came: str, expected: str, do: str) -> DataContractError:
    """The one form of the contract's messages: file, key, what came, what was expected, what to
    do."""
    where = f"{source}: key {key!r}" if key else f"{source}"
    return DataContractError(f"{where}: {came}; expected {expected}; {do}")


@dataclass(frozen=True)
class Member:
    """One array of the file, known by its header only."""

    info: zipfile.ZipInfo
    dtype: np.dtype
    shape: tuple[int, ...]
    fortran: bool
    header: bytes  # magic and header, up to the first value

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class NpzFile:
    """The arrays of an open npz: `members` (key -> :class:`Member`), :meth:`read` one or
    :meth:`map` it."""

    def __init__(self, path: Path, handle: BinaryIO, archive: zipfile.ZipFile) -> None:
        self.path, self._handle, self._archive = path, handle, archive
        _check_layout(path, handle, archive)
        self.members = {
            info.filename.removesuffix(".npy"): self._member(info) for info in archive.infolist()
        }

    def keys(self) -> list[str]:
        """Names of all arrays, in order of the alphabet."""
        return sorted(self.members)

    def find(self, *names: str) -> str | None:
        """The first of these names that is a key here."""
        return next((name for name in names if name in self.members), None)

    def read(self, key: str) -> np.ndarray:
        """The array in memory; allocated only as large as the file's bytes."""
        member = self.members[key]
        values, filled = np.empty(member.nbytes, np.uint8), 0
        for chunk in self._values(key):
            values[filled : filled + len(chunk)] = np.frombuffer(chunk, np.uint8)
            filled += len(chunk)
        return values.view(member.dtype).reshape(member.shape, order="F" if member.fortran else "C")

    def map(self, key: str, cache_dir: str | Path | None = None) -> np.ndarray:
        """The array mapped read-only, through the cache folder if it is deflated (default
        :func:`cache_folder`). It does not name its file: nobody is led from patterns to the truth
        beside them."""
        member = self.members[key]
        if member.nbytes == 0:
            return self.read(key)
        layout = {
            "dtype": member.dtype,
            "mode": "r",
            "shape": member.shape,
            "order": "F" if member.fortran else "C",
        }
        if member.info.compress_type == zipfile.ZIP_DEFLATED:
            unpacked = self._unpack(key, cache_dir)
            mapped = np.memmap(unpacked, offset=len(member.header), **layout)
        else:
            for _ in self._values(key):  # to the end, for the checksum
                pass
            start = _data_start(self._handle, member.info) + len(member.header)
            mapped = np.memmap(self._handle, offset=start, **layout)
        mapped.filename = None
        return mapped

    def _member(self, info: zipfile.ZipInfo) -> Member:
        key = info.filename.removesuffix(".npy")
        try:
            with self._archive.open(info) as stream:
                version = np.lib.format.read_magic(stream)
                parse = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }
                shape, fortran, dtype = parse[version](stream)
                length = stream.tell()
                stream.seek(0)
                header = stream.read(length)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise _damaged(self.path, key, error) from error
        except Exception as error:  # whatever the parsers trip over is the file's fault
            raise broken(
                self.path,
                key,
                f"its npy header cannot be read ({type(error).__name__}: {str(error)[:200]})",
                "an array as np.savez writes it",
                "write the file again",
            ) from error
        if dtype.hasobject:
            raise broken(
                self.path,
                key,
                f"a pickled array (dtype {dtype})",
                "plain numbers or text",
                "opening it could run code, so it is refused: save the values with a numeric dtype",
            )
        member = Member(info, dtype, shape, fortran, header)
        if (
            dtype.itemsize == 0
            or min(shape, default=0) < 0
            or member.nbytes != info.file_size - len(header)
        ):
            raise broken(
                self.path,
                key,
                f"the header claims {_short(shape)} {dtype} = {member.nbytes} bytes but the "
                f"member holds {info.file_size - len(header)}",
                "both to agree",
                "write the file again",
            )
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
            raise _damaged(self.path, key, error) from error
        if left:
            raise _damaged(self.path, key, f"{left} bytes are missing")

    def _unpack(self, key: str, cache_dir: str | Path | None) -> Path:
        member, status = self.members[key], os.fstat(self._handle.fileno())
        name = f"{self.path.resolve()}|{status.st_size}|{status.st_mtime_ns}|{key}|{member.info.CRC}|{member.header!r}"
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
            raise broken(
                self.path,
                key,
                f"its {member.nbytes} bytes cannot be unpacked to {folder} ({error})",
                "a writable cache folder with room",
                "pass another cache_dir, or store the file "
                "uncompressed (np.savez), which needs none",
            ) from error
        return target


@contextmanager
def open_npz(path: str | Path) -> Iterator[NpzFile]:
    """Open an npz after checking its container and every header; arrays mapped from it outlive the
    block."""
    path = Path(path)
    try:
        handle = path.open("rb")
    except OSError as error:
        raise broken(
            path,
            None,
            f"cannot be opened ({error.strerror})",
            "a readable npz file",
            "check the path",
        ) from error
    with handle:
        try:
            archive = zipfile.ZipFile(handle)
        except Exception as error:  # a damaged directory makes zipfile raise nearly anything
            raise _not_npz(path, handle) from error
        with archive:
            yield NpzFile(path, handle, archive)


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays stored, so that they can be mapped; atomically, in chunks; the same arrays give
    the same bytes."""
    with (
        atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive,
    ):
        for key, array in arrays.items():
            info = zipfile.ZipInfo(f"{key}.npy")  # its date is constant
            with archive.open(info, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def cache_folder(path: Path) -> Path:
    """Where a compressed file is unpacked: `.fly64-cache` beside it; for a read-only folder, in the
    temporary folder.

    Read-only is a folder that this user may not write, or without any write permission at all (as
    root sees it). The folder in the temporary one is this user's own, and refused if it belongs to
    someone else."""
    folder = path.resolve().parent
    if os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222:
        return folder / ".fly64-cache"
    private = Path(tempfile.gettempdir()) / f"fly64-cache-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    if private.is_symlink() or private.stat().st_uid != os.getuid():
        raise broken(
            path,
            None,
            f"its folder is read-only and {private} belongs to another user",
            "a cache folder of this user",
            "pass cache_dir",
        )
    return private


def _check_layout(path: Path, handle: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Refuse what np.savez never writes: foreign, repeated, encrypted, absurdly large or
    overlapping members, and gaps (of a member that a damaged directory lost, zipfile says nothing).
    """
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise broken(
            path,
            None,
            f"{len(infos)} members",
            f"at most {MAX_MEMBERS} arrays",
            "write the file again",
        )
    seen, end = set(), 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        key, packed, full = info.filename.removesuffix(".npy"), info.compress_size, info.file_size
        if key == info.filename:
            raise broken(
                path,
                key,
                "a member that is not an .npy array",
                "arrays only",
                "write it with np.savez",
            )
        if key in seen:
            raise broken(
                path,
                key,
                "the key is there twice",
                "each key once",
                "write the file again with one of them",
            )
        seen.add(key)
        if info.flag_bits & 1 or info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):
            raise broken(
                path,
                key,
                "encrypted, or compressed by a method numpy does not use",
                "a stored or deflated member",
                "write it with np.savez or np.savez_compressed",
            )
        if full > MAX_BYTES or (full > BOMB_BYTES and full > BOMB_RATIO * packed):
            raise broken(
                path,
                key,
                f"{packed} bytes claim to unpack to {full}",
                f"at most {MAX_BYTES} bytes, and at most {BOMB_RATIO} times what is in the file",
                "store the array uncompressed (np.savez) if it is real",
            )
        stored_lies = info.compress_type == zipfile.ZIP_STORED and packed != full
        if stored_lies or not 0 <= info.header_offset - end <= DESCRIPTOR:
            raise _damaged(path, key, "its place in the file is not where the one before ends")
        end = _data_start(handle, info) + packed
    if not 0 <= archive.start_dir - end <= DESCRIPTOR:
        raise _damaged(path, None, "the members do not end where the directory begins")


def _data_start(handle: BinaryIO, info: zipfile.ZipInfo) -> int:
    """File offset of a member's bytes: a local header is 30 bytes, then its name and extra
    field."""
    handle.seek(info.header_offset)
    local = handle.read(30)
    return (
        info.header_offset
        + 30
        + int.from_bytes(local[26:28], "little")
        + int.from_bytes(local[28:30], "little")
    )


def _damaged(path: Path, key: str | None, why: object) -> DataContractError:
    return broken(
        path, key, f"damaged or truncated ({why})", "a complete file", "copy or write it again"
    )


def _not_npz(path: Path, handle: BinaryIO) -> DataContractError:
    handle.seek(0)
    start = handle.read(8)
    kinds = {
        b"": "empty (0 bytes)",
        b"PK": "a truncated or damaged zip",
        b"\x93NUMPY": "a single .npy array",
        b"\x89HDF": "an HDF5 file",
        b"BZh": "a bzip2 file",
        b"\x1f\x8b": "a gzip file",
    }
    came = next(
        (kind for magic, kind in kinds.items() if start[: len(magic) or 8] == magic),
        "not a zip file",
    )
    return broken(
        path,
        None,
        came,
        "an npz file that holds the keys of DATA-001",
        f"copy or write it again, or convert it: fly64 import {path} DST.npz",
    )


def _short(shape: tuple[int, ...]) -> str:
    return str(shape)[:100]
