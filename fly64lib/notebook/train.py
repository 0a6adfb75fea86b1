"""What train.ipynb does between its prose: parameters to jobs, a trained bundle to a judged
reconstruction."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fly64lib.design import StudyDesign
from fly64lib.evaluation import columns
from fly64lib.evaluation.gauge import Region
from fly64lib.evaluation.judgement import has_truth, judge, region_of
from fly64lib.evaluation.scores import json_rows
from fly64lib.methods.by_name import method_of
from fly64lib.notebook.datasets import prepared_view
from fly64lib.notebook.parameters import TrainParameters
from fly64lib.plots import figures
from fly64lib.simulation.split import split_scan
from fly64lib.training import VIEW_GRIDSIZE, TrainingJob
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import read_scan, write_scan
from ptycho_torch.files import atomic_path, write_json
from ptycho_torch.inference.apply import Reconstruction, reconstruct
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge, RawDataTorch
from ptycho_torch.training.bundle import load_bundle
from ptycho_torch.versions import software_versions

_HELD_OUT_EVERY = (
    10  # of the patterns of a measured held-out half, kept from the reconstruction and scored
)


@dataclass(frozen=True)
class Judged:
    """A reconstruction of a data file with its table."""

    reconstruction: Reconstruction
    raw: RawDataTorch
    region: Region
    rows: list[dict]
    label: str

    @property
    def truth(self) -> np.ndarray | None:
        return self.raw.scan.object_guess if has_truth(self.raw) else None

    @property
    def image(self) -> np.ndarray:
        return self.reconstruction.object.numpy()


def training_config(parameters: TrainParameters) -> TrainingConfig:
    """The knobs of a job; :func:`fly64lib.training.run_training_job` adds what the job decides."""
    gridsize = parameters.gridsize or VIEW_GRIDSIZE[parameters.view]
    return TrainingConfig(
        model=ModelConfig(
            N=parameters.N,
            gridsize=gridsize,
            objective=parameters.objective,
            canvas_passes=parameters.canvas_passes,
        ),
        n_images=parameters.n_images,
        max_epochs=parameters.epochs,
        steps=parameters.steps,
        batch_size=parameters.batch_size,
        learning_rate=parameters.learning_rate,
        seed=parameters.seed + 1000 * parameters.replicate,
        accelerator=parameters.accelerator,
        threads=parameters.threads,
        progress=parameters.progress,
        nphotons=parameters.dose,
    )


def training_jobs(parameters: TrainParameters) -> dict[str, TrainingJob]:
    """The notebook's jobs by label: one on simulated data, made if absent, or on files of one's
    own.

    A measured file without a held-out half gives two: one fitted and scored on the same patterns,
    and one trained on the upper part of the scan and applied to the lower one, a guard band between
    them."""
    gridsize = parameters.gridsize or VIEW_GRIDSIZE[parameters.view]
    output = Path(parameters.output_dir)

    # The dose of one's own file is measured; the parameter is for simulations.
    dose = (
        float(round(mean_photons(read_scan(parameters.train_npz).diffraction)))
        if parameters.train_npz
        else parameters.dose
    )

    def job(train: str | Path, test: str | Path, folder: Path) -> TrainingJob:
        return TrainingJob(dose, parameters.view, gridsize, Path(train), Path(test), folder)

    if not parameters.train_npz:
        design = StudyDesign(
            specimen=parameters.specimen,
            simulation=parameters.simulation,
            N=parameters.N,
            replicate=parameters.replicate,
        )
        return {
            "held-out half": job(
                *prepared_view(design, parameters.dose, parameters.view, parameters.data_dir),
                output,
            )
        }
    if parameters.test_npz:
        return {"held-out file": job(parameters.train_npz, parameters.test_npz, output)}
    train, test = _halves(Path(parameters.train_npz), output / "split")
    return {
        "fitted and scored on the same patterns": job(
            parameters.train_npz, parameters.train_npz, output
        ),
        "held-out half": job(train, test, output / "split"),
    }


def judge_job(job: TrainingJob, label: str) -> Judged:
    """Reconstruct a job's test file with the job's bundle and judge the object.

    On measured data of a half that training has not seen, every tenth pattern is kept from the
    reconstruction too, and gives `deviance_held_out`."""
    bundle = load_bundle(job.artifact_dir / "bundle.pt")
    raw = PyTorchMemmapBridge(job.test_data_path).raw_data_torch
    config = replace(
        bundle.config, n_images=None if job.view != "baseline" else bundle.config.n_images
    )
    held_out = None
    if not has_truth(raw) and job.train_data_path != job.test_data_path:
        held = np.arange(raw.n) % _HELD_OUT_EVERY == 0
        held_out = RawDataTorch(raw.scan.subset(held), raw.source)
        raw = RawDataTorch(raw.scan.subset(~held), raw.source)
    reconstruction = reconstruct(bundle.model, raw, config)
    objects = {method_of(bundle.config.model.objective): reconstruction.object.numpy()}
    if not has_truth(raw):
        objects[f"stored {raw.metadata.get('object_kind', 'object')}"] = raw.scan.object_guess
    rows = judge(objects, raw, held_out=held_out)
    return Judged(reconstruction, raw, region_of(raw), rows, label)


def picture(judged: Judged) -> Figure:
    """Truth (where known) beside the reconstruction, and the phase error."""
    shown = {judged.rows[0]["method"]: judged.image}
    if judged.truth is None:
        shown["stored in the file (not truth)"] = judged.raw.scan.object_guess
    return figures.objects(shown, judged.truth, judged.region, errors=True)


def table(judged: Judged) -> str:
    """The rows as a Markdown table; without truth only the deviances."""
    text = columns.markdown_table(*columns.table(judged.rows, "method"))
    return f"{text}\n\n{len(judged.reconstruction.images)} patterns, {judged.label}"


def write_results(
    output: Path,
    parameters: TrainParameters,
    jobs: dict[str, TrainingJob],
    results: dict[str, dict],
    judged: dict[str, Judged],
) -> Path:
    """Write the objects and then `metrics.json`, the file whose presence says that the run is
    complete."""
    runs = []
    for label, result in judged.items():
        save_object(jobs[label].artifact_dir / "object.npz", result)
        trained = {
            key: value for key, value in results[label].items() if key not in ("history", "config")
        }
        runs.append(
            {
                "label": label,
                "scored_against": "truth" if result.truth is not None else "data only",
                "rows": json_rows(result.rows),
                "training": trained,
                "inference_seconds": result.reconstruction.seconds,
                "inference_cpu_seconds": result.reconstruction.cpu_seconds,
            }
        )
    write_json(
        output / "metrics.json",
        {"parameters": asdict(parameters), "runs": runs, "versions": software_versions()},
    )
    return output / "metrics.json"


def save_object(path: str | Path, judged: Judged) -> None:
    """Write the object and its fluence as npz, atomically."""
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            object=judged.image,
            fluence=judged.reconstruction.fluence.numpy(),
            images=judged.reconstruction.images,
        )


def _halves(path: Path, folder: Path) -> tuple[Path, Path]:
    scan = read_scan(path)
    halves = split_scan(scan.positions, scan.probe, scan.canvas_shape, StudyDesign().guard_power)
    files = []
    for name in ("train", "test"):
        part = scan.subset(halves[name])
        metadata = {
            **scan.metadata,
            "split": name,
            "guard_px": halves.guard_px,
            "parent": path.name,
        }
        files.append(folder / f"{name}.npz")
        write_scan(files[-1], replace(part, metadata=metadata))
    return files[0], files[1]
