"""What a method is, what it gives, and pieces that several methods share.

    result = Classical(steps=40).reconstruct(open_scan("scan.npz").without_truth())

A method is a configuration of its settings. It gets a scan without its truth: counts, positions,
the probe to start from, and the size of the object. It starts from an empty object. Every method
sees the same counts, positions and canvas. `fly64lib.registries.METHODS` lists them by name.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from fly64lib.design import dose_folder, gridsize_of, linear_overlap
from fly64lib.simulation.probes import defocused
from ptycho_torch.memmap_bridge import RawDataTorch

Modes = Complex[Tensor, "modes N N"]


@dataclass
class Cost:
    """What a block of code took; filled when it ends."""

    seconds: float = 0.0  # wall time
    cpu_seconds: float = 0.0
    peak_memory_mb: float | None = None  # of its process so far; None: the system does not say


@dataclass(frozen=True, eq=False)
class MethodResult:
    """An object and what it took, from the open scan to the object, imports not counted."""

    object: Complex[np.ndarray, "H W"]  # complex64, on the scan's canvas
    # complex64, sum |P|^2 = photons; None where it was not refined
    probe: Complex[np.ndarray, "modes N N"] | None = None
    cost: Cost = field(default_factory=Cost)
    settings: dict[str, Any] = field(default_factory=dict)  # of the method, JSON-ready
    note: str = ""  # what a reader of the numbers has to know
    trace: list[dict[str, float]] = field(default_factory=list)  # one entry per iteration, in order


@dataclass(frozen=True)
class Network:
    """How a method's network is trained, and where under phase E's folder it lies."""

    objective: str  # of TrainingConfig
    scope: str = "condition"  # one for each dose and view; or "replicate": one for all of them

    def folder(self, dose: float, view: str) -> str:
        """Relative to phase E's folder. Controls are single images: the baseline's network."""
        if self.scope == "replicate":
            return f"sim/{self.objective}"
        view = "baseline" if linear_overlap(view) is None else view
        of_objective = "" if self.objective == "poisson" else f"_{self.objective}"
        return f"{dose_folder(dose)}/{view}/gs{gridsize_of(view)}{of_objective}"


class Method(Protocol):
    """What the study needs of a method; its settings are the fields of its class."""

    description: ClassVar[str]  # for the report's glossary; else the docstring's first paragraph
    network: ClassVar[Network | None]  # that it needs trained; it then has a field `bundle`
    own_notebook: ClassVar[bool]  # the others are done in seconds and share one a condition
    sees_truth: ClassVar[bool]  # a reference and no method: it gets the truth

    def reconstruct(self, scan: RawDataTorch) -> MethodResult:
        """Object of a scan. Raises :class:`ptycho_torch.errors.PtychoError`."""
        ...


def attribute(method: type[Method], name: str) -> Any:
    """A class attribute of :class:`Method`; those that a method does not state are the usual."""
    usual = {"network": None, "own_notebook": False, "sees_truth": False}
    usual["description"] = " ".join((method.__doc__ or "").partition("\n\n")[0].split())
    return getattr(method, name, usual[name])


@contextmanager
def measured() -> Iterator[Cost]:
    """Wall and CPU time (all threads) of a block, and this process's peak memory (VmHWM) so far."""
    cost, wall, cpu = Cost(), time.perf_counter(), time.process_time()
    yield cost
    cost.seconds, cost.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    status = Path("/proc/self/status")
    if status.is_file():
        peak = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        cost.peak_memory_mb = int(peak[1]) / 1000


def starting_probe(scan: RawDataTorch, defocus_rad: float) -> Modes:
    """The scan's probe, with an error of its defocus where one is asked for."""
    return defocused(scan.probe, defocus_rad) if defocus_rad else scan.probe


def with_modes(probe: Modes, count: int) -> Complex[Tensor, "count N N"]:
    """The probe with faint incoherent modes added up to `count`, to recover; its power is kept.

    Each is the strongest mode times a monomial x^a y^b, of lowest degree first, and has 1 % of its
    power: what a beam that trembles, or is a little wider than coherence allows, adds first
    (Thibault and Menzel, doi:10.1038/nature11806)."""
    power = probe.abs().square().sum((-2, -1))
    strongest, photons = probe[power.argmax()], power.max().sqrt()
    axis = torch.linspace(-1, 1, probe.shape[-1], dtype=probe.real.dtype)
    degrees = [(total - b, b) for total in range(1, count + 1) for b in range(total + 1)]
    missing = degrees[: max(0, count - len(probe))]
    shapes = [strongest * axis**b * (axis**a)[:, None] for b, a in missing]
    faint = [0.1 * shape * photons / shape.abs().square().sum().sqrt() for shape in shapes]
    every = torch.cat([probe, *(mode[None] for mode in faint)])
    return every * (probe.abs().square().sum() / every.abs().square().sum()).sqrt()


def orthogonal_modes(probe: Modes) -> Modes:
    """The same incoherent sum as orthogonal modes, the strongest first; one mode stays as it is."""
    if len(probe) == 1:
        return probe
    _, sizes, shapes = torch.linalg.svd(probe.flatten(1), full_matrices=False)
    return (sizes[:, None] * shapes).view(probe.shape)


def photons_restored(canvas: Any, probe: Any, photons: float) -> tuple[Any, Any]:
    """Object and probe, their product kept, with their free scale fixed: sum |P|^2 = `photons`."""
    scale = (photons / (abs(probe) ** 2).sum()) ** 0.5
    return canvas / scale, probe * scale
