"""A papermill engine, `papermill --engine fly64`.

Kernels talk over IPC sockets in a folder of their own: TCP ports of kernels that start together can
collide. Sockets are looked at every few seconds: asyncio can miss that one has become readable, and
a client would wait for ever for an answer that lies there. papermill imports this module while it
is itself imported (its entry points), so import papermill first."""

import math
import resource
import sys
import time
from queue import Empty
from typing import Any

from jupyter_client.asynchronous.client import AsyncKernelClient
from jupyter_client.channels import AsyncZMQSocketChannel
from papermill.engines import NBClientEngine
from traitlets import Type
from traitlets.config import Config

from fly64lib.methods.forked import Forked
from fly64lib.notebook.paths import private_folder
from ptycho_torch.commands import cpu_seconds

_LOOK_S = 5.0


class WatchedChannel(AsyncZMQSocketChannel):
    """A channel that looks for a message every few seconds, whatever it has been told."""

    async def get_msg(self, *, timeout: float | None = None) -> dict[str, Any]:
        ends = time.monotonic() + (math.inf if timeout is None else timeout)
        while True:
            left = max(ends - time.monotonic(), 0.0)
            try:
                return await super().get_msg(timeout=min(_LOOK_S, left))
            except Empty:
                if left <= _LOOK_S:
                    raise


class WatchedClient(AsyncKernelClient):
    """A kernel's client with such channels for replies and output."""

    shell_channel_class = Type(WatchedChannel)
    iopub_channel_class = Type(WatchedChannel)


class PrivateKernelEngine(NBClientEngine):
    """papermill's engine with sockets in a private folder, and a limit for the whole notebook:
    `notebook_timeout` beside papermill's `execution_timeout` of a cell, in seconds. The executed
    notebook's metadata say under `fly64` what CPU time its kernel took, its child processes
    included, and the most memory that one of these held."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        cell_s = options.pop("execution_timeout", None) or math.inf
        ends = time.monotonic() + (options.pop("notebook_timeout", None) or math.inf)

        def seconds_for(cell: object) -> float | None:
            left = min(cell_s, max(ends - time.monotonic(), 0.1))
            return None if left == math.inf else left

        with private_folder() as folder:
            sockets = {"transport": "ipc", "connection_file": str(folder / "k.json")}
            sockets["client_class"] = f"{__name__}.{WatchedClient.__name__}"
            forked: list[Forked] = []
            config = Config(KernelManager=sockets, ForkedKernel={"ended": forked.append})
            options |= {"config": config, "timeout_func": seconds_for}
            before_s = cpu_seconds(own=False)
            super().execute_managed_notebook(nb_man, kernel_name, **options)
            taken_s = cpu_seconds(own=False) - before_s + sum(one.cpu_s for one in forked)
            held_mb = max([_started_mb(), *(one.peak_mb for one in forked)])
            took = {"cpu_seconds": round(taken_s, 2), "peak_memory_mb": round(held_mb)}
            nb_man.nb.metadata["fly64"] = took


def _started_mb() -> float:
    """The most resident memory, MB, of a process that this one has started and waited for."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e6
