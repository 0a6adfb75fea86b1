"""How far positions that were found lie from those that are stated.

A shift that all of them share is one of the object, and is left out."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_LEAST_PX = 1e-3  # less is rounding

Positions = Float[np.ndarray, "n 2"]


class Moves(NamedTuple):
    """Steps from stated to found positions, one an exposure, px of the object."""

    stated_px: Positions  # (row, column)
    steps_px: Positions  # without what they share

    @property
    def rms_px(self) -> float:
        """Root of the mean squared length."""
        return float(np.sqrt(np.square(self.steps_px).sum(1).mean()))

    @property
    def farthest(self) -> int:
        """The exposure that moved most."""
        return int(np.hypot(*self.steps_px.T).argmax())

    @property
    def most_px(self) -> float:
        """Its length."""
        return float(np.hypot(*self.steps_px[self.farthest]))

    def __str__(self) -> str:
        return (
            f"positions moved by {self.rms_px:.2g} px of the object (rms), by {self.most_px:.2g} px"
            f" at most (exposure {self.farthest})"
        )


def moves(stated_px: Positions, found_px: Positions) -> Moves | None:
    """The steps between positions (n, 2) on one grid; None where none moved beside the others."""
    away = found_px - stated_px
    steps = away - away.mean(0)
    return Moves(stated_px, steps) if np.abs(steps).max() > _LEAST_PX else None
