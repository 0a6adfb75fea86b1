"""What becomes of every key of a file: a format says it in a table; what no table knows is told."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import numpy as np

from fly64lib.formats.raw import RawScan
from ptycho_torch.data.container import refused

UNUSED = "not used"  # how the entry of a key begins that is let pass
CLOSE = 1e-3  # relative difference within which two keys say the same
MOST_NAMED = 8


def unused(table: Mapping[str, str], keys: Iterable[str]) -> list[str]:
    """A line for the keys that the table does not know, and one for those known and not used."""
    unknown, passed = [], []
    for key in keys:
        entry = next((text for name, text in table.items() if fnmatchcase(key, name)), None)
        if entry is None:
            unknown.append(key)
        elif entry.startswith(UNUSED):
            passed.append(key)
    lines = [("keys that fly64 does not know, not used", unknown), ("not used", passed)]
    return [f"{what}: {_some(keys)}" for what, keys in lines if keys]


def same(raw: RawScan, one: str, other: str, values: np.ndarray, others: np.ndarray) -> None:
    """Refuse two keys that state one thing and differ."""
    values, others = np.asarray(values, float), np.asarray(others, float)
    scale = np.abs(values[np.isfinite(values)]).max(initial=0)
    if values.shape == others.shape and np.allclose(values, others, CLOSE, CLOSE * scale * 1e-3):
        return
    found = f"{_short(values)}, and {_short(others)} in {other!r}"
    text = f"{found}; expected the same in both; correct or remove the wrong one"
    raise refused(raw.source, one, text)


def _short(values: np.ndarray) -> str:
    return f"{values.reshape(-1)[0]:.6g}" if values.size == 1 else f"values of shape {values.shape}"


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
    return ", ".join(keys[:MOST_NAMED]) + more
