"""A study's folder: `study.json` holds what was asked for, the files beside it say what is done."""

import secrets
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated, Literal

import psutil
from pydantic import Field

from fly64lib.sweep.profile import Profile
from ptycho_torch.data.contract import read_scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import Positive, Whole, config, flat, from_dict, to_dict
from ptycho_torch.files import lock_holder, read_json, write_json

Executor = Literal["local", "slurm", "pbs"]
Several = Annotated[Whole, Field(ge=0, le=1000)]


@config
class SweepFolder:
    """A folder with what `fly64 run` was asked for."""

    folder: Path
    name: str = field(default_factory=lambda: f"fly64-{secrets.token_hex(4)}")  # of all its jobs
    profile: str
    settings: Profile
    cores: Positive
    executor: Executor = "local"
    retries: Several = 2  # of a job that a cluster lost
    group: Several = 0  # conditions in one cluster job; 0: each notebook is one
    options: tuple[str, ...] = ()  # further ones, for Snakemake
    notebooks: str | None = None  # a folder of edited copies, run instead of the project's

    @classmethod
    def of(cls, folder: str | Path) -> "SweepFolder":
        """What a folder's study.json holds. Raises ConfigError where there is none."""
        path = Path(folder).resolve() / "study.json"
        if not path.is_file():
            advice = f"start one: fly64 run --profile quick --output {folder}"
            raise ConfigError(f"{folder} holds no study; {advice}")
        try:
            return from_dict(cls, {"folder": path.parent, **read_json(path)})
        except (TypeError, ConfigError) as error:
            text = f"{path}: not a study's record, or of another version ({error}); restore it, or"
            raise ConfigError(f"{text} start the study again in another folder") from error

    def write(self) -> None:
        """Write study.json."""
        held = to_dict(self)
        del held["folder"]
        write_json(self.folder / "study.json", held)

    @property
    def log(self) -> Path:
        """What Snakemake said."""
        return self.folder / "logs" / "snakemake.log"


def prepared(asked: SweepFolder, update: bool = False) -> SweepFolder:
    """`asked` in a folder that is new, empty or holds the same study; `update` takes changed
    settings. Raises ConfigError where the folder holds anything else."""
    folder = asked.folder.resolve()
    asked = replace(asked, settings=_of_base(asked.settings))
    notebooks = asked.notebooks and str(Path(asked.notebooks).resolve())
    if notebooks and not Path(notebooks).is_dir():
        advice = f"make one: fly64 init {notebooks}"
        raise ConfigError(f"{notebooks}: no such folder of notebooks; {advice}")
    name = asked.name
    if (folder / "study.json").is_file():
        held = SweepFolder.of(folder)
        there, wanted = flat(to_dict(held.settings)), flat(to_dict(asked.settings))
        changed = [key for key in there | wanted if there.get(key) != wanted.get(key)]
        if held.profile != asked.profile or changed and not update:
            what = ", ".join(f"{k} {there.get(k)} there, {wanted.get(k)} asked" for k in changed)
            text = f"{folder} holds a study of profile {held.profile}, asked is {asked.profile}"
            text += f" ({what or 'same settings'}); choose another folder"
            if held.profile == asked.profile:
                text += ", or pass --update to rerun what the change reaches"
            raise ConfigError(text)
        name = held.name
    elif folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no study; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    return replace(asked, folder=folder, name=name, notebooks=notebooks)


def _of_base(profile: Profile) -> Profile:
    """The profile with the place of its base file, wherever the study runs, and that file's N."""
    if not (base := profile.study.base_npz):
        return profile
    own = {"base_npz": str(Path(base).resolve()), "N": read_scan(base).N}
    return replace(profile, design=profile.design | own)


def status(study: SweepFolder, working: bool) -> dict[str, list[str]]:
    """Names of the study's notebooks by state: done, running, failed, remaining. `working` says
    whether anything runs the study at all."""
    states: dict[str, list[str]] = {"done": [], "running": [], "failed": [], "remaining": []}
    for notebook in study.settings.notebooks():
        name = notebook.removeprefix("notebooks/").removesuffix(".ipynb")
        path = study.folder / notebook
        if working and any(path.parent.glob(f".tmp-*-{path.name}")):
            state = "running"
        elif path.is_file():
            state = "done"
        elif path.with_suffix(".failed.ipynb").is_file() or why(study, name).startswith("error:"):
            state = "failed"
        else:
            state = "remaining"
        states[state].append(name)
    return states


def driver(study: SweepFolder) -> int | None:
    """The process that runs the study on this machine, if there is one."""
    pid = lock_holder(study.folder / ".lock").get("pid")
    return pid if pid is not None and psutil.pid_exists(pid) else None


def why(study: SweepFolder, notebook: str) -> str:
    """The last line of a notebook's log."""
    return (ending(study.folder / "logs" / f"{notebook}.log", 1) or [""])[0]


def ending(log: Path, lines: int = 8) -> list[str]:
    """The last lines of a log; none where there is no log."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return text.strip().splitlines()[-lines:]
