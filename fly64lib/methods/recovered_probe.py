"""The study's other condition: a scan whose probe is not known, but recovered from its patterns.

A detector of N pixels tells a probe's far field on these pixels and nothing beside them. That is
where the recovery starts, out of focus too if asked for; object and probe are then fitted together,
to four fifths of the photons. The others say whether the probe that was found, with its object,
explains them better than the one it started from, by more than chance: where photons are few a
probe costs more than it gives. Every method gets the scan under the probe that is kept, and scores
leave out what an unknown probe leaves open (gauge `unknown_probe`)."""

import torch
from jaxtyping import Complex
from torch import Tensor

from fly64lib.design.registries import METHODS
from fly64lib.methods.by_name import PROBE_BY
from fly64lib.methods.starting_probes import starting_probe
from ptycho_torch.iteration.prior_search import FIRST, clearly_less
from ptycho_torch.iteration.slopes import deviances
from ptycho_torch.iteration.thinning import split_photons
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.optics import backpropagate, propagate

_STEPS = 200  # joint steps on object and probe
_KEEP = 0.8  # share of the photons that object and probe are fitted to


def seen_alone(probe: Complex[Tensor, "modes M M"], N: int) -> Complex[Tensor, "modes M M"]:
    """The probe without its light beside the N x N pixels of the detector."""
    return backpropagate(propagate(probe, N), probe.shape[-1])


def under_recovered_probe(
    scan: RawDataTorch, defocus_rad: float = 0.0, modes: int = 1, threads: int = 1, seed: int = 0
) -> RawDataTorch:
    """A scan without truth under the probe that its patterns tell, or, where the photons held out
    do not prefer that one, under the one from which it was sought."""
    start = scan.under(seen_alone(scan.probe, scan.N).numpy())
    start = start.under(starting_probe(start, defocus_rad).numpy())
    fitted, judging = split_photons(start, _KEEP, seed)
    patterns, dimmed = judging.patterns(whole=True), ((1 - _KEEP) / _KEEP) ** 0.5
    common = {"weight": FIRST.weight, "threads": threads}
    sought = {"probe": "refine", "probe_modes": modes, "joint_steps": _STEPS}
    # by name, lest the jobs of every method depend on that one's code
    stated, found = (METHODS[PROBE_BY](**common, **how).reconstruct(fitted) for how in ({}, sought))
    held_out = [
        deviances(torch.from_numpy(one.object)[None], patterns.under(probe * dimmed))
        for one, probe in ((stated, fitted.probe), (found, torch.from_numpy(found.probe)))
    ]
    better = clearly_less(held_out[1], held_out[0])
    return scan.under(found.probe / _KEEP**0.5) if better else start
