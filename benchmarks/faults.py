"""Kills each phase of a tiny study at random moments, fills its disk, and counts how often nothing
was lost.

    python benchmarks/faults.py --kills 50 [--full 10] [--phase training] [--seed 0]
        [--json counts.json]

A fault is survived if afterwards every file that is there is whole and as an undisturbed run leaves
it (a manifest may lack rows, a checkpoint may be an earlier one), and if the phase, run again, ends
with the same bytes as undisturbed: times and logs apart. Up to five kills fall between two complete
runs. A full disk (a small tmpfs; where mounting is refused, a limit on the size of a file) must
besides give exit code 2, one error that names file and disk, no traceback and no temporary file.
Exit code 1: lost."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pandas  # noqa: F401  here, and not in each fork
import torch
from common import PLAIN, main
from tyro.conf import UseAppendAction

import ptycho_torch.workflows.components  # noqa: F401  likewise
from fly64lib import comparison, generation, overlap, reconstruction, training
from fly64lib.design.study import StudyDesign
from ptycho_torch.commands import run_command
from ptycho_torch.fields import Whole, config
from ptycho_torch.files import folder_lock, read_json, write_json
from ptycho_torch.training.bundle import load_bundle, save_bundle

TIMES = {"seconds", "cpu_seconds", "patterns_per_second", "peak_memory_mb"}
PLACES = {"dirpath", "best_model_path"}  # absolute, in Lightning's checkpoint
LOGS = {"train.log"}
MANIFESTS = {f"{name}_manifest.json" for name in ("run", "training", "reconstruction")}
GROWING = MANIFESTS | {"model.ckpt"}
NETWORK = {"width": 8, "depth": 2}
CONFIG = PLAIN.with_settings(
    NETWORK
    | {"N": 48, "n_images": 24, "batch_size": 4, "thinnings": 1, "max_epochs": 5}
    | {"checkpointing": True, "checkpoint_steps": 1}
)
FOLDERS = "--phase-c-root C --phase-d-root D"
CELL = "--dose 1000 --view baseline"


def train() -> int:
    design = StudyDesign(doses=(1e3,), scan_step=8, simulation="matched", N=48)
    job = training.build_training_jobs("C", "D", "E", design, allow_missing_phase_d=True)[:1]
    return int(training.run_jobs(job, CONFIG, "E", [])[0]["status"] != "complete")


def bundle() -> int:
    """Writes one bundle again and again, so that many of the moments fall into the writing."""
    trained = load_bundle("E/dose_1000/baseline/gs1/bundle.pt")
    with folder_lock("B"):  # as a training holds its folder
        for _ in range(20):
            save_bundle("B/bundle.pt", trained.model, trained.config, trained.statistics)
    return 0


def _command(module: object, options: str) -> Callable[[], int]:
    return lambda: module.main(options.split())


# What runs, and which folders it writes
PHASES: dict[str, tuple[Callable[[], int], tuple[str, ...]]] = {
    "generation": (
        _command(
            generation, "--output-root C --dose 1000 --scan-step 8 --N 48 --simulation matched"
        ),
        ("C",),
    ),
    "overlap": (
        _command(overlap, "--phase-c-root C --output-root D --artifact-root A --no-controls"),
        ("D", "A"),
    ),
    "training": (partial(run_command, train), ("E",)),
    "bundling": (partial(run_command, bundle), ("B",)),
    "reconstruction": (
        _command(
            reconstruction,
            f"{FOLDERS} --artifact-root F --training-root E {CELL} --method flat --method pinn",
        ),
        ("F",),
    ),
    "comparison": (
        _command(
            comparison, f"{FOLDERS} --reconstruction-root F --output-root G {CELL} --limits none"
        ),
        ("G",),
    ),
}


@config
class FaultOptions:
    """Kill each phase of a tiny study and fill its disk; count what survived."""

    kills: Whole = 50  # of each phase
    full: Whole = 10  # full disks, of each phase
    phase: UseAppendAction[tuple[Literal[*PHASES], ...]] = ()  # only this one; may be repeated
    seed: Whole = 0
    json: Path | None = None  # where to write the counts


class Lost(Exception):
    """A fault that cost something."""


class Run:
    """A phase in a process of its own, in `folder`, with relative paths: two folders' bytes can be
    compared."""

    def __init__(self, phase: str, folder: Path, largest_file: int | None = None):
        self.log = folder / "phase.log"
        # Importing torch anew would take most of the time that there is to be killed in.
        self.pid = os.fork()
        if self.pid:
            return
        code = 70
        try:
            os.chdir(folder)
            with self.log.open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                if largest_file is not None:
                    limit = largest_file, resource.RLIM_INFINITY
                    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
                code = PHASES[phase][0]()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def killed_after(self, seconds: float) -> bool:
        """Whether it still ran then and was killed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return False
            time.sleep(min(0.002, seconds))
        os.kill(self.pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]) == -signal.SIGKILL

    def finished(self) -> int:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except BaseException:  # a benchmark that is stopped leaves no phase running
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise


def content(path: Path) -> object:
    """What of a file has to be equal in two runs; reading it fails if it is not whole."""
    if path.suffix == ".json":
        return _comparable(read_json(path), TIMES)
    if path.suffix == ".ckpt":
        loaded = torch.load(path, map_location="cpu", weights_only=True)
        return _comparable(loaded, PLACES)
    return path.read_bytes()


def _comparable(value: object, left_out: set[str]) -> object:
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict):
        kept = {key: entry for key, entry in value.items() if key not in left_out}
        return {key: _comparable(entry, left_out) for key, entry in kept.items()}
    several = isinstance(value, list | tuple)
    return [_comparable(entry, left_out) for entry in value] if several else value


