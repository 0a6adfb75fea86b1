"""How much of the networks' gain survives a finer world, a wrong probe and another specimen; do
their error bars cover the truth?

    python benchmarks/survival.py --output runs/survival [--doses 1000 10000 --seeds 3]

The twin at every second row and sample, dense view, unseen half. Worlds: matched (the
reconstruction's own grid), fine (a finer grid), fine with a probe 5 % wrong, fine with dead leaves
for the star (networks trained on the star of the other half would know nothing of it: pinn is
trained on that specimen's own other half). The gain of a method is its phase PSNR over the
classical row's, dB; both are printed.

Error bars: an ensemble of `--seeds` pinn networks, which differ in weights, order and splits of the
photons. Printed is the share of the region's pixels whose true phase lies within two standard
deviations of the ensemble's mean, the global phase removed: 95 % for honest Gaussian bars. Kept in
`survival.json`; a rerun does what is missing."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from common import Rows, SmallStudy, main, trained
from pydantic import Field

from fly64lib.design.study import StudyDesign
from fly64lib.evaluation.judgement import judge
from fly64lib.methods.classical import Classical
from fly64lib.methods.learned import Learned
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from ptycho_torch.fields import SEVERAL, Positive, Whole, config
from ptycho_torch.memmap_bridge import open_scan

WORLDS = {
    "matched": ({"simulation": "matched"}, PERFECT),
    "fine": ({}, PERFECT),
    "probe 5 %": ({}, Imperfections(probe_error=0.05)),
    "dead leaves": ({"specimen": "dead_leaves"}, PERFECT),
}
VIEW = "dense"


@config
class SurvivalOptions:
    """What survives of the networks' gain, and what their error bars are worth."""

    output: Path = Path("runs/survival")
    doses: tuple[float, ...] = (1e3, 1e4)
    seeds: Annotated[Whole, Field(ge=2)] = 3  # pinn networks of the ensemble
    world: Annotated[tuple[Literal[*WORLDS], ...], SEVERAL] = tuple(WORLDS)
    steps: Positive = 150  # of each pinn
    scan_step: Positive = 2  # every n-th row and sample


def turned(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Phase error of an image, its global phase removed, rad."""
    image = image * np.exp(-1j * np.angle((truth.conj() * image).sum()))
    return np.angle(image * truth.conj())


def coverage(errors: np.ndarray) -> tuple[float, float, float]:
    """Of ensemble members' errors (k, h, w): share of pixels where 0 lies within two deviations of
    the mean, rms of the mean error, rms deviation."""
    mean, deviation = errors.mean(0), errors.std(0, ddof=1)
    covered = (np.abs(mean) <= 2 * deviation).mean()
    return float(covered), float((mean**2).mean() ** 0.5), float((deviation**2).mean() ** 0.5)


def cell(study: SmallStudy, root: Path, dose: float, options: SurvivalOptions) -> dict:
    """Scores of all methods on the dense view at a dose, and the ensemble's coverage."""
    test = open_scan(study.file(dose, VIEW, "test"))
    train = partial(trained, view=VIEW)

    def bundle(seed: int) -> Path:
        folder, data = root / f"{dose:.0f}_poisson_{seed}", study.file(dose, VIEW, "train")
        return train(folder, data, dose, steps=options.steps, seed=seed)[0]

    ensemble = [bundle(seed) for seed in range(options.seeds)]
    methods = {
        "classical": Classical(),
        "pinn+refine": Learned(bundle=ensemble[0], refined=True),
        **{f"pinn {seed}": Learned(bundle=one) for seed, one in enumerate(ensemble)},
    }
    scan, region = test.without_truth(), study.region(dose)
    objects = {name: method.reconstruct(scan).object for name, method in methods.items()}
    scores = {row["method"]: row for row in judge(objects, test, region=region)}
    truth = test.scan.object_guess[region]
    members = [objects[name][region] for name in objects if name.startswith("pinn ")]
    covered, error, deviation = coverage(np.stack([turned(one, truth) for one in members]))
    return {
        "covered": covered,
        "error_of_mean_rad": error,
        "deviation_rad": deviation,
        "scores": {
            name: [row["phase_psnr"], row["amplitude_psnr"]]
            for name, row in scores.items()
            if name != "truth"
        },
    }


def survival(options: SurvivalOptions) -> int:
    """Measure every world and dose that has no row, then print all."""
    kept = Rows(options.output / "survival.json", seeds=options.seeds)
    for world in options.world:
        changes, imperfections = WORLDS[world]
        root = options.output / world.replace(" ", "_").replace("%", "percent")
        design = StudyDesign(scan_step=options.scan_step, controls=False, **changes)
        study = SmallStudy(root, design, imperfections)
        for dose in options.doses:
            if {"world": world, "dose": dose} not in kept:
                kept.add({"world": world, "dose": dose, **cell(study, root, dose, options)})
                print(in_words(kept.rows[-1]), flush=True)
    print("\n" + "\n".join(map(in_words, kept.rows)))
    return 0


def in_words(row: dict) -> str:
    """A row as a line: phase / amplitude of classical and flat, gains of phase over classical, and
    the coverage."""
    scores = row["scores"]
    means = {"pinn": np.mean([scores[name] for name in scores if name.startswith("pinn ")], 0)}
    means |= {name: scores[name] for name in ("pinn+refine",)}
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
    main(SurvivalOptions, survival)
