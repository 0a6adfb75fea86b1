"""What multiplies log amplitude and phase at each frequency, on a canvas that closes on itself.

At each frequency of `rfft2` stands a symmetric matrix for the two: its diagonal, and where they are
coupled a third number, what stands beside the diagonal."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

Gain = Float[Tensor, "parts H K"]  # parts: 2, or 3 where amplitude and phase are coupled


def filtered(logs: Float[Tensor, "2 H W"], gain: Gain) -> Float[Tensor, "2 H W"]:
    """Log amplitude and phase times a gain."""
    return torch.fft.irfft2(_times(gain, torch.fft.rfft2(logs)), s=logs.shape[-2:])


def plus(one: Gain, other: Gain) -> Gain:
    """The sum of two gains."""
    if len(one) < len(other):
        one, other = other, one
    return torch.cat([one[:2] + other[:2], one[2:] + other[2:] if len(other) == 3 else one[2:]])


def inverse(gain: Gain) -> Gain:
    """The inverse of each matrix."""
    if len(gain) == 2:
        return gain.reciprocal()
    determinant = gain[0] * gain[1] - gain[2].square()
    return torch.stack([gain[1], gain[0], -gain[2]]) / determinant


def rooted(white: Float[Tensor, "2 H W"], gain: Gain) -> Float[Tensor, "2 H W"]:
    """White noise made into noise whose covariance is the gain, by its Cholesky factor."""
    spectrum, root = torch.fft.rfft2(white), gain[:2].sqrt()
    if len(gain) == 3:
        along = gain[2] / root[0].clamp_min(torch.finfo(root.dtype).tiny)
        alone = (gain[1] - along.square()).clamp_min(0).sqrt()
        spectrum = torch.stack([root[0] * spectrum[0], along * spectrum[0] + alone * spectrum[1]])
    else:
        spectrum = root * spectrum
    return torch.fft.irfft2(spectrum, s=white.shape[-2:])


def _times(gain: Gain, spectrum: Complex[Tensor, "2 H K"]) -> Complex[Tensor, "2 H K"]:
    own = gain[:2] * spectrum
    return own if len(gain) == 2 else own + gain[2] * spectrum.flip(0)
