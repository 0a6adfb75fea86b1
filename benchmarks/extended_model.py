"""What a model that knows the light beside the detector gains, and what it costs.

    python benchmarks/extended_model.py cells --output runs/extended
    python benchmarks/extended_model.py gaps --output runs/extended
    python benchmarks/extended_model.py jitter --output runs/extended
    python benchmarks/extended_model.py motion --output runs/extended
    python benchmarks/extended_model.py cost --output runs/extended

The default twin (simulated at 4 N, at M = N at 2 N), every second row and sample of the scan, test
half, the classical row with its weight chosen by held-out photons; replicates move noise and views.
dB are phase / amplitude PSNR on the detector's grid.

    cells    M = N, 1.5 N, 2 N with the known probe; recovered: from the file's probe without its
             light beside the detector, scored in the unknown-probe gauge; the unbiased limit
    gaps     two dead gaps of a detector: masked, taken as zeros, and whole with as many photons
    jitter   a pixel of the detector's grid (rms) on the positions: as stated, corrected, and none
    motion   a sample that moves during an exposure, as in a fly scan: under the file's probe, with
             the way that the order of the view's positions tells, and at rest; in one cell also
             under three modes recovered from it
    cost     patterns per CPU second of a pass, CPU seconds and memory of a row, at M = N and more

Rows are kept in OUTPUT and go on where they stopped."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from common import Rows, SmallStudy, decibels, fresh, main, table
from tyro.conf import Positional

from fly64lib.design.study import StudyDesign
from fly64lib.evaluation.judgement import judge
from fly64lib.evaluation.limits import limits
from fly64lib.methods.base import measured
from fly64lib.methods.classical import Classical
from fly64lib.methods.recovered_probe import seen_alone
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from ptycho_torch.fields import Positive, config
from ptycho_torch.iteration.canvas import canvas_steps, empty
from ptycho_torch.iteration.thinning import split_photons
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan

CELLS = (("dense", 1e5), ("sparse", 1e5), ("dense", 1e4), ("sparse", 1e4))
CELLS += (("dense", 1e3), ("sparse", 1e3))
SIDES = (64, 96, 128)
GAPS = {"columns": slice(14, 17), "rows": slice(42, 45)}  # some 9 % of the pixels
MOTION_PX = 6.0  # of the object: four of the detector's grid
KEYS = ("row", "M", "jitter_px", "motion_px", "view", "dose")  # of a condition
STEPS = 200  # of a fit that has more than the object to find


@config
class Options:
    """The extended forward model on the default twin."""

    what: Positional[Literal["cells", "gaps", "jitter", "motion", "cost"]]
    output: Path = Path("runs/extended")
    replicates: Positive = 3
    scan_step: Positive = 2


class Twin:
    """Scans of one design and replicate, made where absent."""

    def __init__(self, options: Options, M: int, replicate: int, **flaws: float) -> None:
        design = StudyDesign(
            doses=(1e3, 1e4, 1e5), M=M, scan_step=options.scan_step, replicate=replicate
        )
        named = "".join(f"_{name}{value:g}" for name, value in flaws.items())
        imperfect = Imperfections(**flaws, seed=replicate) if any(flaws.values()) else PERFECT
        root = options.output / f"M{M}_replicate{replicate}{named}"
        self.study = SmallStudy(root, design, imperfect)

    def scan(self, view: str, dose: float) -> RawDataTorch:
        return open_scan(self.study.file(dose, view, "test"))

    def scored(
        self, image: np.ndarray, scan: RawDataTorch, dose: float, gauge: str = "known_probe"
    ) -> dict[str, float]:
        """Phase and amplitude PSNR of an object of a scan."""
        region = self.study.region(dose)
        return decibels(judge({"one": image}, scan, region=region, gauge=gauge)[0])


def cells(options: Options) -> Iterator[dict]:
    for replicate in range(options.replicates):
        for M in SIDES:
            twin = Twin(options, M, replicate)
            for view, dose in CELLS:
                place = {"M": M, "view": view, "dose": dose, "replicate": replicate}
                scan = twin.scan(view, dose)
                blind = scan.without_truth()

                def known(blind=blind, scan=scan, twin=twin, dose=dose) -> dict:
                    found = Classical().reconstruct(blind)
                    cost = {"cpu_s": found.cost.cpu_seconds, "note": found.note}
                    return twin.scored(found.object, scan, dose) | cost

                def recovered(blind=blind, scan=scan, twin=twin, dose=dose) -> dict:
                    start = blind.under(seen_alone(blind.probe, blind.N).numpy())
                    found = Classical(probe="refine", joint_steps=STEPS).reconstruct(start)
                    cost = {"cpu_s": found.cost.cpu_seconds, "note": found.note}
                    return twin.scored(found.object, scan, dose, "unknown_probe") | cost

                def limit(scan=scan, twin=twin, dose=dose) -> dict:
                    geometry = scan.geometry(whole=True)
                    found = limits(scan.scan.object_guess, geometry, twin.study.region(dose))
                    return {"phase_psnr": found.phase.psnr, "amplitude_psnr": found.amplitude.psnr}

                yield place | {"row": "known probe"}, known
                if M == SIDES[1]:
                    yield place | {"row": "recovered probe"}, recovered
                    if (view, dose) == CELLS[0]:  # of a sparse view it does not converge
                        yield place | {"row": "unbiased limit"}, limit


def gaps(options: Options) -> Iterator[dict]:
    for replicate in range(options.replicates):
        twin = Twin(options, SIDES[1], replicate)
        for view, dose in CELLS[:3]:
            scan = twin.scan(view, dose)
            mask = np.ones((scan.N, scan.N), bool)
            mask[:, GAPS["columns"]] = mask[GAPS["rows"]] = False
            counts = np.square(scan.scan.diffraction)
            share = float((counts * mask).sum() / counts.sum())
            blind = scan.without_truth()
            cut = replace(blind.scan, diffraction=scan.scan.diffraction * mask)
            scans = {
                "masked": RawDataTorch(replace(cut, detector_mask=mask), "masked"),
                "taken as zeros": RawDataTorch(cut, "zeros"),
                "whole, as many photons": split_photons(blind, share, seed=replicate)[0],
                "whole": blind,
            }
            for row, one in scans.items():

                def run(one=one, scan=scan, twin=twin, dose=dose, share=share) -> dict:
                    found = Classical().reconstruct(one)
                    return twin.scored(found.object, scan, dose) | {"share": share}

                yield {"row": row, "view": view, "dose": dose, "replicate": replicate}, run


def jitter(options: Options) -> Iterator[dict]:
    M = SIDES[1]
    for replicate in range(options.replicates):
        for jitter_px in (0.0, 1.5):  # of the object's pixels: one of the detector's grid
            twin = Twin(options, M, replicate, jitter_px=jitter_px)
            for view, dose in CELLS[:4]:
                for unknown in ((), ("positions",)):

                    def run(twin=twin, view=view, dose=dose, unknown=unknown) -> dict:
                        scan = twin.scan(view, dose)
                        method = Classical(unknown=unknown, joint_steps=STEPS)
                        found = method.reconstruct(scan.without_truth())
                        moved = {}
                        if unknown:
                            away = found.positions - scan.scan.positions
                            moved = {"moved_px": float(np.sqrt((away**2).sum(1).mean()))}
                        # a shift of all positions is one of the object
                        score = twin.scored(found.object, scan, dose, "unknown_probe")
                        return score | moved | {"cpu_s": found.cost.cpu_seconds}

                    row = "corrected" if unknown else "as stated"
                    place = {"jitter_px": jitter_px, "view": view, "dose": dose}
                    yield place | {"row": row, "replicate": replicate}, run


def motion(options: Options) -> Iterator[dict]:
    beams = {
        "the file's probe": Classical(),
        "and the way": Classical(motion_px=MOTION_PX),
        "three modes recovered": Classical(probe="refine", probe_modes=3, joint_steps=STEPS),
    }
    for replicate in range(options.replicates):
        for motion_px in (0.0, MOTION_PX):
            twin = Twin(options, SIDES[1], replicate, motion_px=motion_px)
            for view, dose in CELLS[:4]:
                for row, method in beams.items():
                    if method.probe == "refine" and (view, dose) != CELLS[0]:
                        continue  # 200 joint steps of three modes: minutes

                    def run(twin=twin, view=view, dose=dose, method=method) -> dict:
                        scan = twin.scan(view, dose)
                        found = method.reconstruct(scan.without_truth())
                        score = twin.scored(found.object, scan, dose, "unknown_probe")
                        cost = {"cpu_s": found.cost.cpu_seconds}
                        return score | {"deviance": found.trace[-1]["deviance"]} | cost

                    place = {"motion_px": motion_px, "view": view, "dose": dose}
                    yield place | {"row": row, "replicate": replicate}, run


def row_cost(options: Options, M: int) -> dict[str, float]:
    """In a process of its own: a pass, and the classical row with a given weight."""
    torch.set_num_threads(1)
    scan = Twin(options, M, 0).scan("dense", 1e5)
    patterns = scan.patterns()
    canvas_steps(patterns, empty(patterns.geometry), 2)
    with measured() as passes:
        canvas_steps(patterns, empty(patterns.geometry), 20)
    found = Classical(weight=30.0).reconstruct(scan.without_truth())
    rate = 20 * scan.n / passes.cpu_seconds
    return {
        "patterns_per_cpu_s": rate,
        "cpu_s": found.cost.cpu_seconds,
        "peak_memory_mb": found.cost.peak_memory_mb,
    }


def cost(options: Options) -> Iterator[dict]:
    for replicate in range(options.replicates):
        for M in SIDES:
            Twin(options, M, 0)
            yield {"M": M, "run": replicate}, lambda M=M: fresh(row_cost, options, M)


def run(options: Options) -> int:
    """Do what is missing, and print the means over the replicates."""
    rows = Rows(options.output / f"{options.what}.json", scan_step=options.scan_step)
    every = {"cells": cells, "gaps": gaps, "jitter": jitter, "motion": motion, "cost": cost}
    for place, made in every[options.what](options):
        if place not in rows:
            rows.add(place | made())
            print(rows.rows[-1], flush=True)
    print(means(rows.rows))
    return 0


def means(rows: list[Mapping]) -> str:
    """A row of means, and the number of replicates, for each condition."""
    groups: dict[tuple, list[Mapping]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in KEYS), []).append(row)
    found = []
    for place, own in groups.items():
        values = [k for k, v in own[0].items() if isinstance(v, float) and k not in ("dose",)]
        one = {k: v for k, v in zip(KEYS, place, strict=True) if v is not None}
        one |= {k: float(np.mean([row[k] for row in own])) for k in values if k not in one}
        found.append(one | {"of": len(own)})
    return table(found, list(dict.fromkeys(key for row in found for key in row)))


if __name__ == "__main__":
    main(Options, run)
