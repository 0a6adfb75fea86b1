"""Patches to one object: their free global phases synchronised, then averaged by how well each
pixel was seen.

Far-field counts do not fix the phase of a patch reconstructed by itself. Patches are laid one by
one, each turned to agree with those under it, always the one nearest to a laid one (Prim's spanning
tree). What noise has added up along the way is then evened out by the generalised power method
(Boumal, SIAM J. Optim. 26, 2355 (2016)): each patch is turned to the mean of all, the mean is made
anew. Alone, from random phases, that method ends in vortices of the phase."""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from ptycho_torch.physics.patches import cut, in_field, paste

# they even out noise over some sqrt(rounds) patches; from the start by Prim's tree more gains under
# 1 %
_ROUNDS = 10


def stitch(
    patches: Complex[Tensor, "n h w"],
    corners: Int[Tensor, "n 2"],
    weights: Float[Tensor, "n h w"],
    shape: tuple[int, int],
    synchronise: bool = True,
) -> tuple[Complex[Tensor, "H W"], Float[Tensor, "H W"]]:
    """Weighted mean of patches on an object of `shape`, and the summed weight. Unseen pixels are 1
    (empty)."""
    address, canvas_shape = in_field(corners), (1, *shape)
    total = paste(weights, address, canvas_shape)
    phase = torch.ones(len(patches), 1, 1, dtype=patches.dtype, device=patches.device)
    if synchronise and len(patches) > 1:
        phase = _laid_one_by_one(patches, corners, weights, shape)
    for _ in range(_ROUNDS if synchronise and len(patches) > 1 else 0):
        mean = paste(weights * phase * patches, address, canvas_shape) / total.clamp_min(1e-12)
        overlap = (weights * cut(mean, address, tuple(patches.shape[-2:])) * patches.conj()).sum(
            (-2, -1), keepdim=True
        )
        phase = torch.exp(1j * torch.angle(overlap))
    merged = paste(weights * phase * patches, address, canvas_shape)[0]
    seen = total[0] > 1e-9 * total.max()
    return torch.where(seen, merged / total[0].clamp_min(1e-30), torch.ones_like(merged)), total[0]


def _laid_one_by_one(
    patches: Complex[Tensor, "n h w"],
    corners: Int[Tensor, "n 2"],
    weights: Float[Tensor, "n h w"],
    shape: tuple[int, int],
) -> Complex[Tensor, "n 1 1"]:
    """Phases that turn every patch to those laid before it; where it overlaps none, it stays."""
    height, width = patches.shape[-2:]
    laid = torch.zeros(shape, dtype=patches.dtype, device=patches.device)
    phase = torch.ones(len(patches), 1, 1, dtype=patches.dtype, device=patches.device)
    distance = torch.full(
        (len(patches),), torch.inf, device=patches.device
    )  # to the nearest laid patch, squared
    waiting = torch.ones(len(patches), dtype=torch.bool, device=patches.device)
    following = 0
    for _ in range(len(patches)):
        row, column = corners[following].tolist()
        under = laid[row : row + height, column : column + width]
        overlap = (weights[following] * under * patches[following].conj()).sum()
        phase[following] = torch.exp(1j * torch.angle(overlap))
        under += weights[following] * phase[following] * patches[following]
        waiting[following] = False
        distance = torch.minimum(distance, (corners - corners[following]).square().sum(1))
        following = int(torch.where(waiting, distance, torch.inf).argmin())
    return phase
