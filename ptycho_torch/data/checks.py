"""What DATA-001 refuses: first the layout (keys, dtypes, shapes: known before anything is read),
then the values.

Each kind of fault has its own message, which says what to do about it. Stacks of patterns are
looked at in chunks, so that a mapped stack stays mapped."""

import re
from collections.abc import Iterator, Mapping
from numbers import Real
from typing import Protocol

import numpy as np

from ptycho_torch.data.npz import broken
from ptycho_torch.data.scan import Key, ScanData

KINDS = ("truth", "reconstruction", "initial")  # what object_kind and probe_kind may say
DOSE_KEYS = ("dose", "photons_per_exposure")  # metadata that states the mean of sum(diffraction^2)
INTENSITY_PIXELS, INTENSITY_VALUES = (
    16,
    3,
)  # whole numbers that no amplitude of counts would show by chance
CHUNK_PIXELS = 2**20


class Layout(Protocol):
    """An array, or the header of one that is not read yet."""

    dtype: np.dtype
    shape: tuple[int, ...]


def check_layout(keys: tuple[Key, ...], arrays: Mapping[str, Layout], source: object) -> None:
    """Required keys are there; dtypes, ranks and lengths are the contract's and agree with each
    other."""
    lengths: dict[str, tuple[int, str]] = {}
    for key in keys:
        if key.name in arrays:
            _check_dtype(key, arrays[key.name].dtype, source)
            _check_shape(key, tuple(arrays[key.name].shape), lengths, source)
        elif key.required:
            raise broken(
                source,
                key.name,
                f"missing; the keys are {', '.join(sorted(arrays)[:20]) or 'none'}",
                f"{key.dtype} {key.shape}, {key.meaning}",
                "add it, or convert another program's file: fly64 import SRC DST.npz",
            )


def check_values(scan: ScanData, source: object) -> None:
    """Values are finite, positions inside the object, groups inside the scan, and patterns are
    amplitudes."""
    for key, centres, edge in (
        ("ycoords", scan.ycoords, scan.canvas_shape[0]),
        ("xcoords", scan.xcoords, scan.canvas_shape[1]),
    ):
        _check_finite(key, centres, source, "remove or measure these positions")
        _check_inside(key, centres, edge, scan.N, source)
    _check_finite("probeGuess", scan.probe, source, "recover or model the probe again")
    if not scan.probe.any():
        raise broken(
            source,
            "probeGuess",
            "every value is 0",
            "sum |P|^2 = photons per exposure",
            "give the probe",
        )
    _check_finite("objectGuess", scan.object_guess, source, "use ones where the object is unknown")
    _check_groups(scan, source)
    for kind in ("object_kind", "probe_kind"):
        if (came := scan.metadata.get(kind, KINDS[0])) not in KINDS:
            raise broken(
                source,
                "metadata",
                f"{kind} is {came!r}",
                f"one of {', '.join(KINDS)}",
                "say what it is",
            )
    _check_amplitude(scan, source)
    if scan.truth_patches is not None:
        _check_finite("Y", scan.truth_patches, source, "make the truth patches again")


