"""explore.ipynb and own_scan.ipynb in JupyterLab, in a real browser: opened, run from the menu,
their menus moved; and the page of one's own scan on a phone and on a desk."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import WINDOWS, Page, assert_fits, chromium
from jupyter_lab import NOTEBOOK, jupyter_lab, open_notebook, run_all
from made_up_study import write_objects, write_study
from small_scan import small_scan

from fly64lib.evaluation.columns import table
from fly64lib.notebook.paths import notebook
from fly64lib.report.rows import collect
from ptycho_torch.data.contract import write_scan

pytestmark = pytest.mark.browser
MENUS = f"{NOTEBOOK}.querySelectorAll('.widget-dropdown select')"
CHOSEN = f"{NOTEBOOK}.querySelector('.widget-output')"
KEYS = ("replicate", "dose", "view", "method")  # of the menus, in their order
SECTIONS = ["The object", "The methods", "What the scan needs", "The scan", "Files"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Notebooks as `fly64 init` lays them down, but for few steps on one thread (two wait for each
    other on a loaded machine), a finished study under runs/, and a scan."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(notebook("explore"), folder)
    text = notebook("own_scan").read_text(encoding="utf-8")
    for usual, quick in (
        ("steps: int = 40", "steps: int = 3"),
        ("threads: int = 2", "threads: int = 1"),
    ):
        assert usual in text
        text = text.replace(usual, quick)
    (folder / "own_scan.ipynb").write_text(text, encoding="utf-8")
    views, methods = ("baseline", "dense"), ("good", "poor")
    made_up = {"views": views, "methods": methods, "doses": (1e3, 1e5), "replicates": 2}
    study = write_study(folder / "runs" / "quick", **made_up)
    write_objects(study, collect(study).rows, small_scan(1e4, across=9))
    scan = small_scan(1e4, across=5)
    about = {"object_kind": "initial", "object_pixel_nm": 20.0}
    empty = np.ones_like(scan.object_guess)
    write_scan(folder / "scan.npz", replace(scan, object_guess=empty, metadata=about))
    return folder


@pytest.fixture(scope="module")
def lab(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with jupyter_lab(folder, tmp_path_factory.mktemp("jupyter")) as address:
        yield address


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with chromium(tmp_path) as page:
        yield page


def test_every_menu_of_explore_changes_what_is_shown(lab, folder, page, tmp_path):
    rows = collect(folder / "runs" / "quick").rows
    open_notebook(page, lab, "explore.ipynb")
    run_all(page)
    page.wait("four menus", f"{MENUS}.length == 4")
    assert page.value(f"[...{MENUS}].map(one => one.options.length)") == [2] * 4
    labels = f"[...{MENUS}[1].options].map(one => one.innerText)"
    assert page.value(labels) == ["1,000", "100,000"]
    shown = wait_for(page, rows[0])
    for number, key in enumerate(KEYS):
        choose_second(page, f"{MENUS}[{number}]")
        other = next(row[key] for row in rows if row[key] != shown[key])
        wanted = {one: shown[one] for one in KEYS} | {key: other}
        shown = wait_for(page, next(row for row in rows if wanted.items() <= row.items()))
    page.picture(tmp_path / "explore.png")
    assert not page.errors


def test_own_scan_runs_and_its_page_fits_a_phone_and_a_desk(lab, folder, page, tmp_path):
    open_notebook(page, lab, "own_scan.ipynb")
    run_all(page)
    seen = f"[...{NOTEBOOK}.querySelectorAll('.jp-OutputArea img')]"
    page.wait("two pictures", f"{seen}.length == 2 && {seen}.every(one => one.naturalWidth)")
    assert "results: " in page.value(f"{NOTEBOOK}.innerText")
    page.picture(tmp_path / "own_scan.png")
    assert not page.errors
    made = folder / "scan_reconstructed" / "index.html"
    for width, height in WINDOWS:
        page.open(made.as_uri(), width, height)
        assert_fits(page, width)
        sections = "[...document.querySelectorAll('section h2')].map(one => one.innerText)"
        assert page.value(sections) == SECTIONS
        widths = "[...document.images].map(one => one.getBoundingClientRect().right)"
        assert max(page.value(widths)) <= width  # seen whole, without a scroll to the side
        page.picture(tmp_path / f"page_{width}.png", whole=True)
    assert not page.errors


def choose_second(page: Page, menu: str) -> None:
    """Choose a menu's second entry by mouse and keys. The list drops down outside the page, where
    nothing says that it is there: what is pressed too early is pressed again."""
    for _ in range(5):
        page.click(menu)
        page.press("ArrowDown", 40)
        page.press("Enter", 13)
        if page.holds(f"{menu}.selectedIndex == 1", 5):
            return
    raise AssertionError(f"{menu} keeps {page.value(f'{menu}.value')!r}")


def wait_for(page: Page, row: dict) -> dict:
    """The row, as soon as the menus' output shows its numbers and three whole pictures."""
    _, (line,) = table([row])
    cells = f"[...{CHOSEN}.querySelectorAll('table td')].map(one => one.innerText.trim())"
    there = f"{cells}.slice(0, {len(line)}).join('|') == {json.dumps('|'.join(line))}"
    pictures = f"[...{CHOSEN}.querySelectorAll('img')]"
    whole = f"{pictures}.length == 3 && {pictures}.every(one => one.naturalWidth > 0)"
    page.wait(f"row {line}", f"{there} && {whole}")
    return row
