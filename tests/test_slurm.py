"""The sweep on a real Slurm (docs/slurm.md sets one up): jobs go through its queue, and a killed driver leaves no twins."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from toy_study import write_toy_notebooks

from fly64lib.cli import main
from fly64lib.sweep import control

pytestmark = pytest.mark.slurm
LIMIT_S = 600


def command(folder: Path, notebooks: Path) -> list[str]:
    return ["run", "--profile", "smoke", "--output", str(folder), "--cores", "2", "--executor", "slurm", "--notebooks",
            str(notebooks), "--set", "memory_mb=500", "--set", "views=baseline",
            "--", "--default-resources", "slurm_partition=debug"]


def test_after_a_kill_of_the_driver_its_jobs_are_cancelled_and_the_grid_is_finished(tmp_path: Path) -> None:
    notebooks, folder = write_toy_notebooks(tmp_path / "notebooks", train_seconds=20), tmp_path / "study"
    driver = subprocess.Popen([sys.executable, "-m", "fly64lib.cli", *command(folder, notebooks)], stderr=subprocess.DEVNULL)
    ran, ends = folder / "ran.log", time.monotonic() + LIMIT_S
    while not (ran.is_file() and "train baseline poisson" in ran.read_text()):
        assert driver.poll() is None and time.monotonic() < ends
        time.sleep(0.5)
    study = control.Study.of(folder)
    left = control._slurm_jobs(study)
    assert left
    for process in control._processes(study):  # the driver and Snakemake, not the jobs under slurmd
        if "--directory" in process.cmdline() and "--executor" in process.cmdline() and "slurm" in process.cmdline():
            process.kill()
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert control._slurm_jobs(study)  # Slurm knows nothing of the kill
    assert main(["resume", str(folder)]) == 0
    assert not control._slurm_jobs(study)
    jobs = ran.read_text().splitlines()
    assert jobs.count("train baseline poisson") == 2 and jobs.count("generate") == 1
    assert jobs.count("reconstruct pinn") == jobs.count("compare") == jobs.count("report") == 1
    assert (folder / "index.html").is_file()
