"""Time and peak memory of the methods on one data set, side by side, each in a fresh process.

    python benchmarks/methods.py dense_test.npz --methods flat classical lsqml --threads 1

Times run from the opened file to the object; the peak memory is that of the process that did the
work, libraries included. Prints a table, and writes it as JSON with `--json`. Refined probes are
scored in their own gauge, on a slightly smaller region: compare those rows with each other. Wall
time means little on a machine that others use; CPU time is the better measure."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from common import fresh, main, table
from tqdm import tqdm
from tyro.conf import Positional

from fly64lib.design.registries import METHODS
from fly64lib.evaluation.judgement import judge
from fly64lib.methods.base import MethodResult
from ptycho_torch.fields import SEVERAL, Threads, config
from ptycho_torch.files import write_json
from ptycho_torch.memmap_bridge import open_scan
from ptycho_torch.versions import software_versions

# A method of the registry, and settings other than its own
REFINED = {"probe": "refine", "probe_defocus_rad": 1.0}
SETTINGS: dict[str, tuple[str, dict]] = {
    "flat": ("flat", {}),
    "classical": ("classical", {}),
    "classical refine": ("classical", REFINED),
    "lsqml": ("lsqml", {}),
    "lsqml gaussian": ("lsqml", {"noise_model": "gaussian"}),
    "lsqml refine": ("lsqml", REFINED),
    "rpie": ("rpie", {}),
    "dm": ("dm", {}),
}
COSTS = ("seconds", "cpu_seconds", "peak_memory_mb")
SCORES = ("deviance", "phase_psnr", "amplitude_psnr")


@config
class MethodsOptions:
    """Time and peak memory of the methods, side by side."""

    dataset: Positional[Path]  # DATA-001 file
    methods: Annotated[tuple[Literal[*SETTINGS], ...], SEVERAL] = tuple(SETTINGS)
    threads: Threads = 1
    json: Path | None = None  # where to write the rows


def run(name: str, dataset: Path, threads: int) -> MethodResult:
    """The result of a method on a data set; a reference needs no threads."""
    method, settings = SETTINGS[name]
    given = settings if method == "flat" else settings | {"threads": threads}
    return METHODS[method](**given).reconstruct(open_scan(dataset).without_truth())


def methods(options: MethodsOptions) -> int:
    """Run, judge and show the methods."""
    raw, rows = open_scan(options.dataset), []
    for name in tqdm(options.methods, file=sys.stderr):
        found = fresh(run, name, options.dataset, options.threads)
        gauge = "unknown_probe" if name.endswith("refine") else "known_probe"
        judged = judge({"one": found.object}, raw, gauge=gauge)[0]
        scores = {key: judged.get(key) for key in SCORES}
        row = {"method": name, **vars(found.cost), "gauge": gauge, **scores}
        rows.append(row | {"settings": found.settings, "note": found.note})
    print(table(rows, ("method", *COSTS, "gauge", *SCORES)))
    if options.json:
        data = {"dataset": options.dataset.name, "patterns": raw.n, "N": raw.N}
        made = {"threads": options.threads, "versions": software_versions(), "rows": rows}
        write_json(options.json, data | made)
    return 0


if __name__ == "__main__":
    main(MethodsOptions, methods)
