"""The one statement of the physics: far-field diffraction of a probe by an object, and its
adjoints.

    I_j = sum_m |F(P_mj * O_j)|^2          expected counts of exposure j
    P_mj = probe mode m shifted by the sub-pixel part of position j
    O_j  = the N x N patch of the object at the integer part of position j
    (:mod:`ptycho_torch.physics.patches`)

F is the centred orthonormal FFT, zero frequency on pixel N // 2, so sum |P|^2 is the photons per
exposure through an empty object, and the adjoint of F is its inverse. The simulator, the canvas
iteration, the network's forward model and the bounds all call these functions (Thibault et al.,
Science 321, 379 (2008), eq. 1)."""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from jaxtyping import Complex, Float
from torch import Tensor

Transform = Callable[[Tensor], Tensor]


def propagate(wave: Complex[Tensor, "*batch H W"]) -> Complex[Tensor, "*batch H W"]:
    """Centred orthonormal Fourier transform over the last two axes. Keeps sum |wave|^2."""
    return _centred(wave, torch.fft.fft2)


def backpropagate(wave: Complex[Tensor, "*batch H W"]) -> Complex[Tensor, "*batch H W"]:
    """Inverse, and so adjoint, of :func:`propagate`."""
    return _centred(wave, torch.fft.ifft2)


def shift_probe(
    probe: Complex[Tensor, "modes H W"], shift_px: Float[Tensor, "n 2"]
) -> Complex[Tensor, "n modes H W"]:
    """Probe modes moved by `shift_px` (rows, columns), a sub-pixel part of a position, by the
    Fourier shift theorem.

    Unitary: the power of every mode is kept. On an even grid the Nyquist row and column count as
    negative frequencies."""
    spectrum = torch.fft.fft2(probe)
    ramps = [
        torch.exp(
            -2j
            * torch.pi
            * torch.fft.fftfreq(size, dtype=shift_px.dtype, device=probe.device)
            * shift_px[:, axis, None]
        )
        for axis, size in enumerate(probe.shape[-2:])
    ]
    ramp = (ramps[0][:, :, None] * ramps[1][:, None, :]).to(probe.dtype)
    return torch.fft.ifft2(spectrum * ramp[:, None])


def detector_waves(
    patches: Complex[Tensor, "n H W"], probes: Complex[Tensor, "n modes H W"]
) -> Complex[Tensor, "n modes H W"]:
    """Complex waves on the detector, F(P_m O), one per exposure and mode."""
    return propagate(probes * patches[:, None])


def expected_counts(
    patches: Complex[Tensor, "n H W"], probes: Complex[Tensor, "n modes H W"]
) -> Float[Tensor, "n H W"]:
    """Expected counts, the incoherent sum over modes of |F(P_m O)|^2."""
    return intensity(detector_waves(patches, probes)).sum(1)


def intensity(waves: Complex[Tensor, "*batch H W"]) -> Float[Tensor, "*batch H W"]:
    """|waves|^2, without the square root and the copy that `abs` and `view_as_real` take."""
    return waves.real.square() + waves.imag.square()


def round_trip(
    N: int, canvas_shape: tuple[int, int], device: torch.device
) -> tuple[Transform, Transform, Tensor]:
    """(forward, adjoint, modulation) that turn patches of a modulated canvas into the intensities
    of :func:`propagate`.

    For whoever needs only intensities and the way back from the detector. On an even grid, patches
    of the canvas times a checkerboard have in a plain FFT the centred one's intensities, and a real
    weight on the detector comes back as the plain inverse FFT times the same checkerboard: no shift
    of any pattern is left. On an odd grid: the transforms themselves, and 1."""
    if N % 2:
        return propagate, backpropagate, torch.ones((), device=device)
    return (
        partial(torch.fft.fft2, norm="ortho"),
        partial(torch.fft.ifft2, norm="ortho"),
        _checkerboard(*canvas_shape, device),
    )


def _centred(wave: Tensor, transform) -> Tensor:
    rows, columns = wave.shape[-2:]
    if rows % 2 or columns % 2:
        axes = (-2, -1)
        return torch.fft.fftshift(
            transform(torch.fft.ifftshift(wave, dim=axes), norm="ortho"), dim=axes
        )
    # On an even grid both shifts are multiplications by +-1, several times cheaper than moving the
    # pixels.
    signs = _checkerboard(rows, columns, wave.device)
    transformed = signs * transform(signs * wave, norm="ortho")
    return -transformed if (rows + columns) // 2 % 2 else transformed


@lru_cache(maxsize=16)
def _checkerboard(rows: int, columns: int, device: torch.device) -> Tensor:
    """(-1)^(row + column)."""
    row, column = torch.arange(rows, device=device), torch.arange(columns, device=device)
    return 1.0 - 2.0 * ((row[:, None] + column[None, :]) % 2)
