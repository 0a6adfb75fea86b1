"""Time and peak memory of the methods on one data set, side by side, each in a fresh process.

    python benchmarks/methods.py dense_test.npz --methods flat classical lsqml --threads 1

Times run from the opened file to the object; the peak memory is that of the process that did the
work, libraries included. Prints a table, and writes it as JSON with `--json`. Refined probes are
scored in their own gauge, on a slightly smaller region: compare those rows with each other. Wall
time means little on a machine that others use; CPU time bears it better."""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fly64lib.evaluation.judgement import judge
from fly64lib.methods.base import Method
from fly64lib.methods.classical import Classical
from fly64lib.methods.ptychi import LSQML
from fly64lib.methods.reference import Flat
from ptycho_torch.files import read_json, write_json
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.versions import software_versions

COLUMNS = (
    "method",
    "seconds",
    "cpu_seconds",
    "peak_memory_mb",
    "deviance",
    "gauge",
    "phase_psnr",
    "amplitude_psnr",
)


def methods(threads: int) -> dict[str, Method]:
    """The methods at their defaults; refinement from a defocused probe beside the known probe."""
    start = {"probe": "refine", "probe_defocus_rad": 1.0, "threads": threads}
    return {
        "flat": Flat(),
        "classical": Classical(threads=threads),
        "classical discrepancy": Classical(knob="discrepancy", threads=threads),
        "classical refine": Classical(**start),
        "lsqml": LSQML(threads=threads),
        "lsqml gaussian": LSQML(noise_model="gaussian", threads=threads),
        "lsqml refine": LSQML(**start),
        "rpie": LSQML(method="rpie", threads=threads),
        "dm": LSQML(method="dm", threads=threads),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", type=Path, help="DATA-001 file")
    parser.add_argument("--methods", nargs="+", choices=list(methods(1)), default=list(methods(1)))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument(
        "--into", type=Path, help=argparse.SUPPRESS
    )  # a fresh process: one method, its result in here
    asked = parser.parse_args(argv)
    if asked.into is not None:
        _run_one(methods(asked.threads)[asked.methods[0]], asked.dataset, asked.into)
        return 0
    raw, rows = PyTorchMemmapBridge(asked.dataset).raw_data_torch, []
    for name in tqdm(asked.methods, file=sys.stderr):
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [
                    sys.executable,
                    __file__,
                    str(asked.dataset),
                    "--methods",
                    name,
                    "--threads",
                    str(asked.threads),
                    "--into",
                    folder,
                ],
                check=True,
            )
            cost, image = (
                read_json(Path(folder) / "cost.json"),
                np.load(Path(folder) / "object.npy"),
            )
        gauge = "unknown_probe" if name.endswith("refine") else "known_probe"
        measures = judge({"one": image}, raw, gauge=gauge)[0]
        rows.append(
            {
                **{key: measures[key] for key in COLUMNS if key in measures},
                **cost,
                "method": name,
                "gauge": gauge,
            }
        )
    print("  ".join(f"{column:>21}" for column in COLUMNS))
    for row in rows:
        print(
            "  ".join(
                (
                    f"{value:>21.4g}"
                    if isinstance(value := row.get(column, ""), float)
                    else f"{value:>21}"
                )
                for column in COLUMNS
            )
        )
    if asked.json:
        write_json(
            asked.json,
            {
                "dataset": asked.dataset.name,
                "patterns": raw.n,
                "N": raw.N,
                "threads": asked.threads,
                "versions": software_versions(),
                "rows": rows,
            },
        )
    return 0


def _run_one(method: Method, dataset: Path, folder: Path) -> None:
    result = method.reconstruct(dataset)
    np.save(folder / "object.npy", result.object)
    cost = {key: value for key, value in vars(result).items() if key in COLUMNS}
    write_json(folder / "cost.json", cost | {"settings": result.settings, "note": result.note})


if __name__ == "__main__":
    raise SystemExit(main())
