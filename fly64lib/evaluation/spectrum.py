"""Power spectra of a class of specimens, and how its amplitude and phase go together: the prior of
the Bayesian reference."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from fly64lib.evaluation import rings
from fly64lib.evaluation.metrics import Object, Pair
from ptycho_torch.errors import DataContractError

# Of a class's largest power density: a ring without any would count as known exactly.
_LEAST_POWER = 1e-7

_MOST_COHERENCE = 0.999  # of amplitude and phase: with 1 the one would be known from the other

Densities = Float[np.ndarray, "3 H W"]  # of amplitude, of phase, and their cross density


class ClassSpectrum(NamedTuple):
    """Mean power density of a class; its mean over an image's frequencies is the pixel variance."""

    frequency: rings.Rings  # fraction of Nyquist, 0 .. sqrt(2)
    amplitude: rings.Rings  # of |O|
    phase: rings.Rings  # of the unwrapped arg O, rad^2
    cross: rings.Rings  # real part of their cross density: the mean of |O|'s times the phase's

    def on_grid(self, shape: tuple[int, int]) -> Densities:
        """At every frequency of an FFT grid, between rings log-linear for the powers and linear for
        the coherence."""
        floor = _LEAST_POWER * max(self.amplitude.max(), self.phase.max())
        own = [np.maximum(power, floor) for power in (self.amplitude, self.phase)]
        coherence = np.clip(
            self.cross / np.sqrt(own[0] * own[1]), -_MOST_COHERENCE, _MOST_COHERENCE
        )
        at = rings.frequencies(shape)
        powers = [np.exp(np.interp(at, self.frequency, np.log(power))) for power in own]
        cross = np.interp(at, self.frequency, coherence) * np.sqrt(powers[0] * powers[1])
        return np.stack([*powers, cross])

    def seen_at(self, finer: float) -> "ClassSpectrum":
        """The same class on a grid with pixels `finer` times as large."""
        powers = (power / finer**2 for power in (self.amplitude, self.phase, self.cross))
        return ClassSpectrum(self.frequency * finer, *powers)

    def of_change(self, shape: tuple[int, int], truth: Object) -> Densities:
        """Of an object's radial and tangential change, |O| times that of the phase with |O| at the
        truth's mean power."""
        power = np.mean(np.abs(truth) ** 2)
        return self.on_grid(shape) * np.array([1, power, power**0.5])[:, None, None]


def class_spectrum(objects: Iterable[Object]) -> ClassSpectrum:
    """Spectra of one or more example objects of a class, of one shape, cropped to what a scan sees.

    Mean over objects and rings of |FFT(w (f - mean))|^2 / sum w^2, w a Hann window: without it the
    jump between opposite borders puts a 1 / q^2 tail over the class's own. The cross density is the
    same of the two parts' product. The mean of a class isn't known better than its slowest
    variation: ring 0 takes the density of ring 1."""
    objects = [np.asarray(image) for image in objects]
    usable = (np.iscomplexobj(i) and i.ndim == 2 and np.isfinite(i).all() for i in objects)
    if len({image.shape for image in objects}) != 1 or not all(usable):
        raise DataContractError(
            f"class spectrum: {[(i.shape, i.dtype.name) for i in objects]} given; one or more"
            " finite complex (H, W) arrays of one shape are needed"
        )
    shape = objects[0].shape
    window, power = rings.hann_window(shape), np.zeros((3, *shape))
    for image in objects:
        parts = np.abs(image), Pair(image, image).phase.truth
        amplitude, phase = (np.fft.fft2(rings.varying(part, window)) for part in parts)
        power += np.abs(amplitude) ** 2, np.abs(phase) ** 2, (amplitude * phase.conj()).real
    density = np.stack([rings.ring_mean(total) for total in power])
    density /= len(objects) * (window**2).sum()
    density[:, 0] = density[:, 1]
    return ClassSpectrum(rings.ring_frequencies(shape), *density)
