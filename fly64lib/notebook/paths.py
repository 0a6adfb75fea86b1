"""Where the notebooks are: beside the packages in a checkout, in `fly64lib` in a wheel; where the
sockets of their kernels are; and what their libraries need not import."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ptycho_torch.errors import ConfigError

_SOCKET_PATH_LIMIT = 100  # a Unix socket's path may have 107 bytes, of which some name the port


def notebooks_folder() -> Path:
    """The folder of the source notebooks."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "_notebooks", here.parent / "notebooks"):
        if (folder / "train.ipynb").is_file():
            return folder
    raise ConfigError(f"no notebooks beside {here}: fly64 is not whole, install it again")


def notebook(name: str, folder: str | Path | None = None) -> Path:
    """Path of a notebook by name, such as "train"; `folder` holds edited copies of one's own."""
    folder = Path(folder) if folder else notebooks_folder()
    path = folder / f"{name}.ipynb"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.ipynb"))) or "none"
        raise ConfigError(f"there is no notebook {name!r} in {folder}; there are {names}")
    return path


@contextmanager
def private_folder() -> Iterator[Path]:
    """A folder for this user only, with a path short enough for sockets; removed afterwards by the
    process that made it."""
    folder, maker = tempfile.mkdtemp(prefix="fly64-"), os.getpid()
    try:
        if len(os.fsencode(folder)) > _SOCKET_PATH_LIMIT - len("/k-ipc-99"):
            advice = "set TMPDIR to a shorter one, such as /tmp"
            raise ConfigError(f"{folder} is too long a path for a socket; {advice}")
        yield Path(folder)
    finally:
        if os.getpid() == maker:  # no process forked within
            shutil.rmtree(folder)


def without_iris() -> None:
    """In a process of one's own, before papermill is imported: jsonschema, where it finds this
    package, compiles a grammar of IRIs, for two seconds. No field of a notebook is checked as an
    IRI."""
    sys.modules.setdefault("rfc3987_syntax", None)
