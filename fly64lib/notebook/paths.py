"""Where the notebooks are: beside the packages in a checkout, in `fly64lib` in a wheel."""

from pathlib import Path

from ptycho_torch.errors import ConfigError


def notebooks_folder() -> Path:
    """The folder of the source notebooks."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here / "_notebooks", here.parent / "notebooks"):
        if (folder / "train.ipynb").is_file():
            return folder
    raise ConfigError(f"no notebooks beside {here}: fly64 is not whole, install it again")


def notebook(name: str, folder: str | Path | None = None) -> Path:
    """Path of a notebook by name, such as "train"; `folder` holds edited copies of one's own."""
    folder = Path(folder) if folder else notebooks_folder()
    path = folder / f"{name}.ipynb"
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in folder.glob("*.ipynb"))) or "none"
        raise ConfigError(f"there is no notebook {name!r} in {folder}; there are {names}")
    return path
