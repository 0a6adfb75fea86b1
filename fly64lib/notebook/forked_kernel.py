"""Starts kernels by a fork (jupyter_client's provisioner "fly64")."""

import os
import sys
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.provisioning import LocalProvisioner
from traitlets import Callable

from fly64lib.methods.forked import SERVER, Forked


class ForkedKernel(LocalProvisioner):
    """A kernel of this Python, forked by the server that the environment names. Any other kernel,
    and without a server each, is started as usual."""

    ended = Callable(lambda process: None, help="given the forked kernel that ended").tag(
        config=True
    )

    async def launch_kernel(self, cmd: list[str], **given: Any) -> KernelConnectionInfo:
        python, *options = cmd
        if SERVER not in os.environ or python != sys.executable or "-m" not in options:
            return await super().launch_kernel(cmd, **given)
        arguments = options[options.index("-m") :]  # before it: for debuggers
        self.process = Forked(arguments, given["env"], given.get("cwd") or os.getcwd())
        return self.connection_info

    async def wait(self) -> int | None:
        process, code = self.process, await super().wait()
        if isinstance(process, Forked):
            self.ended(process)
        return code
