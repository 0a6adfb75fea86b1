"""What the sweep costs on top of the work that it runs, as a share of CPU time.

    python -m fly64lib.notebook.fork_server python benchmarks/sweep_overhead.py runs/quick

The server forks kernels as the study's were; without it they are started, as on a cluster.

Reads a finished study. Bare work is what the notebooks' kernels used, less what each of them needs
to start and import, which is measured here with a notebook that does only that. All the rest of the
CPU time is overhead: starts, papermill, Snakemake."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from common import main
from tyro.conf import Positional

from fly64lib.methods.by_name import own_notebook
from fly64lib.methods.forked import python
from fly64lib.sweep.folder import SweepFolder
from ptycho_torch.fields import config
from ptycho_torch.files import read_json

_IMPORTS = """from fly64lib.notebook import reconstruct, train
from fly64lib.plots import figures
from fly64lib.comparison import compare
from fly64lib.reconstruction import run_reconstruction_job
from pathlib import Path
Path("{0}").write_text("")"""
_PYTHON = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}


@config
class OverheadOptions:
    """What the sweep costs on top of the work that it runs."""

    study: Positional[Path]  # folder of a finished study


def kernel_s(notebook: Path) -> float:
    """CPU seconds of an executed notebook's kernel."""
    return read_json(notebook)["metadata"]["fly64"]["cpu_seconds"]


def start_cpu_s(times: int = 3) -> float:
    """CPU seconds of a kernel that starts and imports what the notebooks do, and nothing else; the
    least of some tries."""
    with tempfile.TemporaryDirectory(prefix="fly64-") as name:
        source, output = Path(name) / "start.ipynb", Path(name) / "out.ipynb"
        started = Path(name) / "started.txt"
        code = (_IMPORTS.format(started), f'print("results: {started}")')
        cells = [nbformat.v4.new_code_cell(text) for text in code]
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=_PYTHON), source)
        found = []
        for _ in range(times):
            # as a job of a study: the server imports what the notebook names before it forks
            job = [*python(), "-m", "fly64lib.cli.main", "notebook", str(source), str(output)]
            subprocess.run(job, check=True, stdout=subprocess.DEVNULL)
            found.append(kernel_s(output))
    return min(found)


def measured(folder: Path, start_s: float) -> dict[str, float]:
    """CPU seconds of a finished study by what they were spent on."""
    kernels = [kernel_s(folder / name) for name in SweepFolder.of(folder).settings.notebooks()]
    runs = [json.loads(line) for line in (folder / "logs" / "runs.jsonl").read_text().splitlines()]
    everything = sum(run["cpu_s"] for run in runs)
    in_kernels, workers = sum(max(one - start_s, 0) for one in kernels), workers_s(folder)
    work = in_kernels + workers
    return {
        "notebooks": len(kernels),
        "all CPU s": everything,
        "bare work CPU s": work,
        "kernels' starts CPU s": sum(kernels) - in_kernels,
        "papermill and Snakemake CPU s": everything - sum(kernels) - workers,
        "overhead / bare work": everything / work - 1,
    }


def workers_s(folder: Path) -> float:
    """CPU seconds of methods whose worker the server forked: a kernel's own do not hold them."""
    study = SweepFolder.of(folder)
    if study.executor != "local" or sys.platform != "linux":
        return 0.0
    chosen = [name for name in study.settings.methods if own_notebook(name)]
    results = (path for name in chosen for path in folder.glob(f"replicate_*/phase_f/*/*/{name}"))
    return sum(read_json(path / "result.json")["cpu_seconds"] for path in results)


def sweep_overhead(options: OverheadOptions) -> int:
    """Measure a kernel's start, read the study, and print both as JSON."""
    start_s = start_cpu_s()
    shown = {"start of a kernel, CPU s": start_s, **measured(options.study, start_s)}
    print(json.dumps(shown, indent=1))
    return 0


if __name__ == "__main__":
    main(OverheadOptions, sweep_overhead)
