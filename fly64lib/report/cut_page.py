"""The page of a cut scan, from its numbers and pictures, for a browser without a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fly64lib.report.gallery import data_url
from ptycho_torch.files import atomic_path


def cut_page(
    path: Path, numbers: Mapping[str, Any], summary: str, pictures: Mapping[str, str], folder: Path
) -> None:
    """Write the page: the map, the objects, the table, what it presumes. `pictures` are captions by
    file names in `folder`."""
    layout = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(loader=PackageLoader("fly64lib.report"), autoescape=True, **layout)
    shown = [
        (data_url("image/png", (folder / name).read_bytes()), text)
        for name, text in pictures.items()
    ]
    table, _, said = summary.partition("\n\n")
    page = environment.get_template("cut.html.j2").render(
        of=numbers, table=table, said=said.splitlines(), pictures=shown
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
