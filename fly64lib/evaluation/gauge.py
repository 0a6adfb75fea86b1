"""The gauge of a ptychographic object: what the data leave open, taken out before it is scored.

With the probe known, the patterns determine the object up to one global phase. With the probe
unknown, object and probe may also trade a phase ramp, a shift and a scale (Guizar-Sicairos et al.,
Opt. Express 19, 21345 (2011)). Removed is, with c the central pixel and S the band-limited
continuation,

    image(r) = scale exp(i phase) S[ exp(i ramp . (r - c)) reconstruction ](r - shift).

All values are those *applied to the reconstruction*: content that lies one row too far down has
shift_px = (-1, 0). Rows come first, y is rows."""

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy import fft
from scipy.optimize import least_squares

from fly64lib.simulation.overlap_measures import Region, scanned_region
from ptycho_torch.errors import ConfigError, DataContractError

GAUGES = ("known_probe", "unknown_probe")
# Searched on each axis; a reconstruction farther off is a failed one, not a matter of gauge.
MAX_SHIFT_PX = 3
_FALSE_ALARM = 1e-3  # probability that an unrelated image is said to be registered
NO_CONTRAST = 1e-6  # relative spread below which an image in float32 is flat

Image = Complex[np.ndarray, "H W"]
Mask = Bool[np.ndarray, "H W"]
Pixels = Float[np.ndarray, "2"]  # rows, columns
Move = tuple[Pixels, Pixels]  # tilt (rad/px) and displacement (px) of an image against another


class TooSmall(DataContractError):
    """A region on which a metric does not exist; the others still do."""


class Alignment(NamedTuple):
    """An aligned image and the gauge that was removed, in the convention of the module's equation.

    `registered` is False where a shift was sought (unknown probe) and none found: a flat image, one
    unrelated to the truth or more than `MAX_SHIFT_PX` off. shift_px is 0 then."""

    image: Image
    phase_rad: float
    ramp_rad_per_px: Pixels
    shift_px: Pixels
    scale: float
    registered: bool


def scored_region(xcoords: np.ndarray, ycoords: np.ndarray, canvas_shape: Sequence[int]) -> Region:
    """Rows and columns of the canvas inside the bounding box of the patch centres (px), rounded
    inwards. Raises :class:`DataContractError` for positions that give none."""
    paired = np.shape(xcoords) == np.shape(ycoords) and np.size(xcoords) > 0
    if not paired or not np.isfinite([xcoords, ycoords]).all():
        raise DataContractError(
            f"scored region: {np.shape(xcoords)} xcoords, {np.shape(ycoords)} ycoords; both of"
            " at least one position, none NaN or infinite, are needed"
        )
    region = scanned_region(np.stack([ycoords, xcoords], 1))
    for name, part, limit in zip(("rows", "columns"), region, canvas_shape, strict=True):
        if part.start < 0 or part.stop > limit:
            raise DataContractError(
                f"scored region: positions span {name} {part.start}..{part.stop - 1}, outside the"
                f" canvas of {tuple(canvas_shape)} px; check their unit and origin"
            )
    return region


def judged(gauge: str) -> Region:
    """All pixels; with an unknown probe without the border that a shift may have made up."""
    return (slice(MAX_SHIFT_PX, -MAX_SHIFT_PX) if gauge == "unknown_probe" else slice(None),) * 2


def align(reconstruction: np.ndarray, truth: np.ndarray, gauge: str = "known_probe") -> Alignment:
    """Remove the gauge freedom of `reconstruction` (H, W) against `truth` (H, W).

    known_probe: phase = arg sum conj(reconstruction) truth, nothing else. unknown_probe: ramp,
    shift (each axis within `MAX_SHIFT_PX`) and phase jointly by least squares of the transformed
    truth to the reconstruction, so that noise stays out of the model; started from the best of all
    whole-pixel shifts and FFT ramps. Then scale = sum |truth| / sum |image|: a least-squares
    complex factor would shrink a noisy object towards zero and flatter it.

    A shift brings in pixels from outside: within `MAX_SHIFT_PX` of the border the image is a
    mirrored guess, not used here and not to be scored. Raises :class:`DataContractError` for images
    that cannot be aligned, :class:`ConfigError` for an unknown gauge."""
    if gauge not in GAUGES:
        raise ConfigError(f"gauge {gauge!r} is unknown; choose one of {', '.join(GAUGES)}")
    rec, truth = checked("reconstruction", reconstruction), checked("truth", truth)
    if rec.shape != truth.shape:
        raise DataContractError(
            f"reconstruction has shape {rec.shape}, truth {truth.shape}; crop both to one region"
        )
    ramp, shift, registered, scale = np.zeros(2), np.zeros(2), True, 1.0
    inside = np.zeros(rec.shape, bool)
    inside[judged(gauge)] = True
    if not rec[inside].any() or not truth[inside].any():
        raise DataContractError(
            f"nothing to align: reconstruction or truth is 0 on all {inside.sum()} judged pixels"
        )
    if gauge == "unknown_probe":
        ramp, shift, registered = _ramp_and_shift(rec, truth, inside)
    image = _shifted(_ramped(rec, ramp), shift)
    phase = float(np.angle(np.vdot(image[inside], truth[inside])))
    if gauge == "unknown_probe":
        scale = float(np.abs(truth[inside]).sum() / np.abs(image[inside]).sum())
    return Alignment(scale * np.exp(1j * phase) * image, phase, ramp, shift, scale, registered)


