"""The command `fly64`: every subcommand, and what it says when something is missing."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_scan import small_scan
from toy_study import write_toy_notebooks

from fly64lib.cli import doctor
from fly64lib.cli.main import COMMANDS, main
from fly64lib.design.registries import SPECIMENS
from fly64lib.notebook.paths import notebooks_folder
from ptycho_torch.data.contract import write_scan
from ptycho_torch.fields import literal


def test_notebook_takes_parameters_as_papermill_does(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = write_toy_notebooks(tmp_path / "toys") / "report.ipynb"
    study = tmp_path / "study"
    command = ["notebook", str(source), str(study / "out.ipynb"), "-p", "study_dir", "."]
    study.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(study)  # a notebook's relative paths are the caller's
        assert main(command) == 0
    assert f"results: {study / 'index.html'}" in capsys.readouterr().out
    assert main([*command, "-p", "studydir", "."]) == 2
    assert "did you mean 'study_dir'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1000", 1000),
        ("1e5", 1e5),
        ("dense", "dense"),
        ("None", None),
        ("True", True),
        ("true", True),
        ("[1000, 1e4]", [1000, 1e4]),
        ("runs/data", "runs/data"),
        ("dense,sparse", "dense,sparse"),
        ("-1", -1),
        ("", ""),
    ],
)
def test_a_value_is_read_as_python_writes_it(text: str, value: object) -> None:
    assert literal(text) == value and type(literal(text)) is type(value)


def test_init_lays_down_every_notebook_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["init", str(tmp_path / "mine")]) == 0
    names = {path.name for path in (tmp_path / "mine").iterdir()}
    assert (
        names == {path.name for path in notebooks_folder().glob("*.ipynb")}
        and "train.ipynb" in names
    )
    assert main(["init", str(tmp_path / "mine")]) == 2
    assert "so that nothing of yours is lost" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "resume", "cancel"])
def test_a_folder_without_a_study_is_named(
    tmp_path: Path, command: str, capsys: pytest.CaptureFixture
) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert "holds no study; start one: fly64 run" in capsys.readouterr().err


def test_an_unknown_profile_is_refused_with_those_there_are(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["run", "--profile", "fast", "--output", str(tmp_path / "study")]) == 2
    known = "'full', 'laptop', 'quick', 'smoke'"
    assert f"profile='fast' is not one of {known}" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_what_it_does_and_which_options_it_takes(
    command: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    said = capsys.readouterr().out
    assert ended.value.code == 0 and "--help" in said and len(said.splitlines()) > 6


def helped(command: str, capsys: pytest.CaptureFixture) -> str:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_lists_the_keys_of_a_profile_and_the_specimens(capsys: pytest.CaptureFixture) -> None:
    said = helped("run", capsys)
    for key in (
        "doses",
        "scan_step",
        "base_npz",
        "learning_rate",
        "train_steps",
        "settings.METHOD.X",
    ):
        assert key in said
    said = helped("generate", capsys)
    assert all(name in said for name in SPECIMENS)


@pytest.mark.parametrize("command", ["generate", "overlap", "train", "reconstruct", "compare"])
def test_a_command_calls_itself_as_it_was_called(
    command: str, capsys: pytest.CaptureFixture
) -> None:
    assert helped(command, capsys).startswith(f"usage: fly64 {command} ")


def test_after_an_import_the_next_step_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    npz, cxi, mine = (str(tmp_path / name) for name in ("scan.npz", "scan.cxi", "mine.npz"))
    write_scan(npz, small_scan(1e4, N=32))
    optics = ["--pixel-size-nm", "50", "--energy-kev", "8.8", "--distance-m", "1.9"]
    assert main(["export", npz, cxi, *optics]) == 0
    assert main(["import", cxi, mine]) == 0
    assert (
        "\nnext: fly64 check SCAN.npz; then fly64 reconstruct SCAN.npz, or fly64 probe"
        in capsys.readouterr().out
    )


def test_the_command_alone_lists_its_commands_and_knows_its_version(
    capsys: pytest.CaptureFixture,
) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"  {name} " in said for name in COMMANDS) and "--version" in said
    assert main(["--version"]) == 0
    assert re.fullmatch(r"fly64 \d+\.\d+\.\d+\n", capsys.readouterr().out)
    assert main(["recontruct"]) == 2
    assert "did you mean 'reconstruct'?" in capsys.readouterr().err


@pytest.mark.slow
def test_the_doctor_runs_a_real_kernel_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert main(["doctor", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "ok   notebook kernel: python3 runs" in said and "ok   torch" in said
    assert "formats: h5py" in said and "lab: jupyterlab" in said
    assert said.count("to do:") == sum(line.startswith("no ") for line in said.splitlines())
    monkeypatch.setattr(
        doctor,
        "_kernel",
        lambda: doctor.Finding("notebook kernel", False, "none", "install one", True),
    )
    assert main(["doctor", str(tmp_path)]) == 1
    assert "to do: install one" in capsys.readouterr().out


@pytest.mark.parametrize("lines", [1, 20_000])  # fits the buffer, or breaks on the way
def test_a_reader_that_has_seen_enough_ends_a_command_without_a_word(lines: int) -> None:
    code = (
        "from ptycho_torch.commands import run_command;"
        f" raise SystemExit(run_command(lambda: print('a line' * {lines}) or 0))"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    command.stdout.close()
    assert command.stderr.read() == b"" and command.wait() == 128 + signal.SIGPIPE
    command.stderr.close()
