"""What train.ipynb does: parameters to jobs, a trained bundle to a judged reconstruction."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from fly64lib.design.study import SPLITS, gridsize_of
from fly64lib.evaluation import beam
from fly64lib.evaluation.judgement import has_truth, judge, region_of
from fly64lib.evaluation.scores import json_rows
from fly64lib.methods.base import ProbeCondition
from fly64lib.methods.by_name import method_of
from fly64lib.notebook.data import write_result
from fly64lib.notebook.datasets import simulate
from fly64lib.notebook.judged import Judged
from fly64lib.notebook.parameters import TrainParameters
from fly64lib.simulation.split import split_scan
from fly64lib.training import TrainingJob
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import read_scan, write_scan
from ptycho_torch.files import atomic_path, sha256_file
from ptycho_torch.inference.apply import reconstruct
from ptycho_torch.memmap_bridge import open_scan
from ptycho_torch.training.bundle import load_bundle

_SAME = "fitted and scored on the same patterns"
_HELD_OUT_EVERY = 10  # pattern of a measured held-out half: not reconstructed from, but scored
_UNWRITTEN = ("history", "config")  # of a training's result: its folder holds them


def training_jobs(parameters: TrainParameters) -> dict[str, TrainingJob]:
    """The notebook's jobs by label: one on simulated data, made if absent, or on one's own files.

    A measured file without a held-out half gives two: one fitted and scored on the same patterns,
    one trained on the upper part of the scan and applied to the lower, a guard band between them.
    """
    dose, view, output = parameters.dose, parameters.view, Path(parameters.output_dir)
    train, test = parameters.train_npz, parameters.test_npz
    if train:  # the dose of one's own file is measured; the parameter is for simulations
        dose = float(round(mean_photons(read_scan(train).diffraction)))

    def job(train: str | Path, test: str | Path, folder: Path) -> TrainingJob:
        probe = ProbeCondition(probe="known" if parameters.known_probe else "recovered")
        return TrainingJob(dose, view, gridsize, Path(train), Path(test), folder, probe)

    gridsize = parameters.gridsize or gridsize_of(view)
    if not train:
        files = simulate(parameters.scan_design, view, parameters.data_dir)
        return {"held-out half": job(*files, output)}
    if test:
        one = job(train, test, output)
        return {_SAME if on_the_same(one) else "held-out file": one}
    halves = _halves(Path(train), output / "split", parameters.scan_design.guard_power)
    return {_SAME: job(train, train, output), "held-out half": job(*halves, output / "split")}


def on_the_same(job: TrainingJob) -> bool:
    """Whether a job is tested on the file that it is trained on, or on a copy of it."""
    return sha256_file(job.train_data_path) == sha256_file(job.test_data_path)


def doubt(job: TrainingJob) -> str:
    """A warning where measured patterns were not made by the probe of their file, for what is
    trained under a wrong beam is trained in vain; else nothing."""
    raw = open_scan(job.train_data_path)
    if has_truth(raw) or job.probe.recovers:
        return ""
    found, allowed = beam.misfit(raw)
    if found**2 - allowed**2 <= beam.WRONG**2:
        return ""
    text = f"warning: under the probe of {job.train_data_path.name} the best object leaves"
    text += f" R = {100 * found:.0f} % between measured and calculated amplitudes, where counts"
    text += f" alone would leave {100 * allowed:.0f} %: it is not the beam of these patterns;"
    return f"{text} recover that first: fly64 probe SCAN.npz OUT.npz --modes 3\n"


def judge_job(job: TrainingJob, label: str) -> Judged:
    """Reconstruct a job's test file with the job's bundle and judge the object: its deviance and
    photons are those of the patterns that made it, its metrics those of the whole file's region. Of
    a measured half that training has not seen every tenth pattern is kept back, and gives
    `deviance_held_out`. A probe that training recovered serves both halves."""
    bundle = load_bundle(job.artifact_dir / "bundle.pt")
    raw, config, held_out = open_scan(job.test_data_path), bundle.config, None
    if job.view != "baseline":
        config = replace(config, n_images=None)
    if not has_truth(raw) and not on_the_same(job):
        held = np.arange(raw.n) % _HELD_OUT_EVERY == 0
        raw, held_out = raw.subset(~held), raw.subset(held)
    method, probes, gauge = method_of(config.model.objective), {}, "known_probe"
    if job.probe.recovers:
        probes, gauge = {method: bundle.model.probe.numpy()}, "unknown_probe"
    found = reconstruct(bundle.model, raw.under(probes.get(method, raw.scan.probe)), config)
    objects, remarks = {method: found.object.numpy()}, []
    if not has_truth(raw):
        stored = f"stored {raw.metadata.get('object_kind', 'object')}"
        objects[stored] = raw.scan.object_guess
        if held_out is not None:
            fitted = "was fitted to most of" if "probe_recovery" in raw.metadata else "may know"
            remarks.append(f"{stored} {fitted} the patterns held out: there it stands no test")
    made_by, count = raw.subset(found.images), f"{len(found.images)}"
    about = {"gauge": gauge, "probes": probes}
    rows = judge(objects, made_by, region=region_of(raw), held_out=held_out, **about)
    if made_by.n < raw.n:
        count += f" of {raw.n}"
    remarks.insert(0, f"{count} patterns, {label}")
    return Judged(found.object.numpy(), bundle, raw, rows, tuple(remarks), found, gauge)


def write_results(
    parameters: TrainParameters,
    jobs: dict[str, TrainingJob],
    results: dict[str, dict],
    judged: dict[str, Judged],
) -> Path:
    """Write the objects with their fluence and then `metrics.json`: the run is complete."""
    runs = []
    for label, found in judged.items():
        made = found.reconstruction
        arrays = {"fluence": made.fluence.numpy(), "images": made.images}
        with atomic_path(jobs[label].artifact_dir / "object.npz") as temporary:
            np.savez(temporary, object=found.object, **arrays)
        run = {
            "label": label,
            "scored_against": "truth" if found.truth is not None else "data only",
            "rows": json_rows(found.rows),
            "images": len(made.images),  # patterns that made the object
            "training": {k: v for k, v in results[label].items() if k not in _UNWRITTEN},
            "inference_seconds": made.seconds,
            "inference_cpu_seconds": made.cpu_seconds,
        }
        runs.append(run)
    return write_result(Path(parameters.output_dir) / "metrics.json", parameters, runs=runs)


def _halves(path: Path, folder: Path, guard_power: float) -> list[Path]:
    scan, files = read_scan(path), []
    halves = split_scan(scan.positions, scan.probe, scan.canvas_shape, guard_power)
    for split in SPLITS:
        about = {"split": split, "guard_px": halves.guard_px, "parent": path.name}
        part = replace(scan.subset(halves[split]), metadata={**scan.metadata, **about})
        files.append(folder / f"{split}.npz")
        write_scan(files[-1], part)
    return files
