"""Our network beside the original PtychoPINN's, on the same files, for the same CPU time, under the
same judge.

    python benchmarks/upstream.py --upstream CHECKOUT --upstream-python ENV/bin/python --output RUN
    [--doses 1e5 --views dense]

CHECKOUT is your own copy of hoidn/PtychoPINN and ENV an environment that runs its PyTorch path
(torch, lightning, tensordict and, for its imports, tensorflow). It runs as a separate program
(`upstream_driver.py`) through its public Python interface; nothing of it is part of this project.

For each dose and view of a small study (made under RUN/study where absent: every second row and
sample, at most 1,000 positions a view): our training and reconstruction of the other half, CPU time
measured; then theirs, trained for as long, or for `--floor` CPU seconds where ours took less. Both
objects are judged in the gauge of the known probe (a global phase) and in the generous one (also
phase ramp, shift and scale). The flat object stands beside them: a network that collapsed to it
shows there. Their objects and times are kept in RUN; `--reuse-upstream` trains ours alone again.

Rates are patterns per CPU second, of all threads: in training, patterns that went through a loss,
everything between the opened file and the trained network included; in inference, patterns of the
view over opened file to object."""

import json
import os
import subprocess
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from common import PLAIN, SmallStudy, main, table
from scipy.ndimage import map_coordinates

from fly64lib.design.study import StudyDesign, dose_folder, gridsize_of
from fly64lib.evaluation.judgement import judge
from fly64lib.evaluation.scores import json_rows
from fly64lib.plots import figures
from ptycho_torch.config import ModelConfig
from ptycho_torch.errors import ConfigError, PtychoError
from ptycho_torch.fields import SEVERAL, Positive, Threads, Whole, config
from ptycho_torch.files import read_json, sha256_file, write_json
from ptycho_torch.inference.apply import reconstruct
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.versions import software_versions
from ptycho_torch.workflows import components

GAUGES = ("known_probe", "unknown_probe")
VIEWS = ("baseline", "dense", "sparse")
DOSES = (1e3, 1e4, 1e5)
DRIVER = Path(__file__).with_name("upstream_driver.py")
# Theirs at its best, as far as tried: photon counts and the calibrated probe as they are ("CI"
# profile), no attention in the encoder, Glorot start and learning rate halved on a plateau (its own
# remedy against the flat object), its defaults otherwise.
SETTINGS = {
    "attention": False,
    "start": "tf_glorot",
    "scheduler": "ReduceLROnPlateau",
    "batch_size": 16,
    "learning_rate": 1e-3,
    "merge": "central_mask",
    "inference_batch": 64,
    "seed": 0,
}
THREADS = ("OMP_NUM", "MKL_NUM", "OPENBLAS_NUM", "TF_NUM_INTRAOP", "TF_NUM_INTEROP")
SCORES = ("phase_psnr", "phase_psnr_free", "amplitude_psnr", "amplitude_psnr_free")
COSTS = ("training_cpu_s", "training_rate", "inference_cpu_s", "inference_rate")
COLUMNS = ("dose", "view", "method", *SCORES, "phase_ms_ssim_free", "deviance_held_out", *COSTS)


