"""`fly64 notebook` and `fly64 init`: a notebook executed, and copies of all to be edited."""

import shutil
from pathlib import Path
from typing import Annotated

from pydantic import Field
from tyro.conf import Positional, UseAppendAction, arg

from fly64lib.notebook import finished
from fly64lib.notebook.paths import notebooks_folder
from ptycho_torch.errors import ConfigError, PtychoError
from ptycho_torch.fields import Positive, config, literal

Seconds = Annotated[float, Field(ge=1)]
Pairs = UseAppendAction[tuple[tuple[str, str], ...]]


@config
class Notebook:
    """Execute a notebook, by name or file; OUT.failed.ipynb is what a failure leaves."""

    # generate, overlap, train, reconstruct, compare, report, ... or FILE.ipynb
    notebook: Positional[str]
    output: Positional[Path]  # OUT.ipynb
    # a value of its first cell; may be repeated
    parameter: Annotated[Pairs, arg(aliases=["-p"], metavar="NAME VALUE")] = ()
    timeout_s: Seconds | None = None  # limit of the whole notebook
    cell_timeout_s: Seconds | None = None  # limit of each cell
    # of a sweep's job: where finished ones are found again, what it reads, writes and runs
    finished: Path | None = None
    inputs: tuple[Path, ...] = ()
    outputs: tuple[Path, ...] = ()
    code: str = ""
    # of a sweep's job; at a further one a notebook that failed by itself is not run again
    attempt: Positive = 1


@config
class Init:
    """Lay down editable copies of the notebooks."""

    folder: Positional[Path]  # where they go


def run(asked: Notebook) -> int:
    """Execute a notebook and print the file that it wrote last."""
    failed = asked.output.with_suffix(".failed.ipynb")
    if failed.is_file():
        if asked.attempt > 1:
            text = f"{failed} is what this notebook left when it failed, and it would fail again:"
            raise PtychoError(f"{text} only jobs that were lost are tried again")
        failed.unlink()
    kept = asked.finished
    if kept:
        words = *(f"{name} {value}" for name, value in asked.parameter), asked.code
        key = finished.result_key((asked.notebook, *words), asked.inputs)
        if finished.take(kept, key, asked.outputs):
            print(f"{asked.output} was finished by an earlier run, from the same inputs: taken")
            return 0
    from fly64lib.notebook.runner import run_notebook
    from fly64lib.report.notebook_html import write_page

    given = {name: literal(text) for name, text in asked.parameter}
    limits = {"timeout_s": asked.timeout_s, "cell_timeout_s": asked.cell_timeout_s}
    result = run_notebook(asked.notebook, asked.output, given, **limits)
    if kept:
        write_page(asked.output)  # here, where many jobs run at once, and not in the report
        finished.keep(kept, key, asked.outputs)
    print(f"{asked.output}  results: {result}")
    return 0


def init(asked: Init) -> int:
    """Copy the notebooks into a folder that has none of their names."""
    files, folder = sorted(notebooks_folder().glob("*.ipynb")), asked.folder
    if there := ", ".join(file.name for file in files if (folder / file.name).exists()):
        advice = "choose another folder, so that nothing of yours is lost"
        raise ConfigError(f"{folder} already has {there}; {advice}")
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        print(shutil.copyfile(file, folder / file.name))
    one = f"fly64 notebook {folder / 'train.ipynb'} OUT.ipynb"
    study = f"fly64 run --profile quick --output STUDY --notebooks {folder}"
    print(f"edit them, in JupyterLab say; then: {one}, or the whole study with {study}")
    return 0
