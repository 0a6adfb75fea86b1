"""The documentation's site: built strictly, without a network, with the pages that it promises."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fly64lib
from fly64lib.notebook.paths import notebooks_folder

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = """import socket

def refused(self, address):
    raise OSError(f"no network in this test: {address}")

socket.socket.connect = refused
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(OFFLINE)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder / "site"]
    built = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder / "site"


@pytest.mark.slow
def test_the_site_holds_overview_tutorial_gallery_and_every_module(site: Path) -> None:
    for page in ("index", "tutorial/index", "import_export/index", "extending/index"):
        assert (site / f"{page}.html").is_file()
    assert (site / "images" / "objects.png").is_file()
    gallery = (site / "gallery" / "index.html").read_text(encoding="utf-8")
    for source in notebooks_folder().glob("*.ipynb"):
        assert f"notebooks/{source.stem}.html" in gallery
        shown = (site / "notebooks" / f"{source.stem}.html").read_text(encoding="utf-8")
        assert "jp-OutputArea" in shown or source.stem == "explore"
    pictured = (site / "notebooks" / "train.html").read_text(encoding="utf-8")
    assert "data:image/png" in pictured
    api = (site / "api" / "index.html").read_text(encoding="utf-8")
    for name, place in fly64lib._PLACES.items():
        assert f'id="{place}.{name}"' in api
    rooms = "".join(path.read_text(encoding="utf-8") for path in site.glob("api/*/index.html"))
    assert "The gauge of a ptychographic object" in rooms  # a module's docstring
    assert not re.search(r":(class|func):<code>", rooms)


def test_the_navigation_leads_to_every_how_to() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r"\w+\.md", navigation))


def test_links_to_the_notebooks_sources_follow_one_address(monkeypatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    pages = importlib.import_module("site_hooks").gallery
    link = "(https://host.example/one/fly64/blob/main/notebooks/train.ipynb)"
    assert link in pages("https://host.example/one/fly64")["gallery.md"]
    assert "https:" not in pages(None)["gallery.md"]


def test_the_citation_is_complete_and_of_this_version() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    needed = {"cff-version", "message", "title", "authors", "version", "license", "abstract"}
    assert needed | {"keywords", "type", "references"} <= set(cited)
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{cited["version"]}"' in project
    assert f'license = "{cited["license"]}"' in project


def test_the_paper_has_the_parts_that_joss_asks_for_and_cites_what_it_lists() -> None:
    _, head, body = (ROOT / "paper.md").read_text(encoding="utf-8").split("---\n", 2)
    about = yaml.safe_load(head)
    assert {"title", "tags", "authors", "affiliations", "date", "bibliography"} <= set(about)
    assert "# Summary\n" in body and "# Statement of need\n" in body and "# References" in body
    assert 250 < len(body.split()) < 1000
    listed = re.findall(r"^@\w+\{(\w+),", (ROOT / about["bibliography"]).read_text(), re.MULTILINE)
    assert sorted(re.findall(r"\[@(\w+)\]", body)) == sorted(listed)
