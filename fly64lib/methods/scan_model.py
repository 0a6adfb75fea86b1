"""What a scan needs to be explained: a finer grid, probe modes, what is unknown of its exposures.

Each addition is tried on what the ones before it found (:mod:`fly64lib.methods.probe_recovery`):
every tenth pattern is kept out of all fits, and an addition is kept if it explains these better, by
more than chance. What an exposure alone can tell, its position and brightness, a tenth of its
photons tells, and the others judge."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fly64lib.methods.probe_recovery import recover_probe
from ptycho_torch.files import atomic_path, json_text
from ptycho_torch.iteration.prior_search import FIRST
from ptycho_torch.memmap_bridge import RawDataTorch

EXPOSURES = ("positions", "brightness", "background")
TIKHONOV = 100.0  # holds the object's slopes in joint steps, photons per object pixel
SOLVING = 9  # conjugate gradient steps on the object of an addition: the methods solve it anew
FINER = 3 / 2  # M / N, where the file has M = N
_ARRAYS = ("probe", "object_guess", "xcoords", "ycoords", "brightness", "background")


class Addition(NamedTuple):
    """One more thing that the model may need."""

    name: str
    modes: int  # of the probe, at least
    unknown: tuple[str, ...]  # of the exposures


ADDITIONS = (
    Addition("object and probe on a finer grid", 1, ()),
    Addition("three probe modes", 3, ()),
    Addition("positions, brightness and background of the exposures", 3, EXPOSURES),
    Addition("five probe modes", 5, EXPOSURES),
)


@dataclass(frozen=True)
class Tried:
    """What an addition did for the patterns held out; deviances are per measured pixel."""

    name: str
    before: float
    after: float
    kept: bool
    cpu_seconds: float


@dataclass(frozen=True, eq=False)
class ScanModel:
    """A scan with all that was found of it."""

    scan: RawDataTorch  # probe, positions, brightness, background, and the object of nine tenths
    tried: list[Tried] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)  # additions that no time was left for


def find_model(
    scan: RawDataTorch,
    *,
    steps: int = 40,
    threads: int = 1,
    until: float = inf,
    told: Callable[[str], None] = lambda text: None,
    folder: Path | None = None,
    key: str = "",
) -> ScanModel:
    """The model that a scan asks for, without truth.

    `steps` are the joint steps of each addition; no addition begins once `time.monotonic()` is past
    `until`. What is found is kept in `folder`, and found again there under the same `key`."""
    found, before, tried, left_out = scan, None, [], []
    for number, addition in enumerate(ADDITIONS):
        path = None if folder is None else folder / f"model_{number}.npz"
        stored = path and _stored(path, key, found)
        if not stored and time.monotonic() > until:
            left_out += [one.name for one in ADDITIONS[number:]]
            break
        told(addition.name)
        if not stored:
            M = round(FINER * found.N) if found.M == found.N else None
            result = recover_probe(
                found,
                max(addition.modes, found.scan.modes),
                steps,
                threads,
                M=M,
                unknown=addition.unknown,
                tikhonov=TIKHONOV,
                weight=FIRST.weight,
                solving=SOLVING,
                before=before,
            )
            deviances = result.deviance_before, result.deviance_after
            row = Tried(addition.name, *deviances, result.better, result.cpu_seconds)
            stored = result.scan, row
            if path:
                _store(path, key, *stored)
        candidate, row = stored
        tried.append(row)
        if row.kept:
            found, before = candidate, candidate.scan.object_guess
    return ScanModel(found, tried, left_out)


def _store(path: Path, key: str, scan: RawDataTorch, row: Tried) -> None:
    held = {name: getattr(scan.scan, name) for name in _ARRAYS}
    arrays = {name: value for name, value in held.items() if value is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, key=np.array(key), row=np.array(json_text(asdict(row))), **arrays)


def _stored(path: Path, key: str, scan: RawDataTorch) -> tuple[RawDataTorch, Tried] | None:
    """What was stored under this key, on the scan's patterns; None where nothing was."""
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as arrays:
        if str(arrays["key"]) != key:
            return None
        row = Tried(**json.loads(str(arrays["row"])))
        changed = {name: arrays[name] for name in _ARRAYS if name in arrays}
    return RawDataTorch(replace(scan.scan, **changed), scan.source), row
