"""The documents name what exists, and the log can be read."""

import datetime
import importlib
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest
from remake_references import LOG, log_entry
from test_layers import RANK

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
DOCUMENTS += sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.py")])
LINK = r"\]\((?!https?:)([^)#\s]+)"
FOLDERS = "docs|benchmarks|tests|notebooks|fly64lib|ptycho_torch|reports"


def named(pattern: str, text: str) -> list[str]:
    return sorted(set(re.findall(pattern, text)))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_modules_tests_and_files_that_a_document_names_exist(path):
    text = path.read_text(encoding="utf-8")
    if path.name == "upstream_driver.py":  # its ptycho_torch is the original's
        return
    for name in named(r"\b((?:fly64lib|ptycho_torch)(?:\.[A-Za-z_]\w*)+)(?!\w|/|\()", text):
        resolve_name(name)
    imports = r"^from ((?:fly64lib|ptycho_torch)\S*) import ([^(\n]+)"
    for module, names in re.findall(imports, text, re.M):
        for name in names.split(","):
            resolve_name(f"{module}.{name.strip()}")
    tests = {test.name for test in (ROOT / "tests").rglob("test_*.py")}
    assert set(named(r"\btest_\w+\.py\b", text)) <= tests
    places = named(rf"(?<![\w/.<])((?:{FOLDERS})/[\w./-]*\w)(?![\w*<{{])", text)
    if path.suffix == ".md":
        places += [f"{path.parent.relative_to(ROOT)}/{link}" for link in named(LINK, text)]
    made = {"tests/reference/runs"}  # by running the tests
    assert [place for place in places if not (ROOT / place).exists() and place not in made] == []


def test_every_entry_of_the_log_has_a_date_and_a_question_and_lines_that_can_be_read():
    lines = LOG.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 100 and not line.startswith("|")] == []
    headings = [line for line in lines if line.startswith("#")][1:]
    entry = re.compile(r"## (\d{4}-\d\d-\d\d)  (.+\?|References remade)")
    assert all(entry.fullmatch(heading) for heading in headings)
    days = [datetime.date.fromisoformat(heading[3:13]) for heading in headings]
    assert days == sorted(days), "newest last"


def test_remade_references_are_an_entry_of_their_own():
    entry = log_entry(["train", "compare"], "its word " * 20, datetime.date(2026, 11, 24))
    assert entry.startswith(
        "\n## 2026-11-24  References remade\n\ntrain, compare. Reason: its word"
    )
    assert entry.endswith("word.\n") and max(map(len, entry.splitlines())) <= 100


def test_the_picture_of_the_rooms_is_drawn_from_the_layers(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "images"))
    drawing = importlib.import_module("draw_rooms")
    drawn = (ROOT / "docs" / "images" / "rooms.svg").read_text(encoding="utf-8")
    assert drawn == drawing.draw(), "python docs/images/draw_rooms.py draws it anew"
    for (package, *_), rows in drawing.PACKAGES[1:]:
        ranks = [[RANK[f"{package}.{room.partition(':')[0]}"] for room in row] for row in rows]
        assert sorted(sum(ranks, [])) == sorted(
            rank for name, rank in RANK.items() if name.startswith(f"{package}.")
        )
        lower_rows = ranks[1:]
        assert all(min(a) > max(b) for a, b in zip(ranks, lower_rows, strict=False))
