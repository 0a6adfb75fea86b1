"""Which of the eight flips and transposes of the scan positions the measured patterns agree with.

Patterns and probe stay as they are; only where the patterns lie on the object is in question. With
an object, its own forward model is scored; without one, a few accelerated steps build a canvas from
neighbouring patterns under each orientation. Only the right one makes overlapping patterns
consistent, so it leaves the lowest Poisson deviance."""

from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import torch

from fly64lib.formats.fit import GOOD, UNEXPLAINED, Fit, Step, better_step, worst_fit
from fly64lib.formats.frames import Reading, object_on_grid, probe_on_grid, window
from fly64lib.formats.options import Orientation
from ptycho_torch.data.container import refused
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import DataContractError
from ptycho_torch.iteration.canvas import canvas_steps
from ptycho_torch.iteration.slopes import gradient
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns

ORIENTATIONS: tuple[str, ...] = get_args(Orientation)
NEIGHBOURS, STEPS, CHECK_PX = 100, 8, 64
CHANGED = 0.75  # least share after a change; the reverse order of a raster is nearly a flip: 0.66
GAP = 0.02  # by which the next best has to be worse; real data: 0.08 (poor probe) to 0.7 (good)


@dataclass(frozen=True)
class OrientationChoice:
    """The chosen orientation, and why."""

    chosen: str
    reason: str
    deviance: dict[str, float] = field(default_factory=dict)  # per pixel, of all that were scored
    canvas: np.ndarray | None = None  # (h, w) complex, the object or what the steps made
    fit: Fit | None = None  # absolute, of the chosen one
    step: Step | None = None  # where patterns fit better at other positions


def oriented(
    positions: np.ndarray, orientation: str, about: np.ndarray | float = 0.0
) -> np.ndarray:
    """Positions (n, 2) as (y, x), first swapped if it says so, then flipped, about a point."""
    centred = positions - about
    y, x = (centred[:, ::-1] if orientation.startswith("swap") else centred).T
    flips = orientation.rpartition("flip-")[2] if "flip" in orientation else ""
    return np.stack([-y if "y" in flips else y, -x if "x" in flips else x], 1) + about


def find_orientation(
    scan: ScanData, source: object, with_object: bool, guessed: bool = False
) -> OrientationChoice:
    """Score all eight. The given one is kept unless one is clearly better; ties are refused.

    The chosen one is then judged absolutely: where it explains little of what tells the patterns
    apart, no orientation is the cure, and the scan is refused; where other positions explain them,
    the choice says so by its `step`. Under a `guessed` probe a poor fit is only said: the probe may
    be the reason."""
    found = {name: _fit(scan, name, with_object) for name in ORIENTATIONS}
    scores = {name: fit[0] for name, fit in found.items() if fit is not None}
    if not scores:
        reason = "positions are kept as given: no orientation could be scored on this object"
        return OrientationChoice("as-given", reason)
    best, *worse = sorted(scores, key=scores.get)
    tied = [best, *(name for name in worse if scores[name] <= scores[best] * (1 + GAP))]
    if "as-given" in tied:
        best, others = "as-given", ", ".join(name for name in tied if name != "as-given")
        reason = "positions lie as given: no flip or transpose explains the patterns as well"
        if others:
            reason = f"positions are kept as given, but the patterns cannot tell this from {others}"
    elif len(tied) > 1:
        text = f"positions that fit the patterns equally well under {', '.join(tied)}, and worse as"
        text += " given; expected one orientation; say which with --orientation"
        raise refused(source, None, text)
    else:
        reason = f"positions are changed by {best}: as given they fit the patterns worse"
    scan = scan if best == "as-given" else turned(scan, best, with_object)
    fit = worst_fit(scan)
    if step := better_step(scan, fit):
        return OrientationChoice(best, reason, scores, found[best][1], fit, step)
    share, least = fit.share, UNEXPLAINED if best == "as-given" else CHANGED
    if not guessed and share is not None and share < least:
        changed = "as given" if best == "as-given" else f"after {best}, the best of eight,"
        text = f"positions that the patterns {fit.patterns[0]} to {fit.patterns[1]} do not belong"
        text += f" to, {changed} ({fit.text()}); expected {100 * least:.0f} % or more; are the"
        text += " positions in another order than the patterns, in another unit, or another scan's?"
        raise refused(source, None, f"{text} To take them all the same: --orientation as-given")
    if share is None or share < GOOD:
        reason += "; this is not certain"
    return OrientationChoice(best, f"{reason} ({fit.text()})", scores, found[best][1], fit)


def _fit(scan: ScanData, orientation: str, with_object: bool) -> tuple[float, np.ndarray] | None:
    """Poisson deviance per pixel of neighbouring patterns, cropped to CHECK_PX, and the canvas."""
    distance = np.hypot(*(scan.positions - np.median(scan.positions, axis=0)).T)
    near = np.sort(np.argsort(distance, kind="stable")[:NEIGHBOURS])
    crop = min(scan.N, CHECK_PX)
    small = Reading("amplitude", "centre", (scan.N // 2, scan.N // 2), crop, scan.N)
    probe = probe_on_grid(scan.probe.astype(np.complex128), small).astype(np.complex64)
    counts = torch.from_numpy(window(np.asarray(scan.diffraction[near]), small)).square()
    if with_object:
        image, middle = scan.object_guess.astype(np.complex128), np.array(scan.canvas_shape) / 2
        image = object_on_grid(image, small)
        places = oriented(scan.positions[near], orientation, middle) * small.ratio
    else:
        places = oriented(scan.positions[near], orientation) * small.ratio
        places += crop / 2 + 1 - places.min(0)
        image = np.ones([int(edge) + crop // 2 + 3 for edge in places.max(0)])
    start = torch.from_numpy(image.astype(np.complex64))[None]
    at, modes = torch.from_numpy(places), torch.from_numpy(probe)
    try:
        detector = None
        if scan.detector_mask is not None:
            mask = window(scan.detector_mask, small)
            detector = Detector(crop, torch.from_numpy(np.ascontiguousarray(mask)))
        geometry = Geometry.of(at, modes, image.shape, whole=True, detector=detector)
        lying = Patterns(geometry, counts.__getitem__)
        canvas = canvas_steps(lying, start, 0 if with_object else STEPS)
        deviance = float(gradient(canvas, lying)[1]) / (len(near) * geometry.measured_px)
    except DataContractError:  # on an object that is not square a transpose may leave it
        return None
    if not np.isfinite(deviance):
        return None
    lit = slice(crop // 4, -(crop // 4) or None)  # the rim of the patches sees few photons
    return deviance, start[0].numpy() if with_object else canvas[0, lit, lit].numpy()


def turned(scan: ScanData, orientation: str, with_object: bool) -> ScanData:
    """The scan with its positions turned, on the same canvas if it holds an object."""
    image, middle = scan.object_guess, np.array(scan.canvas_shape) / 2
    positions = oriented(scan.positions, orientation, middle)
    if not with_object and orientation.startswith("swap"):
        image = np.ascontiguousarray(image.T)
    y, x = (positions + (np.array(image.shape) - scan.canvas_shape) / 2).T
    return replace(scan, ycoords=y, xcoords=x, object_guess=image)
