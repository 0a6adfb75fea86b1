"""Reference rows: the flat object, which every method has to beat, and the truth, which none
can."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fly64lib.methods.base import MethodResult, measured
from ptycho_torch.data.contract import read_scan
from ptycho_torch.errors import DataContractError


@dataclass(frozen=True)
class Flat:
    """An empty beam path, 1 everywhere: what knowing nothing gives."""

    name = "flat"

    def reconstruct(self, dataset: Path) -> MethodResult:
        """Ones on the file's canvas."""
        with measured() as cost:
            canvas = np.ones(read_scan(dataset).canvas_shape, np.complex64)
        return MethodResult(
            canvas,
            None,
            [],
            cost.seconds,
            cost.cpu_seconds,
            cost.peak_memory_mb,
            {},
            "the empty object",
        )


@dataclass(frozen=True)
class Truth:
    """The object that the data were simulated from."""

    name = "truth"

    def reconstruct(self, dataset: Path) -> MethodResult:
        """`objectGuess`, if the file says that it is the truth; :class:`DataContractError` for any
        other object."""
        with measured() as cost:
            scan = read_scan(dataset)
        kind = scan.metadata.get("object_kind", "not stated")
        if kind != "truth":
            raise DataContractError(
                f"{dataset}: its object_kind is {kind!r}, so it cannot stand as 'truth'; measured"
                " data have none: compare the methods in data space"
            )
        return MethodResult(
            scan.object_guess,
            None,
            [],
            cost.seconds,
            cost.cpu_seconds,
            cost.peak_memory_mb,
            {},
            "the true object",
        )
