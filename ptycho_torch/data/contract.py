"""DATA-001: one ptychographic scan in one npz file; what must be in it, how it is read, checked and
written.

The table :data:`KEYS` is the contract (`docs/data_contract.md` shows the same one). Counts are the
only data unit: `diffraction` is the amplitude sqrt(counts), zero frequency on pixel N // 2, and sum
|probe|^2 is the photons per exposure through an empty object. Positions are patch centres in pixels
of `objectGuess`, y along rows:

    top-left (row, column) = (ycoords - N / 2, xcoords - N / 2),   corner = round(top-left) in [0, H
    - N] x [0, W - N]

Reading refuses whatever breaks the contract, key by key, with the file, the key, what came, what
was expected and what to do. Nothing is repaired. Patterns are mapped, never loaded
(:mod:`ptycho_torch.data.npz`), and checked in chunks."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ptycho_torch.data.checks import Key, check_layout, check_values
from ptycho_torch.data.npz import broken, open_npz, write_npz
from ptycho_torch.errors import PtychoError
from ptycho_torch.files import json_text

KEYS = (
    Key(
        "diffraction",
        True,
        "float32",
        "(n, N, N)",
        "measured amplitude sqrt(counts), zero frequency on pixel N // 2",
    ),
    Key(
        "xcoords",
        True,
        "float32 or float64",
        "(n,)",
        "patch centres along columns, pixels of objectGuess",
    ),
    Key(
        "ycoords",
        True,
        "float32 or float64",
        "(n,)",
        "patch centres along rows, pixels of objectGuess",
    ),
    Key(
        "probeGuess",
        True,
        "complex64",
        "(N, N) or (modes, N, N)",
        "probe, sum |P|^2 = photons per exposure",
    ),
    Key("objectGuess", True, "complex64", "(H, W)", "object transmission; about 1 where empty"),
    Key("Y", False, "complex64", "(n, N, N)", "truth patches of the object, read only on request"),
    Key("scan_index", False, "integer", "(n,)", "index of each pattern in the full scan"),
    Key(
        "groups",
        False,
        "integer",
        "(G, C)",
        "patterns seen together: G groups of C distinct indices below n",
    ),
    Key(
        "metadata",
        False,
        "text",
        "()",
        "JSON object: dose, seeds, geometry, provenance, object_kind, probe_kind",
    ),
)
MAP_ABOVE = 2**20  # bytes; larger extra arrays are mapped too
_FIELDS = {
    key.name: (
        {"probeGuess": "probe", "objectGuess": "object_guess", "Y": "truth_patches"}.get(
            key.name, key.name
        )
    )
    for key in KEYS
}  # name on disk -> field of ScanData


@dataclass(frozen=True, eq=False)
class ScanData:
    """A scan in memory, big arrays perhaps mapped. Built from arrays of the contract's dtypes,
    unchecked.

    Only what loses nothing is widened: positions to float64, indices to int64, a single probe to
    one mode."""

    diffraction: np.ndarray  # (n, N, N) float32 amplitude
    xcoords: np.ndarray  # (n,) float64 px, columns
    ycoords: np.ndarray  # (n,) float64 px, rows
    probe: np.ndarray  # (modes, N, N) complex64
    object_guess: np.ndarray  # (H, W) complex64
    truth_patches: np.ndarray | None = None  # (n, N, N) complex64
    scan_index: np.ndarray | None = None  # (n,) int64
    groups: np.ndarray | None = None  # (G, C) int64
    metadata: dict = field(default_factory=dict)
    extra: dict[str, np.ndarray] = field(default_factory=dict)  # unknown keys, kept as they are

    def __post_init__(self) -> None:
        widened = {
            "xcoords": _widen(self.xcoords, "f", np.float64),
            "ycoords": _widen(self.ycoords, "f", np.float64),
            "scan_index": _widen(self.scan_index, "iu", np.int64),
            "groups": _widen(self.groups, "iu", np.int64),
            "probe": self.probe[None] if np.ndim(self.probe) == 2 else self.probe,
        }
        for name, value in widened.items():
            object.__setattr__(self, name, value)

    @property
    def n(self) -> int:
        """Number of patterns."""
        return len(self.diffraction)

    @property
    def N(self) -> int:
        """Edge of a pattern, the probe and a patch, px."""
        return self.diffraction.shape[-1]

    @property
    def modes(self) -> int:
        """Number of mutually incoherent probe modes."""
        return len(self.probe)

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """(H, W) of the object, px."""
        return self.object_guess.shape

    def subset(self, indices: np.ndarray) -> "ScanData":
        """The scan of these patterns, in this order. Object, probe and metadata stay; groups, which
        index the old order, are dropped. A run of neighbours stays mapped, other choices are
        copied.

        An extra array belongs to the patterns if its first axis has length n and it is not shaped
        like the probe or the object."""
        indices = np.asarray(indices)
        indices = (
            np.flatnonzero(indices)
            if indices.dtype == bool and indices.shape == (self.n,)
            else indices
        )
        if (
            indices.ndim != 1
            or indices.dtype.kind not in "iu"
            or not ((indices >= 0) & (indices < self.n)).all()
        ):
            raise broken(
                "subset",
                None,
                f"indices {indices.dtype} {indices.shape}",
                f"a list of integers in [0, {self.n}), or a mask of {self.n}",
                "choose patterns of this scan",
            )
        run = len(indices) > 0 and np.array_equal(
            indices, np.arange(indices[0], indices[0] + len(indices))
        )
        chosen = slice(int(indices[0]), int(indices[-1]) + 1) if run else indices
        fixed = {self.probe.shape, (self.N, self.N), self.canvas_shape}
        extra = {
            key: (
                value[chosen]
                if value.shape[:1] == (self.n,) and value.shape not in fixed
                else value
            )
            for key, value in self.extra.items()
        }
        cut = {
            name: value if (value := getattr(self, name)) is None else value[chosen]
            for name in ("diffraction", "xcoords", "ycoords", "truth_patches", "scan_index")
        }
        return replace(self, **cut, groups=None, extra=extra)


def read_scan(
    path: str | Path,
    *,
    load_truth: bool = False,
    map_patterns: bool = True,
    cache_dir: str | Path | None = None,
) -> ScanData:
    """Read and check a DATA-001 file.

    `diffraction`, and `Y` if `load_truth`, are mapped (from `cache_dir` if the file is compressed,
    see :func:`ptycho_torch.data.npz.cache_folder`), or loaded without `map_patterns`. Without
    `load_truth` the values of `Y` are not touched, and the scan does not hold them. Raises
    :class:`DataContractError`."""
    with open_npz(path) as archive:
        keys = list(archive.members)
        if "diff3d" in keys and "diffraction" not in keys:
            member = archive.members["diff3d"]
            raise broken(
                path,
                "diff3d",
                f"a raw upstream file, intensity {member.dtype} {member.shape}",
                "key 'diffraction' with amplitude (n, N, N)",
                f"convert it: fly64 import {path} DST.npz",
            )
        check_layout(KEYS, archive.members, path)
        arrays = {}
        for key in keys:
            if key == "Y" and not load_truth:
                continue
            large = key in ("diffraction", "Y") or (
                key not in _FIELDS and archive.members[key].nbytes > MAP_ABOVE
            )
            arrays[key] = (
                archive.map(key, cache_dir) if large and map_patterns else archive.read(key)
            )
    extra = {key: arrays.pop(key) for key in list(arrays) if key not in _FIELDS}
    if "metadata" in arrays:
        arrays["metadata"] = _parse_metadata(arrays["metadata"], path)
    scan = ScanData(**{_FIELDS[key]: array for key, array in arrays.items()}, extra=extra)
    check_values(scan, path)
    return scan


def write_scan(path: str | Path, scan: ScanData) -> None:
    """Check a scan and write it as DATA-001: atomically, stored (it can be mapped), the same scan
    the same bytes."""
    check_scan(scan, path)
    write_npz(path, _disk_arrays(scan, path))


def check_scan(scan: ScanData, source: object) -> None:
    """Raise :class:`DataContractError`, naming `source`, if the scan breaks the contract."""
    check_layout(KEYS, _disk_arrays(scan, source), source)
    check_values(scan, source)


def _disk_arrays(scan: ScanData, source: object) -> dict[str, np.ndarray]:
    """The arrays of a scan under their names on disk; what is absent or empty is not written."""
    arrays = {
        key: value
        for key, name in _FIELDS.items()
        if key != "metadata" and (value := getattr(scan, name)) is not None
    }
    if len(scan.probe) == 1:
        arrays["probeGuess"] = scan.probe[0]
    if scan.metadata:
        try:
            arrays["metadata"] = np.array(json_text(scan.metadata))
        except PtychoError as error:
            raise broken(
                source, "metadata", f"it {error}", "a dict that JSON can hold", "change that entry"
            ) from error
    for key, value in scan.extra.items():
        arrays[key] = np.asanyarray(value)
        if key in _FIELDS or not key or not key.isprintable() or arrays[key].dtype.hasobject:
            raise broken(
                source,
                key,
                f"an extra array of that name and dtype {arrays[key].dtype}",
                "a name that the contract does not use, and plain numbers or text",
                "rename or convert it",
            )
    return arrays


def _parse_metadata(text: np.ndarray, source: object) -> dict:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        metadata = json.loads(str(text.item()), parse_constant=refuse)
    except (ValueError, RecursionError, SystemError) as error:
        raise broken(
            source,
            "metadata",
            f"text that is not JSON ({str(error)[:200]})",
            "the text of a JSON object",
            "write it as np.array(json.dumps(metadata))",
        ) from error
    if not isinstance(metadata, dict):
        raise broken(
            source,
            "metadata",
            f"JSON of a {type(metadata).__name__}",
            "a JSON object {...}",
            "write a dict: np.array(json.dumps({...}))",
        )
    return metadata


def _widen(value: np.ndarray | None, kinds: str, dtype: type) -> np.ndarray | None:
    """The same values in a wider type of the same kind; anything else is left for the checks to
    refuse."""
    exact = value is not None and value.dtype.kind in kinds and np.can_cast(value.dtype, dtype)
    return value.astype(dtype, copy=False) if exact else value
