"""Phase C: one data set per dose and split, from the embedded twin or from a base file's object, probe and positions.

    python -m fly64lib.generation --output-root ROOT [--base-npz BASE] [--dose 1000 ...]

Writes `ROOT/dose_1000/patched_{train,test}.npz` (DATA-001, with truth patches) and `ROOT/run_manifest.json` with the
SHA-256 of each. A file that the manifest vouches for, made from the same inputs, is not made again.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fly64lib.commands import add_design_options, add_option, design_from, run_command
from fly64lib.design import SPLITS, StudyDesign, split_file
from fly64lib.simulation import Experiment, draw_amplitudes, embedded_experiment, expected_patterns
from fly64lib.split import GuardedSplit, split_scan
from ptycho_torch.bundle import software_versions
from ptycho_torch.data_contract import ScanData, read_scan, write_scan
from ptycho_torch.files import folder_lock, read_json, sha256_file, write_json
from ptycho_torch.patches import cut, in_field, split_positions

MANIFEST = "run_manifest.json"


def generate_datasets(output_root: str | Path, design: StudyDesign, base_npz: str | Path | None = None,
                      progress: bool = False) -> dict:
    """Write all doses and splits of `design` under `output_root` and return the manifest.

    Without `base_npz` the embedded twin is simulated; with it the object, probe and positions of any DATA-001 file, on
    the file's own grid (matched by nature, and labelled so).
    """
    root = Path(output_root)
    inputs = {"design": design.to_dict(), "base_npz": str(base_npz) if base_npz else None,
              "base_sha256": sha256_file(base_npz) if base_npz else None}
    inputs["key"] = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    with folder_lock(root):
        known = _known_files(root, inputs)
        wanted = [(dose, split) for dose in design.doses for split in SPLITS]
        missing = [(dose, split) for dose, split in wanted if split_file("", dose, split).as_posix() not in known]
        if missing:
            started = time.perf_counter()
            experiment = base_experiment(base_npz) if base_npz else embedded_experiment(design)
            halves = split_scan(experiment.xcoords, experiment.ycoords, experiment.coarse_probe, experiment.truth.shape,
                                design.guard_power)
            expected = expected_patterns(experiment, progress)
            for dose, split in tqdm(missing, desc="phase C", unit=" file", disable=not progress):
                path = split_file(root, dose, split)
                write_scan(path, _scan(experiment, expected, halves, split, dose, design))
                known[path.relative_to(root).as_posix()] = {"sha256": sha256_file(path), "dose": dose, "split": split,
                                                            "images": len(halves[split])}
                _write_manifest(root, inputs, known, time.perf_counter() - started)
        manifest = read_json(root / MANIFEST)
    return manifest


def base_experiment(base_npz: str | Path) -> Experiment:
    """Object, probe and positions of a DATA-001 file, as the truth of a matched simulation."""
    scan = read_scan(base_npz)
    description = {"specimen": f"base file {Path(base_npz).name}", "simulation": "matched",
                   "scan": f"{scan.n} positions of the base file",
                   "base_object_kind": scan.metadata.get("object_kind", "not stated"),
                   "base_probe_kind": scan.metadata.get("probe_kind", "not stated")}
    return Experiment(scan.object_guess, scan.probe, scan.xcoords, scan.ycoords, scan.N, 1, description)


def _scan(experiment: Experiment, expected: np.ndarray, halves: GuardedSplit, split: str, dose: float,
          design: StudyDesign) -> ScanData:
    images, truth = halves[split], experiment.truth
    factor = dose / float(expected.sum((1, 2), dtype=np.float64).mean())
    # Doses differ in their seeds too: equal seeds would give the doses' noise a common pattern.
    diffraction = draw_amplitudes(expected, factor, design.seed(design.simulation_seed) * 1_000_003 + int(dose))(images)
    x, y = experiment.xcoords[images], experiment.ycoords[images]
    corners = in_field(split_positions(torch.from_numpy(np.stack([y, x], axis=1)), experiment.N)[0])
    metadata = {
        "object_kind": "truth", "probe_kind": "truth", "dose": dose, "split": split, "view": "baseline",
        "photons_per_exposure": float(np.square(diffraction, dtype=np.float64).sum((1, 2)).mean()),
        "replicate": design.replicate, "simulation_seed": design.seed(design.simulation_seed),
        "geometry": {"N": experiment.N, "guard_px": halves.guard_px, "middle_px": halves.middle_px,
                     "pixels_lit_by_both_halves": halves.lit_by_both, "split_axis": design.split_axis},
        "provenance": experiment.description, "versions": software_versions()}
    return ScanData(diffraction, x, y, (experiment.coarse_probe * factor**0.5).astype(np.complex64), truth,
                    cut(torch.from_numpy(truth)[None], corners, experiment.N).numpy(), images, None, metadata)


def _known_files(root: Path, inputs: dict) -> dict:
    """Files that an earlier run of the same inputs finished and that are still what it wrote."""
    if not (root / MANIFEST).is_file():
        return {}
    manifest = read_json(root / MANIFEST)
    if manifest["inputs"]["key"] != inputs["key"]:
        return {}
    return {name: row for name, row in manifest["files"].items()
            if (root / name).is_file() and sha256_file(root / name) == row["sha256"]}


def _write_manifest(root: Path, inputs: dict, files: dict, seconds: float) -> None:
    write_json(root / MANIFEST, {"phase": "C", "inputs": inputs, "files": files, "versions": software_versions(),
                                 "seconds": round(seconds, 2)})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fly64lib.generation", description=__doc__.split("\n")[0])
    add_option(parser, "--output-root", required=True, help="folder for dose_*/patched_*.npz")
    add_option(parser, "--base-npz", help="DATA-001 file whose object, probe and positions are simulated")
    add_design_options(parser)
    options = parser.parse_args(argv)

    def command() -> int:
        manifest = generate_datasets(options.output_root, design_from(options), options.base_npz, progress=True)
        for name, row in sorted(manifest["files"].items()):
            print(f"{Path(options.output_root) / name}  {row['images']} images  sha256 {row['sha256'][:12]}")
        return 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
