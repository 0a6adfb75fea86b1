"""Several commands of one process, whose start takes longer than they do."""

import json
import subprocess
import sys
from pathlib import Path

_ASKED = """
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module

def said(module, *arguments):
    texts = io.StringIO()
    with redirect_stdout(texts), redirect_stderr(texts):
        try:
            status = import_module(module).main(list(arguments))
        except SystemExit as end:
            status = end.code
    return status, texts.getvalue()

print(json.dumps([said(*one) for one in json.loads(sys.argv[1])]))
"""


def told(
    folder: Path, environment: dict[str, str], *asked: tuple[str, ...]
) -> list[tuple[int, str]]:
    """Exit code and words of each `main` of a module with arguments, one after another, in a
    process of that folder and environment."""
    command = [sys.executable, "-c", _ASKED, json.dumps(asked)]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)
