"""Pages that need no network: templates with style and pictures inside."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fly64lib.report.gallery import data_url
from ptycho_torch.files import atomic_path


def templates() -> Environment:
    """The templates beside this file; a name that a template has and its context has not fails."""
    layout = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    return Environment(loader=PackageLoader("fly64lib.report"), autoescape=True, **layout)


def write_page(template: str, path: Path, pictures: Mapping[str, str], **context: Any) -> None:
    """Write the page of a run beside its pictures, PNG files whose names have captions."""
    shown = [
        (data_url("image/png", path.with_name(name).read_bytes()), text)
        for name, text in pictures.items()
    ]
    page = templates().get_template(f"{template}.html.j2").render(pictures=shown, **context)
    with atomic_path(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
