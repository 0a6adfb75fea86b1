"""What Snakemake's graph of a study costs, before the first job and at every resume.

    python benchmarks/sweep_graph.py [--jobs 1000 10000] [--by replicates doses] [--limit-s 600]

A dry run of the sweep's own Snakefile in an empty folder, on a profile that has more replicates, or
one replicate and more doses, until it asks for about so many jobs. Nothing is simulated; no file is
there. Printed are the CPU time, the wall time and the peak resident memory of Snakemake's process,
and the CPU time a job. With more doses one job makes the files of all of them, and every other job
looks for its inputs among these."""

import os
import re
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

from common import main, table

from fly64lib.sweep import control
from fly64lib.sweep.folder import SweepFolder
from fly64lib.sweep.profile import Profile, load_profile
from ptycho_torch.fields import Positive, config

By = Literal["replicates", "doses"]


@config
class GraphOptions:
    """What Snakemake's graph of a study costs."""

    jobs: tuple[Positive, ...] = (100, 1000, 10_000)  # about so many
    by: tuple[By, ...] = ("replicates", "doses")  # what there is more of
    profile: str = "full"
    limit_s: Positive = 600  # wall time of one dry run


def scaled(profile: Profile, jobs: int, by: By) -> Profile:
    """The profile with so many replicates, or doses of one replicate, that it asks for about that
    many jobs."""
    one = replace(profile, replicates=1, doses=(1000.0,))
    if by == "doses":
        one_jobs, two_jobs = (
            len(replace(one, doses=doses).notebooks()) for doses in ((1e3,), (1e3, 1e4))
        )
        more = max(1, 1 + round((jobs - one_jobs) / (two_jobs - one_jobs)))
        return replace(one, doses=tuple(1000.0 + number for number in range(more)))
    a_replicate = len(replace(profile, replicates=1).notebooks()) - 1
    return replace(profile, replicates=max(1, round(jobs / a_replicate)))


def dry_run(profile: Profile, limit_s: float) -> dict[str, float | str]:
    """CPU seconds, wall seconds and peak memory (MB) of Snakemake's dry run of a profile."""
    with tempfile.TemporaryDirectory(prefix="fly64-") as folder:
        given = {"folder": Path(folder), "profile": "full", "settings": profile, "cores": 1}
        study = SweepFolder(**given)
        study.write()
        command = [*control.snakemake(study), *control.how(study), "--dry-run", "--quiet", "rules"]
        started, peak_mb, late, ended = time.perf_counter(), 0.0, False, (0, 0, None)
        said = Path(folder) / "said.txt"
        with said.open("w") as stream:
            process = subprocess.Popen(command, stdout=stream, stderr=stream)
            while not ended[0]:
                time.sleep(0.05)
                peak_mb = max(peak_mb, held_mb(process.pid))
                if not late and time.perf_counter() - started > limit_s:
                    late = True
                    process.kill()
                ended = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(ended[1])
        last = said.read_text(errors="replace")[-2000:]
    if process.returncode and not late:
        raise RuntimeError(f"Snakemake ended with {process.returncode}:\n{last}")
    jobs, cpu_s = len(profile.notebooks()), ended[2].ru_utime + ended[2].ru_stime
    measured = {"jobs": jobs, "CPU s": cpu_s, "wall s": time.perf_counter() - started}
    measured |= {"peak MB": peak_mb, "ms a job": 1e3 * cpu_s / jobs}
    return measured | {"": f"stopped after {limit_s:g} s" if late else ""}


def held_mb(pid: int) -> float:
    """Peak resident memory of a process so far, MB. Not what the system reports at its end: that
    counts what this process held when it made the other."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else 0.0


def sweep_graph(options: GraphOptions) -> int:
    """Measure each size and shape, and print a line for each as it comes."""
    profile = load_profile(options.profile)
    columns = ["more", "jobs", "CPU s", "wall s", "peak MB", "ms a job", ""]
    rows = []
    for by in options.by:
        for jobs in options.jobs:
            rows.append({"more": by} | dry_run(scaled(profile, jobs, by), options.limit_s))
            print(table(rows[-1:], columns), flush=True)
    print(f"\n{table(rows, columns)}")
    return 0


if __name__ == "__main__":
    main(GraphOptions, sweep_graph)
