"""The probe of a Fresnel zone plate from its optics; to measure, resample and disturb a probe.

    pupil  A(q) on the detector grid     annulus r_stop < q < 1 / (2 dr_outer), weaker towards the
    outer zones
    probe  P = F^-1[ A(q) exp(-i pi lambda z q^2) ]     z: distance of the specimen behind the focus

F is the centred orthonormal FFT and zero frequency lies on pixel N//2, so sum |P|^2 is the power of
the beam; probes are made with power 1 and carry a dose only after the simulation has scaled them. A
lens of focal length f = 2 R dr_outer / lambda throws its edge to the spatial frequency R / (lambda
f) = 1 / (2 dr_outer). The sign of the quadratic phase is that of the probe recovered from the
measured scan: complex correlation 0.61, opposite sign 0.02."""

from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Complex
from pydantic import Field
from scipy.constants import c, e, h
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor

from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.fields import config
from ptycho_torch.physics.optics import backpropagate, propagate

Modes = Complex[np.ndarray, "modes N N"]
Positive = Annotated[float, Field(gt=0)]


@config
class ZonePlate:
    """Optics of fly001, inferred from a sibling scan; pupil radii and phase sign fit its probe."""

    energy_kev: Positive = 8.8
    radius_um: Positive = 90.0
    outermost_zone_nm: Positive = 50.0
    central_stop_um: Annotated[float, Field(ge=0)] = 60.0  # diameter
    distance_m: Positive = 1.92  # specimen to detector
    detector_pixel_um: Positive = 75.0
    defocus_mm: float = 0.8
    # Amplitude at the outermost zone over that on the axis, Gaussian between; 1: uniform. Zone
    # plates lose efficiency outwards: 0.5 raises the radial correlation with the recovered probe
    # from 0.94 to 0.98 and brings its width near.
    outer_zone_amplitude: Annotated[float, Field(gt=0, le=1)] = 0.5

    def __post_init__(self) -> None:
        if self.central_stop_um >= 2 * self.radius_um:
            raise ConfigError(
                f"central_stop_um={self.central_stop_um} (a diameter); expected less than the"
                f" plate's diameter of {2 * self.radius_um}"
            )

    @property
    def wavelength_m(self) -> float:
        return h * c / e / 1e3 / self.energy_kev

    @property
    def detector_step_per_m(self) -> float:
        """Spatial frequency from one detector pixel to the next, in 1/m."""
        return self.detector_pixel_um * 1e-6 / (self.wavelength_m * self.distance_m)

    @property
    def pupil_radius_px(self) -> float:
        """Radius of the pupil on the detector, in detector pixels."""
        return 1 / (2 * self.outermost_zone_nm * 1e-9) / self.detector_step_per_m

    def object_pixel_m(self, N: int) -> float:
        """Pixel of the object when N detector pixels are used: 1 / (N dq)."""
        return 1 / (N * self.detector_step_per_m)


FLY001 = ZonePlate()


def zone_plate_probe(
    N: int, fine: int = 1, optics: ZonePlate = FLY001
) -> Complex[np.ndarray, "fine_N fine_N"]:
    """The probe on (fine * N, fine * N) pixels, complex128, sum |P|^2 = 1.

    `fine` widens the detector to fine * N of the same pixels: object pixels shrink by `fine`, the
    field of view stays. Pupil edges are linear over one detector pixel. At N = 64 the detector is
    narrower (+-32) than the pupil (36 px), as in the measurement: 5.5 % of the direct beam of the
    fine = 2 probe falls beside it."""
    if N < 2 or fine < 1:
        raise ConfigError(f"got N = {N}, fine = {fine}; expected N >= 2 pixels and fine >= 1")
    k = np.arange(fine * N) - fine * N // 2
    q = np.hypot(k[:, None], k)  # in detector pixels
    outer = optics.pupil_radius_px
    stop = outer * optics.central_stop_um / (2 * optics.radius_um)
    pupil = np.clip(outer - q + 0.5, 0, 1) * optics.outer_zone_amplitude ** (q / outer) ** 2
    if stop > 0:
        pupil *= np.clip(q - stop + 0.5, 0, 1)
    if not pupil.any():
        raise ConfigError(
            f"no pupil on {fine * N} detector pixels: the central stop covers a radius of"
            f" {stop:.1f} px; use more pixels or a smaller central_stop_um"
        )
    defocus_m, dq = optics.defocus_mm * 1e-3, optics.detector_step_per_m
    pupil = pupil * np.exp(-1j * (np.pi * optics.wavelength_m * defocus_m * dq**2) * q**2)
    probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(pupil), norm="ortho"))
    return probe / np.linalg.norm(probe)


