"""Robustness: what each imperfection of the experiment costs each method that is not told of it.

A condition is one imperfection at one strength. Its data are simulated, the network is trained on
the disturbed training half, and every method reconstructs the disturbed test half; the truth is the
undisturbed object. A condition's folder keeps its objects and, last, `rows.json`: a rerun of the
same parameters goes on where an earlier one was stopped."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from matplotlib.figure import Figure
from pandas import DataFrame

from fly64lib.design import VIEW_GRIDSIZE, view_file
from fly64lib.evaluation.columns import markdown_table, table
from fly64lib.evaluation.judgement import judge, region_of
from fly64lib.evaluation.scores import json_rows
from fly64lib.generation import generate_datasets
from fly64lib.notebook.parameters import RobustnessParameters
from fly64lib.overlap import generate_overlap_views
from fly64lib.plots.styles import method_colour
from fly64lib.reconstruction import (
    MethodSettings,
    ReconstructionJob,
    load_object,
    run_reconstruction_job,
)
from fly64lib.registries import METRICS
from fly64lib.simulation.imperfections import Imperfections
from fly64lib.training import TrainingJob, artifact_folder, run_training_job
from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.files import atomic_path, folder_lock, read_json, write_json
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge

STRENGTHS = {  # of each imperfection, weakest first, and how its axis is called
    "probe_error": ((0.02, 0.05, 0.1, 0.2), "error of the file's probe, share of its norm"),
    "probe_defocus_rad": ((0.2, 0.5, 1.0, 2.0), "defocus error of the file's probe / rad"),
    "jitter_px": ((0.25, 0.5, 1.0, 2.0), "rms error of the positions, each axis / px"),
    "incoherent": ((0.02, 0.05, 0.1, 0.2), "share of the power outside the first mode"),
    "motion_px": ((1.0, 2.0, 4.0, 8.0), "way during the exposure / px"),
    "beam_stop_px": ((2.0, 4.0, 8.0, 12.0), "radius of the beam stop / detector px"),
    "dead_share": ((0.003, 0.01, 0.03, 0.1), "share of dead pixels"),
}
PERFECT_NAME = "none"


def conditions(parameters: RobustnessParameters) -> list[tuple[str, float]]:
    """(imperfection, strength) of the undisturbed experiment and of every point of the curves."""
    unknown = [name for name in parameters.imperfections if name not in STRENGTHS]
    if unknown:
        raise ConfigError(f"imperfection={unknown[0]!r} is not one of {', '.join(STRENGTHS)}")
    return [
        (PERFECT_NAME, 0.0),
        *(
            (name, strength)
            for name in parameters.imperfections
            for strength in STRENGTHS[name][0][-parameters.strengths :]
        ),
    ]


def run_conditions(parameters: RobustnessParameters) -> Iterator[list[dict]]:
    """The rows of one condition after another."""
    root = Path(parameters.output_root)
    with folder_lock(root):
        for name, strength in conditions(parameters):
            yield _condition(
                parameters,
                name,
                strength,
                root / (name if name == PERFECT_NAME else f"{name}_{strength:g}"),
            )


def _condition(
    parameters: RobustnessParameters, name: str, strength: float, folder: Path
) -> list[dict]:
    """Rows of a condition, one a method: made, or kept from an earlier run of the same
    parameters."""
    asked = {
        key: value
        for key, value in asdict(parameters).items()
        if key not in ("imperfection", "strengths", "output_root", "threads")
    }
    done = folder / "rows.json"
    if done.is_file() and (earlier := read_json(done))["parameters"] == asked:
        return earlier["rows"]
    imperfections = Imperfections(**({} if name == PERFECT_NAME else {name: strength}))
    data, dose, view = folder / "data", parameters.dose, parameters.view
    generate_datasets(data / "C", parameters.design, imperfections=imperfections)
    if view != "baseline":
        generate_overlap_views(
            data / "C", data / "D", data / "overlap", parameters.design, controls=False
        )
    train, test = (
        view_file(data / "C", data / "D", dose, view, split) for split in ("train", "test")
    )
    for method, objective in (("pinn", "poisson"), ("supervised", "supervised")):
        if method in parameters.methods:
            _train(parameters, objective, train, test, folder)
    settings = MethodSettings(
        num_epochs=parameters.num_epochs,
        steps=parameters.steps,
        threads=parameters.threads,
        training_root=str(folder / "training"),
    )
    objects, cost = {}, {}
    for method in parameters.methods:
        job = ReconstructionJob(dose, view, "test", method, test, folder / method)
        cost[method] = run_reconstruction_job(job, settings)["cpu_seconds"]
        objects[method] = load_object(job.artifact_dir)
    baseline = PyTorchMemmapBridge(
        view_file(data / "C", data / "D", dose, "baseline", "test")
    ).raw_data_torch
    scored = judge(objects, PyTorchMemmapBridge(test).raw_data_torch, region=region_of(baseline))
    rows = json_rows(
        [
            {
                "imperfection": name,
                "strength": strength,
                **row,
                "cpu_seconds": cost.get(row["method"]),
            }
            for row in scored
        ]
    )
    write_json(done, {"parameters": asked, "imperfections": asdict(imperfections), "rows": rows})
    shutil.rmtree(data)  # tens of megabytes a condition, and soon made again
    return rows


def _train(
    parameters: RobustnessParameters, objective: str, train: Path, test: Path, folder: Path
) -> None:
    dose, view, gridsize = parameters.dose, parameters.view, VIEW_GRIDSIZE[parameters.view]
    place = artifact_folder(folder / "training", dose, view, gridsize, objective)
    config = TrainingConfig(
        steps=parameters.training_steps,
        thinnings=4,
        threads=parameters.threads,
        logger="none",
        seed=1000 * parameters.replicate,
    )
    config = TrainingConfig.from_dict(
        config.to_dict() | {"model": config.to_dict()["model"] | {"objective": objective}}
    )
    run_training_job(TrainingJob(dose, view, gridsize, train, test, place), config=config)


def write_rows(rows: Sequence[dict], path: str | Path) -> Path:
    """The rows as CSV."""
    with atomic_path(path) as temporary:
        DataFrame(rows).to_csv(temporary, index=False)
    return Path(path)


def text(rows: Sequence[dict], methods: Sequence[str]) -> str:
    """The methods' rows as a Markdown table."""
    shown = [row for row in rows if row["method"] in methods]
    return markdown_table(*table(shown, "imperfection", "strength", "method"))


