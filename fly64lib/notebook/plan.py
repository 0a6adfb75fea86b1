"""An experiment planned for a resolution: `fly64 plan`, and what plan.ipynb shows.

    pixel    lambda z / (N dq) on the detector's grid, lambda z / (M dq) on the finer one, M = 1.5 N
    photons per pixel = photons per exposure x exposures x pixel^2 / area of the field

How many photons a pixel needs is said twice. By a limit: noise of the photons alone leaves a
variance of 1 / (2 F) in phase and in amplitude of a pixel that F photons have met, and the FRC with
the truth is 0.5 where the error's power is three times the object's; with a contrast c spread
evenly over all frequencies up to the resolution r this takes F = 1 / (3 c^2) photons on r x r. And
by measured rows (:mod:`fly64lib.notebook.plan_table`), scaled to the contrast by the same law."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, sqrt
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame
from scipy.constants import c, e, h

from fly64lib.evaluation.columns import aligned_text, number
from fly64lib.notebook.parameters import PlanSettings
from fly64lib.notebook.plan_table import Curve, curves, shipped_table, table_of
from fly64lib.plots.plan_curves import plan_curves
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import config, field_names, to_dict
from ptycho_torch.files import json_text, write_json
from ptycho_torch.versions import software_versions

LIMIT = "limit by photon noise"
_FINER = 1.5  # M / N
_ERROR_AT_HALF = 3.0  # error's power over the object's where 1 / sqrt(1 + ratio) is 0.5


@config
class PlanOptions(PlanSettings):
    """Dose, step, overlap and exposures that a resolution needs."""

    output: Path | None = None  # a JSON file with all numbers
    json: bool = False  # the numbers on stdout, for scripts


@dataclass(frozen=True)
class Optics:
    """What energy, detector and distance decide."""

    pixels: int  # N
    wavelength_nm: float
    pixel_nm: float  # of the detector's grid
    finer_pixel_nm: float

    @classmethod
    def of(cls, settings: PlanSettings) -> "Optics":
        """ConfigError where the detector is not understood."""
        found = re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)(?:um)?", settings.detector.strip())
        if not found or int(found[1]) < 2 or float(found[2]) <= 0:
            text = f"detector={settings.detector!r}: expected pixels across and their size in um"
            raise ConfigError(f"{text}, such as 256x75")
        N, size_nm = int(found[1]), float(found[2]) * 1e3
        wavelength = h * c / e / (settings.energy_kev * 1e3) * 1e9
        pixel = wavelength * settings.distance_m * 1e9 / (N * size_nm)
        return cls(N, wavelength, pixel, pixel / _FINER)


def limit_photons(contrast_rad: float, pixel_nm: float, resolution_nm: float) -> float:
    """Photons per pixel that the limit asks for."""
    return (pixel_nm / resolution_nm) ** 2 / (_ERROR_AT_HALF * contrast_rad**2)


def limit_resolution(contrast_rad: float, pixel_nm: float, photons_per_pixel: float) -> float:
    """The resolution, nm, that the limit allows; not finer than the pixel."""
    return max(pixel_nm, pixel_nm / (contrast_rad * sqrt(_ERROR_AT_HALF * photons_per_pixel)))


def measured_table(settings: PlanSettings) -> DataFrame:
    """The measured rows that a plan uses."""
    return shipped_table() if settings.study is None else table_of(settings.study)


def plan(settings: PlanSettings) -> dict:
    """The numbers of a plan: a row by the limit, and one by each method's measured rows. Raises
    ConfigError, naming the option, for what cannot be."""
    optics = Optics.of(settings)
    _check(settings, optics)
    table = measured_table(settings)
    pixel, contrast = optics.pixel_nm, settings.contrast_rad
    needed = limit_photons(contrast, pixel, settings.resolution_nm)
    rows = [{"by": LIMIT, "curves": 0} | _exposures(settings, optics, needed, None)]
    reached = limit_resolution(contrast, pixel, rows[0]["photons_per_pixel"])
    rows[0] |= {"expected_nm": reached, "expected_range_nm": None}
    wanted = pixel / settings.resolution_nm
    for method, own in curves(table).items():
        needs = np.array([curve.needs(wanted) for curve in own]) / contrast**2
        row = {"by": method, "curves": len(own)}
        middle = float(np.median(needs))
        span = [_finite(needs.min()), _finite(needs.max())]
        row |= _exposures(settings, optics, middle, span)
        rows.append(row | _expected(own, row["photons_per_pixel"], contrast, pixel))
    studies = sorted(set(table.study))
    return {
        "settings": {name: to_dict(settings)[name] for name in field_names(PlanSettings)},
        "wavelength_nm": optics.wavelength_nm,
        "pixel_nm": pixel,
        "finer_pixel_nm": optics.finer_pixel_nm,
        "rows": rows,
        "studies": studies,
        "assumptions": _assumptions(settings, studies, sorted(set(table.specimen))),
        "versions": software_versions(),
    }


def command(options: PlanOptions) -> int:
    """Print the plan."""
    numbers = plan(options)
    if options.output:
        write_json(options.output, numbers)
    print(json_text(numbers, indent=2) if options.json else in_words(numbers))
    return 0


def picture(numbers: dict, table: DataFrame) -> Figure:
    """Resolution over photons per pixel at the plan's contrast: the limit, the measured rows."""
    contrast, pixel = numbers["settings"]["contrast_rad"], numbers["pixel_nm"]
    photons = np.logspace(0, 5, 60)
    limit = [limit_resolution(contrast, pixel, one) for one in photons]
    lines = {LIMIT: [(photons, np.array(limit))]}
    for method, own in curves(table).items():
        seen = [(curve.information / contrast**2, curve.resolved) for curve in own]
        lines[method] = [(x[y > 0], pixel / y[y > 0]) for x, y in seen]
    return plan_curves(lines, numbers["settings"]["resolution_nm"])


