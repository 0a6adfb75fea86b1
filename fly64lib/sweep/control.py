"""Runs what is left of a study (Snakemake's records say it) on this machine, Slurm or PBS; and
finds and stops what runs.

`logs/runs.jsonl` gets a line for each finished run. All processes of a study carry its name in
their environment, and its cluster jobs in their own, so that what a killed driver left behind is
stopped before another job writes the same files."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import psutil
from tqdm import tqdm

from fly64lib.methods.forked import SERVER
from fly64lib.notebook import fork_server
from fly64lib.sweep.folder import SweepFolder
from ptycho_torch.commands import STOPPED, cpu_seconds, interruptible
from ptycho_torch.errors import MissingDependencyError
from ptycho_torch.files import folder_lock

HERE = Path(__file__).parent
TAG = "FLY64_STUDY"  # the environment variable that holds the study's name
_STEPS = re.compile(r"^(\d+) of (\d+) steps")
# A condition's rules: its jobs wait for one another, and may be one cluster job.
_OF_CONDITION = ("train", "reconstruct", "reconstruct_iterative", "compare")
_ALIVE = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED")  # Slurm's states


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
        environment.pop(SERVER, None)  # another run's, whose processes do not carry this name
        with interruptible(signal.SIGINT, signal.SIGTERM):
            try:
                with study.log.open("a", encoding="utf-8") as log:
                    if any((study.folder / ".snakemake" / "locks").glob("*")):
                        unlock = [*snakemake(study), "--unlock"]
                        subprocess.run(unlock, env=environment, stdout=log, stderr=log, check=True)
                    return _run(study, environment, log, progress)
            except KeyboardInterrupt:
                print("stopping what runs", file=sys.stderr)
                stop(study)
                return STOPPED


def _run(study: SweepFolder, environment: dict, log: IO[str], progress: bool) -> int:
    started, cpu_before_s = time.time(), cpu_seconds(own=False)
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    reading = {"text": True, "errors": "replace"}
    command = [*snakemake(study), *how(study)]
    if study.executor == "local" and sys.platform == "linux":
        command = [sys.executable, "-m", fork_server.__name__, *command]
    with subprocess.Popen(command, env=environment, **streams, **reading) as process:
        _follow(process.stdout, log, progress)
    if not process.returncode:  # all that was found is on record
        shutil.rmtree(study.folder / ".finished", ignore_errors=True)
    finished = {
        "started": round(started),
        "wall_s": round(time.time() - started, 1),
        "cores": study.cores,
        # of Snakemake and, on this machine, of all jobs under it
        "cpu_s": round(cpu_seconds(own=False) - cpu_before_s, 1),
        "exit_code": process.returncode,
    }
    with (study.folder / "logs" / "runs.jsonl").open("a", encoding="utf-8") as runs:
        runs.write(json.dumps(finished) + "\n")
    return process.returncode


def how(study: SweepFolder) -> list[str]:
    """Snakemake's options: how and where jobs run."""
    # No output of a study is temporary, and after each job Snakemake would look for some among all
    # files of the jobs that it depends on.
    options = ["--rerun-incomplete", "--keep-going", "--scheduler", "greedy", "--notemp"]
    options += ["--max-checksum-file-size", "64GB"]  # the same bytes made again rerun nothing
    if study.executor != "local":
        options += ["--jobs", str(study.cores), "--latency-wait", "60"]
        options += ["--retries", str(study.retries)]
    if study.executor != "local" and study.group:
        options += ["--groups", *(f"{rule}=condition" for rule in _OF_CONDITION)]
        options += ["--group-components", f"condition={study.group}"]
    if study.executor == "slurm":
        # sacct may be there and fail, where Slurm keeps no accounts
        tried = shutil.which("sacct") and subprocess.run(["sacct", "-n"], capture_output=True)
        accounts = tried and tried.returncode == 0
        options += ["--executor", "slurm", "--slurm-jobname-prefix", study.name]
        options += ["--slurm-status-command", "sacct" if accounts else "squeue"]
        options += ["--slurm-init-seconds-before-status-checks", "10"]
        if "--slurm-requeue" not in study.options:
            # Snakemake submits a lost job again; from Slurm too, twins would write the same files.
            options.append("--slurm-no-requeue")
    if study.executor == "pbs":
        options += ["--executor", "cluster-generic"]
        for what in ("submit", "status", "cancel"):
            script = f"{sys.executable} -I -S {HERE / 'pbs.py'} {what} {study.name}"
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


def alive(study: SweepFolder) -> int:
    """How many processes on this machine, and Slurm jobs, work for a study."""
    return len(processes(study)) + len(slurm_jobs(study))


def stop(study: SweepFolder) -> list[str]:
    """Stop every process and cluster job of a study but this one's ancestors; say which."""
    stopped = [f"Slurm job {job}" for job in slurm_jobs(study)]
    if stopped:
        subprocess.run(["scancel", *(job.split()[-1] for job in stopped)], check=True)
        while slurm_jobs(study):
            time.sleep(1)
    pbs = study.executor == "pbs" and shutil.which("qselect")
    if jobs := _said("qselect", "-N", study.name).split() if pbs else []:
        subprocess.run(["qdel", *jobs], check=True)
        stopped += [f"PBS job {job}" for job in jobs]
    found = processes(study)
    left = found
    for send, patience_s in ((psutil.Process.terminate, 8), (psutil.Process.kill, 5)):
        for process in left:
            with suppress(psutil.NoSuchProcess):
                send(process)
        _, left = psutil.wait_procs(left, timeout=patience_s)
    return stopped + [f"process {process.pid}" for process in found]


def processes(study: SweepFolder) -> list[psutil.Process]:
    """This machine's processes of a study."""
    spared, found = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}, []
    for process in psutil.process_iter():
        try:
            if process.pid not in spared and process.environ().get(TAG) == study.name:
                found.append(process)
        except (psutil.Error, OSError):  # another user's, or gone
            continue
    return found


def slurm_jobs(study: SweepFolder) -> list[str]:
    """Ids of a study's Slurm jobs that wait or run: the plugin's names begin with the study's."""
    if study.executor != "slurm":
        return []
    if not shutil.which("squeue"):
        text = "this is a study on Slurm, but squeue is not on this machine; use the login node"
        raise MissingDependencyError(text)
    listed = _said("squeue", "--me", "--noheader", "--format", "%i %T %j")
    rows = [line.split(maxsplit=2) for line in listed.splitlines()]
    return [job for job, state, name in rows if name.startswith(study.name) and state in _ALIVE]


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout
