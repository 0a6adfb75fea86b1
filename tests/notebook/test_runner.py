"""The notebook runner: what it refuses before it starts, and what it calls a success."""

import os
from importlib.metadata import entry_points
from pathlib import Path

import nbformat
import pytest
from nbformat import v4

from fly64lib.notebook.paths import notebook
from fly64lib.notebook.runner import (
    NotebookError,
    PrivateKernelEngine,
    check_parameters,
    run_notebook,
)
from ptycho_torch.errors import ConfigError

WRITES = """from pathlib import Path
result = Path(folder, "result.txt")
result.write_text(str(count))
print(f"results: {result}")"""


def written(folder: Path, *cells: str, name: str = "toy.ipynb") -> Path:
    """A notebook with parameters `folder` and `count`, and these code cells."""
    document = v4.new_notebook(
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}
        }
    )
    document.cells = [
        v4.new_code_cell(
            f'folder: str = "{folder}"  # where results go\ncount: int = 1  # of things',
            metadata={"tags": ["parameters"]},
        ),
        *map(v4.new_code_cell, cells),
    ]
    nbformat.write(document, folder / name)
    return folder / name


@pytest.mark.slow
def test_a_run_gives_the_executed_notebook_and_the_result_that_it_wrote(tmp_path: Path) -> None:
    source = written(
        tmp_path,
        "from ipykernel.connect import get_connection_info\nprint(get_connection_info())",
        WRITES,
    )
    (tmp_path / "out.failed.ipynb").write_text("an earlier failure")
    result = run_notebook(source, tmp_path / "out.ipynb", {"count": 3})
    assert result.read_text() == "3"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.ipynb",
        "result.txt",
        "toy.ipynb",
    ]
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    assert 0.1 < executed.metadata.fly64.cpu_seconds < 60  # what a kernel takes to start, at least
    assert 20 < executed.metadata.fly64.peak_memory_mb < 20_000
    said = executed.cells[2].outputs[0].text
    assert (
        '"transport": "ipc"' in said and "fly64-" in said
    )  # sockets in a folder of its own, no ports


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "limits", "message"),
    [
        ("1 / 0", {}, "ZeroDivisionError: division by zero"),
        ("import os\nos._exit(0)", {}, "Kernel died"),
        ("import time\ntime.sleep(60)", {"cell_timeout_s": 1}, "timed out"),
        ("import time\ntime.sleep(60)", {"timeout_s": 3}, "timed out"),
        ("print('done')", {}, "did not print 'results: PATH'"),
        ("print(f'results: {folder}/old.txt')", {}, "was not written by this run"),
    ],
    ids=[
        "error",
        "dead kernel",
        "hung cell",
        "notebook too long",
        "no result named",
        "result of an earlier run",
    ],
)
def test_a_failure_keeps_the_notebook_aside_and_what_was_there_before(
    tmp_path: Path, cell: str, limits: dict, message: str
) -> None:
    source = written(tmp_path, cell)
    (tmp_path / "out.ipynb").write_text("an earlier success")
    (tmp_path / "old.txt").write_text("an earlier result")
    os.utime(tmp_path / "old.txt", (1e9, 1e9))
    with pytest.raises(NotebookError, match=message):
        run_notebook(source, tmp_path / "out.ipynb", **limits)
    assert (tmp_path / "out.ipynb").read_text() == "an earlier success"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "old.txt",
        "out.failed.ipynb",
        "out.ipynb",
        "toy.ipynb",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dosee": 1000}, "unknown parameter 'dosee' of train.ipynb; did you mean 'dose'"),
        ({"dose": "many"}, "dose='many': expected a valid number"),
        ({"dose": 0.5}, "dose=0.5 is not a whole number of photons"),
        ({"progress": "never"}, "progress='never': expected a valid boolean"),
        ({"view": "denser"}, "view='denser' is not known; did you mean 'dense'"),
        ({"training": {"stepz": 3}}, "unknown parameter 'stepz' of a training; did you mean"),
    ],
)
def test_a_wrong_parameter_is_refused_before_anything_starts(
    tmp_path: Path, given: dict, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_notebook("train", tmp_path / "out.ipynb", given)
    assert not list(tmp_path.iterdir())


def test_checked_values_are_those_of_the_dataclass() -> None:
    assert check_parameters(notebook("train"), {"dose": 1000}) == {"dose": 1000.0}
    assert check_parameters(notebook("generate"), {"doses": [1000, 1e5]}) == {
        "doses": [1000.0, 1e5]
    }
    assert check_parameters(notebook("reconstruct"), {"view": "dense, sparse"}) == {
        "view": ["dense", "sparse"]
    }
    training = {"training": '{"width": 32}'}
    assert check_parameters(notebook("train"), training) == {"training": {"width": 32}}


def test_a_notebook_without_parameters_or_kernel_is_refused_with_the_remedy(tmp_path: Path) -> None:
    document = v4.new_notebook(cells=[v4.new_code_cell("x = 1")])
    nbformat.write(document, tmp_path / "bare.ipynb")
    with pytest.raises(ConfigError, match="no cell tagged 'parameters'"):
        check_parameters(tmp_path / "bare.ipynb", {"x": 2})
    with pytest.raises(ConfigError, match="names no kernel; open and save it"):
        check_parameters(tmp_path / "bare.ipynb", {})
    for output in ("bare.ipynb", "out.txt"):
        with pytest.raises(ConfigError, match="expected another file"):
            run_notebook(tmp_path / "bare.ipynb", tmp_path / output)
    with pytest.raises(ConfigError, match="no such notebook"):
        run_notebook(tmp_path / "absent.ipynb", tmp_path / "out.ipynb")


def test_papermill_finds_the_engine_by_name() -> None:
    (engine,) = entry_points(group="papermill.engine", name="fly64")
    assert engine.load() is PrivateKernelEngine
