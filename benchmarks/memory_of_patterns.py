"""Peak anonymous memory (RssAnon) of reading a scan, or of training on it, for 1,000 and 10,304
patterns of 64 x 64.

    python benchmarks/memory_of_patterns.py [--patterns 1000 10304] [--compressed] [--train]

Each size runs in a process of its own, which opens a DATA-001 file that also holds truth patches,
goes through all counts in shuffled batches (or trains on it for one short epoch), while a thread
reads RssAnon in /proc/self/status (Linux) every 2 ms. Memory that only mirrors the file (RssFile)
is not counted: the system takes it back when it needs to. Exits with 1 if the largest scan needs
more than 40 MB more than the smallest."""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

LIMIT_MB = 40
N, CANVAS, BATCH = 64, 232, 64


def make_scan(path: Path, n: int, compressed: bool) -> None:
    """A scan of Poisson patterns at 1e4 photons with truth patches; written without ever holding
    the patterns."""
    from ptycho_torch.data.contract import ScanData, write_scan

    rng = np.random.default_rng(n)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        stack = np.lib.format.open_memmap(Path(folder) / "d.npy", "w+", np.float32, (n, N, N))
        for first in range(0, n, 256):
            stack[first : first + 256] = np.sqrt(
                rng.poisson(1e4 / N**2, (min(256, n - first), N, N))
            )
        truth = np.broadcast_to(np.exp(1j * rng.random((N, N))).astype(np.complex64), (n, N, N))
        x, y = rng.uniform(N / 2, CANVAS - N / 2, (2, n))
        write_scan(
            path,
            ScanData(
                stack,
                x,
                y,
                np.full((N, N), 100 / N, np.complex64),
                np.ones((CANVAS, CANVAS), np.complex64),
                truth,
                metadata={"dose": 1e4},
            ),
        )
    if compressed:
        with np.load(path) as arrays:
            np.savez_compressed(path, **arrays)


def rss_anon_mb() -> float:
    """Anonymous resident memory of this process, MB."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def go_through(raw) -> None:
    """All counts once, in shuffled batches."""
    photons = 0.0
    for batch in np.array_split(np.random.default_rng(0).permutation(raw.n), -(-raw.n // BATCH)):
        photons += float(raw.counts(batch).sum())
    assert abs(photons / raw.n / raw.photons_per_exposure - 1) < 1e-4, (
        "counts and amplitudes disagree"
    )


def train(raw) -> None:
    """One epoch under one thinning of a small network, unsupervised: the truth patches stay in the
    file."""
    from ptycho_torch.config import ModelConfig, TrainingConfig
    from ptycho_torch.workflows.components import train_cdi_model_torch

    config = TrainingConfig(
        model=ModelConfig(width=8, canvas_passes=(1, 2)),
        max_epochs=1,
        thinnings=1,
        logger="none",
        checkpointing=False,
        output_dir=str(raw.source.parent / "run"),
    )
    train_cdi_model_torch(raw, None, config)


def watched(path: Path, use) -> None:
    """Open the scan, `use` it, and print the peak RssAnon in MB and the patterns per second."""
    from ptycho_torch.memmap_bridge import PyTorchMemmapBridge

    peak, done = [rss_anon_mb()], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], rss_anon_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    raw = PyTorchMemmapBridge(path, cache_dir=path.parent).raw_data_torch
    use(raw)
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    print(f"{peak[0]:.1f} {raw.n / seconds:.0f}")


def measure(sizes: list[int], compressed: bool = False, training: bool = False) -> dict[int, float]:
    """Peak RssAnon in MB for each number of patterns, one process each."""
    peaks = {}
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "scan.npz"
            make_scan(path, n, compressed)
            command = [
                sys.executable,
                __file__,
                "--read",
                str(path),
                *(["--train"] if training else []),
            ]
            run = subprocess.run(
                command,
                check=True,
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            )
            peak, rate = run.stdout.split()
            peaks[n] = float(peak)
            print(
                f"{n:6d} patterns ({path.stat().st_size / 2**20:.0f} MB file): peak RssAnon"
                f" {float(peak):.1f} MB, {rate} patterns/s with opening and checks"
            )
    return peaks


def main() -> int:
    """Command line; 0 if the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patterns", type=int, nargs="+", default=[1000, 10304])
    parser.add_argument(
        "--compressed", action="store_true", help="deflated file, unpacked to a cache on opening"
    )
    parser.add_argument(
        "--train", action="store_true", help="train for one short epoch instead of reading"
    )
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        watched(options.read, train if options.train else go_through)
        return 0
    peaks = measure(options.patterns, options.compressed, options.train)
    difference = peaks[max(peaks)] - peaks[min(peaks)]
    print(f"difference {difference:.1f} MB, limit {LIMIT_MB} MB")
    return int(difference > LIMIT_MB)


if __name__ == "__main__":
    raise SystemExit(main())
