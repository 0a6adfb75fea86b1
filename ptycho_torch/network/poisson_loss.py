"""The training loss without truth: an object canvas scored on counts, its gradient made on the way.

Autograd through the diffraction of a batch would hold a dozen arrays of all its patterns; here a
chunk of them stays in the cache, and its part of the gradient is made right behind its likelihood
(:func:`ptycho_torch.iteration.slopes.gradient`)."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ptycho_torch.iteration.slopes import gradient
from ptycho_torch.physics.geometry import Patterns


def poisson_loss(
    canvas: Complex[Tensor, "canvases H W"], patterns: Patterns, photons: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Negative log-likelihood of the counts above the saturated model, per detected photon;
    differentiable by the canvas.

    Per photon (`photons`: how many the patterns hold), so that neither the loss nor its gradient
    grows with dose: an optimiser's epsilon would notice."""
    return 0.5 * _Deviance.apply(canvas, patterns) / photons.clamp_min(1.0)


class _Deviance(torch.autograd.Function):
    """Summed Poisson deviance of a canvas; its derivative by conj(canvas) is twice that of the
    likelihood."""

    @staticmethod
    def forward(ctx, canvas: Tensor, patterns: Patterns) -> Tensor:
        slope, deviance = gradient(canvas, patterns, dark=0.0)
        ctx.save_for_backward(slope)
        return deviance.to(slope.real.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, outside: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        return (
            4 * outside * slope,
            None,
        )  # torch's gradient of a real number by a complex one is 2 d / d conj
