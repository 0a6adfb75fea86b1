"""What DATA-001 refuses: first the layout (keys, dtypes, shapes: known before anything is read),
then the values.

Each kind of fault has its own message, which says what to do about it. Stacks of patterns are
looked at in chunks, so that a mapped stack stays mapped."""

import re
from collections.abc import Iterator, Mapping
from numbers import Real

import numpy as np

from ptycho_torch.data.container import refused
from ptycho_torch.data.npz import Member, release
from ptycho_torch.data.scan import Key, ScanData

KINDS = ("truth", "reconstruction", "initial")  # what object_kind and probe_kind may say
DOSE_KEYS = ("dose", "photons_per_exposure")  # metadata that states the mean of sum(diffraction^2)
# Whole numbers that no amplitude of counts would show by chance.
INTENSITY_PIXELS, INTENSITY_VALUES = 16, 3
CHUNK_PIXELS = 2**20
_DTYPES = {"integer": "iu", "text": "U"}  # kinds of numpy's dtypes; other names are dtypes
_STORE = {
    "integer": "whole numbers with .astype(np.int64)",
    "text": "np.array(json.dumps(metadata))",
}
_ROOT = "store np.sqrt(diffraction).astype(np.float32)"

Array = np.ndarray | Member  # here, or in a file and known by its header


def check_layout(keys: tuple[Key, ...], arrays: Mapping[str, Array], source: object) -> None:
    """Required keys are there; dtypes, ranks and lengths are the contract's and agree."""
    lengths: dict[str, tuple[int, str]] = {}
    for key in keys:
        if key.name in arrays:
            _check_dtype(key, arrays[key.name].dtype, source)
            if fault := _misfit(key, tuple(arrays[key.name].shape), lengths):
                raise refused(source, key.name, fault)
        elif key.required:
            text = f"missing; the keys are {', '.join(sorted(arrays)[:20]) or 'none'}; expected"
            text += f" {key.dtype} {key.shape}, {key.meaning}; add it, or convert another program's"
            raise refused(source, key.name, f"{text} file: fly64 import SRC DST.npz")


def check_values(scan: ScanData, source: object) -> None:
    """Values are finite, positions in the object, groups in the scan, and patterns amplitudes."""
    H, W = scan.canvas_shape
    if scan.M < scan.N:
        text = f"{scan.M} px; expected at least N = {scan.N} px, the side of 'diffraction'; pad the"
        raise refused(source, "probeGuess", f"{text} probe's spectrum with zeros, or crop patterns")
    for key, centres, edge in (("ycoords", scan.ycoords, H), ("xcoords", scan.xcoords, W)):
        _check_finite(key, centres, source, "remove or measure these positions")
        _check_inside(key, centres, edge, scan.M, source)
    _check_finite("probeGuess", scan.probe, source, "recover or model the probe again")
    if not scan.probe.any():
        text = "every value is 0; expected sum |P|^2 = photons per exposure; give the probe"
        raise refused(source, "probeGuess", text)
    _check_finite("objectGuess", scan.object_guess, source, "use ones where the object is unknown")
    _check_groups(scan, source)
    _check_detector(scan, source)
    for name in ("object_kind", "probe_kind"):
        if (kind := scan.metadata.get(name, KINDS[0])) not in KINDS:
            text = f"{name} is {kind!r}; expected one of {', '.join(KINDS)}; say what it is"
            raise refused(source, "metadata", text)
    _check_amplitude(scan, source)
    if scan.truth_patches is not None:
        _check_finite("Y", scan.truth_patches, source, "make the truth patches again")