@config
class UpstreamOptions:
    """Our network beside the original PtychoPINN's, for the same CPU time."""

    upstream: Path  # checkout of hoidn/PtychoPINN
    upstream_python: str  # Python of an environment that runs it
    output: Path  # folder for the study, the objects and the tables
    doses: tuple[float, ...] = DOSES  # only these
    views: Annotated[tuple[Literal[*VIEWS], ...], SEVERAL] = VIEWS  # only these
    floor: float = 60.0  # CPU seconds that upstream gets at least
    steps: Positive = PLAIN.steps  # of our training
    # of theirs, in every view: on dense at 1e5 for 60 CPU seconds groups of four reached 9.7 dB of
    # phase, single patterns 14
    upstream_gridsize: Literal[1, 2] = 1
    reuse_upstream: bool = False  # keep its objects and times, train ours alone
    upstream_only: bool = False  # train theirs alone for --floor CPU seconds, and keep it
    name: str = "upstream"  # of the tables and of its folders
    replicate: Whole = 0  # noise, views, both seeds; each has its own output folder
    threads: Threads = 1

    def __post_init__(self) -> None:
        if self.reuse_upstream and self.upstream_only:
            raise ConfigError("reuse_upstream and upstream_only leave nothing to run; choose one")

    @property
    def commit(self) -> str:
        """The checkout's commit."""
        command = ["git", "-C", self.upstream, "rev-parse", "HEAD"]
        found = subprocess.run(command, capture_output=True, text=True)
        return found.stdout.strip() or "not a git checkout"

    def folder(self, dose: float, view: str) -> Path:
        return self.output / self.name / dose_folder(dose) / view


def ours(
    train: RawDataTorch, test: RawDataTorch, dose: float, view: str, options: UpstreamOptions
) -> tuple[np.ndarray, dict]:
    """Our object of `test` after training on `train`, and the costs."""
    settings = replace(
        PLAIN,
        model=ModelConfig(N=train.N, gridsize=gridsize_of(view)),
        nphotons=dose,
        steps=options.steps,
        threads=options.threads,
        seed=options.replicate,
        output_dir=str(options.folder(dose, view) / "ours"),
    )
    cpu = time.process_time()
    trained = components.train_cdi_model_torch(train, None, settings)
    training_cpu, costs = time.process_time() - cpu, []
    while not costs or (sum(costs) < 3 and len(costs) < 3):  # of short ones the fastest counts
        cpu = time.process_time()
        found = reconstruct(trained["model"], test, settings)
        costs.append(time.process_time() - cpu)
    return found.object.numpy(), {
        "training_cpu_seconds": training_cpu,
        "training_patterns": round(trained["patterns_per_second"] * trained["seconds"]),
        "epochs": trained["epochs"],
        "inference_cpu_seconds": min(costs),
        "inference_patterns": len(found.images),
        "parameters": sum(p.numel() for p in trained["model"].parameters()),
    }


def theirs(
    train: RawDataTorch,
    test: RawDataTorch,
    dose: float,
    folder: Path,
    seconds: float,
    options: UpstreamOptions,
) -> tuple[np.ndarray, dict]:
    """Their object of `test` on our canvas after `seconds` CPU seconds of training on `train`, and
    the costs."""
    own = {"gridsize": options.upstream_gridsize, "dose": dose, "seed": options.replicate}
    job = {
        "settings": SETTINGS | own,
        "threads": options.threads,
        "sha256": sorted(sha256_file(raw.source) for raw in (train, test)),
        "cpu_seconds": seconds,
        "data": str(folder / "data.npz"),
    }
    if options.reuse_upstream:
        check_kept(folder, job)
    else:
        run_theirs(train, test, folder, job, options)
    with np.load(folder / "upstream.npz", allow_pickle=False) as arrays:
        found = on_canvas(arrays["canvas"], arrays["center_px"], test.scan.canvas_shape)
    return found, read_json(folder / "upstream.json")


def check_kept(folder: Path, job: dict) -> None:
    """Refuse a kept run of other settings or data."""
    kept, job = read_json(folder / "job.json"), json.loads(json.dumps(job))
    differing = [key for key in ("settings", "threads", "sha256") if kept[key] != job[key]]
    if differing or not (folder / "upstream.json").is_file():
        raise PtychoError(
            f"{folder} holds no finished run of the same {', '.join(differing) or 'job'}; "
            "run once without --reuse-upstream"
        )


