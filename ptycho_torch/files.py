"""Files that are complete or absent: atomic writes, checksums, JSON, a folder lock with an owner.

Every result of the project is written through :func:`atomic_path`. A reader never sees half a file,
and a killed writer leaves only a `.tmp-*` name behind, which goes when the next run takes over its
lock. A disk that takes no more is one :class:`StorageError` that names file and disk."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ptycho_torch.errors import PtychoError, StorageError

_REFUSALS = {
    errno.ENOSPC: "is full",
    errno.EDQUOT: "has no quota left for this user",
    errno.EROFS: "is read-only",
    errno.EFBIG: "takes no larger file",
    errno.EIO: "failed",
}


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, else it is removed.

    It keeps the suffix (numpy and matplotlib choose the format by it). :class:`StorageError`, with
    `path` as it was, where the disk is full, over quota, read-only or broken."""
    path = Path(path)
    with storage_checked(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        unique = f"{os.getpid()}-{secrets.token_hex(4)}"  # threads may share a target
        temporary = path.with_name(f".tmp-{unique}-{path.name}")
        try:
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def storage_checked(path: Path) -> Iterator[None]:
    """Turn a refusal to write within the block into a :class:`StorageError` of `path` and disk."""
    try:
        yield
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None or isinstance(error, StorageError):
            raise
        folder = next(parent for parent in path.absolute().parents if parent.is_dir())
        mount = next(parent for parent in (folder, *folder.parents) if parent.is_mount())
        free = shutil.disk_usage(folder).free / 1e6
        text = f"{path}: cannot be written: the disk at {mount} {_REFUSALS[refusal]}"
        text += f" ({os.strerror(refusal)}; {free:.1f} MB free); what was there before is kept:"
        advice = "make room or choose another folder, then run it again"
        raise StorageError(f"{text} {advice}") from error


def _refusal(error: BaseException | None) -> int | None:
    """The errno of a refusal to write; a zip that cannot be closed hides it behind its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON (:func:`json_text`), atomically."""
    text = json_text(value, indent=2, sort_keys=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def json_text(value: object, **layout: object) -> str:
    """JSON of plain types, numpy scalars and arrays, and paths; refuses NaN and anything else."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain, **layout)
    except (TypeError, ValueError, RecursionError) as error:
        text = f"cannot be written as JSON ({error}); expected text, numbers, lists and dicts with"
        text += " text keys, no NaN or infinity: convert the value, or use null where there is none"
        raise PtychoError(text) from error


def read_json(path: str | Path) -> object:
    """Read a JSON file; an absent or broken one raises :class:`PtychoError` naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PtychoError(f"{path}: no such file; run the step that writes it") from error
    except (OSError, ValueError, RecursionError) as error:
        text = f"{path}: cannot be read as JSON ({error}); remove it and run the step that wrote it"
        raise PtychoError(f"{text} again") from error


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def folder_lock(folder: str | Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold `folder` for this process; a second holder gets an error that names the first, after
    `patience_s` of trying.

    The lock is a file that names host and process, under a lock of the kernel, which ends with its
    process however that ends. The next holder on that host removes what a killed one had half
    written in the folder. The lock of another host stays: of its processes nothing can be known."""
    folder = Path(folder)
    lock, until = folder / ".lock", time.monotonic() + patience_s
    while True:
        with storage_checked(lock):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                file, new = lock.open("xb+", buffering=0), True
            except FileExistsError:
                file, new = lock.open("ab+", buffering=0), False
        with file:
            with storage_checked(lock):
                claimed = _claimed(file, lock, new)
            if claimed:
                try:
                    yield
                finally:
                    # A person may have removed it, and another run have taken the folder since.
                    if _is_at(file, lock):
                        lock.unlink()
                return
            if _is_at(file, lock) and time.monotonic() >= until:
                holder = lock_holder(lock) or {"pid": "unknown", "host": "an unknown host"}
                who = f"process {holder.get('pid')} on {holder.get('host')}"
                advice = f"wait for it, choose another folder, or remove {lock} if that run is gone"
                raise PtychoError(f"{folder} is in use by {who}; {advice}")
        time.sleep(0.05)


def _claimed(file: BinaryIO, lock: Path, new: bool) -> bool:
    """Whether the open lock file, `new` or found, is this process's now."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no kernel locks on this disk: what is found stays until a person removes it
        mine = new
    else:
        mine = _is_at(file, lock) and _left(lock)
    if mine:
        file.truncate(0)
        file.write(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}).encode())
    return mine


def _left(lock: Path) -> bool:
    """Whether a killed process of this host left the lock (empty: killed at once); then what it had
    half written goes."""
    holder = lock_holder(lock)
    if holder.get("host") != socket.gethostname() or type(holder.get("pid")) is not int:
        return lock.stat().st_size == 0
    for half in lock.parent.rglob(f".tmp-{holder['pid']}-*"):
        half.unlink(missing_ok=True)
    return True


def lock_holder(lock: Path) -> dict:
    """Who holds the lock; empty when nobody does or the file tells nothing."""
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_at(file: BinaryIO, path: Path) -> bool:
    """Whether `path` still leads to the open `file`."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _plain(value: object) -> object:
    """Numpy scalars, arrays and paths as JSON types."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
