"""The physics written a second time, in numpy and as plainly as possible: sums over pixels instead
of FFTs.

Nothing here imports the project. Tests compare the engine with it, and simulate the scans that the
engine is to invert."""

import numpy as np


def dft_matrix(size: int) -> np.ndarray:
    """W[k, r] = exp(-2 pi i (k - c)(r - c) / size) / sqrt(size), c = size // 2."""
    index = np.arange(size) - size // 2
    return np.exp(-2j * np.pi * np.outer(index, index) / size) / np.sqrt(size)


def far_field(wave: np.ndarray) -> np.ndarray:
    """Centred orthonormal Fourier transform of the last two axes."""
    rows, columns = wave.shape[-2:]
    return dft_matrix(rows) @ wave @ dft_matrix(columns).T


def moved(image: np.ndarray, down: float, right: float) -> np.ndarray:
    """The band-limited image whose content lies `down` rows and `right` columns (px, any fraction)
    farther on."""

    def shift(size: int, by: float) -> np.ndarray:
        k, r = np.arange(size) - size // 2, np.arange(size)
        return (
            np.exp(2j * np.pi * np.multiply.outer(r - by, k) / size)
            @ np.exp(-2j * np.pi * np.outer(k, r) / size)
            / size
        )

    return shift(image.shape[-2], down) @ image @ shift(image.shape[-1], right).T


def corner_and_rest(y: float, x: float, N: int) -> tuple[int, int, float, float]:
    """First row and column of the patch centred at (y, x), and what a shift of the probe has to
    add."""
    row, column = int(np.rint(y - N / 2)), int(np.rint(x - N / 2))
    return row, column, y - N / 2 - row, x - N / 2 - column


def patches(image: np.ndarray, y: np.ndarray, x: np.ndarray, N: int) -> np.ndarray:
    places = [corner_and_rest(*at, N) for at in zip(y, x, strict=True)]
    return np.stack([image[row : row + N, column : column + N] for row, column, *_ in places])


def expected_counts(
    image: np.ndarray, probe: np.ndarray, y: np.ndarray, x: np.ndarray
) -> np.ndarray:
    """I_j = sum_m |F(P_m shifted by the rest of position j * the patch at its integer part)|^2,
    float64."""
    N = probe.shape[-1]
    counts = []
    for at, patch in zip(zip(y, x, strict=True), patches(image, y, x, N), strict=True):
        rest = corner_and_rest(*at, N)[2:]
        counts.append(sum(np.abs(far_field(moved(mode, *rest) * patch)) ** 2 for mode in probe))
    return np.stack(counts)


def fluence(shape: tuple[int, int], probe: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Photons that reach every object pixel, sum over positions and modes of |P|^2."""
    N, total = probe.shape[-1], np.zeros(shape)
    for at in zip(y, x, strict=True):
        row, column, *rest = corner_and_rest(*at, N)
        total[row : row + N, column : column + N] += (np.abs(moved(probe, *rest)) ** 2).sum(0)
    return total


def without_phase(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The image turned by the global phase that brings it nearest to the truth."""
    return image * np.exp(-1j * np.angle(np.vdot(truth, image)))


def psnr_phase(image: np.ndarray, truth: np.ndarray) -> float:
    """10 log10(range^2 / mean squared phase error), global phase removed; phases may not wrap."""
    truth_phase = np.angle(truth)
    error = np.angle(without_phase(image, truth) * truth.conj())
    return float(10 * np.log10(np.ptp(truth_phase) ** 2 / np.mean((error - error.mean()) ** 2)))


def complex_field(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Complex Gaussian noise, complex128."""
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
