"""From a DATA-001 file to tensors, one batch at a time: patterns stay in the file, memory does not
grow with the scan.

:class:`PyTorchMemmapBridge` is what training and inference open; its :attr:`raw_data_torch` holds
what is small (probe, object, positions, groups) as tensors and hands out counts, and truth patches
where asked for, by index."""

from dataclasses import replace
from functools import cached_property
from math import gcd
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.container import refused
from ptycho_torch.data.contract import ScanData, read_scan
from ptycho_torch.data.once import Once
from ptycho_torch.errors import ConfigError
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns
from ptycho_torch.physics.optics import backpropagate, propagate

Indices = np.ndarray | Tensor | list[int] | slice
# float32 keeps sqrt(counts) to 6e-8, so the square to 1.2e-7 of the counts.
WHOLE_ABSOLUTE, WHOLE_RELATIVE = 0.05, 1e-6


class PyTorchMemmapBridge:
    """A DATA-001 file, checked and mapped.

    `cache_dir` is where a compressed file is unpacked (:func:`ptycho_torch.data.npz.cache_folder`).
    Truth patches are opened only `with_truth`: unsupervised training never touches them. Raises
    :class:`DataContractError`."""

    def __init__(
        self, npz_path: str | Path, *, cache_dir: str | Path | None = None, with_truth: bool = False
    ) -> None:
        scan = read_scan(npz_path, load_truth=with_truth, cache_dir=cache_dir)
        self.raw_data_torch = RawDataTorch(scan, Path(npz_path))


def open_scan(path: str | Path, *, with_truth: bool = False) -> "RawDataTorch":
    """Open a DATA-001 file: checked, its patterns mapped. Raises :class:`DataContractError`."""
    return PyTorchMemmapBridge(path, with_truth=with_truth).raw_data_torch


