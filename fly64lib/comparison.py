"""Phase G: all methods of a condition side by side, with both limits, as tables and pictures.

    python -m fly64lib.comparison --phase-c-root C --phase-d-root D --reconstruction-root R
    --output-root O

Per condition `O/dose_1000/<view>/`: `objects.png`, `frc.png`, `spectrum.png` and, last,
`comparison.json`; over all conditions `comparison.csv` and `comparison.json`, one row per condition
and method with its provenance.

Every object is scored on the scanned region of the baseline's test half, whatever the view, and in
data space on the held-out patterns of phase C, which no method got. The rows `cramer_rao` and
`bayesian` are limits, not reconstructions: the first binds unbiased methods only, so that one with
a prior may pass it; the second is what the specimen class's power spectrum alone could add. Both
hold for the model on its own grid; data from the finer grid also carry what that model cannot
explain."""

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fly64lib.design import (
    CONTROL_VIEWS,
    VIEWS,
    StudyDesign,
    dose_folder,
    held_out_file,
    split_file,
    view_file,
)
from fly64lib.evaluation.judgement import Region, has_truth, judge, region_of
from fly64lib.evaluation.limits import ClassSpectrum, Limits, class_spectrum, limits
from fly64lib.evaluation.metrics import FRC, first_crossing, frc_curve, json_rows
from fly64lib.plots import figures
from fly64lib.reconstruction import load_object
from fly64lib.simulation.specimens import SPECIMENS
from ptycho_torch.commands import add_option, run_command
from ptycho_torch.errors import DataContractError
from ptycho_torch.files import atomic_path, folder_lock, read_json, write_json
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge, RawDataTorch
from ptycho_torch.versions import software_versions

_CLASS_SEEDS = (
    1001,
    1002,
    1003,
)  # other draws of the specimen class, for the prior of the Bayesian reference


@dataclass(frozen=True)
class Comparison:
    """One condition: rows of methods and limits, and the curves behind the pictures."""

    dose: float
    view: str
    region: Region
    truth: np.ndarray
    objects: dict[str, np.ndarray]
    rows: list[dict]
    limits: dict[str, Limits]

    def frc(self) -> dict[str, FRC]:
        """Fourier ring correlation of every method's object with the truth, over the region."""
        return {
            name: frc_curve(image[self.region], self.truth[self.region])
            for name, image in self.objects.items()
        }


def compare(
    phase_c_root: str | Path,
    phase_d_root: str | Path,
    reconstruction_root: str | Path,
    dose: float,
    view: str,
    methods: tuple[str, ...] | None = None,
    gauge: str = "known_probe",
    with_limits: bool = True,
) -> Comparison:
    """Judge the reconstructions of one condition; `methods` defaults to all that are there.

    Raises DataContractError where a reconstruction or a data file is missing, or was made from
    other data."""
    raw = PyTorchMemmapBridge(
        view_file(phase_c_root, phase_d_root, dose, view, "test")
    ).raw_data_torch
    baseline = PyTorchMemmapBridge(split_file(phase_c_root, dose, "test")).raw_data_torch
    held_out = PyTorchMemmapBridge(held_out_file(phase_c_root, dose)).raw_data_torch
    if not has_truth(raw):
        raise DataContractError(
            f"{raw.source}: its object is not the truth (object_kind "
            f"{raw.metadata.get('object_kind')!r}); methods can be compared on simulated data only"
        )
    folder = Path(reconstruction_root) / dose_folder(dose) / view
    names = methods or tuple(sorted(path.parent.name for path in folder.glob("*/result.json")))
    if not names:
        raise DataContractError(
            f"{folder}: no reconstructions; run python -m fly64lib.reconstruction first"
        )
    region = region_of(baseline)
    objects = {name: load_object(folder / name) for name in names}
    results = {name: read_json(folder / name / "result.json") for name in names}
    scored = judge(objects, raw, region=region, gauge=gauge, held_out=held_out)
    bounds = _limits(raw, region, gauge == "known_probe") if with_limits else {}
    condition = {
        "dose": dose,
        "view": view,
        "replicate": raw.metadata["replicate"],
        "gauge": gauge,
        "images": raw.n,
        "photons_per_pixel": scored[0]["photons_per_pixel"],
        "simulation": raw.metadata["provenance"]["simulation"],
        "specimen": raw.metadata["provenance"]["specimen"],
        "simulation_seed": raw.metadata["simulation_seed"],
    }
    rows = [{**condition, **row, **_cost(results.get(row["method"]))} for row in scored]
    rows += [{**condition, **_limit_row(name, bound)} for name, bound in bounds.items()]
    return Comparison(dose, view, region, raw.scan.object_guess, objects, rows, bounds)


def write_comparison(comparison: Comparison, output_root: str | Path) -> Path:
    """Pictures and, last, `comparison.json` of one condition."""
    folder = Path(output_root) / dose_folder(comparison.dose) / comparison.view
    path = folder / "comparison.json"
    with folder_lock(folder):
        figures.saved(
            figures.objects(comparison.objects, comparison.truth, comparison.region, errors=True),
            folder / "objects.png",
        )
        figures.saved(figures.frc_curves(comparison.frc(), comparison.limits), folder / "frc.png")
        figures.saved(
            figures.error_spectra(
                {name: _error(image, comparison) for name, image in comparison.objects.items()},
                comparison.limits,
            ),
            folder / "spectrum.png",
        )
        write_json(
            path,
            {"phase": "G", "rows": json_rows(comparison.rows), "versions": software_versions()},
        )
    return path


