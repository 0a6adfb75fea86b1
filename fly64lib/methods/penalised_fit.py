"""The classical control: the most likely object under a prior that the data choose.

Minimises over the object O

    f(O) = sum_j sum_q [ I_jq - n_jq log I_jq ] + prior(log O),
    I_j = s_j sum_m |cut_N F(P_mj cut_j O)|^2 + b

by Gauss-Newton steps (:mod:`ptycho_torch.iteration.newton`). The prior
(:mod:`ptycho_torch.iteration.image_prior`, :mod:`ptycho_torch.iteration.ring_prior`) is chosen
without truth, by photons held out (:mod:`ptycho_torch.iteration.prior_search`).

Where the probe P is to be refined, or positions, brightness s and background b are unknown
(:mod:`ptycho_torch.iteration.exposures`), accelerated steps on all of them together go before,
which hold the slopes of O by `tikhonov`. Under a known probe positions that were found, or the
way of a sample that moves, are kept where photons held out are explained better with them than with
what is stated, by more than chance; with a probe that is sought too,
:mod:`~fly64lib.methods.probe_recovery` judges."""

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor
from tqdm import tqdm

from fly64lib.methods.base import MethodResult, measured
from fly64lib.methods.starting_probes import orthogonal_modes, starting_probe, with_modes
from ptycho_torch.errors import PtychoError
from ptycho_torch.iteration.canvas import canvas_steps, empty, joint_steps
from ptycho_torch.iteration.exposures import Unknown, positions_of
from ptycho_torch.iteration.image_prior import ImagePrior, Prior, logs_of, object_of
from ptycho_torch.iteration.newton import Newton, State, start
from ptycho_torch.iteration.prior_search import (
    Chosen,
    choose,
    choose_alone,
    clearly_less,
    parts_of,
    rings_if_better,
    split,
)
from ptycho_torch.iteration.ring_prior import to_settings
from ptycho_torch.iteration.slopes import mean_deviance
from ptycho_torch.iteration.subsets import schedule
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.geometry import Geometry, Patterns, ways

_ALONE = 20  # steps on the object before a probe, or exposures, join
MOST_STEP = 0.5  # of a position at a time, in pixels of the detector's grid
_MOVED_PX = 1e-3  # of the object's: less is none
_TRACED = 10  # joint steps between two entries of the trace: a deviance costs half a step

Canvas = Complex[Tensor, "1 H W"]


@torch.no_grad()
def reconstruct(
    scan: RawDataTorch, settings: Any, near: Complex[np.ndarray, "H W"] | None = None
) -> MethodResult:
    """The object of a scan by the settings of a :class:`~fly64lib.methods.classical.Classical`;
    joint steps begin at an object that is `near`, where there is one."""
    torch.set_num_threads(settings.threads)
    probe = with_modes(starting_probe(scan, settings.probe_defocus_rad), settings.probe_modes)
    stated = scan.geometry().under(probe)
    geometry = stated
    if settings.motion_px:
        way = ways(scan.scan.positions, settings.motion_px)
        geometry = replace(stated, way_px=torch.from_numpy(way).to(stated.residual_px))
    patterns = Patterns(geometry, scan.counts(slice(None)).__getitem__)
    shape = {name: getattr(settings, name) for name in ("slope", "amplitude", "correlation")}
    law = ImagePrior(settings.weight or 0.0, **shape)
    prior: Prior = law
    trace: list[dict[str, float]] = []
    # A bar for each stage: their steps cost differently, and how many priors will be tried is
    # not known, so that one bar for all would tell the time left wrongly.
    bar = partial(tqdm, disable=not settings.progress)
    with measured(scan) as cost:
        if settings.joint:
            sought = ["probe"] * (settings.probe == "refine") + list(settings.unknown)
            with bar(desc=f"object, {', '.join(sought)}", total=settings.joint_steps) as steps:
                canvas, patterns = _joint(patterns, settings, near, trace, steps)
            logs = logs_of(canvas, patterns.geometry.fluence())
        else:
            logs = start(patterns)
        tried: dict[ImagePrior, float] = {}
        rings, returned = None, False
        if settings.weight is None:
            with bar(desc="priors tried", unit="") as priors:
                best, chosen = _chosen(scan, patterns, stated, settings, priors.update)
            if returned := best is not patterns:
                patterns, logs = best, start(best)
            law, rings, prior, tried = chosen.law, chosen.rings, chosen.prior, chosen.tried
        done = trace[-1]["step"] if trace else 0

        def observe(state: State) -> None:
            trace.append({"step": done + state.step, "deviance": state.deviance})
            solved.update(state.step - solved.n)

        steps = settings.steps // 3, settings.steps - settings.steps // 3
        with bar(desc="object", total=settings.steps) as solved:
            logs = Newton(patterns).solve(logs, prior, steps, observe=observe)
    if not isfinite(trace[-1]["deviance"]):
        text = f"{scan.source}: the object is not finite after {settings.steps} steps"
        raise PtychoError(f"{text}: the probe does not fit the data")
    coupled = f"amplitude and phase correlated by {law.correlation:g}, "
    note = coupled * bool(law.correlation) + ("chosen on photons held out" if tried else "given")
    what = "at rest" if settings.motion_px else "positions as stated"
    note += f"; {what}, which photons held out prefer" * returned
    found = {"rings": None, "tried": [[*one, held] for one, held in tried.items()]}
    found |= to_settings(prior)
    geometry, unknown = patterns.geometry, settings.unknown
    moved = {"affine", "positions"} & set(unknown)
    fitted_brightness = "brightness" in unknown and geometry.brightness is not None
    background = geometry.detector.background if "background" in unknown else None
    return MethodResult(
        object=geometry.embed(object_of(logs)).numpy(),
        probe=orthogonal_modes(geometry.probe).numpy() if settings.probe == "refine" else None,
        positions=positions_of(geometry).numpy() if moved else None,
        brightness=geometry.brightness.double().numpy() if fitted_brightness else None,
        background=None if background is None else background.numpy(),
        cost=cost,
        settings=asdict(settings) | found,
        note=f"prior {'ring by ring, after one ' if rings else ''}of {law.weight:.3g} photons per"
        f" pixel, slope {law.slope:g}, {note}",
        trace=trace,
    )


