"""Decibels against CPU seconds of ways to solve for the object, on three specimens.

    python benchmarks/solver.py --output runs/solver

The default twin's geometry, every second row and sample, M = 1.5 N, test half, known probe:

    passes          accelerated gradient passes, the slopes of the object held (weight 10)
    subsets         the same on subsets of the patterns, fewer in the end
    newton plain    Gauss-Newton under the power-law prior of each cell's own photons held out; the
                    preconditioner knows the fluence alone
    newton          the same, and it knows how faintly each frequency is seen

CPU seconds are of the solution alone, not of the prior's choice. Rows are kept in OUTPUT."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from common import Rows, SmallStudy, decibels, main, table

from fly64lib.design.study import StudyDesign
from fly64lib.evaluation.judgement import judge
from fly64lib.methods.base import measured
from ptycho_torch.fields import config
from ptycho_torch.iteration.canvas import canvas_steps, empty
from ptycho_torch.iteration.image_prior import object_of
from ptycho_torch.iteration.newton import Newton, start
from ptycho_torch.iteration.prior_search import choose, split
from ptycho_torch.iteration.subsets import settling
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan

CELLS = (("dense", 1e5), ("dense", 1e3), ("sparse", 1e5), ("sparse", 1e4))
STEPS = ((4,), (8,), (8, 8), (8, 16), (8, 16, 24))
WAYS = ("passes", "subsets", "newton plain", "newton")


@config
class Options:
    """Ways to solve for the object."""

    output: Path = Path("runs/solver")
    specimens: tuple[str, ...] = ("siemens_star", "dead_leaves", "lines")


def solutions(way: str, scan: RawDataTorch) -> list[Callable[[], torch.Tensor]]:
    """What a way gives after more and more of its steps."""
    whole = scan.patterns()
    if way == "passes":
        plans = [5, 10, 20, 40, 80, 160]
    elif way == "subsets":
        plans = [settling(whole.geometry, rounds) for rounds in (1, 2, 4, 8)]
    else:
        prior = choose(*split(scan, whole, 0.8, 0)).law

        def solved(steps: tuple[int, ...]) -> torch.Tensor:
            patterns = scan.patterns()  # nothing kept from another run
            newton = Newton(patterns)
            if way == "newton plain":
                newton.response = torch.ones_like(prior.precision(newton.shape, newton.fluence))
            return object_of(newton.solve(start(patterns), prior, steps))

        return [lambda steps=steps: solved(steps) for steps in STEPS]

    def stepped(plan: int | list[int]) -> torch.Tensor:
        patterns = scan.patterns()
        return canvas_steps(patterns, empty(patterns.geometry), plan, smoothness=10.0)

    return [lambda plan=plan: stepped(plan) for plan in plans]


@torch.no_grad()
def run(options: Options) -> int:
    """Do what is missing, and print a row for each."""
    kept = Rows(options.output / "solver.json")
    for specimen in options.specimens:
        design = StudyDesign(specimen=specimen, M=96, scan_step=2)
        study = SmallStudy(options.output / specimen, design)
        for view, dose in CELLS:
            scan = open_scan(study.file(dose, view, "test"))
            for way in WAYS:
                cell = {"specimen": specimen, "view": view, "dose": dose, "way": way}
                if cell in kept:
                    continue
                for number, solve in enumerate(solutions(way, scan.without_truth())):
                    with measured() as cost:
                        canvas = solve()
                    image = scan.geometry().embed(canvas).numpy().astype(np.complex64)
                    score = decibels(judge({way: image}, scan, region=study.region(dose))[0])
                    kept.add(cell | {"number": number, "cpu_s": cost.cpu_seconds} | score)
                print(table(kept.rows[-number - 1 :], list(kept.rows[-1])), flush=True)
    return 0


if __name__ == "__main__":
    main(Options, run)
