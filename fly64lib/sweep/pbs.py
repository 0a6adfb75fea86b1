"""PBS by Snakemake's cluster-generic executor: submit, status and cancel, as its three commands.

    python pbs.py submit NAME JOBSCRIPT | status NAME JOB | cancel NAME JOB...

PBS has no executor plugin. Resources come from the job script's first lines, where Snakemake writes
the job's properties. A queue or an account goes through qsub's own variables: `PBS_DEFAULT`,
`QSUB_OPTIONS="-q debug -A project"`."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path


def submit(name: str, script: str) -> str:
    """Submit a job script and print its id."""
    _, _, text = Path(script).read_text().partition("\n# properties = ")
    job = json.loads(text.partition("\n")[0])
    asked = job["resources"]
    hours, minutes = divmod(asked.get("runtime", 60), 60)
    share = f"select=1:ncpus={job['threads']}:mem={asked.get('mem_mb', 1000)}mb"
    limits = ("-l", share, "-l", f"walltime={hours:02d}:{minutes:02d}:00")
    further = shlex.split(os.environ.get("QSUB_OPTIONS", ""))
    command = ("qsub", "-N", name, "-V", "-j", "oe", *limits, *further, script)
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def status(name: str, job: str) -> str:
    """`running`, `success` or `failed`, as cluster-generic asks for."""
    asked = subprocess.run(["qstat", "-x", "-f", "-F", "json", job], capture_output=True, text=True)
    if asked.returncode:
        return "failed"
    (found,) = json.loads(asked.stdout)["Jobs"].values()
    if found["job_state"] not in ("F", "C"):
        return "running"
    return "success" if found.get("Exit_status") == 0 else "failed"


def cancel(name: str, *jobs: str) -> str:
    """Delete jobs."""
    subprocess.run(["qdel", *jobs], check=True)
    return ""


if __name__ == "__main__":
    print({"submit": submit, "status": status, "cancel": cancel}[sys.argv[1]](*sys.argv[2:]))