def _chosen(
    scan: RawDataTorch,
    patterns: Patterns,
    stated: Geometry,
    settings: Any,
    tried: Callable[[], Any],
) -> tuple[Patterns, Chosen]:
    """The prior that photons held out ask for, and the patterns: with positions that were found, or
    a sample that moves, or as they are stated, where that is no worse."""
    photons, rings = (settings.keep, settings.seed), settings.spectrum == "rings"
    if settings.as_filed:
        return patterns, choose_alone(scan, photons, parts_of(scan, *photons), rings, tried)
    parts = split(scan, patterns, *photons)
    chosen = choose(*parts, tried=tried)
    if settings.probe == "known" and _moved(patterns.geometry, stated):
        places = {name: getattr(stated, name) for name in ("address", "residual_px", "way_px")}
        unmoved = replace(patterns, geometry=replace(patterns.geometry, **places))
        others = split(scan, unmoved, *photons)
        other = choose(*others, tried=tried)
        if not clearly_less(chosen.deviances, other.deviances):
            patterns, parts, chosen = unmoved, others, other
    return patterns, rings_if_better(*parts, chosen) if rings else chosen


def _moved(geometry: Geometry, stated: Geometry) -> bool:
    """Whether positions are others than those stated, or the sample moves."""
    away = positions_of(geometry) - positions_of(stated)
    return geometry.way_px is not None or bool(away.abs().max() > _MOVED_PX)


def _joint(
    patterns: Patterns,
    settings: Any,
    near: Complex[np.ndarray, "H W"] | None,
    trace: list[dict[str, float]],
    bar: tqdm,
) -> tuple[Canvas, Patterns]:
    """Accelerated steps on all that is to be found, on subsets of the patterns at first, from an
    object stepped under what the file says, lest the two part ways; the patterns come back with
    what was found of them."""
    geometry, weight, steps = patterns.geometry, settings.tikhonov, settings.joint_steps
    refined, passes = settings.probe == "refine", schedule(geometry, steps)
    if near is None:
        canvas = canvas_steps(patterns, empty(geometry), _ALONE, smoothness=weight)
    else:
        canvas = geometry.crop(torch.from_numpy(near))
    bar.reset()  # the time left is told from the steps that are counted
    found = Unknown(patterns, settings.unknown, MOST_STEP * geometry.M / geometry.N, not refined)
    renew = found if settings.unknown else None

    def observe(step: int, canvas: Canvas, fitted: Patterns) -> None:
        if step + 1 in (1, steps) or (step + 1) % _TRACED == 0:
            trace.append({"step": step + 1, "deviance": mean_deviance(canvas, fitted)})
        bar.update()

    if refined:
        return joint_steps(patterns, canvas, passes, weight, observe, renew)

    def seen(step: int, canvas: Canvas) -> None:
        observe(step, canvas, found.patterns)

    canvas = canvas_steps(patterns, canvas, passes, smoothness=weight, observe=seen, renew=renew)
    return canvas, found.patterns
