"""Patches to one object: their free global phases synchronised, then averaged by how well each pixel was seen.

Far-field counts do not fix the phase of a patch reconstructed by itself. The phases that make overlapping patches agree
are found by the generalised power method (Boumal, SIAM J. Optim. 26, 2355 (2016)): each patch is turned to the mean of
all, the mean is made anew.
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ptycho_torch.patches import cut, in_field, paste

_ROUNDS = 30  # phases of a chain of some 20 patches settle to 1e-3 rad within it


def stitch(patches: Complex[Tensor, "n h w"], corners: Int[Tensor, "n 2"], weights: Float[Tensor, "n h w"],
           shape: tuple[int, int], synchronise: bool = True) -> tuple[Complex[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Weighted mean of patches on an object of `shape`, and the summed weight. Unseen pixels are 1 (empty)."""
    address, canvas_shape = in_field(corners), (1, *shape)
    total = paste(weights, address, canvas_shape)
    phase = torch.ones(len(patches), 1, 1, dtype=patches.dtype, device=patches.device)
    for _ in range(_ROUNDS if synchronise and len(patches) > 1 else 0):
        mean = paste(weights * phase * patches, address, canvas_shape) / total.clamp_min(1e-12)
        overlap = (weights * cut(mean, address, tuple(patches.shape[-2:])) * patches.conj()).sum((-2, -1), keepdim=True)
        phase = torch.exp(1j * torch.angle(overlap))
    merged = paste(weights * phase * patches, address, canvas_shape)[0]
    seen = total[0] > 1e-9 * total.max()
    return torch.where(seen, merged / total[0].clamp_min(1e-30), torch.ones_like(merged)), total[0]
