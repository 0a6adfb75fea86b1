"""The one statement of the physics: far-field diffraction of a probe by an object, and its
adjoints.

    I_j = sum_m |cut_N F(P_mj * O_j)|^2    expected counts of exposure j
    P_mj = probe mode m shifted by the sub-pixel part of position j
    O_j  = the M x M patch of the object at the integer part of position j
    (:mod:`ptycho_torch.physics.patches`)

F is the centred orthonormal FFT of M x M pixels, zero frequency on pixel M // 2, so sum |P|^2 is
the photons per exposure through an empty object; cut_N keeps the N x N pixels about zero frequency
that the detector has. Light that a pupil and an object throw beside the detector (M > N) is so part
of the model, and not folded back (docs/forward_model.md). The adjoint of F is its inverse, that of
cut_N puts zeros around. The simulator, the canvas iteration, the network's forward model and the
bounds all call these functions (Thibault et al., Science 321, 379 (2008), eq. 1)."""

from collections.abc import Callable
from functools import lru_cache, partial

import torch
from jaxtyping import Complex, Float
from torch import Tensor

Transform = Callable[[Tensor], Tensor]


def propagate(
    wave: Complex[Tensor, "*batch H W"], N: int | None = None
) -> Complex[Tensor, "*batch h w"]:
    """Centred orthonormal Fourier transform over the last two axes, of which the central N x N
    pixels are kept; without N all of them, and then sum |wave|^2 is kept."""
    whole = _centred(wave, torch.fft.fft2)
    return whole if N is None else whole[..., *(_central(M, N) for M in wave.shape[-2:])]


def backpropagate(
    wave: Complex[Tensor, "*batch H W"], M: int | None = None
) -> Complex[Tensor, "*batch h w"]:
    """Adjoint of :func:`propagate` from M x M pixels; without M its inverse too."""
    return _centred(wave if M is None else _framed(wave, M, (-2, -1)), torch.fft.ifft2)


def shift_probe(
    probe: Complex[Tensor, "modes H W"], shift_px: Float[Tensor, "n 2"]
) -> Complex[Tensor, "n modes H W"]:
    """Probe modes moved by `shift_px` (rows, columns), a sub-pixel part of a position, by the
    Fourier shift theorem.

    Unitary: the power of every mode is kept. On an even grid the Nyquist row and column count as
    negative frequencies."""
    return torch.fft.ifft2(torch.fft.fft2(probe) * _ramp(probe, shift_px)[:, None])


def shift_probe_adjoint(
    waves: Complex[Tensor, "n modes H W"], shift_px: Float[Tensor, "n 2"]
) -> Complex[Tensor, "modes H W"]:
    """Adjoint of :func:`shift_probe`: all waves moved back, and summed."""
    return torch.fft.ifft2((torch.fft.fft2(waves) * _ramp(waves, shift_px).conj()[:, None]).sum(0))


def probe_slopes(
    probe: Complex[Tensor, "modes H W"], shift_px: Float[Tensor, "n 2"]
) -> Complex[Tensor, "2 n modes H W"]:
    """Derivatives of :func:`shift_probe` by the shift along rows and along columns, per px."""
    spectrum = torch.fft.fft2(probe) * _ramp(probe, shift_px)[:, None]
    rows, columns = (
        -2j * torch.pi * torch.fft.fftfreq(size, dtype=shift_px.dtype, device=probe.device)
        for size in probe.shape[-2:]
    )
    by_axis = [spectrum * rows[:, None].to(probe.dtype), spectrum * columns.to(probe.dtype)]
    return torch.fft.ifft2(torch.stack(by_axis))


def detector_waves(
    patches: Complex[Tensor, "n H W"], probes: Complex[Tensor, "n modes H W"], N: int | None = None
) -> Complex[Tensor, "n modes h w"]:
    """Complex waves on the N x N pixels of the detector, one per exposure and mode."""
    return propagate(probes * patches[:, None], N)


def expected_counts(
    patches: Complex[Tensor, "n H W"], probes: Complex[Tensor, "n modes H W"], N: int | None = None
) -> Float[Tensor, "n h w"]:
    """Expected counts, the incoherent sum over modes of the waves' intensities."""
    return intensity(detector_waves(patches, probes, N)).sum(1)


def intensity(waves: Complex[Tensor, "*batch H W"]) -> Float[Tensor, "*batch H W"]:
    """|waves|^2, without the square root and the copy that `abs` and `view_as_real` take."""
    return waves.real.square() + waves.imag.square()


def round_trip(
    M: int, N: int, canvas_shape: tuple[int, int], device: torch.device
) -> tuple[Transform, Transform, Tensor]:
    """(forward, adjoint, modulation) that turn M x M patches of a modulated canvas into waves with
    the intensities of :func:`propagate` on N x N pixels.

    For whoever needs only intensities and the way back from the detector. On an even grid, patches
    of the canvas times a checkerboard have in a plain FFT the centred one's intensities, and a real
    weight on the detector comes back as the plain inverse FFT times the same checkerboard: no shift
    of any pattern is left. What lies beside the detector is dropped between the two axes of the
    transform, a quarter of the work at M = 2 N. On an odd grid: the transforms themselves, and 1.
    """
    if M % 2:
        plain = torch.ones((), device=device)
        return lambda wave: propagate(wave, N), lambda wave: backpropagate(wave, M), plain
    return partial(_to_detector, N=N), partial(_to_patch, M=M), _checkerboard(*canvas_shape, device)


def _to_detector(wave: Tensor, N: int) -> Tensor:
    """Plain FFT of M x M pixels, of which N x N are kept."""
    M = wave.shape[-1]
    if M == N:
        return torch.fft.fft2(wave, norm="ortho")
    kept = _central(M, N)
    rows = torch.fft.fft(wave, norm="ortho")[..., kept]
    return torch.fft.fft(rows, dim=-2, norm="ortho")[..., kept, :]


def _to_patch(wave: Tensor, M: int) -> Tensor:
    """Adjoint of :func:`_to_detector`."""
    if M == wave.shape[-1]:
        return torch.fft.ifft2(wave, norm="ortho")
    columns = torch.fft.ifft(_framed(wave, M, (-2,)), dim=-2, norm="ortho")
    return torch.fft.ifft(_framed(columns, M, (-1,)), norm="ortho")


def _central(M: int, N: int) -> slice:
    """The N pixels about zero frequency, of M."""
    return slice(M // 2 - N // 2, M // 2 - N // 2 + N)


def _framed(wave: Tensor, M: int, axes: tuple[int, ...]) -> Tensor:
    """Zeros around, up to M pixels along some axes: the adjoint of keeping the central ones."""
    shape, place = list(wave.shape), [slice(None)] * wave.ndim
    for axis in axes:
        shape[axis], place[axis] = M, _central(M, wave.shape[axis])
    whole = wave.new_zeros(shape)
    whole[tuple(place)] = wave
    return whole


def _ramp(
    probe: Complex[Tensor, "*modes H W"], shift_px: Float[Tensor, "n 2"]
) -> Complex[Tensor, "n H W"]:
    """The factor that moves a spectrum in the plain FFT's order by a shift in px."""
    ramps = [
        torch.exp(
            -2j
            * torch.pi
            * torch.fft.fftfreq(size, dtype=shift_px.dtype, device=probe.device)
            * shift_px[:, axis, None]
        )
        for axis, size in enumerate(probe.shape[-2:])
    ]
    return (ramps[0][:, :, None] * ramps[1][:, None, :]).to(probe.dtype)


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
