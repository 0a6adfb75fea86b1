"""Runs a notebook with papermill so that its output can be trusted.

papermill alone only warns about an unknown parameter, passes any type, rewrites the output in place
after every cell, and calls a notebook `completed` whose kernel died. Here a run either ends with
the executed notebook in place and a result file that the run itself wrote, or raises and leaves
`OUT.failed.ipynb`."""

import os
import re
import time
from pathlib import Path
from typing import Any

import nbformat
import papermill  # before fly64lib.notebook.papermill_engine, which it imports itself
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.engines import papermill_engines
from papermill.exceptions import PapermillException, PapermillExecutionError

from fly64lib.notebook import parameters as notebook_parameters
from fly64lib.notebook.papermill_engine import PrivateKernelEngine
from fly64lib.notebook.paths import notebook
from ptycho_torch.errors import ConfigError, PtychoError
from ptycho_torch.fields import field_names, from_dict, refuse_unknown, to_dict

KERNEL = "python3"
_RESULT = re.compile(r"^results: (.+)$", re.MULTILINE)
_GUARD = re.compile(r"read_parameters\((\w+),")


class NotebookError(PtychoError):
    """A notebook that did not end as it should; the message names the notebook that was kept."""


_FAILURES = (PapermillException, CellTimeoutError, DeadKernelError, NotebookError)


def check_parameters(source: str | Path, given: dict[str, Any]) -> dict[str, Any]:
    """`given` with its values as the notebook's own checked dataclass holds them.

    Raises ConfigError for a name or value that the dataclass refuses. A notebook without
    `read_parameters(...)` has only its names checked, against its parameters cell."""
    document = _read(source)
    if given and not any("parameters" in cell.metadata.get("tags", ()) for cell in document.cells):
        got = ", ".join(sorted(given))
        raise ConfigError(f"{source} has no cell tagged 'parameters', so it takes none; got {got}")
    if "kernelspec" not in document.metadata:
        advice = f"open and save it in JupyterLab with the kernel {KERNEL}"
        raise ConfigError(f"{source} names no kernel; {advice}")
    code = "\n".join(cell.source for cell in document.cells if cell.cell_type == "code")
    guard = _GUARD.search(code)
    cls = getattr(notebook_parameters, guard[1], None) if guard else None
    known = field_names(cls) if cls else papermill.inspect_notebook(str(source)) if given else ()
    refuse_unknown(given, known, Path(source).name)
    checked = to_dict(from_dict(cls, given)) if cls else given
    return {name: checked[name] for name in given}


def _read(source: str | Path) -> nbformat.NotebookNode:
    try:
        document = nbformat.read(source, as_version=4)
        _ = [cell.cell_type for cell in document.cells], document.metadata
        return document
    except OSError:
        raise
    except Exception as error:  # nbformat raises nearly anything for what is not a notebook
        first, *_ = str(error).splitlines() or [""]
        why = f"{source}: not a notebook that Jupyter can read ({type(error).__name__}:"
        advice = "open it in JupyterLab and save it again"
        raise ConfigError(f"{why} {first[:200]}); {advice}") from error


def run_notebook(
    name_or_path: str | Path,
    output: str | Path,
    parameters: dict[str, Any] | None = None,
    *,
    timeout_s: float | None = None,
    cell_timeout_s: float | None = None,
) -> Path:
    """Execute a notebook, one of the project's by name or any file, and return the result file that
    it wrote.

    The last line of its last cell says which that is: `results: PATH`. Limits are of the whole
    notebook and of each cell. Raises ConfigError before anything is started, NotebookError after a
    failure; then the notebook with its traceback is `OUT.failed.ipynb`, and an earlier `OUT` stays
    as it was."""
    by_name = not str(name_or_path).endswith(".ipynb")
    source = notebook(str(name_or_path)) if by_name else Path(name_or_path)
    output = Path(output)
    if not source.is_file():
        raise ConfigError(f"{source}: no such notebook")
    if output.suffix != ".ipynb" or output.resolve() == source.resolve():
        raise ConfigError(f"output {output}: expected another file than the source, named *.ipynb")
    checked = check_parameters(source, parameters or {})
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".tmp-{os.getpid()}-{output.name}")
    failed = output.with_suffix(".failed.ipynb")
    papermill_engines.register("fly64", PrivateKernelEngine)
    engine = {"engine_name": "fly64", "kernel_name": KERNEL, "progress_bar": False}
    limits = {"execution_timeout": cell_timeout_s, "notebook_timeout": timeout_s}
    started = time.time()
    try:
        executed = papermill.execute_notebook(source, temporary, checked, **engine, **limits)
        result = _result_of(executed, source, started)
        os.replace(temporary, output)
    except BaseException as error:
        if temporary.is_file():
            os.replace(temporary, failed)
        if not isinstance(error, _FAILURES):
            raise
        reason = str(error).splitlines()[0]
        if isinstance(error, PapermillExecutionError):
            reason = f"{error.ename}: {error.evalue} (code cell {error.exec_count})"
        raise NotebookError(f"{source.name} failed: {reason}; see {failed}") from error
    failed.unlink(missing_ok=True)
    return result


def _result_of(executed: Any, source: Path, started: float) -> Path:
    """The file that the last cell's `results: PATH` names, written by this run."""
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    outputs = cells[-1].outputs if cells else []
    said = _RESULT.findall("".join(part.get("text", "") for part in outputs))
    if not said:
        text = f"the last cell of {source.name} did not print 'results: PATH', the file that it"
        raise NotebookError(f"{text} wrote last")
    result = Path(said[-1].strip())
    # Some file systems keep whole seconds.
    if not result.is_file() or result.stat().st_mtime < started - 1:
        raise NotebookError(f"{result} was not written by this run")
    return result
