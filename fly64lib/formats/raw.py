"""What every reader returns: a scan in the file's own terms, patterns not yet read.

Nothing is converted here. Patterns come in blocks, again and again, so that a scan larger than
memory passes through. A file is anything that finds and reads arrays by name: an npz or HDF5 file.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fly64lib.formats.hdf5 import Hdf5File
from ptycho_torch.data.container import refused
from ptycho_torch.data.npz import NpzFile, release
from ptycho_torch.errors import DataContractError

Arrays = NpzFile | Hdf5File  # of an open file, by their names
Convert = Callable[[Arrays, str], np.ndarray]
BLOCK_PIXELS = 2**20


class Stack:
    """Patterns (n, rows, columns), or (rows, columns, n) if only the last axis is as long as the
    list of `positions`, of an array or data set. Where neither is, the axis that differs from two
    equal ones counts them. Leading axes of length 1 are passed over; other shapes, and values that
    are not real, are refused."""

    def __init__(self, array: np.ndarray, positions: int, source: Path, key: str) -> None:
        shape, self.key = tuple(array.shape), key
        self._array, self._leading = array, max(0, len(shape) - 3)
        rest = shape[self._leading :]
        if array.dtype.kind not in "iufb":
            text = f"dtype {array.dtype}; expected real numbers; a detector measures counts"
            raise refused(source, key, text)
        if len(rest) != 3 or math.prod(shape[: self._leading]) != 1 or 0 in shape:
            text = f"shape {shape}; expected a stack of patterns (n, N, N) or (N, N, n); reshape it"
            raise refused(source, key, text)
        last = rest[2] == positions or (positions not in rest and rest[0] == rest[1] != rest[2])
        self._axis = 2 if last and rest[0] != positions else 0
        self.n: int = rest[self._axis]
        self.detector_px: tuple[int, int] = rest[1:] if self._axis == 0 else rest[:2]

    def blocks(self) -> Iterator[np.ndarray]:
        """(k, rows, columns) of about BLOCK_PIXELS pixels, in order."""
        step, whole = max(1, BLOCK_PIXELS // math.prod(self.detector_px)), slice(None)
        for first in range(0, self.n, step):
            patterns = slice(first, min(self.n, first + step))
            at = (patterns,) if self._axis == 0 else (whole, whole, patterns)
            block = np.asarray(self._array[(0,) * self._leading + at])
            yield np.moveaxis(block, self._axis, 0)
            release(self._array)


@dataclass(frozen=True)
class Size:
    """A size of the experiment as a file states it."""

    key: str
    value: float  # in the unit
    unit: str  # that the format prescribes
    si: float  # keV of an energy, else m


@dataclass
class RawScan:
    """A scan as its file has it. `None` is "the file does not say"."""

    source: Path
    stacks: Sequence[Stack]  # patterns, one stack after the other
    positions: np.ndarray  # (p, 2) float64, (y, x) of the probe on the object, in `position_unit`
    position_unit: str = "px"  # px of an object whose patches are detector_px wide; or m, um, nm
    values: str | None = None  # intensity | amplitude
    zero_frequency: str | None = None  # centre | corner
    offset_px: tuple[float, float] | None = None  # added in px: patch centres from the corner
    probe: np.ndarray | None = None  # (modes, N, N) complex; sum |P|^2 is photons, or it is scaled
    object_guess: np.ndarray | None = None  # (H, W) complex
    detector_step_per_m: float | None = None  # spatial frequency from pixel to pixel
    sizes: dict[str, "Size"] = field(default_factory=dict)  # energy, distance, pixel: by name
    bad: np.ndarray | None = None  # (rows, columns) bool, pixels that the file calls invalid
    numbers: np.ndarray | None = None  # (p,) the pattern that each position belongs to
    kept: np.ndarray | None = None  # (patterns,) bool, those that are taken; None: all
    notes: list[str] = field(default_factory=list)  # what the user has to know of it
    metadata: dict = field(default_factory=dict)
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # optional and unknown DATA-001 keys
    format: str = ""  # its name in FORMATS; import fills it in
    ours: bool = False  # fly64 export wrote it: the probe is in photons, whatever its power

    @property
    def held(self) -> int:
        """Number of patterns in the file."""
        return sum(stack.n for stack in self.stacks)

    @property
    def n(self) -> int:
        """Number of patterns that are taken."""
        return self.held if self.kept is None else int(self.kept.sum())

    @property
    def detector_px(self) -> tuple[int, int]:
        """Rows and columns of a pattern."""
        return self.stacks[0].detector_px

    def blocks(self) -> Iterator[np.ndarray]:
        """The patterns that are taken (k, rows, columns), real, in order."""
        first = 0
        for block in (block for stack in self.stacks for block in stack.blocks()):
            taken = slice(None) if self.kept is None else self.kept[first : first + len(block)]
            first += len(block)
            if len(block := block[taken]):
                yield block

    def refused(self, text: str, key: str | None = None) -> DataContractError:
        """The error of this file (:func:`ptycho_torch.data.container.refused`)."""
        return refused(self.source, key, text)


def need(file: Arrays, expected: str, *names: str) -> str:
    """The first of these keys that a file has; refused if there is none."""
    found = file.find(*names)
    if found is None:
        there = ", ".join(file.keys()[:12]) or "none"
        text = f"missing; the keys are {there}; expected {expected}; add it (docs/import_export.md)"
        raise refused(file.path, names[0], text)
    return found


def optional(file: Arrays, convert: Convert, key: str) -> np.ndarray | None:
    """What `convert` makes of a key; None if a file does not have it."""
    return convert(file, key) if file.find(key) else None


def columns(file: Arrays, *names: str) -> np.ndarray:
    """Lists of real numbers of any shape with one long axis, side by side: (n, names) float64."""
    found = []
    for name in names:
        found.append(values := file.read(need(file, "one number for each pattern", name)))
        if values.dtype.kind not in "iuf" or values.size != max(values.shape, default=0):
            text = f"{values.dtype} {values.shape}; expected a list of real numbers (n,); store one"
            raise refused(file.path, name, f"{text} number for each pattern")
        if values.size != found[0].size:
            expected = f"{found[0].size} as in {names[0]!r}; store both for every pattern"
            raise refused(file.path, name, f"{values.size} values; expected {expected}")
    return np.stack([values.ravel() for values in found], axis=1).astype(np.float64)


def as_modes(file: Arrays, key: str) -> np.ndarray:
    """A probe with any leading axes as (modes, N, N) complex128. Of several variants of the whole
    probe, pty-chi's (OPR modes, modes, N, N), the first is the mean one."""
    probe = _complex(file.read(key))
    while probe.ndim > 3 and len(probe):
        probe = probe[0]
    square = probe.ndim in (2, 3) and probe.shape[-1] == probe.shape[-2]
    if not square or probe.dtype.kind not in "cf" or 0 in probe.shape:
        text = f"{probe.dtype} {probe.shape}; expected a complex probe (N, N) or (modes, N, N);"
        raise refused(file.path, key, f"{text} give another one with --probe FILE.npz")
    return probe.reshape(-1, *probe.shape[-2:]).astype(np.complex128)


def as_object(file: Arrays, key: str) -> np.ndarray:
    """An object with leading axes of length 1 as (H, W) complex128; several slices are refused."""
    image = _complex(file.read(key))
    plane = image.ndim >= 2 and image.size == image.shape[-1] * image.shape[-2]
    if not plane or image.dtype.kind not in "cf" or not image.size:
        text = f"{image.dtype} {image.shape}; expected one complex object (H, W); leave it out with"
        raise refused(file.path, key, f"{text} --no-object (several slices cannot be kept)")
    return image.reshape(image.shape[-2:]).astype(np.complex128)


def _complex(values: np.ndarray) -> np.ndarray:
    """Complex numbers also of MATLAB's pairs of real numbers."""
    paired = values.dtype.names == ("real", "imag")
    return values["real"] + 1j * values["imag"] if paired else values
