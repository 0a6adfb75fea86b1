"""Measured patterns: methods under a recovered probe, judged on patterns that neither they nor the
probe's recovery got.

    python benchmarks/real_data.py SCAN.npz --output runs/real_data [--modes 3]

Every tenth pattern is held out. Of the others, the classical iteration recovers object and probe
together, the probe as incoherent modes that start from the file's. Then every method fits the same
patterns under that probe, taken as known: the network trained on them without truth, the one
trained on simulated procedural objects, each alone and refined, LSQML and the classical iteration
from empty objects. Deviance is per detector pixel; a perfect model would come to about 1."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from fly64lib.evaluation.judgement import region_of
from fly64lib.methods.classical import Classical
from fly64lib.methods.learned import Learned
from fly64lib.methods.probe_recovery import held_out, recover_probe
from fly64lib.methods.ptychi import LSQML
from fly64lib.plots import figures
from fly64lib.training import TrainingJob, run_training_job
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.files import write_json
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.versions import software_versions

STEPS = {"poisson": 400, "procedural": 1000}


def parts(scan: ScanData, folder: Path) -> dict[str, Path]:
    """Files of the patterns to fit and of those held out."""
    held = held_out(scan.n)
    files = {"fit": folder / "fit.npz", "held": folder / "held_out.npz"}
    write_scan(files["fit"], scan.subset(~held))
    write_scan(files["held"], scan.subset(held))
    return files


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scan", type=Path)
    parser.add_argument(
        "--modes",
        type=int,
        default=3,
        help="of the recovered probe; 0: take the file's probe as it is",
    )
    parser.add_argument("--epochs", type=int, default=60, help="of LSQML")
    parser.add_argument("--output", type=Path, default=Path("runs/real_data"))
    options = parser.parse_args()
    scan = read_scan(options.scan)
    rows, objects = [], {}
    if options.modes:
        found = recover_probe(scan, options.modes)
        scan, objects["probe's recovery"] = replace(scan, probe=found.probe), found.object
        print(
            f"recovered probe: modes of {', '.join(f'{part:.1%}' for part in found.shares)} in"
            f" {found.cpu_seconds:.0f} CPU s; under the file's probe {found.deviance_before:.3f}"
            " held out"
        )
        rows.append(
            {"method": "probe's recovery", "cpu_seconds": found.cpu_seconds, "modes": found.shares}
        )
    files = parts(scan, options.output)
    raw = {name: PyTorchMemmapBridge(path).raw_data_torch for name, path in files.items()}
    methods = {"lsqml": LSQML(epochs=options.epochs), "classical": Classical()}
    training = {}
    for name, objective in (("pinn", "poisson"), ("pinn-sim", "procedural")):
        job = TrainingJob(
            float(round(mean_photons(scan.diffraction))),
            "baseline",
            1,
            files["fit"],
            files["fit"],
            options.output / name,
        )
        config = TrainingConfig(
            model=ModelConfig(objective=objective),
            steps=STEPS[objective],
            checkpointing=False,
            logger="none",
        )
        training[name] = run_training_job(job, config=config)["cpu_seconds"]
        methods |= {
            name + suffix: Learned(bundle=job.artifact_dir / "bundle.pt", refined=bool(suffix))
            for suffix in ("", "+refine")
        }
    for name, method in methods.items():
        found = method.reconstruct(files["fit"])
        objects[name] = found.object
        rows.append(
            {
                "method": name,
                "cpu_seconds": found.cpu_seconds,
                "peak_memory_mb": found.peak_memory_mb,
                "training_cpu_seconds": training.get(name.partition("+")[0]),
                "note": found.note,
            }
        )
    objects |= {"stored": scan.object_guess, "flat": np.ones_like(scan.object_guess)}
    rows += [{"method": "stored"}, {"method": "flat"}]
    for row in rows:
        canvas = torch.from_numpy(np.ascontiguousarray(objects[row["method"]], dtype=np.complex64))
        row |= {f"deviance_{name}": data_deviance(canvas, data) for name, data in raw.items()}
    peer = next(row["deviance_held"] for row in rows if row["method"] == "lsqml")
    for row in rows:
        print(
            f"{row['method']:17} deviance fitted {row['deviance_fit']:6.3f}, held out"
            f" {row['deviance_held']:6.3f} ({row['deviance_held'] / peer:.3f} of LSQML's),"
            f" {row.get('cpu_seconds') or float('nan'):6.1f} CPU s after"
            f" {row.get('training_cpu_seconds') or 0:.0f} of training"
        )
    del objects["flat"]
    figures.saved(
        figures.objects(objects, None, region_of(raw["fit"])), options.output / "objects.png"
    )
    write_json(
        options.output / "deviance.json",
        {"rows": rows, "modes": options.modes, "versions": software_versions()},
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
