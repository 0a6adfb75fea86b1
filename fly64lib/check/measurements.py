"""What is measured of a scan that keeps the contract, before anything is judged."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.ndimage import find_objects, label
from scipy.spatial import Delaunay, QhullError

from fly64lib.simulation.overlap_measures import fluence_map, nearest_distances
from fly64lib.simulation.probes import outer_half_maximum_diameter
from ptycho_torch.data import count_statistics
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import DataContractError
from ptycho_torch.physics.geometry import Geometry

SAMPLE = 128  # patterns that are calculated from the file's object and probe
UNEVEN_FACTOR, UNEVEN_SIGMA = 2.0, 10.0  # of a pattern's photons to the median's
DARK, HOLE_PX = 0.1, 16  # of the median fluence; smallest hole in the coverage, object pixels


@dataclass(frozen=True, eq=False)
class Measurements:
    """A scan and what follows from it; each quantity is measured once, when it is asked for."""

    source: Path
    scan: ScanData

    @cached_property
    def counts(self) -> count_statistics.CountStatistics:
        return count_statistics.count_statistics(self.scan.diffraction)

    @cached_property
    def sample(self) -> Int[np.ndarray, " k"]:
        """Indices of the patterns that are compared with calculated ones."""
        n = self.scan.n
        return np.unique(np.linspace(0, n - 1, min(SAMPLE, n)).astype(int))

    @cached_property
    def measured(self) -> Float[np.ndarray, "k N N"]:
        """Counts of the sample."""
        return np.square(np.asarray(self.scan.diffraction[self.sample]), dtype=np.float64)

    @cached_property
    def modelled(self) -> Float[np.ndarray, "k N N"]:
        """Expected counts of the sample from the file's object and probe."""
        scan = self.scan
        canvas = torch.from_numpy(np.ascontiguousarray(scan.object_guess))[None]
        positions = torch.from_numpy(scan.positions[self.sample])
        probe = torch.from_numpy(scan.probe)
        geometry = Geometry.of(positions, probe, scan.canvas_shape, whole=True)
        expected = [geometry.expected(canvas, chunk) for chunk in geometry.chunks()]
        return torch.cat(expected).numpy().astype(np.float64)

    @cached_property
    def model(self) -> Float[np.ndarray, "N N"]:
        """Mean of the calculated patterns."""
        return self.modelled.mean(0)

    @cached_property
    def uneven(self) -> Int[np.ndarray, " patterns"]:
        """Indices of patterns whose photons are far off the median's, beyond noise."""
        photons, median = self.counts.photons, float(np.median(self.counts.photons))
        off = (photons < median / UNEVEN_FACTOR) | (photons > median * UNEVEN_FACTOR)
        return np.flatnonzero(off & (np.abs(photons - median) > UNEVEN_SIGMA * np.sqrt(median)))

    @cached_property
    def dead(self) -> Int[np.ndarray, "pixels 2"]:
        return count_statistics.dead_pixels(self.counts, self.model)

    @cached_property
    def hot(self) -> Int[np.ndarray, "pixels 2"]:
        return count_statistics.hot_pixels(self.counts, self.model)

    @cached_property
    def saturated(self) -> tuple[float, int] | None:
        """(count at which the detector saturates, number of values there), or None."""
        return count_statistics.saturation(self.counts)

    @cached_property
    def offset_px(self) -> tuple[float, float]:
        """(rows, columns) by which the mean pattern lies off the calculated one."""
        return count_statistics.centre_offset(self.measured.mean(0), self.model)

    @cached_property
    def probe_photons(self) -> float:
        return float(np.square(np.abs(self.scan.probe), dtype=np.float64).sum())

    @cached_property
    def edge(self) -> tuple[float | None, str]:
        """The probe's diameter in px; or None, and why it has no edge within its window."""
        try:
            return outer_half_maximum_diameter(self.scan.probe), ""
        except DataContractError as error:
            return None, str(error)

    @cached_property
    def nearest_px(self) -> Float[np.ndarray, " n"]:
        """Distance from each position to the nearest other one; empty for a single one."""
        return nearest_distances(self.scan.positions, 1).ravel()

    @cached_property
    def fluence(self) -> Float[np.ndarray, "H W"]:
        """Photons per object pixel."""
        return fluence_map(self.scan.positions, self.scan.probe, self.scan.canvas_shape)

    @cached_property
    def inside(self) -> Bool[np.ndarray, "H W"]:
        """Pixels within the convex hull of the positions; for positions on a line, those nearest to
        it."""
        positions, shape = self.scan.positions, self.scan.canvas_shape
        grid = np.indices(shape).reshape(2, -1).T
        try:
            return (Delaunay(positions).find_simplex(grid) >= 0).reshape(shape)
        except (QhullError, ValueError):  # fewer than three positions, or all on a line
            inside = np.zeros(shape, bool)
            inside[tuple(np.clip(np.rint(positions).astype(int), 0, np.array(shape) - 1).T)] = True
            return inside

    @cached_property
    def holes(self) -> tuple[Bool[np.ndarray, "H W"], list[tuple[int, int, int]]]:
        """Dark regions of at least HOLE_PX within the hull, and (pixels, middle row, middle column)
        of each."""
        dark = self.inside & (self.fluence < DARK * np.median(self.fluence[self.inside]))
        regions, _ = label(dark)
        holes, sizes = np.zeros_like(dark), []
        for number, box in enumerate(find_objects(regions), 1):
            region = regions[box] == number
            if region.sum() >= HOLE_PX:
                holes[box] |= region
                middle = (int((side.start + side.stop) // 2) for side in box)
                sizes.append((int(region.sum()), *middle))
        return holes, sizes
