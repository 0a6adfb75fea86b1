"""Draws rooms.svg, the picture of docs/architecture.md: the rooms of both packages, stacked.

    python docs/images/draw_rooms.py

A room stands above those that it may import from (tests/test_layers.py); the numbers are the steps
of a pattern from file to report.
"""

from pathlib import Path
from xml.sax.saxutils import escape

WIDTH, MARGIN, GAP, HEIGHT = 400, 8, 6, 42  # px; the letters can be read on a telephone
# Package, what it is, colours; its rows from the top; in a row rooms as "name: what it is step"
PACKAGES = (
    (("notebooks", "one phase of the study each", "#f3e8d2", "#c9a760"), ()),
    (
        ("fly64lib", "the study", "#dfeaf5", "#6b98c4"),
        (
            ("cli: fly64 ...", "sweep: graph of runs", "notebook: parameters"),
            ("report: one page 9", "check: is it fit?", "formats: own data 1"),
            ("reconstruction: phase F 7", "comparison: phase G 8"),
            ("generation: phase C 1", "overlap: phase D 3", "training: phase E 6"),
            ("plots: figures", "methods: table rows 7", "evaluation: scores 8"),
            ("simulation: twin 1", "design: doses, seeds, names"),
        ),
    ),
    (
        ("ptycho_torch", "the engine", "#e1f0e3", "#67a875"),
        (
            ("workflows: one training", "inference: to object 7", "training: Lightning 6"),
            ("network: corrects the canvas 5", "iteration: canvas passes 4"),
            ("memmap_bridge: counts by index 2", "data: the file DATA-001 2"),
            ("physics: optics, noise, patches, geometry",),
            ("config", "commands", "registry", "versions"),
            ("params", "files", "fields", "errors"),
        ),
    ),
)


def text(x: float, y: float, words: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" {style}>{escape(words)}</text>'


def box(x: float, y: float, width: float, height: float, fill: str, stroke: str) -> str:
    size = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
    return f'<rect {size} rx="5" fill="{fill}" stroke="{stroke}"/>'


def draw() -> str:
    """The picture as SVG."""
    parts: list[str] = []
    y = MARGIN
    for (package, what, fill, stroke), rows in PACKAGES:
        top, inner = y, []
        inner.append(text(2 * MARGIN, y + 20, package, 'class="package"'))
        inner.append(text(WIDTH - 2 * MARGIN, y + 20, what, 'text-anchor="end"'))
        y += 28
        for row in rows:
            width = (WIDTH - 4 * MARGIN - GAP * (len(row) - 1)) / len(row)
            height = HEIGHT if ":" in row[0] else 24
            for place, room in enumerate(row):
                x = 2 * MARGIN + place * (width + GAP)
                name, _, kind = room.partition(": ")
                step = kind[-1:] if kind[-1:].isdigit() else ""
                inner.append(box(x, y, width, height, "#ffffff", stroke))
                inner.append(text(x + 6, y + 17, name, 'class="room"'))
                inner.append(text(x + 6, y + 34, kind.removesuffix(step), "") if kind else "")
                if step:
                    inner.append(f'<circle cx="{x + width - 11:g}" cy="{y + 30:g}" r="9"/>')
                    inner.append(text(x + width - 11, y + 34, step, 'class="step"'))
            y += height + GAP
        y += MARGIN - GAP * bool(rows)
        parts += [box(MARGIN, top, WIDTH - 2 * MARGIN, y - top, fill, stroke), *filter(None, inner)]
        y += MARGIN
    style = (
        "text { font: 12px Helvetica, Arial, sans-serif; fill: #222 }"
        " .package { font-weight: bold; font-size: 15px } .room { font-weight: bold }"
        " circle { fill: #b03a2e } .step { fill: #fff; font-weight: bold; text-anchor: middle }"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:g}" width="{WIDTH}">'
    page = f'<rect width="{WIDTH}" height="{y:g}" fill="#fff"/>'
    return "\n".join([head, f"<style>{style}</style>", page, *parts, "</svg>", ""])


if __name__ == "__main__":
    Path(__file__).with_name("rooms.svg").write_text(draw(), encoding="utf-8")
