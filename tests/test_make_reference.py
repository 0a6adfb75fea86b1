"""The reference report is a finished study made small: its page and links, pictures and numbers,
nothing of the machine."""

import base64
import csv
import importlib.util
import io
import json
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from made_up_study import write_study
from PIL import Image

from fly64lib.report.report import write_report
from fly64lib.sweep.folder import SweepFolder
from fly64lib.sweep.profile import load_profile
from ptycho_torch.errors import ConfigError
from ptycho_torch.files import write_json

_SPEC = importlib.util.spec_from_file_location(
    "make_reference", Path(__file__).parents[1] / "reports" / "make_reference.py"
)
make_reference = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(make_reference)


def picture(width: int = 1800) -> bytes:
    data = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (width // 3, width), dtype=np.uint8)
    Image.fromarray(noise).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study of made-up rows, with its executed notebooks."""
    root = tmp_path_factory.mktemp("finished") / "study"
    profile = load_profile("smoke")
    SweepFolder(folder=root, profile="smoke", settings=profile, cores=1).write()
    write_study(root, methods=("good", "flat"))
    for place in (
        "dose_10000/baseline",
        "dose_1000/baseline",
    ):  # the second is none of the profile's
        drawn = root / "replicate_0/phase_g" / place / "objects.png"
        drawn.parent.mkdir(parents=True, exist_ok=True)
        drawn.write_bytes(picture())
    for name in profile.notebooks():
        cell = nbformat.v4.new_code_cell("1")
        shown = {"image/png": base64.b64encode(picture(450)).decode(), "text/plain": "<Image>"}
        cell.outputs = [
            nbformat.v4.new_output("display_data", shown),
            nbformat.v4.new_output("stream", text=f"results: {root}/replicate_0/x.json\n"),
        ]
        write_json(
            root / name,
            nbformat.v4.new_notebook(
                cells=[cell],
                metadata={"papermill": {"duration": 1.0, "input_path": "/home/me/train.ipynb"}},
            ),
        )
    write_report(root)
    return root


def test_the_answer_alone_has_its_tables_and_every_number(study, tmp_path):
    make_reference.make(study, tmp_path, answer_only=True)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "rows.csv", "study.json"}
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "siemens_star" in text and "--answer-only" in text and "index.html" not in text
    assert "Photons per object pixel for" in text
    with (tmp_path / "rows.csv").open(encoding="utf-8") as file:
        assert {row["method"] for row in csv.DictReader(file)} >= {"good", "flat"}


def test_a_reference_can_be_read_on_its_own(study, tmp_path):
    size_mb = make_reference.make(study, tmp_path / "reference")
    reference = tmp_path / "reference"
    assert 0 < size_mb < make_reference.LIMIT_MB
    for name in load_profile("smoke").notebooks():
        text = (reference / name).read_text()
        notebook = nbformat.reads(text, as_version=4)
        nbformat.validate(notebook)
        image = Image.open(
            io.BytesIO(base64.b64decode(notebook.cells[0].outputs[0].data["image/jpeg"]))
        )
        page = Path(name).with_suffix(".html")
        assert (reference / page).is_file() and image.width == make_reference.WIDTH_PX
        assert f'href="{page}"' in (reference / "index.html").read_text()
        assert (
            notebook.cells[0].outputs[1].text == "results: ./replicate_0/x.json\n"
            and "/home/me" not in text
        )
    (figure,) = (reference / "figures").iterdir()
    assert figure.name == "replicate_0_dose_10000_baseline_objects.jpg"
    assert Image.open(io.BytesIO(figure.read_bytes())).width == make_reference.WIDTH_PX
    with (reference / "rows.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(json.loads((reference / "report.json").read_text())["rows"]) == 18
    readme = (reference / "README.md").read_text()
    assert "profile `smoke`" in readme and "| good | 63 | 63 | 63 |" in readme
    assert not any(
        str(study) in path.read_text()
        for path in reference.rglob("*")
        if path.suffix in (".ipynb", ".html", ".json")
    )


def test_an_earlier_reference_is_replaced_and_anything_else_is_left_alone(study, tmp_path):
    make_reference.make(study, tmp_path / "reference")
    (tmp_path / "reference" / "figures" / "old.jpg").write_text("of an earlier study")
    make_reference.make(study, tmp_path / "reference")
    assert not (tmp_path / "reference" / "figures" / "old.jpg").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="something else"):
        make_reference.make(study, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes.txt").is_file()


def test_a_study_that_is_not_finished_or_too_large_is_refused(study, tmp_path, monkeypatch):
    monkeypatch.setattr(make_reference, "LIMIT_MB", 0.001)
    with pytest.raises(ConfigError, match="more than 0.001"):
        make_reference.make(study, tmp_path / "large")
    shutil.copytree(study, tmp_path / "study")
    shutil.rmtree(tmp_path / "study" / "notebooks" / "replicate_0" / "dose_10000")
    with pytest.raises(ConfigError, match="not finished; go on with: fly64 resume"):
        make_reference.make(tmp_path / "study", tmp_path / "reference")


def test_of_a_large_study_the_ends_and_the_middle_are_kept_and_only_they_are_linked(tmp_path):
    laptop = load_profile("laptop", ["replicates=2"])
    kept = make_reference.kept_conditions(laptop)
    doses, views = ("300", "3000", "100000"), ("single_0.8", "single_0.5", "single_0", "controls")
    assert kept == ["replicate_0", *(f"replicate_0/dose_{d}/{v}" for d in doses for v in views)]
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a.html").touch()
    links = '<a href="notebooks/a.html">a</a> <a href="notebooks/b.html">b</a>'
    page = make_reference._smaller_page(links, tmp_path)
    assert page == '<a href="notebooks/a.html">a</a> b'


def test_the_settings_that_are_not_the_profiles_own_are_said(tmp_path):
    changed = load_profile("smoke", ["replicates=2", "training.steps=11", "doses=500,1000"])
    study = SweepFolder(folder=tmp_path / "s", profile="smoke", settings=changed, cores=1)
    said = make_reference._changes(study)
    assert said == " --set doses=500.0,1000.0 --set replicates=2 --set training.steps=11"
