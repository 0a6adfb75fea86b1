"""A study's processes and cluster jobs: found by its name, and stopped.

All processes of a study carry its name in their environment, and its cluster jobs in their own, so
that what a killed driver left behind is stopped before another job writes the same files.
"""

import os
import shutil
import subprocess
import time
from contextlib import suppress

import psutil

from fly64lib.sweep.folder import SweepFolder
from ptycho_torch.errors import MissingDependencyError

TAG = "FLY64_STUDY"  # the environment variable that holds the study's name
_ALIVE = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED")


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
