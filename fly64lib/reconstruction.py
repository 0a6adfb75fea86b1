"""Phase F: reconstructions of the grid's test views by any method, each recorded.

    python -m fly64lib.reconstruction --phase-c-root C --phase-d-root D --artifact-root A
        --method lsqml --num-epochs 60

A job writes `<artifact_root>/dose_1000/<view>/<method>/object.npz` and, last, `result.json`; the
command writes `reconstruction_manifest.json` and `skip_summary.json`. The learned methods need
phase E's folder (`--training-root`)."""

import sys
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fly64lib.design.registries import METHODS
from fly64lib.design.study import GridOptions, StudyDesign, conditions, dose_folder, part_of
from fly64lib.methods.base import Cost, Method, ProbeCondition, Scan, attribute, measured
from ptycho_torch.commands import command_line, run_in_order
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.fields import Positive, Settings, Threads, config, field_names
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


_OF_PROBE = set(field_names(ProbeCondition))


@config
class MethodSettings(ProbeCondition):
    """Settings of methods: of each by its name, and short names for those of several.

    A short name reaches every method that has such a setting; None leaves the method's own value.
    """

    # of a method, such as {"classical": {"weight": 30}}; goes before the short names
    settings: Settings = field(default_factory=dict)
    num_epochs: Positive | None = None  # `epochs` of pty-chi's methods
    noise_model: Literal["poisson", "gaussian"] | None = None  # of LSQML
    steps: Positive | None = None  # of classical
    # "known": the file's is kept; "refine": by methods that do it themselves; "recovered": from the
    # patterns before any method, from the file's without its light beside the detector
    probe: Literal["known", "refine", "recovered"] = "known"
    threads: Threads = 1
    progress: bool = False  # bars on stderr
    training_root: str | None = None  # phase E's folder, for the learned methods

    def __post_init__(self) -> None:
        for name in self.settings:
            METHODS.check(name)
            needs_bundle = {"bundle": Path()} if attribute(METHODS[name], "network") else {}
            METHODS[name](**needs_bundle | self._values(name))  # what it refuses is refused here

    def method(self, job: ReconstructionJob) -> Method:
        """The method of a job with these settings. Raises ConfigError for what it cannot do."""
        chosen = METHODS[job.method]
        known = {one.name for one in fields(chosen)}
        known |= _OF_PROBE if self.recovers else set()
        for name, usual in (("probe", "known"), ("probe_modes", 1), ("probe_defocus_rad", 0.0)):
            if getattr(self, name) != usual and name not in known:
                able = [one for one in METHODS if name in {f.name for f in fields(METHODS[one])}]
                text = f"{name}={getattr(self, name)!r} is for {', '.join(able)}"
                raise ConfigError(f"{text}; {job.method} takes the file's probe as it is")
        values = self._values(job.method)
        if (network := attribute(chosen, "network")) and "bundle" not in values:
            values["bundle"] = self._bundle(job, network)
        return chosen(**values)

    def _values(self, method: str) -> dict[str, Any]:
        """What a method of this name is given, but for the bundle of its network."""
        short = {"epochs": self.num_epochs} | {f.name: getattr(self, f.name) for f in fields(self)}
        known = {one.name for one in fields(METHODS[method])} & short.keys()
        known -= _OF_PROBE if self.recovers else set()
        values = {name: short[name] for name in known if short[name] is not None}
        return values | self.settings.get(method, {})

    def _bundle(self, job: ReconstructionJob, network: Any) -> Path:
        if self.training_root is None:
            raise ConfigError(f"{job.method} needs the folder of its training: --training-root")
        bundle = Path(self.training_root) / network.folder(job.dose, job.view) / "bundle.pt"
        if not bundle.is_file():
            how = f"run python -m fly64lib.training --objective {network.objective} first"
            raise DataContractError(f"{bundle}: no such bundle; {how}")
        return bundle


def build_reconstruction_jobs(
    phase_c_root: str | Path,
    phase_d_root: str | Path,
    artifact_root: str | Path,
    *,
    methods: tuple[str, ...],
    doses: tuple[float, ...] | None = None,
    views: tuple[str, ...] = ("baseline", *StudyDesign().views),
    split: str = "test",
    allow_missing_phase_d: bool = False,
    skipped: list[dict] | None = None,
) -> list[ReconstructionJob]:
    """The jobs of dose x view x method; touches nothing. Missing files as in phase E."""
    for method in methods:
        METHODS.check(method)
    grid = doses or StudyDesign().doses, views, (split,)
    root = Path(artifact_root)
    found = conditions(phase_c_root, phase_d_root, grid, allow_missing_phase_d, skipped)
    return [
        ReconstructionJob(dose, view, split, method, file, root / dose_folder(dose) / view / method)
        for dose, view, (file,) in found
        for method in methods
    ]


