"""Methods on fly001's recovered object under its recovered probe, matched, known probe: every cell
against the limits.

    python benchmarks/fly001_object.py SCAN.npz --output runs/fly001 [--replicates 3 --dose 1000
    --view dense ...]

SCAN is the public twentieth of the scan with its reconstruction, which is taken for the truth here
and simulated at all 10,304 positions. Split by a guard band of 30 px, D = 30 px: the halves see
each other's probe tails (a band of 46 px would not), for comparison with other work on this table.
Prints phase and amplitude PSNR on the unseen half, flat above the first cell, and CPU seconds; of a
refinement also those without the search for its weight; of the classical iteration, its weight
given, phase PSNR after every fifth step (`course`). Results are kept in `results.json`: a rerun
does what is missing."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fly64lib.design import VIEW_GRIDSIZE, StudyDesign
from fly64lib.evaluation.gauge import scored_region
from fly64lib.evaluation.judgement import judge, region_of
from fly64lib.evaluation.limits import limits
from fly64lib.evaluation.spectrum import class_spectrum
from fly64lib.methods.classical import Classical, empty
from fly64lib.methods.learned import Learned
from fly64lib.methods.ptychi import LSQML
from fly64lib.methods.registry import METHODS, network_of
from fly64lib.simulation.experiment import Experiment, draw_amplitudes, expected_patterns
from fly64lib.simulation.scans import snake_scan
from fly64lib.simulation.views import choose_views
from fly64lib.training import TrainingJob, run_training_job
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.files import read_json, write_json
from ptycho_torch.inference.refinement import refine
from ptycho_torch.iteration.canvas import Patterns, canvas_steps
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.network.features import view_layout
from ptycho_torch.training.bundle import load_bundle
from ptycho_torch.versions import software_versions

GUARD_PX = DIAMETER_PX = 30.0
STEPS = {"poisson": 150, "procedural": 1800}


def make_data(scan: Path, root: Path, replicate: int, doses: list[float]) -> None:
    """Files `root/<dose>_<view>_<half>.npz` of every view."""
    source, positions, design = read_scan(scan), snake_scan(), StudyDesign(replicate=replicate)
    experiment = Experiment(source.object_guess, source.probe, positions, source.N, 1, {})
    expected, y = expected_patterns(experiment), positions[:, 0]
    middle, mean = (y.min() + y.max()) / 2, float(expected.sum((1, 2), dtype=np.float64).mean())
    halves = {
        "train": np.flatnonzero(y > middle + GUARD_PX / 2),
        "test": np.flatnonzero(y < middle - GUARD_PX / 2),
    }
    for half, images in halves.items():
        views, _ = choose_views(positions[images], DIAMETER_PX, replace(design, controls=False))
        for dose in doses:
            seed = design.seed(design.simulation_seed) * 1_000_003 + int(dose)
            whole = ScanData(
                draw_amplitudes(expected, images, dose / mean, seed),
                *positions[images, ::-1].T,
                source.probe * np.float32((dose / mean) ** 0.5),
                source.object_guess,
                metadata={"object_kind": "truth", "dose": dose, "replicate": replicate},
            )
            for view in views:
                write_scan(
                    root / f"{dose:.0f}_{view.name}_{half}.npz",
                    replace(whole.subset(view.images), groups=view.groups),
                )


def bundle_for(
    method: str, root: Path, dose: float, view: str, replicate: int
) -> tuple[Path, float]:
    """The trained bundle of a method and the CPU seconds of its training, done where absent."""
    network = network_of(method)
    shared = network.scope == "replicate"
    folder = root / (network.objective if shared else f"{dose:.0f}_{view}_{network.objective}")
    if not (folder / "cost.json").is_file():
        of = (
            (1e5 if (root / "100000_dense_train.npz").is_file() else dose, "dense")
            if shared
            else (dose, view)
        )
        train = root / f"{of[0]:.0f}_{of[1]}_train.npz"
        config = TrainingConfig(
            model=ModelConfig(objective=network.objective),
            steps=STEPS[network.objective],
            seed=replicate,
            n_images=1000 if view == "baseline" else None,
            checkpointing=False,
            logger="none",
        )
        job = TrainingJob(of[0], of[1], 1 if shared else VIEW_GRIDSIZE[view], train, train, folder)
        write_json(folder / "cost.json", run_training_job(job, config=config)["cpu_seconds"])
    return folder / "bundle.pt", read_json(folder / "cost.json")


def method_named(
    name: str, root: Path, dose: float, view: str, replicate: int
) -> tuple[object, float]:
    """A method, ready to reconstruct, and the CPU seconds that its training took."""
    if name == "lsqml":
        return LSQML(epochs=60 if view != "baseline" else 30), 0.0
    if name == "classical":
        return Classical(), 0.0
    bundle, cost = bundle_for(name, root, dose, view, replicate)
    return Learned(bundle=bundle, refined=name.endswith("+refine")), cost


def weight_given(path: Path, raw) -> float:
    """CPU seconds of the refinement without the search for its weight."""
    bundle = load_bundle(path)
    config = replace(bundle.config, n_images=None)
    weight = refine(bundle.model, raw, config).weight
    return refine(bundle.model, raw, config, weight=weight).cpu_seconds


def classical_course(raw, weight: float, steps: int = 150) -> list[tuple[float, float]]:
    """(CPU seconds, phase PSNR) of the classical iteration with its weight given, every fifth
    step."""
    from time import process_time

    layout, spent, course = view_layout(raw.positions, raw.N), 0.0, []
    patterns = Patterns(raw.counts, layout.address, layout.residual_px, raw.probe, layout.shape)
    (row, column), (_, height, width) = layout.origin[0].tolist(), layout.shape
    started = process_time()

    def observe(step: int, canvas: torch.Tensor) -> None:
        nonlocal spent, started
        spent += process_time() - started
        if (step + 1) % 5 == 0:
            whole = np.ones(raw.scan.canvas_shape, np.complex64)
            whole[row : row + height, column : column + width] = canvas[0].numpy()
            course.append((spent, judge({"classical": whole}, raw)[0]["phase_psnr"]))
        started = process_time()

    canvas_steps(patterns, empty(patterns), steps, smoothness=weight, observe=observe)
    return course


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--output", type=Path, default=Path("runs/fly001"))
    parser.add_argument("--replicates", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--dose", type=float, nargs="+", default=[1e3, 1e4, 1e5])
    parser.add_argument(
        "--view", nargs="+", default=["sparse", "dense"], choices=list(VIEW_GRIDSIZE)
    )
    parser.add_argument(
        "--method",
        nargs="+",
        choices=list(METHODS),
        default=["pinn", "pinn+refine", "pinn-sim", "pinn-sim+refine", "classical", "lsqml"],
    )
    parser.add_argument("--limits", action="store_true", help="also the two limits of every cell")
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.output / "results.json"
    rows = read_json(path)["rows"] if path.is_file() else []
    for replicate in options.replicates:
        root = options.output / f"replicate_{replicate}"
        if not (root / "made.json").is_file():
            make_data(options.scan, root, replicate, [1e3, 1e4, 1e5])
            write_json(root / "made.json", software_versions())
        for dose in options.dose:
            for view in options.view:
                cell = {"replicate": replicate, "dose": dose, "view": view}
                dataset = root / f"{dose:.0f}_{view}_test.npz"
                raw = PyTorchMemmapBridge(dataset).raw_data_torch
                for name in options.method + ["limits"] * options.limits:
                    if any(row.items() >= (cell | {"method": name}).items() for row in rows):
                        continue
                    if name == "limits":
                        truth, region = (
                            raw.scan.object_guess,
                            scored_region(
                                raw.scan.xcoords, raw.scan.ycoords, raw.scan.canvas_shape
                            ),
                        )
                        place = (truth, raw.scan.probe, raw.scan.xcoords, raw.scan.ycoords, region)
                        found = {
                            "cramer_rao": limits(*place).phase_psnr,
                            "bayesian": limits(*place, class_spectrum([truth[region]])).phase_psnr,
                        }
                    else:
                        method, trained = method_named(name, root, dose, view, replicate)
                        result = method.reconstruct(dataset)
                        scored = judge({name: result.object}, raw, region=region_of(raw))
                        found = {
                            key: scored[0][key]
                            for key in ("phase_psnr", "amplitude_psnr", "deviance")
                        } | {
                            "flat": [scored[-2]["phase_psnr"], scored[-2]["amplitude_psnr"]],
                            "patterns": raw.n,
                            "cpu_seconds": result.cpu_seconds,
                            "training_cpu_seconds": trained,
                            "note": result.note,
                        }
                        if name.endswith("+refine"):
                            found["given_cpu_seconds"] = weight_given(method.bundle, raw)
                        if name == "classical":
                            found["course"] = classical_course(raw, result.settings["tikhonov"])
                    rows.append(cell | {"method": name, **found})
                    write_json(path, {"rows": rows, "versions": software_versions()})
                    print(
                        {
                            key: round(value, 2) if isinstance(value, float) else value
                            for key, value in rows[-1].items()
                            if key not in ("course", "note")
                        },
                        flush=True,
                    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
