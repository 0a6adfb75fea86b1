"""Did the probe of a file make its patterns? Told by the patterns alone, without an object.

If the probe is the beam, some object explains the patterns as well as their counts allow. Measured
is R = sum |sqrt n - sqrt I| / sum sqrt n of counts n and what the best object gives under this
probe, I; counts drawn from I itself tell what no beam could avoid. Of the squares' difference:
0 to 0.05 under the true probe, 0.06 at 0.5 rad of wrong defocus, 0.16 to 0.22 at 2 rad (simulated,
1e3 to 1e5 photons); measured stars 0.07 under a recovered probe, 0.27 under the analytic one."""

import numpy as np
import torch

from ptycho_torch.iteration.canvas import canvas_steps, empty
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.noise import amplitude_misfit

WRONG = 0.15  # of the root of the difference of both squares
_PATTERNS = 128  # the nearest to the scan's middle
_STEPS, _SMOOTHNESS = 20, 10.0


@torch.no_grad()
def misfit(raw: RawDataTorch) -> tuple[float, float]:
    """R of a scan's patterns under its probe and the best object, and R of counts drawn from these
    two."""
    away = np.square(raw.scan.positions - np.median(raw.scan.positions, axis=0)).sum(1)
    scan = raw.without_truth().subset(np.sort(np.argsort(away)[:_PATTERNS]))
    patterns = scan.patterns()
    geometry = patterns.geometry
    canvas = canvas_steps(patterns, empty(geometry), _STEPS, smoothness=_SMOOTHNESS)
    chunks = [geometry.expected(canvas, chunk) for chunk in geometry.chunks()]
    expected, counts = torch.cat(chunks).double(), scan.counts(slice(None)).double()
    found, allowed, whole = amplitude_misfit(expected, counts, torch.Generator().manual_seed(0))
    return found / whole, allowed / whole
