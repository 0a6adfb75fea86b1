"""A first probe where nothing is known of the beam: the wave whose far field is the mean pattern,
as far out of focus as fits the patterns best.

    P = F^-1[ sqrt(mean) exp(i pi a q^2 / N) ],    q in detector pixels, -1 < a < 1

In focus, a = 0, all light lies in one spot; at |a| = 1 the beam fills the window. A few steps
under each a tell which one the overlap of the patterns agrees with."""

from dataclasses import replace

import numpy as np

from fly64lib.formats.fit import part_of
from ptycho_torch.data.scan import ScanData
from ptycho_torch.iteration.canvas import joint_steps

DEFOCUS = (-0.85, -0.6, -0.4, -0.25, -0.12, 0.0, 0.12, 0.25, 0.4, 0.6, 0.85)
PATTERNS, JOINT = 50, 24


def from_mean(mean: np.ndarray, defocus: float) -> np.ndarray:
    """The probe (1, N, N) complex64 of mean counts (N, N); sum |P|^2 are their photons."""
    N = len(mean)
    q = np.arange(N) - N // 2
    phase = np.exp(1j * np.pi * defocus / N * (q[:, None] ** 2 + q**2))
    wave = np.fft.ifft2(np.fft.ifftshift(np.sqrt(mean) * phase), norm="ortho")
    return np.fft.fftshift(wave)[None].astype(np.complex64)


def first_probe(scan: ScanData, mean: np.ndarray) -> tuple[np.ndarray, float]:
    """(probe (1, N, N), how far out of focus) that fits the patterns near the middle best."""
    scores = {}
    for defocus in DEFOCUS:
        part = part_of(replace(scan, probe=from_mean(mean, defocus)), most=PATTERNS)
        patterns, canvas = part.fitted()
        canvas, patterns = joint_steps(patterns, canvas, JOINT)
        scores[defocus] = part.deviances(patterns, canvas)[0]
    best = min(scores, key=scores.get)
    return from_mean(mean, best), best