def curves(rows: Sequence[dict], methods: Sequence[str]) -> Figure:
    """Phase PSNR above the flat object over the strength, a panel an imperfection; the dotted line
    is without any."""
    names = [name for name in STRENGTHS if any(row["imperfection"] == name for row in rows)]
    columns = min(3, len(names))
    figure = Figure(figsize=(3.7 * columns, 3.1 * -(-len(names) // columns)), layout="constrained")
    axes = figure.subplots(-(-len(names) // columns), columns, squeeze=False, sharey=True)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for name, ax in zip(names, axes.flat, strict=False):
        for method in methods:
            colour = method_colour(method, methods)
            points = sorted(
                (row["strength"], row["phase_psnr_skill"])
                for row in rows
                if row["method"] == method and row["imperfection"] in (name, PERFECT_NAME)
            )
            ax.plot(*zip(*points, strict=True), ".-", color=colour, label=method)
            ax.axhline(points[0][1], color=colour, linestyle=":", linewidth=0.8)
        ax.axhline(0, color="0.6", linewidth=0.8)
        ax.set(xlabel=STRENGTHS[name][1])
        ax.grid(color="0.92")
    for row in axes:
        row[0].set_ylabel(METRICS["phase_psnr"].skill_column.title)
    axes[0, 0].legend(fontsize="small")
    return figure
