"""What one's own scan loses with fewer photons and positions: `fly64 cut reconstruction.npz`, and
what cut.ipynb shows.

The measured counts are thinned (each photon is kept with the same probability: what a shorter
exposure would have counted, exactly), the positions to single images at least (1 - overlap) D
apart, and each cut is reconstructed under the probe of the full reconstruction. That one, the
file's object, is what the cuts are compared with: it is no truth. Every tenth pattern is in no cut;
these patterns, with all of their photons, judge without any reference.

    OUTPUT/cells/*.npz    one a cut, method and replicate: what is there is not made again
           cut.csv  map.png  objects_METHOD.png  index.html
           cut.json       last: all numbers"""

import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite
from pathlib import Path

import numpy as np
import torch
import tyro
from pandas import DataFrame
from tqdm import tqdm

from fly64lib.evaluation.gauge import Region
from fly64lib.evaluation.judgement import on_detector_grid, region_of
from fly64lib.methods.by_name import network_of
from fly64lib.methods.probe_recovery import HELD_OUT_EVERY
from fly64lib.notebook.cut_cells import (
    Cell,
    all_cells,
    cut,
    linear_overlap,
    possible_overlaps,
    store,
    stored,
)
from fly64lib.notebook.cut_scores import agreement, noise_of_reference, reconstructed
from fly64lib.notebook.cut_words import assumptions, column_name, in_words, summed
from fly64lib.notebook.parameters import CutSettings
from fly64lib.plots import cut_map, figures
from fly64lib.report.offline import write_page
from fly64lib.simulation.probes import outer_half_maximum_diameter
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import config, field_names, to_dict
from ptycho_torch.files import (
    atomic_path,
    folder_lock,
    json_text,
    read_json,
    sha256_file,
    write_json,
)
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.training.bundle import shipped
from ptycho_torch.versions import software_versions


@config
class CutOptions(CutSettings):
    """What do I lose if I cut? One's own scan with fewer photons and positions, against its full
    reconstruction."""

    source: tyro.conf.Positional[Path]  # reconstruction.npz of fly64 reconstruct
    output: Path | None = None  # folder; if not given, SOURCE's name with _cut, here
    json: bool = False  # the numbers on stdout, for scripts


@dataclass(frozen=True, eq=False)
class CutResult:
    """What the cuts gave."""

    numbers: dict  # as in cut.json
    objects: dict[Cell, np.ndarray]  # on the region, of the first replicate
    reference: np.ndarray  # likewise, the full reconstruction
    folder: Path

    @property
    def methods(self) -> list[str]:
        return list(dict.fromkeys(row["method"] for row in self.numbers["map"]))

    def pictures(self) -> dict[str, str]:
        """File name -> caption, as drawn into the folder; the map first."""
        of = self.numbers
        rows = of["map"]
        figure = cut_map.cut_map(rows, self.methods, column_name, of["unit"])
        figures.saved(figure, self.folder / "map.png")
        found = {
            "map.png": "Median over the replicates and, in brackets, their range, against the full"
            " reconstruction."
        }
        shares = [
            f"{share:.3g} of the photons" for share in dict.fromkeys(r["share"] for r in rows)
        ]
        columns = list(dict.fromkeys(column_name(row) for row in rows))
        names = {(row["share"], row["overlap"]): column_name(row) for row in rows}
        for method in self.methods:
            images = {
                (f"{cell.share:.3g} of the photons", names[cell.share, cell.overlap]): image
                for cell, image in self.objects.items()
                if cell.method == method
            }
            whole = (slice(None), slice(None))
            figure = figures.image_grid(images, shares, columns, self.reference, whole, "full")
            name = f"objects_{re.sub(r'[^0-9A-Za-z]', '-', method)}.png"
            figures.saved(figure, self.folder / name)
            found[name] = f"Phase by {method}; on top the full reconstruction."
        return found


def cut_scan(source: str | Path, output: str | Path | None = None, **settings) -> CutResult:
    """What a scan loses if it is cut, all files written; settings as of `fly64 cut`."""
    return run(CutOptions(source=Path(source), output=output and Path(output), **settings))


def run(options: CutOptions) -> CutResult:
    """Cut, reconstruct, compare, write. Raises PtychoError."""
    folder = options.output or Path(f"{options.source.name.partition('.')[0]}_cut")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output {folder} is a file; give the name of a folder")
    torch.set_num_threads(options.threads)
    of = _Full.of(options.source)
    methods = _methods(options, of.raw)
    overlaps, left_out = possible_overlaps(options.overlaps, of.fitted.scan.positions, of.D)
    cells = list(all_cells(options.shares, overlaps, methods, options.replicates))
    rows, objects = [], {}
    with folder_lock(folder):
        noise = of.resolved(_noise(of, methods[0], options.threads, folder / "noise.json"))
        for cell in tqdm(cells, desc="cuts", unit=""):
            path = folder / "cells" / cell.name
            found = stored(path, of.key, cell)
            if found is None:
                found = _made(of, cell, options.threads)
                store(path, of.key, *found)
            rows.append(of.resolved(found[0]))
            if cell.replicate == 0:
                objects[cell] = found[1]
        about = of.raw.metadata.get("reconstruction", {})
        numbers = {
            "source": str(options.source),
            "data_sha256": of.key["data_sha256"],
            "options": {key: to_dict(options)[key] for key in field_names(CutSettings)},
            "reference": {"made_by": about.get("best"), "noise": noise},
            "unit": of.unit,
            "probe_diameter_px": of.D,
            "patterns": {"cut": of.fitted.n, "held_out": of.judging.n},
            "left_out": [{"overlap": one, "reason": why} for one, why in left_out.items()],
            "rows": rows,
            "map": summed(rows, noise),
            "versions": software_versions(),
        }
        numbers["assumptions"] = assumptions(numbers)
        result = CutResult(numbers, objects, of.reference, folder)
        _write(result)
    return result


