"""Runs what is left of a study (Snakemake's records say it) on this machine, Slurm or PBS.

`logs/runs.jsonl` gets a line for each finished run.
"""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from tqdm import tqdm

from fly64lib.sweep.folder import SweepFolder
from fly64lib.sweep.processes import TAG, stop
from ptycho_torch.errors import MissingDependencyError
from ptycho_torch.files import folder_lock

HERE = Path(__file__).parent
_STEPS = re.compile(r"^(\d+) of (\d+) steps")
_STOPPED = 130


def snakemake(study: SweepFolder) -> list[str]:
    """Snakemake's command for a study's graph."""
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(HERE / "Snakefile")),
        *("--directory", str(study.folder), "--configfile", str(study.folder / "study.json")),
        *("--cores", str(study.cores)),
    ]


def run(study: SweepFolder, progress: bool = True) -> int:
    """Do what is left of a study, one process at a time, and return Snakemake's exit code."""
    beside = str(Path(sys.executable).parent)
    if not shutil.which("snakemake", path=beside) and not shutil.which("snakemake"):
        raise MissingDependencyError("the sweep needs Snakemake: pip install 'fly64[sweep]'")
    with folder_lock(study.folder):
        if stopped := stop(study):
            print(f"stopped what an earlier run had left: {', '.join(stopped)}", file=sys.stderr)
        study.write()
        study.log.parent.mkdir(exist_ok=True)
        for left in (study.folder / "notebooks").rglob(".tmp-*.ipynb"):
            left.unlink()
        environment = os.environ | {TAG: study.name, "PYTHONUNBUFFERED": "1"}
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            with study.log.open("a", encoding="utf-8") as log:
                if any((study.folder / ".snakemake" / "locks").glob("*")):
                    unlock = [*snakemake(study), "--unlock"]
                    subprocess.run(unlock, env=environment, stdout=log, stderr=log, check=True)
                return _run(study, environment, log, progress)
        finally:
            signal.signal(signal.SIGTERM, before)


def _run(study: SweepFolder, environment: dict, log: IO[str], progress: bool) -> int:
    started, cpu_before_s = time.time(), _children_cpu_seconds()
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    reading = {"text": True, "errors": "replace"}
    command = [*snakemake(study), *_how(study)]
    with subprocess.Popen(command, env=environment, **streams, **reading) as process:
        try:
            _follow(process.stdout, log, progress)
        except KeyboardInterrupt:
            stop(study)
            return _STOPPED
    finished = {
        "started": round(started),
        "wall_s": round(time.time() - started, 1),
        "cores": study.cores,
        "cpu_s": round(_children_cpu_seconds() - cpu_before_s, 1),
        "exit_code": process.returncode,
    }
    with (study.folder / "logs" / "runs.jsonl").open("a", encoding="utf-8") as runs:
        runs.write(json.dumps(finished) + "\n")
    return process.returncode


def _children_cpu_seconds() -> float:
    """Of Snakemake and, on this machine, of all jobs under it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _how(study: SweepFolder) -> list[str]:
    """Snakemake's options: how and where jobs run."""
    options = ["--rerun-incomplete", "--keep-going", "--scheduler", "greedy"]
    options += ["--max-checksum-file-size", "64GB"]  # the same bytes made again rerun nothing
    if study.executor != "local":
        options += ["--jobs", str(study.cores), "--latency-wait", "60"]
    if study.executor == "slurm":
        # sacct may be there and fail, where Slurm keeps no accounts
        tried = shutil.which("sacct") and subprocess.run(["sacct", "-n"], capture_output=True)
        accounts = tried and tried.returncode == 0
        options += ["--executor", "slurm", "--slurm-jobname-prefix", study.name]
        options += ["--slurm-status-command", "sacct" if accounts else "squeue"]
        options += ["--slurm-init-seconds-before-status-checks", "10"]
    if study.executor == "pbs":
        options += ["--executor", "cluster-generic"]
        for what in ("submit", "status", "cancel"):
            script = f"{sys.executable} {HERE / 'pbs.py'} {what} {study.name}"
            options += [f"--cluster-generic-{what}-cmd", script]
    return [*options, *study.options]


def _follow(lines: IO[str], log: IO[str], progress: bool) -> None:
    """Snakemake's lines into the log; a bar over the jobs of this run."""
    with tqdm(desc="study", unit=" job", disable=not progress, dynamic_ncols=True) as bar:
        for line in lines:
            log.write(line)
            log.flush()
            if found := _STEPS.match(line):
                bar.total = int(found[2])
                bar.update(int(found[1]) - bar.n)
            elif line.startswith(("Error in rule", "Error in group")):
                bar.write(line.rstrip(), file=sys.stderr)