def in_gauge_of(truth: np.ndarray, reconstruction: np.ndarray, region: Region) -> Image:
    """The whole truth (H, W) as a reconstruction (H, W) under an unknown probe has it: with the
    ramp, shift, scale and phase that :func:`align` finds between the two in a `region`."""
    found = align(truth[region], reconstruction[region], "unknown_probe")
    whole = _shifted(_ramped(checked("truth", truth), found.ramp_rad_per_px), found.shift_px)
    # a ramp turns about the middle of what it is applied to
    turned = np.vdot(whole[region], found.image)
    return found.scale * turned / abs(turned) * whole


def _ramp_and_shift(rec: Image, truth: Image, inside: Mask) -> tuple[Pixels, Pixels, bool]:
    """Ramp (rad/px) and shift (px) to apply to `rec`, and whether the shift means anything."""
    if _has_structure(rec, inside) and _has_structure(truth, inside):
        tilt, displacement = _fit(rec, truth, inside, MAX_SHIFT_PX)
        moved = _ramped(rec, -tilt), _shifted(truth, displacement)
        if (np.abs(displacement) <= MAX_SHIFT_PX).all() and _related(*moved, inside):
            return -tilt, -displacement, True
    tilt, unmoved = _fit(rec, truth, inside, reach=0)
    return -tilt, unmoved, False


def _has_structure(image: Image, inside: Mask) -> bool:
    """Whether more than a phase ramp is there; a ramp alone has no place."""
    tilt, _ = _fit(image, np.ones_like(image), inside, reach=0)
    return has_contrast(_ramped(image, -tilt)[inside])


def _coarse(rec: Image, truth: Image, inside: Mask, reach: int) -> Move:
    """The whole-pixel displacement, up to `reach`, and FFT ramp of the largest normalised
    correlation."""
    double = 2 * rec.shape[0], 2 * rec.shape[1]  # no ramp falls far between two frequencies
    frequencies = [2 * np.pi * fft.fftfreq(size) for size in double]
    best, tilt, displacement = -1.0, np.zeros(2), np.zeros(2)
    padded = np.pad(truth, reach, "symmetric")
    lags = product(range(-reach, reach + 1), repeat=2)
    # The smallest first, so that a tie (a flat image) goes to no shift.
    for row, column in sorted(lags, key=lambda lag: lag[0] ** 2 + lag[1] ** 2):
        moved = inside * padded[reach - row :, reach - column :][: rec.shape[0], : rec.shape[1]]
        power = np.linalg.norm(moved)
        correlation = np.abs(fft.fft2(moved.conj() * rec, double)) / (power if power > 0 else 1.0)
        peak = np.unravel_index(correlation.argmax(), double)
        if correlation[peak] > best:
            best, displacement = correlation[peak], np.array([row, column], float)
            tilt = np.array([axis[k] for axis, k in zip(frequencies, peak, strict=True)])
    return tilt, displacement