def command(options: CutOptions) -> int:
    """Cut, and print what was found."""
    result = run(options)
    if options.json:
        print(json_text(read_json(result.folder / "cut.json"), indent=2))
        return 0
    print(in_words(result.numbers))
    print(f"results: {result.folder / 'index.html'}")
    return 0


@dataclass(frozen=True, eq=False)
class _Full:
    """A scan with its full reconstruction, and what of it every cut shares."""

    raw: RawDataTorch
    fitted: RawDataTorch  # nine tenths of the patterns, which are cut
    judging: RawDataTorch  # the last tenth
    region: Region
    reference: np.ndarray  # the object inside the region, on the detector's grid
    pixel: float  # of that grid, in `unit`
    unit: str
    D: float  # diameter of the probe, px
    key: dict[str, str]  # what is stored was made of these data by this version

    @classmethod
    def of(cls, source: Path) -> "_Full":
        """The scan of a file. Raises ConfigError where its object is no reconstruction of it, or
        its patterns are too few."""
        raw = open_scan(source)
        kind = raw.metadata.get("object_kind", "not stated")
        if kind != "reconstruction":
            how = f"run fly64 reconstruct {source}, and give the reconstruction.npz that it writes"
            raise ConfigError(f"{source}: its object is no full reconstruction ({kind}); {how}")
        if raw.n < (least := 2 * HELD_OUT_EVERY):
            text = f"{source} has {raw.n} patterns, {least} or more are needed: every tenth is kept"
            raise ConfigError(f"{text} out of all cuts to judge them")
        held = np.arange(raw.n) % HELD_OUT_EVERY == 0
        region = region_of(raw)
        reference = on_detector_grid(raw.scan.object_guess, raw)[region].astype(np.complex64)
        D = outer_half_maximum_diameter(raw.scan.probe)
        key = {"data_sha256": sha256_file(source), "fly64": version("fly64")}
        parts = raw.subset(~held), raw.subset(held)
        return cls(raw, *parts, region, reference, *_pixel(raw), D, key)

    def resolved(self, row: dict) -> dict:
        """A row with its resolution, half a period; None where no detail agrees."""
        frequency = row["frc_half"]
        return row | {"resolution": self.pixel / frequency if frequency else None}


def _made(of: _Full, cell: Cell, threads: int) -> tuple[dict, np.ndarray]:
    """A cell's row and its object in the region."""
    part, images = cut(of.fitted, cell, of.D)
    found = reconstructed(part, cell.method, threads)
    image = on_detector_grid(found.object, of.raw)[of.region].astype(np.complex64)
    measured = {
        "images": len(images),
        "overlap_measured": linear_overlap(part.scan.positions, of.D),
        "dose_share": cell.share * len(images) / of.fitted.n,
        "deviance_held_out": data_deviance(torch.from_numpy(found.object), of.judging),
        "cpu_seconds": found.cost.cpu_seconds,
    }
    return cell._asdict() | measured | agreement(image, of.reference), image


def _methods(options: CutOptions, raw: RawDataTorch) -> tuple[str, ...]:
    """The methods asked for, which need no training; of the usual ones those that serve here."""
    for name in options.methods:
        if network_of(name):
            how = "give methods that need none, such as classical"
            raise ConfigError(f"methods={name!r} needs a network trained for each cut; {how}")
    if options.methods:
        return options.methods
    try:
        shipped(raw.N, raw.M)
    except ConfigError as error:
        print(f"classical only: {error}", file=sys.stderr, flush=True)
        return ("classical",)
    return "classical", "pinn-sim+refine"


def _noise(of: _Full, method: str, threads: int, path: Path) -> dict:
    """The reference's own noise, found again where it was found before."""
    about = of.key | {"method": method}
    if path.is_file() and (stored := read_json(path))["about"] == about:
        return stored["noise"]
    noise = noise_of_reference(of.raw, of.region, method, threads)
    write_json(path, {"about": about, "noise": noise})
    return noise


def _pixel(raw: RawDataTorch) -> tuple[float, str]:
    """The object's pixel on the detector's grid and its unit, px where the file does not say."""
    pixel = raw.metadata.get("object_pixel_nm")
    if type(pixel) in (int, float) and isfinite(pixel) and pixel > 0:
        return pixel * raw.M / raw.N, "nm"
    return 1.0, "px"


def _write(result: CutResult) -> None:
    """All files, cut.json last."""
    folder, numbers = result.folder, result.numbers
    with atomic_path(folder / "cut.csv") as temporary:
        DataFrame(numbers["rows"]).to_csv(temporary, index=False)
    table, _, said = in_words(numbers).partition("\n\n")
    summary = {"table": table, "said": said.splitlines()}
    write_page("cut", folder / "index.html", result.pictures(), of=numbers, **summary)
    write_json(folder / "cut.json", numbers)
