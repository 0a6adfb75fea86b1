"""Pieces of a page that needs nothing but itself: tables, definitions, legends, pictures inside the
file, provenance."""

import base64
import io
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image

_DASHES = {"-": "none", ":": "2 3", "--": "6 3", "-.": "8 3 2 3"}


def label(name: str) -> str:
    """A method's or limit's name as people read it."""
    return {
        "cramer_rao": "Cramér-Rao limit",
        "bayesian": "Bayesian limit",
        "flat": "empty object",
    }.get(name, name.replace("_", " "))


def page(title: str, facts: Iterable[str], sections: Mapping[str, str]) -> str:
    """The document: header, navigation, sections. Title and facts are text, sections HTML."""
    ids = {name: name.lower().replace(" ", "-") for name in sections}
    nav = "".join(f'<a href="#{ids[name]}">{name}</a>' for name in sections)
    body = "".join(
        f'<section id="{ids[name]}"><h2>{name}</h2>{part}</section>'
        for name, part in sections.items()
    )
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta'
        f' charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,'
        f' initial-scale=1"><style>{style}</style></head>\n'
        f"<body><header><h1>{escape(title)}</h1>{''.join(f'<p>{escape(fact)}</p>' for fact in facts)}</header>"
        f"<nav><div>{nav}</div></nav>\n<main>{body}</main></body></html>\n"
    )


def table(
    heads: Sequence[str], lines: Iterable[tuple[Sequence[str], str]], longs: bool = False
) -> str:
    """A table that scrolls inside itself; `lines` are (cells as HTML, class). `longs`: the last
    column is running text."""
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = "".join(
        f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>\n"
        for cells, kind in lines
    )
    return (
        '<div class="wide"><table'
        f' class="{"longs" if longs else ""}"><thead><tr>{head}</tr></thead>\n<tbody>{body}'
        "</tbody></table></div>\n"
    )


def definitions(entries: Mapping[str, str]) -> str:
    return (
        "<dl>"
        + "".join(
            f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in entries.items()
        )
        + "</dl>"
    )


def details(summary: str, content: str, opened: bool = False) -> str:
    """A part that opens on a click, or nothing where there is no content."""
    state = " open" if opened else ""
    return (
        f"<details{state}><summary>{escape(summary)}</summary>{content}</details>\n"
        if content
        else ""
    )


def items(texts: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"


def legend(styles: Mapping[str, tuple[str, str]]) -> str:
    """Names beside their (colour, matplotlib line style)."""
    return (
        '<p class="legend">'
        + "".join(
            f'<span><svg width="34" height="8"><line x2="34" y1="4" y2="4" stroke="{colour}"'
            ' stroke-width="2.5"'
            f' stroke-dasharray="{_DASHES[line]}"/></svg>{escape(label(name))}</span>'
            for name, (colour, line) in styles.items()
        )
        + "</p>"
    )


def panels(entries: Iterable[tuple[str, Callable[[], Figure]]], what: str) -> str:
    """Small figures in a row, stacked where the page is narrow."""
    return (
        '<div class="panels">'
        + "".join(
            f"<figure><figcaption>{escape(title)}</figcaption><img"
            f' alt="{escape(f"{what}: {title}")}" src="{drawn(figure())}"></figure>\n'
            for title, figure in entries
        )
        + "</div>"
    )


def picture(source: str, caption: str, kind: str = "grid") -> str:
    """An image with its caption; of kind "wide" it scrolls sideways on a narrow page instead of
    shrinking."""
    return (
        f'<figure class="{kind}"><div><img alt="{escape(caption)}" src="{source}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>\n"
    )


def drawn(figure: Figure, kind: str = "png") -> str:
    """A figure as a data URL: "png" for lines, "webp" for images."""
    data = io.BytesIO()
    figure.savefig(data, dpi=140, format=kind)
    return data_url(f"image/{kind}", data.getvalue())


def from_disk(path: Path) -> str:
    """A picture file as a data URL, at a fifth of a PNG's size."""
    data = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(data, "WEBP", quality=80)
    return data_url("image/webp", data.getvalue())


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def commit() -> str:
    """The git commit of the checkout that this code runs from, and whether it was changed since."""
    here = str(Path(__file__).resolve().parent)
    try:
        found = [
            subprocess.run(
                ["git", "-C", here, *command], capture_output=True, text=True, check=True
            ).stdout.strip()
            for command in (
                ("rev-parse", "HEAD"),
                ("status", "--porcelain", "--", ":/", ":!/reports"),
            )
        ]
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout; see the version of fly64"
    return f"commit {found[0][:12]}" + (" with uncommitted changes" if found[1] else "")


def machine() -> str:
    """CPU model, cores and memory."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()}"
