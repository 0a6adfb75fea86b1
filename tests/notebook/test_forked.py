"""Jobs and kernels that are forked: all that tells them from started ones is the time they take."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbformat import v4
from run_notebook import CLIENT, PLAIN, SERVER

from fly64lib.methods import forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only")
SAYS = """import hashlib, json, os, random, sys, threading, warnings
import lightning, matplotlib, numpy as np, torch
from fly64lib.training import run_training_job
torch.manual_seed(0)
image, layer = torch.randn(2, 4, 64, 64), torch.nn.Conv2d(4, 8, 3)
layer(image).sum().backward()
far, plane = torch.fft.fft2(image), np.random.default_rng(0).normal(size=(400, 400))
sums = [layer.weight.grad.numpy(), far.numpy(), plane @ plane]
same = {
    "bits": [hashlib.sha256(one.tobytes()).hexdigest() for one in sums],
    "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
    "seed": torch.default_generator.initial_seed(),
    "argv": len(sys.argv), "path": sys.path, "main": __name__, "folder": os.getcwd(),
    "session": os.getsid(0) == os.getpid(), "backend": matplotlib.get_backend(),
    "interactive": lightning.fabric.utilities.imports._IS_INTERACTIVE,
    "threads of Python": sorted(one.name for one in threading.enumerate()),
}
open("said.json", "w").write(json.dumps([same, [random.random(), np.random.rand()]]))
warnings.warn("seen")"""
PLOTS = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
SPENDS = """import time
ends = time.process_time() + 0.5
while time.process_time() < ends: pass"""
HANGS = """import os, pathlib, time
pathlib.Path("written").write_text(str(os.getpid()))
os.rename("written", "kernel")
os.fork() or time.sleep(600)
time.sleep(600)"""


def job(folder: Path, *cells: str) -> list[str]:
    """The command of a notebook of these cells, with a result."""
    folder.mkdir(exist_ok=True)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    ends = 'open("result", "w").close()\nprint("results: result")'
    cells = list(map(v4.new_code_cell, (*cells, ends)))
    nbformat.write(
        v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "a.ipynb"
    )
    return [*CLIENT, "-m", "fly64lib.cli.main", "notebook", "a.ipynb", "out.ipynb"]


def ran(folder: Path, environment: dict, *cells: str, options: tuple = ()) -> tuple[int, str]:
    """Exit code and what was said of a notebook's job."""
    command = [*job(folder, *cells), *options]
    text = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "timeout": 120}
    done = subprocess.run(command, cwd=folder, env=environment, **text)
    return done.returncode, done.stdout


def outputs(notebook: Path) -> list:
    """Kinds of a notebook's outputs, and the text of its streams without process numbers."""
    found = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        for one in cell.outputs:
            text = one.get("text", "").partition(": ")[2]
            found.append((one.output_type, one.get("name"), text, sorted(one.get("data", ()))))
    return found


@pytest.mark.slow
def test_a_forked_kernel_computes_and_shows_what_a_started_one_does_with_fresh_randomness(
    served: dict[str, str], tmp_path: Path
) -> None:
    """Of a server that has forked Snakemake too, which changes where modules are looked for."""
    asked = [*CLIENT, "-m", "snakemake", "--version"]
    assert subprocess.run(asked, env=served, capture_output=True, timeout=120).returncode == 0
    folders = {"plain": PLAIN, "first": served, "second": served}
    for name, environment in folders.items():
        code, said = ran(tmp_path / name, environment, SAYS, PLOTS, SPENDS)
        assert (code, said) == (0, "out.ipynb  results: result\n")
        executed = nbformat.read(tmp_path / name / "out.ipynb", as_version=4)
        assert 0.5 <= executed.metadata.fly64.cpu_seconds < 60
        assert 50 < executed.metadata.fly64.peak_memory_mb < 20_000
    seen = [json.loads((tmp_path / name / "said.json").read_text()) for name in folders]
    for name, (same, _) in zip(folders, seen, strict=True):
        assert same.pop("folder") == str(tmp_path / name)
        assert same == seen[0][0]
    assert len({one for _, drawn in seen for one in drawn}) == 6
    shown = [outputs(tmp_path / name / "out.ipynb") for name in folders]
    assert shown[0] == shown[1] == shown[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "options", "message"),
    [
        ("import os\nos._exit(0)", (), "Kernel died"),
        ("import os\nos.kill(os.getpid(), 9)", (), "Kernel died"),
        (HANGS, ("--cell-timeout-s", "1"), "timed out"),
        ("1 / 0", (), "ZeroDivisionError: division by zero"),
    ],
)
def test_what_ends_a_forked_kernel_is_named_and_nothing_of_it_is_left(
    served: dict[str, str], tmp_path: Path, cell: str, options: tuple[str, ...], message: str
) -> None:
    code, said = ran(tmp_path, served, cell, options=options)
    assert code == 2 and message in said and (tmp_path / "out.failed.ipynb").is_file()
    if cell == HANGS:
        assert gone(tmp_path)