def pattern_chunks(stack: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """(index of the first, patterns) of a possibly mapped stack, about 2^20 pixels at a time."""
    step = max(1, CHUNK_PIXELS // max(1, stack[0].size))
    for first in range(0, len(stack), step):
        yield first, np.asarray(stack[first : first + step])
        release(stack)


def mean_photons(diffraction: np.ndarray) -> float:
    """Measured photons per exposure: mean over patterns of sum(amplitude^2), in float64."""
    blocks = (block for _, block in pattern_chunks(diffraction))
    squares = (float(np.square(block, dtype=np.float64).sum()) for block in blocks)
    return sum(squares) / len(diffraction)


def _check_dtype(key: Key, dtype: np.dtype, source: object) -> None:
    names = key.dtype.split(" or ")
    if dtype.kind in _DTYPES.get(key.dtype, "") or str(dtype) in names:
        return
    do = "store " + _STORE.get(key.dtype, f"it with .astype(np.{names[-1]})")
    if key.name == "diffraction" and dtype.kind in "iub":
        do = "these look like counts: store np.sqrt(counts).astype(np.float32), or convert a raw"
        do += " file: fly64 import SRC DST.npz"
    elif key.name == "diffraction" and dtype.kind == "c":
        do = "a detector measures no phase: store the square root of the counts"
    raise refused(source, key.name, f"dtype {dtype}; expected {key.dtype}; {do}")


def _misfit(key: Key, shape: tuple[int, ...], lengths: dict[str, tuple[int, str]]) -> str | None:
    """Why a shape is not the contract's; the first key that uses a symbol fixes its length."""
    options = (re.findall(r"\w+", text) for text in key.shape.split(" or "))
    symbols = {len(letters): letters for letters in options}
    if len(shape) not in symbols:
        return f"{len(shape)} axes, shape {shape}; expected {key.shape}; reshape it"
    if 0 in shape:
        do = "give the data" if key.required else "leave the key out"
        return f"empty, shape {shape}; expected {key.shape} with at least one of each; {do}"
    for symbol, length in zip(symbols[len(shape)], shape, strict=True):
        fixed, by = lengths.setdefault(symbol, (length, key.name))
        if length == fixed:
            continue
        if by == key.name:
            do = "crop or pad them"
            if key.name == "diffraction" and shape[0] == shape[1]:
                do = "this looks like (N, N, n): store np.moveaxis(patterns, -1, 0)"
            return f"images that are not square, shape {shape}; expected {key.shape}; {do}"
        if symbol == "n":
            text = f"length {length}, shape {shape}; expected {fixed}, one for each pattern of"
            return f"{text} '{by}'; the keys must list the same patterns in the same order"
        text = f"{length} px, shape {shape}; expected {symbol} = {fixed} px as in '{by}'"
        return f"{text}; bring both to the same pixel grid"
    return None


def _check_finite(key: str, stack: np.ndarray, source: object, do: str) -> None:
    for first, block in pattern_chunks(stack):
        says = f"expected finite numbers; {do}"
        _refuse_where(~np.isfinite(block), "NaN or infinite", says, (source, key, first))


def _refuse_where(bad: np.ndarray, what: str, says: str, where: tuple[object, str, int]) -> None:
    """Refuse a block of a stack with bad values; `where`: file, key and the block's first index."""
    if bad.any():
        source, key, first = where
        row, *others = np.argwhere(bad)[0].tolist()
        place = ", ".join(map(str, (first + row, *others)))
        raise refused(source, key, f"{what} values, the first at [{place}]; {says}")


def _check_inside(key: str, centres: np.ndarray, edge: int, M: int, source: object) -> None:
    if edge < M:
        text = f"an edge of {edge} px; expected at least one patch of M = {M} px; give the object"
        text += " on the scan's canvas (ones where it is unknown)"
        raise refused(source, "objectGuess", text)
    corners = np.rint(centres - M / 2)  # as ptycho_torch.physics.patches.split_positions
    outside = np.flatnonzero((corners < 0) | (corners > edge - M))
    if len(outside):
        i, half = outside[0], M / 2
        text = f"{len(outside)} of {len(centres)} patches leave the object, the first is pattern"
        text += f" {i} at {centres[i]:.2f}; expected patch centres in {half:g} .. {edge - half:g}"
        text += " px; positions are in pixels of objectGuess, from its corner (not metres, not from"
        text += " the centre), x along columns, y along rows: convert them, or enlarge objectGuess"
        raise refused(source, key, text)


def _check_groups(scan: ScanData, source: object) -> None:
    if scan.groups is None:
        return
    low, high = scan.groups.min(), scan.groups.max()
    if low < 0 or high >= scan.n:
        text = f"indices {low} .. {high}; expected 0 .. {scan.n - 1}; group the patterns of this"
        raise refused(source, "groups", f"{text} file again")
    repeated = np.flatnonzero((np.diff(np.sort(scan.groups, axis=1), axis=1) == 0).any(axis=1))
    if len(repeated):
        members = scan.groups[repeated[0]].tolist()
        text = f"group {repeated[0]} holds a pattern twice: {members}; expected distinct patterns"
        raise refused(source, "groups", f"{text} in a group; group the patterns again")


def _check_detector(scan: ScanData, source: object) -> None:
    """A mask that leaves pixels, zeros where it has none; brightness and background of counts."""
    if (mask := scan.detector_mask) is not None:
        if not mask.any():
            text = "no pixel is True; expected True where the detector measured; invert the mask"
            raise refused(source, "detector_mask", text)
        for first, block in pattern_chunks(scan.diffraction):
            says = "expected 0 where detector_mask is False; store np.where(mask, diffraction, 0)"
            where = (source, "diffraction", first)
            _refuse_where((block != 0) & ~mask, "not measured, yet other than 0:", says, where)
    for key, least, do in (
        ("brightness", 1e-6, "leave out exposures without light"),
        ("background", 0.0, "give expected counts"),
    ):
        if (values := getattr(scan, key)) is not None:
            _check_finite(key, values, source, do)
            if (values < least).any():
                text = f"values down to {values.min():g}; expected {least:g} or more; {do}"
                raise refused(source, key, text)


def _check_amplitude(scan: ScanData, source: object) -> None:
    """Patterns are finite, not negative, and the square roots of counts.

    Intensity in place of amplitude shows in two ways. Of counts 0, 1, 2, 3, ... only perfect
    squares have whole roots: patterns of whole numbers only, with several values and many pixels
    above 1, are counts. And where the metadata state the dose, the mean of sum(diffraction^2) must
    not be off by more than a factor of 2 and 10 sigma of its noise."""
    power = total = 0.0
    whole, above_one, values = True, 0, set()
    for first, block in pattern_chunks(scan.diffraction):
        where = (source, "diffraction", first)
        says = "expected amplitudes sqrt(counts); mask dead pixels before storing: a value there"
        _refuse_where(~np.isfinite(block), "NaN or infinite", f"{says} must be a number", where)
        says = "expected amplitudes sqrt(counts) >= 0; subtract no background below zero counts"
        _refuse_where(block < 0, "negative", says, where)
        power += float(np.square(block, dtype=np.float64).sum())
        total += float(block.sum(dtype=np.float64))
        if whole and (whole := bool((np.abs(block - np.rint(block)) <= 1e-3).all())):
            above_one += int(np.count_nonzero(block > 1.5))
            values.update(np.unique(np.rint(block.ravel()[:: max(1, block.size // 4096)])).tolist())
    if power == 0:
        text = "every value is 0; expected photons in at least one pattern; check the source"
        raise refused(source, "diffraction", text)
    if whole and above_one >= INTENSITY_PIXELS and len(values - {0.0}) >= INTENSITY_VALUES:
        text = f"whole numbers only, up to {max(values):.0f}: intensity (counts); expected"
        raise refused(source, "diffraction", f"{text} amplitude sqrt(counts); {_ROOT}")
    for name in DOSE_KEYS:
        if (stated := scan.metadata.get(name)) is not None:
            _check_dose(name, stated, (power / scan.n, total / scan.n, scan.n), source)


def _check_dose(name: str, stated: object, found: tuple[float, float, int], source: object) -> None:
    """`found`: mean sum of the squares and of the values of a pattern, and how many there are."""
    if isinstance(stated, bool) or not isinstance(stated, Real) or not 0 < stated < 1e30:
        text = f"{name} is {stated!r}; expected photons per exposure > 0; state the dose"
        raise refused(source, "metadata", text)
    power, total, n = found
    noise = 10 * (stated / n) ** 0.5
    if not stated / 2 <= power <= stated * 2 and abs(power - stated) > noise:
        text = f"sum(diffraction^2) is {power:.4g} per pattern, but metadata say {name} ="
        text, do = f"{text} {stated:.4g}", f"correct {name} or the data"
        if stated / 2 <= total <= stated * 2:
            text, do = f"{text}, which is the sum of the values: intensity", _ROOT
        text = f"{text}; expected amplitude sqrt(counts), so that both agree; {do}"
        raise refused(source, "diffraction", text)