def pattern_chunks(stack: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(index of the first, patterns) of a possibly mapped stack, about 2^20 pixels at a time."""
    step = max(1, CHUNK_PIXELS // max(1, stack[0].size))
    for first in range(0, len(stack), step):
        yield first, np.asarray(stack[first : first + step])


def mean_photons(diffraction: np.ndarray) -> float:
    """Measured photons per exposure: mean over patterns of sum(amplitude^2), in float64."""
    return sum(
        float(np.square(block, dtype=np.float64).sum()) for _, block in pattern_chunks(diffraction)
    ) / len(diffraction)


def _check_dtype(key: Key, dtype: np.dtype, source: object) -> None:
    if dtype.kind in {"integer": "iu", "text": "U"}.get(key.dtype, "") or str(
        dtype
    ) in key.dtype.split(" or "):
        return
    do = f"store it with .astype(np.{key.dtype.split(' or ')[-1]})"
    if key.name == "diffraction" and dtype.kind in "iub":
        do = (
            "these look like counts: store np.sqrt(counts).astype(np.float32), or convert a raw"
            " file: fly64 import SRC DST.npz"
        )
    elif key.name == "diffraction" and dtype.kind == "c":
        do = "a detector measures no phase: store the square root of the counts"
    elif key.dtype == "integer":
        do = "store whole numbers with .astype(np.int64)"
    elif key.dtype == "text":
        do = "store np.array(json.dumps(metadata))"
    raise broken(source, key.name, f"dtype {dtype}", key.dtype, do)


def _check_shape(
    key: Key, shape: tuple[int, ...], lengths: dict[str, tuple[int, str]], source: object
) -> None:
    """Match a shape with the symbols of the contract; the first key that uses a symbol fixes its
    length."""
    symbols = {
        len(letters): letters
        for letters in (re.findall(r"\w+", text) for text in key.shape.split(" or "))
    }
    came = f"shape {shape}"
    if len(shape) not in symbols:
        raise broken(source, key.name, f"{len(shape)} axes, {came}", key.shape, "reshape it")
    if 0 in shape:
        raise broken(
            source,
            key.name,
            f"empty, {came}",
            f"{key.shape} with at least one of each",
            "give the data" if key.required else "leave the key out",
        )
    for symbol, length in zip(symbols[len(shape)], shape, strict=True):
        fixed, by = lengths.setdefault(symbol, (length, key.name))
        if length == fixed:
            continue
        if by == key.name:
            swapped = key.name == "diffraction" and shape[0] == shape[1]
            raise broken(
                source,
                key.name,
                f"patterns that are not square, {came}",
                key.shape,
                (
                    "this looks like (N, N, n): store np.moveaxis(patterns, -1, 0)"
                    if swapped
                    else "crop or pad the patterns"
                ),
            )
        if symbol == "n":
            raise broken(
                source,
                key.name,
                f"length {length}, {came}",
                f"{fixed}, one for each pattern of '{by}'",
                "the keys must list the same patterns in the same order",
            )
        raise broken(
            source,
            key.name,
            f"{length} px, {came}",
            f"{symbol} = {fixed} px as in '{by}'",
            "bring both to the same pixel grid",
        )


def _check_finite(key: str, stack: np.ndarray, source: object, do: str) -> None:
    for first, block in pattern_chunks(stack):
        _refuse_where(
            ~np.isfinite(block), key, first, "NaN or infinite", "finite numbers", do, source
        )


def _refuse_where(
    bad: np.ndarray, key: str, first: int, what: str, expected: str, do: str, source: object
) -> None:
    if bad.any():
        at = np.argwhere(bad)[0]
        place = ", ".join(str(int(i)) for i in (first + at[0], *at[1:]))
        raise broken(source, key, f"{what} values, the first at [{place}]", expected, do)


def _check_inside(key: str, centres: np.ndarray, edge: int, N: int, source: object) -> None:
    if edge < N:
        raise broken(
            source,
            "objectGuess",
            f"an edge of {edge} px",
            f"at least one patch of N = {N} px",
            "give the object on the scan's canvas (ones where it is unknown)",
        )
    corners = np.rint(centres - N / 2)  # as ptycho_torch.physics.patches.split_positions
    outside = np.flatnonzero((corners < 0) | (corners > edge - N))
    if len(outside):
        i = outside[0]
        raise broken(
            source,
            key,
            f"{len(outside)} of {len(centres)} patches leave the object, the first is pattern {i} "
            f"at {centres[i]:.2f}",
            f"patch centres in {N / 2:g} .. {edge - N / 2:g} px",
            "positions are in pixels of objectGuess, from its corner (not metres, not from the"
            " centre), x along columns, y along rows: convert them, or enlarge objectGuess",
        )


def _check_groups(scan: ScanData, source: object) -> None:
    if scan.groups is None:
        return
    if scan.groups.min() < 0 or scan.groups.max() >= scan.n:
        raise broken(
            source,
            "groups",
            f"indices {scan.groups.min()} .. {scan.groups.max()}",
            f"0 .. {scan.n - 1}",
            "group the patterns of this file again",
        )
    ordered = np.sort(scan.groups, axis=1)
    repeated = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
    if len(repeated):
        raise broken(
            source,
            "groups",
            f"group {repeated[0]} holds a pattern twice: {scan.groups[repeated[0]].tolist()}",
            "distinct patterns in a group",
            "group the patterns again",
        )


def _check_amplitude(scan: ScanData, source: object) -> None:
    """Patterns are finite, not negative, and the square roots of counts.

    Intensity in place of amplitude shows in two ways. Of counts 0, 1, 2, 3, ... only perfect
    squares have whole roots: patterns of whole numbers only, with several values and many pixels
    above 1, are counts. And where the metadata state the dose, the mean of sum(diffraction^2) must
    not be off by more than a factor of 2 and 10 sigma of its noise."""
    power = total = 0.0
    whole, above_one, values = True, 0, set()
    for first, block in pattern_chunks(scan.diffraction):
        _refuse_where(
            ~np.isfinite(block),
            "diffraction",
            first,
            "NaN or infinite",
            "amplitudes sqrt(counts)",
            "mask dead pixels before storing: a value there must be a number",
            source,
        )
        _refuse_where(
            block < 0,
            "diffraction",
            first,
            "negative",
            "amplitudes sqrt(counts) >= 0",
            "subtract no background below zero counts",
            source,
        )
        power += float(np.square(block, dtype=np.float64).sum())
        total += float(block.sum(dtype=np.float64))
        if whole and (whole := bool((np.abs(block - np.rint(block)) <= 1e-3).all())):
            above_one += int(np.count_nonzero(block > 1.5))
            values.update(np.unique(np.rint(block.ravel()[:: max(1, block.size // 4096)])).tolist())
    root = "store np.sqrt(diffraction).astype(np.float32)"
    if power == 0:
        raise broken(
            source,
            "diffraction",
            "every value is 0",
            "photons in at least one pattern",
            "check the source",
        )
    if whole and above_one >= INTENSITY_PIXELS and len(values - {0.0}) >= INTENSITY_VALUES:
        raise broken(
            source,
            "diffraction",
            f"whole numbers only, up to {max(values):.0f}: intensity (counts)",
            "amplitude sqrt(counts)",
            root,
        )
    for name in DOSE_KEYS:
        stated, measured = scan.metadata.get(name), power / scan.n
        if stated is None:
            continue
        if isinstance(stated, bool) or not isinstance(stated, Real) or not 0 < stated < 1e30:
            raise broken(
                source,
                "metadata",
                f"{name} is {stated!r}",
                "photons per exposure > 0",
                "state the dose",
            )
        noise = 10 * (stated / scan.n) ** 0.5
        if not stated / 2 <= measured <= stated * 2 and abs(measured - stated) > noise:
            intensity = stated / 2 <= total / scan.n <= stated * 2
            raise broken(
                source,
                "diffraction",
                f"sum(diffraction^2) is {measured:.4g} per pattern, but metadata say {name} "
                f"= {stated:.4g}"
                + (", which is the sum of the values: intensity" if intensity else ""),
                "amplitude sqrt(counts), so that both agree",
                root if intensity else f"correct {name} or the data",
            )
