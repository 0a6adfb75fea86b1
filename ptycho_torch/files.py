"""Files that are either complete or absent: atomic writes, checksums, JSON, and a folder lock with an owner.

Every result of the project is written through :func:`atomic_path`: to a temporary name in the same folder, flushed to
the disk, then renamed. A reader never sees half a file, and a killed writer leaves only a `.tmp-*` name behind.
"""

import hashlib
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptycho_torch.errors import PtychoError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it replaces `path`, on any error it is removed.

    The temporary name keeps the suffix (numpy and matplotlib choose the format by it).
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")  # threads may share a target
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: str | Path, value: object) -> None:
    """Write `value` as indented JSON (:func:`json_text`), atomically."""
    text = json_text(value, indent=2, sort_keys=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def json_text(value: object, **layout: object) -> str:
    """JSON of plain types, numpy scalars and arrays, and paths. NaN and what has no JSON form are refused."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain, **layout)
    except (TypeError, ValueError, RecursionError) as error:
        raise PtychoError(f"cannot be written as JSON ({error}); expected text, numbers, lists and dicts with text "
                          "keys, no NaN or infinity: convert the value, or use null where there is none") from error


def read_json(path: str | Path) -> object:
    """Read a JSON file; an absent or broken one raises :class:`PtychoError` naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PtychoError(f"{path}: no such file; run the step that writes it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise PtychoError(f"{path}: cannot be read as JSON ({error}); remove it and run the step that wrote it again"
                          ) from error


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def folder_lock(folder: str | Path) -> Iterator[None]:
    """Hold `folder` for this process; a second holder gets an error that names the first.

    The lock is a file naming host, process and holder. One left by a dead process of this host is taken over, under a
    second lock: without it, of two processes that find the same dead holder, one would remove the other's new lock.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock, guard = folder / ".lock", folder / ".lock-takeover"
    owner = {"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}
    if _dead(_holder(lock)):
        _claim(guard, owner)
        try:
            if _dead(_holder(lock)):
                lock.unlink(missing_ok=True)
        finally:
            guard.unlink(missing_ok=True)
    _claim(lock, owner)
    try:
        yield
    finally:
        if _holder(lock) == owner:  # a person may have removed it by hand, and another run have taken the folder
            lock.unlink(missing_ok=True)


def _claim(lock: Path, owner: dict) -> None:
    try:
        with lock.open("x", encoding="utf-8") as handle:
            json.dump(owner, handle)
    except FileExistsError:
        holder = _holder(lock)
        who = f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another run"
        raise PtychoError(f"{lock.parent} is in use by {who}; wait for it, choose another folder, or remove {lock} if "
                          "that run is gone") from None


def _holder(lock: Path) -> dict:
    """Who holds the lock; empty when nobody does or the file tells nothing."""
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _dead(holder: dict) -> bool:
    """Whether the holder was a process of this host and is gone; of other hosts nothing can be known."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    return False


def _plain(value: object) -> object:
    """Numpy scalars, arrays and paths as JSON types."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
