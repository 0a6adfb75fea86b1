"""Phase F: reconstructions of the grid's test views by any method, each recorded.

    python -m fly64lib.reconstruction --phase-c-root C --phase-d-root D --artifact-root A --method
    lsqml --num-epochs 60

A job writes `<artifact_root>/dose_1000/<view>/<method>/object.npz` and, last, `result.json`; the
command writes `reconstruction_manifest.json` and `skip_summary.json`. The learned methods need
phase E's folder (`--training-root`)."""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fly64lib.design import CONTROL_VIEWS, VIEW_GRIDSIZE, VIEWS, StudyDesign, dose_folder, view_file
from fly64lib.methods.base import Method, MethodResult
from fly64lib.methods.classical import Classical
from fly64lib.methods.learned import Learned
from fly64lib.methods.ptychi import LSQML
from fly64lib.methods.reference import Flat, Truth
from fly64lib.methods.registry import ITERATIVE, METHOD_NAMES, network_of
from ptycho_torch.commands import add_option, record_rows, run_command
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.fields import check_range
from ptycho_torch.files import atomic_path, folder_lock, read_json, sha256_file, write_json
from ptycho_torch.versions import software_versions


@dataclass(frozen=True)
class ReconstructionJob:
    """One method on one view of one dose."""

    dose: float
    view: str
    split: str
    method: str
    dataset: Path
    artifact_dir: Path

    @property
    def name(self) -> str:
        return f"{dose_folder(self.dose)}/{self.view}/{self.method}"


@dataclass(frozen=True, kw_only=True)
class MethodSettings:
    """What the command line and the notebook choose for the methods."""

    num_epochs: int = 60  # LSQML, rPIE, DM
    noise_model: str = "poisson"  # LSQML
    steps: int = 80  # classical
    probe: str = "known"  # or "refine"
    probe_modes: int = 1  # classical: incoherent modes of a refined probe, at least
    probe_defocus_rad: float = 0.0  # error put on the starting probe
    threads: int = 1
    progress: bool = False
    training_root: str | None = None  # phase E's folder, for the learned methods

    def __post_init__(self) -> None:
        for name in ("num_epochs", "steps", "threads"):
            check_range(name, getattr(self, name), 1)

    def method(self, job: ReconstructionJob) -> Method:
        """The method of a job with these settings. Raises ConfigError for what it cannot do."""
        if self.probe_modes > 1 and job.method != "classical":
            raise ConfigError(
                f"probe_modes={self.probe_modes} is for classical; {job.method} keeps the modes of"
                " the file"
            )
        common = {
            "probe": self.probe,
            "probe_defocus_rad": self.probe_defocus_rad,
            "threads": self.threads,
        }
        if job.method in ITERATIVE:
            return LSQML(
                method=job.method,
                noise_model=self.noise_model,
                epochs=self.num_epochs,
                progress=self.progress,
                **common,
            )
        if job.method == "classical":
            return Classical(steps=self.steps, probe_modes=self.probe_modes, **common)
        if self.probe != "known":
            raise ConfigError(
                f"{job.method} takes the probe as known; probe={self.probe!r} is for "
                f"{', '.join((*ITERATIVE, 'classical'))}"
            )
        if job.method in ("flat", "truth"):
            return Flat() if job.method == "flat" else Truth()
        if self.training_root is None:
            raise ConfigError(f"{job.method} needs the folder of its training: --training-root")
        network = network_of(job.method)
        bundle = Path(self.training_root) / network.folder(job.dose, job.view) / "bundle.pt"
        if not bundle.is_file():
            raise DataContractError(
                f"{bundle}: no such bundle; run python -m fly64lib.training "
                f"--objective {network.objective} first"
            )
        return Learned(bundle=bundle, refined=job.method.endswith("+refine"), threads=self.threads)


def build_reconstruction_jobs(
    phase_c_root: str | Path,
    phase_d_root: str | Path,
    artifact_root: str | Path,
    *,
    methods: tuple[str, ...],
    doses: tuple[float, ...] | None = None,
    views: tuple[str, ...] = VIEWS,
    split: str = "test",
    allow_missing_phase_d: bool = False,
    skipped: list[dict] | None = None,
) -> list[ReconstructionJob]:
    """The jobs of dose x view x method; touches nothing. Missing files as in phase E."""
    jobs = []
    for dose in doses or StudyDesign().doses:
        for view in views:
            dataset = view_file(phase_c_root, phase_d_root, dose, view, split)
            if not dataset.is_file():
                if view == "baseline" or not allow_missing_phase_d:
                    phase = "fly64lib.generation" if view == "baseline" else "fly64lib.overlap"
                    raise DataContractError(f"{dataset}: no such file; run python -m {phase} first")
                if skipped is not None:
                    skipped.append({"dose": dose, "view": view, "reason": f"no file {dataset}"})
                continue
            jobs += [
                ReconstructionJob(
                    dose,
                    view,
                    split,
                    method,
                    dataset,
                    Path(artifact_root) / dose_folder(dose) / view / method,
                )
                for method in methods
            ]
    return jobs


def run_reconstruction_job(job: ReconstructionJob, settings: MethodSettings) -> dict:
    """Reconstruct one view by one method, write object and result, and return the result's row."""
    method = settings.method(job)
    with folder_lock(job.artifact_dir):
        found = method.reconstruct(job.dataset)
        return _written(job, found)


