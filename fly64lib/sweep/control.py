"""Starts, resumes, watches and stops a study in its folder.

`study.json` holds what was asked for; Snakemake's own records say what is done. All processes of a
study carry its name in their environment, and its cluster jobs in their own, so that what a killed
driver left behind can be found and stopped before anything is started again: otherwise two jobs
would write the same files."""

import json
import os
import re
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil
from tqdm import tqdm

from fly64lib.sweep.profile import Profile
from ptycho_torch.errors import ConfigError, MissingDependencyError
from ptycho_torch.fields import check_range, from_dict
from ptycho_torch.files import folder_lock, read_json, write_json

HERE = Path(__file__).parent
EXECUTORS = ("local", "slurm", "pbs")
_TAG = "FLY64_STUDY"
_STEPS = re.compile(r"^(\d+) of (\d+) steps")
_STOPPED = 130


@dataclass(frozen=True)
class Study:
    """A folder's study.json."""

    folder: Path
    name: str  # also of its processes and cluster jobs
    profile: str
    settings: Profile
    cores: int
    executor: str
    options: tuple[str, ...]  # further ones, for Snakemake
    notebooks: str | None = None  # a folder of edited copies, to be run instead of the project's

    @classmethod
    def of(cls, folder: str | Path) -> "Study":
        path = Path(folder) / "study.json"
        if not path.is_file():
            raise ConfigError(
                f"{folder} holds no study; start one: fly64 run --profile quick --output {folder}"
            )
        held = read_json(path)
        try:
            return cls(
                Path(folder).resolve(),
                held["name"],
                held["profile"],
                from_dict(Profile, held["settings"]),
                held["cores"],
                held["executor"],
                tuple(held["options"]),
                held["notebooks"],
            )
        except (LookupError, TypeError, AttributeError) as error:
            raise ConfigError(
                f"{path}: not a study's record, or of another version ({type(error).__name__}:"
                f" {error}); restore it, or start the study again in another folder"
            ) from error

    def write(self) -> None:
        write_json(
            self.folder / "study.json",
            {
                "name": self.name,
                "profile": self.profile,
                "settings": self.settings.to_dict(),
                "cores": self.cores,
                "executor": self.executor,
                "options": list(self.options),
                "notebooks": self.notebooks,
            },
        )

    @property
    def log(self) -> Path:
        return self.folder / "logs" / "snakemake.log"


def prepare(
    folder: str | Path,
    profile: str,
    settings: Profile,
    *,
    cores: int,
    executor: str = "local",
    options: tuple[str, ...] = (),
    notebooks: str | None = None,
    update: bool = False,
) -> Study:
    """The study of a folder, new or known. A folder with another study is refused; `update` takes
    changed settings."""
    check_range("cores", cores, 1)
    if notebooks and not Path(notebooks).is_dir():
        raise ConfigError(
            f"{notebooks}: no such folder of notebooks; make one: fly64 init {notebooks}"
        )
    folder, name = Path(folder).resolve(), f"fly64-{secrets.token_hex(4)}"
    if (folder / "study.json").is_file():
        held = Study.of(folder)
        changed = {
            key: (value, settings.to_dict()[key])
            for key, value in held.settings.to_dict().items()
            if settings.to_dict()[key] != value
        }
        if held.profile != profile or changed and not update:
            what = ", ".join(
                f"{key} {old} there, {new} asked" for key, (old, new) in changed.items()
            )
            update_too = (
                ", or pass --update to rerun what the change reaches"
                if held.profile == profile
                else ""
            )
            raise ConfigError(
                f"{folder} holds a study of profile {held.profile}, asked is {profile}"
                f" ({what or 'same settings'}); choose another folder{update_too}"
            )
        name = held.name
    elif folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{folder} is not empty and holds no study; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    notebooks = str(Path(notebooks).resolve()) if notebooks else None
    return Study(folder, name, profile, settings, cores, executor, options, notebooks)


