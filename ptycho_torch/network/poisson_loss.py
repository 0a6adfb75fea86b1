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
    """Negative log-likelihood of the counts above the saturated model, per detected photon.

    Per photon (the patterns hold `photons`) neither it nor its gradient, by the canvas, grows with
    dose: an optimiser's epsilon would notice."""
    return 0.5 * _Deviance.apply(canvas, patterns) / photons.clamp_min(1.0)


class _Deviance(torch.autograd.Function):
    """Summed Poisson deviance of a canvas, twice the negative log-likelihood."""

    @staticmethod
    def forward(ctx, canvas: Tensor, patterns: Patterns) -> Tensor:
        slope, deviance = gradient(canvas, patterns, dark=0.0)
        ctx.save_for_backward(slope)
        return deviance.to(slope.real.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, outside: Tensor) -> tuple[Tensor, None]:
        (slope,) = ctx.saved_tensors
        # torch's gradient of a real number by a complex one is 2 d / d conj; of a deviance, whose
        # derivative is twice the likelihood's, that is four slopes
        return 4 * outside * slope, None
