"""Source notebooks are clean and say what their dataclass says; run by papermill they do what they
promise."""

import ast
import importlib.util
import json
import re
import resource
import types
import typing

import nbformat
import numpy as np
import pytest
from run_notebook import papermill, written_last

from fly64lib.notebook import parameters
from fly64lib.notebook.paths import notebook, notebooks_folder
from ptycho_torch.data.contract import read_scan
from ptycho_torch.files import sha256_file
from ptycho_torch.training.bundle import load_bundle

NAMES = sorted(path.stem for path in notebooks_folder().glob("*.ipynb"))


def source(name: str) -> nbformat.NotebookNode:
    return nbformat.read(notebook(name), as_version=4)


def code(name: str) -> list[nbformat.NotebookNode]:
    return [cell for cell in source(name).cells if cell.cell_type == "code"]


def parameter_cell(name: str) -> nbformat.NotebookNode:
    (cell,) = (cell for cell in source(name).cells if "parameters" in cell.metadata.get("tags", []))
    return cell


def dataclass_of(name: str) -> type:
    """The dataclass that the notebook reads its parameters into."""
    classes = re.findall(
        r"read_parameters\((\w+), globals\(\), In\)", "\n".join(cell.source for cell in code(name))
    )
    assert len(classes) == 1, f"{name}.ipynb reads its parameters {len(classes)} times"
    return getattr(parameters, classes[0])


def test_the_phases_notebooks_are_there():
    assert {"generate", "overlap", "train", "reconstruct", "compare"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_source_notebook_holds_no_outputs_and_no_definitions(name):
    nbformat.validate(source(name))
    for cell in code(name):
        assert not cell.outputs and cell.execution_count is None
        assert not [
            node
            for node in ast.walk(ast.parse(cell.source))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        ]
    assert source(name).cells[0].source.startswith("# ")
    assert source(name).metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_stands_annotated_and_commented_on_a_line_and_as_its_dataclass_has_it(name):
    cls, cell = dataclass_of(name), parameter_cell(name)
    assert cell.cell_type == "code"
    values, hints = {}, typing.get_type_hints(cls)
    lines = cell.source.splitlines()
    for node, line in zip(ast.parse(cell.source).body, lines, strict=True):
        assert isinstance(node, ast.AnnAssign) and re.search(r"  # \S", line), line
        values[node.target.id] = ast.literal_eval(node.value)
        # papermill's translator knows no unions and no tuples: `int` stands for `int | None`,
        # `list` or a text such as "dense,sparse" for a tuple.
        hint = hints[node.target.id]
        union = typing.get_origin(hint) in (types.UnionType, typing.Union)
        options = typing.get_args(hint) if union else (hint,)
        allowed = {getattr(typing.get_origin(one) or one, "__name__", "") for one in options}
        allowed |= {"list", "str"} if "tuple" in allowed else set()
        choices = (choice for one in options for choice in typing.get_args(one))
        allowed |= {type(choice).__name__ for choice in choices}  # of a Literal
        assert ast.unparse(node.annotation) in allowed, line
    assert cls(**values) == cls()


@pytest.mark.parametrize("name", NAMES)
def test_what_a_notebook_imports_is_there(name):
    for node in ast.walk(ast.parse("\n".join(cell.source for cell in code(name)))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for one in node.names:
                place = f"{node.module}.{one.name}"
                assert hasattr(module, one.name) or importlib.util.find_spec(place), place


def test_a_source_notebook_can_be_read_in_the_width_of_a_page():
    for name in NAMES:
        lines = "\n".join(cell.source for cell in source(name).cells).splitlines()
        assert [line for line in lines if len(line) > 100] == []


def test_the_readme_of_the_notebooks_names_each_with_its_purpose():
    text = (notebooks_folder() / "README.md").read_text()
    assert sorted(re.findall(r"\[`(\w+)\.ipynb`\]\(\1\.ipynb\) +.{20}", text)) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_guard_is_the_first_thing_that_runs_after_the_parameters(name):
    cells = code(name)
    assert "parameters" in cells[0].metadata.tags
    assert cells[1].source.splitlines()[0].startswith("from fly64lib.notebook.parameters import ")
    assert "read_parameters" in cells[1].source and cells[1].source.count("import ") == 1


@pytest.mark.slow
def test_a_misspelt_parameter_fails_under_plain_papermill_within_seconds_and_is_named(tmp_path):
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = papermill(notebook("train"), tmp_path, dosee=1000)
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime < 10  # CPU seconds
    assert run.returncode != 0
    assert "unknown parameter 'dosee' of TrainParameters; did you mean 'dose'?" in run.stderr
    assert [path.name for path in tmp_path.iterdir()] == [
        "out.ipynb"
    ]  # papermill's own copy, nothing else
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    last = max(index for index, cell in enumerate(executed.cells) if cell.get("execution_count"))
    assert "read_parameters(" in executed.cells[last].source


@pytest.mark.slow
def test_the_data_notebooks_make_phases_c_and_d_and_write_their_results_last(served, tmp_path):
    run = papermill(
        notebook("generate"),
        tmp_path,
        served=served,
        doses=1000,
        scan_step=6,
        simulation="matched",
        output_root="C",
    )
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "C" / "generate.json").read_text())
    assert written_last(tmp_path / "C" / "generate.json", tmp_path / "C")
    assert (
        result["parameters"]["doses"] == [1000.0]
        and result["parameters"]["simulation"] == "matched"
    )
    assert [(row["dose asked"], row["half"]) for row in result["rows"]] == [
        (1e3, "train"),
        (1e3, "test"),
    ]
    for row in result["rows"]:
        scan = read_scan(tmp_path / "C" / "dose_1000" / f"patched_{row['half']}.npz")
        counts = np.square(scan.diffraction, dtype=np.float64)
        assert row["photons per exposure, measured"] == pytest.approx(counts.sum((1, 2)).mean())
        assert row["pixels without a photon, %"] == pytest.approx(
            100 * (counts < 0.5).mean(), rel=1e-3
        )
        assert row["brightest pixel, photons"] == pytest.approx(counts.max())
    assert sorted(path.stem for path in (tmp_path / "C" / "pictures").iterdir()) == [
        "object",
        "patterns",
        "probe",
        "split",
    ]

    run = papermill(
        notebook("overlap"),
        tmp_path,
        served=served,
        phase_c_root="C",
        output_root="D",
        artifact_root="A",
        controls=False,
        s_img=0.5,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "A" / "overlap.json").read_text())
    assert written_last(tmp_path / "A" / "overlap.json", tmp_path / "A")
    assert {(row["view"], row["half"]) for row in result["rows"]} == {
        (view, half)
        for view in ("baseline", "dense", "sparse", "custom")
        for half in ("train", "test")
    }
    dense = next(row for row in result["rows"] if (row["view"], row["half"]) == ("dense", "test"))
    figures = read_scan(tmp_path / "D" / "dose_1000" / "dense" / "dense_test.npz").metadata[
        "overlap"
    ]
    assert dense["(1) within groups"] == figures["within_groups"]["mean_disc_overlap"]
    assert (
        dense["(4) photons per object pixel, dose_1000"] == figures["fluence"]["photons_per_pixel"]
    )
    assert all(
        sha256_file(tmp_path / "D" / name) == row["sha256"] for name, row in result["files"].items()
    )
    outputs = [
        output
        for cell in nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
    ]
    assert (
        sum("image/png" in output.get("data", {}) for output in outputs) == 4
    )  # a picture of each view's test half


