"""Phase C: one data set per dose and split, from the embedded twin or from a base file's object,
probe and positions.

    python -m fly64lib.generation --output-root ROOT [--base-npz BASE] [--dose 1000 ...]

Writes `ROOT/dose_1000/patched_{train,test}.npz` (DATA-001, with truth patches) and
`ROOT/run_manifest.json` with the SHA-256 of each. `held_out_test.npz` beside them holds further
exposures of the test half at random positions: no method gets them, every method's object is scored
on them. A file that the manifest vouches for, made from the same inputs, is not made again."""

import argparse
import hashlib
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fly64lib.design import (
    SPLITS,
    StudyDesign,
    add_design_options,
    design_from,
    held_out_file,
    split_file,
)
from fly64lib.simulation.experiment import (
    Experiment,
    draw_amplitudes,
    embedded_experiment,
    expected_patterns,
)
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from fly64lib.simulation.split import GuardedSplit, split_scan
from ptycho_torch.commands import add_option, run_command
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.files import folder_lock, read_json, sha256_file, write_json
from ptycho_torch.physics.patches import cut, on_canvas, split_positions
from ptycho_torch.versions import software_versions

MANIFEST = "run_manifest.json"
HELD_OUT = "held_out"
HELD_OUT_SEED = 7919  # apart from the scan's own draws
_HELD_OUT_PATTERNS = 256


def generate_datasets(
    output_root: str | Path,
    design: StudyDesign,
    base_npz: str | Path | None = None,
    progress: bool = False,
    imperfections: Imperfections = PERFECT,
) -> dict:
    """Write all doses and splits of `design` under `output_root` and return the manifest.

    Without `base_npz` the embedded twin is simulated; with it the object, probe and positions of
    any DATA-001 file, on the file's own grid (matched by nature, and labelled so). Doses may come
    one after another: the manifest keeps all. `imperfections` are in the patterns (and in the
    file's probe), named in the metadata, and told to no method."""
    root = Path(output_root)
    experiment = (
        base_experiment(base_npz) if base_npz else None
    )  # a broken file is refused before anything is written
    inputs = {
        "design": design.to_dict(),
        "base_npz": str(base_npz) if base_npz else None,
        "base_sha256": sha256_file(base_npz) if base_npz else None,
    }
    if imperfections != PERFECT:
        inputs["imperfections"] = asdict(imperfections)
    of_all_doses = inputs | {"design": inputs["design"] | {"doses": None}}
    inputs["key"] = hashlib.sha256(json.dumps(of_all_doses, sort_keys=True).encode()).hexdigest()
    with folder_lock(root):
        known = _known_files(root, inputs)
        wanted = [(dose, split) for dose in design.doses for split in (*SPLITS, HELD_OUT)]
        missing = [
            (dose, split)
            for dose, split in wanted
            if _file("", dose, split).as_posix() not in known
        ]
        if missing:
            started = time.perf_counter()
            experiment = experiment or embedded_experiment(design)
            halves = split_scan(
                experiment.xcoords,
                experiment.ycoords,
                experiment.coarse_probe,
                experiment.truth.shape,
                design.guard_power,
            )
            expected = expected_patterns(experiment, progress, imperfections)
            photons = float(expected.sum((1, 2), dtype=np.float64).mean())
            extra = _between_positions(experiment, halves.test, design.seed(design.simulation_seed))
            expected_extra = expected_patterns(extra, imperfections=imperfections)
            for patterns in (expected, expected_extra):
                patterns *= imperfections.working_pixels(experiment.N)
            for dose, split in tqdm(missing, desc="phase C", unit=" file", disable=not progress):
                path = _file(root, dose, split)
                factor = dose / photons
                if split == HELD_OUT:
                    images = np.arange(len(expected_extra))
                    scan = _scan(
                        extra,
                        expected_extra,
                        halves,
                        images,
                        "test",
                        dose,
                        factor,
                        design,
                        HELD_OUT_SEED,
                        imperfections,
                    )
                    scan = replace(
                        scan,
                        truth_patches=None,
                        scan_index=None,
                        metadata={**scan.metadata, "view": HELD_OUT},
                    )
                else:
                    images = halves[split]
                    scan = _scan(
                        experiment,
                        expected,
                        halves,
                        images,
                        split,
                        dose,
                        factor,
                        design,
                        0,
                        imperfections,
                    )
                write_scan(path, scan)
                known[path.relative_to(root).as_posix()] = {
                    "sha256": sha256_file(path),
                    "dose": dose,
                    "split": split,
                    "images": len(images),
                }
                _write_manifest(root, inputs, known, time.perf_counter() - started)
        manifest = read_json(root / MANIFEST)
    return manifest


