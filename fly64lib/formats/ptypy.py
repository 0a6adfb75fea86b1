"""PtyPy's `.ptyd` (HDF5), read by its published description.

    chunks/K/data (m, N, N) counts, chunks/K/positions (m, 2) in m, (y, x); meta/energy keV,
    distance m, psize m

The file holds neither probe nor object. Chunks are taken in the order of their number; frames
without a position cannot be used."""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from fly64lib.formats.hdf5 import Hdf5File
from fly64lib.formats.raw import CHARGE_C, PLANCK_J_M, RawScan, array_blocks, stack_reader
from ptycho_torch.data.npz import broken


def recognised(file: Hdf5File) -> bool:
    return file.find("chunks/0/data") is not None


def read(file: Hdf5File, path: Path) -> RawScan:
    """Read a `.ptyd` whose chunks lie in it."""
    parts, positions, weights = [], [], []
    numbers = sorted((name for name in file.children("chunks") if name.isdigit()), key=int)
    for number in numbers:
        data = file.dataset(f"chunks/{number}/data", "iuf")
        at = file.read(f"chunks/{number}/positions", "iuf")
        if len(data.shape) != 3 or at.shape != (data.shape[0], 2):
            raise broken(
                path,
                f"chunks/{number}",
                f"patterns {data.shape} and positions {at.shape}",
                "(m, N, N) and (m, 2)",
                "prepare the file again with positions",
            )
        if parts and data.shape[1:] != parts[0].shape[1:]:
            raise broken(
                path,
                f"chunks/{number}/data",
                f"shape {data.shape}",
                f"patterns of {parts[0].shape[1:]} px as in the first chunk",
                "prepare the file again",
            )
        if 0 in data.shape:
            raise broken(
                path,
                f"chunks/{number}/data",
                f"empty, shape {data.shape}",
                "patterns",
                "prepare the file again",
            )
        parts.append(data)
        positions.append(at.astype(np.float64))
        if (
            file.find(f"chunks/{number}/weights")
            and 0 not in file.dataset(f"chunks/{number}/weights").shape
        ):
            weights.append(file.dataset(f"chunks/{number}/weights", "iuf"))
    if not parts:
        raise broken(
            path, "chunks", "no chunk", "chunks/0/data and so on", "prepare the file again"
        )
    rows, columns = parts[0].shape[1:]

    def blocks(stacks: list) -> Iterator[np.ndarray]:
        return chain.from_iterable(
            array_blocks(stack_reader(stack, 0, 0), stack.shape[0], rows * columns)
            for stack in stacks
        )

    bad = np.zeros((rows, columns), bool)
    if file.find("meta/weight2d"):
        weights.append(file.dataset("meta/weight2d", "iuf"))
    for weight in weights:
        if weight.shape[-2:] != (rows, columns):
            raise broken(
                path,
                weight.name,
                f"shape {weight.shape}",
                f"weights of {rows} x {columns} px",
                "prepare it again",
            )
        stack = blocks([weight]) if len(weight.shape) == 3 else [weight[()][None]]
        for block in stack:
            bad |= (block == 0).any(0)
    return RawScan(
        path,
        "ptypy",
        sum(part.shape[0] for part in parts),
        (rows, columns),
        lambda: blocks(parts),
        np.concatenate(positions),
        "m",
        values="intensity",
        zero_frequency="centre",
        bad=bad,
        detector_step_per_m=_step(file),
        metadata=(
            {"label": label} if (label := file.text("meta/label")) not in (None, "None", "") else {}
        ),
    )


def _step(file: Hdf5File) -> float | None:
    energy_kev, distance_m = file.number("meta/energy"), file.number("meta/distance")
    pixel = file.read("meta/psize", "iuf").reshape(-1) if file.find("meta/psize") else np.zeros(0)
    if (
        energy_kev is None
        or distance_m is None
        or not pixel.size
        or not 0 < pixel[0] < 1
        or (pixel != pixel[0]).any()
    ):
        return None  # pixels that are not square have no one step
    return float(pixel[0]) * energy_kev * 1e3 * CHARGE_C / (PLANCK_J_M * distance_m)
