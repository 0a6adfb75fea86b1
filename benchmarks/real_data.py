"""Measured patterns: what the model and the methods explain of those that none of them got.

    python benchmarks/real_data.py siemens-star-small.npz.bz2 --output runs/real_data

From the public file alone (fly001's small scan, 516 patterns of 128 x 128 px). Patterns are cut to
the central 64 x 64 px, object and probe stay on the grid of 128; with `--detector-px 128` whole
patterns are explained, on a grid of 192. Every tenth pattern is held out of everything. Of the
others the classical iteration recovers object and probe together, the probe as incoherent modes, on
the detector's grid and on the finer one, then more modes, and the positions, the brightness and the
background of the exposures, each from what the one before found; a tenth of a held-out pattern's
photons tell its own position and brightness, nine tenths judge (:mod:`probe_recovery`). The last
recovery predicts the photons that fell beside the 64 x 64 px, which the public file has, and draws
OUTPUT/ring_prediction.png. Then the methods fit the same patterns under the recovered probe, taken
as known; pinn is trained from nothing, as no network for this grid comes with the package. Deviance
is per detector pixel; a perfect model would come to about 1."""

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from common import Rows, main, table, trained
from matplotlib.figure import Figure
from tyro.conf import Positional

from fly64lib.evaluation.detector_grid import scan_on_detector_grid
from fly64lib.formats.importing import import_scan
from fly64lib.formats.options import ImportOptions
from fly64lib.methods.classical import Classical
from fly64lib.methods.learned import Learned
from fly64lib.methods.probe_recovery import held_out, recover_probe
from fly64lib.methods.ptychi import LSQML, LSQMLFine
from fly64lib.methods.scan_model import EXPOSURES, TIKHONOV
from fly64lib.plots import figures
from fly64lib.simulation.overlap_measures import scanned_region
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import write_scan
from ptycho_torch.fields import Positive, Whole, config
from ptycho_torch.files import write_json
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.iteration.prior_search import FIRST
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.versions import software_versions

SIDES = {64: 128, 128: 192}  # px of the detector that is used: finer ones of object and probe
RINGS = ((32, 36), (36, 40), (40, 48), (48, 64))  # detector pixels from zero frequency
RECOVERIES = {  # name: modes, whether on the finer grid, unknown, times the steps
    "detector's grid": (3, False, (), 1),
    "finer grid": (3, True, (), 1),
    "five modes": (5, True, (), 1),
    "five modes, exposures": (5, True, EXPOSURES, 1),
    "seven modes, exposures": (7, True, EXPOSURES, 2),
}


@config
class RealDataOptions:
    """The model and the methods on measured patterns, judged on those that were held out."""

    scan: Positional[Path]  # the public archive of 128 px patterns
    output: Path = Path("runs/real_data")
    steps: Positive = 80  # of a recovery; the last one takes twice as many
    epochs: Positive = 60  # of LSQML
    training_steps: Whole = 80  # of pinn; 0: without it
    detector_px: Literal[64, 128] = 64  # of the patterns' middle that is used
    methods: bool = True  # otherwise the recoveries alone


