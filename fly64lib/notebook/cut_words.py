"""The map of a cut scan in words: medians and ranges over the replicates, a table, sentences, and
what they presume."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fly64lib.evaluation.columns import aligned_text, number

_DRAWN = ("phase_rms_rad", "amplitude_rms", "frc_half", "deviance_held_out")
Row = dict[str, Any]


def summed(rows: Sequence[Row], noise: Mapping[str, float]) -> list[Row]:
    """One row a cut and method, in their order: of each number the median over the replicates, and
    `<name>_range`. `phase_error_rad` adds the reference's own noise, see :func:`assumptions`."""
    cells: dict[tuple, list[Row]] = {}
    for row in rows:
        cells.setdefault((row["share"], row["overlap"], row["method"]), []).append(row)
    found = []
    for (share, overlap, method), own in cells.items():
        of = {"share": share, "overlap": overlap, "method": method, "replicates": len(own)}
        for name in ("images", "overlap_measured", "dose_share"):
            of[name] = float(np.median([row[name] for row in own]))
        for name in _DRAWN:
            values = [row[name] for row in own]
            of[name], of[f"{name}_range"] = float(np.median(values)), [min(values), max(values)]
        # Unresolved is infinite: None in the files, and last in order.
        values = sorted(np.inf if row["resolution"] is None else row["resolution"] for row in own)
        ends = [float(np.median(values)), values[0], values[-1]]
        middle, *ends = [None if value == np.inf else value for value in ends]
        of["resolution"], of["resolution_range"] = middle, ends
        of["phase_error_rad"] = float(np.hypot(of["phase_rms_rad"], noise["phase_rms_rad"]))
        found.append(of)
    return found


def column_name(row: Mapping[str, Any]) -> str:
    """An overlap as heads of columns write it."""
    asked = row["overlap"]
    return "all positions" if asked is None else f"overlap {asked:g}"


def in_words(numbers: Mapping[str, Any]) -> str:
    """The table, and sentences about the smallest cuts."""
    unit, lines = numbers["unit"], []
    heads = ["photons kept", "overlap", "positions", "photons in all", "method", "phase rms / rad"]
    heads += ["with the reference's noise", "amplitude rms", f"FRC 0.5 at / {unit}"]
    heads += ["deviance held out"]
    for row in numbers["map"]:
        lines.append(
            [
                f"{row['share']:.3g}",
                f"{row['overlap_measured']:.2f}",
                f"{row['images']:.0f}",
                f"{row['dose_share']:.3g}",
                row["method"],
                _ranged(row, "phase_rms_rad"),
                number(row["phase_error_rad"]),
                _ranged(row, "amplitude_rms"),
                _ranged(row, "resolution"),
                f"{row['deviance_held_out']:.4g}",
            ]
        )
    noise = numbers["reference"]["noise"]
    at = f"FRC 0.5 at {_at(noise['resolution'], unit)}"
    said = [f"the full reconstruction's own noise: {number(noise['phase_rms_rad'])} rad, {at}"]
    said += [f"overlap {one['overlap']:g}: {one['reason']}" for one in numbers["left_out"]]
    return "\n".join([aligned_text(heads, lines), "", *said, *sentences(numbers)])


def sentences(numbers: Mapping[str, Any]) -> list[str]:
    """A plain sentence for the fewest photons, the least overlap, and both."""
    rows, unit = numbers["map"], numbers["unit"]
    corners = {}
    for row in rows:
        corners.setdefault((row["share"], row["overlap"]), []).append(row)
    shares = [share for share, _ in corners]
    overlaps = [overlap for _, overlap in corners]
    chosen = dict.fromkeys(
        [(shares[-1], overlaps[0]), (shares[0], overlaps[-1]), (shares[-1], overlaps[-1])]
    )
    found = []
    for place in chosen:
        own = corners[place]
        where = (
            f"{place[0] * 100:.3g} % of your photons and {own[0]['overlap_measured']:.0%} overlap"
        )
        where = where.replace("%", " %").replace("  %", " %")
        phase = ", ".join(f"{number(row['phase_rms_rad'])} rad ({row['method']})" for row in own)
        sharp = ", ".join(_at(row["resolution"], unit) for row in own)
        found.append(
            f"At {where} the phase agrees with your full reconstruction to {phase};"
            f" FRC 0.5 at {sharp}."
        )
    return found


def assumptions(numbers: Mapping[str, Any]) -> list[str]:
    """What the numbers presume, and what they do not say."""
    noise, made_by = numbers["reference"]["noise"], numbers["reference"]["made_by"]
    by = f", made by {made_by}, whose own cuts it favours" if made_by else ""
    cut = numbers["patterns"]["cut"]
    return [
        f"The reference is your full reconstruction{by}. It is not the specimen: what it has wrong,"
        " a cut that is wrong alike agrees with.",
        f"It holds noise: {number(noise['phase_rms_rad'])} rad rms of phase, half the difference of"
        " two reconstructions from independent halves of its photons. The photons of a cut are"
        " among its own, so the difference misses that noise; the column with it adds the squares,"
        " which is exact for estimates that use every photon well and have no bias.",
        "Counts are photons: each is kept with the same probability, which is what a shorter"
        " exposure counts, exactly. Noise of the readout would not shrink with the exposure.",
        "Probe, positions and brightness are those found from all photons. A real cut has to find"
        " them from fewer, so it loses at least what is said here.",
        f"The linear overlap is 1 - d / D, d the median distance to the nearest position, D ="
        f" {numbers['probe_diameter_px']:.1f} px the probe's outer diameter at half maximum."
        " Positions are drawn at random, at least so far apart; a regular scan of as many is"
        " somewhat more even.",
        f"Every tenth pattern is in no cut ({cut} are cut), and with all of its photons gives the"
        " deviance held out, which knows no reference: about 1 a pixel for a perfect model where"
        " counts are large, less where they are few.",
        "The replicates draw photons and positions anew from the same counts. Their range does not"
        " hold what another measurement of the specimen would change.",
    ]


def _ranged(row: Mapping[str, Any], name: str) -> str:
    low, high = row[f"{name}_range"]
    if row["replicates"] == 1:
        return number(row[name])
    return f"{number(row[name])} ({number(low)} to {number(high)})"


def _at(resolution: float | None, unit: str) -> str:
    return "no detail" if resolution is None else f"{number(resolution)} {unit}"
