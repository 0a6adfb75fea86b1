"""The page of one's own scan, from its numbers and pictures, for a browser without a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fly64lib.report.gallery import data_url
from ptycho_torch.files import atomic_path

_PICTURES = {
    "objects.png": "Phase and amplitude by each method, from nine tenths of the patterns, on the"
    " scanned region; the global phase is removed.",
    "error.png": "Standard deviation of the best object's phase, by the counts and the image prior."
    " What the model itself misses is not in it.",
}


def own_page(path: Path, numbers: Mapping[str, Any], summary: str, folder: Path) -> None:
    """Write the page: what was found, by what evidence, the pictures, the scan's examination."""
    layout = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(loader=PackageLoader("fly64lib.report"), autoescape=True, **layout)
    shown = [
        (data_url("image/png", (folder / name).read_bytes()), text)
        for name, text in _PICTURES.items()
    ]
    page = environment.get_template("own_scan.html.j2").render(
        of=numbers, summary=summary, pictures=shown
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
