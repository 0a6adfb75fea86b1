"""The sweep on a real Slurm (docs/slurm.md sets one up): jobs go through its queue, and a killed
driver leaves no twins."""

import base64
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from toy_study import write_toy_notebooks

from fly64lib.cli.main import main
from fly64lib.sweep.control import processes, slurm_jobs
from fly64lib.sweep.folder import SweepFolder
from ptycho_torch.files import read_json

pytestmark = pytest.mark.slurm
LIMIT_S = 1800


def command(folder: Path, *more: str) -> list[str]:
    return [
        "run",
        "--profile",
        "smoke",
        "--output",
        str(folder),
        "--cores",
        "2",
        "--executor",
        "slurm",
        *more,
        "--",
        "--default-resources",
        "slurm_partition=debug",
    ]


def killed(folder: Path, asked: list[str], until: Path, says: str = "") -> SweepFolder:
    """A study whose driver and Snakemake were killed once `until` was there (and said something);
    its jobs live on."""
    driver = subprocess.Popen(
        [sys.executable, "-m", "fly64lib.cli.main", *asked], stderr=subprocess.DEVNULL
    )
    ends = time.monotonic() + LIMIT_S
    while not (until.is_file() and says in until.read_text()):
        assert driver.poll() is None and time.monotonic() < ends
        time.sleep(0.5)
    study = SweepFolder.of(folder)
    while not slurm_jobs(study):  # the next ones are about to be submitted
        assert driver.poll() is None and time.monotonic() < ends
        time.sleep(0.1)
    for process in processes(study):  # the driver and Snakemake, not the jobs under slurmd
        if {"--directory", "--executor", "slurm"} <= set(process.cmdline()):
            process.kill()
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    assert slurm_jobs(study)  # Slurm knows nothing of the kill
    return study


def jobs_by_state(study: SweepFolder) -> Counter:
    """How many of the study's Slurm jobs ended how, by (rule and wildcards, state)."""
    listed = subprocess.run(
        ["squeue", "--me", "--noheader", "--states", "all", "--format", "%j|%k|%T"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return Counter(
        tuple(line.split("|")[1:]) for line in listed.splitlines() if line.startswith(study.name)
    )


def test_after_a_kill_of_the_driver_its_jobs_are_cancelled_and_the_grid_is_finished(
    tmp_path: Path,
) -> None:
    notebooks, folder = (
        write_toy_notebooks(tmp_path / "notebooks", train_seconds=20),
        tmp_path / "study",
    )
    toy = command(
        folder, "--notebooks", str(notebooks), "--set", "memory_mb=500", "--set", "views=baseline"
    )
    study = killed(folder, toy, folder / "ran.log", "train baseline poisson")
    assert main(["resume", str(folder)]) == 0
    assert not slurm_jobs(study)
    jobs = (folder / "ran.log").read_text().splitlines()
    assert jobs.count("train baseline poisson") == 2 and jobs.count("generate") == 1
    assert jobs.count("reconstruct pinn") == jobs.count("compare") == jobs.count("report") == 1
    assert (folder / "index.html").is_file()


def test_the_smoke_grid_itself_is_finished_after_a_kill_and_no_notebook_is_run_to_its_end_twice(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "study"
    study = killed(folder, command(folder), folder / "logs/snakemake.log", "2 of 12 steps")
    done = {}
    for path in (folder / "notebooks").rglob("*.ipynb"):
        marker = base64.urlsafe_b64encode(
            path.relative_to(folder).as_posix().encode()
        ).decode()  # of unfinished jobs
        if ".tmp" not in path.name and not (folder / ".snakemake" / "incomplete" / marker).exists():
            done[path] = path.stat().st_mtime_ns
    assert len(done) >= 2
    assert main(["resume", str(folder)]) == 0
    assert all(path.stat().st_mtime_ns == written for path, written in done.items())
    assert not slurm_jobs(study)
    jobs = jobs_by_state(study)
    assert jobs.total() > len(study.settings.notebooks())  # the cancelled ones are there too
    completed = {what: count for (what, state), count in jobs.items() if state == "COMPLETED"}
    assert len(completed) == len(study.settings.notebooks()) and set(completed.values()) == {1}
    assert {state for _, state in jobs} == {"COMPLETED", "CANCELLED"}
    rows = read_json(folder / "report.json")["rows"]
    assert {(row["view"], row["method"]) for row in rows} == {
        (view, method)
        for view in ("baseline", "sparse")
        for method in ("pinn", "lsqml", "flat", "truth")
    }
