"""Phase E: the grid's training jobs, one after another, each recorded.

    python -m fly64lib.training --phase-c-root C --phase-d-root D --artifact-root A [--dose 1000
    --view baseline ...]

A job writes `<artifact_root>/dose_1000/<view>/gs<g>/` (`train.log`, `metrics.csv`, `model.ckpt`,
`bundle.pt`); the command writes `training_manifest.json`, a row a job with every knob, and
`skip_summary.json`. A failed job is recorded with its error, the others go on, and the exit code is
1."""

import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from fly64lib.design.study import (
    SPLITS,
    GridOptions,
    StudyDesign,
    conditions,
    dose_folder,
    gridsize_of,
    part_of,
)
from fly64lib.methods.base import KNOWN_PROBE, ProbeCondition
from fly64lib.methods.by_name import method_of, network_of
from ptycho_torch import params
from ptycho_torch.commands import run_in_order, run_options
from ptycho_torch.config import SETTINGS, TrainingConfig, update_legacy_dict
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import config, flat
from ptycho_torch.files import folder_lock, storage_checked

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
    probe: ProbeCondition = KNOWN_PROBE

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
    probe: ProbeCondition = KNOWN_PROBE,
    allow_missing_phase_d: bool = False,
    skipped: list[dict] | None = None,
) -> list[TrainingJob]:
    """The design's jobs, 9 by default: baseline, dense and sparse at every dose.

    Touches nothing; missing files as in :func:`fly64lib.design.conditions`."""
    design, network = design or StudyDesign(), network_of(method_of(objective))
    grid = design.doses, ("baseline", *design.views), SPLITS
    root = Path(artifact_root)
    found = conditions(phase_c_root, phase_d_root, grid, allow_missing_phase_d, skipped)
    jobs = [
        TrainingJob(dose, view, gridsize_of(view), *files, root / network.folder(dose, view), probe)
        for dose, view, files in found
    ]
    return jobs


def run_training_job(
    job: TrainingJob,
    runner: Runner | None = None,
    *,
    config: TrainingConfig | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run one job; the legacy parameters are set once, before any data is loaded (CONFIG-001).

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
    """Train one job on its two files; its row: status, loss, counts, paths, sha256 and times."""
    from ptycho_torch.memmap_bridge import open_scan
    from ptycho_torch.workflows import components

    with _logged(log_path):
        logging.getLogger("ptycho_torch").info("%s: %s", job.name, described(config))
        truth = config.model.objective == "supervised"
        files = job.train_data_path, job.test_data_path
        data = [open_scan(file, with_truth=truth) for file in files]
        if job.probe.recovers:
            from fly64lib.methods.recovered_probe import halves_under_one_probe

            data = halves_under_one_probe(*data, job.probe, config.threads)
        trained = components.train_cdi_model_torch(*data, config)
    kept = {name: value for name, value in trained.items() if name != "model"}
    paths = {name: kept[name] and str(kept[name]) for name in ("bundle", "checkpoint")}
    return {"status": "complete", **kept, **paths, "log": str(log_path)}


def described(config: TrainingConfig) -> str:
    """The settings that are not the default ones, in a line; the bundle holds all."""
    default, own = flat(TrainingConfig().to_dict()), flat(config.to_dict())
    names = {path.rpartition(".")[2]: path for path in own if own[path] != default[path]}
    given = [f"{name} {own[path]}" for name, path in names.items() if name in SETTINGS]
    return ", ".join(given) or "the default settings"


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
    """A log that a full disk cuts short, with a warning, but that costs no training."""

    def handleError(self, record: logging.LogRecord) -> None:
        why = f"({sys.exc_info()[1]}): {record.getMessage()}"
        print(f"warning: {self.baseFilename} misses a line {why}", file=sys.stderr)

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

    def row_of(job: TrainingJob) -> dict:
        place = {"dose": job.dose, "view": job.view, "gridsize": job.gridsize}
        return place | {"objective": config.model.objective, "log": str(job.log_path)}

    run = partial(run_training_job, config=config, dry_run=dry_run)
    manifest = None if dry_run else Path(artifact_root) / MANIFEST
    about = {"phase": "E", "keys": ("dose", "view", "gridsize", "objective"), "skipped": skipped}
    return run_in_order(jobs, row_of, run, manifest, **about)


@config
class Options(ProbeCondition, GridOptions):
    """Phase E: the grid's training jobs, one after another, each recorded.

    The settings of a training and of its network are those of TrainingConfig and ModelConfig."""

    training: TrainingConfig = field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        if not self.recovers and part_of(ProbeCondition, self) != KNOWN_PROBE:
            text = "probe_modes and probe_defocus_rad are of a probe that is sought: add"
            raise ConfigError(f"{text} --probe recovered")


def command(options: Options) -> int:
    """Run the jobs that the options choose; exit code 1 where one fails or none is chosen."""
    skipped: list[dict] = []
    roots = options.phase_c_root, options.phase_d_root, options.artifact_root
    overlap_views = [view for view in options.views if view != "baseline"]
    jobs = build_training_jobs(
        *roots,
        StudyDesign(doses=options.doses, views=overlap_views or StudyDesign().views),
        objective=options.training.model.objective,
        probe=part_of(ProbeCondition, options),
        allow_missing_phase_d=options.allow_missing_phase_d,
        skipped=skipped,
    )
    chosen = [job for job in jobs if job.view in options.chosen_views]
    if not chosen:
        there = ", ".join(job.name for job in jobs) or "none"
        print(f"error: no job matches; there are: {there}", file=sys.stderr)
        return 1
    if options.dry_run:
        print("settings:", described(options.training))
    rows = run_jobs(chosen, options.training, options.artifact_root, skipped, options.dry_run)
    for job, row in zip(chosen, rows, strict=True):
        loss = f"loss {row['final_loss']:.5g}" if "final_loss" in row else row.get("error", "")
        print(f"{row['status']}  {job.name.replace('/', ' ')}  {loss}")
    for skip in skipped:
        print(f"skipped  {dose_folder(skip['dose'])} {skip['view']}: {skip['reason']}")
    return int(any(row["status"] == "failed" for row in rows))


def main(argv: list[str] | None = None, prog: str = "python -m fly64lib.training") -> int:
    known = {"--disable-checkpointing": "--no-checkpointing"}  # the name that it had upstream
    given = sys.argv[1:] if argv is None else argv
    given = [known.get(text.replace("_", "-"), text) for text in given]
    return run_options(Options, command, given, prog)


if __name__ == "__main__":
    raise SystemExit(main())
