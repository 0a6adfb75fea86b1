"""A papermill engine, `papermill --engine fly64`.

Kernels talk over IPC sockets in a folder of their own: TCP ports of kernels that start together can
collide. papermill imports this module while it is itself imported (its entry points), so import
papermill first."""

import math
import time
from typing import Any

from papermill.engines import NBClientEngine
from traitlets.config import Config

from fly64lib.notebook.paths import private_folder
from ptycho_torch.commands import cpu_seconds


class PrivateKernelEngine(NBClientEngine):
    """papermill's engine with sockets in a private folder, and a limit for the whole notebook:
    `notebook_timeout` beside papermill's `execution_timeout` of a cell, in seconds. The executed
    notebook's metadata say under `fly64` what CPU time its kernel took, its child processes
    included."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **options: Any) -> Any:
        cell_s = options.pop("execution_timeout", None) or math.inf
        ends = time.monotonic() + (options.pop("notebook_timeout", None) or math.inf)

        def seconds_for(cell: object) -> float | None:
            left = min(cell_s, max(ends - time.monotonic(), 0.1))
            return None if left == math.inf else left

        with private_folder() as folder:
            sockets = {"transport": "ipc", "connection_file": str(folder / "k.json")}
            forked_s: list[float] = []
            config = Config(KernelManager=sockets, ForkedKernel={"ended": forked_s.append})
            options |= {"config": config, "timeout_func": seconds_for}
            before_s = cpu_seconds(own=False)
            super().execute_managed_notebook(nb_man, kernel_name, **options)
            taken_s = cpu_seconds(own=False) - before_s + sum(forked_s)
            nb_man.nb.metadata["fly64"] = {"cpu_seconds": round(taken_s, 2)}
