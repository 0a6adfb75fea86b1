"""Peak anonymous memory (RssAnon) of reading a scan of 1,000 and of 10,304 patterns of 64 x 64.

    python benchmarks/memory_of_patterns.py [--patterns 1000 10304] [--compressed]

Each size runs in a process of its own, which opens a DATA-001 file that also holds truth patches,
and goes through all counts in shuffled batches. Exits with 1 if the largest scan needs more than 40
MB more than the smallest. `scaling.py` measures training."""

import tempfile
import time
from pathlib import Path

import numpy as np
from common import fresh, main, peak_rss_anon

from ptycho_torch.data.contract import ScanData, write_scan
from ptycho_torch.fields import Positive, config
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge, RawDataTorch

LIMIT_MB = 40
N, CANVAS, BATCH = 64, 232, 64


@config
class MemoryOptions:
    """Peak memory of reading, against the number of patterns."""

    patterns: tuple[Positive, ...] = (1000, 10304)
    compressed: bool = False  # deflated file, unpacked to a cache on opening


def make_scan(path: Path, n: int, compressed: bool = False) -> None:
    """A scan of Poisson patterns at 1e4 photons with truth patches; written without ever holding
    the patterns."""
    rng = np.random.default_rng(n)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        stack = np.lib.format.open_memmap(Path(folder) / "d.npy", "w+", np.float32, (n, N, N))
        for first in range(0, n, 256):
            counts = rng.poisson(1e4 / N**2, (min(256, n - first), N, N))
            stack[first : first + 256] = np.sqrt(counts)
        truth = np.broadcast_to(np.exp(1j * rng.random((N, N))).astype(np.complex64), (n, N, N))
        x, y = rng.uniform(N / 2, CANVAS - N / 2, (2, n))
        probe = np.full((N, N), 100 / N, np.complex64)
        image = np.ones((CANVAS, CANVAS), np.complex64)
        write_scan(path, ScanData(stack, x, y, probe, image, truth, metadata={"dose": 1e4}))
    if compressed:
        with np.load(path) as arrays:
            np.savez_compressed(path, **arrays)


def go_through(raw: RawDataTorch) -> None:
    """All counts once, in shuffled batches."""
    photons = 0.0
    for batch in np.array_split(np.random.default_rng(0).permutation(raw.n), -(-raw.n // BATCH)):
        photons += float(raw.counts(batch).sum())
    off = abs(photons / raw.n / raw.photons_per_exposure - 1)
    assert off < 1e-4, "counts and amplitudes disagree"


def watched(path: Path) -> tuple[float, float]:
    """Peak RssAnon in MB and patterns per second of opening and reading a scan."""
    start = time.perf_counter()
    with peak_rss_anon() as peak:
        raw = PyTorchMemmapBridge(path, cache_dir=path.parent).raw_data_torch
        go_through(raw)
    return peak[0], raw.n / (time.perf_counter() - start)


def measure(sizes: tuple[int, ...], compressed: bool = False) -> dict[int, float]:
    """Peak RssAnon in MB for each number of patterns, one process each."""
    peaks = {}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scan.npz"
            make_scan(path, n, compressed)
            peaks[n], rate = fresh(watched, path)
            print(
                f"{n:6d} patterns ({path.stat().st_size / 2**20:.0f} MB file): peak RssAnon"
                f" {peaks[n]:.1f} MB, {rate:.0f} patterns/s with opening and checks"
            )
    return peaks


def memory(options: MemoryOptions) -> int:
    """0 if the limit is kept."""
    peaks = measure(options.patterns, options.compressed)
    difference = peaks[max(peaks)] - peaks[min(peaks)]
    print(f"difference {difference:.1f} MB, limit {LIMIT_MB} MB")
    return int(difference > LIMIT_MB)


if __name__ == "__main__":
    main(MemoryOptions, memory)
