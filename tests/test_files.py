"""Files are complete or absent, a folder has one owner, and errors say what to do."""

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ptycho_torch import errors
from ptycho_torch.errors import (
    ConfigError,
    DataContractError,
    MissingDependencyError,
    PtychoError,
    StorageError,
)
from ptycho_torch.files import (
    atomic_path,
    folder_lock,
    json_text,
    read_json,
    sha256_file,
    write_json,
)

ROOT = Path(__file__).parents[1]


def test_each_error_is_also_the_builtin_that_python_programs_expect():
    assert issubclass(DataContractError, ValueError) and issubclass(ConfigError, ValueError)
    assert issubclass(MissingDependencyError, ImportError) and issubclass(StorageError, OSError)
    own = [value for value in vars(errors).values() if isinstance(value, type)]
    assert len(own) == 5 and all(issubclass(error, PtychoError) and error.__doc__ for error in own)


def test_an_atomic_write_appears_whole_with_its_suffix_and_makes_its_folder(tmp_path):
    target = tmp_path / "new" / "a.npz"
    with atomic_path(target) as temporary:
        assert (
            temporary.parent == target.parent and temporary.suffix == ".npz" and temporary != target
        )
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new" and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_a_writer_killed_midway_leaves_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = (
        "import os, signal, sys; from ptycho_torch.files import atomic_path\nwith"
        " atomic_path(sys.argv[1]) as t:\n t.write_text('half'); os.kill(os.getpid(),"
        " signal.SIGKILL)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code, target], cwd=ROOT, check=False).returncode
        == -signal.SIGKILL
    )
    assert target.read_text() == "old"
    assert all(entry.name.startswith(".tmp-") for entry in tmp_path.iterdir() if entry != target)


def test_threads_that_write_one_target_at_once_leave_one_whole_file(tmp_path):
    target, start, failed = tmp_path / "a.txt", threading.Barrier(4), []

    def write(letter):
        try:
            start.wait()
            for _ in range(20):
                with atomic_path(target) as temporary:
                    temporary.write_text(letter * 1000)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(set(target.read_text())) == 1 and list(tmp_path.iterdir()) == [target]


def test_json_comes_back_as_plain_types(tmp_path):
    write_json(
        tmp_path / "a.json",
        {
            "b": np.float32(0.5),
            "a": np.arange(3),
            "p": Path("x/y"),
            "text": "Å",
            "flag": np.bool_(True),
        },
    )
    assert read_json(tmp_path / "a.json") == {
        "a": [0, 1, 2],
        "b": 0.5,
        "p": "x/y",
        "text": "Å",
        "flag": True,
    }
    write_json(tmp_path / "b.json", read_json(tmp_path / "a.json"))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


