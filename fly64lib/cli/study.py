"""The whole study from the shell: `fly64 run`, `resume`, `status` and `cancel`."""

import os
import sys
from dataclasses import field, replace
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, UseAppendAction, arg

from fly64lib.sweep import control
from fly64lib.sweep import folder as study_folder
from fly64lib.sweep.folder import Executor, Several, SweepFolder
from fly64lib.sweep.profile import MAPPINGS, SHORT, Profile, load_profile
from ptycho_torch.commands import STOPPED
from ptycho_torch.config import SETTINGS
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import Positive, config, field_names

_SETTINGS = (
    "a setting in place of the profile's; may be repeated. Keys:"
    f" {', '.join(name for name in field_names(Profile) if name not in MAPPINGS)};"
    f" design.X, where X is {', '.join(Profile.free_design())};"
    f" training.X, where X is {', '.join(SETTINGS)};"
    " settings.METHOD.X, where X is a field of the method's class (fly64lib/methods);"
    f" and short names for some: {', '.join(SHORT)}"
)


@config
class Run:
    """Run the whole study into a folder; with the same settings again, what is left of it.
    Options after -- go to Snakemake."""

    profile: str  # smoke, quick, laptop or full
    output: Path | None = None  # the study's folder
    set: Annotated[UseAppendAction[tuple[str, ...]], arg(metavar="KEY=VALUE", help=_SETTINGS)] = ()
    estimate: bool = False  # print what it would take, by rates of finished studies; run nothing
    update: bool = False  # take changed settings, and rerun what they reach
    # run edited copies (fly64 init DIR) instead of the project's notebooks
    notebooks: str | None = None
    # jobs at a time are cores / the profile's threads
    cores: Positive = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    executor: Executor = "local"
    # submissions again of a cluster job that was lost; a notebook that failed is not run again
    retries: Several = 2
    # conditions (trainings, reconstructions, comparison) in one cluster job; 0: a job a notebook
    group: Several = 0


@config
class Resume:
    """Go on after a crash or a cancel, with the settings of the folder."""

    folder: Positional[Path]  # of the study
    cores: Positive | None = None  # if not given, as before
    executor: Executor | None = None  # if not given, as before


@config
class Folder:
    """A study, by its folder."""

    folder: Positional[Path]  # of the study


def run(asked: Run, further: tuple[str, ...] = ()) -> int:
    """Start a study, or do what is left of it; `further` options are Snakemake's."""
    settings = load_profile(asked.profile, asked.set)
    if asked.estimate:
        return _estimated(settings, asked)
    if asked.output is None:
        raise ConfigError("--output: the study needs a folder, such as --output runs/study")
    if asked.group and asked.executor == "local":
        raise ConfigError(f"--group {asked.group} is for a cluster: add --executor slurm or pbs")
    names = ("profile", "cores", "executor", "notebooks", "retries", "group")
    same = {name: getattr(asked, name) for name in names}
    study = SweepFolder(folder=asked.output, settings=settings, options=further, **same)
    return _driven(study_folder.prepared(study, asked.update))


def _estimated(settings: Profile, asked: Run) -> int:
    # Here: counting a design's patterns takes torch, which takes seconds to import.
    from fly64lib.sweep.estimate import Rates, estimate, text_of

    rates = Rates.read()
    found = estimate(settings, rates)
    if asked.executor != "local":
        text = "not counted: on a cluster each job starts Snakemake and its kernel anew, some"
        found.notes.append(f"{text} seconds of CPU time; --group makes one start of several")
    print(text_of(found, settings, asked.cores, rates.source))
    return 0


def resume(asked: Resume) -> int:
    """Do what is left of a study."""
    study = SweepFolder.of(asked.folder)
    cores, executor = asked.cores or study.cores, asked.executor or study.executor
    return _driven(replace(study, cores=cores, executor=executor))


def status(asked: Folder) -> int:
    """Print what is done, running, failed and left."""
    study = SweepFolder.of(asked.folder)
    pid, alive = study_folder.driver(study), control.alive(study)
    states = study_folder.status(study, working=pid is not None or alive > 0)
    runner = f"run by process {pid}" if pid else "nobody runs it"
    if alive and not pid:
        runner += f", but {alive} processes or jobs of an earlier run go on until fly64 resume or"
        runner += " cancel"
    print(f"{study.folder}: profile {study.profile}, {study.executor}, {study.name}; {runner}")
    counts = {state: len(names) for state, names in states.items()}
    others = ", ".join(f"{counts[state]} {state}" for state in ("running", "failed", "remaining"))
    print(f"{counts['done']} of {sum(counts.values())} notebooks done, {others}")
    for name in states["running"]:
        print(f"  running  {name}")
    for name in states["failed"]:
        print(f"  failed   {name}: {study_folder.why(study, name)}")
    if states["failed"] or states["remaining"] and not pid:
        print(f"go on: fly64 resume {asked.folder}")
    return 0


def cancel(asked: Folder) -> int:
    """Stop a study's processes and cluster jobs."""
    stopped = control.stop(SweepFolder.of(asked.folder))
    print(*stopped or ["nothing was running"], sep="\n")
    return 0


def _driven(study: SweepFolder) -> int:
    code = control.run(study)
    if code == 0:
        print(f"report: {study.folder / 'index.html'}")
        return 0
    if code == STOPPED:
        print(f"stopped; go on with: fly64 resume {study.folder}", file=sys.stderr)
        return STOPPED
    failed = study_folder.status(study, working=False)["failed"]
    said = [f"{name}: {study_folder.why(study, name)}" for name in failed]
    for line in said or study_folder.ending(study.log):
        print(f"  {line}", file=sys.stderr)
    advice = f"go on with: fly64 resume {study.folder}"
    print(f"error: not finished (see {study.log}); {advice}", file=sys.stderr)
    return 1
