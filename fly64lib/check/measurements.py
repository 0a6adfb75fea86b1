"""What is measured of a scan that keeps the contract, before anything is judged."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import find_objects, label
from scipy.spatial import Delaunay, QhullError

from fly64lib.formats.fit import better_scale, part_of, position_error, worst_fit
from fly64lib.formats.outliers import outliers
from fly64lib.simulation.overlap_measures import fluence_map, nearest_distances
from fly64lib.simulation.probes import outer_half_maximum_diameter
from ptycho_torch.data import count_statistics
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import DataContractError
from ptycho_torch.memmap_bridge import RawDataTorch

# most patterns, and pixels of them, that are calculated from the file's object and probe
SAMPLE, SAMPLE_PIXELS = 128, 2**20
UNEVEN_FACTOR, UNEVEN_SIGMA = 2.0, 10.0  # of a pattern's photons to the median's
Mask = Bool[np.ndarray, "H W"]
DARK, HOLE_PX = 0.1, 16  # of the median fluence; smallest hole in the coverage, object pixels


class Measurements:
    """A scan and what follows from it, measured once."""

    def __init__(self, source: Path, scan: ScanData) -> None:
        self.source, self.scan, positions, shape = source, scan, scan.positions, scan.canvas_shape
        self.counts = counts = count_statistics.count_statistics(scan.diffraction)
        # of some patterns (k, N, N): counts, and those expected from the file's object and probe
        most = min(SAMPLE, scan.n, max(16, SAMPLE_PIXELS // scan.N**2))
        sample = np.unique(np.linspace(0, scan.n - 1, most).astype(int))
        self.measured = np.square(np.asarray(scan.diffraction[sample]), dtype=np.float64)
        self.modelled = _modelled(scan, sample)
        model = self.modelled.mean(0)
        # (pixels, 2) row and column
        self.dead = count_statistics.dead_pixels(counts, model)
        self.hot = count_statistics.hot_pixels(counts, model)
        # (count at which the detector saturates, number of values there), or None
        self.saturated = count_statistics.saturation(counts)
        # (rows, columns) by which the mean pattern lies off the calculated one
        self.offset_px = count_statistics.centre_offset(self.measured.mean(0), model)
        # indices of patterns whose photons are far off the median's, beyond noise
        photons, median = counts.photons, float(np.median(counts.photons))
        off = (photons < median / UNEVEN_FACTOR) | (photons > median * UNEVEN_FACTOR)
        beyond = np.abs(photons - median) > UNEVEN_SIGMA * np.sqrt(median)
        self.uneven: Int[np.ndarray, " patterns"] = np.flatnonzero(off & beyond)
        self.probe_photons = float(np.square(np.abs(scan.probe), dtype=np.float64).sum())
        # the probe's diameter in px; or None, and why it has no edge within its window
        self.diameter_px, self.no_edge = None, ""
        try:
            self.diameter_px = outer_half_maximum_diameter(scan.probe)
        except DataContractError as error:
            self.no_edge = str(error)
        # from each position to the nearest other one; empty for a single one
        self.nearest_px: Float[np.ndarray, " n"] = nearest_distances(positions, 1).ravel()
        # photons per object pixel (H, W), and within the hull: what is dark, and where
        # numbers of positions apart from all others; only the others set what is looked at
        self.outliers: Int[np.ndarray, " k"] = outliers(positions, scan.M)
        positions = np.delete(positions, self.outliers, axis=0)
        low = np.maximum(np.floor(positions.min(0) - scan.M / 2 - 1), 0).astype(int)
        high = np.minimum(np.ceil(positions.max(0) + scan.M / 2 + 1), shape).astype(int)
        box, size = tuple(map(slice, low, high)), tuple((high - low).tolist())
        self.fluence, self.inside = np.zeros(shape), np.zeros(shape, bool)
        self.fluence[box] = fluence_map(positions - low, scan.probe, size)
        self.inside[box] = _hull(positions - low, size)
        # how well patterns and positions fit together, whatever the stored object
        part = part_of(scan)
        self.fit = worst_fit(scan, part=part)
        # times which the positions fit clearly better; None: times no factor
        self.scale = better_scale(scan, self.fit, part)
        # by which they are off, object px rms, where no such factor is wrong; None: not told
        self.position_error = None if self.scale else position_error(scan, self.fit, part)
        dark = self.inside & (self.fluence < DARK * np.median(self.fluence[self.inside]))
        self.holes = _large_regions(dark)


def _modelled(scan: ScanData, sample: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k N N"]:
    """Expected counts of these patterns."""
    held = RawDataTorch(scan, "the scan")
    geometry, canvas = held.geometry(sample, whole=True), held.object_guess[None]
    expected = [geometry.expected(canvas, chunk) for chunk in geometry.chunks()]
    return torch.cat(expected).numpy().astype(np.float64)


def _hull(positions: Float[np.ndarray, "n 2"], shape: tuple[int, int]) -> Mask:
    """Pixels within the convex hull; for positions on a line, those nearest to it."""
    try:
        grid = np.indices(shape).reshape(2, -1).T
        return (Delaunay(positions).find_simplex(grid) >= 0).reshape(shape)
    except (QhullError, ValueError):  # fewer than three positions, or all on a line
        inside = np.zeros(shape, bool)
        inside[tuple(np.clip(np.rint(positions).astype(int), 0, np.array(shape) - 1).T)] = True
        return inside


def _large_regions(dark: Mask) -> tuple[Mask, list[tuple[int, int, int]]]:
    """Regions of at least HOLE_PX, and (pixels, middle row, middle column) of each."""
    regions, sizes = label(dark)[0], []
    areas = np.bincount(regions[dark], minlength=1)
    for area, box in zip(areas[1:], find_objects(regions), strict=True):
        if area >= HOLE_PX:
            sizes.append((int(area), *(int((side.start + side.stop) // 2) for side in box)))
    return (areas >= HOLE_PX)[regions], sizes
