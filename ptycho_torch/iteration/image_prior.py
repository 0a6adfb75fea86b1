"""What images are like before they are measured: a power law of their spectrum.

    log O = a + i phi, Gaussian, independent from frequency to frequency;
    1 / variance of phi at k rad per pixel:   weight (|k|^2 + (2 pi / length)^2)^(slope / 2)
    1 / variance of a:                        amplitude times that
    correlation of a and phi:                 the same everywhere

Amplitude and phase are told apart because most specimens change the one far less than the other:
one weight for both leaves the amplitude in noise or flattens the phase. They are correlated because
a specimen of one material changes both by its thickness (Paganin et al., J. Microsc. 206, 33
(2002)): the phase then helps against noise in the amplitude, and the amplitude tells slow phases,
which a detector tells poorly. A weight is a variance of the object and not of the data, so that
one found on a part of the photons serves all of them."""

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ptycho_torch.iteration.gain import Gain, filtered, inverse, plus

Logs = Float[Tensor, "2 H W"]  # log amplitude and phase, rad
_LEAST = 0.05  # amplitude under the logarithm


@runtime_checkable
class Prior(Protocol):
    """A Gaussian prior of log amplitude and phase that is the same everywhere on the canvas."""

    def precision(self, shape: tuple[int, int], like: Tensor) -> Gain:
        """What is added to the likelihood's curvature at each frequency of `rfft2`."""
        ...


class ImagePrior(NamedTuple):
    """A power law; `weight` in photons per object pixel, at 1 rad per pixel."""

    weight: float
    slope: float = 3.0  # of the falling power, 2 to 4 for what is seen in microscopes
    amplitude: float = 30.0  # how much firmer it holds the log amplitude than the phase
    length_px: float = 100.0  # beyond it the power does not rise
    correlation: float = 0.0  # of log amplitude and phase, above -1 and below 1

    def precision(self, shape: tuple[int, int], like: Tensor) -> Gain:
        """The inverse covariance of log amplitude and phase on the grid of `rfft2`; the frequency
        is that of differences between neighbours, 2 sin(k / 2)."""
        height, width = shape
        place = {"device": like.device, "dtype": like.dtype}
        down = 2 * torch.sin(torch.pi * torch.fft.fftfreq(height, **place))
        right = 2 * torch.sin(torch.pi * torch.fft.rfftfreq(width, **place))
        squared = down[:, None].square() + right.square() + (2 * torch.pi / self.length_px) ** 2
        phase = self.weight * squared ** (self.slope / 2)
        if not self.correlation:
            return torch.stack([self.amplitude * phase, phase])
        beside = -self.correlation * self.amplitude**0.5 * phase
        return torch.stack([self.amplitude * phase, phase, beside]) / (1 - self.correlation**2)


class ProductPrior(NamedTuple):
    """Two priors that hold at once: one about an object that is given, one about an empty one."""

    near: ImagePrior
    image: Prior

    def precision(self, shape: tuple[int, int], like: Tensor) -> Gain:
        """The sum of both."""
        return plus(self.near.precision(shape, like), self.image.precision(shape, like))

    def centre(self, given: Logs) -> Logs:
        """The most likely object under both, where the first is about `given`."""
        shape = given.shape[-2:]
        pulled = filtered(given, self.near.precision(shape, given))
        return filtered(pulled, inverse(self.precision(shape, given)))


def object_of(logs: Logs) -> Complex[Tensor, "1 H W"]:
    """The canvas of log amplitude and phase."""
    return torch.exp(torch.complex(logs[0], logs[1]))[None]


def logs_of(canvas: Complex[Tensor, "1 H W"], fluence: Float[Tensor, "1 H W"]) -> Logs:
    """Log amplitude and unwrapped phase of a canvas; the phase's mean over the photons is zero.

    Unwrapped by least squares of the differences of neighbours (Ghiglia & Romero, J. Opt. Soc. Am.
    A 11, 107 (1994)), then to the nearest whole turn: right where the object is sampled well enough
    that it hardly turns by pi in a pixel. Borders are mirrored: a phase need not close on itself.
    """
    canvas = canvas * torch.exp(-1j * torch.angle((fluence * canvas).sum()))
    wrapped, squared = torch.angle(canvas[0]), torch.zeros(1, 1, device=canvas.device)
    divergence = torch.zeros_like(wrapped)
    for axis, size in enumerate(wrapped.shape):
        step = torch.angle(torch.exp(1j * torch.diff(wrapped, dim=axis)))
        divergence.narrow(axis, 1, size - 1).add_(step)
        divergence.narrow(axis, 0, size - 1).sub_(step)
        k = torch.fft.fftfreq(2 * size, device=canvas.device)
        along = 4 * torch.sin(torch.pi * k).square()
        squared = squared + (along[:, None] if axis == 0 else along)
    squared[0, 0] = torch.inf
    for axis in range(2):
        divergence = torch.cat([divergence, divergence.flip(axis)], axis)
    height, width = wrapped.shape
    smooth = torch.fft.ifft2(torch.fft.fft2(divergence) / squared).real[:height, :width]
    turns = (smooth - wrapped) / (2 * torch.pi)  # whole ones but for a common part
    common = torch.angle(torch.exp(2j * torch.pi * turns).mean()) / (2 * torch.pi)
    phase = wrapped + 2 * torch.pi * torch.round(turns - common)
    return torch.stack([canvas[0].abs().clamp_min(_LEAST).log(), phase])
