"""Our network beside the original PtychoPINN's, on the same files, for the same CPU time, under the
same judge.

    python benchmarks/upstream.py --upstream CHECKOUT --upstream-python ENV/bin/python --output RUN
    [--dose 1e5 --view dense]

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

import argparse
import json
import os
import subprocess
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from scipy.ndimage import map_coordinates

from fly64lib.design import (
    VIEW_GRIDSIZE,
    VIEWS,
    StudyDesign,
    dose_folder,
    held_out_file,
    split_file,
    view_file,
)
from fly64lib.evaluation.judgement import judge, region_of
from fly64lib.evaluation.scores import json_rows
from fly64lib.generation import generate_datasets
from fly64lib.overlap import generate_overlap_views
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.errors import PtychoError
from ptycho_torch.files import read_json, sha256_file, write_json
from ptycho_torch.inference.apply import reconstruct
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge, RawDataTorch
from ptycho_torch.versions import software_versions
from ptycho_torch.workflows import components

matplotlib.use("Agg")
GAUGES = ("known_probe", "unknown_probe")
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
# in every view: on dense at 1e5 for 60 CPU seconds groups of four came to 9.7 dB of phase, single
# patterns to 14
GRIDSIZE = 1
COLUMNS = (
    "dose",
    "view",
    "method",
    "phase_psnr",
    "phase_psnr_free",
    "amplitude_psnr",
    "amplitude_psnr_free",
    "phase_ms_ssim_free",
    "deviance_held_out",
    "training_cpu_s",
    "training_rate",
    "inference_cpu_s",
    "inference_rate",
)


def study(root: Path, replicate: int) -> tuple[Path, Path]:
    """Phases C and D of the small study under `root`, made unless they are there."""
    design = StudyDesign(scan_step=2, replicate=replicate)
    generate_datasets(root / "C", design)
    generate_overlap_views(root / "C", root / "D", root / "overlap", design, controls=False)
    return root / "C", root / "D"


def ours(
    train: RawDataTorch,
    test: RawDataTorch,
    dose: float,
    view: str,
    folder: Path,
    options: argparse.Namespace,
) -> tuple[np.ndarray, dict]:
    """Our object of `test` after training on `train`, and the costs."""
    config = TrainingConfig(
        model=ModelConfig(N=train.N, gridsize=VIEW_GRIDSIZE[view]),
        nphotons=dose,
        steps=options.steps,
        logger="none",
        checkpointing=False,
        threads=options.threads,
        output_dir=str(folder),
        seed=options.replicate,
    )
    cpu = time.process_time()
    trained = components.train_cdi_model_torch(train, None, config)
    training_cpu, costs = time.process_time() - cpu, []
    while not costs or (
        sum(costs) < 3 and len(costs) < 3
    ):  # short ones are repeated; the fastest counts
        cpu = time.process_time()
        found = reconstruct(trained["model"], test, config)
        costs.append(time.process_time() - cpu)
    shown = round(trained["patterns_per_second"] * trained["seconds"])
    return found.object.numpy(), {
        "training_cpu_seconds": training_cpu,
        "training_patterns": shown,
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
    options: argparse.Namespace,
) -> tuple[np.ndarray, dict]:
    """Their object of `test` on our canvas after `seconds` CPU seconds of training on `train`, and
    the costs."""
    sources = {str(raw.source): sha256_file(raw.source) for raw in (train, test)}
    settings = SETTINGS | {
        "gridsize": options.upstream_gridsize,
        "dose": dose,
        "seed": options.replicate,
    }
    # Read back as JSON leaves them, so that a kept job and a new one compare equal.
    job = json.loads(
        json.dumps(
            {
                "settings": settings,
                "threads": options.threads,
                "sha256": sorted(sources.values()),
                "cpu_seconds": seconds,
                "data": str(folder / "data.npz"),
            }
        )
    )
    if options.reuse_upstream:
        kept = read_json(folder / "job.json")
        differing = [key for key in ("settings", "threads", "sha256") if kept[key] != job[key]]
        if differing or not (folder / "upstream.json").is_file():
            raise PtychoError(
                f"{folder} holds no finished run of the same {', '.join(differing) or 'job'}; "
                "run once without --reuse-upstream"
            )
    else:
        arrays = {"probe": train.probe.numpy()}
        for name, raw in (("train", train), ("test", test)):
            arrays[f"{name}_counts"] = raw.counts(torch.arange(raw.n)).numpy().astype(np.float32)
            arrays[f"{name}_positions"] = raw.positions.numpy()  # (row, column), patch centres
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "upstream.json").unlink(missing_ok=True)
        np.savez(folder / "data.npz", **arrays)
        write_json(folder / "job.json", job)
        one = {
            name: str(options.threads)
            for name in (
                "OMP_NUM_THREADS",
                "MKL_NUM_THREADS",
                "OPENBLAS_NUM_THREADS",
                "TF_NUM_INTRAOP_THREADS",
                "TF_NUM_INTEROP_THREADS",
            )
        }
        with (folder / "upstream.log").open("w", encoding="utf-8") as log:
            done = subprocess.run(
                [options.upstream_python, "-W", "ignore", DRIVER, folder / "job.json"],
                stdout=log,
                stderr=log,
                env=os.environ | one | {"PYTHONPATH": str(options.upstream)},
            )
        if done.returncode:
            raise PtychoError(
                f"upstream stopped with exit code {done.returncode}; see {folder / 'upstream.log'}"
            )
        (folder / "data.npz").unlink()
    with np.load(folder / "upstream.npz", allow_pickle=False) as arrays:
        return on_canvas(arrays["canvas"], arrays["center_px"], test.scan.canvas_shape), read_json(
            folder / "upstream.json"
        )


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
    region: tuple[slice, slice],
    held_out: RawDataTorch,
    place: dict,
) -> list[dict]:
    """A row for each method and the flat object: the known probe's scores, the free gauge's as
    `*_free`, and the rates."""
    known, free = (
        {
            row["method"]: row
            for row in json_rows(
                judge(objects, test, region=region, gauge=gauge, held_out=held_out)
            )
        }
        for gauge in GAUGES
    )
    rows = []
    for name in (*objects, "flat"):
        scores = {key: value for key, value in known[name].items() if not key.endswith("_skill")}
        row = {
            **place,
            **scores,
            **{f"{key}_free": value for key, value in free[name].items() if key in scores},
        }
        if cost := costs.get(name):
            row |= {
                "training_cpu_s": cost["training_cpu_seconds"],
                "inference_cpu_s": cost["inference_cpu_seconds"],
                "training_rate": cost["training_patterns"] / cost["training_cpu_seconds"],
                "inference_rate": cost["inference_patterns"] / cost["inference_cpu_seconds"],
                "cost": cost,
            }
        rows.append(row)
    return rows


def draw(path: Path, objects: dict[str, np.ndarray], region: tuple[slice, slice]) -> None:
    """Phase (top) and amplitude of the scored region, each with the truth's grey scale; the mean
    phase is removed."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, len(objects), figsize=(5 * len(objects), 5), layout="constrained"
    )
    truth = objects["truth"][region]
    for column, (name, image) in zip(axes.T, objects.items(), strict=True):
        turned = image[region] * np.exp(-1j * np.angle((image[region] * truth.conj()).sum()))
        for axis, part in zip(column, (np.angle, np.abs), strict=True):
            axis.imshow(part(turned), cmap="gray", vmin=part(truth).min(), vmax=part(truth).max())
            axis.set_axis_off()
        column[0].set_title(name)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)


