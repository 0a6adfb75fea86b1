"""Numbers of a result file held against stored ones: the science's regression check.

    print(check("runs/study/phase_g/dose_10000/dense/comparison.json", "expected/compare.json"))

A column is a path through the result's JSON: keys and indices with `/` between them, `*` for every
entry of a list or dictionary. The stored file holds its values in that order and one absolute
tolerance; 0 asks for equality, as names and counts do."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ptycho_torch.data.contract import read_scan
from ptycho_torch.errors import DataContractError
from ptycho_torch.files import read_json, write_json


class DifferentNumbers(AssertionError):
    """A column that left its tolerance, or that has more or fewer values than stored."""


def column(content: Any, path: str) -> list:
    """All values of a column, in order. Raises DataContractError where there is no such place."""
    found = [content]
    for step in path.split("/"):
        found = [entry for place in found for entry in _entries(place, step, path)]
    return found


def _entries(content: Any, step: str, path: str) -> list:
    """What one step of a path leads to."""
    if step == "*" and isinstance(content, dict | list):
        return list(content.values()) if isinstance(content, dict) else content
    try:
        return [content[int(step)] if isinstance(content, list) else content[step]]
    except (KeyError, IndexError, ValueError, TypeError) as error:
        keys = ", ".join(map(str, content)) if isinstance(content, dict) else ""
        there = keys or f"a {type(content).__name__}"
        raise DataContractError(f"column {path}: expected {step!r}, there is {there}") from error


def _content(result: Path) -> Any:
    """What a result says of itself: a JSON file, or a scan's metadata."""
    return read_scan(result).metadata if result.suffix == ".npz" else read_json(result)


def store(result: str | Path, expected: str | Path, tolerances: Mapping[str, float]) -> None:
    """Write a result's columns and their tolerances for :func:`check`."""
    content, columns = _content(Path(result)), {}
    for path, tolerance in tolerances.items():
        columns[path] = {"tolerance": tolerance, "values": column(content, path)}
    write_json(expected, columns)


def check(result: str | Path, expected: str | Path) -> str:
    """A line for each column that holds. Raises DifferentNumbers with every value that does not."""
    content, wrong, held = _content(Path(result)), [], []
    for path, stored in read_json(expected).items():
        found, values, tolerance = column(content, path), stored["values"], stored["tolerance"]
        if len(found) != len(values):
            wrong.append(f"{path}: {len(found)} values, expected {len(values)}")
        wrong += [
            f"{path}, value {k}: {a!r}, expected {b!r} within {tolerance:g}"
            for k, (a, b) in enumerate(zip(found, values, strict=False))
            if not _close(a, b, tolerance)
        ]
        how = f"within {tolerance:g}" if tolerance else "equal"
        held.append(f"{path}: as stored, {len(values)} {how}")
    if wrong:
        raise DifferentNumbers(f"{result} against {expected}:\n  " + "\n  ".join(wrong))
    return "\n".join(held)


def _close(found: Any, stored: Any, tolerance: float) -> bool:
    if tolerance and {type(found), type(stored)} <= {int, float}:
        return math.isclose(found, stored, rel_tol=0, abs_tol=tolerance)
    return found == stored