def gone(folder: Path, within_s: float = 10) -> bool:
    """Whether the kernel of HANGS, and what it forked itself, ends in time."""
    group, ends = int((folder / "kernel").read_text()), time.monotonic() + within_s
    while time.monotonic() < ends:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_who_asked_ends_job_and_kernel(
    served: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    with subprocess.Popen(job(tmp_path, HANGS), cwd=tmp_path, env=served) as asked:
        while not (tmp_path / "kernel").is_file():
            assert asked.poll() is None
            time.sleep(0.05)
        asked.send_signal(number)
        assert asked.wait(20) != 0
    assert gone(tmp_path)


@pytest.mark.slow
def test_another_environment_of_imports_is_started_anew(
    served: dict[str, str], tmp_path: Path
) -> None:
    """Threads and paths are read when modules are loaded, which the server has done."""
    threads = "import torch\nprint('threads:', torch.get_num_threads())"
    assert ran(tmp_path, served, threads)[0] == 0
    assert outputs(tmp_path / "out.ipynb")[0][2] == "1\n"
    assert ran(tmp_path, served | {"OMP_NUM_THREADS": "2"}, threads)[0] == 0
    assert outputs(tmp_path / "out.ipynb")[0][2] == "2\n"


@pytest.mark.slow
def test_whoever_watches_killed_takes_the_forked_process_along(
    served: dict[str, str], tmp_path: Path
) -> None:
    text = {"stderr": subprocess.PIPE, "text": True}
    command = job(tmp_path, HANGS.replace("os.fork() or ", ""))
    with subprocess.Popen(command, cwd=tmp_path, env=served, **text) as asked:
        while not (tmp_path / "kernel").is_file():
            assert asked.poll() is None
            time.sleep(0.05)
        psutil.Process(int((tmp_path / "kernel").read_text())).parent().kill()
        assert "Kernel died" in asked.communicate(timeout=20)[1] and asked.returncode == 2


def test_without_a_server_there_is_a_clear_error_and_unnamed_it_is_a_plain_start(
    tmp_path: Path,
) -> None:
    text = {"capture_output": True, "text": True}
    plain = subprocess.run([*CLIENT, "-c", "print(3)"], env=PLAIN, **text)
    assert (plain.returncode, plain.stdout) == (0, "3\n")
    environment = PLAIN | {forked.SERVER: str(tmp_path / "none")}
    ended = subprocess.run([*CLIENT, "-c", "print(3)"], env=environment, **text)
    assert ended.returncode == 2 and ended.stdout == ""
    assert f"no server answers at {tmp_path}/none" in ended.stderr


def test_the_server_ends_with_its_command_and_has_its_exit_code(tmp_path: Path) -> None:
    environment = PLAIN | {"TMPDIR": str(tmp_path)}
    for command, code in (("exit 3", 3), ("kill -9 $$", 137)):
        assert subprocess.run([*SERVER, "bash", "-c", command], env=environment).returncode == code
    assert not list(tmp_path.iterdir())
