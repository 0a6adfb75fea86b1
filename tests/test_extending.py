"""docs/extending.md, executed: every entry of a package outside the project, from its recipe to the
report."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from one_process import told
from small_scan import small_scan

from ptycho_torch.data.contract import read_scan, write_scan

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
ENTRIES = {
    "methods": "blur",
    "specimens": "checkers",
    "probes": "gaussian",
    "networks": "pixelwise",
    "metrics": "phase_bias",
    "formats": "text",
}


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A folder with the page's package as an installer would lay it down."""
    site = tmp_path_factory.mktemp("site")
    (site / "my_package").mkdir()
    (site / "my_package" / "__init__.py").touch()
    for name, code in re.findall(r"```python\n# my_package/(\w+)\.py\n(.*?)```", PAGE, re.S):
        (site / "my_package" / f"{name}.py").write_text(code, encoding="utf-8")
    (project,) = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    groups = tomllib.loads(project)["project"]["entry-points"]
    assert {group.removeprefix("fly64."): [*entry] for group, entry in groups.items()} == {
        group: [name] for group, name in ENTRIES.items()
    }
    about = site / "my_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    points = [
        line
        for group, entries in groups.items()
        for line in (f"[{group}]", *(f"{name} = {place}" for name, place in entries.items()))
    ]
    (about / "entry_points.txt").write_text("\n".join(points))
    return site


def with_package(package: Path) -> dict[str, str]:
    """The environment of a process that has the package installed."""
    return os.environ | {"PYTHONPATH": f"{package}{os.pathsep}{ROOT}"}


def fly64(package: Path, folder: Path, *arguments: object):
    """A command of the project in such a process."""
    command = [sys.executable, "-m", "fly64lib.cli.main", *map(str, arguments)]
    environment = with_package(package)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_method_specimen_probe_and_metric_of_another_package_go_through_a_whole_study(
    package, tmp_path
):
    """And with them a trained network and pty-chi's LSQML, on one view."""
    chosen = {"methods": "blur,pinn,lsqml", "specimen": "checkers", "probe": "gaussian"}
    chosen |= {"settings.blur.sigma_px": "0.5", "scan_step": "6", "views": "baseline"}
    chosen |= {"training.steps": "4", "training.thinnings": "1", "training.n_images": "24"}
    settings = [text for key, value in chosen.items() for text in ("--set", f"{key}={value}")]
    run = fly64(package, tmp_path, "run", "--profile", "smoke", "--output", "study", *settings)
    assert run.returncode == 0, run.stderr[-2000:]
    study = tmp_path / "study"
    # generate, overlap, a training, two reconstructions, a comparison, report
    assert len([*(study / "notebooks").rglob("*.ipynb")]) == 2 + 4 + 1
    place = "dose_10000/baseline"
    result = json.loads((study / f"replicate_0/phase_f/{place}/blur/result.json").read_text())
    assert result["settings"] == {"sigma_px": 0.5}
    scan = read_scan(study / "replicate_0/phase_c/dose_10000/patched_test.npz")
    assert {scan.metadata["provenance"][key] for key in ("specimen", "probe")} == {
        "checkers",
        "gaussian",
    }
    rows = json.loads((study / "report.json").read_text())["rows"]
    blur, flat, truth = (
        next(row for row in rows if row["method"] == name) for name in ("blur", "flat", "truth")
    )
    assert 0 == truth["phase_bias"] < blur["phase_bias"] < 0.5
    assert blur["phase_psnr"] > flat["phase_psnr"] + 3
    page = (study / "index.html").read_text(encoding="utf-8")
    assert "phase bias / rad" in page and "twenty steps on the canvas" in page
    executed = (study / f"notebooks/replicate_0/{place}/compare.ipynb").read_text(encoding="utf-8")
    assert "phase bias" in executed and "blur" in executed  # a text table wraps its heads


NAMED = (
    ("fly64lib.reconstruction", "--method", "blur"),
    ("fly64lib.generation", "--specimen", "checkers"),
    ("fly64lib.generation", "--probe", "gaussian"),
)
HELPS = [(module, "--help") for module, *_ in NAMED]
WRONG = [(module, option, f"{name}s") for module, option, name in NAMED]
TRAINED = (
    *("fly64lib.training", "--phase-c-root", "C", "--phase-d-root", "D", "--artifact-root", "E"),
    *("--dose", "10000", "--view", "baseline", "--N", "32", "--network", "pixelwise"),
    *("--max-epochs", "1", "--thinnings", "1", "--logger", "none", "--allow-missing-phase-d"),
)
EXPORTED = ("fly64lib.cli.main", "export", "scan.npz", "mine.scan.txt")
IMPORTED = (
    *("fly64lib.cli.main", "import", "mine.scan.txt", "again.npz", "--probe", "probe.npz"),
    *("--orientation", "as-given"),
)


@pytest.fixture(scope="module")
def commands(package, tmp_path_factory) -> tuple[Path, list[tuple[int, str]]]:
    """Exit code and words of each command above, of one process that has the package, and the
    folder where they ran."""
    folder = tmp_path_factory.mktemp("commands")
    scan = small_scan(1e4, N=32)
    for name in ("scan", "C/dose_10000/patched_train", "C/dose_10000/patched_test"):
        write_scan(folder / f"{name}.npz", scan)
    np.savez(folder / "probe.npz", probeGuess=scan.probe)
    asked = (*HELPS, *WRONG, TRAINED, EXPORTED, IMPORTED)
    return folder, told(folder, with_package(package), *asked)


@pytest.mark.slow
def test_the_help_of_a_command_names_the_entries_of_another_package(commands):
    said = commands[1][: 2 * len(NAMED)]
    for (_, _, name), (status, text), refused in zip(NAMED, said[:3], said[3:], strict=True):
        assert status == 0 and name in text
        assert refused[0] == 2 and re.search(rf"\b{name}\b", refused[1])


@pytest.mark.slow
def test_a_network_of_another_package_is_trained_by_its_name(commands):
    folder, (*_, (code, said), _, _) = commands
    assert code == 0, said
    (job,) = json.loads((folder / "E/training_manifest.json").read_text())["jobs"]
    assert job["config"]["model"]["network"] == "pixelwise" and np.isfinite(job["final_loss"])


@pytest.mark.slow
def test_a_format_of_another_package_is_exported_and_imported(commands):
    folder, (*_, exported, imported) = commands
    for code, said in (exported, imported):
        assert code == 0, said
    scan, again = (read_scan(folder / name) for name in ("scan.npz", "again.npz"))
    np.testing.assert_array_equal(np.rint(again.diffraction**2), np.rint(scan.diffraction**2))
    steps = [np.diff(one.positions, axis=0) for one in (again, scan)]
    np.testing.assert_allclose(*steps, atol=1e-6)


def test_every_recipe_is_short():
    methods = re.search(r"# my_package/blur\.py\n(.*?)```", PAGE, re.S)[1]
    code = [
        line for line in methods.split("\n") if line and not line.startswith(("import", "from"))
    ]
    assert len(code) <= 20