class LastScan:
    """The file that was opened last, for the jobs on it that follow each other: what one method
    made of the scan serves the next."""

    def __init__(self) -> None:
        self._opened: tuple[Path, Scan, Scan] | None = None
        self._recovered: tuple[Scan, tuple, Scan, Cost] | None = None

    def of(self, path: Path, *, whole: bool) -> Scan:
        """The scan of a file, `whole` or without its truth."""
        from ptycho_torch.memmap_bridge import open_scan

        if self._opened is None or self._opened[0] != path:
            scan = open_scan(path)
            self._opened = path, scan, scan.without_truth()
        return self._opened[1 if whole else 2]

    def recovered(
        self, path: Path, settings: MethodSettings, bundle: Path | None = None
    ) -> tuple[Scan, Cost]:
        """The scan of a file, without its truth, under the probe that its patterns tell, and what
        that took; found once. With a network's `bundle`: under that of its training."""
        from fly64lib.methods.recovered_probe import probe_of_training, under_recovered_probe

        blind = self.of(path, whole=False)
        if bundle:
            return blind.under(probe_of_training(bundle, part_of(ProbeCondition, settings))), Cost()
        how = part_of(ProbeCondition, settings), settings.threads
        if self._recovered is None or self._recovered[0] is not blind or self._recovered[1] != how:
            with measured() as cost:
                scan = under_recovered_probe(blind, *how)
            self._recovered = blind, how, scan, cost
            return scan, cost
        *_, scan, cost = self._recovered
        return scan, replace(cost, spared_cpu_seconds=cost.cpu_seconds)


def run_reconstruction_job(
    job: ReconstructionJob, settings: MethodSettings, last: LastScan | None = None
) -> dict:
    """Reconstruct one view by one method, write object and result, and return the result's row.

    The method gets the scan without its truth; a reference such as `truth` gets it whole. Jobs on
    one file are run sooner with the `last` scan kept between them."""
    method, last = settings.method(job), last or LastScan()
    with folder_lock(job.artifact_dir):
        whole = attribute(type(method), "sees_truth")
        if settings.recovers and not whole:
            bundle = method.bundle if attribute(type(method), "network") else None
            scan, before = last.recovered(job.dataset, settings, bundle)
            found = method.reconstruct(scan)
            probe = found.probe if found.probe is not None else scan.probe.numpy()
            stated = {name: getattr(settings, name) for name in sorted(_OF_PROBE)}
            cost = before.and_then(found.cost)
            found = replace(found, probe=probe, settings=found.settings | stated, cost=cost)
        else:
            found = method.reconstruct(last.of(job.dataset, whole=whole))
        path = job.artifact_dir / "object.npz"
        names = ("object", "probe", "positions", "brightness", "background")
        arrays = {name: value for name in names if (value := getattr(found, name)) is not None}
        with atomic_path(path) as temporary:
            np.savez(temporary, **arrays)
        row = {key: getattr(job, key) for key in ("dose", "view", "split", "method")} | {
            "status": "complete",
            "dataset": str(job.dataset),
            "dataset_sha256": sha256_file(job.dataset),
            "object": str(path),
            "object_sha256": sha256_file(path),
            "settings": found.settings,
            "note": found.note,
            **asdict(found.cost),
            "trace": found.trace,
            "versions": software_versions(),
        }
        write_json(job.artifact_dir / "result.json", row)
        return row


def load_with_probe(folder: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The object that phase F wrote into `folder`, and the probe beside it, None where that is the
    file's. Refused unless result.json vouches for them."""
    row = read_json(Path(folder) / "result.json")
    path = Path(folder) / "object.npz"
    if not path.is_file() or sha256_file(path) != row["object_sha256"]:
        raise DataContractError(f"{path} is not what its result.json says; reconstruct it again")
    with np.load(path, allow_pickle=False) as arrays:
        return arrays["object"], arrays["probe"] if "probe" in arrays else None


def load_object(folder: str | Path) -> np.ndarray:
    """The object that phase F wrote into `folder`, on the same terms."""
    return load_with_probe(folder)[0]


@config
class Options(GridOptions):
    """Phase F: reconstructions of the grid's test views by any method, each recorded.

    A scan of your own needs no phase: fly64 reconstruct --bundle BUNDLE.pt --data SCAN.npz."""

    methods: tuple[METHODS.names, ...]  # --method may be repeated
    split: Literal["train", "test"] = "test"
    how: MethodSettings = field(default_factory=lambda: MethodSettings(progress=True))


@command_line("python -m fly64lib.reconstruction")
def main(options: Options) -> int:
    """Run the jobs that the options choose; exit code 1 where one fails or none is chosen."""
    skipped: list[dict] = []
    roots = options.phase_c_root, options.phase_d_root, options.artifact_root
    jobs = build_reconstruction_jobs(
        *roots,
        methods=options.methods,
        doses=options.doses,
        views=options.chosen_views,
        split=options.split,
        allow_missing_phase_d=options.allow_missing_phase_d,
        skipped=skipped,
    )
    if not jobs:
        print("error: no job matches these filters", file=sys.stderr)
        return 1
    manifest = None if options.dry_run else options.artifact_root / "reconstruction_manifest.json"
    keys = ("dose", "view", "method")
    last = LastScan()
    about = {"phase": "F", "keys": keys, "skipped": skipped, "settings": asdict(options.how)}

    def run(job: ReconstructionJob) -> dict:
        if options.dry_run:
            return {"status": "planned"}
        row = run_reconstruction_job(job, options.how, last)
        return {key: value for key, value in row.items() if key != "trace"}

    def row_of(job: ReconstructionJob) -> dict:
        return {key: getattr(job, key) for key in keys}

    rows = run_in_order(jobs, row_of, run, manifest, **about)
    for row in rows:
        place = f"{dose_folder(row['dose'])} {row['view']} {row['method']}"
        print(f"{row['status']}  {place}  {row.get('error', '')}")
    return int(any(row["status"] == "failed" for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
