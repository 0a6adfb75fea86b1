"""Overlap as measured on a view: four figures, none of them a condition (VIEW-001).

    1 within groups    mean disc overlap of the pairs of images of a group
    2 between images   mean disc overlap of an image with its K nearest others
    3 between groups   mean disc overlap of the pairs of group centres closer than D
    4 fluence          photons per object pixel, mean over the scanned region, and the share of its
                       pixels under a tenth of that

D is the probe's diameter, the disc overlap o(d) the common area of two discs of that diameter over
one disc's area. With C = 1 an image is its own group. Everything goes through KD-trees and one FFT:
10,304 positions take half a second. Positions are patch centres (y, x), px."""

import numpy as np
from jaxtyping import Float, Int
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

from fly64lib.simulation.probes import Modes
from fly64lib.simulation.scans import Positions

Groups = Int[np.ndarray, "G C"]
Region = tuple[slice, slice]  # rows and columns of the canvas
Fluence = Float[np.ndarray, "H W"]
_DARK = 0.1  # of the mean fluence


def disc_overlap(distance_px: np.ndarray | float, diameter_px: float) -> np.ndarray | float:
    """Common area of two discs of diameter D at distance d, over the area of one, with t = d / D:

    o = 2 / pi (arccos t - t sqrt(1 - t^2)),   1 at t = 0, 0.39100 at t = 1/2, 0 from t = 1 on."""
    t = np.clip(np.asarray(distance_px) / diameter_px, 0, 1)
    return 2 / np.pi * (np.arccos(t) - t * np.sqrt(1 - t * t))


def geometry_figures(
    positions_px: Positions, groups: Groups | None, diameter_px: float, neighbor_count: int
) -> dict:
    """Figures 1 to 3 of a view's positions and groups of indices into them, as JSON-ready values.

    null where a figure has no pairs: of single images, or of groups all farther than D."""
    groups = np.arange(len(positions_px))[:, None] if groups is None else groups
    one, other = np.triu_indices(groups.shape[1], 1)
    inner = _distances(positions_px, groups[:, one], groups[:, other])
    neighbours = nearest_distances(positions_px, neighbor_count)
    # Groups drawn anew may share their centre: one point with a weight, whose pairs lie at d = 0.
    centres, weight = np.unique(groups[:, 0], return_counts=True)
    centres = positions_px[centres]
    first, second = cKDTree(centres).query_pairs(diameter_px * (1 - 1e-9), output_type="ndarray").T
    pairs, shared = weight[first] * weight[second], int((weight * (weight - 1) // 2).sum())
    total = int(pairs.sum()) + shared
    overlap = float(pairs @ disc_overlap(_distances(centres, first, second), diameter_px)) + shared
    ends = np.concatenate([first, second])
    partners = np.bincount(ends, minlength=len(centres)) + weight - 1
    apart = nearest_distances(centres, 1)
    return {
        "images": len(positions_px),
        "groups": len(groups),
        "images_per_group": groups.shape[1],
        "probe_diameter_px": diameter_px,
        "neighbor_count": neighbor_count,
        "within_groups": {
            "mean_disc_overlap": _mean(disc_overlap(inner, diameter_px)),
            "mean_distance_px": _mean(inner),
        },
        "between_images": {
            "mean_disc_overlap": _mean(disc_overlap(neighbours, diameter_px)),
            "mean_nearest_px": _mean(neighbours[:, :1]),
        },
        "between_groups": {
            "mean_disc_overlap": overlap / total if total else None,
            "pairs_closer_than_D": total,
            "groups_without_partner": int((partners == 0).sum()),
            "mean_nearest_px": _mean(apart),
            "smallest_px": float(apart.min()) if apart.size else None,
        },
    }


def fluence_figures(
    positions_px: Positions, probe: Modes, canvas_shape: tuple[int, int], region: Region
) -> dict:
    """Figure 4 over `region`; sum |P|^2 of the probe is the photons per exposure."""
    fluence = fluence_map(positions_px, probe, canvas_shape)[region]
    return {
        "photons_per_pixel": float(fluence.mean()),
        "share_under_tenth": float((fluence < _DARK * fluence.mean()).mean()),
        "photons_per_exposure": float(np.square(np.abs(probe), dtype=np.float64).sum()),
        "region_px": [end for side in region for end in (side.start, side.stop)],
    }


def fluence_map(positions_px: Positions, probe: Modes, canvas_shape: tuple[int, int]) -> Fluence:
    """Photons that all exposures bring to each object pixel: sum_j sum_m |P_m(r - r_j)|^2.

    Patches lie on the integer grid (the sub-pixel shift of the probe, at most half a pixel, is left
    out), so the map is the histogram of their corners convolved with the probe's intensity. Its sum
    is n sum |P|^2."""
    intensity = np.square(np.abs(probe), dtype=np.float64).sum(axis=0)
    N = len(intensity)
    corners = np.zeros((canvas_shape[0] - N + 1, canvas_shape[1] - N + 1))
    np.add.at(corners, tuple(np.rint(positions_px - N / 2).astype(np.int64).T), 1)
    return np.maximum(fftconvolve(corners, intensity), 0)


def scanned_region(positions_px: Positions) -> Region:
    """Rows and columns inside the positions' bounding box, rounded inwards, at least one pixel."""
    first = np.ceil(positions_px.min(axis=0)).astype(int).tolist()
    last = np.floor(positions_px.max(axis=0)).astype(int).tolist()
    return tuple(slice(a, max(a, b) + 1) for a, b in zip(first, last, strict=True))


def nearest_distances(positions_px: Positions, neighbor_count: int) -> Float[np.ndarray, "n K"]:
    """Distances from each position to its K nearest others, nearest first; K is at most n - 1."""
    K = min(neighbor_count, len(positions_px) - 1)
    if K <= 0:
        return np.empty((len(positions_px), 0))
    return cKDTree(positions_px).query(positions_px, range(2, K + 2))[0]


def _distances(positions_px: Positions, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Distances between positions by index; several times faster than a norm over pairs."""
    y, x = np.ascontiguousarray(positions_px.T)
    return np.hypot(y[first] - y[second], x[first] - x[second])


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if values.size else None
