"""How many trainings leave the flat object: seeds x doses x gridsizes x detector sizes, each a
short training without truth.

    python benchmarks/collapse.py --output runs/collapse [--seeds 20 --N 64 128 --steps 20]

The twin at every fourth row and sample, baseline (gridsize 1) and dense (gridsize 2). A training
has left the flat object when its phase PSNR on the unseen half is `MARGIN_DB` above the flat
object's. Kept in `collapse.json`: a rerun does what is missing."""

from itertools import product
from pathlib import Path

from common import Rows, SmallStudy, decibels, main, trained

from fly64lib.design.study import StudyDesign, gridsize_of
from fly64lib.evaluation.judgement import judge
from fly64lib.methods.learned import Learned
from ptycho_torch.fields import Positive, config
from ptycho_torch.memmap_bridge import open_scan

MARGIN_DB = 2.0
VIEWS = ("baseline", "dense")


@config
class CollapseOptions:
    """How many short trainings leave the flat object."""

    output: Path = Path("runs/collapse")
    seeds: Positive = 20
    N: tuple[Positive, ...] = (64, 128)  # detector sides
    steps: Positive = 20
    doses: tuple[float, ...] = (1e3, 1e4, 1e5)
    scan_step: Positive = 4  # every n-th row and sample


def collapse(options: CollapseOptions) -> int:
    """Train every cell that has no row, then print a line for each size, dose and view."""
    kept = Rows(options.output / "collapse.json", steps=options.steps)
    for N in options.N:
        root = options.output / f"N{N}"
        size = {"N": N, "scan_step": options.scan_step, "doses": options.doses}
        study = SmallStudy(root, StudyDesign(controls=False, **size))
        for seed, dose, view in product(range(options.seeds), options.doses, VIEWS):
            cell = {"N": N, "seed": seed, "dose": dose, "view": view}
            if cell in kept:
                continue
            settings = {"N": N, "steps": options.steps, "thinnings": 2, "seed": seed}
            data = study.file(dose, view, "train")
            bundle, cost = trained(root / "job", data, dose, view, again=True, **settings)
            test = open_scan(study.file(dose, view, "test"))
            found = Learned(bundle=bundle).reconstruct(test.without_truth())
            judged = judge({"pinn": found.object}, test, region=study.region(dose))
            scores = {row["method"]: decibels(row) for row in judged}
            flat = {f"flat_{key}": value for key, value in scores["flat"].items()}
            kept.add({**cell, "cpu_seconds": cost, **scores["pinn"], **flat})
    for N, dose, view in product(options.N, options.doses, VIEWS):
        here = [row for row in kept.rows if (row["N"], row["dose"], row["view"]) == (N, dose, view)]
        gains = [row["phase_psnr"] - row["flat_phase_psnr"] for row in here]
        print(
            f"N={N} {dose:>7.0f} {view:8} gridsize {gridsize_of(view)}:"
            f" {sum(gain > MARGIN_DB for gain in gains)} of {len(gains)} leave the flat"
            f" object; {min(gains):.1f} .. {max(gains):.1f} dB above it"
        )
    return 0


if __name__ == "__main__":
    main(CollapseOptions, collapse)
