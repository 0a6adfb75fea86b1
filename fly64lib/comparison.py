"""Phase G: all methods of a condition side by side, with both limits, as tables and pictures.

    python -m fly64lib.comparison --phase-c-root C --phase-d-root D --reconstruction-root R
    --output-root O

Without `--dose` or `--view` all conditions that were reconstructed. Per condition
`O/dose_1000/<view>/`: `objects.png`, `frc.png`, `spectrum.png` and, last, `comparison.json`; over
all conditions `comparison.csv` and `comparison.json`, one row per condition and method with its
provenance.

Every object is scored on the scanned region of the baseline's test half, whatever the view, and in
data space on the held-out patterns of phase C, which no method got. The rows `cramer_rao` and
`bayesian` are limits, not reconstructions: the first binds unbiased methods only, so that one with
a prior may pass it; the second is what spectra and coherence of the specimen's class could add."""

import json
import sys
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from fly64lib.design import study
from fly64lib.design.registries import SPECIMENS
from fly64lib.design.study import Doses, LimitsAsked, View, dose_folder
from fly64lib.evaluation import limits as reach
from fly64lib.evaluation.columns import aligned_text, table
from fly64lib.evaluation.detector_grid import DetectorGrid
from fly64lib.evaluation.faithful import resolved_limit
from fly64lib.evaluation.gauge import Region, judged
from fly64lib.evaluation.information import NotSolved, Unbounded
from fly64lib.evaluation.judgement import has_truth, judge, on_detector_grid, region_of
from fly64lib.evaluation.limits import Limits
from fly64lib.evaluation.metrics import Pair
from fly64lib.evaluation.rings import FRC, first_crossing
from fly64lib.evaluation.scores import absences, json_rows
from fly64lib.evaluation.spectrum import class_spectrum
from fly64lib.plots import figures
from fly64lib.reconstruction import load_with_probe
from ptycho_torch.commands import command_line
from ptycho_torch.errors import DataContractError
from ptycho_torch.fields import config
from ptycho_torch.files import atomic_path, folder_lock, read_json, sha256_file, write_json
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.versions import software_versions

# Other draws of the specimen class, for the prior of the Bayesian reference.
_CLASS_SEEDS = (1001, 1002, 1003)
# Of the limits' solver. It leaves 0.04 dB at most, less than half of the standard error that the
# limits have from their random signs, in two thirds of the steps that 0.01 takes.
_TOLERANCE = 0.03
_COST = ("seconds", "cpu_seconds", "peak_memory_mb", "object_sha256", "dataset_sha256", "note")


@config
class Options:
    """Compares all methods of a condition, with both limits, as tables and pictures."""

    phase_c_root: Path  # phase C's folder
    phase_d_root: Path  # phase D's folder
    reconstruction_root: Path  # phase F's folder
    output_root: Path  # where tables and pictures go
    doses: Doses | None = None  # photons per exposure; None: all that were reconstructed
    views: tuple[View, ...] = ()  # all that were reconstructed if none is named
    methods: tuple[str, ...] = ()  # all that are there if none is named
    gauge: Literal["known_probe", "unknown_probe"] = "known_probe"  # removed before scoring
    limits: LimitsAsked = "both"  # which of the two are computed


class Conditions(NamedTuple):
    """Doses and views of a study that have data."""

    reconstructed: list[tuple[float, str]]
    not_reconstructed: list[tuple[float, str]]

    @property
    def remark(self) -> str:
        """A line that says what was not reconstructed; empty where all was."""
        names = [f"{dose_folder(dose)} {view}" for dose, view in self.not_reconstructed]
        return f"not reconstructed, so not compared: {', '.join(names)}\n" if names else ""


class Comparison(NamedTuple):
    """One condition: rows of methods and limits, and the objects behind them, as they are scored
    (:mod:`fly64lib.evaluation.detector_grid`)."""

    dose: float
    view: str
    region: Region
    truth: np.ndarray
    objects: dict[str, np.ndarray]
    rows: list[dict]
    limits: dict[str, Limits]
    gauge: str = "known_probe"


