"""`fly64 check FILE`: is this scan fit for a reconstruction, and if not, what is wrong with it."""

from pathlib import Path

import tyro

from fly64lib.check.examination import examine_scan
from fly64lib.check.picture import draw
from fly64lib.plots.figures import saved
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import config
from ptycho_torch.files import json_text


@config
class CheckOptions:
    """Is this scan fit for a reconstruction? Exit code 0: yes, 1: a warning, the file can be used,
    2: it breaks DATA-001 or cannot be read.

    The contract is checked first; what it lets pass is measured, judged and drawn."""

    file: tyro.conf.Positional[Path]  # a DATA-001 npz
    picture: Path | None = None  # PNG, else beside FILE: its name with _check.png
    json: bool = False  # verdicts and numbers for scripts


def check(options: CheckOptions) -> int:
    """Examine a file, print the verdicts, draw the picture, and return the exit code."""
    picture = options.picture or options.file.with_name(f"{options.file.stem}_check.png")
    if picture.suffix != ".png" or picture.is_dir():
        raise ConfigError(f"picture {picture}: expected a name that ends in .png, and no folder")
    found = examine_scan(options.file)
    saved(draw(found), picture)
    if options.json:
        print(json_text(found.to_dict() | {"picture": str(picture)}, indent=2))
    else:
        print(f"{found.text()}\npicture: {picture}")
    return found.exit_code
