"""pty-chi's worker without its start: forked from one process that has imported it, which takes
most of the time of a small reconstruction.

A fork runs the worker's own code on its own job file, and what pty-chi changes in its process ends
with it."""

import json
import os
import sys
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import IO, Any

FORKS = get_context("forkserver")
FORKS.set_forkserver_preload(["fly64lib.methods.ptychi_worker"])


def work(job: str, progress: Connection, log: str) -> None:
    """What `python -m fly64lib.methods.ptychi_worker job.json` does, messages to the file `log`."""
    from fly64lib.methods.ptychi_worker import run

    sys.stdout = sys.stderr = open(log, "a", encoding="utf-8")
    with open(job, encoding="utf-8") as file, os.fdopen(os.dup(progress.fileno()), "w") as lines:
        run(json.load(file), lines)


class Fork:
    """A `subprocess.Popen` of the worker, as far as the method uses it."""

    def __init__(self, command: list[str], stderr: IO[str], **options: Any) -> None:
        assert command[-3:-1] == ["-m", "fly64lib.methods.ptychi_worker"]
        reader, writer = FORKS.Pipe(duplex=False)
        with reader, writer:
            self.process = FORKS.Process(target=work, args=(command[-1], writer, stderr.name))
            self.process.start()
            self.stdout = os.fdopen(os.dup(reader.fileno()))
        self.kill = self.process.kill

    def __enter__(self) -> "Fork":
        return self

    def __exit__(self, *error: object) -> None:
        self.stdout.close()
        self.process.join()
        self.returncode = self.process.exitcode
