"""Patches of a canvas: cut at integer corners, and paste, its adjoint.

A batch may hold several canvases of one size (say one for each of several scans). A patch is
addressed by (canvas, row, column) of its top-left pixel. Positions are patch centres: top-left =
position - M / 2; the integer part addresses the patch, the rest in [-0.5, 0.5] px shifts the probe,
as in pty-chi."""

import torch
from jaxtyping import Float, Int, Num
from torch import Tensor

from ptycho_torch.errors import DataContractError


def split_positions(
    positions_px: Float[Tensor, "n 2"], M: int
) -> tuple[Int[Tensor, "n 2"], Float[Tensor, "n 2"]]:
    """Integer top-left corners and the sub-pixel rest, both (row, column), of patch centres (y, x)
    in pixels."""
    top_left = positions_px - M / 2
    corners = top_left.round()
    return corners.long(), (top_left - corners).float()


def on_canvas(
    corners: Int[Tensor, "n 2"], canvas: int | Int[Tensor, " n"] = 0
) -> Int[Tensor, "n 3"]:
    """(canvas, row, column) addresses from corners."""
    number = torch.as_tensor(canvas, device=corners.device).expand(len(corners))
    return torch.cat([number[:, None].to(corners.dtype), corners], dim=1)


def cut(
    canvas: Num[Tensor, "canvases H W"], address: Int[Tensor, "n 3"], size: int | tuple[int, int]
) -> Num[Tensor, "n h w"]:
    """Patches canvas[number, row:row+h, column:column+w] of `size` (h, w) px; its gradient is
    :func:`paste`."""
    size = (size, size) if isinstance(size, int) else size
    _check_inside(address, canvas.shape, size)
    return _Cut.apply(canvas, address, size)


def paste(
    patches: Num[Tensor, "n h w"], address: Int[Tensor, "n 3"], shape: tuple[int, int, int]
) -> Num[Tensor, "canvases H W"]:
    """Sum of patches at their addresses, the adjoint of :func:`cut`."""
    _check_inside(address, shape, tuple(patches.shape[-2:]))
    return _paste(patches, address, shape)


def _check_inside(address: Tensor, shape: tuple[int, ...], size: tuple[int, int]) -> None:
    canvases, height, width = shape
    limit = torch.tensor([canvases - 1, height - size[0], width - size[1]], device=address.device)
    if ((address < 0) | (address > limit)).any():
        raise DataContractError(
            f"a patch of {size[0]} x {size[1]} px leaves the canvas of {canvases} x {height} x"
            f" {width} px: corners run from {address.amin(0).tolist()} to"
            f" {address.amax(0).tolist()}, the last that fits is {limit.tolist()}"
        )


def _paste(patches: Tensor, address: Tensor, shape: tuple[int, ...]) -> Num[Tensor, "canvases H W"]:
    if patches.device.type != "cpu" or (patches.requires_grad and torch.is_grad_enabled()):
        return _paste_by_index(patches, address, shape)
    # The same sums in the same order in half the time: no index per pixel.
    canvas = torch.zeros(tuple(shape), dtype=patches.dtype)
    (rows, columns), whole = patches.shape[-2:], canvas.numpy()
    for patch, (number, row, column) in zip(
        patches.detach().resolve_conj().numpy(), address.tolist(), strict=True
    ):
        whole[number, row : row + rows, column : column + columns] += patch
    return canvas


def _paste_by_index(
    patches: Tensor, address: Tensor, shape: tuple[int, ...]
) -> Num[Tensor, "canvases H W"]:
    canvases, height, width = shape
    rows, columns = (torch.arange(length, device=address.device) for length in patches.shape[-2:])
    base = (address[:, 0] * height + address[:, 1]) * width + address[:, 2]
    index = base[:, None, None] + rows[:, None] * width + columns
    flat = torch.zeros(canvases * height * width, dtype=patches.dtype, device=patches.device)
    return flat.index_add_(0, index.reshape(-1), patches.reshape(-1)).view(tuple(shape))


class _Cut(torch.autograd.Function):
    """Gather from a view of all windows, with scatter-add as gradient: autograd's own would unfold
    the whole canvas."""

    @staticmethod
    def forward(ctx, canvas: Tensor, address: Tensor, size: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(address)
        ctx.shape = canvas.shape
        (canvases, height, width), (rows, columns) = canvas.shape, size
        windows = canvas.contiguous().as_strided(
            (canvases, height - rows + 1, width - columns + 1, rows, columns),
            (height * width, width, 1, width, 1),
        )
        return windows[address[:, 0], address[:, 1], address[:, 2]]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (address,) = ctx.saved_tensors
        return _paste(gradient, address, ctx.shape), None, None
