"""The documents name what exists, and the log can be read."""

import datetime
import re
from pathlib import Path
from pkgutil import resolve_name

import pytest
from remake_references import LOG, log_entry

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")]
DOCUMENTS += sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.py")])
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
