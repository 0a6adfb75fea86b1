"""How much of the networks' gain survives a finer world, a wrong probe and another specimen; do
their error bars cover the truth?

    python benchmarks/survival.py --output runs/survival [--dose 1000 10000 --seeds 3]

The twin at every second row and sample, dense view, unseen half. Worlds: matched (the
reconstruction's own grid), fine (a grid twice as fine), fine with a probe 5 % wrong, fine with dead
leaves for the star (networks trained on the star of the other half would know nothing of it: pinn
is trained on that specimen's own other half). The gain of a method is its phase PSNR over the
classical row's, dB; both are told.

Error bars: an ensemble of `--seeds` pinn networks, which differ in weights, order and splits of the
photons. Told is the share of the region's pixels whose true phase lies within two standard
deviations of the ensemble's mean, the global phase removed: 95 % for honest Gaussian bars. Kept in
`survival.json`; a rerun does what is missing."""

import argparse
from pathlib import Path

import numpy as np
import torch

from fly64lib.design import StudyDesign, split_file, view_file
from fly64lib.evaluation.judgement import judge, region_of
from fly64lib.generation import generate_datasets
from fly64lib.methods.classical import Classical
from fly64lib.methods.learned import Learned
from fly64lib.overlap import generate_overlap_views
from fly64lib.simulation.imperfections import Imperfections
from fly64lib.training import TrainingJob, run_training_job
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.files import read_json, write_json
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.versions import software_versions

WORLDS = {
    "matched": ({"simulation": "matched"}, Imperfections()),
    "fine": ({}, Imperfections()),
    "probe 5 %": ({}, Imperfections(probe_error=0.05)),
    "dead leaves": ({"specimen": "dead_leaves"}, Imperfections()),
}
VIEW = "dense"
STEPS = {"poisson": 150, "procedural": 600}


def turned(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Phase error of an image, its global phase removed, rad."""
    image = image * np.exp(-1j * np.angle((truth.conj() * image).sum()))
    return np.angle(image * truth.conj())


def coverage(errors: np.ndarray) -> tuple[float, float, float]:
    """Of ensemble members' errors (k, h, w): share of pixels where 0 lies within two deviations of
    the mean, rms of the mean error, rms deviation."""
    mean, deviation = errors.mean(0), errors.std(0, ddof=1)
    return (
        float((np.abs(mean) <= 2 * deviation).mean()),
        float((mean**2).mean() ** 0.5),
        float((deviation**2).mean() ** 0.5),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/survival"))
    parser.add_argument("--dose", type=float, nargs="+", default=[1e3, 1e4])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--world", nargs="+", choices=list(WORLDS), default=list(WORLDS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.output / "survival.json"
    rows = read_json(path)["rows"] if path.is_file() else []
    for world in options.world:
        changes, imperfections = WORLDS[world]
        root, design = (
            options.output / world.replace(" ", "_").replace("%", "percent"),
            StudyDesign(scan_step=2, **changes),
        )
        generate_datasets(root / "C", design, imperfections=imperfections)
        generate_overlap_views(root / "C", root / "D", root / "overlap", design, controls=False)

        def bundle(objective: str, dose: float, seed: int, root: Path = root) -> Path:
            train = view_file(root / "C", root / "D", dose, VIEW, "train")
            folder = (
                root / objective
                if objective == "procedural"
                else root / f"{dose:.0f}_{objective}_{seed}"
            )
            if not (folder / "bundle.pt").is_file():
                job = TrainingJob(
                    dose, VIEW, 1 if objective == "procedural" else 2, train, train, folder
                )
                run_training_job(
                    job,
                    config=TrainingConfig(
                        model=ModelConfig(objective=objective),
                        steps=STEPS[objective],
                        seed=seed,
                        checkpointing=False,
                        logger="none",
                    ),
                )
            return folder / "bundle.pt"

        for dose in options.dose:
            if any((row["world"], row["dose"]) == (world, dose) for row in rows):
                continue
            test = view_file(root / "C", root / "D", dose, VIEW, "test")
            raw = PyTorchMemmapBridge(test).raw_data_torch
            region = region_of(
                PyTorchMemmapBridge(split_file(root / "C", dose, "test")).raw_data_torch
            )
            ensemble = [bundle("poisson", dose, seed) for seed in range(options.seeds)]
            simulated = bundle("procedural", max(options.dose), 0)
            methods = {
                "classical": Classical(),
                "pinn-sim": Learned(bundle=simulated),
                "pinn-sim+refine": Learned(bundle=simulated, refined=True),
                "pinn+refine": Learned(bundle=ensemble[0], refined=True),
                **{f"pinn {seed}": Learned(bundle=one) for seed, one in enumerate(ensemble)},
            }
            objects = {name: method.reconstruct(test).object for name, method in methods.items()}
            scores = {row["method"]: row for row in judge(objects, raw, region=region)}
            truth = raw.scan.object_guess[region]
            covered, error, deviation = coverage(
                np.stack(
                    [
                        turned(objects[f"pinn {seed}"][region], truth)
                        for seed in range(options.seeds)
                    ]
                )
            )
            found = {
                name: [row["phase_psnr"], row["amplitude_psnr"]]
                for name, row in scores.items()
                if name != "truth"
            }
            rows.append(
                {
                    "world": world,
                    "dose": dose,
                    "covered": covered,
                    "error_of_mean_rad": error,
                    "deviation_rad": deviation,
                    "scores": found,
                }
            )
            write_json(
                path, {"rows": rows, "seeds": options.seeds, "versions": software_versions()}
            )
            print(told(rows[-1]), flush=True)
    print("\n" + "\n".join(map(told, rows)))
    return 0


def told(row: dict) -> str:
    """A row as a line: phase / amplitude of classical and flat, gains of phase over classical, and
    the coverage."""
    scores = row["scores"]
    seeds = [value for name, value in scores.items() if name.startswith("pinn ")]
    means = {"pinn": np.mean(seeds, 0)} | {
        name: scores[name] for name in ("pinn+refine", "pinn-sim", "pinn-sim+refine")
    }
    gains = ", ".join(
        f"{name} {value[0] - scores['classical'][0]:+.1f} ({value[0]:.1f} / {value[1]:.1f})"
        for name, value in means.items()
    )
    return (
        f"{row['world']:12} {row['dose']:>6.0f}: classical {scores['classical'][0]:.1f} /"
        f" {scores['classical'][1]:.1f}, flat {scores['flat'][0]:.1f} / {scores['flat'][1]:.1f};"
        f" {gains}; truth within two deviations in {row['covered']:.0%} (error of the mean"
        f" {row['error_of_mean_rad']:.3f} rad, deviation {row['deviation_rad']:.3f})"
    )


if __name__ == "__main__":
    raise SystemExit(main())
