"""The executed references are those of the notebooks as they stand, and their stored numbers notice
changed science."""

import json
from dataclasses import replace
from pathlib import Path

import nbformat
import numpy as np
import pytest
from reference.regression import DifferentNumbers, check, column, store
from references import FOLDER, REFERENCES, check_cell, sanitized

from fly64lib.design.study import StudyDesign
from fly64lib.generation import generate_datasets
from fly64lib.notebook import train as trainbook
from fly64lib.notebook.parameters import GenerateParameters, TrainParameters
from fly64lib.notebook.paths import notebook, notebooks_folder
from fly64lib.overlap import generate_overlap_views
from fly64lib.training import run_training_job
from ptycho_torch.data.contract import read_scan, write_scan
from ptycho_torch.errors import DataContractError
from ptycho_torch.files import read_json, write_json

REMAKE = 'out of date; python tests/remake_references.py --reason "..." makes it anew'


def test_every_notebook_has_a_reference_and_no_reference_is_left_over():
    notebooks = {path.stem for path in notebooks_folder().glob("*.ipynb")}
    assert notebooks == set(REFERENCES), "a notebook needs an entry in tests/references.py"
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(REFERENCES), REMAKE
    assert {path.stem for path in (FOLDER / "expected").glob("*.json")} == {
        name for name, reference in REFERENCES.items() if reference.result
    }, REMAKE


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_its_notebook_with_the_tables_parameters_and_the_check(name):
    reference = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    added = [cell for cell in [check_cell(name)] if cell]
    source = [cell for cell in nbformat.read(notebook(name), as_version=4).cells] + added
    injected = [
        cell for cell in reference.cells if "injected-parameters" in cell.metadata.get("tags", [])
    ]
    own = [cell for cell in reference.cells if cell not in injected]
    assert [cell.source for cell in own] == [cell.source for cell in source], REMAKE
    assert [cell.metadata.get("tags", []) for cell in own] == [
        cell.metadata.get("tags", []) for cell in source
    ], REMAKE
    values: dict = {}
    for cell in injected:
        exec(cell.source, values)
    values.pop("__builtins__", None)
    assert values == REFERENCES[name].parameters, REMAKE


@pytest.mark.parametrize("name", REFERENCES)
def test_a_reference_is_executed_and_holds_nothing_of_the_machine_that_made_it(name):
    path = FOLDER / f"{name}.ipynb"
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert path.stat().st_size < 100_000
    for output in (output for cell in cells for output in cell.outputs):
        assert set(output.get("data", {})) <= {"text/plain", "text/markdown", "text/html"}
        for text in (output.get("text", ""), *output.get("data", {}).values()):
            assert sanitized(text) == text and "/tmp" not in text


@pytest.mark.parametrize(
    "name", [name for name, reference in REFERENCES.items() if reference.result]
)
def test_the_stored_columns_and_tolerances_are_the_tables(name):
    stored = read_json(FOLDER / "expected" / f"{name}.json")
    assert {path: entry["tolerance"] for path, entry in stored.items()} == REFERENCES[
        name
    ].columns, REMAKE


