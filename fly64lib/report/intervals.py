"""Numbers of replicates as text: no more digits than their interval bears."""

from collections.abc import Sequence

import numpy as np

_ALONE = 2  # digits of a number without an interval


def with_interval(values: Sequence[float]) -> str:
    """The median and half the range of replicates, `1,230 ± 150`: n replicates' range holds the
    median of all possible ones with probability 1 - 2^(1 - n). One alone has two digits."""
    middle, half = float(np.median(values)), float(np.ptp(values)) / 2
    if not half:
        return _rounded(middle, _place(middle, _ALONE))
    place = _place(half, 2 if f"{half:e}"[0] == "1" else 1)
    # Not more digits than a reader can use, however close the replicates are.
    place = max(place, _place(middle, 3))
    shown = max(half, 10.0**place)
    return f"{_rounded(middle, place)} ± {_rounded(shown, place)}"


def times(ratio: float) -> str:
    """A share or multiple in words: `a seventh of`, `3 times`; `as many as` within a tenth."""
    words = ("half", "a third", "a quarter", "a fifth", "a sixth", "a seventh", "an eighth")
    words += ("a ninth", "a tenth")
    if 0.9 < ratio < 1.1:
        return "as many as"
    if ratio >= 1.1:
        return f"{_rounded(ratio, _place(ratio, _ALONE))} times"
    if ratio > 0.6:
        return f"{ratio:.1f} times"
    part = round(1 / ratio)
    return f"{words[part - 2]} of" if part <= len(words) + 1 else f"1/{part} of"


def _place(value: float, digits: int) -> int:
    """Power of ten of the last of so many digits."""
    return int(np.floor(np.log10(abs(value)))) - digits + 1 if value else 0


def _rounded(value: float, place: int) -> str:
    return f"{round(value, -place):,.{max(-place, 0)}f}"
