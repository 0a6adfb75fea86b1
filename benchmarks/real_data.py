"""Measured patterns: methods under a recovered probe, judged on patterns that neither they nor the
probe's recovery got.

    python benchmarks/real_data.py SCAN.npz --output runs/real_data [--modes 3]

Every tenth pattern is held out. Of the others, the classical iteration recovers object and probe
together, the probe as incoherent modes that start from the file's. Then every method fits the same
patterns under that probe, taken as known: the network trained on them without truth, the one
trained on simulated procedural objects, each alone and refined, LSQML and the classical iteration
from empty objects. Deviance is per detector pixel; a perfect model would come to about 1."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from common import main, trained
from tyro.conf import Positional

from fly64lib.evaluation.judgement import region_of
from fly64lib.methods.classical import Classical
from fly64lib.methods.learned import Learned
from fly64lib.methods.probe_recovery import held_out, recover_probe
from fly64lib.methods.ptychi import LSQML
from fly64lib.plots import figures
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import write_scan
from ptycho_torch.fields import Positive, Whole, config
from ptycho_torch.files import write_json
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import open_scan
from ptycho_torch.versions import software_versions


@config
class RealDataOptions:
    """Methods on measured patterns, judged on those that were held out."""

    scan: Positional[Path]  # DATA-001 file
    output: Path = Path("runs/real_data")
    modes: Whole = 3  # of the recovered probe; 0: the file's probe as it is
    epochs: Positive = 60  # of LSQML
    steps: Positive = 400  # of pinn's training
    sim_steps: Positive = 1000  # of pinn-sim's training


def real_data(options: RealDataOptions) -> int:
    """Recover the probe, train, reconstruct, and print the deviance on both parts."""
    raw, rows, objects = open_scan(options.scan), [], {}
    scan = raw.scan
    if options.modes:
        found = recover_probe(raw, options.modes)
        scan, objects["probe's recovery"] = replace(scan, probe=found.probe), found.object
        print(
            f"recovered probe: modes of {', '.join(f'{part:.1%}' for part in found.shares)} in"
            f" {found.cpu_seconds:.0f} CPU s; under the file's probe {found.deviance_before:.3f}"
            " held out"
        )
        cost = {"cpu_seconds": found.cpu_seconds, "modes": found.shares}
        rows.append({"method": "probe's recovery"} | cost)
    held, parts = held_out(scan.n), {}
    for name, chosen in (("fit", ~held), ("held", held)):
        path = options.output / f"{name}.npz"
        write_scan(path, scan.subset(chosen))
        parts[name] = open_scan(path)
    methods = {"lsqml": LSQML(epochs=options.epochs), "classical": Classical()}
    training, dose = {}, float(round(mean_photons(scan.diffraction)))
    for name, objective, steps in (
        ("pinn", "poisson", options.steps),
        ("pinn-sim", "procedural", options.sim_steps),
    ):
        folder, settings = options.output / name, {"objective": objective, "steps": steps}
        data = options.output / "fit.npz"
        bundle, training[name] = trained(folder, data, dose, "baseline", again=True, **settings)
        for suffix in ("", "+refine"):
            methods[name + suffix] = Learned(bundle=bundle, refined=bool(suffix))
    for name, method in methods.items():
        found = method.reconstruct(parts["fit"].without_truth())
        objects[name] = found.object
        trained_s = training.get(name.partition("+")[0])
        cost = {"cpu_seconds": found.cost.cpu_seconds, "training_cpu_seconds": trained_s}
        memory = {"peak_memory_mb": found.cost.peak_memory_mb}
        rows.append({"method": name, **cost, **memory, "note": found.note})
    objects |= {"stored": scan.object_guess, "flat": np.ones_like(scan.object_guess)}
    rows += [{"method": "stored"}, {"method": "flat"}]
    for row in rows:
        canvas = torch.from_numpy(np.ascontiguousarray(objects[row["method"]], dtype=np.complex64))
        row |= {f"deviance_{name}": data_deviance(canvas, part) for name, part in parts.items()}
    peer = next(row["deviance_held"] for row in rows if row["method"] == "lsqml")
    for row in rows:
        print(
            f"{row['method']:17} deviance fitted {row['deviance_fit']:6.3f}, held out"
            f" {row['deviance_held']:6.3f} ({row['deviance_held'] / peer:.3f} of LSQML's),"
            f" {row.get('cpu_seconds') or float('nan'):6.1f} CPU s after"
            f" {row.get('training_cpu_seconds') or 0:.0f} of training"
        )
    del objects["flat"]
    picture = figures.objects(objects, None, region_of(parts["fit"]))
    figures.saved(picture, options.output / "objects.png")
    content = {"rows": rows, "modes": options.modes, "versions": software_versions()}
    write_json(options.output / "deviance.json", content)
    return 0


if __name__ == "__main__":
    main(RealDataOptions, real_data)