def fourier_crop(
    image: Complex[np.ndarray, "H W"], shape: tuple[int, int], preserve: Literal["mean", "power"]
) -> Complex[np.ndarray, "h w"]:
    """Band-limit an image to fewer pixels over the same field: the central (h, w) of its spectrum.

    "mean", for objects: values stay (a constant stays itself) and pixel (0, 0) stays in place, so
    pixel i of the result is where pixel i H / h was and scan positions just divide by H / h.
    "power", for probes: orthonormal Fourier coefficients stay, as when a smaller detector is read,
    and the middle pixel N//2 stays in place. For even sizes with an integer ratio both anchors
    agree. An even h keeps the frequency -h/2 and drops +h/2, as a detector does."""
    sides = list(zip(image.shape, shape, strict=False))
    if not image.ndim == len(shape) == 2 or not all(1 <= m <= n for n, m in sides):
        raise DataContractError(
            f"fourier_crop got an image of shape {image.shape} and the shape {shape}; expected a "
            "2-D image and a shape within its own"
        )
    if preserve not in ("mean", "power"):
        raise ConfigError(f"preserve={preserve!r}; expected 'mean' (objects) or 'power' (probes)")
    centred = preserve == "power"
    anchored = np.fft.ifftshift(image) if centred else image
    spectrum = np.fft.fftshift(np.fft.fft2(anchored, norm="ortho"))
    kept = tuple(slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in sides)
    small = np.fft.ifft2(np.fft.ifftshift(spectrum[kept]), norm="ortho")
    return np.fft.fftshift(small) if centred else small * np.sqrt(small.size / image.size)


def perturb_probe(probe: np.ndarray, relative_error: float, seed: int) -> np.ndarray:
    """A probe of the same power, ||P' - P|| = relative_error ||P||; P (N, N) or (modes, N, N).

    The error is P times a smooth complex Gaussian field (correlation length N / 8, of its own for
    each mode), made orthogonal to P so that a global phase or scale takes no part: P' = cos(a) P +
    sin(a) E, 2 (1 - cos a) = error^2."""
    if not 0 <= relative_error < np.sqrt(2):
        raise ConfigError(f"relative_error={relative_error}; expected 0 or more, below sqrt(2)")
    sigma = (0,) * (probe.ndim - 2) + (probe.shape[-1] / 8,) * 2
    noise = np.random.default_rng(seed).standard_normal((2, *probe.shape))
    real, imaginary = (gaussian_filter(part, sigma, mode="wrap") for part in noise)
    error = probe * (real + 1j * imaginary)
    error -= probe * (np.vdot(probe, error) / np.vdot(probe, probe))
    error *= np.linalg.norm(probe) / np.linalg.norm(error)
    cosine = 1 - relative_error**2 / 2
    return (cosine * probe + np.sqrt(1 - cosine**2) * error).astype(probe.dtype)


def defocused(
    probe: Complex[Tensor, "modes N N"], strength_rad: float
) -> Complex[Tensor, "modes N N"]:
    """The probe with a wrong defocus: F(P) exp(i strength q^2 / <q^2>), the mean taken over the
    probe's own spectrum. Its power is kept."""
    spectrum, N = propagate(probe), probe.shape[-1]
    q = torch.arange(N) - N // 2
    square = (q[:, None] ** 2 + q**2).to(probe.real.dtype)
    power = spectrum.abs().square()
    phase = 1j * strength_rad * square * power.sum() / (square * power).sum()
    return backpropagate(spectrum * torch.exp(phase))


def radial_intensity(probe: np.ndarray, step_px: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Radii (px) and azimuthal mean of sum_m |P_m|^2 about its centre of mass, up to the edge."""
    intensity = _intensity(probe)
    rows, columns = np.indices(intensity.shape)
    centre = [(axis * intensity).sum() / intensity.sum() for axis in (rows, columns)]
    reach = min(min(c, n - 1 - c) for c, n in zip(centre, intensity.shape, strict=True))
    radii = np.arange(0, reach, step_px)[:, None]
    angles = np.linspace(0, 2 * np.pi, 4 * max(intensity.shape), endpoint=False)
    circles = [centre[0] + radii * np.sin(angles), centre[1] + radii * np.cos(angles)]
    return radii[:, 0], map_coordinates(intensity, circles, order=1).mean(axis=1)


def outer_half_maximum_diameter(probe: np.ndarray) -> float:
    """Diameter D (px) of the largest circle whose mean intensity is half the greatest such mean."""
    radii, profile = radial_intensity(probe)
    above = np.nonzero(profile >= profile.max() / 2)[0][-1]
    if above == len(radii) - 1:
        raise DataContractError(
            f"the probe is above half its maximum out to the window's edge ({radii[-1]:.1f} px); "
            "expected a probe that falls off within its window: use a larger N"
        )
    high, low = profile[above : above + 2]
    fraction = (high - profile.max() / 2) / (high - low)
    return float(2 * (radii[above] + fraction * (radii[above + 1] - radii[above])))


def power_radius(probe: np.ndarray, fraction: float = 0.98) -> float:
    """Radius (px) about the scan position, pixel N//2, that holds `fraction` of the power."""
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction={fraction}; expected within (0, 1]")
    intensity = _intensity(probe)
    rows, columns = (np.arange(n) - n // 2 for n in intensity.shape)
    radii = np.hypot(rows[:, None], columns).ravel()
    order = np.argsort(radii, kind="stable")
    held = np.cumsum(intensity.ravel()[order])
    # 1e-12 of slack: a sum's last bits must not decide between a ring of pixels and the next one.
    return float(radii[order][np.searchsorted(held, fraction * held[-1] * (1 - 1e-12))])


def _intensity(probe: np.ndarray) -> np.ndarray:
    """sum_m |P_m|^2 of a probe (N, N) or (modes, N, N)."""
    if probe.ndim not in (2, 3):
        raise DataContractError(f"probe of shape {probe.shape}; expected (N, N) or (modes, N, N)")
    intensity = np.abs(probe).astype(np.float64) ** 2
    return intensity.reshape(-1, *probe.shape[-2:]).sum(axis=0)
