"""Methods on measured patterns, scored in data space on patterns that no method got.

    python benchmarks/real_data.py SCAN.npz [--epochs 60] [--output runs/real_data]

Every tenth pattern is held out; pinn is trained without truth on the others, LSQML and the classical iteration are fitted
to them, all under the file's own probe. (That probe was recovered from all patterns, the held-out ones included: the same
for every method.) Prints the mean Poisson deviance per pixel, fitted and held out, CPU seconds and peak memory, and
writes `objects.png` and `deviance.json`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from fly64lib import figures
from fly64lib.judgement import region_of
from fly64lib.methods.classical import Classical
from fly64lib.methods.learned import Learned
from fly64lib.methods.ptychi import LSQML
from fly64lib.training import TrainingJob, run_training_job
from ptycho_torch.config import TrainingConfig
from ptycho_torch.data_checks import mean_photons
from ptycho_torch.data_contract import read_scan, write_scan
from ptycho_torch.files import write_json
from ptycho_torch.inference import data_deviance
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge

HELD_OUT_EVERY = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument("--epochs", type=int, default=60, help="of LSQML")
    parser.add_argument("--output", type=Path, default=Path("runs/real_data"))
    options = parser.parse_args()
    scan = read_scan(options.scan)
    held = np.arange(scan.n) % HELD_OUT_EVERY == 0
    files = {"fit": options.output / "fit.npz", "held": options.output / "held_out.npz"}
    write_scan(files["fit"], scan.subset(~held))
    write_scan(files["held"], scan.subset(held))
    job = TrainingJob(float(round(mean_photons(scan.diffraction))), "baseline", 1, files["fit"], files["fit"],
                      options.output / "pinn")
    trained = run_training_job(job, config=TrainingConfig(checkpointing=False, logger="none"))
    methods = [Learned(bundle=job.artifact_dir / "bundle.pt"), LSQML(epochs=options.epochs), Classical()]
    raw = {name: PyTorchMemmapBridge(path).raw_data_torch for name, path in files.items()}
    objects, rows = {}, []
    for method in methods:
        found = method.reconstruct(files["fit"])
        objects[method.name] = found.object
        rows.append({"method": method.name, "cpu_seconds": found.cpu_seconds, "peak_memory_mb": found.peak_memory_mb,
                     "training_cpu_seconds": trained["cpu_seconds"] if method.name == "pinn" else None})
    objects["stored"] = scan.object_guess
    objects["flat"] = np.ones_like(scan.object_guess)
    rows += [{"method": "stored"}, {"method": "flat"}]
    for row in rows:
        canvas = torch.from_numpy(np.ascontiguousarray(objects[row["method"]], dtype=np.complex64))
        row |= {f"deviance_{name}": data_deviance(canvas, data) for name, data in raw.items()}
        print(f"{row['method']:10} deviance fitted {row['deviance_fit']:6.3f}, held out {row['deviance_held']:6.3f}, "
              f"{row.get('cpu_seconds') or float('nan'):6.1f} CPU s, {row.get('peak_memory_mb') or float('nan'):6.0f} MB")
    del objects["flat"]
    figures.saved(figures.objects(objects, None, region_of(raw["fit"])), options.output / "objects.png")
    write_json(options.output / "deviance.json", rows)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
