"""Pages of the site that are made from something else (mkdocs.yml): the overview from README.md,
the gallery from executed notebooks, the Python pages from the packages' modules.

Made here and nowhere kept, so that none can be stale."""

import re
from pathlib import Path

import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import HTMLExporter

import fly64lib

ROOT = Path(__file__).resolve().parents[1]
_PACKAGES = ("fly64lib", "ptycho_torch")
_PURPOSE = re.compile(r"^\| \[`(\w+)\.ipynb`\]\(\S+\) \| (.+?) \|$", re.MULTILINE)
_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):(?=<code>)")
_ELSEWHERE = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)(\.\./[^)]+)\)")


def on_files(files: Files, config: dict) -> Files:
    """Add the pages that are made."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    pages = {"index.md": readme.replace("(docs/", "(").replace('"docs/', '"')}
    pages |= gallery(config["repo_url"]) | _python()
    for name, content in pages.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **about: object) -> str:
    """Links out of docs/ lead to files of the repository, which are not part of the site."""
    return _ELSEWHERE.sub(r"\1 (`\2`)", markdown)


def on_page_content(html: str, **about: object) -> str:
    """Docstrings name things by roles, such as :class:`Name`; the name alone stays."""
    return _ROLE.sub("", html)


def executed(name: str) -> Path:
    """An executed notebook: that of the reference study, which holds its pictures, else the
    reference of the tests, which holds text only."""
    found = sorted((ROOT / "reports" / "reference" / "notebooks").rglob(f"{name}*.ipynb"))
    return found[0] if found else ROOT / "tests" / "reference" / f"{name}.ipynb"


def gallery(repository: str | None) -> dict[str, str]:
    """A page of links, and each notebook as HTML. The links to the sources are made here, from the
    address that mkdocs.yml gives as `repo_url`; without one there are none."""
    table = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    pages, lines = {}, []
    for name, purpose in _PURPOSE.findall(table):
        source = executed(name)
        document = nbformat.read(source, as_version=4)
        pages[f"notebooks/{name}.html"] = HTMLExporter().from_notebook_node(document)[0]
        at, own = source.relative_to(ROOT), f"`notebooks/{name}.ipynb`"
        if repository:
            own = f"[{own}]({repository}/blob/main/notebooks/{name}.ipynb)"
        lines.append(f"| [{name}](notebooks/{name}.html) | {purpose} | {own} | `{at}` |")
    text = (
        "# Executed notebooks\n\nAs they ran, with what they wrote. Run one of your own by `fly64"
    )
    text += " notebook NAME OUT.ipynb`.\n\n"
    head = "| notebook | what it is for | source | as it ran |\n| --- | --- | --- | --- |\n"
    pages["gallery.md"] = text + head + "\n".join(lines) + "\n"
    return pages


def _python() -> dict[str, str]:
    """The public names on one page, and a page for each room with its modules."""
    public = [f"::: {place}.{name}" for name, place in fly64lib._PLACES.items()]
    pages, rooms = {}, []
    for package in _PACKAGES:
        for room in sorted((ROOT / package).iterdir()):
            if room.name.startswith("_") or not (room.suffix == ".py" or room.is_dir()):
                continue
            files = [room] if room.suffix == ".py" else sorted(room.glob("*.py"))
            names = [_module(path) for path in files if path.stem != "__init__"]
            if names:
                page = f"{package}.{room.stem}"
                blocks = "\n\n".join(f"::: {name}" for name in names)
                pages[f"api/{page}.md"] = f"# {page}\n\n{blocks}\n"
                rooms.append(f"- [`{page}`]({page}.md)")
    text = "# Python\n\n`import fly64lib` gives the names below. The rooms of both packages:\n\n"
    pages["api/index.md"] = text + "\n".join(rooms) + "\n\n" + "\n\n".join(public) + "\n"
    return pages


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)