def files(folder: Path, phase: str) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for name in PHASES[phase][1]
        for path in (folder / name).rglob("*")
        if path.is_file() and path.name not in LOGS and not path.name.startswith((".tmp-", ".lock"))
    }


def check(phase: str, reference: Path, folder: Path, complete: bool) -> None:
    """Raise :class:`Lost` where a file is not what an undisturbed run leaves."""
    expected, found = files(reference, phase), files(folder, phase)
    if complete and set(found) != set(expected):
        raise Lost(f"files {sorted(set(found) ^ set(expected))} are missing or left over")
    for name, path in found.items():
        if name not in expected:
            raise Lost(f"{name} is in no undisturbed run")
        try:
            here = content(path)
        except Exception as error:
            raise Lost(f"{name} is not whole: {error}") from error
        if here != content(expected[name]) and (complete or path.name not in GROWING):
            raise Lost(f"{name} differs from an undisturbed run's")
    left = [
        str(path)
        for name in PHASES[phase][1]
        for path in (folder / name).rglob(".*")
        if path.name.startswith((".tmp-", ".lock")) and not path.name.endswith("-lock")
    ]
    if complete and left:
        raise Lost(f"{left} were left")


def run_again(phase: str, reference: Path, folder: Path) -> None:
    code = Run(phase, folder).finished()
    if code:
        raise Lost(f"run again, it ended with {code}: {(folder / 'phase.log').read_text()[-800:]}")
    check(phase, reference, folder, complete=True)


def fresh(phase: str, reference: Path, folder: Path) -> None:
    """The folder as the phase finds it: everything that earlier phases wrote, nothing of its
    own."""
    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    for other in list(PHASES)[: list(PHASES).index(phase)]:
        for name in PHASES[other][1]:
            shutil.copytree(reference / name, folder / name)


def kill(
    phase: str, kills: int, reference: Path, folder: Path, seconds: float, rng: random.Random
) -> dict:
    """Counts of `kills` kills of a phase at random moments of the `seconds` that it takes."""
    counts = {"kills": 0, "survived": 0, "resumed from a checkpoint": 0}
    while counts["kills"] < kills:
        fresh(phase, reference, folder)
        row = 0
        for _ in range(min(rng.randint(1, 5), kills - counts["kills"])):
            if not Run(phase, folder).killed_after(rng.uniform(0, seconds)):
                break
            row += 1
            check(phase, reference, folder, complete=False)
        counts["resumed from a checkpoint"] += phase == "training" and any(
            name.endswith("model.ckpt") and not path.with_name("bundle.pt").exists()
            for name, path in files(folder, phase).items()
        )
        run_again(phase, reference, folder)
        counts["kills"] += row
        counts["survived"] += row
    return counts


def fill(phase: str, times: int, reference: Path, folder: Path, rng: random.Random) -> dict:
    """Counts of disks that fill up at a random share of what the phase writes."""
    sizes = [path.stat().st_size for path in files(reference, phase).values()]
    counts = {"full disks": 0, "survived": 0}
    for _ in range(times):
        fresh(phase, reference, folder)
        mount = ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", str(folder)]
        mounted = subprocess.run(mount, capture_output=True).returncode == 0
        try:
            if mounted:
                fresh(phase, reference, folder)
                (folder / "phase.log").write_bytes(bytes(2**16))  # room for its messages
                for name in PHASES[phase][1]:
                    (folder / name).mkdir()
                free, room = shutil.disk_usage(folder).free, int(rng.uniform(0, 0.9) * sum(sizes))
                with (folder / "ballast").open("wb") as ballast:
                    os.posix_fallocate(ballast.fileno(), 0, max(0, free - room))
                code = Run(phase, folder).finished()
                (folder / "ballast").unlink()
            else:
                largest = int(rng.uniform(0.05, 0.9) * max(sizes))
                code = Run(phase, folder, largest_file=largest).finished()
            log = (folder / "phase.log").read_text(errors="replace").replace("\0", "")
            named = "cannot be written: the disk at" in log and "Traceback" not in log
            if code not in (1, 2) or not named:
                raise Lost(f"on a full disk it ended with {code} and wrote: {log[-1500:]}")
            if left := list(folder.rglob(".tmp-*")):
                raise Lost(f"{left} were left on a full disk")
            check(phase, reference, folder, complete=False)
            run_again(phase, reference, folder)
        finally:
            if mounted:
                subprocess.run(["umount", folder], check=True)
        counts["full disks"] += 1
        counts["survived"] += 1
    return counts


def faults(options: FaultOptions) -> int:
    """Run each phase undisturbed, then with kills and full disks; 1 where anything was lost."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a mounted disk is unmounted
    counts: dict[str, dict] = {}
    with tempfile.TemporaryDirectory(prefix="faults-") as root:
        reference, folder = Path(root) / "undisturbed", Path(root) / "disturbed"
        reference.mkdir()
        folder.mkdir()
        for phase in PHASES:
            started = time.monotonic()
            if Run(phase, reference).finished():
                print((reference / "phase.log").read_text(), file=sys.stderr)
                return 1
            seconds, rng = time.monotonic() - started, random.Random(f"{phase} {options.seed}")
            if options.phase and phase not in options.phase:
                continue
            try:
                counts[phase] = {
                    "seconds": round(seconds, 2),
                    "kills": kill(phase, options.kills, reference, folder, seconds, rng),
                    "full": fill(phase, options.full, reference, folder, rng),
                }
            except Lost as error:
                counts[phase] = {"lost": str(error)}
            print(phase, counts[phase], flush=True)
    if options.json:
        write_json(options.json, counts)
    return int(any("lost" in row for row in counts.values()))


if __name__ == "__main__":
    main(FaultOptions, faults)
