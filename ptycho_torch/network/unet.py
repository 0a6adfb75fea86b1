"""The network: a small U-Net on the shared object canvas.

Its input is physics, not patterns: what a few accelerated canvas steps
(:mod:`ptycho_torch.iteration.canvas`) make of the counts, and how many photons reached each pixel.
Its output is a complex correction of the last of these canvases. One pass serves all patterns on
the canvas, so its cost grows with the area and not with the number of patterns."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

_GROUPS = 8


class CanvasUNet(nn.Module):
    """Features (fields, channels, H, W) to a complex correction (fields, H, W), for any H and W.

    The last layer starts at zero: an untrained network returns the canvas of the steps, so no start
    can be a flat object."""

    def __init__(self, features: int, width: int = 16, depth: int = 3):
        super().__init__()
        widths = [width * 2**level for level in range(depth)]
        self.stem = nn.Conv2d(features, width, 3, padding=1)
        self.down = nn.ModuleList(_Block(w, w) for w in widths)
        self.shrink = nn.ModuleList(
            nn.Conv2d(a, b, 2, stride=2) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.up = nn.ModuleList(_Block(w, w) for w in widths[:-1])
        self.head = nn.Conv2d(width, 2, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.to(
            memory_format=torch.channels_last
        )  # the order in which convolutions on a CPU are fastest

    def forward(
        self, features: Float[Tensor, "fields channels H W"]
    ) -> Complex[Tensor, "fields H W"]:
        height, width = features.shape[-2:]
        step = 2 ** len(self.shrink)
        x = nn.functional.pad(features, (0, -width % step, 0, -height % step), mode="replicate")
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for level, block in enumerate(self.down):
            x = block(x)
            if level < len(self.shrink):
                skips.append(x)
                x = self.shrink[level](x)
        for level in reversed(range(len(self.grow))):
            x = self.up[level](skips[level] + self.grow[level](x))
        x = self.head(x)[..., :height, :width]
        return torch.complex(x[:, 0], x[:, 1])


class _Block(nn.Module):
    """Two 3 x 3 convolutions with a residual path."""

    def __init__(self, inside: int, outside: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, padding=1),
            nn.GroupNorm(_GROUPS, outside),
            nn.SiLU(),
            nn.Conv2d(outside, outside, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(x + self.body(x))
