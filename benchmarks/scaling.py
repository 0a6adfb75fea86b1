"""CPU time and memory of training against the number of patterns and of epochs, with a straight
line through each.

    python benchmarks/scaling.py --output scaling [--patterns 250 500 1000 2000 4000] [--epochs 1 2
    4]

Each point is a training in a process of its own, at the default network on a simulated scan of
fixed area, so that more patterns mean a denser scan. Written as `scaling.json` and `scaling.png`
into the output folder; printed are the line's slope and the largest deviation from it, relative to
the fitted time, and by how much the peak of anonymous memory (RssAnon, Linux; what only mirrors the
file does not count) grows from the fewest to the most patterns."""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import matplotlib
import numpy as np
from memory_of_patterns import make_scan, rss_anon_mb

from ptycho_torch.config import TrainingConfig
from ptycho_torch.files import read_json, write_json
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.versions import software_versions
from ptycho_torch.workflows import components

matplotlib.use("Agg")


def train(path: Path, epochs: int, thinnings: int, threads: int) -> dict[str, float]:
    """CPU seconds and peak RssAnon (MB) of one training on `path`, the opening of the file
    included."""
    peak, done = [rss_anon_mb()], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            peak[0] = max(peak[0], rss_anon_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.process_time()
    raw = PyTorchMemmapBridge(path, cache_dir=path.parent).raw_data_torch
    components.train_cdi_model_torch(
        raw,
        None,
        TrainingConfig(
            max_epochs=epochs,
            thinnings=thinnings,
            threads=threads,
            logger="none",
            checkpointing=False,
            output_dir=str(path.parent / "run"),
        ),
    )
    seconds = time.process_time() - start
    done.set()
    watcher.join()
    return {
        "patterns": raw.n,
        "epochs": epochs,
        "cpu_seconds": seconds,
        "peak_rss_anon_mb": peak[0],
    }


def line(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Slope and intercept of the line of least squared relative error, and the largest relative
    deviation from it."""
    slope, intercept = np.polyfit(x, y, 1, w=1 / np.asarray(y))
    fitted = slope * np.asarray(x) + intercept
    return float(slope), float(intercept), float(np.abs(np.asarray(y) / fitted - 1).max())


def draw(path: Path, series: dict[str, list[dict]]) -> None:
    """CPU time (with its line) and memory against patterns and against epochs."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), layout="constrained")
    for column, (name, rows) in zip(axes.T, series.items(), strict=True):
        x = [row[name] for row in rows]
        seconds = [row["cpu_seconds"] for row in rows]
        slope, intercept, _ = line(x, seconds)
        column[0].plot(x, seconds, "o", x, [slope * value + intercept for value in x], "-")
        column[1].plot(x, [row["peak_rss_anon_mb"] for row in rows], "o-")
        for axis, label in zip(column, ("CPU time, s", "peak RssAnon, MB"), strict=True):
            axis.set(xlabel=name, ylabel=label, xlim=(0, None), ylim=(0, None))
    figure.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--patterns", type=int, nargs="+", default=[250, 500, 1000, 2000, 4000])
    parser.add_argument("--epochs", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument(
        "--at",
        type=int,
        default=1000,
        help="patterns of the series over epochs (default: %(default)s)",
    )
    parser.add_argument("--thinnings", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--one", nargs=3, help=argparse.SUPPRESS
    )  # a fresh process: scan, epochs, where to write the point
    options = parser.parse_args(argv)
    if options.one:
        write_json(
            options.one[2],
            train(Path(options.one[0]), int(options.one[1]), options.thinnings, options.threads),
        )
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    points: dict[tuple[int, int], dict] = {}

    def point(n: int, epochs: int) -> dict:
        if (n, epochs) not in points:
            with tempfile.TemporaryDirectory() as folder:
                scan, result = Path(folder) / "scan.npz", Path(folder) / "point.json"
                make_scan(scan, n, compressed=False)
                command = [
                    sys.executable,
                    "-W",
                    "ignore",
                    __file__,
                    "--output",
                    folder,
                    "--thinnings",
                    str(options.thinnings),
                    "--threads",
                    str(options.threads),
                    "--one",
                    scan,
                    str(epochs),
                    result,
                ]
                subprocess.run(
                    command, check=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
                )
                points[n, epochs] = read_json(result) | {"load": os.getloadavg()[0]}
            row = points[n, epochs]
            print(
                f"{n:6d} patterns, {epochs} epochs: {row['cpu_seconds']:.1f} CPU s, peak RssAnon "
                f"{row['peak_rss_anon_mb']:.0f} MB, load {row['load']:.1f}",
                flush=True,
            )
        return points[n, epochs]

    series = {
        "patterns": [point(n, options.epochs[0]) for n in options.patterns],
        "epochs": [point(options.at, epochs) for epochs in options.epochs],
    }
    fits = {
        name: line([row[name] for row in rows], [row["cpu_seconds"] for row in rows])
        for name, rows in series.items()
    }
    for name, (slope, intercept, deviation) in fits.items():
        print(
            f"{name}: {intercept:.2f} s + {slope:.3g} s each; largest deviation from the line"
            f" {deviation:.1%}"
        )
    memory = [row["peak_rss_anon_mb"] for row in series["patterns"]]
    print(
        f"memory: {memory[-1] - memory[0]:+.0f} MB from {options.patterns[0]} to"
        f" {options.patterns[-1]} patterns; {software_versions()}"
    )
    write_json(
        options.output / "scaling.json",
        {
            "series": series,
            "lines": fits,
            "threads": options.threads,
            "thinnings": options.thinnings,
            "versions": software_versions(),
        },
    )
    draw(options.output / "scaling.png", series)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
