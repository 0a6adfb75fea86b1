"""The study's other condition: a scan whose probe is not known, but recovered from its patterns.

A detector of N pixels tells a probe's far field on these pixels and nothing beside them. That is
where the recovery starts, out of focus too if asked for; object and probe are then fitted together.
Every method gets the scan under the probe that was found, and scores leave out what an unknown
probe leaves open (gauge `unknown_probe`)."""

from jaxtyping import Complex
from torch import Tensor

from fly64lib.methods.classical import Classical
from ptycho_torch.iteration.prior_search import FIRST
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.optics import backpropagate, propagate

_STEPS = 200  # joint steps on object and probe
_SOLVING = 3  # on the object alone: it is not kept


def seen_alone(probe: Complex[Tensor, "modes M M"], N: int) -> Complex[Tensor, "modes M M"]:
    """The probe without its light beside the N x N pixels of the detector."""
    return backpropagate(propagate(probe, N), probe.shape[-1])


def under_recovered_probe(
    scan: RawDataTorch, defocus_rad: float = 0.0, modes: int = 1, threads: int = 1
) -> RawDataTorch:
    """A scan without truth under the probe that its patterns tell."""
    start = scan.under(seen_alone(scan.probe, scan.N).numpy())
    how = {"probe": "refine", "probe_modes": modes, "probe_defocus_rad": defocus_rad}
    how |= {"joint_steps": _STEPS, "weight": FIRST.weight, "steps": _SOLVING, "threads": threads}
    return scan.under(Classical(**how).reconstruct(start).probe)
