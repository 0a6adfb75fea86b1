"""A miniature of the study's scan for tests: star, zone-plate probe, jittered raster, counts drawn
from the oracle.

The diffraction comes from `oracle`, not from the engine, so that a reconstruction is checked
against other physics."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import oracle
import torch
from torch import Tensor

from fly64lib.design.registries import SPECIMENS
from fly64lib.simulation.probes import ZonePlate, zone_plate_probe
from ptycho_torch.data.contract import ScanData
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.geometry import Geometry, Patterns


@lru_cache(maxsize=32)
def geometry(
    N: int = 32, across: int = 9, specimen: str = "siemens_star", modes: int = 1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(object, probe of power 1, y, x, expected counts at power 1); positions an eighth of N apart,
    canvas not square."""
    # Coarser detector pixels and less defocus: the same optics in a smaller window, a ring of some
    # N / 2 px.
    probe = zone_plate_probe(
        N, optics=ZonePlate(detector_pixel_um=75 * 64 / N, defocus_mm=0.8 * N / 64)
    )[None]
    if modes == 2:
        twisted = oracle.moved(probe[0], 1.4, -0.7) * np.exp(0.2j * np.arange(N))
        probe = np.stack([probe[0] * 0.8**0.5, twisted * 0.2**0.5])
    rng, step = np.random.default_rng([seed, N]), N / 8
    rows, columns = np.mgrid[:across, : across + 1].reshape(2, -1) * step
    jitter = rng.uniform(-0.3, 0.3, (2, len(rows))) * step
    y, x = rows + jitter[0] + N / 2 + step, columns + jitter[1] + N / 2 + step
    shape = (int(y.max() + N / 2 + step), int(x.max() + N / 2 + step))
    image = SPECIMENS[specimen](shape, seed)
    return image, probe, y, x, oracle.expected_counts(image, probe, y, x)


def small_scan(
    dose: float = 1e5,
    noise_seed: int = 1,
    groups: np.ndarray | None = None,
    truth: bool = False,
    **kinds,
) -> ScanData:
    """Poisson counts at `dose` expected photons per exposure; `kinds` as in :func:`geometry`."""
    image, probe, y, x, expected = geometry(**kinds)
    scale = dose / expected.sum((1, 2)).mean()
    counts = np.random.default_rng(noise_seed).poisson(expected * scale)
    patches = oracle.patches(image, y, x, probe.shape[-1]).astype(np.complex64) if truth else None
    return ScanData(
        np.sqrt(counts).astype(np.float32),
        x,
        y,
        (probe * scale**0.5).astype(np.complex64),
        image.astype(np.complex64),
        truth_patches=patches,
        groups=groups,
        metadata={"dose": dose, "object_kind": "truth", "probe_kind": "truth"},
    )


def small_raw(*arguments, **kinds) -> RawDataTorch:
    """:func:`small_scan` as training and inference see it."""
    return RawDataTorch(small_scan(*arguments, **kinds), Path("small_scan.npz"))


def noiseless(
    dose: float, dtype: torch.dtype = torch.complex64, **kinds
) -> tuple[Patterns, Tensor]:
    """Patterns with the oracle's expected counts on the whole object, and that object; `kinds` as
    in :func:`geometry`."""
    image, probe, y, x, expected = geometry(**kinds)
    scale = dose / expected.sum((1, 2)).mean()
    counts = torch.from_numpy(expected * scale).to(dtype.to_real())
    positions, beam = torch.from_numpy(np.stack([y, x], 1)), torch.from_numpy(probe * scale**0.5)
    places = Geometry.of(positions, beam.to(dtype), image.shape, whole=True)
    return Patterns(places, counts.__getitem__), torch.from_numpy(image).to(dtype)[None]


def random_patterns(
    N: int, modes: int = 2, canvases: int = 1, rate: float = 9.0
) -> tuple[Patterns, Tensor]:
    """Noise in double precision under a complex probe, N < 8, and a complex canvas of 9 x 12 px
    under it. Nothing in it is symmetric."""
    rng = np.random.default_rng(2)
    probe = torch.from_numpy(oracle.complex_field(rng, modes, N, N)) * rate**0.5
    corners = ((0, 0), (1, 4), (2, 3))
    address = torch.tensor([[canvas, *corner] for canvas in range(canvases) for corner in corners])
    counts = torch.from_numpy(rng.poisson(rate, (len(address), N, N)).astype(float))
    rest = torch.from_numpy(rng.uniform(-0.5, 0.5, (len(address), 2)))
    shape = (canvases, 9, 12)
    places = Geometry(address, rest, probe, shape, passes=False)
    canvas = torch.from_numpy(oracle.complex_field(rng, *shape))
    return Patterns(places, counts.__getitem__), canvas


def seen_region(raw: RawDataTorch) -> tuple[slice, slice]:
    """Rows and columns inside the bounding box of the patch centres."""
    (top, left), (bottom, right) = (
        raw.positions.amin(0).ceil().int().tolist(),
        raw.positions.amax(0).int().tolist(),
    )
    return slice(top, bottom + 1), slice(left, right + 1)