def real_data(options: RealDataOptions) -> int:
    """Recover, predict the ring, reconstruct by each method, and print the deviances."""
    path = options.output / "whole.npz"
    path.unlink(missing_ok=True)
    import_scan(ImportOptions(source=options.scan, target=path, picture="none"))
    whole, N = open_scan(path), options.detector_px
    kept = slice((whole.N - N) // 2, (whole.N + N) // 2)
    cut = np.ascontiguousarray(whole.scan.diffraction[:, kept, kept])
    raw = RawDataTorch(replace(whole.scan, diffraction=cut, metadata={}), "the central pixels")
    rows = Rows(options.output / "recoveries.json", steps=options.steps)
    coarse = raw if raw.M == N else scan_on_detector_grid(raw).without_truth()
    finer = raw if raw.M == SIDES[N] else raw.finer(SIDES[N])
    found = None
    for name, (modes, fine, unknown, times) in RECOVERIES.items():
        start, near = finer if fine else coarse, None
        if found and found.scan.M == start.M:
            start, near = found.scan, found.scan.scan.object_guess
        how = {"unknown": unknown, "tikhonov": TIKHONOV, "weight": FIRST.weight, "before": near}
        found = recover_probe(start, modes, times * options.steps, **how)
        fitted = data_deviance(found.scan.object_guess, found.scan.subset(~held_out(raw.n)))
        row = {"recovery": name, "deviance_fitted": fitted, "deviance_held": found.deviance_after}
        rows.add(row | {"cpu_seconds": found.cpu_seconds})
        print(table(rows.rows[-1:], list(row)), flush=True)
    write_scan(options.output / "recovered.npz", found.scan.scan)
    if N < whole.N:
        beside = Beside.of(found.scan, whole)
        print(table(beside.rings(), ["px", "share", "predicted", "fitted", "held"]))
        beside.picture().savefig(options.output / "ring_prediction.png", dpi=110)
    if options.methods:
        methods_under(found.scan, options)
    return 0


class Beside(NamedTuple):
    """Photons of each pattern beside the pixels that were fitted, by radius."""

    measured: np.ndarray  # (n, W, W)
    predicted: np.ndarray  # by what was recovered from the fitted pixels
    held: np.ndarray  # patterns that were held out
    radius: np.ndarray  # (W, W), detector pixels from zero frequency
    outside: np.ndarray  # (W, W), pixels that were not fitted

    @classmethod
    def of(cls, found: RawDataTorch, whole: RawDataTorch) -> "Beside":
        geometry = replace(found.geometry(whole=True), detector=None)
        canvas = found.object_guess[None]
        expected = [geometry.expected(canvas, chunk) for chunk in geometry.chunks()]
        axis, half = np.arange(whole.N) - whole.N // 2, found.N // 2
        outside = (np.abs(axis[:, None]) > half) | (np.abs(axis) > half)
        counts = np.square(whole.scan.diffraction)
        radius = np.hypot(axis[:, None], axis)
        return cls(counts, torch.cat(expected).numpy(), held_out(found.n), radius, outside)

    def ring(self, first: float, last: float) -> tuple[np.ndarray, np.ndarray]:
        """Of each pattern, photons measured and predicted outside, from one radius to another."""
        ring = self.outside & (self.radius >= first) & (self.radius < last)
        return self.measured[:, ring].sum(1), self.predicted[:, ring].sum(1)

    def rings(self) -> list[dict]:
        """Share of all light, measured and predicted, and the correlation over the patterns of the
        two, of fitted patterns and of those held out."""
        rows = []
        for first, last in ((0, np.inf), *RINGS):
            parts = self.ring(first, last)
            shares = [part.sum() / self.measured.sum() for part in parts]
            chosen = ~self.held, self.held
            alike = [np.corrcoef(*(part[one] for part in parts))[0, 1] for one in chosen]
            name = "all" if last == np.inf else f"{first} to {last}"
            row = {"px": name, "share": shares[0], "predicted": shares[1]}
            rows.append(row | {"fitted": alike[0], "held": alike[1]})
        return rows

    def picture(self) -> Figure:
        """Photons in the first ring, predicted against measured; and mean photons by radius."""
        figure = Figure(figsize=(9, 3.8), layout="constrained")
        left, right = figure.subplots(1, 2)
        measured, predicted = self.ring(*RINGS[0])
        for chosen, label, colour in (
            (~self.held, "fitted patterns", "tab:gray"),
            (self.held, "patterns held out of everything", "tab:red"),
        ):
            left.plot(measured[chosen], predicted[chosen], ".", color=colour, label=label)
        ends = [min(measured.min(), predicted.min()), max(measured.max(), predicted.max())]
        left.plot(ends, ends, color="black", linewidth=0.8)
        left.set(xlabel="photons measured", ylabel="photons predicted")
        left.set_title("beside the fitted pixels, {} to {} px".format(*RINGS[0]))
        left.legend(frameon=False)
        bins = np.arange(4, 64)
        for counts, label, line in (
            (self.measured, "measured", "-"),
            (self.predicted, "model of the central 64 x 64 pixels", "--"),
        ):
            mean = counts.mean(0)
            rings = [mean[(self.radius >= r) & (self.radius < r + 1)].mean() for r in bins]
            right.semilogy(bins + 0.5, rings, line, label=label)
        right.axvline(RINGS[0][0], color="black", linewidth=0.8)
        right.set(xlabel="radius / detector pixels", ylabel="photons a pixel")
        right.set_title("mean pattern; line: edge of the fitted pixels")
        right.legend(frameon=False)
        return figure


def methods_under(recovered: RawDataTorch, options: RealDataOptions) -> None:
    """Every method on the fitted patterns under the recovered probe, and the deviances of both."""
    scan, rows, objects = recovered.scan, [], {"probe's recovery": recovered.scan.object_guess}
    held, parts = held_out(scan.n), {}
    for name, chosen in (("fit", ~held), ("held", held)):
        path = options.output / f"{name}.npz"
        write_scan(path, scan.subset(chosen))
        parts[name] = open_scan(path)
    methods = {
        "lsqml": LSQML(epochs=options.epochs),
        "lsqml-fine": LSQMLFine(epochs=options.epochs),
    }
    methods["classical"] = Classical()
    training, dose = {}, float(round(mean_photons(scan.diffraction)))
    if options.training_steps:
        data, steps = options.output / "fit.npz", options.training_steps
        bundle, training["pinn"] = trained(
            options.output / "pinn", data, dose, "baseline", again=True, steps=steps
        )
        methods |= {"pinn": Learned(bundle=bundle)}
        methods |= {"pinn+refine": Learned(bundle=bundle, refined=True)}
    for name, method in methods.items():
        found = method.reconstruct(parts["fit"].without_truth())
        objects[name] = found.object
        trained_s = training.get(name.partition("+")[0])
        cost = {"cpu_seconds": found.cost.cpu_seconds, "training_cpu_seconds": trained_s}
        memory = {"peak_memory_mb": found.cost.peak_memory_mb}
        rows.append({"method": name, **cost, **memory, "note": found.note})
    objects["flat"] = np.ones_like(scan.object_guess)
    rows += [{"method": "probe's recovery"}, {"method": "flat"}]
    for row in rows:
        canvas = torch.from_numpy(np.ascontiguousarray(objects[row["method"]], dtype=np.complex64))
        row |= {f"deviance_{name}": data_deviance(canvas, part) for name, part in parts.items()}
    print(table(rows, ["method", "deviance_fit", "deviance_held", "cpu_seconds"]))
    del objects["flat"]
    picture = figures.objects(objects, None, scanned_region(scan.positions))
    figures.saved(picture, options.output / "objects.png")
    write_json(options.output / "deviance.json", {"rows": rows, "versions": software_versions()})


if __name__ == "__main__":
    main(RealDataOptions, real_data)