def load_object(folder: str | Path) -> np.ndarray:
    """The object that phase F wrote into `folder`; refused unless its result.json vouches for the
    file."""
    row = read_json(Path(folder) / "result.json")
    path = Path(folder) / "object.npz"
    if not path.is_file() or sha256_file(path) != row["object_sha256"]:
        raise DataContractError(f"{path} is not what its result.json says; reconstruct it again")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["object"]


def _written(job: ReconstructionJob, found: MethodResult) -> dict:
    path = job.artifact_dir / "object.npz"
    arrays = {"object": found.object} | ({} if found.probe is None else {"probe": found.probe})
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)
    row = {
        "dose": job.dose,
        "view": job.view,
        "split": job.split,
        "method": job.method,
        "status": "complete",
        "dataset": str(job.dataset),
        "dataset_sha256": sha256_file(job.dataset),
        "object": str(path),
        "object_sha256": sha256_file(path),
        "settings": found.settings,
        "note": found.note,
        "seconds": found.seconds,
        "cpu_seconds": found.cpu_seconds,
        "peak_memory_mb": found.peak_memory_mb,
        "trace": found.trace,
        "versions": software_versions(),
    }
    write_json(job.artifact_dir / "result.json", row)
    return row


def run_jobs(
    jobs: list[ReconstructionJob],
    settings: MethodSettings,
    artifact_root: str | Path,
    skipped: list[dict],
    dry_run: bool = False,
) -> list[dict]:
    """Run jobs in order and return their rows; a failed one is recorded and the others go on. The
    manifest keeps the rows of earlier commands for other jobs."""
    rows: list[dict] = []
    manifest = Path(artifact_root) / "reconstruction_manifest.json"
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {job.name}", file=sys.stderr)
        if dry_run:
            rows.append(
                {"dose": job.dose, "view": job.view, "method": job.method, "status": "planned"}
            )
            continue
        try:
            row = run_reconstruction_job(job, settings)
        except Exception as error:  # one job's failure, whatever it is, must not cost the others
            row = {
                "dose": job.dose,
                "view": job.view,
                "method": job.method,
                "status": "failed",
                "error": f"{type(error).__name__}: {error}",
            }
            print(f"error: {job.name}: {error}", file=sys.stderr)
        rows.append({key: value for key, value in row.items() if key != "trace"})
        record_rows(
            manifest, "F", rows, ("dose", "view", "method"), skipped, settings=asdict(settings)
        )
    return rows


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fly64lib.reconstruction",
        description=__doc__.split("\n")[0],
        epilog="A trained model on one file: fly64 reconstruct --bundle BUNDLE --data NPZ.",
    )
    for name, text in (
        ("--phase-c-root", "phase C's folder"),
        ("--phase-d-root", "phase D's folder"),
        ("--artifact-root", "where objects and results go"),
    ):
        add_option(parser, name, required=True, type=Path, help=text)
    parser.add_argument(
        "--method", action="append", choices=METHOD_NAMES, required=True, help="may be repeated"
    )
    parser.add_argument(
        "--dose", type=float, action="append", help="only this dose; may be repeated"
    )
    parser.add_argument(
        "--view",
        action="append",
        choices=(*VIEWS, *CONTROL_VIEWS),
        help="only this view; may be repeated",
    )
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--gridsize", type=int, choices=(1, 2), help="only views of this gridsize")
    default = MethodSettings()
    add_option(
        parser,
        "--num-epochs",
        type=int,
        default=default.num_epochs,
        help="LSQML, rPIE, DM (default: %(default)s)",
    )
    add_option(
        parser, "--noise-model", choices=("poisson", "gaussian"), default=default.noise_model
    )
    parser.add_argument(
        "--steps", type=int, default=default.steps, help="classical (default: %(default)s)"
    )
    parser.add_argument("--probe", choices=("known", "refine"), default=default.probe)
    add_option(
        parser,
        "--probe-modes",
        type=int,
        default=default.probe_modes,
        help="classical: of a refined probe, at least",
    )
    add_option(
        parser,
        "--probe-defocus-rad",
        type=float,
        default=0.0,
        help="error put on the starting probe",
    )
    parser.add_argument("--threads", type=int, default=1)
    add_option(parser, "--training-root", help="phase E's folder, for pinn and supervised")
    add_option(parser, "--dry-run", action="store_true", help="print the plan, reconstruct nothing")
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
        settings = MethodSettings(
            num_epochs=options.num_epochs,
            noise_model=options.noise_model,
            steps=options.steps,
            probe=options.probe,
            probe_modes=options.probe_modes,
            probe_defocus_rad=options.probe_defocus_rad,
            threads=options.threads,
            progress=True,
            training_root=options.training_root,
        )
        skipped: list[dict] = []
        views = tuple(
            view
            for view in options.view or VIEWS
            if options.gridsize in (None, VIEW_GRIDSIZE.get(view, 1))
        )
        jobs = build_reconstruction_jobs(
            options.phase_c_root,
            options.phase_d_root,
            options.artifact_root,
            methods=tuple(options.method),
            doses=tuple(options.dose) if options.dose else None,
            views=views,
            split=options.split,
            allow_missing_phase_d=options.allow_missing_phase_d,
            skipped=skipped,
        )
        if not jobs:
            print("error: no job matches these filters", file=sys.stderr)
            return 1
        rows = run_jobs(jobs, settings, options.artifact_root, skipped, options.dry_run)
        for row in rows:
            print(
                f"{row['status']}  {dose_folder(row['dose'])} {row['view']} {row['method']} "
                f" {row.get('error', '')}"
            )
        return 1 if any(row["status"] == "failed" for row in rows) else 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