def base_experiment(base_npz: str | Path) -> Experiment:
    """Object, probe and positions of a DATA-001 file, as the truth of a matched simulation."""
    scan = read_scan(base_npz)
    description = {
        "specimen": f"base file {Path(base_npz).name}",
        "simulation": "matched",
        "scan": f"{scan.n} positions of the base file",
        "base_object_kind": scan.metadata.get("object_kind", "not stated"),
        "base_probe_kind": scan.metadata.get("probe_kind", "not stated"),
    }
    return Experiment(
        scan.object_guess, scan.probe, scan.xcoords, scan.ycoords, scan.N, 1, description
    )


def _file(root: str | Path, dose: float, split: str) -> Path:
    return held_out_file(root, dose) if split == HELD_OUT else split_file(root, dose, split)


def _between_positions(experiment: Experiment, half: np.ndarray, seed: int) -> Experiment:
    """The same object and probe at random positions inside the scanned rectangle of `half`."""
    rng = np.random.default_rng([seed, HELD_OUT_SEED])
    x, y = (
        rng.uniform(axis[half].min(), axis[half].max(), _HELD_OUT_PATTERNS)
        for axis in (experiment.xcoords, experiment.ycoords)
    )
    return replace(experiment, xcoords=x, ycoords=y)


def _scan(
    experiment: Experiment,
    expected: np.ndarray,
    halves: GuardedSplit,
    images: np.ndarray,
    split: str,
    dose: float,
    factor: float,
    design: StudyDesign,
    offset: int,
    imperfections: Imperfections,
) -> ScanData:
    truth = experiment.truth
    # Doses differ in their seeds too: equal seeds would give the doses' noise a common pattern.
    seed = design.seed(design.simulation_seed) * 1_000_003 + int(dose) + offset
    diffraction = draw_amplitudes(expected, factor, seed)(images)
    x, y = experiment.xcoords[images], experiment.ycoords[images]
    corners = on_canvas(
        split_positions(torch.from_numpy(np.stack([y, x], axis=1)), experiment.N)[0]
    )
    metadata = {
        "object_kind": "truth",
        "probe_kind": "truth" if imperfections.probe_is_true else "initial",
        "dose": dose,
        "split": split,
        "view": "baseline",
        "photons_per_exposure": float(np.square(diffraction, dtype=np.float64).sum((1, 2)).mean()),
        "replicate": design.replicate,
        "simulation_seed": design.seed(design.simulation_seed),
        "geometry": {
            "N": experiment.N,
            "guard_px": halves.guard_px,
            "middle_px": halves.middle_px,
            "pixels_lit_by_both_halves": halves.lit_by_both,
            "split_axis": design.split_axis,
        },
        "provenance": experiment.description,
        "versions": software_versions(),
    }
    if imperfections != PERFECT:
        metadata["imperfections"] = asdict(imperfections)
    probe = (imperfections.file_probe(experiment.coarse_probe) * factor**0.5).astype(np.complex64)
    return ScanData(
        diffraction,
        x,
        y,
        probe,
        truth,
        cut(torch.from_numpy(truth)[None], corners, experiment.N).numpy(),
        images,
        None,
        metadata,
    )


def _known_files(root: Path, inputs: dict) -> dict:
    """Files that an earlier run of the same inputs finished and that are still what it wrote."""
    if not (root / MANIFEST).is_file():
        return {}
    manifest = read_json(root / MANIFEST)
    if manifest["inputs"]["key"] != inputs["key"]:
        return {}
    return {
        name: row
        for name, row in manifest["files"].items()
        if (root / name).is_file() and sha256_file(root / name) == row["sha256"]
    }


def _write_manifest(root: Path, inputs: dict, files: dict, seconds: float) -> None:
    write_json(
        root / MANIFEST,
        {
            "phase": "C",
            "inputs": inputs,
            "files": files,
            "versions": software_versions(),
            "seconds": round(seconds, 2),
        },
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fly64lib.generation", description=__doc__.split("\n")[0]
    )
    add_option(parser, "--output-root", required=True, help="folder for dose_*/patched_*.npz")
    add_option(
        parser, "--base-npz", help="DATA-001 file whose object, probe and positions are simulated"
    )
    add_design_options(parser)
    options = parser.parse_args(argv)

    def command() -> int:
        manifest = generate_datasets(
            options.output_root, design_from(options), options.base_npz, progress=True
        )
        for name, row in sorted(manifest["files"].items()):
            print(
                f"{Path(options.output_root) / name}  {row['images']} images  sha256"
                f" {row['sha256'][:12]}"
            )
        return 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
