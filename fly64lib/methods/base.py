"""Methods: each takes a DATA-001 file and gives an object, all behind one small protocol.

    result = LSQML(epochs=60).reconstruct(Path("patched_test.npz"))

A method is a frozen dataclass of its settings. It starts from an empty object (never from
`objectGuess`, which may be the truth) and from the file's probe, either kept ("known") or corrected
along the way ("refine"). Every method sees the same counts, positions and canvas. The modules:
:mod:`~fly64lib.methods.ptychi` (LSQML, rPIE, DM), :mod:`~fly64lib.methods.classical` (the project's
canvas iteration) and :mod:`~fly64lib.methods.reference` (flat, truth)."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

PROBES = ("known", "refine")


@dataclass(frozen=True, eq=False)
class MethodResult:
    """An object and what it took. Times run from the opened file to the object, without the import
    of packages."""

    object: Complex[np.ndarray, "H W"]  # complex64, on the file's canvas
    probe: (
        Complex[np.ndarray, "modes N N"] | None
    )  # complex64, sum |P|^2 = photons; None where it was not refined
    trace: list[dict[str, float]]  # one entry per iteration, from the first to the last
    seconds: float  # wall time
    cpu_seconds: float
    peak_memory_mb: (
        float | None
    )  # most that the process which ran it ever held (VmHWM); None: the system doesn't tell
    settings: dict[str, Any]  # of the method, JSON-ready
    note: str = ""  # what a reader of the numbers has to know


class Method(Protocol):
    """What a comparison needs of a method."""

    @property
    def name(self) -> str: ...

    def reconstruct(self, dataset: Path) -> MethodResult:
        """Object of a DATA-001 file. Raises :class:`ptycho_torch.errors.PtychoError`."""
        ...


@dataclass
class Cost:
    """What a block of code took; filled when it ends."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_memory_mb: float | None = None


@contextmanager
def measured() -> Iterator[Cost]:
    """Wall and CPU time (all threads) of a block, and the peak memory of this process up to its
    end."""
    cost, wall, cpu = Cost(), time.perf_counter(), time.process_time()
    yield cost
    cost.seconds, cost.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    status = Path("/proc/self/status")
    if status.is_file():
        cost.peak_memory_mb = int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1]) / 1000


def with_modes(probe: Complex[Tensor, "modes N N"], count: int) -> Complex[Tensor, "count N N"]:
    """The probe with incoherent modes added up to `count`, faint ones, as a start for their
    recovery. Its power is kept.

    Each is the strongest mode times a monomial x^a y^b, of lowest degree first, and has 1 % of its
    power: what a beam that trembles, or is a little wider than coherence allows, adds first
    (Thibault and Menzel, doi:10.1038/nature11806)."""
    N, strongest = probe.shape[-1], probe[probe.abs().square().sum((-2, -1)).argmax()]
    axis = torch.linspace(-1, 1, N, dtype=probe.real.dtype)
    degrees = [(total - b, b) for total in range(1, count + 1) for b in range(total + 1)]
    shapes = [
        strongest * axis**b * (axis**a)[:, None] for b, a in degrees[: max(0, count - len(probe))]
    ]
    faint = [
        0.1 * shape * strongest.abs().square().sum().sqrt() / shape.abs().square().sum().sqrt()
        for shape in shapes
    ]
    every = torch.cat([probe, *(mode[None] for mode in faint)])
    return every * (probe.abs().square().sum() / every.abs().square().sum()).sqrt()


def orthogonal_modes(probe: Complex[Tensor, "modes N N"]) -> Complex[Tensor, "modes N N"]:
    """The same incoherent sum as orthogonal modes, the strongest first; a single mode is returned
    as it is."""
    if len(probe) == 1:
        return probe
    _, sizes, shapes = torch.linalg.svd(probe.flatten(1), full_matrices=False)
    return (sizes[:, None] * shapes).view(probe.shape)


def photons_restored(canvas: Any, probe: Any, photons: float) -> tuple[Any, Any]:
    """Object and probe with their free common scale fixed: sum |P|^2 = `photons`, their product
    unchanged."""
    scale = (photons / (abs(probe) ** 2).sum()) ** 0.5
    return canvas / scale, probe * scale
