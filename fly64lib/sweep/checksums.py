"""Snakemake's checksum of a file, computed once.

Snakemake 9 computes the checksums of all inputs of a job anew for each of its outputs: for phase D
these are many large files. Its method is wrapped, since it has no hook there: a
file that has the size and the time of a known one is not read again."""

import functools
import os
from typing import Any

from snakemake.io import _IOFile

Seen = tuple[str, int, int, str]  # path, size, time in ns, what was asked


def remember_checksums() -> None:
    """Let this process read a file once for its checksum."""
    compute, known = _IOFile.checksum, {}

    @functools.wraps(compute)
    async def checksum(self: _IOFile, *limits: Any, **options: Any) -> str | None:
        try:
            at = os.stat(self.file)
        except OSError:
            at = None
        if at is None:
            return await compute(self, *limits, **options)
        asked = repr((limits, options))
        seen: Seen = str(self.file), at.st_size, at.st_mtime_ns, asked
        if seen not in known:
            known[seen] = await compute(self, *limits, **options)
        return known[seen]

    _IOFile.checksum = checksum
