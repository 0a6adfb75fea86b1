"""A scan in memory, and the table of what a file holds of it: the contract DATA-001."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ptycho_torch.data.container import refused


class Key(NamedTuple):
    """One row of the contract; `shape` is symbolic: in all keys equal letters are equal lengths."""

    name: str
    required: bool
    dtype: str
    shape: str
    meaning: str


_PLACE, _STACK, _MODES = ("float32 or float64", "(n,)"), "(n, N, N)", "(M, M) or (modes, M, M)"
_ABOUT = "JSON object: dose, seeds, geometry, object_kind, probe_kind"
KEYS = (
    Key("diffraction", True, "float32", _STACK, "amplitude sqrt(counts), zero frequency at N // 2"),
    Key("xcoords", True, *_PLACE, "patch centres along columns, px of objectGuess"),
    Key("ycoords", True, *_PLACE, "patch centres along rows, px of objectGuess"),
    Key("probeGuess", True, "complex64", _MODES, "sum |P|^2 = photons per exposure"),
    Key("objectGuess", True, "complex64", "(H, W)", "object transmission; about 1 where empty"),
    Key("Y", False, "complex64", "(n, M, M)", "truth patches, read only on request"),
    Key(
        "detector_mask", False, "bool", "(N, N)", "True where measured; diffraction is 0 elsewhere"
    ),
    Key("brightness", False, *_PLACE, "of each exposure beside the others, about 1"),
    Key(
        "background", False, "float32", "(N, N)", "counts of an exposure without the probe's light"
    ),
    Key("scan_index", False, "integer", "(n,)", "index of each pattern in the full scan"),
    Key("groups", False, "integer", "(G, C)", "patterns seen together: C distinct indices below n"),
    Key("metadata", False, "text", "()", _ABOUT),
)
_REAL, _WHOLE = ("f", np.float64), ("iu", np.int64)  # kinds of dtypes, and the widest of them
_WIDER = {"xcoords": _REAL, "ycoords": _REAL, "brightness": _REAL}
_WIDER |= {"scan_index": _WHOLE, "groups": _WHOLE}


@dataclass(frozen=True, eq=False)
class ScanData:
    """A scan in memory, big arrays perhaps mapped; built of the contract's dtypes, unchecked.

    Only what loses nothing is widened: positions to float64, indices to int64, a single probe to
    one mode."""

    diffraction: np.ndarray  # (n, N, N) float32 amplitude
    xcoords: np.ndarray  # (n,) float64 px, columns
    ycoords: np.ndarray  # (n,) float64 px, rows
    probe: np.ndarray  # (modes, M, M) complex64
    object_guess: np.ndarray  # (H, W) complex64
    truth_patches: np.ndarray | None = None  # (n, M, M) complex64
    scan_index: np.ndarray | None = None  # (n,) int64
    groups: np.ndarray | None = None  # (G, C) int64
    metadata: dict = field(default_factory=dict)
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # unknown keys, kept as they are
    detector_mask: np.ndarray | None = None  # (N, N) bool, True where measured
    brightness: np.ndarray | None = None  # (n,) float64
    background: np.ndarray | None = None  # (N, N) float32 counts

    def __post_init__(self) -> None:
        for name, (kinds, wide) in _WIDER.items():  # the checks refuse anything else
            value = getattr(self, name)
            if value is not None and value.dtype.kind in kinds and np.can_cast(value.dtype, wide):
                object.__setattr__(self, name, value.astype(wide, copy=False))
        if np.ndim(self.probe) == 2:
            object.__setattr__(self, "probe", self.probe[None])

    @property
    def n(self) -> int:
        """Number of patterns."""
        return len(self.diffraction)

    @property
    def N(self) -> int:
        """Edge of a pattern, px of the detector."""
        return self.diffraction.shape[-1]

    @property
    def M(self) -> int:
        """Edge of the probe and of a patch, px of the object; at least N."""
        return self.probe.shape[-1]

    @property
    def measured_px(self) -> int:
        """How many pixels of a pattern were measured."""
        return self.N**2 if self.detector_mask is None else int(self.detector_mask.sum())

    @property
    def modes(self) -> int:
        """Number of mutually incoherent probe modes."""
        return len(self.probe)

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """(H, W) of the object, px."""
        return self.object_guess.shape

    @cached_property
    def positions(self) -> np.ndarray:
        """Patch centres (n, 2) as (y, x), float64 px."""
        return np.stack([self.ycoords, self.xcoords], axis=1)

    def subset(self, indices: np.ndarray) -> "ScanData":
        """The scan of these patterns, in this order. Object, probe and metadata stay; groups, which
        index the old order, are dropped. A run of neighbours stays mapped, other choices are
        copied.

        An extra array belongs to the patterns if its first axis has length n and it is not shaped
        like the probe or the object."""
        indices, n = np.asarray(indices), self.n
        if indices.dtype == bool and indices.shape == (n,):
            indices = np.flatnonzero(indices)
        whole = indices.ndim == 1 and indices.dtype.kind in "iu"
        if not whole or not ((indices >= 0) & (indices < n)).all():
            text = f"indices {indices.dtype} {indices.shape}; expected a list of integers in"
            text += f" [0, {n}), or a mask of {n}; choose patterns of this scan"
            raise refused("subset", None, text)
        chosen = indices
        if len(indices) and np.array_equal(indices, np.arange(len(indices)) + indices[0]):
            chosen = slice(int(indices[0]), int(indices[-1]) + 1)
        fixed = {self.probe.shape, (self.N, self.N), (self.M, self.M), self.canvas_shape}
        names = ("diffraction", "xcoords", "ycoords", "truth_patches", "scan_index", "brightness")
        held = {name: getattr(self, name) for name in names}
        cut = {name: value if value is None else value[chosen] for name, value in held.items()}
        extra = {
            key: value[chosen] if value.shape[:1] == (n,) and value.shape not in fixed else value
            for key, value in self.extra.items()
        }
        return replace(self, **cut, groups=None, extra=extra)
