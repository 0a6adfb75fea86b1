"""Phase E: the grid's training jobs, one after another, each recorded.

    python -m fly64lib.training --phase-c-root C --phase-d-root D --artifact-root A [--dose 1000
    --view baseline ...]

A job writes `<artifact_root>/dose_1000/<view>/gs<g>/` (`train.log`, `metrics.csv`, `model.ckpt`,
`bundle.pt`); the command writes `training_manifest.json`, a row a job with every knob, and
`skip_summary.json`. A failed job is recorded with its error, the others go on, and the exit code is
1."""

import argparse
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from fly64lib.design import VIEW_GRIDSIZE, StudyDesign, dose_folder, view_file
from fly64lib.methods.registry import METHODS, training_name
from fly64lib.simulation.procedural_fields import ProceduralFields
from ptycho_torch import params
from ptycho_torch.commands import add_option, record_rows, run_command
from ptycho_torch.config import ModelConfig, TrainingConfig, update_legacy_dict
from ptycho_torch.errors import DataContractError
from ptycho_torch.files import folder_lock, storage_checked
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.workflows import components

MANIFEST = "training_manifest.json"
Runner = Callable[..., dict[str, Any]]


@dataclass(frozen=True)
class TrainingJob:
    """One cell of the training grid: which data, and where the artifacts go."""

    dose: float
    view: str
    gridsize: int
    train_data_path: Path
    test_data_path: Path
    artifact_dir: Path

    @property
    def log_path(self) -> Path:
        return self.artifact_dir / "train.log"

    @property
    def name(self) -> str:
        return f"{dose_folder(self.dose)}/{self.view}/gs{self.gridsize}"


def build_training_jobs(
    phase_c_root: str | Path,
    phase_d_root: str | Path,
    artifact_root: str | Path,
    design: StudyDesign | None = None,
    *,
    objective: str = "poisson",
    allow_missing_phase_d: bool = False,
    skipped: list[dict] | None = None,
) -> list[TrainingJob]:
    """The design's jobs, 9 by default: every dose with baseline (gridsize 1), dense and sparse
    (gridsize 2).

    Touches nothing. Raises DataContractError where a data file is missing; with
    `allow_missing_phase_d` a missing view's job is left out and its reason appended to `skipped`.
    The objective "procedural" needs one job for them all."""
    jobs = []
    for dose in (design or StudyDesign()).doses:
        for view, gridsize in VIEW_GRIDSIZE.items():
            train, test = (
                view_file(phase_c_root, phase_d_root, dose, view, split)
                for split in ("train", "test")
            )
            missing = [path for path in (train, test) if not path.is_file()]
            if missing and allow_missing_phase_d and view != "baseline":
                if skipped is not None:
                    skipped.append({"dose": dose, "view": view, "reason": f"no file {missing[0]}"})
                continue
            if missing:
                phase = "fly64lib.generation" if view == "baseline" else "fly64lib.overlap"
                raise DataContractError(
                    f"{missing[0]}: no such file; run python -m {phase} first"
                    + ("" if view == "baseline" else ", or pass --allow-missing-phase-d")
                )
            folder = artifact_folder(artifact_root, dose, view, gridsize, objective)
            jobs.append(TrainingJob(dose, view, gridsize, train, test, folder))
    return jobs[:1] if objective == "procedural" else jobs


def artifact_folder(
    artifact_root: str | Path, dose: float, view: str, gridsize: int, objective: str = "poisson"
) -> Path:
    """`dose_1000/dense/gs2`, with `_supervised` behind for the supervised twin; `sim/procedural`
    for the network of all."""
    if objective == "procedural":
        return Path(artifact_root) / METHODS["pinn-sim"].network.folder(dose, view)
    return Path(artifact_root) / dose_folder(dose) / view / training_name(gridsize, objective)