def run_theirs(
    train: RawDataTorch, test: RawDataTorch, folder: Path, job: dict, options: UpstreamOptions
) -> None:
    """Start the driver in their environment and wait for it."""
    arrays = {"probe": train.probe.numpy()}
    for name, raw in (("train", train), ("test", test)):
        arrays[f"{name}_counts"] = raw.counts(torch.arange(raw.n)).numpy().astype(np.float32)
        arrays[f"{name}_positions"] = raw.positions.numpy()  # (row, column), patch centres
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "upstream.json").unlink(missing_ok=True)
    np.savez(folder / "data.npz", **arrays)
    write_json(folder / "job.json", job)
    threads = {f"{name}_THREADS": str(options.threads) for name in THREADS}
    command = [options.upstream_python, "-W", "ignore", DRIVER, folder / "job.json"]
    environment = os.environ | threads | {"PYTHONPATH": str(options.upstream)}
    with (folder / "upstream.log").open("w", encoding="utf-8") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=environment)
    if done.returncode:
        raise PtychoError(
            f"upstream stopped with exit code {done.returncode}; see {folder / 'upstream.log'}"
        )
    (folder / "data.npz").unlink()


def on_canvas(canvas: np.ndarray, center_px: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Their canvas on ours: its pixel size // 2 lies at `center_px` (row, column) of the object, by
    cubic splines.

    What none of their patches reached is 0 there and becomes 1, the flat object.
    """
    filled = np.where(canvas == 0, 1, canvas)
    rows, columns = (
        np.arange(size) - middle + have // 2
        for size, middle, have in zip(shape, center_px, canvas.shape, strict=True)
    )
    at = np.meshgrid(rows, columns, indexing="ij")
    parts = [
        map_coordinates(part, at, order=3, mode="constant", cval=empty)
        for part, empty in ((filled.real, 1.0), (filled.imag, 0.0))
    ]
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def rows_of(
    objects: dict[str, np.ndarray],
    costs: dict[str, dict],
    test: RawDataTorch,
    place: dict[str, Any],
    **judged: Any,
) -> list[dict]:
    """A row for each method and the flat object: the known probe's scores, the free gauge's as
    `*_free`, and the rates."""
    known, free = (
        {row["method"]: row for row in json_rows(judge(objects, test, gauge=gauge, **judged))}
        for gauge in GAUGES
    )
    rows = []
    for name in (*objects, "flat"):
        scores = {key: value for key, value in known[name].items() if not key.endswith("_skill")}
        of_free = {f"{key}_free": value for key, value in free[name].items() if key in scores}
        row = {**place, **scores, **of_free}
        if cost := costs.get(name):
            for what in ("training", "inference"):
                seconds = row[f"{what}_cpu_s"] = cost[f"{what}_cpu_seconds"]
                row[f"{what}_rate"] = cost[f"{what}_patterns"] / seconds
            row["cost"] = cost
        rows.append(row)
    return rows


def comparison(rows: list[dict]) -> str:
    """The rows as text, and beneath them what goal and peer come to."""
    lines = [table(rows, COLUMNS)]
    pairs = [
        (row, peer)
        for row, peer in product(rows, rows)
        if (row["method"], peer["method"]) == ("ours", "upstream")
        and (row["dose"], row["view"]) == (peer["dose"], peer["view"])
    ]
    lines.append(
        "\nours minus upstream, dB (phase with known probe and free gauge, amplitude likewise);"
        " ratio of the rates"
    )
    for row, peer in pairs:
        gain = " ".join(f"{row[key] - peer[key]:+6.2f}" for key in SCORES)
        ratio = [row[key] / peer[key] for key in ("training_rate", "inference_rate")]
        lines.append(
            f"{row['dose']:>9g} {row['view']:>9}: {gain}   training x {ratio[0]:.1f},"
            f" inference x {ratio[1]:.1f}"
        )
    for key in SCORES:
        better = sum(row[key] > peer[key] for row, peer in pairs)
        lines.append(f"{key}: ours is better in {better} of {len(pairs)}")
    longer = sum(row["training_cpu_s"] > 1.02 * peer["training_cpu_s"] for row, peer in pairs)
    lines.append(f"ours trained for more CPU time than upstream in {longer} of {len(pairs)}")
    for key, goal in (("training", 15), ("inference", 50)):
        sides = [
            [sum(row["cost"][f"{key}_{what}"] for row in side) for side in zip(*pairs, strict=True)]
            for what in ("patterns", "cpu_seconds")
        ]
        mean = [patterns / seconds for patterns, seconds in zip(*sides, strict=True)]
        lines.append(
            f"{key}, all conditions: ours {mean[0]:.0f}, upstream {mean[1]:.1f} patterns per CPU"
            f" second: x {mean[0] / mean[1]:.1f} (goal: {goal})"
        )
    return "\n".join(lines)


def condition(study: SmallStudy, dose: float, view: str, options: UpstreamOptions) -> None:
    """Both methods in one condition: objects, picture and `rows.json` in its folder."""
    train, test = (open_scan(study.file(dose, view, split)) for split in ("train", "test"))
    folder, region = options.folder(dose, view), study.region(dose)
    if options.upstream_only:
        cost = theirs(train, test, dose, folder, options.floor, options)[1]
        spent = f"{cost['steps']} steps in {cost['training_cpu_seconds']:.0f} CPU s"
        print(f"{folder}: upstream, {spent}", flush=True)
        return
    load = [os.getloadavg()[0]]
    own, cost = ours(train, test, dose, view, options)
    load.append(os.getloadavg()[0])
    floor = max(options.floor, cost["training_cpu_seconds"])
    peer, peer_cost = theirs(train, test, dose, folder, floor, options)
    load.append(os.getloadavg()[0])
    objects, costs = {"ours": own, "upstream": peer}, {"ours": cost, "upstream": peer_cost}
    np.savez(folder / "objects.npz", **objects)
    picture = figures.objects(objects, test.scan.object_guess, region)
    figures.saved(picture, folder / "objects.png")
    judged = {"region": region, "held_out": study.held_out(dose)}
    rows = rows_of(objects, costs, test, {"dose": dose, "view": view}, **judged)
    own_settings = {"gridsize": options.upstream_gridsize, "floor_s": options.floor}
    content = {
        "settings": SETTINGS | own_settings | {"seed": options.replicate},
        "steps": options.steps,
        "threads": options.threads,
        "cpus": os.cpu_count(),
        "load_before_between_after": load,
        "versions": {
            "ours": software_versions(),
            "upstream": peer_cost["versions"],
            "upstream_commit": options.commit,
        },
        "reused_upstream": options.reuse_upstream,
        "rows": rows,
    }
    write_json(folder / "rows.json", content)
    print(comparison(rows), flush=True)


def upstream(options: UpstreamOptions) -> int:
    """Run the conditions, then write and print the table of all that the folder holds."""
    design = StudyDesign(scan_step=2, replicate=options.replicate, controls=False)
    study = SmallStudy(options.output / "study", design)
    for dose, view in product(options.doses, options.views):
        condition(study, dose, view, options)
    if options.upstream_only:
        return 0
    # All conditions in the folder: those of other commands too, so that doses may run side by side.
    files = [options.folder(dose, view) / "rows.json" for dose, view in product(DOSES, VIEWS)]
    found = [read_json(file) for file in files if file.is_file()]
    kept = ("settings", "steps", "threads", "cpus", "versions", "reused_upstream")
    ways = sorted({json.dumps({key: part[key] for key in kept}) for part in found})
    loads = [[round(load, 1) for load in part["load_before_between_after"]] for part in found]
    text = "\n".join(
        [
            comparison([row for part in found for row in part["rows"]]),
            *ways,
            f"load before, between, after: {json.dumps(loads)}",
        ]
    )
    write_json(options.output / f"{options.name}.json", found)
    (options.output / f"{options.name}.txt").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    main(UpstreamOptions, upstream)