def table(rows: list[dict]) -> str:
    """The rows as text, and beneath them what goal and peer come to."""

    def cell(value: object) -> str:
        return (
            f"{value:>12.4g}"
            if isinstance(value, float)
            else f"{'' if value is None else value:>12}"
        )

    short = [
        name.replace("amplitude", "ampl")
        .replace("deviance_held_out", "deviance")
        .replace("training", "train")
        .replace("inference", "infer")
        .replace("ms_ssim_free", "msssim_f")
        .replace("_free", "_f")
        for name in COLUMNS
    ]
    lines = ["".join(f" {name:>12}" for name in short)]
    lines += ["".join(f" {cell(row.get(name))}" for name in COLUMNS) for row in rows]
    pairs = [
        (row, peer)
        for row in rows
        for peer in rows
        if row["method"] == "ours"
        and peer["method"] == "upstream"
        and (row["dose"], row["view"]) == (peer["dose"], peer["view"])
    ]
    lines.append(
        "\nours minus upstream, dB (phase, amplitude; known probe), (phase, amplitude; free gauge);"
        " ratio of the rates"
    )
    for row, peer in pairs:
        gain = [
            row[key] - peer[key]
            for key in ("phase_psnr", "amplitude_psnr", "phase_psnr_free", "amplitude_psnr_free")
        ]
        ratio = [row[key] / peer[key] for key in ("training_rate", "inference_rate")]
        lines.append(
            f"{row['dose']:>9g} {row['view']:>9}: "
            + " ".join(f"{value:+6.2f}" for value in gain)
            + f"   training x {ratio[0]:.1f}, inference x {ratio[1]:.1f}"
        )
    for key in ("phase_psnr", "phase_psnr_free", "amplitude_psnr", "amplitude_psnr_free"):
        lines.append(
            f"{key}: ours is better in {sum(row[key] > peer[key] for row, peer in pairs)} of"
            f" {len(pairs)}"
        )
    longer = sum(row["training_cpu_s"] > 1.02 * peer["training_cpu_s"] for row, peer in pairs)
    lines.append(f"ours trained for more CPU time than upstream in {longer} of {len(pairs)}")
    for key, goal in (("training", 15), ("inference", 50)):
        patterns, seconds = (
            [sum(row["cost"][f"{key}_{what}"] for row in side) for side in zip(*pairs, strict=True)]
            for what in ("patterns", "cpu_seconds")
        )
        mean = [a / b for a, b in zip(patterns, seconds, strict=True)]
        lines.append(
            f"{key}, all conditions: ours {mean[0]:.0f}, upstream {mean[1]:.1f} patterns per CPU"
            f" second: x {mean[0] / mean[1]:.1f} (goal: {goal})"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--upstream", type=Path, required=True, help="checkout of hoidn/PtychoPINN")
    parser.add_argument(
        "--upstream-python", required=True, help="Python of an environment that runs it"
    )
    parser.add_argument(
        "--output",
        type=Path,
        required=True,
        help="folder for the study, the objects and the tables",
    )
    parser.add_argument(
        "--dose", type=float, action="append", help="only this dose; may be repeated"
    )
    parser.add_argument(
        "--view", choices=VIEWS, action="append", help="only this view; may be repeated"
    )
    parser.add_argument(
        "--floor",
        type=float,
        default=60.0,
        help="CPU seconds that upstream gets at least (default: 60)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=TrainingConfig().steps,
        help="of our training (default: %(default)s)",
    )
    parser.add_argument(
        "--upstream-gridsize",
        type=int,
        choices=(1, 2),
        default=GRIDSIZE,
        help="(default: %(default)s)",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--reuse-upstream", action="store_true", help="keep its objects and times, train ours alone"
    )
    which.add_argument(
        "--upstream-only",
        action="store_true",
        help="train theirs alone for --floor CPU seconds, and keep it",
    )
    parser.add_argument(
        "--name",
        default="upstream",
        help="name of the tables and of its folders (default: upstream)",
    )
    parser.add_argument(
        "--replicate", type=int, default=0, help="noise, views, both seeds; each has its own RUN"
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)
    phase_c, phase_d = study(options.output / "study", options.replicate)
    for dose in options.dose or StudyDesign().doses:
        region = region_of(PyTorchMemmapBridge(split_file(phase_c, dose, "test")).raw_data_torch)
        held_out = PyTorchMemmapBridge(held_out_file(phase_c, dose)).raw_data_torch
        for view in options.view or VIEWS:
            train, test = (
                PyTorchMemmapBridge(view_file(phase_c, phase_d, dose, view, split)).raw_data_torch
                for split in ("train", "test")
            )
            folder, load = (
                options.output / options.name / dose_folder(dose) / view,
                [os.getloadavg()[0]],
            )
            if options.upstream_only:
                cost = theirs(train, test, dose, folder, options.floor, options)[1]
                print(
                    f"{folder}: upstream, {cost['steps']} steps in"
                    f" {cost['training_cpu_seconds']:.0f} CPU s",
                    flush=True,
                )
                continue
            own, cost = ours(train, test, dose, view, folder / "ours", options)
            load.append(os.getloadavg()[0])
            peer, peer_cost = theirs(
                train, test, dose, folder, max(options.floor, cost["training_cpu_seconds"]), options
            )
            load.append(os.getloadavg()[0])
            np.savez(folder / "objects.npz", ours=own, upstream=peer)
            draw(
                folder / "objects.png",
                {"truth": test.scan.object_guess, "ours": own, "upstream": peer},
                region,
            )
            rows = rows_of(
                {"ours": own, "upstream": peer},
                {"ours": cost, "upstream": peer_cost},
                test,
                region,
                held_out,
                {"dose": dose, "view": view},
            )
            versions = {
                "ours": software_versions(),
                "upstream": peer_cost["versions"],
                "upstream_commit": commit(options),
            }
            write_json(
                folder / "rows.json",
                {
                    "settings": (
                        SETTINGS
                        | {
                            "gridsize": options.upstream_gridsize,
                            "floor_s": options.floor,
                            "seed": options.replicate,
                        }
                    ),
                    "steps": options.steps,
                    "threads": options.threads,
                    "cpus": os.cpu_count(),
                    "load_before_between_after": load,
                    "versions": versions,
                    "reused_upstream": options.reuse_upstream,
                    "rows": rows,
                },
            )
            print(table(rows), flush=True)
    if options.upstream_only:
        return 0
    # All conditions in the folder: those of other commands too, so that doses may run side by side.
    found = [
        read_json(file)
        for dose in StudyDesign().doses
        for view in VIEWS
        if (
            file := options.output / options.name / dose_folder(dose) / view / "rows.json"
        ).is_file()
    ]
    text = (
        table([row for part in found for row in part["rows"]])
        + "\n"
        + "\n".join(
            sorted(
                {
                    json.dumps(
                        {
                            key: part[key]
                            for key in (
                                "settings",
                                "steps",
                                "threads",
                                "cpus",
                                "versions",
                                "reused_upstream",
                            )
                        }
                    )
                    for part in found
                }
            )
        )
        + "\nload before, between, after: "
        + json.dumps(
            [[round(value, 1) for value in part["load_before_between_after"]] for part in found]
        )
    )
    write_json(options.output / f"{options.name}.json", found)
    (options.output / f"{options.name}.txt").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


def commit(options: argparse.Namespace) -> str:
    """The checkout's commit."""
    found = subprocess.run(
        ["git", "-C", options.upstream, "rev-parse", "HEAD"], capture_output=True, text=True
    )
    return found.stdout.strip() or "not a git checkout"


if __name__ == "__main__":
    raise SystemExit(main())