def run(study: Study, progress: bool = True) -> int:
    """Do what is left of a study, and return Snakemake's exit code. Held by one process at a
    time."""
    if (
        shutil.which("snakemake", path=str(Path(sys.executable).parent)) is None
        and shutil.which("snakemake") is None
    ):
        raise MissingDependencyError("the sweep needs Snakemake: pip install 'fly64[sweep]'")
    with folder_lock(study.folder):
        stopped = stop(study)
        if stopped:
            print(f"stopped what an earlier run had left: {', '.join(stopped)}", file=sys.stderr)
        study.write()
        study.log.parent.mkdir(exist_ok=True)
        for left in (study.folder / "notebooks").rglob(".tmp-*.ipynb"):
            left.unlink()
        environment = os.environ | {_TAG: study.name, "PYTHONUNBUFFERED": "1"}
        with study.log.open("a", encoding="utf-8") as log:
            base = [
                sys.executable,
                "-m",
                "snakemake",
                "--snakefile",
                str(HERE / "Snakefile"),
                "--directory",
                str(study.folder),
                "--configfile",
                str(study.folder / "study.json"),
                "--cores",
                str(study.cores),
            ]
            if any((study.folder / ".snakemake" / "locks").glob("*")):
                subprocess.run(
                    [*base, "--unlock"], env=environment, stdout=log, stderr=log, check=True
                )
            before = signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                started, before_s = time.time(), _children_cpu_seconds()
                with subprocess.Popen(
                    [*base, *_how(study)],
                    env=environment,
                    stdout=subprocess.PIPE,
                    text=True,
                    stderr=subprocess.STDOUT,
                    errors="replace",
                    stdin=subprocess.DEVNULL,
                ) as process:
                    try:
                        _follow(process.stdout, log, progress)
                    except KeyboardInterrupt:
                        stop(study)
                        return _STOPPED
                with (study.folder / "logs" / "runs.jsonl").open(
                    "a", encoding="utf-8"
                ) as runs:  # of finished runs
                    runs.write(
                        json.dumps(
                            {
                                "started": round(started),
                                "wall_s": round(time.time() - started, 1),
                                "cores": study.cores,
                                "cpu_s": round(_children_cpu_seconds() - before_s, 1),
                                "exit_code": process.returncode,
                            }
                        )
                        + "\n"
                    )
            finally:
                signal.signal(signal.SIGTERM, before)
    return process.returncode


def _children_cpu_seconds() -> float:
    """Of Snakemake and, on this machine, of all jobs under it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _how(study: Study) -> list[str]:
    """Snakemake's options: how and where jobs run."""
    # Data files are compared by content: one that was made again with the same bytes reruns
    # nothing.
    common = [
        "--rerun-incomplete",
        "--keep-going",
        "--scheduler",
        "greedy",
        "--max-checksum-file-size",
        "64GB",
    ]
    cluster = ["--jobs", str(study.cores), "--latency-wait", "60"]
    if study.executor == "slurm":
        query = (
            "sacct" if _succeeds("sacct", "--noheader") else "squeue"
        )  # sacct is there but fails without accounting
        return [
            *common,
            *cluster,
            "--executor",
            "slurm",
            "--slurm-jobname-prefix",
            study.name,
            "--slurm-status-command",
            query,
            "--slurm-init-seconds-before-status-checks",
            "10",
            *study.options,
        ]
    if study.executor == "pbs":
        scripts = {
            what: f"{sys.executable} {HERE / 'pbs.py'} {what} {study.name}"
            for what in ("submit", "status", "cancel")
        }
        return [
            *common,
            *cluster,
            "--executor",
            "cluster-generic",
            *(
                part
                for what, script in scripts.items()
                for part in (f"--cluster-generic-{what}-cmd", script)
            ),
            *study.options,
        ]
    return [*common, *study.options]


def _follow(lines: IO[str], log: IO[str], progress: bool) -> None:
    """Snakemake's lines into the log; a bar over the jobs of this run."""
    with tqdm(desc="study", unit=" job", disable=not progress, dynamic_ncols=True) as bar:
        for line in lines:
            log.write(line)
            log.flush()
            if found := _STEPS.match(line):
                bar.total = int(found[2])
                bar.update(int(found[1]) - bar.n)
            elif line.startswith(("Error in rule", "Error in group")):
                bar.write(line.rstrip(), file=sys.stderr)