@pytest.mark.parametrize(
    "value",
    [float("nan"), np.array([1, np.inf]), 1j, np.array([1j]), {(1, 2): 3}, {1, 2}, object()],
    ids=["nan", "inf", "complex", "complex array", "tuple key", "set", "object"],
)
def test_what_json_cannot_hold_is_refused_and_nothing_is_written(tmp_path, value):
    with pytest.raises(PtychoError, match="cannot be written as JSON .* expected"):
        write_json(tmp_path / "a.json", {"value": value})
    loop: list = []
    loop.append(loop)
    with pytest.raises(PtychoError, match="cannot be written as JSON"):
        json_text(loop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content",
    [b"", b'{"a": 1', b"\xff\xfe", b"[" * 100_000],
    ids=["empty", "cut", "not text", "deep"],
)
def test_a_broken_json_file_is_named_with_what_to_do(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(
        PtychoError, match=r"a\.json: cannot be read as JSON .*; remove it and run the step"
    ):
        read_json(tmp_path / "a.json")
    with pytest.raises(PtychoError, match=r"none\.json: no such file; run the step"):
        read_json(tmp_path / "none.json")


def test_the_checksum_is_the_published_one_of_abc(tmp_path):
    """FIPS 180-2, example B.1."""
    (tmp_path / "abc").write_bytes(b"abc")
    assert (
        sha256_file(tmp_path / "abc")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_folder_has_one_owner_whom_a_second_one_is_told(tmp_path):
    with folder_lock(tmp_path / "run"):
        with (
            pytest.raises(
                PtychoError,
                match=rf"is in use by process {os.getpid()} on {socket.gethostname()}; wait",
            ),
            folder_lock(tmp_path / "run"),
        ):
            pass
        assert (tmp_path / "run" / ".lock").exists()
    assert not list((tmp_path / "run").iterdir())
    with pytest.raises(RuntimeError), folder_lock(tmp_path / "run"):
        raise RuntimeError
    assert not list((tmp_path / "run").iterdir())


def test_the_lock_of_a_killed_process_is_taken_over_but_not_that_of_another_host(tmp_path):
    code = (
        "import os, signal, sys; from ptycho_torch.files import folder_lock\n"
        "with folder_lock(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=False)
    lock = tmp_path / ".lock"
    assert lock.exists()
    with folder_lock(tmp_path):
        assert json.loads(lock.read_text())["pid"] == os.getpid()
    lock.write_text(json.dumps({"host": "elsewhere", "pid": 2**22 + 1}))
    with pytest.raises(PtychoError, match="process 4194305 on elsewhere"), folder_lock(tmp_path):
        pass
    assert lock.exists()


@pytest.mark.parametrize("content", ["[1]", "not json", '{"host": 3}', '{"pid": "x"}', "null"])
def test_a_lock_that_tells_nothing_is_respected(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with (
        pytest.raises(PtychoError, match=r"is in use by .*remove .*\.lock if that run is gone"),
        folder_lock(tmp_path),
    ):
        pass
    assert (tmp_path / ".lock").read_text() == content


def test_an_empty_lock_is_of_a_run_that_was_killed_at_once_and_is_taken_over(tmp_path):
    (tmp_path / ".lock").touch()
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_removed_by_hand_and_taken_by_another_run_is_left_to_it(tmp_path):
    lock = tmp_path / ".lock"
    with folder_lock(tmp_path):
        lock.unlink()
        lock.write_text(json.dumps({"host": "elsewhere", "pid": 1}))
    assert json.loads(lock.read_text())["host"] == "elsewhere"


def test_a_lock_that_another_run_makes_where_one_was_just_left_is_left_to_it(tmp_path, monkeypatch):
    """The moment between opening a lock file and locking it."""
    lock, real, seen = tmp_path / ".lock", fcntl.flock, []
    lock.write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1}))

    def left_and_made_anew(file, how):
        real(file, how)
        seen.append(how)
        if len(seen) == 1:
            lock.unlink()
            lock.write_text(json.dumps({"host": "elsewhere", "pid": 5}))

    monkeypatch.setattr(fcntl, "flock", left_and_made_anew)
    with pytest.raises(PtychoError, match="process 5 on elsewhere"), folder_lock(tmp_path):
        pass
    assert len(seen) == 2 and [entry.name for entry in tmp_path.iterdir()] == [".lock"]


def test_the_number_of_a_dead_owner_that_another_process_got_since_does_not_keep_the_folder(
    tmp_path,
):
    (tmp_path / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": os.getppid()}))
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


def test_a_process_that_is_killed_and_not_reaped_yet_holds_nothing(tmp_path):
    code = (
        "import os, signal, sys; from ptycho_torch.files import folder_lock\n"
        "with folder_lock(sys.argv[1]): os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], cwd=ROOT) as run:
        os.waitid(
            os.P_PID, run.pid, os.WEXITED | os.WNOWAIT
        )  # it has ended and its number is still taken
        with folder_lock(tmp_path):
            pass
    assert run.returncode == -signal.SIGKILL


def test_what_a_dead_owner_had_half_written_goes_with_its_lock_and_nothing_else(tmp_path):
    dead = 2**22 + 1
    (tmp_path / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": dead}))
    (tmp_path / "deep").mkdir()
    for name in (
        f".tmp-{dead}-a-x.npz",
        f"deep/.tmp-{dead}-b-x.png",
        f".tmp-{dead}1-c-x.npz",
        "deep/x.png",
    ):
        (tmp_path / name).write_text(name)
    with folder_lock(tmp_path):
        left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {".lock", f".tmp-{dead}1-c-x.npz", "x.png"}


def test_a_patient_second_holder_gets_the_folder_when_the_first_one_leaves(tmp_path):
    first, left = threading.Event(), []

    def hold():
        with folder_lock(tmp_path):
            first.set()
            time.sleep(0.5)
            left.append("first")

    holder = threading.Thread(target=hold)
    holder.start()
    first.wait()
    with pytest.raises(PtychoError, match="in use by"), folder_lock(tmp_path, patience_s=0.01):
        pass
    with folder_lock(tmp_path, patience_s=30):
        assert left == ["first"]
    holder.join()


def test_on_a_file_system_without_kernel_locks_the_lock_holds_too(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refused)
    with (
        folder_lock(tmp_path),
        pytest.raises(PtychoError, match=f"in use by process {os.getpid()}"),
        folder_lock(tmp_path),
    ):
        pass
    assert not list(tmp_path.iterdir())


def _compete(folder, barrier, held, overlaps, taken):
    barrier.wait()
    for _ in range(40):
        try:
            with folder_lock(folder):
                with held.get_lock():
                    held.value += 1
                    overlaps.value += held.value > 1
                time.sleep(0.001)
                with held.get_lock():
                    held.value -= 1
                taken.value += 1
                if taken.value % 3 == 0:  # leave a dead owner's lock behind now and then
                    dead = {"host": socket.gethostname(), "pid": 2**22 + 1}
                    write_json(Path(folder) / ".lock", dead)  # another file than the one held
        except PtychoError:
            time.sleep(0.0005)


def test_of_processes_that_find_a_dead_owners_lock_at_once_one_gets_it(tmp_path):
    context = multiprocessing.get_context("fork")
    held, overlaps, taken = context.Value("i", 0), context.Value("i", 0), context.Value("i", 0)
    barrier = context.Barrier(4)
    (tmp_path / ".lock").write_text(json.dumps({"host": socket.gethostname(), "pid": 2**22 + 1}))
    runs = [
        context.Process(target=_compete, args=(tmp_path, barrier, held, overlaps, taken))
        for _ in range(4)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0] * 4 and taken.value > 10 and overlaps.value == 0
