"""`fly64 doctor`: what works on this machine, and what to do about the rest."""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import nbformat
from tyro.conf import Positional

from fly64lib.notebook.runner import KERNEL, run_notebook
from ptycho_torch.errors import PtychoError
from ptycho_torch.fields import config

_FREE_GB = 10  # what the full profile's data, models and notebooks need
_PARAMETERS = 'folder: str = ""  # where to write'
_PROBE = """from pathlib import Path
import sys
Path(folder, "kernel.txt").write_text(sys.executable)
import fly64lib.training, ptycho_torch.workflows.components
print("results:", Path(folder, "kernel.txt"))"""


@config
class Doctor:
    """What works here, and what to do about the rest."""

    folder: Positional[Path] = Path(".")  # where a study would go


@dataclass(frozen=True)
class Finding:
    """One line of the diagnosis."""

    what: str
    works: bool
    found: str
    advice: str = ""
    required: bool = False  # of everything; the others are needed by a part only


def doctor(asked: Doctor) -> int:
    """Print the diagnosis; exit code 1 where something that everything needs does not work."""
    torch = _package("torch", "torch", "pip install torch", required=True)
    cluster = (_snakemake(), _slurm())
    formats = _package("formats", "h5py", "HDF5, CXI: pip install 'fly64[formats]'")
    lab = _package("lab", "jupyterlab", "notebooks by hand: pip install 'fly64[lab]'")
    here = _disk(asked.folder), _threads()
    findings = [_kernel(), torch, _gpu(), _ptychi(), *cluster, formats, lab, *here]
    for finding in findings:
        print(f"{'ok  ' if finding.works else 'no  '} {finding.what}: {finding.found}")
        if not finding.works:
            print(f"       to do: {finding.advice}")
    return 1 if any(finding.required and not finding.works for finding in findings) else 0


def _kernel() -> Finding:
    """A real kernel executes a real notebook that imports the study."""
    advice = f"{sys.executable} -m ipykernel install --sys-prefix --name {KERNEL}"
    kernel = partial(Finding, "notebook kernel", required=True)
    with tempfile.TemporaryDirectory(prefix="fly64-doctor-") as folder:
        source, output = Path(folder, "probe.ipynb"), Path(folder, "out.ipynb")
        first = nbformat.v4.new_code_cell(_PARAMETERS, metadata={"tags": ["parameters"]})
        about = {"kernelspec": {"name": KERNEL, "display_name": KERNEL, "language": "python"}}
        cells = [first, nbformat.v4.new_code_cell(_PROBE)]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=about), source)
        try:
            python = run_notebook(source, output, {"folder": folder}, timeout_s=120).read_text()
        except (PtychoError, OSError) as error:
            return kernel(False, str(error), advice)
    same = os.path.realpath(python) == os.path.realpath(sys.executable)
    advice = f"another installation's kernel is found first: {advice}"
    return kernel(same, f"{KERNEL} runs {python}", advice)


def _package(name: str, package: str, advice: str, required: bool = False) -> Finding:
    try:
        found = version(package)
    except PackageNotFoundError:
        return Finding(name, False, f"{package} is not installed", advice, required)
    return Finding(name, True, f"{package} {found}", required=required)


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", True, torch.cuda.get_device_name())
    advice = "profiles smoke and quick need none; for full, install torch for your CUDA driver"
    return Finding("GPU", False, f"none that torch {torch.__version__} can use", advice)


def _ptychi() -> Finding:
    found = _package("LSQML", "ptychi", "pip install 'fly64[lsqml]'")
    if found.works and importlib.util.find_spec("torchvision") is None:
        advice = "install the torchvision of torch's own release"
        return Finding("LSQML", False, "ptychi is installed, torchvision is not", advice)
    return found


def _snakemake() -> Finding:
    plugins = ("snakemake-executor-plugin-slurm", "snakemake-executor-plugin-cluster-generic")
    advice = "pip install 'fly64[sweep]'"
    found = [_package("sweep", name, advice) for name in ("snakemake", *plugins)]
    return next((one for one in found if not one.works), found[0])


def _slurm() -> Finding:
    if not shutil.which("sbatch"):
        advice = "not needed for --executor local"
        return Finding("Slurm", False, "no sbatch on this machine", advice)
    command = ("sinfo", "--noheader", "--format", "%P %a %D nodes")
    asked = subprocess.run(command, capture_output=True, text=True, timeout=30)
    said = asked.stdout.strip()
    advice = "sinfo shows no partition: ask the cluster's support, or see docs/slurm.md"
    works = asked.returncode == 0 and bool(said)
    return Finding("Slurm", works, said or asked.stderr.strip(), advice)


def _disk(folder: Path) -> Finding:
    there = next(path for path in (folder.resolve(), *folder.resolve().parents) if path.exists())
    free = shutil.disk_usage(there).free / 1e9
    works = free > _FREE_GB and os.access(there, os.W_OK)
    advice = f"profile full needs {_FREE_GB} GB that you can write to: choose another --output"
    return Finding("disk", works, f"{free:.0f} GB free at {there}", advice)


def _threads() -> Finding:
    threads = os.environ.get("OMP_NUM_THREADS", "not set")
    found = f"{len(os.sched_getaffinity(0))} usable; OMP_NUM_THREADS={threads}"
    return Finding("cores", True, f"{found} (a study's jobs take their profile's threads)")
