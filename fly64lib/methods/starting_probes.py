"""The probe that a method starts from, and the forms in which it gives one back."""

from typing import Any

import torch
from jaxtyping import Complex
from torch import Tensor

from fly64lib.simulation.probes import defocused
from ptycho_torch.memmap_bridge import RawDataTorch

Modes = Complex[Tensor, "modes M M"]


def starting_probe(scan: RawDataTorch, defocus_rad: float) -> Modes:
    """The scan's probe, with an error of its defocus where one is asked for."""
    return defocused(scan.probe, defocus_rad) if defocus_rad else scan.probe


def with_modes(probe: Modes, count: int) -> Complex[Tensor, "count M M"]:
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
