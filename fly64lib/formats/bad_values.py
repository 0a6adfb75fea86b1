"""What is wrong with a detector's values: bad pixels, bad patterns and bad values in
them, told apart in one pass over the frames.

A value is bad if it is negative, no number, or a mark: the largest of its own type, or 2^31 - 1 or
2^32 - 1, also as float32 rounds them. A pixel is bad if it is so in most patterns, if it is far
above all others in every pattern, or if it never changes and stands out of its neighbours; a
pattern is bad if most of its other pixels are. What is left are single values."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from fly64lib.formats.raw import RawScan
from fly64lib.formats.selection import listed
from ptycho_torch.memmap_bridge import WHOLE_ABSOLUTE, WHOLE_RELATIVE

MOST = 1e12  # photons in a pixel: what is larger is a mark, not a count
MARKS = [2.0**bits - less for bits in (31, 32) for less in (1, 0)]
FAR, STUCK, LEAST = 100.0, 4.0, 8  # times all others; times its neighbours, in at least 8 patterns
CLIPPED, CLIPPED_PHOTONS = 1e-3, 1e-2  # largest share of values, and of photons, set to zero


@dataclass(frozen=True)
class Frames:
    """What one pass over all frames found. Patterns are counted as in the file."""

    mean: np.ndarray  # (rows, columns) of |value|, bad ones 0
    bad: np.ndarray  # (rows, columns) bool: masked, or bad by what they do
    masked: int  # how many of them the file calls bad
    patterns: np.ndarray  # bad patterns
    empty: np.ndarray  # patterns without any photon
    single: np.ndarray  # (rows, columns) how many bad single values
    first: tuple[int, ...] | None  # pattern, row, column of the first single one
    odd: int  # how many of them are not negative
    clipped: float  # sum of the negative ones over the sum of all, without its sign
    whole: bool
    squares_whole: bool


def is_bad(block: np.ndarray) -> np.ndarray:
    """Bad values of a block of any real type."""
    values = block.astype(np.float64, copy=False)
    bad = ~((values >= 0) & (values < MOST))  # NaN is neither
    if block.dtype.kind in "iu" and block.dtype.itemsize > 1:
        bad |= block == np.iinfo(block.dtype).max
    if values.size and np.nanmax(values, initial=0) >= min(MARKS):
        bad |= np.isin(values, MARKS)
    return bad


def look(scan: RawScan) -> Frames:
    """Mean frame, what is bad, and whether values or their squares are whole numbers."""
    shape = scan.detector_px
    masked = np.zeros(shape, bool) if scan.bad is None else scan.bad
    taken = np.arange(scan.held) if scan.kept is None else np.flatnonzero(scan.kept)
    times, below, negative = *np.zeros((2, *shape), np.int64), np.zeros(shape)
    total, low, high = np.zeros(shape), np.full(shape, np.inf), np.zeros(shape)
    of_frame, lit = [], []
    whole = squares_whole = True
    for block in scan.blocks():
        values, wrong = block.astype(np.float64), is_bad(block) & ~masked
        unusable = wrong | masked
        with np.errstate(invalid="ignore"):
            less = wrong & (values < 0) & (values > -MOST)
        negative -= np.where(less, values, 0).sum(0)
        below += less.sum(0)
        values[unusable] = 0
        low = np.minimum(low, np.where(unusable, np.inf, values).min(0))
        high = np.maximum(high, values.max(0))
        times += wrong.sum(0)
        total += values.sum(0)
        of_frame.append(wrong.sum((1, 2)))
        lit.append(values.any((1, 2)))
        whole = whole and bool((values == np.rint(values)).all())
        square = values**2
        near = np.abs(square - np.rint(square)) <= WHOLE_ABSOLUTE + WHOLE_RELATIVE * square
        squares_whole = squares_whole and bool(near.all())
    n, of_frame = scan.n, np.concatenate(of_frame)
    always = times > n / 2
    left = ~(masked | always)
    torn = of_frame - int(always.sum()) > left.sum() / 2
    stands = _stands_out(low, high, total / n, left) if n >= LEAST else np.zeros(shape, bool)
    bad = masked | always | stands
    single = np.where(bad, 0, np.maximum(times - int(torn.sum()), 0))
    first = _first(scan, bad, taken[torn]) if single.any() else None
    total[bad] = 0
    if not total.any():
        text = "every value of every pattern is 0 or unusable; expected photons in at least one"
        raise scan.refused(f"{text} pattern; check the source")
    empty = taken[~np.concatenate(lit) & ~torn]
    odd = int(np.maximum(single - below, 0)[~bad].sum())
    clipped = float(negative[~bad].sum() / total.sum())
    found = (taken[torn], empty, single, first, odd, clipped, whole, squares_whole)
    return Frames(total / max(1, n - int(torn.sum())), bad, int(masked.sum()), *found)


def _stands_out(
    low: np.ndarray, high: np.ndarray, mean: np.ndarray, left: np.ndarray
) -> np.ndarray:
    """Pixels whose least value is far above the largest of all others; and those that never change
    and are far above their neighbours."""
    found = np.zeros(low.shape, bool)
    order = np.argsort(np.where(left, low, -1), axis=None)[::-1][: int(left.sum())]
    rest = np.maximum.accumulate(high.ravel()[order][::-1])[::-1]  # the largest from here on
    half = len(order) // 2
    jump = np.flatnonzero(low.ravel()[order][:half] > FAR * rest[1 : half + 1])
    if len(jump) and rest[jump[-1] + 1] > 0:
        found.ravel()[order[: jump[-1] + 1]] = True
    around = median_filter(np.where(left & ~found, mean, 0), 5, mode="mirror")
    stuck = left & (low == high) & (mean > STUCK * around + 10)
    return found | stuck


def _first(scan: RawScan, bad: np.ndarray, torn: np.ndarray) -> tuple[int, ...] | None:
    """Pattern, row and column of the first bad value in a good pattern and a good pixel."""
    taken, at = np.arange(scan.held) if scan.kept is None else np.flatnonzero(scan.kept), 0
    for block in scan.blocks():
        numbers = taken[at : at + len(block)]
        wrong = is_bad(block) & ~bad & ~np.isin(numbers, torn)[:, None, None]
        if wrong.any():
            number, row, column = np.argwhere(wrong)[0].tolist()
            return int(numbers[number]), row, column
        at += len(block)
    return None


def named_pixels(bad: np.ndarray) -> str:
    """Whole rows and columns by their number, other pixels by their place; the first few."""
    rows, columns = np.flatnonzero(bad.all(1)), np.flatnonzero(bad.all(0))
    rest = bad.copy()
    rest[rows], rest[:, columns] = False, False
    names = [f"row{'s' * (len(rows) > 1)} {listed(rows)}"] if len(rows) else []
    names += [f"column{'s' * (len(columns) > 1)} {listed(columns)}"] if len(columns) else []
    places = np.argwhere(rest)
    names += [f"[{row}, {column}]" for row, column in places[:5]]
    return ", ".join(names) + (", ..." if len(places) > 5 else "")


def judge(scan: RawScan, seen: Frames, bad_pixels: str, bad_values: str) -> np.ndarray:
    """Pixels (rows, columns) that are left out. Refused where something is bad and no option says
    what to do; each message names an option that does."""
    if len(seen.patterns):
        many = len(seen.patterns)
        text = f"{many} pattern{'s' * (many > 1)} of bad values only (not a number, negative or"
        text += f" saturated): {listed(seen.patterns)}; expected photon counts; leave out patterns"
        raise scan.refused(f"{text} and positions: --drop-patterns {_all(seen.patterns)}")
    bad, singles = seen.bad, int(seen.single.sum())
    if singles and bad_values == "zero":
        share = seen.odd / (scan.n * seen.single.size)
        if share > CLIPPED or seen.clipped > CLIPPED_PHOTONS:
            text = f"{100 * share:.3g} % of the values are not a number or saturated, and the"
            text += (
                f" negative ones are {100 * seen.clipped:.3g} % of the photons; expected at most"
            )
            text += f" {100 * CLIPPED:g} % and {100 * CLIPPED_PHOTONS:g} % to be set to zero; leave"
            raise scan.refused(f"{text} their pixels out instead: --bad-pixels mask")
    elif singles and bad_pixels == "refuse":
        pixels = int((seen.single > 0).sum())
        text = f"{singles} bad values in {pixels} pixels (not a number, negative or saturated), the"
        text += f" first at pattern {seen.first[0]}, pixel [{seen.first[1]}, {seen.first[2]}];"
        text += " expected photon counts; set these values to zero: --bad-values zero; or leave the"
        raise scan.refused(f"{text} pixels out of every pattern: --bad-pixels mask")
    elif singles:
        bad = bad | (seen.single > 0)
    if bad.any() and bad_pixels == "refuse":
        count = int(bad.sum())
        text = f"{count} bad pixels ({seen.masked} by the file's mask, the others not a number,"
        text += f" negative, saturated or stuck): {named_pixels(bad)}; expected photon counts in"
        raise scan.refused(f"{text} every pixel; leave them out of everything: --bad-pixels mask")
    return bad


def _all(numbers: np.ndarray) -> str:
    """All numbers as `--drop-patterns` takes them."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
