"""What a method is, and what it gives.

    result = Classical(steps=40).reconstruct(open_scan("scan.npz").without_truth())

A method is a configuration of its settings. It gets a scan without its truth: counts, positions,
the probe to start from, and the size of the object. It starts from an empty object. Every method
sees the same counts, positions and canvas. `fly64lib.design.registries.METHODS` lists them. A
method's module imports torch when it reconstructs: plans of a study only read its settings."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
from jaxtyping import Complex, Float
from pydantic import Field

from fly64lib.design.study import dose_folder, gridsize_of, linear_overlap
from ptycho_torch.fields import Whole, config

if TYPE_CHECKING:
    from ptycho_torch.memmap_bridge import RawDataTorch

Scan: TypeAlias = "RawDataTorch"  # by its name: a method tells of itself without torch


@config
class ProbeCondition:
    """Which probe a study gives its methods."""

    # "known": the file's; "recovered": found from the patterns before any method, from the file's
    # without its light beside the detector
    probe: Literal["known", "recovered"] = "known"
    # incoherent modes of a probe that is sought, at least
    probe_modes: Annotated[Whole, Field(ge=1, le=16)] = 1
    probe_defocus_rad: float = 0.0  # error put on the starting probe

    @property
    def recovers(self) -> bool:
        """Whether methods get a probe that was recovered before."""
        return self.probe == "recovered"


KNOWN_PROBE = ProbeCondition()


@dataclass
class Cost:
    """What a block of code took; filled when it ends."""

    seconds: float = 0.0  # wall time
    cpu_seconds: float = 0.0
    peak_memory_mb: float | None = None  # of its process so far; None: the system does not say
    # of the CPU seconds, what an earlier method on the same scan had spent already
    spared_cpu_seconds: float = 0.0

    def and_then(self, other: "Cost") -> "Cost":
        """What both took, one after the other."""
        peaks = [one.peak_memory_mb for one in (self, other) if one.peak_memory_mb is not None]
        return Cost(
            self.seconds + other.seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(peaks, default=None),
            self.spared_cpu_seconds + other.spared_cpu_seconds,
        )


@dataclass(frozen=True, eq=False)
class MethodResult:
    """An object and what it took, from the open scan to the object, imports not counted."""

    object: Complex[np.ndarray, "H W"]  # complex64, on the scan's canvas
    # complex64, sum |P|^2 = photons; None where it was not refined
    probe: Complex[np.ndarray, "modes M M"] | None = None
    # what was found of the exposures, where it was sought: patch centres (y, x), px; brightness of
    # mean 1; counts of an exposure without the probe's light
    positions: Float[np.ndarray, "n 2"] | None = None
    brightness: Float[np.ndarray, " n"] | None = None
    background: Float[np.ndarray, "N N"] | None = None
    cost: Cost = field(default_factory=Cost)
    settings: dict[str, Any] = field(default_factory=dict)  # of the method, JSON-ready
    note: str = ""  # what a reader of the numbers has to know
    trace: list[dict[str, float]] = field(default_factory=list)  # one entry per iteration, in order


@dataclass(frozen=True)
class Network:
    """How a condition's network is trained, and where under phase E's folder it lies."""

    objective: str  # of TrainingConfig

    def folder(self, dose: float, view: str) -> str:
        """Relative to phase E's folder. Controls are single images: the baseline's network."""
        view = "baseline" if linear_overlap(view) is None else view
        of_objective = "" if self.objective == "poisson" else f"_{self.objective}"
        return f"{dose_folder(dose)}/{view}/gs{gridsize_of(view)}{of_objective}"


class Method(Protocol):
    """What the study needs of a method; its settings are the fields of its class."""

    description: ClassVar[str]  # for the report's glossary; else the docstring's first paragraph
    network: ClassVar[Network | None]  # that it needs trained; it then has a field `bundle`
    own_notebook: ClassVar[bool]  # the others are done in seconds and share one a condition
    sees_truth: ClassVar[bool]  # a reference and no method: it gets the truth

    def reconstruct(self, scan: Scan) -> MethodResult:
        """Object of a scan. Raises :class:`ptycho_torch.errors.PtychoError`."""
        ...


def attribute(method: type[Method], name: str) -> Any:
    """A class attribute of :class:`Method`; those that a method does not state are the usual."""
    usual = {"network": None, "own_notebook": False, "sees_truth": False}
    usual["description"] = " ".join((method.__doc__ or "").partition("\n\n")[0].split())
    return getattr(method, name, usual[name])


@contextmanager
def measured(scan: "Scan | None" = None) -> Iterator[Cost]:
    """Wall and CPU time (all threads) of a block, and this process's peak memory (VmHWM) so far.

    What an earlier method made of the `scan` counts as if it had been made again."""
    cost, wall, cpu = Cost(), time.perf_counter(), time.process_time()
    before = scan.once.spared if scan else (0.0, 0.0)
    yield cost
    after = scan.once.spared if scan else before
    spared = [now - then for now, then in zip(after, before, strict=True)]
    cost.seconds = time.perf_counter() - wall + spared[0]
    cost.cpu_seconds = time.process_time() - cpu + spared[1]
    cost.spared_cpu_seconds = spared[1]
    status = Path("/proc/self/status")
    if status.is_file():
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        cost.peak_memory_mb = int(peak[1]) / 1000
