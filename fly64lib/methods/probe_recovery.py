"""A scan with what is recovered from its own patterns.

Object and probe are fitted together (:mod:`fly64lib.methods.classical`), the probe as incoherent
modes that start from the file's, on a finer grid where one is asked for, and with it what is
unknown of the exposures. Every tenth pattern is kept out of the fit and tells whether the recovery
holds: the mean Poisson deviance per detector pixel there, under what the file says and under what
was recovered, each with the object fitted under it. A perfect model would come to about 1; a
recovery that does not lower it is not worth taking. What only an exposure itself can tell, its
position and brightness, a tenth of its photons tells, and the other nine tenths judge."""

import sys
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Complex
from torch import Tensor

from fly64lib.methods import penalised_fit
from fly64lib.methods.base import MethodResult, measured
from fly64lib.methods.classical import Classical
from ptycho_torch.errors import ConfigError
from ptycho_torch.iteration.exposures import Unknown, positions_of
from ptycho_torch.iteration.prior_search import clearly_less
from ptycho_torch.iteration.slopes import deviances
from ptycho_torch.iteration.thinning import ThinnedCounts
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.geometry import Geometry, Patterns

HELD_OUT_EVERY = 10
_TELLING = 0.1  # share of the photons of a pattern held out that tell its position and brightness
_ROUNDS = 20  # steps of these
OF_EXPOSURES = ("affine", "positions", "brightness")


@dataclass(frozen=True, eq=False)
class Recovered:
    """What nine tenths of a scan tell of it, and what the last tenth says of that."""

    scan: RawDataTorch  # all patterns, with the recovered probe, object and exposures
    deviance_before: float  # per detector pixel of the patterns held out, by what the file says
    deviance_after: float
    better: bool  # the second is the smaller one, by more than chance
    cpu_seconds: float

    @property
    def shares(self) -> list[float]:
        """Power of the probe's modes, orthogonal and the strongest first, as shares."""
        power = self.scan.probe.abs().square().sum((1, 2))
        return (power / power.sum()).tolist()


def held_out(patterns: int) -> np.ndarray:
    """Which patterns are kept out of a fit: every tenth. ConfigError for fewer than twenty."""
    if patterns < (least := 2 * HELD_OUT_EVERY):
        raise ConfigError(f"{patterns} patterns: a probe is recovered from {least} or more")
    return np.arange(patterns) % HELD_OUT_EVERY == 0


def recover_probe(
    scan: RawDataTorch,
    modes: int,
    steps: int = 240,
    threads: int = 1,
    progress: bool = False,
    *,
    M: int | None = None,
    unknown: tuple[str, ...] = (),
    tikhonov: float = 30.0,
    weight: float | None = None,
    solving: int = Classical.steps,
    before: Complex[np.ndarray, "H W"] | None = None,
) -> Recovered:
    """The probe as `modes` incoherent modes or more on M pixels (None: as many as it has), and what
    is `unknown` of the exposures, after `steps` joint steps, without truth.

    `weight` is the image prior's (None: photons held out choose it); under it `solving` conjugate
    gradient steps on the object follow. `before` is an object that was fitted to the same nine
    tenths under what the file says, where there is one."""
    held, blind = held_out(scan.n), scan.without_truth()
    fine = blind if M is None else blind.finer(M)
    common = {"threads": threads, "progress": progress, "weight": weight}
    common["steps"] = solving
    sought = {"probe": "refine", "probe_modes": modes, "unknown": unknown}
    sought |= {"joint_steps": steps, "tikhonov": tikhonov}
    seconds = 0.0
    if before is None:
        if progress:
            print("1 of 2: the object under what the file says", file=sys.stderr)
        kept = Classical(**common).reconstruct(blind.subset(~held))
        before, seconds = kept.object, kept.cost.cpu_seconds
        if progress:
            print("2 of 2: the object together with what is sought", file=sys.stderr)
    near = before if before.shape == fine.scan.canvas_shape else None
    found = penalised_fit.reconstruct(fine.subset(~held), Classical(**common, **sought), near)
    seconds += found.cost.cpu_seconds
    objects = [torch.from_numpy(image)[None] for image in (before, found.object)]
    with measured() as cost:
        whole = _with_exposures(fine, held, found)
        geometries = [part.subset(held).geometry(whole=True) for part in (blind, whole)]
        every, of_each = blind.subset(held), tuple(set(unknown) & set(OF_EXPOSURES))
        judging = every.counts(slice(None)).__getitem__
        if of_each:
            photons = ThinnedCounts(every, torch.arange(every.n), _TELLING, seed=0)
            telling, judging = Patterns(geometries[1].fainter(_TELLING), photons.kept), photons.rest
            told = _told(objects[1], telling, of_each).geometry
            at = {name: getattr(told, name) for name in ("address", "residual_px", "brightness")}
            geometries[1] = replace(geometries[1], **at)
            geometries = [geometry.fainter(1 - _TELLING) for geometry in geometries]
            all_photons = Patterns(
                whole.subset(held).geometry(whole=True), every.counts(slice(None)).__getitem__
            )
            whole = _put(whole, held, _told(objects[1], all_photons, of_each).geometry)
        old, new = (
            deviances(canvas, Patterns(geometry, judging))
            for canvas, geometry in zip(objects, geometries, strict=True)
        )
    means, better = (float(old.mean()), float(new.mean())), clearly_less(new, old)
    return Recovered(whole, *means, better, seconds + cost.cpu_seconds)


