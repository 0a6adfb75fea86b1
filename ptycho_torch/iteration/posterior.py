"""How far the most likely object may be off: the posterior about it, sampled.

Near its maximum the posterior of log O is Gaussian with the precision 2 (H + C), H the Fisher
information of the counts and C the prior's precision (Laplace). A sample solves
(H + C) d = noise of that very covariance, made of one random number for each detector pixel and one
for each frequency (perturb and solve; Papandreou & Yuille, NIPS 2010)."""

import torch
from jaxtyping import Float
from torch import Tensor

from ptycho_torch.iteration.gain import rooted
from ptycho_torch.iteration.image_prior import Logs, Prior
from ptycho_torch.iteration.newton import Newton

SAMPLES = 12
_STEPS = 12  # conjugate gradient steps of a sample
_BLUR_PX = 2.0  # rms over which a few samples' squares are averaged


def deviations(
    newton: Newton, logs: Logs, prior: Prior, samples: int = SAMPLES, seed: int = 0
) -> Logs:
    """Standard deviations of log amplitude and phase about `logs`, the most likely under `prior`;
    the global phase, which no data fix, is taken out of each sample."""
    generator = torch.Generator().manual_seed(seed)
    here, precision = newton.about(logs), prior.precision(newton.shape, logs)
    total = torch.zeros_like(logs)
    fluence = newton.fluence / newton.fluence.sum()
    for _ in range(samples):
        white = torch.randn(logs.shape, generator=generator).to(logs)
        noise = rooted(white, precision) + here.noise(generator)
        found = here.solve(noise / 2**0.5, precision, _STEPS)
        found[1] -= (found[1] * fluence).sum()
        total += found.square()
    return _blurred(total / samples).sqrt()


def _blurred(image: Float[Tensor, "2 H W"]) -> Float[Tensor, "2 H W"]:
    """Smoothed by a Gaussian, on a canvas that closes on itself."""
    sides = [torch.fft.fftfreq(image.shape[1]), torch.fft.rfftfreq(image.shape[2])]
    squared = sides[0][:, None].square() + sides[1].square()
    gain = torch.exp(-2 * (torch.pi * _BLUR_PX) ** 2 * squared).to(image)
    return torch.fft.irfft2(torch.fft.rfft2(image) * gain, s=image.shape[1:]).clamp_min(0)
