"""Peak memory and time of `fly64 import` and `fly64 check` on a scan of full size.

    python benchmarks/import_and_check.py [--patterns 10000] [--n 128] [--repeats 3]

Counts of the twin of fly001 in upstream's raw npz, uint16, are imported, and what that gives is
checked, each command in a process of its own. The goals: no more resident memory than 1.5 times
the patterns' bytes and 600 MB, and 60 s. Bytes are those of the file that the command reads, mapped
files count as resident. On a machine that does other work the CPU seconds are what to read. Exits
with 1 where a goal is missed."""

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import fresh, main, table

from fly64lib.design.study import ScanDesign
from fly64lib.simulation.experiment import embedded_experiment, expected_patterns
from ptycho_torch.fields import Positive, config

LIMIT_S, LIMIT_MB, SHARE = 60, 600, 1.5
_DOSE, _PART = 1e5, 256  # photons per exposure; patterns that are drawn at once


@config
class ImportAndCheckOptions:
    """Memory and time of import and check against the number of patterns."""

    patterns: Positive = 10000  # of the file
    n: Positive = 128  # detector side, pixels
    repeats: Positive = 3  # of both commands
    folder: Path | None = None  # where the files go, 5 GB at full size; None: a temporary one


def write_raw(path: Path, patterns: int, n: int) -> None:
    """The first exposures of the twin's scan at 1e5 photons, as upstream's raw npz."""
    torch.set_num_threads(1)
    experiment = embedded_experiment(ScanDesign(N=n, simulation="matched"))
    expected = expected_patterns(experiment)[:patterns]
    factor = _DOSE / float(expected.sum((1, 2), dtype=np.float64).mean())
    counts, rng = np.empty(expected.shape, np.uint16), np.random.default_rng(0)
    for first in range(0, len(expected), _PART):
        part = slice(first, first + _PART)
        counts[part] = rng.poisson(expected[part] * factor)
    y, x = experiment.positions_px[:patterns].T
    probe = (experiment.coarse_probe * factor**0.5).astype(np.complex64)
    np.savez(path, diff3d=counts, xcoords=x, ycoords=y, probeGuess=probe)


def cost(arguments: list[str]) -> tuple[int, float, float, float]:
    """Exit code, wall and CPU seconds and peak resident memory, MB, of a fly64 command."""
    command, start = [sys.executable, "-m", "fly64lib.cli.main", *arguments], time.perf_counter()
    process = os.posix_spawn(command[0], command, os.environ)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return code, time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def import_and_check(options: ImportAndCheckOptions) -> int:
    """0 if the goals are kept."""
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        raw, scan = Path(name, "raw.npz"), Path(name, "scan.npz")
        fresh(write_raw, raw, options.patterns, options.n)
        held = options.patterns * options.n**2 / 2**20
        for repeat in range(options.repeats):
            asked = {
                "import": ([str(raw), str(scan), "--overwrite", "--picture", "none"], 2),
                "check": ([str(scan)], 4),
            }
            for command, (arguments, size) in asked.items():
                code, seconds, cpu_s, peak = fresh(cost, [command, *arguments])
                limit = SHARE * held * size + LIMIT_MB
                row = {"command": command, "repeat": repeat, "exit": code, "s": seconds}
                rows.append(row | {"CPU s": cpu_s, "peak MB": peak, "limit MB": limit})
                print(table(rows[-1:], list(rows[-1])), flush=True)
    return int(any(row["peak MB"] > row["limit MB"] or row["s"] > LIMIT_S for row in rows))


if __name__ == "__main__":
    main(ImportAndCheckOptions, import_and_check)
