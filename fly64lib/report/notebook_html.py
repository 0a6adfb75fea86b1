"""An executed notebook as a page to read: prose, code and outputs, without a notebook server.

Not all of Markdown: headings are headings, the rest stays as it was written. Widgets and scripts
are left out: the page needs none."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path

from ptycho_torch.files import atomic_path, read_json

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 1rem auto; padding: 0 1rem; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: .5rem .8rem; border-radius: 6px; }
.code { background: #f1f4f7; } .error { background: #fdecea; } .wide { overflow-x: auto; }
img { max-width: 100%; } table { border-collapse: collapse; }
td, th { padding: .2rem .6rem; text-align: right; }
"""
_IMAGES = ("image/png", "image/jpeg", "image/webp")
_END = 65_536  # bytes of a notebook that hold its metadata, outputs excluded
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")  # colours of a terminal


def page_of(notebook: str) -> str:
    """Where a notebook's page lies, from where the notebook does."""
    return f"{notebook.removesuffix('.ipynb')}.html"


def metadata_of(notebook: Path) -> dict:
    """What a notebook's metadata say. nbformat writes them behind the cells, so that of a large
    study's notebooks only the ends are read."""
    with notebook.open("rb") as file:
        file.seek(max(0, notebook.stat().st_size - _END))
        _, key, rest = file.read().rpartition(b'\n "metadata": {')
    if key:
        with suppress(ValueError):
            return json.loads(b'{"metadata": {' + rest)["metadata"]
    return read_json(notebook).get("metadata", {})


def write_page(notebook: Path) -> Path:
    """Write the page beside the notebook, under its name with `.html`; return its path."""
    page = notebook.with_name(page_of(notebook.name))
    with atomic_path(page) as temporary:
        temporary.write_text(notebook_html(read_json(notebook), notebook.name), encoding="utf-8")
    return page


def notebook_html(notebook: Mapping, title: str) -> str:
    """The page of a notebook's JSON (nbformat 4)."""
    parts = [part for cell in notebook.get("cells", ()) for part in _cell(cell)]
    head = '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    head += '<meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
    return "\n".join([head, *parts, "</body></html>\n"])


def _cell(cell: Mapping) -> Iterator[str]:
    source = _text(cell["source"])
    if cell["cell_type"] == "markdown":
        yield _prose(source)
    elif cell["cell_type"] == "code":
        yield _pre(source, "code")
        yield from filter(None, map(_output, cell.get("outputs", ())))


def _output(output: Mapping) -> str:
    if output["output_type"] == "stream":
        return _pre(_text(output["text"]), "stream")
    if output["output_type"] == "error":
        return _pre("\n".join(output["traceback"]), "error")
    data = output.get("data", {})
    for kind in _IMAGES:
        if kind in data:
            encoded = _text(data[kind]).replace("\n", "")
            return f'<img alt="figure" src="data:{kind};base64,{encoded}">'
    if "text/html" in data:
        shown = re.sub(r"<script\b.*?</script>", "", _text(data["text/html"]), flags=re.S)
        return f'<div class="wide">{shown}</div>'
    if "text/markdown" in data:
        return _prose(_text(data["text/markdown"]))
    return _pre(_text(data.get("text/plain", "")), "plain")


def _prose(text: str) -> str:
    parts = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if heading := re.fullmatch(r"(#{1,4}) (.*)", block.strip()):
            level = len(heading[1])
            parts.append(f"<h{level}>{escape(heading[2])}</h{level}>")
        elif block.lstrip().startswith(("|", "-", "$$", "```")):
            parts.append(_pre(block, "prose"))
        else:
            parts.append(f"<p>{escape(block)}</p>")
    return "\n".join(parts)


def _pre(text: str, kind: str) -> str:
    return f'<pre class="{kind}">{escape(_ESCAPES.sub("", text))}</pre>' if text.strip() else ""


def _text(value: str | list[str]) -> str:
    """nbformat allows a string or its lines."""
    return value if isinstance(value, str) else "".join(value)
