"""How many trainings leave the flat object: seeds x doses x gridsizes x detector sizes, each a
short training without truth.

    python benchmarks/collapse.py --output runs/collapse [--seeds 20 --N 64 128 --steps 20]

The twin at every fourth row and sample, baseline (gridsize 1) and dense (gridsize 2). A training
has left the flat object when its phase PSNR on the unseen half is `MARGIN_DB` above the flat
object's. Kept in `collapse.json`: a rerun does what is missing."""

import argparse
from pathlib import Path

import torch

from fly64lib.design import VIEW_GRIDSIZE, StudyDesign, split_file, view_file
from fly64lib.evaluation.judgement import judge, region_of
from fly64lib.generation import generate_datasets
from fly64lib.methods.learned import Learned
from fly64lib.overlap import generate_overlap_views
from fly64lib.training import TrainingJob, run_training_job
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.files import read_json, write_json
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.versions import software_versions

MARGIN_DB = 2.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("runs/collapse"))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--N", type=int, nargs="+", default=[64, 128])
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    path = options.output / "collapse.json"
    rows = read_json(path)["rows"] if path.is_file() else []
    known = {(row["N"], row["seed"], row["dose"], row["view"]) for row in rows}
    for N in options.N:
        design, root = StudyDesign(scan_step=4, N=N), options.output / f"N{N}"
        generate_datasets(root / "C", design)
        generate_overlap_views(root / "C", root / "D", root / "overlap", design, controls=False)
        for seed in range(options.seeds):
            for dose in design.doses:
                for view in ("baseline", "dense"):
                    if (N, seed, dose, view) in known:
                        continue
                    train, test = (
                        view_file(root / "C", root / "D", dose, view, split)
                        for split in ("train", "test")
                    )
                    job = TrainingJob(dose, view, VIEW_GRIDSIZE[view], train, train, root / "job")
                    config = TrainingConfig(
                        model=ModelConfig(N=N),
                        steps=options.steps,
                        thinnings=2,
                        seed=seed,
                        checkpointing=False,
                        logger="none",
                    )
                    cost = run_training_job(job, config=config)["cpu_seconds"]
                    raw = PyTorchMemmapBridge(test).raw_data_torch
                    region = region_of(
                        PyTorchMemmapBridge(split_file(root / "C", dose, "test")).raw_data_torch
                    )
                    found = Learned(bundle=job.artifact_dir / "bundle.pt").reconstruct(test)
                    ours, *_, flat = (
                        row
                        for row in judge({"pinn": found.object}, raw, region=region)
                        if row["method"] in ("pinn", "flat")
                    )
                    rows.append(
                        {
                            "N": N,
                            "seed": seed,
                            "dose": dose,
                            "view": view,
                            "cpu_seconds": cost,
                            **{key: ours[key] for key in ("phase_psnr", "amplitude_psnr")},
                            **{
                                f"flat_{key}": flat[key] for key in ("phase_psnr", "amplitude_psnr")
                            },
                        }
                    )
                    write_json(
                        path,
                        {"steps": options.steps, "rows": rows, "versions": software_versions()},
                    )
    for N in options.N:
        for dose in StudyDesign().doses:
            for view in ("baseline", "dense"):
                here = [
                    row for row in rows if (row["N"], row["dose"], row["view"]) == (N, dose, view)
                ]
                gains = [row["phase_psnr"] - row["flat_phase_psnr"] for row in here]
                print(
                    f"N={N} {dose:>7.0f} {view:8} gridsize {VIEW_GRIDSIZE[view]}:"
                    f" {sum(gain > MARGIN_DB for gain in gains)} of {len(gains)} leave the flat"
                    f" object; {min(gains):.1f} .. {max(gains):.1f} dB above it"
                )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