def conditions_of(
    phase_c_root: str | Path,
    phase_d_root: str | Path,
    reconstruction_root: str | Path,
    doses: tuple[float, ...] | None = None,
    views: tuple[str, ...] = (),
) -> Conditions:
    """Which conditions of phases C and D, of these doses and views where some are named, have a
    reconstruction; where both are named, those. Raises DataContractError where none has."""
    if doses and views:
        return Conditions(list(product(doses, views)), [])
    files = [*Path(phase_c_root).glob("dose_*/patched_test.npz")]
    found = {(path.parts[-2], "baseline") for path in files}
    found |= {path.parts[-3:-1] for path in Path(phase_d_root).glob("dose_*/*/*_test.npz")}
    there, not_there = [], []
    for dose, view in sorted((float(name.removeprefix("dose_")), view) for name, view in found):
        if (doses is None or dose in doses) and (not views or view in views):
            folder = Path(reconstruction_root) / dose_folder(dose) / view
            done = any(folder.glob("*/result.json"))
            (there if done else not_there).append((dose, view))
    if not there:
        how = "run python -m fly64lib.reconstruction first"
        raise DataContractError(f"{reconstruction_root}: no reconstructions; {how}")
    return Conditions(there, not_there)


def compare(
    phase_c_root: str | Path,
    phase_d_root: str | Path,
    reconstruction_root: str | Path,
    dose: float,
    view: str,
    methods: tuple[str, ...] | None = None,
    gauge: str = "known_probe",
    limits: LimitsAsked = "both",
) -> Comparison:
    """Judge the reconstructions of one condition; `methods` defaults to all that are there. Raises
    DataContractError where a reconstruction or data file is missing or made from other data."""
    raw = open_scan(study.view_file(phase_c_root, phase_d_root, dose, view, "test"))
    if not has_truth(raw):
        kind = raw.metadata.get("object_kind")
        text = f"{raw.source}: its object is not the truth (object_kind {kind!r}); methods can be"
        raise DataContractError(f"{text} compared on simulated data only")
    region = region_of(open_scan(study.split_file(phase_c_root, dose, "test")))
    held_out = open_scan(study.held_out_file(phase_c_root, dose))
    folder = Path(reconstruction_root) / dose_folder(dose) / view
    names = methods or tuple(sorted(path.parent.name for path in folder.glob("*/result.json")))
    if not names:
        how = "run python -m fly64lib.reconstruction first"
        raise DataContractError(f"{folder}: no reconstructions; {how}")
    made = {name: load_with_probe(folder / name) for name in names}
    objects = {name: image for name, (image, _) in made.items()}
    probes = {name: probe for name, (_, probe) in made.items() if probe is not None}
    cost = {name: _cost(read_json(folder / name / "result.json")) for name in names}
    data = sha256_file(raw.source)
    for name in names:
        if cost[name]["dataset_sha256"] != data:
            text = f"{folder / name}: made from other patterns than those of {raw.source}"
            raise DataContractError(f"{text}; reconstruct them again")
    how = {"region": region, "gauge": gauge, "held_out": held_out, "probes": probes}
    scored = judge(objects, raw, **how)
    objects = {name: on_detector_grid(image, raw) for name, image in objects.items()}
    bounds, unbounded = limits_of(raw, region, gauge == "known_probe", limits)
    condition = {"dose": dose, "view": view, "gauge": gauge, "images": raw.n}
    condition |= {key: raw.metadata[key] for key in ("replicate", "simulation_seed")}
    provenance = raw.metadata["provenance"]
    condition |= {key: provenance[key] for key in ("simulation", "specimen")}
    if "object_pixel_nm" in provenance:  # a base file may not say it
        condition["pixel_nm"] = provenance["object_pixel_nm"] * raw.M / raw.N
    condition["photons_per_pixel"] = scored[0]["photons_per_pixel"]
    rows = [{**condition, **row, **cost.get(row["method"], {})} for row in scored]
    truth = on_detector_grid(raw.scan.object_guess, raw)
    inside = truth[region][judged(gauge)]
    rows += [
        {**condition, "method": name, "absent": f"no {name} at {dose_folder(dose)} {view}: {why}"}
        for name, why in unbounded.items()
    ]
    rows += [{**condition, **_limit_row(name, bound, inside)} for name, bound in bounds.items()]
    return Comparison(dose, view, region, truth, objects, rows, bounds, gauge)


