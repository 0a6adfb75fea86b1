"""SPLIT-001: training and test halves apart along y, with a guard band that no light crosses."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int

from fly64lib.simulation.probes import Modes, power_radius
from fly64lib.simulation.scans import Positions
from ptycho_torch.errors import ConfigError
from ptycho_torch.physics.geometry import Geometry

_LIT = 0.01  # of the median fluence over the half's scanned rectangle


@dataclass(frozen=True, eq=False)
class GuardedSplit:
    """Indices of both halves and what separates them."""

    train: Int[np.ndarray, " n"]  # positions above the band (large y)
    test: Int[np.ndarray, " m"]  # positions below it
    guard_px: float  # width of the band, twice the radius with the wanted share of the power
    middle_px: float  # its centre
    lit_by_both: int  # object pixels that both halves light; measured, 0

    def __getitem__(self, name: str) -> np.ndarray:
        return {"train": self.train, "test": self.test}[name]


def split_scan(
    positions_px: Positions, probe: Modes, canvas_shape: tuple[int, int], guard_power: float
) -> GuardedSplit:
    """Split a scan of positions (y, x) at the middle of its y range.

    A pixel is lit above 1 % of the median fluence over its half's scanned rectangle. Raises
    ConfigError when a half is empty, or a pixel is lit by both: they are not independent then."""
    guard, y = 2 * power_radius(probe, guard_power), positions_px[:, 0]
    middle = (y.min() + y.max()) / 2
    train, test = np.flatnonzero(y > middle + guard / 2), np.flatnonzero(y < middle - guard / 2)
    if not (len(train) and len(test)):
        raise ConfigError(
            f"a guard band of {guard:.1f} px leaves no positions on one side: the scan is only"
            f" {np.ptp(y):.1f} px high; use a larger scan or a smaller guard_power (now"
            f" {guard_power})"
        )
    lit = [_lit(positions_px[half], probe, canvas_shape) for half in (train, test)]
    both = int((lit[0] & lit[1]).sum())
    if both:
        raise ConfigError(
            f"{both} object pixels are lit by both halves across a guard band of {guard:.1f} px;"
            f" raise guard_power (now {guard_power})"
        )
    return GuardedSplit(train, test, guard, float(middle), both)


def _lit(positions_px: Positions, probe: Modes, shape: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    modes = torch.from_numpy(np.asarray(probe, dtype=np.complex64))
    geometry = Geometry.of(torch.from_numpy(positions_px), modes, shape, whole=True)
    fluence = geometry.fluence()[0].numpy()
    rows, columns = (
        slice(int(np.floor(axis.min())), int(np.ceil(axis.max())) + 1) for axis in positions_px.T
    )
    return fluence > _LIT * np.median(fluence[rows, columns])
