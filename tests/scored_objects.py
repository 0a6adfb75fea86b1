"""Odd, non-square complex objects that the tests of the evaluation score."""

import numpy as np
from scipy.ndimage import gaussian_filter

SHAPE = (59, 83)


def noise(seed, shape=SHAPE):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)


def smooth(seed, sigma=2.0, shape=SHAPE):
    image = gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return image / image.std()


TRUTH = (1 + 0.05 * smooth(1)) * np.exp(0.3j * smooth(2))
NEAR = (1 + 0.05 * smooth(1) + 0.03 * smooth(3)) * np.exp(1j * (0.3 * smooth(2) + 0.1 * smooth(4)))
