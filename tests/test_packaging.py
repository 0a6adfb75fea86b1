"""What is installed is what is here: the environment file, the wheel's contents, and train.ipynb
run from the wheel."""

import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import nbformat
import pytest
import yaml
from run_notebook import papermill, written_last

import fly64lib
from fly64lib.notebook.paths import notebook, notebooks_folder
from ptycho_torch.errors import ConfigError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_paper_cites_what_its_bibliography_and_the_citation_file_have():
    """No reference is missing in one of the three, none is there for nothing, and the version is
    the package's."""
    entries = re.split(r"^@", (ROOT / "paper.bib").read_text(encoding="utf-8"), flags=re.M)[1:]
    dois = {re.search(r"{(\w+),", one)[1]: re.search(r"doi = {(.*)}", one)[1] for one in entries}
    text = (ROOT / "paper.md").read_text(encoding="utf-8")
    assert set(re.findall(r"@(\w+)", text)) == set(dois) and len(dois) == len(entries)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {one["doi"] for one in citation["references"]} == set(dois.values())
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_conda_environment_is_the_projects_all_extra_on_the_same_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    conda = [item for item in environment["dependencies"] if isinstance(item, str)]
    (pip,) = (item["pip"] for item in environment["dependencies"] if isinstance(item, dict))
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert pip == ["-e .[all]"]  # so every package and bound is pyproject.toml's own
    assert environment["name"] == PROJECT["name"]


def test_the_all_extra_names_extras_that_exist():
    extras = PROJECT["optional-dependencies"]
    (named,) = extras["all"]
    assert (
        {"lsqml", "test"}
        <= set(re.fullmatch(r"fly64\[(.*)\]", named)[1].split(","))
        <= set(extras) - {"all"}
    )


def test_in_a_checkout_the_notebooks_are_found_beside_the_packages():
    assert (
        notebooks_folder()
        == Path(fly64lib.__file__).resolve().parents[1] / "notebooks"
        == ROOT / "notebooks"
    )
    with pytest.raises(ConfigError, match="there is no notebook 'trian'.* there are .*train"):
        notebook("trian")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            "--wheel-dir",
            str(folder),
            str(ROOT),
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_both_packages_every_notebook_the_licence_and_nothing_else(
    wheel,
):
    names = set(zipfile.ZipFile(wheel).namelist())
    source = {
        path.relative_to(ROOT).as_posix()
        for package in ("fly64lib", "ptycho_torch")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = (*(ROOT / "notebooks").glob("*.ipynb"), ROOT / "notebooks/README.md")
    notebooks = {f"fly64lib/_notebooks/{path.name}" for path in shipped}
    assert {name for name in names if ".dist-info/" not in name} == source | notebooks
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    scripts = (
        zipfile.ZipFile(wheel)
        .read(next(name for name in names if name.endswith("entry_points.txt")))
        .decode()
    )
    assert all(f"{script} = {target}" in scripts for script, target in PROJECT["scripts"].items())


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    build = ("-m", "build", "--sdist", "--no-isolation", "--outdir", str(folder), str(ROOT))
    subprocess.run([sys.executable, *build], check=True, capture_output=True, timeout=300)
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.mark.slow
def test_wheel_and_sdist_pass_the_check_before_an_upload(wheel, sdist):
    check = [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)]
    checked = subprocess.run(check, capture_output=True, text=True, timeout=120)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert checked.stdout.count("PASSED") == 2


@pytest.mark.slow
def test_the_sdist_holds_the_packages_their_tests_and_what_describes_them(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "CITATION.cff", "paper.md", "mkdocs.yml"} <= names
    for folder in ("fly64lib", "ptycho_torch", "notebooks", "docs"):
        suffixes = (".py", ".ipynb", ".md", ".typed", ".yaml", ".pt")
        files = (path for path in (ROOT / folder).rglob("*") if path.suffix in suffixes)
        there = {path.relative_to(ROOT).as_posix() for path in files}
        assert there <= names
    assert "tests/test_packaging.py" in names


def test_both_packages_say_that_they_are_typed():
    assert all((ROOT / name / "py.typed").is_file() for name in ("fly64lib", "ptycho_torch"))


@pytest.mark.slow
def test_an_installed_wheel_runs_train_outside_the_repository(wheel, tmp_path):
    """An editable installation puts the checkout on the path too: the wheel has to come first, and
    be all that is used."""
    installed, work = tmp_path / "installed", tmp_path / "work"
    work.mkdir()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--no-index",
            "--target",
            str(installed),
            str(wheel),
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
    packaged = installed / "fly64lib" / "_notebooks" / "train.ipynb"
    asked = nbformat.read(packaged, as_version=4)
    asked.cells.append(
        nbformat.v4.new_code_cell(  # what a user could type below
            "import sys, fly64lib.notebook.paths\nprint('NOTEBOOKS',"
            " fly64lib.notebook.paths.notebooks_folder())\nprint('MODULES', [m.__file__ for m in"
            " list(sys.modules.values()) if (getattr(m, '__file__', None) or"
            f" '').startswith({str(ROOT)!r}) and not m.__file__.startswith(sys.prefix)])"
        )
    )  # the environment may lie inside the checkout
    nbformat.write(asked, work / "train.ipynb")
    run = papermill(
        work / "train.ipynb",
        work,
        pythonpath=installed,
        N=48,
        design={"scan_step": 2},
        simulation="matched",
        dose=1e4,
        steps=2,
        n_images=48,
        training={"thinnings": 1},
        output_dir="results",
    )
    assert run.returncode == 0, run.stderr
    text = "".join(
        output.get("text", "")
        for cell in nbformat.read(work / "out.ipynb", as_version=4).cells
        for output in cell.get("outputs", [])
    )
    assert f"NOTEBOOKS {packaged.parent}\n" in text and "MODULES []\n" in text
    assert written_last(work / "results" / "metrics.json", work / "results")
    result = json.loads((work / "results" / "metrics.json").read_text())
    (run_,) = result["runs"]
    scores = {row["method"]: row for row in run_["rows"]}
    assert set(scores) == {"pinn", "flat", "truth"} and run_["scored_against"] == "truth"
    assert scores["pinn"]["phase_psnr_skill"] > 3 and scores["flat"]["phase_psnr_skill"] == 0
    assert result["parameters"]["N"] == 48 and result["versions"]["fly64"] == PROJECT["version"]
    assert {path.name for path in (work / "results").iterdir()} >= {
        "bundle.pt",
        "model.ckpt",
        "metrics.csv",
        "metrics.json",
        "loss.png",
        "objects.png",
        "object.npz",
        "train.log",
    }
    assert len(list((work / "runs" / "data").iterdir())) == 1  # kept under its content's key
