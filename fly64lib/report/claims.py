"""Where the rows stand beside what others have published, by their measures, on this study's data.

overlap-free   arXiv 2602.21361: reconstruction without overlap reaches 0.93 of the SSIM with it,
               and stays accurate down to 10^4 photons a frame
less overlap   arXiv 2502.18767: 20 % overlap gives what rPIE needs 62 % for"""

from typing import NamedTuple

import numpy as np
from pandas import DataFrame

from fly64lib.design.study import SINGLE, linear_overlap
from fly64lib.plots.styles import label
from fly64lib.report.answers import methods, named
from fly64lib.report.intervals import with_interval

MEASURE = "phase_ssim"
_ITERATIVE = ("rpie", "lsqml")  # theirs, or what stands in for it
_FRAME = 1e4  # photons, of the claim
_LOW = 0.2


class Claim(NamedTuple):
    """What was published, and a line for each method and dose, or why there is none."""

    theirs: str
    ours: list[str]
    why_none: str = ""


def claims(rows: DataFrame) -> list[Claim]:
    """Both claims beside these rows."""
    spaced = named(rows)
    spaced = spaced[spaced["view"].str.startswith(SINGLE)]
    if MEASURE in spaced:
        spaced = spaced.dropna(subset=[MEASURE])
    spaced = spaced.assign(linear=[linear_overlap(view) for view in spaced["view"]])
    return [_overlap_free(spaced), _less_overlap(spaced)]


def _overlap_free(rows: DataFrame) -> Claim:
    theirs = (
        "Without overlap 0.93 of the SSIM with overlap, accurate down to 10,000 photons a frame"
    )
    theirs += " (arXiv 2602.21361, other specimens, probe known)."
    gone = _absent(rows)
    if gone or 0 not in set(rows.linear):
        return Claim(theirs, [], gone or "This study has no view without overlap.")
    most = rows.linear.max()
    lines = []
    for name in methods(rows):
        own = rows[(rows.method == name) & rows.linear.isin((0.0, most))]
        table = own.pivot_table(MEASURE, ["dose", "replicate"], "linear")
        shares = (table[0.0] / table[most]).dropna().groupby("dose").apply(list)
        parts = [f"{with_interval(v)} at {dose:,.0f} photons" for dose, v in shares.items()]
        dark, bright = (
            own[own.linear == 0].groupby("dose")[MEASURE].median().get(dose)
            for dose in (_FRAME, own.dose.max())
        )
        held = (
            f"; at {_FRAME:,.0f} photons {dark / bright:.2f} of that at the highest dose"
            if (dark is not None and bright)
            else ""
        )
        lines.append(f"{label(name)}: {', '.join(parts)} of the SSIM at {most:.0%} overlap{held}")
    return Claim(theirs, lines)


def _less_overlap(rows: DataFrame) -> Claim:
    theirs = "A physics-informed network at 20 % overlap gives what rPIE needs 62 % for"
    theirs += " (arXiv 2502.18767, other specimens)."
    peer = next((name for name in _ITERATIVE if name in set(rows.method)), None)
    gone = _absent(rows)
    if gone or peer is None or not rows.linear.min() <= _LOW <= rows.linear.max():
        return Claim(
            theirs, [], gone or "This study has no iterative method, or no view at or around 20 %."
        )
    curves = rows.groupby(["method", "dose", "linear"])[MEASURE].median()
    lines = []
    for name in methods(rows):
        if name in _ITERATIVE or not {"pinn", "pinn-sim"} & {name.partition("+")[0]}:
            continue
        parts = []
        for dose in sorted(rows.dose.unique()):
            if (name, dose) in curves.index and (peer, dose) in curves.index:
                own, theirs_at = curves[name, dose], curves[peer, dose]
                value = np.interp(_LOW, own.index, own.to_numpy())
                parts.append(f"{_overlap_for(theirs_at, value)} at {dose:,.0f} photons")
        lines.append(f"{label(name)} at 20 %: {label(peer)} needs {', '.join(parts)}")
    return Claim(theirs, lines)


def _overlap_for(curve: object, value: float) -> str:
    """From which overlap on a median SSIM, by overlap, is at a value."""
    overlaps, values = np.asarray(curve.index, float), curve.to_numpy()
    failing = np.flatnonzero(values < value)
    if not len(failing):
        return f"{overlaps[0]:.0%} or less"
    k = failing[-1]
    if k == len(values) - 1:
        return f"more than {overlaps[-1]:.0%}"
    part = (value - values[k]) / (values[k + 1] - values[k])
    return f"{overlaps[k] + part * (overlaps[k + 1] - overlaps[k]):.0%}"


def _absent(rows: DataFrame) -> str:
    if not len(rows):
        return "This study has no views of single images spaced by overlap."
    return "" if MEASURE in rows else f"These rows have no {label(MEASURE)}."