def test_a_column_is_a_path_and_says_what_there_is_where_it_ends():
    content = {"rows": [{"psnr": 1.0, "name": "a"}, {"psnr": 2.0, "name": "b"}], "trace": [3, 2, 1]}
    assert column(content, "rows/*/psnr") == [1.0, 2.0] and column(content, "trace/-1") == [1]
    with pytest.raises(DataContractError, match="expected 'snr', there is psnr, name"):
        column(content, "rows/*/snr")
    with pytest.raises(DataContractError, match="expected '7', there is a list"):
        column(content, "trace/7")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"psnr": [1.0, 2.2], "name": ["a", "b"]},
            r"psnr/\*, value 1: 2.2, expected 2.0 within 0.1",
        ),
        ({"psnr": [1.0, None], "name": ["a", "b"]}, "value 1: None"),
        ({"psnr": [1.0, float("nan")], "name": ["a", "b"]}, "nan"),
        ({"psnr": [1.0], "name": ["a", "b"]}, "1 values, expected 2"),
        ({"psnr": [1.0, 2.0], "name": ["a", "c"]}, "'c', expected 'b'"),
    ],
)
def test_a_column_outside_its_tolerance_is_named_with_its_values(tmp_path, changed, message):
    write_json(tmp_path / "result.json", {"psnr": [1.0, 2.0], "name": ["a", "b"]})
    store(tmp_path / "result.json", tmp_path / "expected.json", {"psnr/*": 0.1, "name/*": 0})
    (tmp_path / "result.json").write_text(json.dumps({"psnr": [1.05, 1.95], "name": ["a", "b"]}))
    assert check(tmp_path / "result.json", tmp_path / "expected.json").count("as stored") == 2
    (tmp_path / "result.json").write_text(json.dumps(changed))
    with pytest.raises(DifferentNumbers, match=message):
        check(tmp_path / "result.json", tmp_path / "expected.json")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, TrainParameters]:
    """train.ipynb's reference, by the functions that the notebook calls: its data and its
    bundle."""
    root = tmp_path_factory.mktemp("reference")
    design = GenerateParameters(**REFERENCES["generate"].parameters).design
    generate_datasets(root / "C", design)
    generate_overlap_views(root / "C", root / "D", root / "overlap", StudyDesign(), controls=False)
    files = {
        f"{half}_npz": str(root / "D" / "dose_1000" / "sparse" / f"sparse_{half}.npz")
        for half in ("train", "test")
    }
    parameters = TrainParameters(
        **{**REFERENCES["train"].parameters, **files, "output_dir": str(root / "E")}
    )
    return root, parameters


def metrics(parameters: TrainParameters, trained_with: TrainParameters) -> Path:
    """metrics.json of a network trained with one set of parameters and judged on the files of
    another."""
    ((label, job),) = trainbook.training_jobs(trained_with).items()
    if not (job.artifact_dir / "bundle.pt").is_file():
        job_result = run_training_job(job, config=trained_with.config)
        write_json(
            job.artifact_dir / "kept.json", {key: job_result[key] for key in ("images", "groups")}
        )
    jobs = {label: replace(job, test_data_path=Path(parameters.test_npz))}
    judged = {label: trainbook.judge_job(jobs[label], label)}
    results = {label: read_json(job.artifact_dir / "kept.json")}
    return trainbook.write_results(parameters, jobs, results, judged)


def test_the_same_science_is_within_the_stored_tolerances(trained):
    _, parameters = trained
    assert "phase_psnr: as stored" in check(
        metrics(parameters, parameters), FOLDER / "expected" / "train.json"
    )


def test_a_conjugate_probe_in_all_of_the_data_leaves_the_stored_tolerances(trained):
    """A lost conjugate, made everywhere alike: nothing but the numbers can tell."""
    root, parameters = trained
    files = {}
    for half in ("train", "test"):
        files[f"{half}_npz"] = str(root / "conjugate" / f"{half}.npz")
        scan = read_scan(getattr(parameters, f"{half}_npz"))
        write_scan(files[f"{half}_npz"], replace(scan, probe=np.conj(scan.probe)))
    wrong = replace(parameters, **files, output_dir=str(root / "conjugate"))
    with pytest.raises(DifferentNumbers, match="phase_psnr, value 0"):
        check(metrics(wrong, wrong), FOLDER / "expected" / "train.json")


def test_positions_that_are_half_a_pixel_off_leave_the_stored_tolerances(trained):
    root, parameters = trained
    scan = read_scan(parameters.test_npz)
    write_scan(root / "shifted" / "test.npz", replace(scan, xcoords=scan.xcoords + 0.5))
    wrong = replace(
        parameters, test_npz=str(root / "shifted" / "test.npz"), output_dir=str(root / "shifted")
    )
    with pytest.raises(DifferentNumbers, match="phase_psnr, value 0"):
        check(metrics(wrong, parameters), FOLDER / "expected" / "train.json")


def test_a_training_that_learns_nothing_leaves_the_stored_tolerances(trained):
    root, parameters = trained
    wrong = replace(parameters, steps=1, output_dir=str(root / "untrained"))
    with pytest.raises(DifferentNumbers, match="amplitude_psnr, value 0"):
        check(metrics(wrong, wrong), FOLDER / "expected" / "train.json")
