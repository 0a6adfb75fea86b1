"""The study's other condition: a scan whose probe is not known, but recovered from its patterns.

A detector of N pixels tells a probe's far field on these pixels and nothing beside them. That is
where the recovery starts, out of focus too if asked for; object and probe are then fitted together,
to four fifths of the photons. The others say whether the probe that was found, with its object,
explains them better than the one it started from, by more than chance: where photons are few a
probe costs more than it gives. Every method gets the scan under the probe that is kept, and scores
leave out what an unknown probe leaves open (gauge `unknown_probe`). A network that is trained on
one half of a scan and applied to the other has the probe from the first, as it has its weights."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from fly64lib.design.registries import METHODS
from fly64lib.evaluation.gauge import in_gauge_of
from fly64lib.methods.base import ProbeCondition
from fly64lib.methods.by_name import PROBE_BY
from fly64lib.methods.starting_probes import starting_probe
from fly64lib.simulation.overlap_measures import scanned_region
from ptycho_torch.errors import ConfigError
from ptycho_torch.iteration.prior_search import FIRST, clearly_less
from ptycho_torch.iteration.slopes import deviances
from ptycho_torch.iteration.thinning import split_photons
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.optics import backpropagate, propagate
from ptycho_torch.training.bundle import load_bundle

_STEPS = 200  # joint steps on object and probe
_HOW = "recovered_probe"  # in the metadata of what a network is trained on
_KEEP = 0.8  # share of the photons that object and probe are fitted to


def seen_alone(probe: Complex[Tensor, "modes M M"], N: int) -> Complex[Tensor, "modes M M"]:
    """The probe without its light beside the N x N pixels of the detector."""
    return backpropagate(propagate(probe, N), probe.shape[-1])


def under_recovered_probe(
    scan: RawDataTorch, how: ProbeCondition, threads: int = 1, seed: int = 0
) -> RawDataTorch:
    """A scan without truth under the probe that its patterns tell, or, where the photons held out
    do not prefer that one, under the one from which it was sought."""
    start = scan.under(seen_alone(scan.probe, scan.N).numpy())
    start = start.under(starting_probe(start, how.probe_defocus_rad).numpy())
    fitted, judging = split_photons(start, _KEEP, seed)
    patterns, dimmed = judging.patterns(whole=True), ((1 - _KEEP) / _KEEP) ** 0.5
    common = {"weight": FIRST.weight, "threads": threads}
    sought = {"probe": "refine", "probe_modes": how.probe_modes, "joint_steps": _STEPS}
    # by name, lest the jobs of every method depend on that one's code
    stated, found = (
        METHODS[PROBE_BY](**common, **more).reconstruct(fitted) for more in ({}, sought)
    )
    held_out = [
        deviances(torch.from_numpy(one.object)[None], patterns.under(probe * dimmed))
        for one, probe in ((stated, fitted.probe), (found, torch.from_numpy(found.probe)))
    ]
    better = clearly_less(held_out[1], held_out[0])
    return scan.under(found.probe / _KEEP**0.5) if better else start


def halves_under_one_probe(
    train: RawDataTorch, test: RawDataTorch, how: ProbeCondition, threads: int = 1
) -> tuple[RawDataTorch, RawDataTorch]:
    """Both halves of a scan under the probe that the patterns of the first tell; the metadata say
    how it was found. Truth patches, where they are there, as an object under that probe has them:
    labels in another gauge would teach a network the difference."""
    found = under_recovered_probe(train.without_truth(), how, threads).scan.probe

    def under(half: RawDataTorch) -> RawDataTorch:
        metadata = half.metadata | {_HOW: asdict(how)}
        scan = type(half)(replace(half.scan, probe=found, metadata=metadata), half.source)
        if scan.scan.truth_patches is None:
            return scan
        made = METHODS[PROBE_BY](threads=threads).reconstruct(scan.without_truth()).object
        region = scanned_region(scan.positions.numpy())
        truth = in_gauge_of(scan.scan.object_guess, made, region).astype(np.complex64)
        geometry = scan.geometry(whole=True)
        patches = [geometry.patches(torch.from_numpy(truth)[None], i) for i in geometry.chunks()]
        about = {"object_guess": truth, "truth_patches": torch.cat(patches).numpy()}
        return type(half)(replace(scan.scan, **about), half.source)

    return under(train), under(test)


def probe_of_training(bundle: Path, how: ProbeCondition) -> Complex[np.ndarray, "modes M M"]:
    """The probe under which a network was trained, recovered before in the same way. ConfigError
    for a network trained under another condition."""
    found = load_bundle(bundle)
    if found.statistics.get("metadata", {}).get(_HOW) != asdict(how):
        text = f"{bundle} was not trained under a probe recovered in this way; train it with"
        asked = [f"--{name.replace('_', '-')} {value}" for name, value in asdict(how).items()]
        raise ConfigError(f"{text} {' '.join(asked)}")
    return found.model.probe.numpy()
