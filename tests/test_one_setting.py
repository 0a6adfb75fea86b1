"""A setting stands once: a field of TrainingConfig that is added there can be given on the command
line, in a notebook's parameters, in a profile and so in the sweep's jobs, with no other edit."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from one_process import told

ROOT = Path(__file__).resolve().parents[1]
FIRST = "    train_data_file: "
IGNORED = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages and notebooks with one line more: a new field of TrainingConfig; and data files
    for a dry run of the command line."""
    root = tmp_path_factory.mktemp("copy")
    for folder in ("ptycho_torch", "fly64lib", "notebooks"):
        shutil.copytree(ROOT / folder, root / folder, ignore=IGNORED)
    file = root / "ptycho_torch" / "config.py"
    text = file.read_text()
    assert text.count(FIRST) == 1
    file.write_text(text.replace(FIRST, f"    new_knob: float = 0.5  # of a test\n{FIRST}"))
    for split in ("train", "test"):
        names = [f"C/dose_1000/patched_{split}.npz"]
        names += [f"D/dose_1000/{view}/{view}_{split}.npz" for view in ("dense", "sparse")]
        for name in names:  # a dry run looks whether they are there, and not into them
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    return root


def with_copy(copy: Path) -> dict[str, str]:
    """The environment of Python with the copy's packages."""
    return os.environ | {"PYTHONPATH": str(copy), "COLUMNS": "200"}


def python(copy: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Such a Python in the copy's folder."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=copy, env=with_copy(copy), capture_output=True, text=True)


@pytest.mark.slow
def test_on_the_command_line(copy):
    roots = ("--phase-c-root", "C", "--phase-d-root", "D", "--artifact-root", "A")
    training = "fly64lib.training"
    asked = [
        (training, *roots, "--dose", "1000", "--dry-run", *given)
        for given in (("--new-knob", "0.7"), ("--new-knop", "0.7"), ("--new-knob", "much"))
    ]
    helped, planned, unknown, wrong = told(copy, with_copy(copy), (training, "--help"), *asked)
    assert re.search(r"--new-knob FLOAT +of a test \(default: 0\.5\)", helped[1])
    assert planned[0] == 0, planned[1]
    assert "settings: new_knob 0.7\n" in planned[1] and planned[1].count("planned") == 3
    assert unknown[0] == 2 and "--new-knop" in unknown[1]
    assert wrong[0] == 2 and "--new-knob" in wrong[1]


_NOTEBOOK = """
from fly64lib.notebook.parameters import TrainParameters
from fly64lib.notebook.paths import notebook
from fly64lib.notebook.runner import check_parameters
from ptycho_torch.errors import ConfigError

def told(training):
    try:
        checked = check_parameters(notebook("train"), {"training": training})
        print(checked, TrainParameters(**checked).config.new_knob)
    except ConfigError as error:
        print(str(error).replace("\\n", " "))

for training in ({"new_knob": 0.7}, '{"new_knob": 0.7}', {"new_knop": 0.7}, {"new_knob": "much"}):
    told(training)
"""


def test_in_a_notebooks_parameters(copy):
    run = python(copy, "-c", _NOTEBOOK)
    assert run.returncode == 0, run.stderr
    given, as_text, unknown, wrong = run.stdout.splitlines()
    assert given == as_text == "{'training': {'new_knob': 0.7}} 0.7"
    assert "'new_knop' of a training; did you mean 'new_knob'?" in unknown
    assert "new_knob='much': expected a valid number" in wrong


_PROFILE = """
import sys
from fly64lib.sweep.profile import load_profile
print(load_profile("smoke", sys.argv[1:]).training)
"""


def test_in_a_profile(copy):
    given = python(copy, "-c", _PROFILE, "training.new_knob=0.7")
    assert given.stdout == "{'steps': 10, 'n_images': 40, 'new_knob': 0.7}\n", given.stderr
    refused = python(copy, "-c", _PROFILE, "training.new_knop=0.7")
    assert "'new_knop' of a training; did you mean 'new_knob'?" in refused.stderr


_SWEEP = """
import json, subprocess, sys
from pathlib import Path
from fly64lib.sweep.control import snakemake
from fly64lib.sweep.folder import SweepFolder, prepared
from fly64lib.sweep.profile import load_profile
profile = load_profile("smoke", ["training.new_knob=0.7"])
study = prepared(SweepFolder(folder=Path("study"), profile="smoke", settings=profile, cores=1))
study.write()
file = study.folder / "study.json"
held = json.loads(file.read_text())
held["settings"]["training"] = {sys.argv[1]: held["settings"]["training"].pop("new_knob")}
file.write_text(json.dumps(held))
sys.exit(subprocess.run([*snakemake(study), "--dry-run", "--printshellcmds"]).returncode)
"""


@pytest.mark.slow
def test_in_the_jobs_of_the_sweep(copy):
    planned = python(copy, "-c", _SWEEP, "new_knob")
    assert planned.returncode == 0, planned.stderr
    commands = [line for line in planned.stdout.splitlines() if "cli.main notebook" in line]
    carrying = [line for line in commands if '"new_knob": 0.7' in line]
    assert len(carrying) == 2 and all("/train_gs" in line for line in carrying)
    shutil.rmtree(copy / "study")
    refused = python(copy, "-c", _SWEEP, "new_knop")
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0 and "did you mean 'new_knob'?" in said