@pytest.mark.slow
def test_train_on_measured_patterns_fits_all_of_them_and_beside_it_one_half_for_the_other(
    served, real_scan_path, tmp_path
):
    run = papermill(
        notebook("train"),
        tmp_path,
        served=served,
        train_npz=real_scan_path,
        steps=2,
        n_images=40,
        training={"thinnings": 1},
        output_dir="out",
    )
    assert run.returncode == 0, run.stderr
    result = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert written_last(tmp_path / "out" / "metrics.json", tmp_path / "out")
    parameters.TrainParameters(**result["parameters"])
    fitted, split = result["runs"]
    assert (
        fitted["label"] == "fitted and scored on the same patterns"
        and split["label"] == "held-out half"
    )
    for row, folder in ((fitted, tmp_path / "out"), (split, tmp_path / "out" / "split")):
        assert row["scored_against"] == "data only" and row["training"]["status"] == "complete"
        assert row["training"]["images"] == 40 and np.isfinite(row["training"]["final_loss"])
        assert row["training"]["bundle_sha256"] == sha256_file(folder / "bundle.pt")
        assert not any(
            "psnr" in key or "ssim" in key or "frc" in key for score in row["rows"] for key in score
        )
        deviance = {score["method"]: score["deviance"] for score in row["rows"]}
        assert {"pinn", "flat"} <= set(deviance) and deviance["pinn"] < deviance["flat"]
        with np.load(folder / "object.npz", allow_pickle=False) as arrays:
            assert arrays["object"].shape == read_scan(real_scan_path).canvas_shape
    assert "deviance_held_out" in split["rows"][0] and "deviance_held_out" not in fitted["rows"][0]
    halves = [read_scan(tmp_path / "out" / "split" / f"{name}.npz") for name in ("train", "test")]
    assert halves[0].ycoords.min() - halves[1].ycoords.max() > 40  # the guard band
    assert (
        load_bundle(tmp_path / "out" / "split" / "bundle.pt").statistics["metadata"]["split"]
        == "train"
    )
    assert (
        str(tmp_path / "out" / "metrics.json") in (tmp_path / "out.ipynb").read_text()
    )  # printed as an absolute path
