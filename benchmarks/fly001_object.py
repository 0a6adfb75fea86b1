"""Methods on fly001's recovered object under its recovered probe, matched, known probe: every cell
against the limits.

    python benchmarks/fly001_object.py SCAN.npz --output runs/fly001 [--replicates 0 1 2]
        [--doses 1000] [--views dense] [--limits]

SCAN is the public twentieth of the scan with its reconstruction, which is taken for the truth here
and simulated at all 10,304 positions. Split by a guard band of 30 px, D = 30 px: the halves see
each other's probe tails (a band of 46 px would not), for comparison with other work on this table.
Prints phase and amplitude PSNR on the unseen half, the flat object's, and CPU seconds. Results are
kept in `results.json`: a rerun does what is missing."""

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from common import Rows, decibels, main, trained
from tyro.conf import Positional

from fly64lib.design.registries import METHODS
from fly64lib.design.study import StudyDesign
from fly64lib.evaluation.judgement import judge, region_of
from fly64lib.evaluation.limits import limits
from fly64lib.evaluation.spectrum import class_spectrum
from fly64lib.methods.by_name import network_of
from fly64lib.simulation.experiment import Experiment, draw_amplitudes, expected_patterns
from fly64lib.simulation.scans import snake_scan
from fly64lib.simulation.views import choose_views
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.fields import SEVERAL, Positive, Whole, config
from ptycho_torch.files import write_json
from ptycho_torch.memmap_bridge import open_scan
from ptycho_torch.versions import software_versions

GUARD_PX = DIAMETER_PX = 30.0
USUAL = ("pinn", "pinn+refine", "classical", "lsqml")


@config
class Fly001Options:
    """Methods on fly001's recovered object, against the limits."""

    scan: Positional[Path]  # the public twentieth of fly001, as DATA-001
    output: Path = Path("runs/fly001")
    replicates: tuple[Whole, ...] = (0, 1, 2)
    doses: tuple[float, ...] = (1e3, 1e4, 1e5)
    views: Annotated[tuple[Literal["baseline", "sparse", "dense"], ...], SEVERAL] = (
        *("sparse", "dense"),
    )
    methods: Annotated[tuple[Literal[*METHODS], ...], SEVERAL] = USUAL
    limits: bool = False  # also the two limits of every cell
    steps: Positive = 150  # of pinn's training


def make_data(scan: Path, root: Path, replicate: int, doses: tuple[float, ...]) -> None:
    """Files `root/<dose>_<view>_<half>.npz` of every view."""
    source, positions = read_scan(scan), snake_scan()
    design = StudyDesign(replicate=replicate, controls=False)
    experiment = Experiment(source.object_guess, source.probe, positions, source.N, 1, {})
    expected, y = expected_patterns(experiment), positions[:, 0]
    middle, mean = (y.min() + y.max()) / 2, float(expected.sum((1, 2), dtype=np.float64).mean())
    halves = {"train": y > middle + GUARD_PX / 2, "test": y < middle - GUARD_PX / 2}
    for half, images in ((name, np.flatnonzero(inside)) for name, inside in halves.items()):
        views, _ = choose_views(positions[images], DIAMETER_PX, design)
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
                part = replace(whole.subset(view.images), groups=view.groups)
                write_scan(root / f"{dose:.0f}_{view.name}_{half}.npz", part)


def method_of(name: str, root: Path, cell: dict, options: Fly001Options) -> tuple[Any, float]:
    """A method, ready to reconstruct, and the CPU seconds that its training took."""
    network, dose, view = network_of(name), cell["dose"], cell["view"]
    epochs = {"epochs": 60 if view != "baseline" else 30}
    if network is None:
        return METHODS[name](**(epochs if name == "lsqml" else {})), 0.0
    settings = {"objective": network.objective, "seed": cell["replicate"]}
    folder = root / f"{dose:.0f}_{view}_{network.objective}"
    settings["steps"] = options.steps
    settings["n_images"] = 1000 if view == "baseline" else None
    bundle, cost = trained(folder, root / f"{dose:.0f}_{view}_train.npz", dose, view, **settings)
    return METHODS[name](bundle=bundle), cost


def measured(name: str, root: Path, cell: dict, options: Fly001Options) -> dict:
    """A method's scores and costs in a cell."""
    raw = open_scan(root / f"{cell['dose']:.0f}_{cell['view']}_test.npz")
    method, trained_s = method_of(name, root, cell, options)
    result = method.reconstruct(raw.without_truth())
    scores = {row["method"]: row for row in judge({name: result.object}, raw)}
    found = {
        **decibels(scores[name]),
        "deviance": scores[name]["deviance"],
        "flat": list(decibels(scores["flat"]).values()),
        "patterns": raw.n,
        "cpu_seconds": result.cost.cpu_seconds,
        "training_cpu_seconds": trained_s,
        "note": result.note,
    }
    return found


def both_limits(root: Path, cell: dict) -> dict:
    """Phase PSNR of the unbiased bound and of the Bayesian reference."""
    raw = open_scan(root / f"{cell['dose']:.0f}_{cell['view']}_test.npz")
    truth, region = raw.scan.object_guess, region_of(raw)
    place = truth, raw.geometry(whole=True), region
    prior = class_spectrum([truth[region]])
    unbiased, bayesian = limits(*place), limits(*place, prior)
    return {"cramer_rao": unbiased.phase.psnr, "bayesian": bayesian.phase.psnr}


def fly001(options: Fly001Options) -> int:
    """Measure every cell and method that has no row."""
    kept = Rows(options.output / "results.json")
    for replicate in options.replicates:
        root = options.output / f"replicate_{replicate}"
        if not (root / "made.json").is_file():
            make_data(options.scan, root, replicate, Fly001Options(scan=options.scan).doses)
            write_json(root / "made.json", software_versions())
        names = options.methods + ("limits",) * options.limits
        for dose, view, name in product(options.doses, options.views, names):
            cell = {"replicate": replicate, "dose": dose, "view": view}
            if cell | {"method": name} in kept:
                continue
            of_limits = name == "limits"
            found = both_limits(root, cell) if of_limits else measured(name, root, cell, options)
            kept.add(cell | {"method": name, **found})
            row = {key: kept.rows[-1][key] for key in kept.rows[-1] if key != "note"}
            short = {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items()}
            print(short, flush=True)
    return 0


if __name__ == "__main__":
    main(Fly001Options, fly001)
