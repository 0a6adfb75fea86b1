"""The map of a cut scan: photons kept over overlap, a panel a number and method."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fly64lib.evaluation.columns import number

Rows = Sequence[Mapping[str, Any]]


def cut_map(
    rows: Rows, methods: Sequence[str], column_name: Callable[[Mapping], str], unit: str
) -> Figure:
    """Median of each cell as colour and text, under it the range over the replicates."""
    shown = {"phase_rms_rad": "phase rms / rad", "resolution": f"FRC 0.5 at / {unit}"}
    shares = list(dict.fromkeys(row["share"] for row in rows))
    columns = list(dict.fromkeys(map(column_name, rows)))
    size = (1.3 + 1.5 * len(columns)) * len(methods), (1.0 + 0.62 * len(shares)) * len(shown)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(shown), len(methods), squeeze=False)
    for line, (name, title) in zip(panels, shown.items(), strict=True):
        values = [row[name] for row in rows if row[name] is not None]
        ends = (min(values), max(values)) if values else (0.0, 1.0)
        for ax, method in zip(line, methods, strict=True):
            cells = np.full((len(shares), len(columns)), np.nan)
            ax.set(title=f"{method}: {title}", ylabel="photons kept")
            ax.set_xticks(range(len(columns)), columns, fontsize="small")
            ax.set_yticks(range(len(shares)), [f"{share:.3g}" for share in shares])
            for row in rows:
                if row["method"] == method:
                    at = shares.index(row["share"]), columns.index(column_name(row))
                    cells[at] = np.nan if row[name] is None else row[name]
                    _text(ax, at, row, name, ends)
            ax.imshow(cells, "cividis_r", vmin=ends[0], vmax=ends[1], aspect="auto")
    return figure


def _text(
    ax: Axes, at: tuple[int, int], row: Mapping, name: str, ends: tuple[float, float]
) -> None:
    low, high = row[f"{name}_range"]
    text = number(row[name])
    if row["replicates"] > 1:
        text += f"\n({number(low)} to {number(high)})"
    dark = row[name] is not None and row[name] > (ends[0] + ends[1]) / 2
    colour = "white" if dark else "black"
    ax.text(at[1], at[0], text, ha="center", va="center", color=colour, fontsize="small")
