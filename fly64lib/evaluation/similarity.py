"""Structural similarity of real images, on one scale and on three.

Gaussian window of sigma 1.5 px, 11 x 11 px, only where it fits; K1 = 0.01, K2 = 0.03; population
covariances; data range = max - min of the truth. Where the truth has no range both are nan. An
image on which the window does not fit, at full or at quarter size, is TooSmall."""

import numpy as np
from jaxtyping import Float
from skimage.metrics import structural_similarity

from fly64lib.evaluation.gauge import NO_CONTRAST, TooSmall

# The first three weights of Wang et al. 2003, sum made 1: five scales would need 176 px.
MS_SSIM_WEIGHTS = np.array([0.0448, 0.2856, 0.3001]) / 0.6305
_WINDOW_PX = 11  # a side
_K1 = 0.01
_ANY_LUMINANCE = 1e8  # a K1 so large that the luminance factor is 1 in double precision

Image = Float[np.ndarray, "H W"]


def ssim(image: Image, truth: Image) -> float:
    """Structural similarity, Wang, Bovik, Sheikh, Simoncelli, IEEE Trans. Image Process. 13, 600
    (2004), by scikit-image. 1 for identical images."""
    return _similarity(image, truth, np.ptp(truth), _K1)


def ms_ssim(image: Image, truth: Image) -> float:
    """Structural similarity on three scales, Wang, Simoncelli, Bovik, Asilomar (2003).

    Product of the mean contrast-structure terms at full and half and the mean SSIM at quarter size,
    to the powers `MS_SSIM_WEIGHTS`. Each scale is the mean over 2 x 2 px of the one before; range =
    max - min of the full-size `truth`. A negative term counts as 0, as it has no real power."""
    _check_side(truth, 4 * _WINDOW_PX)  # the window fits after two halvings
    data_range, terms = np.ptp(truth), []
    for k1 in (_ANY_LUMINANCE, _ANY_LUMINANCE, _K1):
        terms.append(_similarity(image, truth, data_range, k1))
        image, truth = _halved(image), _halved(truth)
    return float(np.prod(np.maximum(terms, 0) ** MS_SSIM_WEIGHTS))


def has_range(truth: Image, data_range: float) -> bool:
    """Whether the truth varies by more than the rounding of float32 files."""
    return bool(data_range > NO_CONTRAST * np.abs(truth).max())


def _similarity(image: Image, truth: Image, data_range: float, k1: float) -> float:
    """Mean over the pixels where the window fits."""
    _check_side(truth, _WINDOW_PX)
    if not has_range(truth, data_range):
        return float("nan")
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return float(structural_similarity(image, truth, data_range=data_range, K1=k1, **window))


def _check_side(image: Image, least_px: int) -> None:
    if min(image.shape) < least_px:
        size = " x ".join(map(str, image.shape))
        raise TooSmall(f"{size} px are scored, at least {least_px} px a side are needed")


def _halved(image: Image) -> Image:
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    return image[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean((1, 3))
