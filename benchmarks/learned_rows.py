"""Learned rows beside the classical one and the Bayesian limit, specimen by specimen.

    python benchmarks/learned_rows.py --output runs/learned_rows [--simulation matched]

The default twin's geometry, every second row and sample, M = 1.5 N (matched: M = N), test half,
known probe. Rows: classical, `pinn-sim`, `pinn-sim+refine`, the Bayesian limit, and with `--adapt`
`pinn+refine`, whose network is adapted to the training half. Solver, priors and rules were chosen
on `PICKED`; the shipped network has seen others of their kind, and none like the rest.

Rows are kept in OUTPUT; a rerun does what is missing. The tables, also by `--show`, are Markdown:
phase / amplitude PSNR in dB, mean over the replicates."""

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from common import Rows, SmallStudy, decibels, main, trained

from fly64lib.comparison import limits_of
from fly64lib.design.study import StudyDesign
from fly64lib.evaluation.columns import markdown_table
from fly64lib.evaluation.judgement import judge
from fly64lib.methods.classical import Classical
from fly64lib.methods.learned import PinnRefined, PinnSim, PinnSimRefined
from ptycho_torch.fields import SEVERAL, Positive, config
from ptycho_torch.memmap_bridge import open_scan

PICKED = ("siemens_star", "dead_leaves", "lines")
UNSEEN = ("labyrinth", "circuit")
M = {"fine": 96, "matched": 64}
ADAPTED = {"start": "shipped", "steps": 40, "learning_rate": 3e-4}


@config
class Options:
    """Learned rows beside the classical one and the Bayesian limit."""

    output: Path = Path("runs/learned_rows")
    specimens: Annotated[tuple[Literal[*PICKED, *UNSEEN], ...], SEVERAL] = UNSEEN + PICKED
    views: Annotated[tuple[str, ...], SEVERAL] = ("dense", "0.5", "sparse")
    doses: Annotated[tuple[float, ...], SEVERAL] = (1e3, 1e4, 1e5)
    replicates: Positive = 3
    simulation: Literal["fine", "matched"] = "fine"
    adapt: bool = False  # also pinn+refine
    show: bool = False  # print what is kept and do nothing


def run(options: Options) -> int:
    """Do what is missing, replicate by replicate, and print the tables."""
    kept = Rows(options.output / f"{options.simulation}.json")
    order = () if options.show else product(range(options.replicates), options.specimens)
    for replicate, specimen in order:
        design = StudyDesign(
            specimen=specimen,
            replicate=replicate,
            simulation=options.simulation,
            M=M[options.simulation],
            doses=options.doses,
            views=options.views,
            scan_step=2,
            controls=False,
        )
        folder = options.output / options.simulation / specimen / str(replicate)
        study = SmallStudy(folder, design)
        for view, dose in product(options.views, options.doses):
            cell = {"specimen": specimen, "view": view, "dose": dose, "replicate": replicate}
            missing = [name for name in rows_of(options) if cell | {"row": name} not in kept]
            for row in scored(study, folder, view, dose, missing):
                kept.add(cell | row)
                print(
                    *(
                        f"{value:.4g}" if isinstance(value, float) else value
                        for value in (cell | row).values()
                    ),
                    flush=True,
                )
    for specimen in options.specimens:
        print(f"\n{specimen}{', picked on' * (specimen in PICKED)}\n")
        print(markdown_table(*tabled([row for row in kept.rows if row["specimen"] == specimen])))
    return 0


def rows_of(options: Options) -> list[str]:
    """The rows that are asked for; there is a shipped network for the finer grid only."""
    learned = ["pinn-sim", "pinn-sim+refine"] + ["pinn+refine"] * options.adapt
    return ["classical", *(learned if options.simulation == "fine" else []), "bayesian"]


def scored(
    study: SmallStudy, folder: Path, view: str, dose: float, names: list[str]
) -> Iterator[dict]:
    """Scores and CPU seconds of the rows of a cell."""
    raw, region = open_scan(study.file(dose, view, "test")), study.region(dose)
    for name in names:
        if name == "bayesian":
            bound = limits_of(raw, region, probe_known=True, asked="bayesian")[0][name]
            yield {
                "row": name,
                "phase_psnr": bound.phase.psnr,
                "amplitude_psnr": bound.amplitude.psnr,
            }
            continue
        training_s = 0.0
        if name == "pinn+refine":
            data = study.file(dose, view, "train")
            at = folder / f"{view}_{dose:.0f}"
            bundle, training_s = trained(at, data, dose, view, **ADAPTED)
            method = PinnRefined(bundle=bundle)
        else:
            methods = {
                "classical": Classical,
                "pinn-sim": PinnSim,
                "pinn-sim+refine": PinnSimRefined,
            }
            method = methods[name]()
        found = method.reconstruct(raw.without_truth())
        score = decibels(judge({name: found.object}, raw, region=region)[0])
        seconds = found.cost.cpu_seconds + training_s
        yield {"row": name, **score, "cpu_s": seconds, "kept": found.settings.get("kept")}


def tabled(rows: list[dict]) -> tuple[list[str], list[list[str]]]:
    """Heads and lines: a line for each dose and view, a column for each row's name."""
    names = list(dict.fromkeys(row["row"] for row in rows))
    cells = sorted({(row["dose"], row["view"]) for row in rows})

    def mean(dose: float, view: str, name: str) -> str:
        own = [row for row in rows if (row["dose"], row["view"], row["row"]) == (dose, view, name)]
        if not own:
            return ""
        means = [np.mean([row[key] for row in own]) for key in ("phase_psnr", "amplitude_psnr")]
        return " / ".join(f"{value:.1f}" for value in means) + f" ({len(own)})" * (len(own) < 3)

    lines = [
        [f"{dose:.0e} {view}", *(mean(dose, view, name) for name in names)] for dose, view in cells
    ]
    return ["dose, view", *names], lines


if __name__ == "__main__":
    main(Options, run)
