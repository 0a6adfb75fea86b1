"""Make the executed references of the notebooks anew, and say why in reports/LOG.md.

    python tests/remake_references.py --reason "the network sees ten canvas steps more"
    python tests/remake_references.py --reason "..." train compare

Without names all of them. Runs every notebook of `references.REFERENCES` once as it is, stores the
numbers to be held in `expected/`, and once more with the cell that checks them. Text that differs
between machines, images and papermill's records are left out of what is kept."""

import datetime
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import nbformat
import papermill
from papermill.engines import papermill_engines
from reference.regression import store
from references import CELL_TIMEOUT_S, FOLDER, REFERENCES, check_cell, sanitized
from tyro.conf import Positional

from fly64lib.notebook.papermill_engine import PrivateKernelEngine
from fly64lib.notebook.paths import notebook
from ptycho_torch.commands import run_options
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import config

LOG = Path(__file__).parents[1] / "reports" / "LOG.md"


def run(name: str, cells: list[nbformat.NotebookNode], output: Path) -> nbformat.NotebookNode:
    """The notebook of a name, `cells` appended, executed in tests/reference with its reference's
    parameters."""
    document = nbformat.read(notebook(name), as_version=4)
    document.cells += cells
    source = output.with_name(f"source-{name}.ipynb")
    nbformat.write(document, source)
    return papermill.execute_notebook(
        source,
        output,
        REFERENCES[name].parameters,
        engine_name="fly64",
        kernel_name="python3",
        progress_bar=False,
        cwd=FOLDER,
        execution_timeout=CELL_TIMEOUT_S,
    )


def kept(executed: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """What is the same on every machine."""
    executed.metadata = {
        key: executed.metadata[key] for key in ("kernelspec", "language_info")
    }  # widgets hold images
    for cell in executed.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        cell.id = (
            "injected-parameters"
            if "injected-parameters" in cell.metadata.get("tags", [])
            else cell.id
        )
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text = sanitized(output.text)
            if "data" in output:
                output.data = {
                    kind: sanitized(value) if isinstance(value, str) else value
                    for kind, value in output.data.items()
                    if kind.startswith("text/")
                }
                output.metadata = {}
    return executed


@config
class RemakeOptions:
    """Make the executed references of the notebooks anew."""

    reason: str  # one sentence for reports/LOG.md: what changed, and why that is right
    names: Positional[tuple[str, ...]] = ()  # notebooks whose references are kept; default: all

    def __post_init__(self) -> None:
        if unknown := set(self.names) - set(REFERENCES):
            raise ConfigError(
                f"no references named {', '.join(sorted(unknown))}; there are"
                f" {', '.join(REFERENCES)}"
            )


def log_entry(names: Sequence[str], reason: str, day: datetime.date) -> str:
    """The entry of reports/LOG.md for references that were remade."""
    text = f"{', '.join(names)}. Reason: {reason.strip().rstrip('.')}."
    filled = textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)
    return f"\n## {day}  References remade\n\n{filled}\n"


def remake(options: RemakeOptions) -> int:
    """Run the notebooks twice, for the numbers and with their check; keep what was asked for."""
    names = [name for name in REFERENCES if name in options.names or not options.names]
    papermill_engines.register("fly64", PrivateKernelEngine)
    work = FOLDER / "runs"
    for checked in (False, True):
        # All of them run, since each needs what the one before wrote; only the asked are kept.
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        for name, reference in REFERENCES.items():
            print(f"{name}, {'with its check' if checked else 'for its numbers'}", file=sys.stderr)
            cell = check_cell(name) if checked else None
            executed = run(name, [cell] if cell else [], work / f"{name}.ipynb")
            if name in names and checked:
                nbformat.write(kept(executed), FOLDER / f"{name}.ipynb")
            elif name in names and reference.result:
                store(
                    FOLDER / reference.result,
                    FOLDER / "expected" / f"{name}.json",
                    reference.columns,
                )
    with LOG.open("a", encoding="utf-8") as log:
        log.write(log_entry(names, options.reason, datetime.date.today()))
    print(f"{', '.join(names)} remade; an entry is in {LOG.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_options(RemakeOptions, remake, None, "remake_references.py"))
