"""What works on this machine, and what to do about the rest: `fly64 doctor`."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat

from fly64lib.notebook.runner import KERNEL, run_notebook
from ptycho_torch.errors import PtychoError

_FREE_GB = 10  # what the full profile's data, models and notebooks need
_PROBE = """from pathlib import Path
import sys
Path(folder, "kernel.txt").write_text(sys.executable)
import fly64lib.training
print("results:", Path(folder, "kernel.txt"))"""


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    what: str
    works: bool
    found: str
    advice: str = ""
    required: bool = False  # of everything; the others are needed by a part only


def examine(folder: str | Path = ".") -> list[Finding]:
    """All findings; `folder` is where a study would go."""
    return [
        look()
        for look in (
            _kernel,
            _torch,
            _gpu,
            _ptychi,
            _snakemake,
            _slurm,
            lambda: _disk(Path(folder)),
            _threads,
        )
    ]


def _kernel() -> Finding:
    """A real kernel executes a real notebook that imports the study."""
    with tempfile.TemporaryDirectory(prefix="fly64-doctor-") as name:
        folder = Path(name)
        cells = [
            nbformat.v4.new_code_cell(
                'folder: str = ""  # where to write', metadata={"tags": ["parameters"]}
            ),
            nbformat.v4.new_code_cell(_PROBE),
        ]
        kernel = {"kernelspec": {"name": KERNEL, "display_name": KERNEL, "language": "python"}}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata=kernel), folder / "probe.ipynb"
        )
        given = {"folder": str(folder)}
        try:
            python = run_notebook(
                folder / "probe.ipynb", folder / "out.ipynb", given, timeout_s=120
            ).read_text()
        except (PtychoError, OSError) as error:
            return Finding(
                "notebook kernel",
                False,
                str(error),
                f"{sys.executable} -m ipykernel install --sys-prefix --name python3",
                required=True,
            )
    same = os.path.realpath(python) == os.path.realpath(sys.executable)
    return Finding(
        "notebook kernel",
        same,
        f"python3 runs {python}",
        "another installation's kernel is found first: "
        f"{sys.executable} -m ipykernel install --sys-prefix --name python3",
        required=True,
    )


def _package(name: str, package: str, advice: str, required: bool = False) -> Finding:
    try:
        found = version(package)
    except PackageNotFoundError:
        return Finding(name, False, f"{package} is not installed", advice, required)
    return Finding(name, True, f"{package} {found}", required=required)


def _torch() -> Finding:
    return _package("torch", "torch", "pip install torch", required=True)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", True, torch.cuda.get_device_name())
    return Finding(
        "GPU",
        False,
        f"none that torch {torch.__version__} can use",
        "profiles smoke and quick need none; for full, install torch for your CUDA driver",
    )


def _ptychi() -> Finding:
    found = _package("LSQML", "ptychi", "pip install 'fly64[lsqml]'")
    if found.works and importlib.util.find_spec("torchvision") is None:
        return Finding(
            "LSQML",
            False,
            "ptychi is installed, torchvision is not",
            "install the torchvision of torch's own release",
        )
    return found


def _snakemake() -> Finding:
    found = [
        _package("sweep", name, "pip install 'fly64[sweep]'")
        for name in (
            "snakemake",
            "snakemake-executor-plugin-slurm",
            "snakemake-executor-plugin-cluster-generic",
        )
    ]
    return next((one for one in found if not one.works), found[0])


def _slurm() -> Finding:
    if not shutil.which("sbatch"):
        return Finding(
            "Slurm", False, "no sbatch on this machine", "not needed for --executor local"
        )
    asked = _run("sinfo", "--noheader", "--format", "%P %a %D nodes")
    return Finding(
        "Slurm",
        asked[0] == 0 and bool(asked[1]),
        asked[1] or asked[2],
        "sinfo shows no partition: ask the cluster's support, or see docs/slurm.md",
    )


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e9
    return Finding(
        "disk",
        free > _FREE_GB and os.access(there, os.W_OK),
        f"{free:.0f} GB free at {there}",
        f"profile full needs {_FREE_GB} GB that you can write to: choose another --output",
    )


def _threads() -> Finding:
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    return Finding(
        "cores",
        True,
        f"{len(os.sched_getaffinity(0))} usable; OMP_NUM_THREADS={threads} "
        "(a study's jobs take their profile's threads)",
    )


def _run(*command: str) -> tuple[int, str, str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout.strip(), done.stderr.strip()
