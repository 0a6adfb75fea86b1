"""The tutorial's commands, one after another in an empty folder, as a reader types them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_BLOCK = re.compile(r"^```(python|)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_every_command_of_the_tutorial_ends_well(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    binaries = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": binaries, "PYTHONWARNINGS": "default"}
    steps = [
        step
        for kind, block in _BLOCK.findall(text)
        for step in ([f"python - <<'EOF'\n{block}EOF"] if kind else block.splitlines())
    ]
    assert len(steps) >= 10
    for step in steps:
        done = subprocess.run(
            ["bash", "-c", step],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{step}\n{done.stdout}{done.stderr}"
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {
        *("study", "check.png", "train.ipynb", "object.npz", "object.png"),
        *("mine.cxi", "mine.npz", "mine.png"),
    }
