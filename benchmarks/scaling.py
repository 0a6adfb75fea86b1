"""CPU time and memory of training against the number of patterns and of epochs, with a straight
line through each.

    python benchmarks/scaling.py --output scaling [--patterns 250 500 1000 2000 4000] [--epochs 1 2
    4]

Each point is a training in a process of its own, at the default network on a simulated scan of
fixed area, so that more patterns mean a denser scan. Written as `scaling.json` and `scaling.png`
into the output folder; printed are the line's slope and the largest deviation from it, relative to
the fitted time, and by how much the peak of anonymous memory (RssAnon, Linux; what only mirrors the
file does not count) grows from the fewest to the most patterns."""

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import PLAIN, fresh, main, peak_rss_anon
from matplotlib.figure import Figure
from memory_of_patterns import make_scan

from ptycho_torch.fields import Positive, Threads, config
from ptycho_torch.files import write_json
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.versions import software_versions


@config
class ScalingOptions:
    """CPU time and memory of training against patterns and epochs."""

    output: Path
    patterns: tuple[Positive, ...] = (250, 500, 1000, 2000, 4000)
    epochs: tuple[Positive, ...] = (1, 2, 4)
    at: Positive = 1000  # patterns of the series over epochs
    thinnings: Positive = 1
    threads: Threads = 1


def train(path: Path, epochs: int, thinnings: int, threads: int) -> dict[str, float]:
    """CPU seconds and peak RssAnon (MB) of one training on `path`, the opening of the file
    included."""
    from ptycho_torch.workflows.components import train_cdi_model_torch

    folder = str(path.parent / "run")
    settings = {"max_epochs": epochs, "thinnings": thinnings, "threads": threads}
    start = time.process_time()
    with peak_rss_anon() as peak:
        raw = PyTorchMemmapBridge(path, cache_dir=path.parent).raw_data_torch
        train_cdi_model_torch(raw, None, replace(PLAIN, output_dir=folder, **settings))
    seconds = time.process_time() - start
    cost = {"cpu_seconds": seconds, "peak_rss_anon_mb": peak[0]}
    return {"patterns": raw.n, "epochs": epochs, **cost, "load": os.getloadavg()[0]}


def line(x: list[float], y: list[float]) -> tuple[float, float, float]:
    """Slope and intercept of the line of least squared relative error, and the largest relative
    deviation from it."""
    slope, intercept = np.polyfit(x, y, 1, w=1 / np.asarray(y))
    fitted = slope * np.asarray(x) + intercept
    return float(slope), float(intercept), float(np.abs(np.asarray(y) / fitted - 1).max())


def draw(path: Path, series: dict[str, list[dict]]) -> None:
    """CPU time (with its line) and memory against patterns and against epochs."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    for column, (name, rows) in zip(figure.subplots(2, 2).T, series.items(), strict=True):
        x = [row[name] for row in rows]
        seconds = [row["cpu_seconds"] for row in rows]
        slope, intercept, _ = line(x, seconds)
        column[0].plot(x, seconds, "o", x, [slope * value + intercept for value in x], "-")
        column[1].plot(x, [row["peak_rss_anon_mb"] for row in rows], "o-")
        for axis, label in zip(column, ("CPU time, s", "peak RssAnon, MB"), strict=True):
            axis.set(xlabel=name, ylabel=label, xlim=(0, None), ylim=(0, None))
    figure.savefig(path, dpi=100)


def scaling(options: ScalingOptions) -> int:
    """Measure both series, fit their lines, and write and draw them."""
    options.output.mkdir(parents=True, exist_ok=True)
    points: dict[tuple[int, int], dict] = {}

    def point(n: int, epochs: int) -> dict:
        if (n, epochs) not in points:
            with tempfile.TemporaryDirectory() as folder:
                scan = Path(folder) / "scan.npz"
                make_scan(scan, n)
                found = fresh(train, scan, epochs, options.thinnings, options.threads)
            points[n, epochs] = found
            print(
                f"{n:6d} patterns, {epochs} epochs: {found['cpu_seconds']:.1f} CPU s, peak RssAnon"
                f" {found['peak_rss_anon_mb']:.0f} MB, load {found['load']:.1f}",
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
    first, last = options.patterns[0], options.patterns[-1]
    print(f"memory: {memory[-1] - memory[0]:+.0f} MB from {first} to {last} patterns")
    made = {"threads": options.threads, "thinnings": options.thinnings}
    content = {"series": series, "lines": fits, **made, "versions": software_versions()}
    write_json(options.output / "scaling.json", content)
    draw(options.output / "scaling.png", series)
    return 0


if __name__ == "__main__":
    main(ScalingOptions, scaling)