def write_table(rows: list[dict], output_root: str | Path) -> Path:
    """All rows as `comparison.json` and `comparison.csv` (one row per condition and method)."""
    rows = json_rows(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_json(
        Path(output_root) / "comparison.json",
        {"phase": "G", "rows": rows, "versions": software_versions()},
    )
    path = Path(output_root) / "comparison.csv"
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def _limits(raw: RawDataTorch, region: Region, probe_known: bool) -> dict[str, Limits]:
    scan = raw.scan
    arguments = (scan.object_guess, scan.probe, scan.xcoords, scan.ycoords, region)
    return {
        "cramer_rao": limits(*arguments, probe_known=probe_known),
        "bayesian": limits(*arguments, _prior(raw, region), probe_known=probe_known),
    }


def _prior(raw: RawDataTorch, region: Region) -> ClassSpectrum:
    """The spectrum of the specimen's class: other draws of it, or, for a base file's object, of
    that object itself."""
    name = raw.metadata["provenance"]["specimen"]
    if name in SPECIMENS:
        return class_spectrum(
            [SPECIMENS[name](raw.scan.canvas_shape, seed) for seed in _CLASS_SEEDS]
        )
    return class_spectrum([raw.scan.object_guess[region]])


def _limit_row(name: str, bound: Limits) -> dict:
    curve = FRC(bound.frequency, bound.frc, np.ones_like(bound.frequency))
    return {
        "method": name,
        "phase_psnr": bound.phase_psnr,
        "phase_mse": bound.phase_mse,
        "amplitude_psnr": bound.amplitude_psnr,
        "amplitude_mse": bound.amplitude_mse,
        "frc_half": first_crossing(curve, 0.5),
        "note": "a limit, not a reconstruction",
    }


def _cost(result: dict | None) -> dict:
    if result is None:
        return {}
    return {
        key: result[key]
        for key in (
            "seconds",
            "cpu_seconds",
            "peak_memory_mb",
            "object_sha256",
            "dataset_sha256",
            "note",
        )
    } | {
        "settings": json.dumps(result["settings"], sort_keys=True),
        "versions": json.dumps(result["versions"]),
    }


def _error(image: np.ndarray, comparison: Comparison) -> np.ndarray:
    """Wrapped phase error over the region, global phase removed."""
    product = image[comparison.region] * comparison.truth[comparison.region].conj()
    return np.angle(product * np.exp(-1j * np.angle(product.sum())))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fly64lib.comparison", description=__doc__.split("\n")[0]
    )
    for name, text in (
        ("--phase-c-root", "phase C's folder"),
        ("--phase-d-root", "phase D's folder"),
        ("--reconstruction-root", "phase F's folder"),
        ("--output-root", "where tables and pictures go"),
    ):
        add_option(parser, name, required=True, type=Path, help=text)
    parser.add_argument(
        "--dose", type=float, action="append", help="only this dose; may be repeated"
    )
    parser.add_argument(
        "--view",
        action="append",
        choices=(*VIEWS, *CONTROL_VIEWS),
        help="only this view; may be repeated",
    )
    parser.add_argument(
        "--method",
        action="append",
        help="only this method; may be repeated (default: all that are there)",
    )
    parser.add_argument("--gauge", choices=("known_probe", "unknown_probe"), default="known_probe")
    add_option(parser, "--no-limits", action="store_true", help="leave the two limits out")
    options = parser.parse_args(argv)

    def command() -> int:
        rows: list[dict] = []
        with folder_lock(options.output_root):
            for dose in options.dose or StudyDesign().doses:
                for view in options.view or VIEWS:
                    print(f"{dose_folder(dose)} {view}", file=sys.stderr)
                    found = compare(
                        options.phase_c_root,
                        options.phase_d_root,
                        options.reconstruction_root,
                        dose,
                        view,
                        tuple(options.method) if options.method else None,
                        options.gauge,
                        not options.no_limits,
                    )
                    write_comparison(found, options.output_root)
                    rows += found.rows
            print(write_table(rows, options.output_root))
        print(text_table(rows))
        return 0

    return run_command(command)


def text_table(rows: list[dict]) -> str:
    """The columns that one reads first, as aligned text."""
    shown = (
        ("phase dB", "phase_psnr", "6.1f"),
        ("+dB", "phase_psnr_skill", "6.1f"),
        ("MS-SSIM", "phase_ms_ssim", "7.3f"),
        ("amp dB", "amplitude_psnr", "6.1f"),
        ("+dB", "amplitude_psnr_skill", "6.1f"),
        ("MS-SSIM", "amplitude_ms_ssim", "7.3f"),
        ("FRC.5", "frc_half", "6.3f"),
        ("dev.", "deviance", "7.3f"),
        ("held out", "deviance_held_out", "8.3f"),
        ("CPU s", "cpu_seconds", "7.1f"),
    )
    lines = [
        f"{'dose':>7} {'view':<15} {'ph/px':>8} {'method':<12}"
        + "".join(f"{title:>9}" for title, *_ in shown)
    ]
    for row in rows:
        cells = "".join(
            f"{row[key]:{form}}".rjust(9) if row.get(key) is not None else " " * 9
            for _, key, form in shown
        )
        lines.append(
            f"{row['dose']:>7.0f} {row['view']:<15} {row['photons_per_pixel']:>8.3g}"
            f" {row['method']:<12}{cells}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