def run_training_job(
    job: TrainingJob,
    runner: Runner | None = None,
    *,
    config: TrainingConfig | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Prepare and run one job: folders, configuration, legacy parameters (CONFIG-001: once, before
    any data is loaded).

    `config` holds the knobs; what the job decides (files, gridsize, dose, folder) is put in here.
    `dry_run` returns the plan and does nothing."""
    base = config or TrainingConfig()
    config = replace(
        base,
        model=replace(base.model, gridsize=job.gridsize),
        train_data_file=str(job.train_data_path),
        test_data_file=str(job.test_data_path),
        output_dir=str(job.artifact_dir),
        nphotons=job.dose,
    )
    if dry_run:
        return {"status": "planned", "config": config.to_dict()}
    with folder_lock(job.artifact_dir):
        update_legacy_dict(params.cfg, config)
        result = (runner or execute_training_job)(config=config, job=job, log_path=job.log_path)
    return {**result, "config": config.to_dict()}


def execute_training_job(
    *, config: TrainingConfig, job: TrainingJob, log_path: Path
) -> dict[str, Any]:
    """Train one job on its two files and return status, final_loss, epochs, counts, paths, sha256
    and times."""
    with _logged(log_path):
        logging.getLogger("ptycho_torch").info("%s: %s", job.name, config.to_dict())
        truth = config.model.objective == "supervised"
        train, test = (
            PyTorchMemmapBridge(path, with_truth=truth).raw_data_torch
            for path in (job.train_data_path, job.test_data_path)
        )
        if config.model.objective == "procedural":
            trained = components.train_cdi_model_torch(
                train, None, config, ProceduralFields(train.probe, config.model)
            )
        else:
            trained = components.train_cdi_model_torch(train, test, config)
    return {
        "status": "complete",
        "final_loss": trained["final_loss"],
        "epochs": trained["epochs"],
        "images": trained["images"],
        "groups": trained["groups"],
        "bundle": str(trained["bundle"]),
        "bundle_sha256": trained["bundle_sha256"],
        "log": str(log_path),
        "checkpoint": str(trained["checkpoint"]) if trained["checkpoint"] else None,
        "history": trained["history"],
        "seconds": trained["seconds"],
        "cpu_seconds": trained["cpu_seconds"],
        "patterns_per_second": trained["patterns_per_second"],
    }


@contextmanager
def _logged(path: Path) -> Iterator[None]:
    """The engine's log lines, and the traceback of a failure, also in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with storage_checked(path):
        handler = _LogFile(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger = logging.getLogger("ptycho_torch")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except Exception:
        logger.error("failed\n%s", traceback.format_exc())
        raise
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        handler.close()


class _LogFile(logging.FileHandler):
    """A log that a full disk cuts short, and says so, but that costs no training: what must be
    whole fails by itself."""

    def handleError(self, record: logging.LogRecord) -> None:
        print(
            f"warning: {self.baseFilename} misses a line ({sys.exc_info()[1]}):"
            f" {record.getMessage()}",
            file=sys.stderr,
        )

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            print(f"warning: {self.baseFilename} misses its end ({error})", file=sys.stderr)


def run_jobs(
    jobs: list[TrainingJob],
    config: TrainingConfig,
    artifact_root: str | Path,
    skipped: list[dict],
    dry_run: bool = False,
) -> list[dict]:
    """Run jobs in order and return their rows. `training_manifest.json`, which keeps the rows of
    earlier commands for other jobs, and `skip_summary.json` are written after each job."""
    root, rows, objective = Path(artifact_root), [], config.model.objective
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {job.name}", file=sys.stderr)
        started = time.perf_counter()
        try:
            result = run_training_job(job, config=config, dry_run=dry_run)
        except Exception as error:  # one job's failure, whatever it is, must not cost the others
            result = {
                "status": "failed",
                "error": f"{type(error).__name__}: {error}",
                "log": str(job.log_path),
            }
            print(f"error: {job.name}: {error}", file=sys.stderr)
        rows.append(
            {
                "dose": job.dose,
                "view": job.view,
                "gridsize": job.gridsize,
                "objective": objective,
                "seconds": round(time.perf_counter() - started, 2),
                **result,
            }
        )
        if not dry_run:
            record_rows(
                root / MANIFEST, "E", rows, ("dose", "view", "gridsize", "objective"), skipped
            )
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fly64lib.training", description=__doc__.split("\n")[0]
    )
    for name, text in (
        ("--phase-c-root", "phase C's folder"),
        ("--phase-d-root", "phase D's folder"),
        ("--artifact-root", "where the jobs' folders go"),
    ):
        add_option(parser, name, required=True, type=Path, help=text)
    parser.add_argument(
        "--dose", type=float, action="append", help="only this dose; may be repeated"
    )
    parser.add_argument(
        "--view",
        choices=tuple(VIEW_GRIDSIZE),
        action="append",
        help="only this view; may be repeated",
    )
    parser.add_argument("--gridsize", type=int, choices=(1, 2), help="only jobs of this gridsize")
    parser.add_argument(
        "--objective", choices=("poisson", "supervised", "procedural"), default="poisson"
    )
    parser.add_argument("--context", choices=("view", "group"), default="view")
    add_option(
        parser,
        "--canvas-passes",
        type=int,
        nargs="+",
        default=ModelConfig.canvas_passes,
        metavar="PASSES",
        help="the network's input: canvases after so many passes (default: 2 5; 2 10 for bright"
        " data)",
    )
    numbers = {
        "--max-epochs": int,
        "--steps": int,
        "--n-images": int,
        "--n-groups": int,
        "--batch-size": int,
        "--learning-rate": float,
        "--seed": int,
        "--threads": int,
        "--num-workers": int,
        "--devices": int,
        "--neighbor-count": int,
        "--checkpoint-steps": int,
    }
    defaults = {field.name: field.default for field in fields(TrainingConfig)}
    for name, kind in numbers.items():
        default = defaults[name[2:].replace("-", "_")]
        add_option(parser, name, type=kind, default=default, help=f"(default: {default})")
    parser.add_argument("--accelerator", choices=("cpu", "gpu", "auto"), default="cpu")
    parser.add_argument("--logger", choices=("none", "csv", "tensorboard", "mlflow"), default="csv")
    add_option(
        parser,
        "--disable-checkpointing",
        action="store_true",
        help="keep no model.ckpt; the bundle is kept",
    )
    parser.add_argument("--deterministic", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--progress", action="store_true", help="a progress bar for each job")
    add_option(parser, "--dry-run", action="store_true", help="print the plan, train nothing")
    add_option(
        parser,
        "--allow-missing-phase-d",
        action="store_true",
        help="skip views whose files are absent",
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    options = _parser().parse_args(argv)

    def command() -> int:
        knobs = {
            field.name: getattr(options, field.name)
            for field in fields(TrainingConfig)
            if hasattr(options, field.name)
        }
        config = TrainingConfig(
            model=ModelConfig(
                objective=options.objective,
                context=options.context,
                canvas_passes=tuple(options.canvas_passes),
            ),
            checkpointing=not options.disable_checkpointing,
            **knobs,
        )
        doses = tuple(options.dose) if options.dose else StudyDesign().doses
        skipped: list[dict] = []
        jobs = build_training_jobs(
            options.phase_c_root,
            options.phase_d_root,
            options.artifact_root,
            StudyDesign(doses=doses),
            objective=options.objective,
            allow_missing_phase_d=options.allow_missing_phase_d,
            skipped=skipped,
        )
        chosen = [
            job
            for job in jobs
            if (not options.view or job.view in options.view)
            and options.gridsize in (None, job.gridsize)
        ]
        if not chosen:
            print(
                "error: no job matches; there are: "
                + (", ".join(job.name for job in jobs) or "none"),
                file=sys.stderr,
            )
            return 1
        rows = run_jobs(chosen, config, options.artifact_root, skipped, options.dry_run)
        for row in rows:
            loss = f"loss {row['final_loss']:.5g}" if "final_loss" in row else row.get("error", "")
            print(
                f"{row['status']}  {dose_folder(row['dose'])} {row['view']} gs{row['gridsize']} "
                f" {loss}"
            )
        for skip in skipped:
            print(f"skipped  {dose_folder(skip['dose'])} {skip['view']}: {skip['reason']}")
        return 1 if any(row["status"] == "failed" for row in rows) else 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
