"""Share of this machine's attainable convolution, matrix and FFT throughput that training reaches,
on one thread.

    python benchmarks/throughput.py dense_train.npz [--steps 50] [--json out.json]

Training runs twice: once recorded, every convolution, matrix product and FFT with its shapes and
strides, and once timed. Then each recorded call is timed alone, in a tight loop on tensors of the
same shapes and strides; the fastest of its repeats counts as what the machine can do. The share is
the sum of these times over the CPU time of the timed training, features, optimiser and Lightning
included. FLOPs: torch.utils.flop_counter's formulas (a multiplication and an addition are two), 5 n
log2 n for a complex FFT of n points. A large matrix product stands beside it as the machine's peak.
"""

import math
import os
import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from common import PLAIN, main, table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from tyro.conf import Positional

from ptycho_torch.config import ModelConfig
from ptycho_torch.fields import Positive, config
from ptycho_torch.files import write_json
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.versions import software_versions
from ptycho_torch.workflows import components

aten = torch.ops.aten
KINDS = {
    aten.convolution.default: "convolution",
    aten.convolution_backward.default: "convolution",
    aten.mm.default: "matrix",
    aten.addmm.default: "matrix",
    aten.bmm.default: "matrix",
    aten._fft_c2c.default: "FFT",
}
_MARK = "tensor"  # opens the description of a tensor among an operation's arguments


class Recorder(TorchDispatchMode):
    """Counts the calls of the operations in KINDS, by operation and arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in KINDS:
            self.calls[func, _described(args)] += 1
        return func(*args, **(kwargs or {}))


def _described(value: object) -> object:
    """Arguments with every tensor replaced by its shape, strides and type: hashable, and enough to
    make one like it."""
    if isinstance(value, torch.Tensor):
        return _MARK, tuple(value.shape), value.stride(), value.dtype
    return tuple(map(_described, value)) if isinstance(value, (tuple, list)) else value


def _like(value: object) -> object:
    if isinstance(value, tuple) and value[:1] == (_MARK,):
        return torch.empty_strided(value[1], value[2], dtype=value[3]).normal_()
    return [_like(part) for part in value] if isinstance(value, tuple) else value


def seconds_of(call, least: float = 0.15) -> float:
    """CPU seconds of one call: the fastest of repeats that take `least` seconds together, after a
    warm one."""
    call()
    spent, best = 0.0, math.inf
    while spent < least:
        start = time.process_time()
        call()
        took = time.process_time() - start
        spent, best = spent + took, min(best, took)
    return best


def flops_of(func, args: list, out: object) -> float:
    """Floating-point operations of one call."""
    if KINDS[func] == "FFT":
        points = math.prod(args[0].shape[axis] for axis in args[1])
        return 5 * args[0].numel() * math.log2(points)
    return flop_registry[func.overloadpacket](*args, out_val=out)


def train(raw: RawDataTorch, steps: int, folder: str) -> float:
    """CPU seconds of a training of `steps` optimiser steps under one thinning."""
    gridsize = 1 if raw.groups is None else round(raw.groups.shape[1] ** 0.5)
    model = ModelConfig(N=raw.N, gridsize=gridsize)
    settings = replace(PLAIN, model=model, steps=steps, thinnings=1, output_dir=folder)
    start = time.process_time()
    components.train_cdi_model_torch(raw, None, settings)
    return time.process_time() - start


@config
class ThroughputOptions:
    """Share of this machine's attainable throughput that training reaches."""

    dataset: Positional[Path]  # DATA-001 file to train on
    steps: Positive = 50  # optimiser steps; few of them weigh the start too much
    json: Path | None = None  # where to write the figures


def throughput(options: ThroughputOptions) -> int:
    """Train twice, time the recorded calls alone, and print shares and rates."""
    raw, load, recorder = open_scan(options.dataset), os.getloadavg()[0], Recorder()
    with tempfile.TemporaryDirectory() as folder:
        with recorder:
            train(raw, options.steps, folder)
        taken = train(raw, options.steps, folder)
    flops, alone = Counter(), Counter()
    for (func, described), count in recorder.calls.items():
        args = _like(described)
        flops[KINDS[func]] += count * flops_of(func, args, func(*args))
        alone[KINDS[func]] += count * seconds_of(lambda func=func, args=args: func(*args))
    square = torch.randn(1024, 1024)
    peak = 2 * 1024**3 / seconds_of(lambda: square @ square) / 1e9
    rows = [
        {
            "kind": kind,
            "GFLOP": flops[kind] / 1e9,
            "alone, s": alone[kind],
            "GFLOP/s": flops[kind] / alone[kind] / 1e9,
            "share of training": alone[kind] / taken,
        }
        for kind in flops
    ]
    print(table(rows, list(rows[0])))
    total, ideal = sum(flops.values()), sum(alone.values())
    print(
        f"training: {taken:.2f} CPU s for {total / 1e9:.1f} GFLOP, {total / taken / 1e9:.1f}"
        f" GFLOP/s; the same calls alone {ideal:.2f} s, {total / ideal / 1e9:.1f} GFLOP/s: share"
        f" {ideal / taken:.0%} (goal: 50 %)\nmatrix product 1024 x 1024: {peak:.1f} GFLOP/s; load"
        f" {load:.1f} to {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"
    )
    if options.json:
        data = {"dataset": options.dataset.name, "patterns": raw.n, "steps": options.steps}
        times = {"flop": flops, "seconds_alone": alone, "training_cpu_seconds": taken}
        rates = {"share": ideal / taken, "matrix_peak_gflops": peak, "load": load}
        write_json(options.json, data | times | rates | {"versions": software_versions()})
    return 0


if __name__ == "__main__":
    main(ThroughputOptions, throughput)