def stop(study: Study) -> list[str]:
    """Stop every process and cluster job of a study but this one's ancestors; return what was
    stopped."""
    stopped = [f"Slurm job {job}" for job in _slurm_jobs(study)]
    if stopped:
        subprocess.run(["scancel", *(text.split()[-1] for text in stopped)], check=True)
        while _slurm_jobs(study):
            time.sleep(1)
    if study.executor == "pbs" and shutil.which("qselect"):
        jobs = subprocess.run(
            ["qselect", "-N", study.name], capture_output=True, text=True, check=True
        ).stdout.split()
        if jobs:
            subprocess.run(["qdel", *jobs], check=True)
            stopped += [f"PBS job {job}" for job in jobs]
    processes = _processes(study)
    for process in processes:
        _signal(process, psutil.Process.terminate)
    for process in psutil.wait_procs(processes, timeout=8)[1]:
        _signal(process, psutil.Process.kill)
    psutil.wait_procs(processes, timeout=5)
    return stopped + [f"process {process.pid}" for process in processes]


def alive(study: Study) -> int:
    """How many processes on this machine, and Slurm jobs, work for a study."""
    return len(_processes(study)) + len(_slurm_jobs(study))


def _processes(study: Study) -> list[psutil.Process]:
    """This machine's processes of a study."""
    spared, found = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}, []
    for process in psutil.process_iter():
        try:
            if process.pid not in spared and process.environ().get(_TAG) == study.name:
                found.append(process)
        except (psutil.Error, OSError):  # another user's, or gone
            continue
    return found


def _signal(process: psutil.Process, how: object) -> None:
    try:
        how(process)
    except psutil.NoSuchProcess:
        pass


def _slurm_jobs(study: Study) -> list[str]:
    """Ids of a study's Slurm jobs that wait or run; the plugin names jobs `<study's name>_<its own
    id>`."""
    if study.executor != "slurm":
        return []
    if not shutil.which("squeue"):
        raise MissingDependencyError(
            "this is a study on Slurm, but squeue is not on this machine; use the login node"
        )
    listed = subprocess.run(
        ["squeue", "--me", "--noheader", "--format", "%i %j %T"],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [
        row[0]
        for row in rows
        if row[1].startswith(study.name)
        and row[2] in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED")
    ]


def _succeeds(*command: str) -> bool:
    return (
        shutil.which(command[0]) is not None
        and subprocess.run(command, capture_output=True).returncode == 0
    )


def status(study: Study) -> dict[str, list[str]]:
    """The study's notebooks by state: done, running, failed, remaining (a name each, without
    `.ipynb`)."""
    working = driver(study) is not None or alive(study) > 0
    states: dict[str, list[str]] = {"done": [], "running": [], "failed": [], "remaining": []}
    for name in study.settings.notebooks():
        path = study.folder / name
        log = study.folder / name.replace("notebooks/", "logs/", 1).replace(".ipynb", ".log")
        running = working and any(path.parent.glob(f".tmp-*-{path.name}"))
        failed = (
            path.with_suffix(".failed.ipynb").is_file()
            or log.is_file()
            and why(log).startswith("error:")
        )
        state = (
            "running"
            if running
            else "done"
            if path.is_file()
            else "failed"
            if failed
            else "remaining"
        )
        states[state].append(name.removeprefix("notebooks/").removesuffix(".ipynb"))
    return states


def driver(study: Study) -> int | None:
    """The process that runs the study on this machine, if there is one."""
    try:
        pid = json.loads((study.folder / ".lock").read_text())["pid"]
    except (OSError, ValueError, KeyError):
        return None
    return pid if psutil.pid_exists(pid) else None


def why(log: Path) -> str:
    """The last line of a job's log."""
    return (ending(log, 1) or [""])[0]


def ending(log: Path, lines: int = 8) -> list[str]:
    """The last lines of a log."""
    return (
        log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-lines:]
        if log.is_file()
        else []
    )
