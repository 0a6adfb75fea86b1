"""Which patterns of a file are taken, and which position belongs to each: by the file's own numbers
where it has them, else one after the other."""

from dataclasses import replace

import numpy as np

from fly64lib.formats.raw import RawScan
from ptycho_torch.errors import ConfigError

NAMED = 8  # numbers that a message lists


def listed(numbers: np.ndarray) -> str:
    """The first few of some numbers, as `--drop-patterns` takes them."""
    numbers = np.asarray(numbers)
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1) if len(numbers) else []
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs]
    return ",".join(texts[:NAMED]) + (",..." if len(texts) > NAMED else "")


def parsed(text: str | None, most: int) -> np.ndarray:
    """Numbers below `most` of a list such as `110,3-5`."""
    found: set[int] = set()
    for part in (text or "").replace(" ", "").split(",") if text else ():
        low, dash, high = part.partition("-")
        if not (low.isdecimal() and (high.isdecimal() or not dash)):
            raise ConfigError(f"drop_patterns {text!r}: expected a list such as 110,3-5")
        first, last = int(low), int(high or low)
        if not first <= last < most:
            text = f"drop_patterns {part!r}: expected pattern numbers from 0 to {most - 1}"
            raise ConfigError(f"{text}, counted from 0")
        found |= set(range(first, last + 1))
    return np.array(sorted(found), np.int64)


def counted_from(raw: RawScan, first_number: int | None) -> tuple[RawScan, bool]:
    """The scan with numbers of positions that count patterns from 0, and whether the file's may as
    well count from 1."""
    numbers = raw.numbers
    if first_number is None:
        either = numbers is not None and numbers.size and (numbers >= 1).all()
        if not (either and numbers.max() == raw.held):
            return raw, False
        return raw, True
    if numbers is None and first_number:
        numbers = np.arange(len(raw.positions), dtype=np.float64)
    return replace(raw, numbers=None if numbers is None else numbers - first_number), False


def selected(raw: RawScan, first: int | None, drop: str | None) -> RawScan:
    """The scan with one position for each pattern that is taken, in the order of the patterns.

    Positions with numbers are joined to the patterns of these numbers; what has no partner is left
    out. Without numbers both lists have to be equally long, after `first` of both were taken and
    the patterns in `drop` left out. Where one list is longer by as many as are dropped, they are
    left out of that one."""
    held, given = raw.held, len(raw.positions)
    dropped, notes = parsed(drop, max(held, given)), list(raw.notes)
    if raw.numbers is not None:
        patterns, places = _joined(raw, notes)
    elif first is None and held != given and len(dropped) == abs(held - given):
        patterns, places = np.arange(held), np.arange(given)
        longer = patterns if held > given else places
        left = np.setdiff1d(longer, dropped)
        patterns, places = (left, places) if held > given else (patterns, left)
        dropped, what = dropped[:0], "patterns" if held > given else "positions"
        notes.append(f"{what} {drop} are left out; the others go together in order")
    else:
        patterns = places = np.arange(min(held, given))
        if first is None and held != given:
            fewer = min(held, given)
            text = f"{held} patterns ({raw.stacks[0].key}), and {given} positions; expected one"
            text += f" position for each pattern; take the first {fewer} of both: --first {fewer};"
            text += f" or name the {abs(held - given)} to be left out of the longer list:"
            raise raw.refused(f"{text} --drop-patterns LIST, such as 0,5-7")
    if first is not None:
        if first > len(patterns):
            text = f"{len(patterns)} patterns with a position; expected at least the {first} that"
            raise raw.refused(f"{text} --first asks for; ask for less")
        patterns, places = patterns[:first], places[:first]
    rest = ~np.isin(patterns, dropped)
    patterns, places = patterns[rest], places[rest]
    if not len(patterns):
        text = "no pattern is left; expected at least one; name less in --drop-patterns"
        raise raw.refused(text)
    if len(patterns) == held and np.array_equal(places, np.arange(given)):
        return replace(raw, notes=notes)
    kept = np.zeros(held, bool)
    kept[patterns] = True
    if len(patterns) < held:
        notes.append(f"{len(patterns)} of {held} patterns are taken")
    extra = {
        key: value[patterns] if value.shape[:1] == (held,) else value
        for key, value in raw.extra.items()
        if key != "groups" or len(patterns) == held
    }
    if len(patterns) < held:
        extra.setdefault("scan_index", patterns)
    changed = {"positions": raw.positions[places], "kept": kept, "extra": extra, "notes": notes}
    return replace(raw, numbers=None, **changed)


def _joined(raw: RawScan, notes: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(patterns, positions) with the same number, in the order of the patterns."""
    numbers, held = raw.numbers, raw.held
    if len(numbers) != len(raw.positions) or not (numbers == np.rint(numbers)).all():
        text = f"{len(numbers)} pattern numbers for {len(raw.positions)} positions; expected a"
        raise raw.refused(f"{text} whole number for each; write the positions' numbers again")
    values, times = np.unique(numbers, return_counts=True)
    if (times > 1).any():
        text = f"two positions for pattern {listed(values[times > 1].astype(int))}; expected one"
        raise raw.refused(f"{text} number for each position; write the numbers again")
    inside = np.flatnonzero((numbers >= 0) & (numbers < held))
    if not len(inside):
        text = f"pattern numbers {numbers.min():.0f} .. {numbers.max():.0f}, and {held} patterns;"
        text += f" expected numbers within 0 .. {held - 1}; count them from 0 in the file"
        raise raw.refused(text)
    order = inside[np.argsort(numbers[inside])]
    patterns = numbers[order].astype(np.int64)
    lonely, beyond = np.setdiff1d(np.arange(held), patterns), len(numbers) - len(inside)
    if len(lonely) or beyond:
        text = f"by the file's pattern numbers, {len(lonely)} patterns have no position"
        text += f" ({listed(lonely)})" if len(lonely) else ""
        notes.append(f"{text} and {beyond} positions no pattern; they are left out")
    elif (order != np.arange(held)).any():
        notes.append("positions are put in the order of the patterns by the file's numbers")
    return patterns, order
