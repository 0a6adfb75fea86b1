"""Which of the eight flips and transposes of the scan positions the measured patterns agree with.

Patterns and probe stay as they are; only where the patterns lie on the object is in question. With
an object, its own forward model is scored; without one, a few accelerated steps build a canvas from
neighbouring patterns under each orientation. Only the right one makes overlapping patterns
consistent, so it leaves the lowest Poisson deviance."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from fly64lib.formats.frames import Reading, object_on_grid, probe_on_grid, window
from ptycho_torch.data.contract import ScanData
from ptycho_torch.data.npz import broken
from ptycho_torch.errors import DataContractError
from ptycho_torch.iteration.canvas import canvas_steps
from ptycho_torch.iteration.slopes import gradient
from ptycho_torch.physics.geometry import Geometry, Patterns

ORIENTATIONS = (
    "as-given",
    "flip-y",
    "flip-x",
    "flip-yx",
    "swap",
    "swap-flip-y",
    "swap-flip-x",
    "swap-flip-yx",
)
NEIGHBOURS, STEPS, CHECK_PX = 100, 8, 64
# by which the deviance of the next best has to be larger; on real data 8 % with a poor probe, 70 %
# with a good one
GAP = 0.02


@dataclass(frozen=True)
class Verdict:
    """The chosen orientation, and the deviance per pixel of all eight (empty if none was
    scored)."""

    chosen: str
    deviance: dict[str, float]
    said: str
    canvas: np.ndarray | None = (
        None  # (h, w) complex, what the steps made of the neighbouring patterns, or the object
    )


def oriented(
    positions: np.ndarray, orientation: str, about: tuple[float, float] = (0.0, 0.0)
) -> np.ndarray:
    """Positions (n, 2) as (y, x), first swapped if it says so, then flipped, about the point
    `about`."""
    centred = positions - np.asarray(about)
    y, x = (centred[:, ::-1] if orientation.startswith("swap") else centred).T
    flips = orientation.rpartition("flip-")[2] if "flip" in orientation else ""
    return np.stack([-y if "y" in flips else y, -x if "x" in flips else x], 1) + np.asarray(about)


def find_orientation(scan: ScanData, source: object, with_object: bool) -> Verdict:
    """Score all eight. The given one is kept if it is the best or none is clearly better; a tie of
    others is refused."""
    found = {name: _fit(scan, name, with_object) for name in ORIENTATIONS}
    scores = {name: fit[0] for name, fit in found.items() if fit is not None}
    order = sorted(scores, key=scores.get)
    tied = [name for name in order if scores[name] <= scores[order[0]] * (1 + GAP)]
    if not order:
        return Verdict(
            "as-given",
            {},
            "positions are kept as given: no orientation could be scored on this object",
        )
    if order[0] != "as-given" and "as-given" not in tied:
        if len(tied) > 1:
            raise broken(
                source,
                None,
                f"positions that fit the patterns equally well under {', '.join(tied)}, and worse"
                " as given",
                "one orientation",
                "say which with --orientation",
            )
        return Verdict(
            order[0],
            scores,
            f"positions are changed by {order[0]}: as given they fit the patterns worse",
            found[order[0]][1],
        )
    others = [name for name in tied if name != "as-given"]
    said = (
        f"positions are kept as given, but the patterns cannot tell this from {', '.join(others)}"
        if others
        else "positions lie as given: no flip or transpose explains the patterns as well"
    )
    return Verdict("as-given", scores, said, found["as-given"][1])


def _fit(scan: ScanData, orientation: str, with_object: bool) -> tuple[float, np.ndarray] | None:
    """Mean Poisson deviance per pixel of neighbouring patterns on at most CHECK_PX detector pixels,
    and the canvas."""
    positions = np.stack([scan.ycoords, scan.xcoords], 1)
    middle = np.median(positions, axis=0)
    near = np.sort(np.argsort(np.hypot(*(positions - middle).T), kind="stable")[:NEIGHBOURS])
    crop = min(scan.N, CHECK_PX)
    small = Reading("amplitude", False, (scan.N // 2, scan.N // 2), crop, 1)
    probe = probe_on_grid(scan.probe.astype(np.complex128), small).astype(np.complex64)
    counts = torch.from_numpy(window(np.asarray(scan.diffraction[near]), small)).square()
    ratio = crop / scan.N
    if with_object:
        image = object_on_grid(scan.object_guess.astype(np.complex128), scan.N, small).astype(
            np.complex64
        )
        places = (
            oriented(
                positions[near], orientation, (scan.canvas_shape[0] / 2, scan.canvas_shape[1] / 2)
            )
            * ratio
        )
    else:
        places = oriented(positions[near], orientation) * ratio
        places += crop / 2 + 1 - places.min(0)
        image = np.ones(tuple(int(edge) + crop // 2 + 3 for edge in places.max(0)), np.complex64)
    try:
        places, modes = torch.from_numpy(places), torch.from_numpy(probe)
        geometry = Geometry.of(places, modes, image.shape, whole=True)
        lying = Patterns(geometry, counts.__getitem__)
        canvas = canvas_steps(lying, torch.from_numpy(image)[None], 0 if with_object else STEPS)
        deviance = float(gradient(canvas, lying)[1]) / counts.numel()
    except DataContractError:  # on an object that is not square a transpose may leave it
        return None
    if not np.isfinite(deviance):
        return None
    lit = slice(crop // 4, -(crop // 4) or None)  # the rim of the patches sees few photons
    return deviance, image if with_object else canvas[0, lit, lit].numpy()


def turned(scan: ScanData, orientation: str, with_object: bool) -> ScanData:
    """The scan with its positions in this orientation, on the same canvas if it holds an object,
    else on a new one."""
    about = (scan.canvas_shape[0] / 2, scan.canvas_shape[1] / 2)
    y, x = oriented(np.stack([scan.ycoords, scan.xcoords], 1), orientation, about).T
    if with_object:
        return replace(scan, ycoords=y, xcoords=x)
    image = scan.object_guess.T if orientation.startswith("swap") else scan.object_guess
    y, x = (
        at + (new - old) / 2
        for at, new, old in zip((y, x), image.shape, scan.canvas_shape, strict=True)
    )
    return replace(scan, ycoords=y, xcoords=x, object_guess=np.ascontiguousarray(image))
