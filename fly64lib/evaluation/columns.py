"""Names, units and formats of the numbers of a results row: the one table that every text table,
notebook, curve and page reads.

A metric (:mod:`fly64lib.evaluation.metrics`) brings its own column; here are those of other
numbers."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from textwrap import wrap
from typing import Literal

from fly64lib.design.registries import METRICS

LIMITS = ("cramer_rao", "bayesian")
REFERENCES = ("flat", "truth", *LIMITS)  # methods of rows that are no reconstructions
_HEAD_WIDTH = 12  # characters of a line of a text table's head


@dataclass(frozen=True)
class Column:
    """One number of a row. `format` is that of :func:`format`; empty writes three digits. `shown`:
    in all tables, in the report's only, or in the rows of CSV and JSON files only."""

    name: str
    label: str
    unit: str = ""
    format: str = ""
    higher_is_better: bool = True
    shown: Literal["everywhere", "report", "rows"] = "everywhere"
    curve: bool = False  # the report draws it over dose, photons and overlap
    logarithmic: bool = False  # axis of the curve

    @property
    def title(self) -> str:
        return f"{self.label} / {self.unit}" if self.unit else self.label

    def text(self, value: float | None) -> str:
        """The number as tables write it; a dash where there is none."""
        absent = value is None or value != value
        return number(value) if absent or not self.format else format(value, self.format)


CONDITION = (
    Column("dose", "photons per exposure", shown="rows"),
    Column("overlap", "measured disc overlap with nearest images", shown="rows"),
    Column("replicate", "replicate", format="d", shown="report"),
    Column("images", "images", format=",d"),
    Column("photons_per_pixel", "photons per object pixel"),
)
_error = partial(Column, higher_is_better=False)
DATA = (
    _error("deviance", "deviance", "pixel"),
    _error("deviance_held_out", "held-out deviance", "pixel", curve=True, logarithmic=True),
)
COST = (
    _error("cpu_seconds", "CPU", "s"),
    _error("seconds", "wall", "s", shown="rows"),
    _error("peak_memory_mb", "peak memory", "MB", shown="rows"),
)


def columns() -> dict[str, Column]:
    """All columns by name, in the order of tables: every metric is followed by its skill."""
    metrics = (part for metric in METRICS.values() for part in (metric, metric.skill_column))
    return {column.name: column for column in (*CONDITION, *metrics, *DATA, *COST)}


def table_columns(names: Collection[str], report: bool = False) -> list[Column]:
    """The columns of these names that stand in tables; `report`: also the report's long ones."""
    shown = ("everywhere", "report") if report else ("everywhere",)
    return [one for one in columns().values() if one.name in names and one.shown in shown]


def table(rows: Sequence[Mapping], *keys: str) -> tuple[list[str], list[list[str]]]:
    """Heads and lines of a short table: the entries of `keys` as they are, then the columns."""
    shown = table_columns(set().union(*rows))
    return [*keys, *(column.title for column in shown)], [
        [number(row[key]) if isinstance(row[key], float) else str(row[key]) for key in keys]
        + [column.text(row.get(column.name)) for column in shown]
        for row in rows
    ]


def markdown_table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The table in Markdown."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (heads, ["---"] * len(heads), *lines))


def aligned_text(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """The table as aligned text, long heads on several lines."""
    wrapped = (wrap(head, _HEAD_WIDTH, break_on_hyphens=False) for head in heads)
    cells = [*zip_longest(*wrapped, fillvalue=""), *lines]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.rjust, line, widths)) for line in cells)


def number(value: float | None) -> str:
    """Three digits, thousands separated; what does not exist is a dash."""
    if value is None or value != value:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
