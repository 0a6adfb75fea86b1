"""Splits of the measured photons into an input and a score, kept on disk.

Both parts are kept, as integer counts per detector pixel: they are read at every step. They lie in
an unlinked temporary file that the operating system maps and frees, so that memory does not grow
with the number of patterns."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ptycho_torch.data.once import Once
from ptycho_torch.files import storage_checked
from ptycho_torch.memmap_bridge import Indices, RawDataTorch
from ptycho_torch.physics.geometry import CHUNK
from ptycho_torch.physics.noise import thin_counts


class ThinnedCounts:
    """The share `keep` of the photons of some images, drawn once per pattern with the seed (seed,
    its index)."""

    def __init__(self, raw: RawDataTorch, images: Int[Tensor, " n"], keep: float, seed: int):
        seeds = torch.from_numpy(
            np.random.SeedSequence(seed).generate_state(len(images), np.uint64).astype(np.int64)
        )
        place = Path(tempfile.gettempdir()) / "temporary file of thinned photons"
        with (
            storage_checked(place),
            tempfile.TemporaryFile() as file,
        ):  # the map keeps the storage alive, the name is gone
            # Written, not filled through the map: over a disk that is full, a map kills the process
            # without a word.
            for chunk in torch.arange(len(images)).split(CHUNK):
                counts = raw.counts(images[chunk])
                kept = thin_counts(counts, keep, seeds[chunk])
                file.write(
                    torch.stack([kept, counts - kept], dim=1).numpy().astype(np.uint32).tobytes()
                )
            file.flush()
            self._parts = np.memmap(
                file, dtype=np.uint32, mode="r", shape=(len(images), 2, raw.N, raw.N)
            )

    def kept(self, indices: Int[Tensor, " m"]) -> Float[Tensor, "m N N"]:
        """Photons for the network's input; `indices` count within the images."""
        return torch.from_numpy(self._parts[indices.numpy(), 0].astype(np.float32))

    def rest(self, indices: Int[Tensor, " m"]) -> Float[Tensor, "m N N"]:
        """The photons that `kept` left out, independent of them."""
        return torch.from_numpy(self._parts[indices.numpy(), 1].astype(np.float32))


class PartOfThePhotons(RawDataTorch):
    """A scan as a share of its photons would have measured it: other counts, a fainter probe, all
    else the same."""

    def __init__(self, raw: RawDataTorch, counts: Callable[[Tensor], Tensor], share: float):
        super().__init__(raw.scan, raw.source)
        self.once = Once(within=raw.once)
        self.probe = raw.probe * share**0.5
        self.detector = raw.detector.fainter(share)
        self._counts = counts

    def counts(self, indices: Indices) -> Float[Tensor, "*batch N N"]:
        """Photon counts of the share."""
        return self._counts(torch.arange(self.n)[indices])


def split_photons(raw: RawDataTorch, keep: float, seed: int) -> tuple[RawDataTorch, RawDataTorch]:
    """Two independent measurements of one scan, with the shares `keep` and 1 - `keep` of its
    photons; drawn once for a scan in memory."""

    def parts() -> tuple[RawDataTorch, RawDataTorch]:
        photons = ThinnedCounts(raw, torch.arange(raw.n), keep, seed)
        rest = PartOfThePhotons(raw, photons.rest, 1 - keep)
        return PartOfThePhotons(raw, photons.kept, keep), rest

    return raw.once(("photons", keep, seed), parts)
