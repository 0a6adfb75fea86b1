"""Files that are either complete or absent: atomic writes, checksums, JSON, and a folder lock with
an owner.

Every result of the project is written through :func:`atomic_path`: to a temporary name in the same
folder, flushed to the disk, then renamed. A reader never sees half a file, and a killed writer
leaves only a `.tmp-*` name behind, which goes when the next run takes over its lock. A disk that
takes no more is one :class:`StorageError` that names file and disk."""

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
    """Yield a temporary path beside `path`; on success it replaces `path`, on any error it is
    removed.

    The temporary name keeps the suffix (numpy and matplotlib choose the format by it). Raises
    :class:`StorageError`, with `path` as it was before, where the disk is full, over quota,
    read-only or broken."""
    path = Path(path)
    with storage_checked(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(
            f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}"
        )  # threads may share a target
        try:
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def storage_checked(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write within the block into a :class:`StorageError` about `path`
    and its disk."""
    try:
        yield
    except StorageError:
        raise
    except Exception as error:
        refusal = _refusal(error)
        if refusal is None:
            raise
        folder = next(parent for parent in path.absolute().parents if parent.is_dir())
        mount = next(parent for parent in (folder, *folder.parents) if parent.is_mount())
        free = shutil.disk_usage(folder).free / 1e6
        raise StorageError(
            f"{path}: cannot be written: the disk at {mount} {_REFUSALS[refusal]}"
            f" ({os.strerror(refusal)}; {free:.1f} MB free); what was there before is kept: make"
            " room or choose another folder, then run it again"
        ) from error


def _refusal(error: BaseException | None) -> int | None:
    """The errno of a refusal to write. A zip that cannot be closed, say, hides it behind an error
    of its own."""
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
    """JSON of plain types, numpy scalars and arrays, and paths. NaN and what has no JSON form are
    refused."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain, **layout)
    except (TypeError, ValueError, RecursionError) as error:
        raise PtychoError(
            f"cannot be written as JSON ({error}); expected text, numbers, lists and dicts with"
            " text keys, no NaN or infinity: convert the value, or use null where there is none"
        ) from error


def read_json(path: str | Path) -> object:
    """Read a JSON file; an absent or broken one raises :class:`PtychoError` naming it."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PtychoError(f"{path}: no such file; run the step that writes it") from error
    except (OSError, ValueError, RecursionError) as error:
        raise PtychoError(
            f"{path}: cannot be read as JSON ({error}); remove it and run the step that wrote it"
            " again"
        ) from error


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@contextmanager
def folder_lock(folder: str | Path, patience_s: float = 0.0) -> Iterator[None]:
    """Hold `folder` for this process; a second holder gets an error that names the first, after
    `patience_s` of trying.

    The lock is a file naming host, process and holder; it appears whole, so that no kill leaves one
    that tells nothing. One left by a dead process of this host is taken over, and what that process
    had half written in the folder is removed."""
    folder = Path(folder)
    lock, until = folder / ".lock", time.monotonic() + patience_s
    owner = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "token": secrets.token_hex(8),
    }
    with storage_checked(lock):
        folder.mkdir(parents=True, exist_ok=True)
        while not _claimed(lock, owner):
            if time.monotonic() >= until:
                raise PtychoError(
                    f"{folder} is in use by {_described(_holder(lock))}; wait for it, choose"
                    f" another folder, or remove {lock} if that run is gone"
                )
            time.sleep(0.05)
    try:
        yield
    finally:
        if (
            _holder(lock) == owner
        ):  # a person may have removed it by hand, and another run have taken the folder
            lock.unlink(missing_ok=True)


def _claimed(lock: Path, owner: dict) -> bool:
    """Whether the lock could be made. A dead owner's is removed first."""
    if _dead(_holder(lock)):
        _remove_dead(lock)
    temporary = lock.with_name(f".tmp-{os.getpid()}-{owner['token']}-lock")
    try:
        temporary.write_text(json.dumps(owner), encoding="utf-8")
        try:
            os.link(temporary, lock)  # fails if there is one, also on NFS
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            with lock.open(
                "x", encoding="utf-8"
            ) as handle:  # a file system without links: killed here, it stays empty
                json.dump(owner, handle)
    except FileExistsError:
        return False
    finally:
        temporary.unlink(missing_ok=True)
    return True


def _remove_dead(lock: Path) -> None:
    """Remove a dead owner's lock, unless another process has done so and taken the folder: one at a
    time, and only the very file that was found dead. Holders of that file's own kernel lock are
    processes of this host, and it dies with them."""
    try:
        with lock.open("r+") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            holder, found = _holder(lock), os.fstat(handle.fileno())
            if lock.stat().st_ino == found.st_ino and _dead(holder):
                for left in lock.parent.rglob(f".tmp-{holder['pid']}-*"):
                    left.unlink(missing_ok=True)
                lock.unlink()
    except OSError:  # another process was faster; or no permission, or no kernel locks here: then the lock stays, and is told
        pass


def _described(holder: dict) -> str:
    return f"process {holder.get('pid')} on {holder.get('host')}" if holder else "another run"


def _holder(lock: Path) -> dict:
    """Who holds the lock; empty when nobody does or the file tells nothing."""
    try:
        holder = json.loads(lock.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _dead(holder: dict) -> bool:
    """Whether the holder was a process of this host and is gone; of other hosts nothing can be
    known.

    Numbers of processes come again after a restart: a process that started at another time is
    another one."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass
    started = _started(pid)
    return None not in (started, holder.get("started")) and started != holder["started"]


def _started(pid: int) -> str | None:
    """When a process started: boot and clock ticks since; "ended" if it waits to be reaped; None:
    the system doesn't tell."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (
            "ended"
            if state in "ZX"
            else f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {rest[18]}"
        )
    except (OSError, IndexError):
        return None


def _plain(value: object) -> object:
    """Numpy scalars, arrays and paths as JSON types."""
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} has no JSON form")