class RawDataTorch:
    """The tensors of a checked scan; `source` is named in errors.

    `probe` (modes, M, M) and `object_guess` (H, W) complex64; `positions` (n, 2) float64 patch
    centres (y, x), px; `groups` (G, C) and `scan_index` (n,) int64 arrays or None; `metadata` dict;
    `scan` the arrays behind them; `once` what methods made of it
    (:class:`ptycho_torch.data.once.Once`)."""

    def __init__(self, scan: ScanData, source: Path | str) -> None:
        self.source, self.scan, self.once = source, scan, Once()
        self.n, self.N, self.M, self.metadata = scan.n, scan.N, scan.M, scan.metadata
        self.groups, self.scan_index = scan.groups, scan.scan_index
        self.probe: Complex[Tensor, "modes M M"] = torch.tensor(scan.probe)
        self.object_guess: Complex[Tensor, "H W"] = torch.tensor(scan.object_guess)
        self.positions: Float[Tensor, "n 2"] = torch.tensor(scan.positions)
        mask, background = (
            None if array is None else torch.tensor(array)
            for array in (scan.detector_mask, scan.background)
        )
        self.detector = Detector(scan.N, mask, background)

    def counts(self, indices: Indices) -> Float[Tensor, "*batch N N"]:
        """Photon counts, amplitude^2 as whole numbers in float32; indices of shape (G, C) give (G,
        C, N, N).

        The Poisson likelihood and thinning need counts. Rounding removes what float32 lost in the
        root; amplitudes whose squares are not whole within that are refused."""
        squares = np.square(self._take(self.scan.diffraction, indices))
        whole = np.rint(squares)
        off = np.abs(squares - whole) > WHOLE_ABSOLUTE + WHOLE_RELATIVE * squares
        if off.any():
            text = f"{np.count_nonzero(off)} squares in this batch are not whole, such as"
            text += f" {squares[off][0]:.4f}; expected sqrt(counts) with whole photon counts; undo"
            text += " any scaling or background subtraction, or draw counts from an expectation"
            raise refused(self.source, "diffraction", text)
        return torch.from_numpy(whole)

    def truth_patches(self, indices: Indices) -> Complex[Tensor, "*batch M M"]:
        """True object patches, from `Y`; refused if the file has none or was opened without
        truth."""
        if self.scan.truth_patches is None:
            text = "no truth patches here; expected complex64 (n, M, M) and with_truth=True; open"
            text += " the file with_truth, use one that was simulated with truth, or train without"
            raise refused(self.source, "Y", f"{text} it")
        return torch.from_numpy(self._take(self.scan.truth_patches, indices))

    def geometry(self, images: np.ndarray | None = None, *, whole: bool = False) -> Geometry:
        """Where all patterns, or those of `images`, lie: on the bounding box of their patches, or
        on the `whole` object."""
        bright = self.scan.brightness
        bright = None if bright is None else torch.tensor(bright, dtype=torch.float32)
        chosen = slice(None) if images is None else images
        return Geometry.of(
            self.positions[chosen],
            self.probe,
            self.scan.canvas_shape,
            whole=whole,
            detector=self.detector,
            brightness=None if bright is None else bright[chosen],
        )

    def patterns(self, images: np.ndarray | None = None, *, whole: bool = False) -> Patterns:
        """The counts of all patterns, or of those of `images`, and where they lie."""
        chosen = torch.arange(self.n) if images is None else torch.as_tensor(images)
        return Patterns(self.geometry(images, whole=whole), lambda i: self.counts(chosen[i]))

    def subset(self, indices: np.ndarray) -> "RawDataTorch":
        """The scan of some of its patterns (:meth:`ptycho_torch.data.contract.ScanData.subset`)."""
        return type(self)(self.scan.subset(indices), self.source)

    def under(self, probe: Complex[np.ndarray, "modes M M"]) -> "RawDataTorch":
        """The same scan with another probe."""
        return type(self)(replace(self.scan, probe=probe), self.source)

    def finer(self, M: int) -> "RawDataTorch":
        """The same scan with probe and object on patches of M pixels over the same field: their
        spectra get zeros around, positions the finer unit. An object that would end within a pixel
        gets a border of 1 first. ConfigError for fewer pixels than there are."""
        if M < self.M:
            raise ConfigError(f"M={M} is less than the probe's {self.M} pixels; expected more")
        whole, unit = self.object_guess, self.M // gcd(M, self.M)
        below, right = (-side % unit for side in whole.shape)
        whole = torch.nn.functional.pad(whole, (0, right, 0, below), value=1.0)
        sides = [side * M // self.M for side in whole.shape]
        spectrum = torch.fft.fftshift(torch.fft.fft2(whole, norm="forward"))
        framed = torch.zeros(sides, dtype=spectrum.dtype)
        firsts = [new // 2 - old // 2 for new, old in zip(sides, whole.shape, strict=True)]
        rows, columns = (slice(a, a + n) for a, n in zip(firsts, whole.shape, strict=True))
        framed[rows, columns] = spectrum
        image = torch.fft.ifft2(torch.fft.ifftshift(framed), norm="forward")
        scan = replace(
            self.scan,
            probe=backpropagate(propagate(self.probe), M).numpy(),
            object_guess=image.to(torch.complex64).numpy(),
            xcoords=self.scan.xcoords * (M / self.M),
            ycoords=self.scan.ycoords * (M / self.M),
            truth_patches=None,
        )
        return type(self)(scan, self.source)

    def without_truth(self) -> "RawDataTorch":
        """What an experiment would have: counts, positions, probe, and an empty object of the same
        size. Neither the object that the file holds, nor its name, nor its metadata lead back to
        it."""
        scan = replace(
            self.scan,
            object_guess=np.ones(self.scan.canvas_shape, np.complex64),
            truth_patches=None,
            metadata={"object_kind": "initial"},
            extra={},
        )
        return type(self)(scan, "the scan")

    @cached_property
    def photons_per_exposure(self) -> float:
        """Measured mean photons per pattern of this file."""
        return mean_photons(self.scan.diffraction)

    @staticmethod
    def _take(stack: np.ndarray, indices: Indices) -> np.ndarray:
        """A copy in memory of the chosen patterns."""
        return np.array(stack[indices if isinstance(indices, slice) else np.asarray(indices)])
