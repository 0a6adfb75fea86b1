"""The project's fork server beside tests."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fly64lib.methods.forked import SERVER
from fly64lib.notebook import fork_server

_WAITS = "import os, sys; print(os.environ[sys.argv[1]], flush=True); sys.stdin.read()"
# The tests themselves may run under a server.
PLAIN = {name: value for name, value in os.environ.items() if name != SERVER}


@contextmanager
def served() -> Iterator[dict[str, str]]:
    """What the environment of a new fork server's command has more; the server must end well."""
    command = [sys.executable, "-m", fork_server.__name__, sys.executable, "-c", _WAITS, SERVER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=PLAIN) as server:
        path = server.stdout.readline().strip()
        yield {SERVER: path, "JUPYTER_DEFAULT_PROVISIONER_NAME": "fly64"}
        server.stdin.close()
        assert server.wait(30) == 0 and not Path(path).parent.exists()
