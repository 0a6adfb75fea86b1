"""Runs a command, and beside it a server that forks what is asked for by `fly64lib.methods.forked`
under that command: `python -m fly64lib.notebook.fork_server COMMAND ...`.

A kernel and the process that runs a notebook in it import the same modules for seconds, each time.
The server imports them once, when it is asked for the first notebook that names them, in the
environment of who asked first. It has one thread, for a fork takes no other along. Linux only:
elsewhere system libraries do not survive a fork, and a process cannot ask to die with its parent.

Every forked process has a second one that watches over it: it passes signals on, reports the end,
and kills when who asked is gone."""

import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from importlib import import_module

from fly64lib.methods.forked import SERVER
from fly64lib.notebook.code_hash import imports_of
from fly64lib.notebook.paths import notebook, private_folder, without_iris
from ptycho_torch.commands import keep_freed

_AT_START = ("PYTHON", "OMP_", "MKL_", "OPENBLAS_")  # variables read when modules are loaded
_PR_SET_PDEATHSIG = 1
_JOB = "fly64lib.cli.main", "notebook"
# What modules import when they are first called, and what those that run as processes do.
_LATER = {
    "fly64lib.training": "ptycho_torch.workflows.components",
    "fly64lib.methods.ptychi_worker": "ptychi.api.task",
    "snakemake": "snakemake.cli",
}


def main() -> int:
    """Run the command of the arguments; its exit code. Returns in forked processes too."""
    keep_freed()
    with private_folder() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "forks"))
        listener.listen(128)
        # jupyter_client starts kernels by the provisioner of this name.
        given = {SERVER: str(folder / "forks"), "JUPYTER_DEFAULT_PROVISIONER_NAME": "fly64"}
        command = subprocess.Popen(sys.argv[1:], env=os.environ | given)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command decides
        signal.signal(signal.SIGTERM, lambda *_: command.terminate())
        woken, watchers = _woken_by_children(), []
        while command.poll() is None:
            ready, _, _ = select.select([listener, woken], [], [])
            if woken in ready:
                woken.recv(1024)
            watchers = [pid for pid in watchers if os.waitpid(pid, os.WNOHANG)[0] == 0]
            if listener in ready:
                connection, _ = listener.accept()
                asked, streams = _request(connection)
                if asked:
                    _warm(asked)
                    if not (pid := os.fork()):
                        if not _watched(connection):
                            os._exit(0)
                        break
                    watchers.append(pid)
                for one in (connection.detach(), *streams):
                    os.close(one)
        else:
            listener.close()  # what still runs is refused, not left waiting
            for pid in watchers:
                os.waitpid(pid, 0)
            return command.returncode if command.returncode >= 0 else 128 - command.returncode
    _become(asked, streams)
    return 0


def _woken_by_children() -> socket.socket:
    """A socket that becomes readable when a child process ends."""
    woken, waker = socket.socketpair()
    for one in woken, waker:
        one.setblocking(False)
    signal.set_wakeup_fd(waker.detach())
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return woken


def _request(connection: socket.socket) -> tuple[dict, list[int]]:
    """What is asked for, nothing from who died meanwhile, and the three standard streams."""
    size, streams, _, _ = socket.recv_fds(connection, 4, 3)
    said = connection.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
    return json.loads(said) if size and len(said) == int.from_bytes(size, "big") else {}, streams


def _warm(asked: dict) -> None:
    """Import what kernels and their clients need, and the project's modules that the notebook
    names which is asked for: once, as a process of the first one's environment would."""
    loaded = len(sys.modules)
    if "ipykernel.kernelapp" not in sys.modules:
        _set_environment(asked["environment"])
        # As in a kernel: ipykernel, matplotlib and Lightning look when they are imported.
        os.environ["JPY_PARENT_PID"] = str(os.getpid())
        os.environ.setdefault("MPLBACKEND", "module://matplotlib_inline.backend_inline")
        sys.ps1 = "In : "
        without_iris()
        from ipykernel import ipkernel, kernelapp  # noqa: F401

        from fly64lib.notebook import runner  # noqa: F401
    places = list(sys.path)
    for name in _named(asked):
        # It may be a function's name; what else is wrong the notebook itself tells.
        with suppress(Exception):
            import_module(name)
    sys.path[:] = places  # Snakemake adds one of its own, which other processes do not expect
    if len(sys.modules) > loaded:
        gc.collect()
        gc.freeze()  # else each forked process's collections would copy all pages


def _named(asked: dict) -> list[str]:
    """What the notebook that a job runs imports of the project: its first file of this kind, or one
    of the project's by name. And what a module needs that runs by itself."""
    with suppress(Exception):  # whatever is wrong with it, the job itself tells
        program, *words = asked["arguments"][1:]
        if program in _LATER:
            return [_LATER[program]]
        if (program, *words[:1]) == _JOB and not words[1].endswith(".ipynb"):
            source = notebook(words[1])
        else:
            source = next(text for text in words if text.endswith(".ipynb"))
        found = imports_of(os.path.join(asked["cwd"], source))
        return [*found, *(_LATER[name] for name in found if name in _LATER)]
    return []


def _set_environment(environment: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environment)


def _watched(connection: socket.socket) -> bool:
    """Fork once more; True in the new process, False in this one when that has ended."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # stopped together, it ends after the other
    woken = _woken_by_children()
    if not (pid := os.fork()):
        os.setsid()
        system = ctypes.CDLL(None)
        # Who watches may be killed, and then cannot kill.
        system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        # After Python's own end, not torch's: it would copy pages to free them.
        system.on_exit(system._exit, None)
        connection.close()
        return True
    while not (ended := os.wait4(pid, os.WNOHANG))[0]:
        ready, _, _ = select.select([connection, woken], [], [])
        if woken in ready:
            woken.recv(1024)
        elif connection in ready:
            number = (connection.recv(1) or bytes([signal.SIGKILL]))[0]
            try:
                os.killpg(pid, number)
            except ProcessLookupError:  # has no group of its own yet
                os.kill(pid, number)
    _, status, usage = ended
    took = [usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6]  # Linux: in KiB
    with suppress(ConnectionError):
        connection.send(json.dumps([os.waitstatus_to_exitcode(status), *took]).encode())
    return False


def _become(asked: dict, streams: list[int]) -> None:
    """Go on as `python ARGUMENTS` would in the environment and the folder of who asks."""
    signal.set_wakeup_fd(-1)
    for number in signal.SIGTERM, signal.SIGCHLD:
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["cwd"])
    arguments, environment, loaded = asked["arguments"], asked["environment"], dict(os.environ)
    _set_environment(environment)
    differs = {name for name, value in loaded.items() ^ environment.items()}
    if arguments[0] != "-m" or any(name.startswith(_AT_START) for name in differs):
        os.execv(sys.executable, [sys.executable, *arguments])
    import numpy

    numpy.random.seed()  # `random` does so by itself
    sys.argv = arguments[1:]
    if not sys.flags.safe_path:
        sys.path[0] = asked["cwd"]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    raise SystemExit(main())
