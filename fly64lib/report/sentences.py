"""One sentence a method: what it resolves, with how many photons, where, and beside the peer."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pandas import DataFrame

from fly64lib.evaluation.columns import columns
from fly64lib.plots.styles import label
from fly64lib.report.answers import Needed, Needs, best_view, methods, named, needed_photons
from fly64lib.report.dose_map import columns_of, place
from fly64lib.report.intervals import times, with_interval

PEERS = ("lsqml-fine", "lsqml")  # what a user would pick instead, on our grid if it was run there


class Sentence(NamedTuple):
    """Of one method; `photons` is the least need of a named view, None where none is met."""

    method: str
    text: str
    photons: float | None = None


def goal(metric: str, target: float, pixel_nm: float | None) -> str:
    """What meeting a target means: `resolves 113 nm (0.5 of Nyquist)`."""
    column = columns()[metric]
    if column.unit == "Nyquist":
        share = f"{target:g} of the Nyquist frequency"
        return f"resolves {pixel_nm / target:.0f} nm ({share})" if pixel_nm else f"resolves {share}"
    reaches = f"{target:g} {column.unit}".strip()
    return f"reaches a {column.label} of {reaches}"


def short_goal(metric: str, target: float, pixel_nm: float | None) -> str:
    """A target on a button."""
    column = columns()[metric]
    if column.unit == "Nyquist":
        return f"{pixel_nm / target:.0f} nm" if pixel_nm else f"{target:g} Nyquist"
    return f"{target:g} {column.unit}".strip()


def sentences(
    rows: DataFrame, metric: str, target: float, pixel_nm: float | None, more: Mapping[str, str]
) -> list[Sentence]:
    """A sentence for each method, the one that needs fewest photons per object pixel first; `more`
    says of a method what other photons it has used."""
    rows, found = named(rows), []
    per_pixel = needed_photons(rows, metric, target)
    per_exposure = needed_photons(rows, metric, target, "dose")
    what = goal(metric, target, pixel_nm)
    for name in methods(rows):
        best = best_view(per_pixel, name)
        if best is None:
            found.append(Sentence(name, _failed(rows, name, what, per_pixel)))
            continue
        view, photons = best
        text = f"{what} with {need_words(per_exposure[name, view])} photons per exposure"
        text += f" {place(view)}, {need_words(per_pixel[name, view])} per object pixel"
        text += beside_peer(per_pixel, name, view)
        text += _least(rows, per_exposure, name, view)
        text += f" {more[name]}" if name in more else ""
        found.append(Sentence(name, text, photons))
    return sorted(found, key=lambda one: np.inf if one.photons is None else one.photons)


def need_words(needs: Sequence[Needed]) -> str:
    """`1,230 ± 150`, or at most so many where a replicate met it at the lowest dose."""
    if any(need.kind == "<" for need in needs):
        return f"at most {with_interval([max(need.photons for need in needs)])}"
    return with_interval([need.photons for need in needs])


def peer_of(names: Iterable[str]) -> str:
    """The peer among methods."""
    there = set(names)
    return next((name for name in PEERS if name in there), PEERS[-1])


def beside_peer(needs: Needs, name: str, view: str) -> str:
    """What share of the peer's fewest photons that is, replicates' extremes against each other."""
    there = {method for method, _ in needs}
    its_name = peer_of(there)
    said = label(its_name)
    if name == its_name:
        return "."
    if its_name not in there:
        return f"; {said} was not run here."
    best = best_view(needs, its_name)
    if best is None:
        return f"; {said} does not get there."
    own, peer = needs[name, view], needs[its_name, best[0]]
    bounded = {need.kind for need in (*own, *peer)} != {"="}
    ratio = float(np.median([n.photons for n in own]) / best[1])
    if bounded and all(need.kind == "<" for need in peer):
        return f"; {said} meets it at the fewest tried too: the doses start too high to compare."
    low = min(n.photons for n in own) / max(n.photons for n in peer)
    high = max(n.photons for n in own) / min(n.photons for n in peer)
    if len(own) > 1 and low < 1 < high:
        return f": as many as {said}'s within the intervals."
    spread = f" ({low:.2g} to {high:.2g})" if len(own) > 1 else ""
    return f": {'at most ' if bounded else ''}{times(ratio)} {said}'s{spread}."


def _least(rows: DataFrame, needs: Needs, name: str, best: str) -> str:
    """The lowest overlap of single images at which all replicates still meet the target."""
    met = [
        v for v in columns_of(rows) if all(n.kind != ">" for n in needs.get((name, v), [_NEVER]))
    ]
    spaced = [view for view in met if view.startswith("single_")]
    if not spaced or spaced[-1] == best:
        return ""
    last = spaced[-1]
    return f" With {need_words(needs[name, last])} per exposure it does so {place(last)} too."


_NEVER = Needed(">", np.inf)


def _failed(rows: DataFrame, name: str, what: str, needs: Needs) -> str:
    own = rows[rows.method == name]
    some = [
        view
        for (method, view), found in needs.items()
        if method == name and any(need.kind != ">" for need in found)
    ]
    text = f"never {what} in all replicates, up to {own.dose.max():,.0f} photons per exposure"
    return text + (f"; in some it does {place(some[0])}." if some else ".")
