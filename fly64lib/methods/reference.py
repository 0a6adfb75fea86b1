"""Reference rows: the flat object, which every method has to beat, and the truth."""

from typing import ClassVar

import numpy as np

from fly64lib.methods.base import MethodResult, Scan, measured
from ptycho_torch.errors import DataContractError
from ptycho_torch.fields import config


@config
class Flat:
    """1 everywhere: what knowing nothing scores; a method has to beat it"""

    def reconstruct(self, scan: Scan) -> MethodResult:
        """Ones on the scan's canvas."""
        with measured() as cost:
            canvas = np.ones(scan.scan.canvas_shape, np.complex64)
        return MethodResult(canvas, cost=cost, note="the empty object")


@config
class Truth:
    """the object that was simulated"""

    sees_truth: ClassVar[bool] = True

    def reconstruct(self, scan: Scan) -> MethodResult:
        """`objectGuess`; :class:`DataContractError` unless the file says that it is the truth."""
        with measured() as cost:
            kind = scan.metadata.get("object_kind", "not stated")
        if kind != "truth":
            text = f"{scan.source}: its object_kind is {kind!r}, so it cannot stand as 'truth'"
            text += "; measured data have none: compare the methods in data space"
            raise DataContractError(text)
        return MethodResult(scan.scan.object_guess, cost=cost, note="the true object")