def _fit(rec: Image, truth: Image, inside: Mask, reach: int) -> Move:
    """Least squares of factor * exp(i tilt . (r - c)) * truth(r - displacement) to `rec` on the
    pixels `inside`, started from the coarse one. The factor serves the fit only; with a `reach` of
    0 nothing is displaced."""
    (tilt, displacement), moving = _coarse(rec, truth, inside, reach), reach > 0
    spectrum, places, frequencies = _spectrum(truth), _centred(rec.shape), _frequencies(rec.shape)

    def model(x: np.ndarray, slope: np.ndarray | float = 1.0) -> np.ndarray:
        d = x[4:] if moving else displacement
        turn = np.exp(-2j * np.pi * (frequencies[0] * d[0] + frequencies[1] * d[1]))
        moved = fft.ifft2(spectrum * turn * slope)[: rec.shape[0], : rec.shape[1]]
        return np.exp(1j * (x[2] * places[0] + x[3] * places[1]))[inside] * moved[inside]

    def residual(x: np.ndarray) -> np.ndarray:
        return ((x[0] + 1j * x[1]) * model(x) - rec[inside]).view(float)

    def jacobian(x: np.ndarray) -> np.ndarray:
        bare, factor = model(x), x[0] + 1j * x[1]
        columns = [bare, 1j * bare]
        columns += [1j * factor * bare * np.broadcast_to(r, rec.shape)[inside] for r in places]
        if moving:
            columns += [factor * model(x, -2j * np.pi * f) for f in frequencies]
        return np.stack([column.view(float) for column in columns], 1)

    start = np.concatenate([np.zeros(2), tilt, displacement if moving else []])
    bare = model(start)
    factor = np.vdot(bare, rec[inside]) / np.vdot(bare, bare).real
    start[:2] = factor.real, factor.imag
    how = {"method": "lm", "x_scale": "jac", "max_nfev": 20}
    limits = dict.fromkeys(("ftol", "xtol", "gtol"), 1e-10)
    found = least_squares(residual, start, jacobian, **how, **limits)
    return found.x[2:4], found.x[4:] if moving else displacement


def _related(rec: Image, truth: Image, inside: Mask) -> bool:
    """Whether two registered images correlate more than unrelated ones of their spectra would.

    The squared correlation of unrelated images with n degrees of freedom exceeds x with probability
    (1 - x)^(n - 1), where n = sum |A|^2 sum |B|^2 / sum |A B|^2 over their spectra; the best of all
    tried shifts has as many chances."""
    a, b = (inside * (image - image[inside].mean()) for image in (rec, truth))
    power_a, power_b = (np.abs(fft.fft2(image)) ** 2 for image in (a, b))
    freedom = power_a.sum() * power_b.sum() / (power_a * power_b).sum()
    missed = 1 - np.abs(np.vdot(a, b)) ** 2 / (np.vdot(a, a).real * np.vdot(b, b).real)
    tries = (2 * MAX_SHIFT_PX + 1) ** 2
    return bool(tries * max(missed, 0.0) ** (freedom - 1) < _FALSE_ALARM)


def checked(name: str, image: np.ndarray) -> Image:
    """The object as complex128; refused by its name where it is no finite complex (H, W) array."""
    if not np.iscomplexobj(image) or np.ndim(image) != 2:
        raise DataContractError(
            f"{name} is {np.asarray(image).dtype} of shape {np.shape(image)}; give the complex"
            " object as a complex array (H, W), not its phase or its amplitude"
        )
    if bad := np.count_nonzero(~np.isfinite(image)):
        raise DataContractError(f"{name} holds {bad} NaN or infinite pixels; mend its source")
    return np.asarray(image, np.complex128)


def has_contrast(pixels: np.ndarray) -> bool:
    """Whether the pixels differ by more than the rounding of float32 files."""
    return bool(np.linalg.norm(pixels - pixels.mean()) > NO_CONTRAST * np.linalg.norm(pixels))


def _centred(shape: tuple[int, int]) -> tuple[Float[np.ndarray, "H 1"], Float[np.ndarray, "1 W"]]:
    return np.ix_(*(np.arange(float(n)) - n // 2 for n in shape))


def _ramped(image: Image, tilt: Pixels) -> Image:
    rows, columns = _centred(image.shape)
    return image * np.exp(1j * (tilt[0] * rows + tilt[1] * columns))


def _spectrum(image: Image) -> Complex[np.ndarray, "HH WW"]:
    """Spectrum of the image with its mirror images: no jump rings, no power lies on Nyquist."""
    return fft.fft2(np.pad(image, ((0, image.shape[0]), (0, image.shape[1])), "symmetric"))


def _frequencies(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (cycles per px) of :func:`_spectrum`, (2 H, 1) and (1, 2 W)."""
    return fft.fftfreq(2 * shape[0])[:, None], fft.fftfreq(2 * shape[1])[None]


def _shifted(image: Image, shift: Pixels) -> Image:
    """Content moved towards larger indices by `shift` (px); without shift the very same values."""
    if not shift.any():
        return image
    rows, columns = _frequencies(image.shape)
    turned = _spectrum(image) * np.exp(-2j * np.pi * (rows * shift[0] + columns * shift[1]))
    return fft.ifft2(turned)[: image.shape[0], : image.shape[1]]
