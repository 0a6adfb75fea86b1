"""JupyterLab in a browser, used as a person does: a notebook is opened, and run from the menu."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chromium import WAIT_S, Page

CELLS_S = 600  # for hung cells: far above what a loaded machine needs
NOTEBOOK = "document.querySelector('.jp-NotebookPanel:not(.lm-mod-hidden)')"
# Started cells show [*], ended ones their number.
_PROMPTS = (
    f"[...{NOTEBOOK}.querySelectorAll('.jp-CodeCell .jp-InputPrompt')]"
    ".map(one => one.textContent.trim())"
)
_OUTPUTS = f"[...{NOTEBOOK}.querySelectorAll('.jp-OutputArea-output[data-mime-type]')]"
TRACEBACKS = (
    f"{_OUTPUTS}.filter(one => one.dataset.mimeType == 'application/vnd.jupyter.error')"
    ".map(one => one.innerText)"
)


@contextmanager
def jupyter_lab(folder: Path, own: Path) -> Iterator[str]:
    """The address of a server of the notebooks in `folder`; all that it keeps lies in `own`, and no
    other setting of this machine's user is read."""
    own.mkdir(parents=True, exist_ok=True)
    places = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    environment = os.environ | {name: str(own / name.lower()) for name in places}
    settings = own / "jupyter_config_dir/labconfig/default_setting_overrides.json"
    settings.parent.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False}
    settings.write_text(json.dumps({"@jupyterlab/apputils-extension:notification": quiet}))
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ServerApp.ip=127.0.0.1"]
    command += ["--ServerApp.port=0", "--allow-root", f"--ServerApp.root_dir={folder}"]
    with (own / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield _address(server, own)
    finally:
        server.terminate()  # its kernels end with it
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _address(server: subprocess.Popen, own: Path) -> str:
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until and server.poll() is None:
        for path in own.glob("jupyter_runtime_dir/jpserver-*.json"):
            try:
                about = json.loads(path.read_text())
            except ValueError:
                continue  # half written
            return (
                f"http://127.0.0.1:{about['port']}/lab/tree/NOTEBOOK?token={about['token']}&reset"
            )
        time.sleep(0.1)
    raise TimeoutError(f"no JupyterLab in {WAIT_S} s\n{(own / 'server.log').read_text()[-3000:]}")


def open_notebook(
    page: Page, address: str, name: str, width: int = 1280, height: int = 900
) -> None:
    """Open a notebook, and no other that was open before, and wait for its kernel."""
    page.open(address.replace("NOTEBOOK", name), width, height)
    page.wait("notebook", f"!!{NOTEBOOK}?.querySelector('.jp-CodeCell')")
    page.wait("notebook without a spinner", f"!{NOTEBOOK}.querySelector('.jp-Spinner')")
    said = "document.querySelector('#jp-main-statusbar').innerText"
    idle = f"/\\| Idle/.test({said}) && {said}.includes({json.dumps(name)})"
    page.wait("idle kernel", idle)


def run_all(page: Page) -> None:
    """Run > Run All Cells, and wait until the last cell has run or one has failed."""
    page.click(
        "[...document.querySelectorAll('.lm-MenuBar-item')]"
        ".find(one => one.innerText.trim() == 'Run')"
    )
    page.click("document.querySelector('.lm-Menu-item[data-command=\"runmenu:run-all\"]')")
    ended = f"{_PROMPTS}.length > 0 && {_PROMPTS}.every(text => /\\[\\d+\\]/.test(text))"
    asks = "document.querySelector('.jp-Dialog')"
    page.wait("end of all cells", f"{TRACEBACKS}.length > 0 || !!{asks} || {ended}", CELLS_S)
    failed = page.value(f"{TRACEBACKS}.concat({asks} ? {asks}.innerText : [])")
    assert not failed, "\n".join(failed)
