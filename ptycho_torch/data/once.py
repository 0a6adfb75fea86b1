"""What methods make of one scan, each thing once.

Methods that follow each other on a scan need the same parts of its photons, the same solved canvas,
the same search for a prior. The first makes them; for the others the time is counted that they were
spared, so that each can state what it costs alone."""

import time
from collections.abc import Callable, Hashable
from typing import Any


class Once:
    """A memory of what was made, and of the time that it has spared so far.

    One that is made `within` another adds what it spares to that one's sum."""

    def __init__(self, within: "Once | None" = None) -> None:
        self._made: dict[Hashable, tuple[Any, tuple[float, float]]] = {}
        self._spared: list[float] = [0.0, 0.0] if within is None else within._spared

    @property
    def spared(self) -> tuple[float, float]:
        """Wall and CPU seconds of the first making, summed over each time a thing was had again."""
        wall, cpu = self._spared
        return wall, cpu

    def __call__(self, name: Hashable, make: Callable[[], Any]) -> Any:
        """What `make` gives, at the first call; later, what it gave then."""
        if name in self._made:
            made, took = self._made[name]
            self._spared[:] = [a + b for a, b in zip(self._spared, took, strict=True)]
            return made
        before, wall, cpu = self.spared, time.perf_counter(), time.process_time()
        made = make()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        inner = [now - then for now, then in zip(self.spared, before, strict=True)]
        self._made[name] = made, (wall + inner[0], cpu + inner[1])
        return made