def write_comparison(comparison: Comparison, output_root: str | Path) -> Path:
    """Pictures and, last, `comparison.json` of one condition."""
    folder = Path(output_root) / dose_folder(comparison.dose) / comparison.view
    truth, region, bounds = comparison.truth, comparison.region, comparison.limits
    own = comparison.objects.items()
    pairs = {
        name: Pair.aligned(image[region], truth[region], comparison.gauge) for name, image in own
    }
    errors = {name: pair.phase_error for name, pair in pairs.items()}
    shown = comparison.objects, truth, region
    drawn = {
        "objects": figures.objects(*shown, errors=True, gauge=comparison.gauge),
        "frc": figures.frc_curves({name: pair.frc for name, pair in pairs.items()}, bounds),
        "spectrum": figures.error_spectra(errors, bounds),
    }
    with folder_lock(folder):
        for name, figure in drawn.items():
            figures.saved(figure, folder / f"{name}.png")
        return _write_rows(folder / "comparison.json", comparison.rows)


def write_table(rows: list[dict], output_root: str | Path) -> Path:
    """All rows as `comparison.json` and `comparison.csv` (one row per condition and method)."""
    import pandas  # the notebook does without

    path = _write_rows(Path(output_root) / "comparison.json", rows).with_suffix(".csv")
    with atomic_path(path) as temporary:
        pandas.DataFrame(json_rows(rows)).to_csv(temporary, index=False)
    return path


def _write_rows(path: Path, rows: list[dict]) -> Path:
    write_json(path, {"phase": "G", "rows": json_rows(rows), "versions": software_versions()})
    return path


def limits_of(
    raw: RawDataTorch, region: Region, probe_known: bool, asked: LimitsAsked
) -> tuple[dict[str, Limits], dict[str, str]]:
    """The limits that are asked for, and why others of them do not exist: the unbiased one where
    pixels are dark, any that is not solved. The prior is the spectrum of other draws of the class,
    or a base file's own."""
    if asked == "none":
        return {}, {}
    whole, name = raw.scan.object_guess, raw.metadata["provenance"]["specimen"]
    examples = [whole[DetectorGrid.of(raw).on_canvas(region)]]
    if name in SPECIMENS:
        examples = [SPECIMENS[name](raw.scan.canvas_shape, seed) for seed in _CLASS_SEEDS]
    place = whole, raw.geometry(whole=True), region
    priors = {"cramer_rao": None} if asked == "both" else {}
    priors["bayesian"] = class_spectrum(examples)
    bounds, unbounded = {}, {}
    for name, prior in priors.items():
        try:
            how = {"probe_known": probe_known, "tolerance": _TOLERANCE}
            bounds[name] = reach.limits(*place, prior, **how)
        except (Unbounded, NotSolved) as error:
            unbounded[name] = str(error)
    return bounds, unbounded


def _limit_row(name: str, bound: Limits, truth: np.ndarray) -> dict:
    curve = FRC(bound.frequency, bound.frc, np.ones_like(bound.frequency))
    return {
        "method": name,
        "phase_psnr": bound.phase.psnr,
        "phase_mse": bound.phase.mse,
        "amplitude_psnr": bound.amplitude.psnr,
        "amplitude_mse": bound.amplitude.mse,
        "frc_half": first_crossing(curve, 0.5),
        "resolved": resolved_limit(bound, truth),
        "note": "a limit, not a reconstruction",
    }


def _cost(result: dict) -> dict:
    settings, versions = json.dumps(result["settings"], sort_keys=True), result["versions"]
    texts = {"settings": settings, "versions": json.dumps(versions)}
    return {key: result[key] for key in _COST} | texts


@command_line("python -m fly64lib.comparison")
def main(options: Options) -> int:
    """Compare every condition that the options name, and print the table."""
    roots = options.phase_c_root, options.phase_d_root, options.reconstruction_root
    how = options.methods or None, options.gauge, options.limits
    rows: list[dict] = []
    with folder_lock(options.output_root):
        conditions = conditions_of(*roots, options.doses, options.views)
        for dose, view in conditions.reconstructed:
            print(f"{dose_folder(dose)} {view}", file=sys.stderr)
            found = compare(*roots, dose, view, *how)
            write_comparison(found, options.output_root)
            rows += found.rows
        print(write_table(rows, options.output_root))
    print(text_table(rows))
    print(conditions.remark, end="")
    return 0


def text_table(rows: list[dict]) -> str:
    """The columns that one reads first, as aligned text, and why some are empty."""
    return "\n".join([aligned_text(*table(rows, "dose", "view", "method")), *absences(rows)])


if __name__ == "__main__":
    raise SystemExit(main())
