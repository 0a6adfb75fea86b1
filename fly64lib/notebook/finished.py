"""A job's own finished result, found again.

The sweep learns that a job has ended some seconds after its last file was written. What a kill cuts
off in between it would make again. So a job keeps a link to each of its files under a key of all
that made them: inputs, parameters, code. The same job, asked for again, takes them from there."""

import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from ptycho_torch.files import json_text


def result_key(asked: Iterable[str], inputs: Sequence[Path]) -> str:
    """Of a job's words (notebook, parameters, code) and input files, by name, size and time."""
    files = [(str(path), (at := path.stat()).st_size, at.st_mtime_ns) for path in inputs]
    return hashlib.sha256(json_text([list(asked), files]).encode()).hexdigest()


def take(folder: Path, key: str, outputs: Sequence[Path]) -> bool:
    """Put the files of a finished job in their places; False where there is none."""
    kept = folder / key
    if not kept.is_dir():
        return False
    for number, path in enumerate(outputs):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        _link(kept / str(number), path)
    return True


def keep(folder: Path, key: str, outputs: Sequence[Path]) -> None:
    """Remember the files of a job that has ended: all of them, or none."""
    part = folder / f"{key}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for number, path in enumerate(outputs):
        _link(path, part / str(number))
    shutil.rmtree(folder / key, ignore_errors=True)
    part.rename(folder / key)


def _link(source: Path, target: Path) -> None:
    """One file under two names, or a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
