"""A notebook run as a user runs it: papermill in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path


def papermill(
    notebook: Path, folder: Path, *, pythonpath: Path | None = None, **parameters: object
) -> subprocess.CompletedProcess[str]:
    """`papermill -k python3 NOTEBOOK out.ipynb -p NAME VALUE ...` in `folder`; the caller looks at
    the exit code."""
    options = [text for name, value in parameters.items() for text in ("-p", name, str(value))]
    command = [
        sys.executable,
        "-m",
        "papermill",
        "-k",
        "python3",
        str(notebook),
        "out.ipynb",
        "--no-progress-bar",
        *options,
    ]
    environment = dict(os.environ) | ({"PYTHONPATH": str(pythonpath)} if pythonpath else {})
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )


def written_last(file: Path, folder: Path) -> bool:
    """Whether nothing under `folder` is newer than `file`: its presence says that all else is
    complete."""
    return file.stat().st_mtime_ns == max(
        path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()
    )
