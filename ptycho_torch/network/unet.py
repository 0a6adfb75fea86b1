"""The network: a small U-Net on the shared object canvas.

Its input is physics, not patterns: the object solved from the counts under two priors, and how many
photons reached each pixel. Its output is a correction of the object's logarithm: log amplitude + i
phase. One pass serves all patterns on the canvas, so its cost grows with the area and not with the
number of patterns. Nothing in it depends on the canvas's size: no normalisation over pixels."""

from itertools import pairwise

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from ptycho_torch.config import ModelConfig

Channels = Float[Tensor, "canvases channels H W"]


class CanvasUNet(nn.Module):
    """Real channels (canvases, channels, H, W) to a complex correction (canvases, H, W).

    The last layer starts at zero: an untrained network returns the solved canvas, so no start can
    be a flat object."""

    def __init__(self, channels: int, config: ModelConfig):
        super().__init__()
        widths = [config.width * 2**level for level in range(config.depth)]
        steps = list(pairwise(widths))
        self.stem = nn.Conv2d(channels, config.width, 3, padding=1)
        self.down = nn.ModuleList(_Block(width) for width in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in steps)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in steps)
        self.up = nn.ModuleList(_Block(width) for width in widths[:-1])
        self.head = _at_zero(nn.Conv2d(config.width, 2, 1))
        # The order in which convolutions on a CPU are fastest.
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Channels) -> Complex[Tensor, "canvases H W"]:
        height, width = image.shape[-2:]
        step = 2 ** len(self.shrink)
        x = nn.functional.pad(image, (0, -width % step, 0, -height % step), mode="replicate")
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.grow))):
            x = self.up[level](skips[level] + self.grow[level](x))
        x = self.head(nn.functional.silu(x))[..., :height, :width]
        return torch.complex(x[:, 0], x[:, 1])


class _Block(nn.Module):
    """Two 3 x 3 convolutions beside a straight path, which alone is there at first."""

    def __init__(self, width: int):
        super().__init__()
        first, last = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.body = nn.Sequential(nn.SiLU(), first, nn.SiLU(), _at_zero(last))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def _at_zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
