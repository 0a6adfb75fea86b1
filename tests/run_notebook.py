"""A notebook run as a user runs it, papermill in a process of its own; and the server of a study,
which forks this process and its kernel where starting them anew would show nothing more."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fly64lib.methods import forked
from fly64lib.notebook import fork_server

# The tests themselves may run under a server.
PLAIN = {name: value for name, value in os.environ.items() if name != forked.SERVER}
CLIENT = [sys.executable, "-I", "-S", forked.__file__]
SERVER = [sys.executable, "-m", fork_server.__name__]
_WAITS = "import os, sys; print(os.environ[sys.argv[1]], flush=True); sys.stdin.read()"


@contextmanager
def fork_servers_environment() -> Iterator[dict[str, str]]:
    """The environment of a fork server, which ends with the block."""
    command = [*SERVER, sys.executable, "-c", _WAITS, forked.SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as server:
        path = server.stdout.readline().strip()
        yield PLAIN | {forked.SERVER: path, "JUPYTER_DEFAULT_PROVISIONER_NAME": "fly64"}
        server.stdin.close()
        assert server.wait(30) == 0 and not Path(path).parent.exists()


def papermill(
    notebook: Path,
    folder: Path,
    *,
    pythonpath: Path | None = None,
    served: dict[str, str] | None = None,
    **parameters: object,
) -> subprocess.CompletedProcess[str]:
    """`papermill -k python3 NOTEBOOK out.ipynb -p NAME VALUE ...` in `folder`, forked by the
    server of the environment `served` or started; the caller looks at the exit code."""
    options = [text for name, value in parameters.items() for text in ("-p", name, str(value))]
    command = [
        *(CLIENT if served else [sys.executable]),
        "-m",
        "papermill",
        "-k",
        "python3",
        str(notebook),
        "out.ipynb",
        "--no-progress-bar",
        *options,
    ]
    environment = (served or PLAIN) | ({"PYTHONPATH": str(pythonpath)} if pythonpath else {})
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


def written_last(file: Path, folder: Path) -> bool:
    """Whether nothing under `folder` is newer than `file`: its presence says that all else is
    complete."""
    return file.stat().st_mtime_ns == max(
        path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    )
