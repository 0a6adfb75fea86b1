"""Robustness: what each imperfection of the experiment costs each method that does not know of it.

A condition is one imperfection at one strength: the network is trained on the disturbed training
half, every method reconstructs the disturbed test half; the truth is the undisturbed object. Its
folder keeps the objects and, last, `rows.json`: a rerun of the same parameters goes on from there.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure
from pandas import DataFrame

from fly64lib.design.registries import METRICS
from fly64lib.design.study import gridsize_of
from fly64lib.evaluation.columns import markdown_table, table
from fly64lib.evaluation.judgement import judge, region_of
from fly64lib.evaluation.scores import absences, json_rows
from fly64lib.methods.by_name import networks
from fly64lib.notebook.datasets import made
from fly64lib.notebook.parameters import RobustnessParameters, given
from fly64lib.plots.styles import method_colour
from fly64lib.reconstruction import (
    LastScan,
    MethodSettings,
    ReconstructionJob,
    load_object,
    run_reconstruction_job,
)
from fly64lib.simulation.imperfections import Imperfections
from fly64lib.training import TrainingJob, run_training_job
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import field_names, to_dict
from ptycho_torch.files import atomic_path, folder_lock, read_json, write_json
from ptycho_torch.memmap_bridge import open_scan

Rows = list[dict]
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
    found = [(PERFECT_NAME, 0.0)]
    for name in parameters.imperfection:
        if name not in STRENGTHS:
            raise ConfigError(f"imperfection={name!r} is not one of {', '.join(STRENGTHS)}")
        found += [(name, strength) for strength in STRENGTHS[name][0][-parameters.strengths :]]
    return found


def run_conditions(parameters: RobustnessParameters) -> Iterator[Rows]:
    """The rows of one condition after another."""
    root = Path(parameters.output_root)
    with folder_lock(root):
        for name, strength in conditions(parameters):
            place = name if name == PERFECT_NAME else f"{name}_{strength:g}"
            yield _condition(parameters, name, strength, root / place)


def _condition(parameters: RobustnessParameters, name: str, strength: float, folder: Path) -> Rows:
    """Rows of a condition, one a method: made, or those of a run with the same parameters."""
    asked = to_dict(parameters)
    for changes_nothing in ("imperfection", "strengths", "output_root", "threads"):
        del asked[changes_nothing]
    done = folder / "rows.json"
    if done.is_file() and (earlier := read_json(done))["parameters"] == asked:
        return earlier["rows"]
    imperfections = Imperfections(**({} if name == PERFECT_NAME else {name: strength}))
    dose, view, training = parameters.dose, parameters.view, folder / "training"
    files = made(folder / "data", parameters.scan_design, view, imperfections=imperfections)
    _train(parameters, files, training)
    methods = given(parameters, field_names(MethodSettings))
    settings = MethodSettings(training_root=str(training), **methods)
    objects, cost = {}, {}
    last = LastScan()
    for method in parameters.method:
        job = ReconstructionJob(dose, view, "test", method, files["test"], folder / method)
        cost[method] = run_reconstruction_job(job, settings, last)["cpu_seconds"]
        objects[method] = load_object(job.artifact_dir)
    scored = judge(objects, open_scan(files["test"]), region=region_of(open_scan(files["whole"])))
    about = {"imperfection": name, "strength": strength}
    rows = json_rows([about | row | {"cpu_seconds": cost.get(row["method"])} for row in scored])
    write_json(done, {"parameters": asked, "imperfections": to_dict(imperfections), "rows": rows})
    shutil.rmtree(folder / "data")  # tens of megabytes a condition, and soon made again
    return rows


def _train(parameters: RobustnessParameters, files: Mapping[str, Path], root: Path) -> None:
    """Train the networks that the methods need."""
    dose, view, config = parameters.dose, parameters.view, parameters.config
    for network in networks(parameters.method):
        model = replace(config.model, objective=network.objective)
        place = root / network.folder(dose, view)
        job = TrainingJob(dose, view, gridsize_of(view), files["train"], files["test"], place)
        run_training_job(job, config=replace(config, model=model))


def write_rows(rows: Sequence[dict], path: str | Path) -> Path:
    """The rows as CSV."""
    with atomic_path(path) as temporary:
        DataFrame(rows).to_csv(temporary, index=False)
    return Path(path)


def text(rows: Sequence[dict], methods: Sequence[str]) -> str:
    """The methods' rows as a Markdown table."""
    shown = [row for row in rows if row["method"] in methods]
    lines = markdown_table(*table(shown, "imperfection", "strength", "method"))
    return "\n\n".join([*absences(shown), lines])


def curves(rows: Sequence[dict], methods: Sequence[str]) -> Figure:
    """Phase PSNR above flat over the strength, a panel an imperfection; dotted: without any."""
    names = [name for name in STRENGTHS if any(row["imperfection"] == name for row in rows)]
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = Figure(figsize=(3.7 * across, 3.1 * down), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False, sharey=True)
    for ax in axes.flat[len(names) :]:
        ax.set_axis_off()
    for name, ax in zip(names, axes.flat, strict=False):
        for method in methods:
            colour = method_colour(method, methods)
            own = (row for row in rows if row["method"] == method)
            there = (row for row in own if row["imperfection"] in (name, PERFECT_NAME))
            points = sorted((row["strength"], row["phase_psnr_skill"]) for row in there)
            ax.plot(*zip(*points, strict=True), ".-", color=colour, label=method)
            ax.axhline(points[0][1], color=colour, linestyle=":", linewidth=0.8)
        ax.axhline(0, color="0.6", linewidth=0.8)
        ax.set(xlabel=STRENGTHS[name][1])
        ax.grid(color="0.92")
    for row in axes:
        row[0].set_ylabel(METRICS["phase_psnr"].skill_column.title)
    axes[0, 0].legend(fontsize="small")
    return figure
