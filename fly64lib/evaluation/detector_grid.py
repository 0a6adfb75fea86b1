"""The grid that objects are scored on: as many pixels as the detector has, whatever grid a method
works on.

An object of M pixels a patch is band-limited to N by the middle of its spectrum
(:func:`fly64lib.simulation.probes.fourier_crop`, "mean"): numbers of different M compare."""

from collections.abc import Sequence
from dataclasses import replace
from math import gcd
from typing import NamedTuple

import torch
from jaxtyping import Complex
from torch import Tensor

from fly64lib.evaluation.gauge import Region
from ptycho_torch.errors import DataContractError
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics import optics
from ptycho_torch.physics.geometry import Geometry

_AXES = (-2, -1)


class DetectorGrid(NamedTuple):
    """The way between a canvas of M pixels a patch and the same field at N."""

    M: int
    N: int

    @classmethod
    def of(cls, source: RawDataTorch | Geometry) -> "DetectorGrid":
        return cls(source.M, source.N)

    @property
    def finer(self) -> float:
        """Pixels of the canvas to one of the detector's grid, along an axis."""
        return self.M / self.N

    def shape(self, canvas_shape: Sequence[int]) -> tuple[int, int]:
        """Of the detector's grid. DataContractError where it would have parts of pixels."""
        if any(side * self.N % self.M for side in canvas_shape):
            raise DataContractError(
                f"an object of {tuple(canvas_shape)} px cannot be scored at the detector's {self.N}"
                f" pixels a patch of {self.M}: pad it to a multiple of"
                f" {self.M // gcd(self.M, self.N)} px a side"
            )
        return tuple(side * self.N // self.M for side in canvas_shape)

    def image(self, canvas: Complex[Tensor, "*k H W"]) -> Complex[Tensor, "*k h w"]:
        """What the detector's grid holds of a canvas; a constant stays itself."""
        if self.M == self.N:
            return canvas
        kept = self._kept(canvas.shape[-2:], self.shape(canvas.shape[-2:]))
        spectrum = torch.fft.fftshift(torch.fft.fft2(canvas, norm="ortho"), dim=_AXES)
        return _image(spectrum[..., *kept]) / self.finer

    def adjoint(
        self, image: Complex[Tensor, "*k h w"], canvas_shape: Sequence[int]
    ) -> Complex[Tensor, "*k H W"]:
        """Adjoint of :meth:`image`."""
        if self.M == self.N:
            return image
        whole = image.new_zeros(*image.shape[:-2], *canvas_shape)
        kept = self._kept(canvas_shape, image.shape[-2:])
        whole[..., *kept] = torch.fft.fftshift(torch.fft.fft2(image, norm="ortho"), dim=_AXES)
        return _image(whole) / self.finer

    def spread(
        self, image: Complex[Tensor, "*k h w"], canvas_shape: Sequence[int]
    ) -> Complex[Tensor, "*k H W"]:
        """The canvas of least detail that :meth:`image` gives an image of."""
        return self.adjoint(image, canvas_shape) * self.finer**2

    def on_canvas(self, region: Region) -> Region:
        """The canvas's pixels of a region of the detector's grid, rounded."""
        ends = ((round(side.start * self.finer), round(side.stop * self.finer)) for side in region)
        rows, columns = (slice(*end) for end in ends)
        return rows, columns

    @staticmethod
    def _kept(whole: Sequence[int], part: Sequence[int]) -> list[slice]:
        """The frequencies about zero that the detector's grid has, zero frequency in the middle."""
        firsts = (n // 2 - m // 2 for n, m in zip(whole, part, strict=True))
        return [slice(first, first + m) for first, m in zip(firsts, part, strict=True)]


def _image(spectrum: Tensor) -> Tensor:
    """Of a spectrum with zero frequency in the middle."""
    return torch.fft.ifft2(torch.fft.ifftshift(spectrum, dim=_AXES), norm="ortho")


def scan_on_detector_grid(raw: RawDataTorch) -> RawDataTorch:
    """The scan with probe, object and positions on the detector's own grid: what a program sees
    that knows no finer one. The light beside the detector folds back there."""
    grid, scan = DetectorGrid.of(raw), raw.scan
    if raw.M == raw.N:
        return raw
    step = raw.M // gcd(raw.M, raw.N)
    image = raw.object_guess
    pad = [-side % step for side in image.shape]
    image = torch.nn.functional.pad(image, (0, pad[1], 0, pad[0]), value=1.0)
    probe = optics.backpropagate(optics.propagate(raw.probe, raw.N)).numpy()
    y, x = (scan.positions / grid.finer).T
    found = grid.image(image).numpy()
    changed = replace(scan, probe=probe, xcoords=x, ycoords=y, object_guess=found)
    return RawDataTorch(changed, raw.source)
