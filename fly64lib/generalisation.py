"""How a network trained in one condition works in another: a matrix of skills, and its heat map.

    python -m fly64lib.generalisation --training-root E --phase-c-root C --phase-d-root D --output-root O [--other-c-root C2 ...]

Rows are bundles of phase E, columns data: the study's own test views and, with `--other-c-root`, the same views of another
specimen under the same probe. The cell is phase PSNR above the flat object's, in dB. Writes `generalisation.png` and, last,
`generalisation.json`.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from fly64lib import figures
from fly64lib.commands import add_option, run_command
from fly64lib.design import VIEWS, StudyDesign, dose_folder, view_file
from fly64lib.judgement import judge, region_of
from fly64lib.training import VIEW_GRIDSIZE, artifact_folder
from ptycho_torch.bundle import load_bundle
from ptycho_torch.errors import DataContractError
from ptycho_torch.files import write_json
from ptycho_torch.inference import reconstruct
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge

Condition = tuple[float, str]


def conditions(doses: tuple[float, ...], views: tuple[str, ...]) -> list[Condition]:
    """(dose, view) pairs in the order of the study."""
    return [(dose, view) for dose in doses for view in views]


def generalisation_matrix(training_root: str | Path, data: dict[str, tuple[Path, Path]], trained: list[Condition],
                          tested: list[Condition], objective: str = "poisson") -> dict:
    """Skill of every trained condition on every test condition of every data set in `data` (label: phases C and D).

    Returns rows, columns (labels) and `phase_psnr_skill`, dB above flat, as lists. The test file keeps its own groups.
    """
    columns = [(label, *condition) for label in data for condition in tested]
    skills = np.zeros((len(trained), len(columns)))
    for i, (dose, view) in enumerate(trained):
        path = artifact_folder(training_root, dose, view, VIEW_GRIDSIZE[view], objective) / "bundle.pt"
        bundle = load_bundle(path)
        for j, (label, test_dose, test_view) in enumerate(columns):
            file = view_file(*data[label], test_dose, test_view, "test")
            if not file.is_file():
                raise DataContractError(f"{file}: no such file; run phases C and D for it first")
            raw = PyTorchMemmapBridge(file).raw_data_torch
            model = replace(bundle.config.model, gridsize=VIEW_GRIDSIZE[test_view])
            found = reconstruct(bundle.model, raw, replace(bundle.config, model=model, n_images=None, n_groups=None))
            region = region_of(PyTorchMemmapBridge(view_file(*data[label], test_dose, "baseline", "test")).raw_data_torch)
            row = judge({"network": found.object.numpy()}, raw, region=region)[0]
            skills[i, j] = row["phase_psnr_skill"]
            print(f"{view} {dose:g} -> {label} {test_view} {test_dose:g}: {skills[i, j]:.1f} dB", file=sys.stderr)
    return {"rows": [f"{dose_folder(dose)} {view}" for dose, view in trained],
            "columns": [f"{label} {dose_folder(dose)} {view}" for label, dose, view in columns],
            "phase_psnr_skill": skills.tolist()}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m fly64lib.generalisation", description=__doc__.split("\n")[0])
    for name, required in (("--training-root", True), ("--phase-c-root", True), ("--phase-d-root", True),
                           ("--output-root", True), ("--other-c-root", False), ("--other-d-root", False)):
        add_option(parser, name, required=required, type=Path)
    add_option(parser, "--other-name", default="other specimen", help="label of the other data (default: %(default)s)")
    parser.add_argument("--dose", type=float, action="append", help="only this dose; may be repeated")
    parser.add_argument("--view", action="append", choices=VIEWS, help="only this view; may be repeated")
    parser.add_argument("--objective", choices=("poisson", "supervised"), default="poisson")
    options = parser.parse_args(argv)

    def command() -> int:
        cells = conditions(tuple(options.dose or StudyDesign().doses), tuple(options.view or VIEWS))
        data = {"same": (options.phase_c_root, options.phase_d_root)}
        if options.other_c_root:
            data[options.other_name] = (options.other_c_root, options.other_d_root or options.other_c_root)
        matrix = generalisation_matrix(options.training_root, data, cells, cells, options.objective)
        figures.saved(figures.heat_map(np.array(matrix["phase_psnr_skill"]), matrix["rows"], matrix["columns"],
                                       "phase PSNR above flat / dB"), options.output_root / "generalisation.png")
        write_json(options.output_root / "generalisation.json", matrix)
        print(options.output_root / "generalisation.json")
        return 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
