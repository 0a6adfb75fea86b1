"""The tutorial's commands, one after another in an empty folder, as a reader types them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from run_notebook import CLIENT

from fly64lib.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(python|)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TYPED = "fly64 export"  # by the installed script in a shell; another would show no more


def ended(step: str, served: dict[str, str]) -> int:
    """Exit code of a line of the shell: in this process, whose imports are done, or forked where it
    starts a kernel."""
    command, _, otherwise = step.partition(" || ")
    program, *words = shlex.split(command)
    assert program == "fly64" and (not otherwise or otherwise.startswith("echo "))
    if words[0] == "notebook":
        job = [*CLIENT, "-m", "fly64lib.cli.main", *words]
        code = subprocess.run(job, env=served, timeout=600).returncode
    elif step.startswith(TYPED):
        binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": binaries, "PYTHONWARNINGS": "default"}
        code = subprocess.run(["bash", "-c", step], env=environment, timeout=600).returncode
    else:
        code = main(words)
    return 0 if otherwise else code


@pytest.mark.slow
def test_every_command_of_the_tutorial_ends_well(
    served: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    steps = [
        (kind, step)
        for kind, block in _BLOCK.findall(text)
        for step in ([block] if kind else block.splitlines())
    ]
    assert len(steps) >= 10 and any(step.startswith(TYPED) for _, step in steps)
    for kind, step in steps:
        if kind:
            exec(compile(step, "tutorial.md", "exec"), {"__name__": "__main__"})
        else:
            assert ended(step, served) == 0, step
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        *("study", "check.png", "train.ipynb", "object.npz", "object.png"),
        *("mine.cxi", "mine.npz", "mine.png"),
    }
