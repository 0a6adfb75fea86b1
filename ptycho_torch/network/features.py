"""The network's input: the object solved from the counts under two priors, on the canvas of a scan.

A loose prior leaves details and noise, a firm one takes both away; what differs between them, and
how many photons reached each pixel, tells the network what to trust."""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ptycho_torch.iteration.image_prior import ImagePrior, Logs, object_of
from ptycho_torch.iteration.newton import Newton, start
from ptycho_torch.physics.geometry import Patterns

LOOSE, FIRM = ImagePrior(3.0, slope=3.0), ImagePrior(30.0, slope=4.0)
_FIRM_STEPS, _LOOSE_STEPS = (8, 8), (6,)  # conjugate gradient steps, the firm one first
CHANNELS = 5


class Features(NamedTuple):
    """Input of the network for a stack of canvases."""

    # log amplitude and phase under the loose and the firm prior, log fluence
    channels: Float[Tensor, "canvases 5 H W"]

    @property
    def base(self) -> Complex[Tensor, "canvases H W"]:
        """The canvases under the firm prior, which the network corrects."""
        return torch.exp(torch.complex(self.channels[:, 2], self.channels[:, 3]))


def make_features(patterns: Patterns) -> Features:
    """Solved objects and log10 of the fluence, of the patterns of one canvas.

    The patterns' probe carries their photons (a thinned pattern comes with a fainter probe). The
    global phase of each canvas is taken out, so that the network need not know it."""
    newton = Newton(patterns)
    firm = newton.solve(start(patterns), FIRM, _FIRM_STEPS)
    loose = newton.solve(firm, LOOSE, _LOOSE_STEPS)
    fluence = patterns.geometry.fluence()
    stages = [_levelled(logs, fluence) for logs in (loose, firm)]
    return Features(torch.cat([*stages, torch.log10(fluence + 0.1) / 2])[None])


def _levelled(logs: Logs, fluence: Float[Tensor, "1 H W"]) -> Logs:
    """Without the global phase of the canvas."""
    phase = torch.angle((fluence * object_of(logs)).sum())
    return torch.stack([logs[0], logs[1] - phase])


def fluence_of(channels: Float[Tensor, "canvases channels H W"]) -> Float[Tensor, "canvases H W"]:
    """Photons per object pixel, from the last channel of :class:`Features`."""
    return (10 ** (2 * channels[:, -1]) - 0.1).clamp_min(0)