def _with_exposures(scan: RawDataTorch, held: np.ndarray, found: MethodResult) -> RawDataTorch:
    """The scan with what was found of the fitted patterns; those held out lie where the others'
    linear map puts them, and are as bright as the mean."""
    positions, brightness = scan.scan.positions, scan.scan.brightness
    background = scan.scan.background if found.background is None else found.background
    if found.positions is not None:
        middle = positions[~held].mean(0)
        away = found.positions - positions[~held]
        trend = np.linalg.lstsq(positions[~held] - middle, away - away.mean(0), rcond=None)[0]
        positions = positions + away.mean(0) + (positions - middle) @ trend
        positions[~held] = found.positions
    if found.brightness is not None:
        brightness = np.ones(scan.n)
        brightness[~held] = found.brightness
    y, x = _inside(positions, scan).T
    extra = {"xcoords": x, "ycoords": y, "brightness": brightness, "background": background}
    changed = replace(scan.scan, probe=found.probe, object_guess=found.object, **extra)
    return RawDataTorch(changed, scan.source)


def _told(canvas: Tensor, patterns: Patterns, of_each: tuple[str, ...]) -> Patterns:
    """The patterns with what their counts tell of their positions and brightness under an object
    and a probe."""
    most = penalised_fit.MOST_STEP * patterns.geometry.M / patterns.geometry.N
    find = Unknown(patterns, of_each, most, probe_known=True)
    for _ in range(_ROUNDS):
        patterns = find(canvas, patterns)
    return patterns


def _put(scan: RawDataTorch, held: np.ndarray, told: Geometry) -> RawDataTorch:
    """The scan with the positions and brightness of the patterns held out."""
    positions, brightness = scan.scan.positions.copy(), scan.scan.brightness
    positions[held] = _inside(positions_of(told).numpy(), scan)
    if told.brightness is not None and brightness is not None:
        brightness = brightness.copy()
        brightness[held] = told.brightness.numpy()
    y, x = positions.T
    changed = replace(scan.scan, xcoords=x, ycoords=y, brightness=brightness)
    return RawDataTorch(changed, scan.source)


def _inside(positions: np.ndarray, scan: RawDataTorch) -> np.ndarray:
    """Positions whose patches lie on the object; a step may have led just beyond."""
    half, shape = scan.M / 2, np.array(scan.scan.canvas_shape)
    return np.clip(positions, half - 0.499, shape - half + 0.499)
