"""Refinement: the most likely object near a network's, as far as photons held out bear the network
out.

    minimise over O   sum_jq [ I_jq - n_jq log I_jq ] + prior(log O - log network's object)

by the steps of :mod:`ptycho_torch.iteration.newton`. How firmly it holds to the network, at which
frequencies, and for phase and amplitude each, is chosen on the scan itself and without truth: its
photons are split in two, network and steps get one part, and the other judges. It judges the same
prior about an empty object too, which is the classical control, and the network's object as it is:
a network that does not explain the photons held out better, by more than chance, has no say."""

import time
from dataclasses import dataclass

import torch

from ptycho_torch.config import TrainingConfig
from ptycho_torch.inference.apply import Reconstruction, reconstruct
from ptycho_torch.iteration.image_prior import ImagePrior, logs_of, object_of
from ptycho_torch.iteration.newton import Newton, start
from ptycho_torch.iteration.prior_search import Chosen, choose, choose_alone, clearly_less
from ptycho_torch.iteration.slopes import deviances
from ptycho_torch.iteration.thinning import split_photons
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.model import PtychoModel

NEAR = ImagePrior(100.0, slope=2.0, amplitude=3.0)  # about a network's object, tried first


@dataclass(frozen=True)
class Refined(Reconstruction):
    """A refined object, and what it was refined with."""

    kept: str  # "network": as it is; "blend": refined near it; "none": solved without it
    prior: ImagePrior | None  # about the network's object, or an empty one; None: as it is
    judged: dict[str, float]  # deviance per detector pixel of the photons held out


@torch.no_grad()
def refine(model: PtychoModel, raw: RawDataTorch, config: TrainingConfig, seed: int = 0) -> Refined:
    """The object of a trained model and a data file, refined on the file's counts; as
    :func:`reconstruct`, without truth."""
    wall, cpu = time.perf_counter(), time.process_time()
    whole = reconstruct(model, raw, config)
    kept, rest = split_photons(raw, config.keep, seed)
    part = reconstruct(model, kept, config)
    fitted, judging = (one.patterns(whole.images) for one in (kept, rest))
    fluence = fitted.geometry.fluence()
    centre = logs_of(fitted.geometry.crop(part.object), fluence)
    blend = choose(fitted, judging, centre, NEAR)
    if len(whole.images) == raw.n:  # the search of the classical control
        alone = choose_alone(raw, (config.keep, seed), (fitted, judging))
    else:
        alone = choose(fitted, judging)
    judged = {"none": alone.deviances, "network": deviances(object_of(centre), judging)}
    judged |= {"blend": blend.deviances}
    best = "none"
    for name in ("network", "blend"):
        if clearly_less(judged[name], judged[best]):
            best = name
    chosen: Chosen | None = {"network": None, "blend": blend, "none": alone}[best]
    found, patterns = whole.object, raw.patterns(whole.images)
    if chosen:
        geometry, newton = patterns.geometry, Newton(patterns)
        about = logs_of(geometry.crop(whole.object), geometry.fluence())
        if best == "none":
            solved = newton.solve(start(patterns), chosen.prior)
        else:
            # from what a part of the photons found: a poor network's object is far from the minimum
            solved = newton.solve(chosen.logs, chosen.prior, centre=about)
        found = geometry.embed(object_of(solved), outside=whole.object)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    prior = chosen and chosen.prior
    means = {name: float(of_patterns.mean()) for name, of_patterns in judged.items()}
    return Refined(found, whole.fluence, whole.images, *seconds, best, prior, means)
