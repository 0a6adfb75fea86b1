"""How nbval runs the references: in their order, from an empty folder, each kernel on private
sockets; on two workers those that are `alone` run beside the others."""

import shutil
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import nbval.kernel
import pytest
from jupyter_client.manager import KernelManager
from references import FOLDER, REFERENCES
from xdist.scheduler import LoadScopeScheduling

from fly64lib.notebook.paths import private_folder

collect_ignore = ["runs"]  # what the notebooks write


def pytest_configure(config: pytest.Config) -> None:
    """nbval's kernels talk over TCP, whose ports can collide when kernels start together."""
    stack, number = ExitStack(), count()
    folder = stack.enter_context(private_folder())
    config.add_cleanup(stack.close)

    def started(startup_timeout: float = 60, kernel_name: str = "python3", **options: Any) -> tuple:
        manager = KernelManager(
            kernel_name=kernel_name,
            transport="ipc",
            connection_file=str(folder / f"{next(number)}.json"),
        )
        manager.start_kernel(**options)
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=startup_timeout)
        return manager, client

    nbval.kernel.start_new_kernel = started


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The order of the table; what an earlier run left goes when the first of them is to run."""
    order = list(REFERENCES)
    items.sort(
        key=lambda item: (
            order.index(Path(item.path).stem) if Path(item.path).suffix == ".ipynb" else -1
        )
    )
    if any(item.path == FOLDER / f"{order[0]}.ipynb" for item in items):
        shutil.rmtree(FOLDER / "runs", ignore_errors=True)


class Shared(LoadScopeScheduling):
    """References that read each other's results stay on one worker, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        name = Path(nodeid.split("::")[0]).stem
        return name if name in REFERENCES and REFERENCES[name].alone else "study"


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Shared:
    return Shared(config, log)
