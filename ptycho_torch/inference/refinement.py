"""Refinement: the most likely object near a network's, as far as photons held out bear the network
out.

    minimise over O   sum_jq [ I_jq - n_jq log I_jq ] + near(log O - log network's object)
                                                      + image(log O)

`image` is the prior of the classical control, and `near` a power law of what the network leaves
wrong: how firmly it holds to the network, at which frequencies, and for phase and amplitude each,
is chosen on the scan itself and without truth. The photons are split in two, network and steps
(:mod:`ptycho_torch.iteration.newton`) get one part, and the other judges. A network beside which
the photons held out are not explained better than by the control, by more than chance, has no say,
and its object is left as it is only where that is better than both."""

import time
from dataclasses import dataclass

import torch

from ptycho_torch.config import TrainingConfig
from ptycho_torch.inference.apply import Reconstruction, reconstruct
from ptycho_torch.iteration.image_prior import (
    ImagePrior,
    Prior,
    ProductPrior,
    logs_of,
    object_of,
)
from ptycho_torch.iteration.newton import Newton, start
from ptycho_torch.iteration.prior_search import (
    Chosen,
    choose,
    choose_alone,
    clearly_less,
    rings_if_better,
)
from ptycho_torch.iteration.slopes import deviances
from ptycho_torch.iteration.thinning import split_photons
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.model import PtychoModel

NEAR = ImagePrior(100.0, slope=2.0, amplitude=3.0)  # of what a network leaves wrong, tried first


@dataclass(frozen=True)
class Refined(Reconstruction):
    """A refined object, and what it was refined with."""

    kept: str  # "network": as it is; "blend": refined near it; "none": solved without it
    prior: Prior | None  # None: the network's object as it is
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
    if len(whole.images) == raw.n:  # the search of the classical control
        alone = choose_alone(raw, (config.keep, seed), (fitted, judging))
    else:
        alone = rings_if_better(fitted, judging, choose(fitted, judging))
    blend = choose(fitted, judging, centre, NEAR, beside=alone.prior)
    judged = {"none": alone.deviances, "blend": blend.deviances}
    judged |= {"network": deviances(object_of(centre), judging)}
    best = "none"
    for name in ("blend", "network"):
        if clearly_less(judged[name], judged[best]):
            best = name
    chosen: Chosen | None = {"network": None, "blend": blend, "none": alone}[best]
    found, patterns = whole.object, raw.patterns(whole.images)
    if chosen:
        geometry, newton, prior = patterns.geometry, Newton(patterns), chosen.prior
        if isinstance(prior, ProductPrior):
            about = logs_of(geometry.crop(whole.object), geometry.fluence())
            # from what a part of the photons found: a poor network's object is far from the minimum
            solved = newton.solve(chosen.logs, prior, centre=prior.centre(about))
        else:
            solved = newton.solve(start(patterns), prior)
        found = geometry.embed(object_of(solved), outside=whole.object)
    seconds = time.perf_counter() - wall, time.process_time() - cpu
    means = {name: float(of_patterns.mean()) for name, of_patterns in judged.items()}
    return Refined(
        found, whole.fluence, whole.images, *seconds, best, chosen and chosen.prior, means
    )
