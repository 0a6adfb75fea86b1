"""A papermill engine, `papermill --engine fly64`.

Kernels talk over IPC sockets in a folder of their own: TCP ports of kernels that start together can
collide. papermill imports this module while it is itself imported (its entry points), so import
papermill first."""

import math
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from papermill.engines import NBClientEngine
from traitlets.config import Config

from ptycho_torch.errors import ConfigError

_SOCKET_PATH_LIMIT = 100  # a Unix socket's path may have 107 bytes, of which some name the port


class PrivateKernelEngine(NBClientEngine):
    """papermill's engine with sockets in a private folder, and a limit for the whole notebook:
    `notebook_timeout` beside papermill's `execution_timeout` of a cell, in seconds."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        cell_s = options.pop("execution_timeout", None) or math.inf
        ends = time.monotonic() + (options.pop("notebook_timeout", None) or math.inf)

        def seconds_for(cell: object) -> float | None:
            left = min(cell_s, max(ends - time.monotonic(), 0.1))
            return None if left == math.inf else left

        with private_folder() as folder:
            sockets = {"transport": "ipc", "connection_file": str(folder / "k.json")}
            options |= {"config": Config(KernelManager=sockets), "timeout_func": seconds_for}
            return super().execute_managed_notebook(nb_man, kernel_name, **options)


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for this user only, with a path short enough for sockets; removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="fly64-") as folder:
        if len(os.fsencode(folder)) > _SOCKET_PATH_LIMIT - len("/k-ipc-99"):
            advice = "set TMPDIR to a shorter one, such as /tmp"
            raise ConfigError(f"{folder} is too long a path for a socket; {advice}")
        yield Path(folder)
