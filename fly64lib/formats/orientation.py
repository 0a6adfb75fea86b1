"""Which of the eight flips and transposes of the scan positions the measured patterns agree with.

Patterns and probe stay as they are; only where the patterns lie on the object is in question. With
an object, its own forward model is scored; without one, a few accelerated steps build a canvas from
neighbouring patterns under each orientation. Only the right one makes overlapping patterns
consistent, so it leaves the lowest Poisson deviance.
"""

from dataclasses import dataclass, field, replace
from typing import get_args

import numpy as np
import torch

from fly64lib.formats.frames import Reading, object_on_grid, probe_on_grid, window
from fly64lib.formats.options import Orientation
from ptycho_torch.data.container import refused
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import DataContractError
from ptycho_torch.iteration.canvas import canvas_steps
from ptycho_torch.iteration.slopes import gradient
from ptycho_torch.physics.geometry import Geometry, Patterns

ORIENTATIONS: tuple[str, ...] = get_args(Orientation)
NEIGHBOURS, STEPS, CHECK_PX = 100, 8, 64
# by which the deviance of the next best has to be larger; on real data 8 % with a poor probe, 70 %
# with a good one
GAP = 0.02


@dataclass(frozen=True)
class OrientationChoice:
    """The chosen orientation, why, and the deviance per pixel of all eight (empty if none was
    scored)."""

    chosen: str
    reason: str
    deviance: dict[str, float] = field(default_factory=dict)
    # (h, w) complex, what the steps made of the neighbouring patterns, or the object
    canvas: np.ndarray | None = None

    def text(self) -> str:
        """The reason, and the deviances from the lowest on."""
        ranked = sorted(self.deviance.items(), key=lambda item: item[1])
        return "\n".join([self.reason, *(f"  {score:8.3f} {name}" for name, score in ranked)])


def oriented(
    positions: np.ndarray, orientation: str, about: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Positions (n, 2) as (y, x), first swapped if it says so, then flipped, about the point
    `about`."""
    centred = positions - np.asarray(about)
    y, x = (centred[:, ::-1] if orientation.startswith("swap") else centred).T
    flips = orientation.rpartition("flip-")[2] if "flip" in orientation else ""
    return np.stack([-y if "y" in flips else y, -x if "x" in flips else x], 1) + np.asarray(about)


def find_orientation(scan: ScanData, source: object, with_object: bool) -> OrientationChoice:
    """Score all eight. The given one is kept if it is the best or none is clearly better; a tie of
    others is refused."""
    found = {name: _fit(scan, name, with_object) for name in ORIENTATIONS}
    scores = {name: fit[0] for name, fit in found.items() if fit is not None}
    if not scores:
        reason = "positions are kept as given: no orientation could be scored on this object"
        return OrientationChoice("as-given", reason)
    best = min(scores, key=scores.get)
    order = sorted(scores, key=scores.get)
    tied = [name for name in order if scores[name] <= scores[best] * (1 + GAP)]
    others = [name for name in tied if name != "as-given"]
    if "as-given" in tied:
        best = "as-given"
        reason = "positions lie as given: no flip or transpose explains the patterns as well"
        if others:
            cannot = f"the patterns cannot tell this from {', '.join(others)}"
            reason = f"positions are kept as given, but {cannot}"
    elif len(tied) > 1:
        raise refused(
            source,
            None,
            f"positions that fit the patterns equally well under {', '.join(tied)}, and worse as"
            " given; expected one orientation; say which with --orientation",
        )
    else:
        reason = f"positions are changed by {best}: as given they fit the patterns worse"
    return OrientationChoice(best, reason, scores, found[best][1])


def _fit(scan: ScanData, orientation: str, with_object: bool) -> tuple[float, np.ndarray] | None:
    """Mean Poisson deviance per pixel of neighbouring patterns on at most CHECK_PX detector pixels,
    and the canvas."""
    distance = np.hypot(*(scan.positions - np.median(scan.positions, axis=0)).T)
    near = np.sort(np.argsort(distance, kind="stable")[:NEIGHBOURS])
    crop = min(scan.N, CHECK_PX)
    small = Reading("amplitude", "centre", (scan.N // 2, scan.N // 2), crop, scan.N)
    probe = probe_on_grid(scan.probe.astype(np.complex128), small).astype(np.complex64)
    counts = torch.from_numpy(window(np.asarray(scan.diffraction[near]), small)).square()
    if with_object:
        image = object_on_grid(scan.object_guess.astype(np.complex128), small)
        places = oriented(scan.positions[near], orientation, _middle(scan)) * small.ratio
    else:
        places = oriented(scan.positions[near], orientation) * small.ratio
        places += crop / 2 + 1 - places.min(0)
        image = np.ones([int(edge) + crop // 2 + 3 for edge in places.max(0)])
    start = torch.from_numpy(image.astype(np.complex64))[None]
    at, modes = torch.from_numpy(places), torch.from_numpy(probe)
    try:
        geometry = Geometry.of(at, modes, image.shape, whole=True)
        lying = Patterns(geometry, counts.__getitem__)
        canvas = canvas_steps(lying, start, 0 if with_object else STEPS)
        deviance = float(gradient(canvas, lying)[1]) / counts.numel()
    except DataContractError:  # on an object that is not square a transpose may leave it
        return None
    if not np.isfinite(deviance):
        return None
    lit = slice(crop // 4, -(crop // 4) or None)  # the rim of the patches sees few photons
    return deviance, start[0].numpy() if with_object else canvas[0, lit, lit].numpy()


def turned(scan: ScanData, orientation: str, with_object: bool) -> ScanData:
    """The scan with its positions in this orientation, on the same canvas if it holds an object,
    else on a new one."""
    positions = oriented(scan.positions, orientation, _middle(scan))
    image = scan.object_guess
    if not with_object and orientation.startswith("swap"):
        image = np.ascontiguousarray(image.T)
    y, x = (positions + (np.array(image.shape) - scan.canvas_shape) / 2).T
    return replace(scan, ycoords=y, xcoords=x, object_guess=image)


def _middle(scan: ScanData) -> tuple[float, float]:
    return scan.canvas_shape[0] / 2, scan.canvas_shape[1] / 2
