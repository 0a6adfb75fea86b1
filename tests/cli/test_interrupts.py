"""Ctrl-C, once or twice, or SIGTERM, in a command as a shell starts it: no traceback, no process
left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from reported_scan import reported_scan

from ptycho_torch.commands import STOPPED

MARK = "FLY64_TEST_MARK"
_LIMIT_S = 120


def marked(mark: str) -> list[str]:
    """Command lines of the processes that a test's command has started."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):  # another user's, or gone
            continue
    return found


def until(true: Callable[[], object]) -> None:
    started = time.monotonic()
    while not true():
        assert time.monotonic() < started + _LIMIT_S
        time.sleep(0.1)


def interrupted(
    arguments: list[str],
    folder: Path,
    started: Callable[[], object],
    pause_s: float,
    by: signal.Signals = signal.SIGINT,
) -> None:
    """Run `fly64 ARGUMENTS` and send its group SIGINT twice, as a terminal does, or another one."""
    mark = str(folder)
    command = subprocess.Popen(
        [sys.executable, "-m", "fly64lib.cli.main", *arguments],
        cwd=folder,
        env=os.environ | {MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        until(lambda: started() or command.poll() is not None)
        os.killpg(command.pid, by)
        with suppress(subprocess.TimeoutExpired):
            command.wait(pause_s)
        if command.poll() is None:
            os.killpg(command.pid, by)
        said, _ = command.communicate(timeout=_LIMIT_S)
    finally:
        if command.poll() is None:
            os.killpg(command.pid, signal.SIGKILL)
    assert "Traceback" not in said, said
    assert "stopped" in said
    # the second may meet an interpreter that is ending: the same to a shell
    assert command.returncode in (STOPPED, -by)
    until(lambda: not marked(mark))


def test_ctrl_c_ends_a_phase_with_a_line(tmp_path: Path) -> None:
    lock = tmp_path / "C" / ".lock"
    interrupted(["generate", "--output-root", "C"], tmp_path, lock.exists, pause_s=0)


def test_a_terminated_import_leaves_nothing_behind(tmp_path: Path) -> None:
    source = reported_scan()
    keys = {"diff3d": source["counts"], "probeGuess": source["probe"]}
    keys |= {"ycoords": source["at"][:, 0], "xcoords": source["at"][:, 1]}
    np.savez(tmp_path / "raw.npz", **keys)
    asked = ["import", "raw.npz", "scan.npz", "--zero-frequency", "centre"]

    def working() -> bool:
        return any(tmp_path.glob(".fly64-import-*"))

    interrupted(asked, tmp_path, working, pause_s=_LIMIT_S, by=signal.SIGTERM)
    assert [path.name for path in tmp_path.iterdir()] == ["raw.npz"]


@pytest.mark.slow
def test_two_ctrl_c_end_a_notebook_and_its_kernel(tmp_path: Path) -> None:
    def kernel() -> bool:
        return any("ipykernel" in line for line in marked(str(tmp_path)))

    asked = ["notebook", "generate", "out.ipynb"]
    interrupted(asked, tmp_path, kernel, pause_s=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("pause_s", [0.0, 0.5])
def test_two_ctrl_c_end_a_study_and_all_that_it_started(tmp_path: Path, pause_s: float) -> None:
    def working() -> bool:
        return any(tmp_path.glob("study/notebooks/**/.tmp-*.ipynb"))

    asked = ["run", "--profile", "smoke", "--output", "study", "--cores", "1"]
    interrupted(asked, tmp_path, working, pause_s)
    assert not any((tmp_path / "study" / "notebooks").rglob("report.ipynb"))
