"""Nesterov's momentum with gradient restart (O'Donoghue & Candes, Found. Comput. Math. 15 (2015)).

The momentum of a step starts anew where the last step led uphill: along the gradient."""

from collections.abc import Sequence

import torch
from torch import Tensor

Point = tuple[Tensor, ...]


class Nesterov:
    """An accelerated iteration on one or more tensors that move together.

    `at` is the point that the next gradient is taken at, `reached` the one that is the result.
    `momentum` holds a 1 for each part that restarts by itself, say for each of several canvases."""

    def __init__(self, start: Point, momentum: Tensor) -> None:
        self.reached = self.at = start
        self.momentum = momentum

    def move(self, slopes: Sequence[Tensor], following: Point) -> None:
        """Go on to `following`, which a step against `slopes` from `at` has given."""
        uphill = sum(
            self._sum((slope.conj() * (after - before)).real)
            for slope, after, before in zip(slopes, following, self.reached, strict=True)
        )
        momentum = torch.where(uphill > 0, 1.0, self.momentum)
        grown = (1 + (1 + 4 * momentum**2).sqrt()) / 2
        ahead = (momentum - 1) / grown
        self.at = tuple(
            after + ahead * (after - before)
            for after, before in zip(following, self.reached, strict=True)
        )
        self.reached, self.momentum = following, grown

    def scale(self, part: int, factor: Tensor) -> None:
        """Multiply one of the tensors, where a scale moved between it and something else."""
        for name in ("reached", "at"):
            point = list(getattr(self, name))
            point[part] = point[part] * factor
            setattr(self, name, tuple(point))

    def _sum(self, values: Tensor) -> Tensor:
        """Over what shares one momentum."""
        return values.sum((-2, -1), keepdim=True) if self.momentum.ndim else values.sum()
