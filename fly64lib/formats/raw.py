"""What every reader returns: a scan in the file's own terms, patterns not yet read.

Nothing is converted here. Patterns come in blocks, again and again, so that a scan larger than
memory passes through."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ptycho_torch.data.npz import broken

BLOCK_PIXELS = 2**20
PLANCK_J_M, CHARGE_C = 1.9864458571489286e-25, 1.602176634e-19  # h c; one eV in J


@dataclass
class RawScan:
    """A scan as its file has it. `None` is "the file does not say"."""

    source: Path
    format: str
    n: int
    detector_px: tuple[int, int]  # rows, columns
    blocks: Callable[[], Iterator[np.ndarray]]  # (k, rows, columns), real, in order
    positions: np.ndarray  # (n, 2) float64, (y, x) of the probe on the object, in `position_unit`
    position_unit: str = "px"  # px of an object whose patches are detector_px wide; or m, um, nm
    offset_px: tuple[float, float] | None = (
        None  # added to positions in px: patch centres from the object's corner
    )
    probe: np.ndarray | None = (
        None  # (modes, N, N) complex; sum |P|^2 is photons, or else it is rescaled
    )
    object_guess: np.ndarray | None = None  # (H, W) complex
    values: str | None = None  # intensity | amplitude
    zero_frequency: str | None = None  # centre | corner
    detector_step_per_m: float | None = (
        None  # spatial frequency from one detector pixel to the next, 1/m
    )
    bad: np.ndarray | None = None  # (rows, columns) bool, pixels that the file calls invalid
    metadata: dict = field(default_factory=dict)
    extra: dict[str, np.ndarray] = field(
        default_factory=dict
    )  # DATA-001 keys beside the required ones
    ours: bool = False  # fly64 export wrote it: the probe is in photons, whatever its power


def stack_shape(
    shape: tuple[int, ...], n: int, source: object, key: str
) -> tuple[int, int, tuple[int, int]]:
    """(leading axes of length 1, pattern axis among the rest, (rows, columns)) of a stack of `n`
    patterns.

    The pattern axis is the one as long as the list of positions; the first or the last one. Where
    both are, the first."""
    leading = max(0, len(shape) - 3)
    rest = shape[leading:]
    if len(rest) != 3 or any(length != 1 for length in shape[:leading]) or 0 in shape:
        raise broken(
            source,
            key,
            f"shape {shape}",
            "a stack of patterns (n, N, N) or (N, N, n)",
            "reshape it",
        )
    if rest[0] == n:
        return leading, 0, rest[1:]
    if rest[2] == n:
        return leading, 2, rest[:2]
    raise broken(
        source,
        key,
        f"shape {shape}, and {n} positions",
        "one pattern for each position, along the first or the last axis",
        "leave out the positions without a pattern, or the other way round",
    )


def array_blocks(read: Callable[[slice], np.ndarray], n: int, pixels: int) -> Iterator[np.ndarray]:
    """Blocks of about BLOCK_PIXELS pixels of patterns that `read(slice)` returns as (k, rows,
    columns)."""
    step = max(1, BLOCK_PIXELS // pixels)
    for first in range(0, n, step):
        yield read(slice(first, min(n, first + step)))


def stack_reader(stack: np.ndarray, leading: int, axis: int) -> Callable[[slice], np.ndarray]:
    """`read(slice)` for an array or data set with `leading` axes of length 1 and patterns along
    `axis` of the rest."""

    def read(patterns: slice) -> np.ndarray:
        at = (0,) * leading + ((patterns,) if axis == 0 else (slice(None), slice(None), patterns))
        return np.moveaxis(np.asarray(stack[at]), axis, 0)

    return read


def column(values: np.ndarray, source: object, key: str) -> np.ndarray:
    """A list of real numbers of any shape with one long axis, as (n,) float64."""
    if values.dtype.kind not in "iuf" or values.size != max(values.shape, default=0):
        raise broken(
            source,
            key,
            f"{values.dtype} {values.shape}",
            "a list of real numbers (n,)",
            "store one number for each pattern",
        )
    return values.reshape(-1).astype(np.float64)


def as_modes(probe: np.ndarray, source: object, key: str) -> np.ndarray:
    """A probe with any leading axes as (modes, N, N) complex128. Of pty-chi's (OPR modes, modes, N,
    N) the first set."""
    if probe.dtype.names == ("real", "imag"):  # as MATLAB writes complex numbers
        probe = probe["real"] + 1j * probe["imag"]
    while probe.ndim > 3 and len(
        probe
    ):  # leading axes number variants of the whole probe: the first one is the mean probe
        probe = probe[0]
    if (
        probe.ndim not in (2, 3)
        or probe.shape[-1] != probe.shape[-2]
        or probe.dtype.kind not in "cf"
        or 0 in probe.shape
    ):
        raise broken(
            source,
            key,
            f"{probe.dtype} {probe.shape}",
            "a complex probe (N, N) or (modes, N, N)",
            "give another one with --probe FILE.npz",
        )
    return probe.reshape(-1, *probe.shape[-2:]).astype(np.complex128)


def as_object(image: np.ndarray, source: object, key: str) -> np.ndarray:
    """An object with leading axes of length 1 as (H, W) complex128; several slices are refused."""
    if image.dtype.names == ("real", "imag"):
        image = image["real"] + 1j * image["imag"]
    if (
        image.ndim < 2
        or image.size != image.shape[-1] * image.shape[-2]
        or image.dtype.kind not in "cf"
        or not image.size
    ):
        raise broken(
            source,
            key,
            f"{image.dtype} {image.shape}",
            "one complex object (H, W)",
            "leave it out with --no-object (several slices cannot be kept)",
        )
    return image.reshape(image.shape[-2:]).astype(np.complex128)