def in_words(numbers: dict) -> str:
    """The plan as a table, and what it presumes."""
    heads = ["by", "photons per pixel needed", "from rows: range", "exposures", "step / nm"]
    heads += ["linear overlap", "photons per exposure, enough", "photons per nm²"]
    heads += ["expected resolution / nm", "range / nm"]
    lines = []
    for row in numbers["rows"]:
        line = [row["by"], number(row["photons_per_pixel_needed"]), _range(row["needed_range"])]
        names = ("exposures", "step_nm", "overlap", "photons_per_exposure", "photons_per_nm2")
        line += [number(row[name]) for name in (*names, "expected_nm")]
        lines.append([*line, _range(row["expected_range_nm"])])
    sizes = f"object pixel {number(numbers['pixel_nm'])} nm on the detector's grid,"
    sizes += f" {number(numbers['finer_pixel_nm'])} nm on one of M = 1.5 N"
    told = [f"- {line}" for line in numbers["assumptions"]]
    return "\n".join([sizes, "", aligned_text(heads, lines), "", *told])


def _check(settings: PlanSettings, optics: Optics) -> None:
    if settings.resolution_nm < optics.pixel_nm:
        text = f"resolution_nm={settings.resolution_nm:g}: the detector's edge allows"
        how = "a larger detector, a shorter distance or a higher energy_kev allow less"
        raise ConfigError(f"{text} {optics.pixel_nm:.3g}; expected that or more; {how}")
    window = optics.pixels * optics.pixel_nm / 1e3
    if settings.probe_um > window:
        text = f"probe_um={settings.probe_um:g}: the detector's pixels resolve waves of up to"
        raise ConfigError(f"{text} {window:.3g} um; expected less; a longer distance_m allows more")


def _exposures(
    settings: PlanSettings, optics: Optics, needed: float, span: Sequence[float | None] | None
) -> dict:
    """Exposures and their distance for so many photons per pixel, and for the overlap."""
    sides = settings.field_um * 2 if len(settings.field_um) == 1 else settings.field_um
    area, pixel = sides[0] * sides[1] * 1e6, optics.pixel_nm**2  # nm^2
    found: dict = {"photons_per_pixel_needed": _finite(needed), "needed_range": span}
    if needed == inf:
        names = ("exposures", "step_nm", "overlap", "photons_per_pixel", "photons_per_nm2")
        return found | dict.fromkeys((*names, "photons_per_exposure", "decided_by"))
    widest = (1 - settings.overlap) * settings.probe_um * 1e3
    by_photons = ceil(needed * area / pixel / settings.photons)
    by_overlap = ceil(area / widest**2)
    exposures = max(by_photons, by_overlap)
    step = sqrt(area / exposures)
    per_nm2 = settings.photons * exposures / area
    return found | {
        "exposures": exposures,
        "step_nm": step,
        "overlap": 1 - step / (settings.probe_um * 1e3),
        "photons_per_pixel": per_nm2 * pixel,
        "photons_per_nm2": per_nm2,
        "photons_per_exposure": needed * area / pixel / exposures,
        "decided_by": "photons" if by_photons >= by_overlap else "overlap",
    }


def _expected(
    own: Sequence[Curve], photons: float | None, contrast_rad: float, pixel_nm: float
) -> dict:
    """Median and range of what the curves resolve at these photons; None outside of them."""
    found = [curve.at(photons * contrast_rad**2) for curve in own] if photons else []
    resolved = sorted(value for value in found if value is not None)
    if not resolved or resolved[0] <= 0:
        return {"expected_nm": None, "expected_range_nm": None}
    ends = [pixel_nm / resolved[-1], pixel_nm / resolved[0]]
    return {"expected_nm": pixel_nm / float(np.median(resolved)), "expected_range_nm": ends}


def _assumptions(
    settings: PlanSettings, studies: Sequence[str], specimens: Sequence[str]
) -> list[str]:
    return [
        f"The specimen's phase varies by {settings.contrast_rad:g} rad rms (contrast_rad). The"
        " limit spreads it evenly over all frequencies up to the resolution; a specimen with less"
        " contrast in its fine structure needs more photons.",
        "Resolution is half a period, where the Fourier ring correlation with the truth is 0.5. To"
        " see a single feature of that size at five times the noise takes some 40 times as many"
        " photons: 25 / (2 c²) on its area.",
        "The limit: variance 1 / (2 F) of phase and of amplitude at F photons a pixel. It binds"
        " estimates without bias; a method that presumes something of the object may need less.",
        f"Measured rows: study {', '.join(studies)}, specimen {', '.join(specimens)}, simulated"
        " with known probe and positions. They are scaled by contrast squared, and used at their"
        " own share of Nyquist: your specimen is taken to have its structure in as many pixels as"
        " theirs. Nothing is extrapolated: a dash is what was not measured. Below the least dose"
        " measured, the need is that of the least dose.",
        "A range is that over specimens, views (overlaps) and replicates, not one of confidence.",
        f"Every exposure brings {settings.photons:g} photons to the specimen, all detected; steps"
        " are even; the field's border, where exposures are fewer, is not counted; the overlap is 1"
        " - step / probe_um.",
        "Damage, readout noise, partial coherence, vibration and unknown positions are left out.",
    ]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _range(ends: Sequence[float | None] | None) -> str:
    if ends is None:
        return number(None)
    low, high = ends
    return f"{number(low)} to {'not reached' if high is None else number(high)}"
