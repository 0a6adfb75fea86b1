"""Phase D: overlap views and controls of phase C's data, and their measured overlap.

    python -m fly64lib.overlap --phase-c-root C --output-root D --artifact-root A [--views dense 0.5
    --s-img 0.5 --n-groups 200 ...]

Writes `D/dose_1000/{view}/{view}_{split}.npz` (DATA-001), `D/run_manifest.json`,
`D/skip_summary.json`; under A the figures as `dose_1000/{view}/overlap_{split}.json`, all of them
in `overlap_figures.json`, `overlap/{view}_{split}.png`. What views hold
(:mod:`fly64lib.simulation.views`) depends on positions, seed and replicate, and is the same for all
doses and methods. A file that the manifest vouches for, made from the same inputs, is not made
again; doses and views may be made one after another.

The fluence controls need no second simulation. Keeping each photon of a Poisson count with
probability p, here the overlap view's number of images over the baseline's, gives a Poisson count
at p times the dose; the probe is scaled by sqrt(p). So the overlap view and its controls bring the
same photons to the specimen: in few exposures in tight groups, in few spread ones, or in all. What
then differs between them is overlap; between control and baseline it is dose. Equal is the total:
groups sit at the scan's edge more often, so photons per pixel inside it differ by some 10 %."""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from fly64lib.design.study import (
    SPLITS,
    Doses,
    ViewDesign,
    controlled_view,
    dose_folder,
    part_of,
    split_file,
    view_file,
)
from fly64lib.plots.figures import draw_view
from fly64lib.simulation.manifest import Manifest, intact, sha256_json
from fly64lib.simulation.overlap_measures import fluence_figures, geometry_figures, scanned_region
from fly64lib.simulation.probes import Modes, outer_half_maximum_diameter, power_radius
from fly64lib.simulation.views import View, choose_views
from ptycho_torch.commands import command_line
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.fields import config, to_dict
from ptycho_torch.files import folder_lock, read_json, sha256_file, write_json
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.noise import thin_counts

SKIPPED, FIGURES = "skip_summary.json", "overlap_figures.json"
_CHUNK = 128


@dataclass(frozen=True, eq=False)
class _Plan:
    """What all doses of a split share."""

    positions_px: Float[np.ndarray, "n 2"]
    views: list[View]
    geometry: list[dict]  # figures 1 to 3 of each view
    skipped: dict[str, str]  # view -> reason
    diameter_px: float

    @classmethod
    def of(cls, scan: ScanData, design: ViewDesign) -> "_Plan":
        """The plan of a split, from its scan at any dose."""
        positions, K = scan.positions, design.neighbor_count
        diameter, apart = reach(scan.probe, design)
        views, skipped = choose_views(positions, diameter, design, apart)
        figures = [geometry_figures(positions[v.images], v.groups, diameter, K) for v in views]
        return cls(positions, views, figures, skipped, diameter)

    def figures(self, scan: ScanData) -> Iterator[tuple[View, dict]]:
        """Each view and its four figures at the scan's dose."""
        region = scanned_region(self.positions_px)
        for view, geometry in zip(self.views, self.geometry, strict=True):
            positions = self.positions_px[view.images]
            probe = scan.probe * np.float32(view.keep**0.5)
            fluence = fluence_figures(positions, probe, scan.canvas_shape, region)
            yield view, geometry | {"fluence": fluence}


def reach(probe: Modes, design: ViewDesign) -> tuple[float, float]:
    """Its diameter D, and the distance from which on two of it light no pixel together, px.

    Rounded: probes of several doses differ by rounding, which must not reach the selection."""
    diameter = design.probe_diameter_px or round(outer_half_maximum_diameter(probe), 3)
    return diameter, round(2 * power_radius(probe), 3)  # the guard band's measure of lit pixels


def generate_overlap_views(
    phase_c_root: str | Path,
    output_root: str | Path,
    artifact_root: str | Path,
    design: ViewDesign,
    *,
    doses: Doses | None = None,
    progress: bool = False,
    **choices: object,
) -> dict:
    """Write the views of every dose of phase C (or of `doses`) and return the manifest.

    `choices` replace values of the design. D is the probe's outer half-maximum diameter, unless the
    design gives it. A view too small for one group is skipped with its reason. Raises ConfigError
    for values out of range or a replicate that is not phase C's, DataContractError for missing or
    broken files and for doses whose positions differ."""
    design = replace(part_of(ViewDesign, design), **choices)
    source_root, root, artifacts = map(Path, (phase_c_root, output_root, artifact_root))
    doses = _doses(source_root, doses)
    plans: dict[str, _Plan] = {}
    with ExitStack() as locks:
        for folder in sorted({root.resolve(), artifacts.resolve()}):
            locks.enter_context(folder_lock(folder))
        manifest = Manifest(root, "D", to_dict(design), varying=("views",))
        drawn = intact(artifacts, manifest.earlier.get("artifacts", {}))
        bundle = read_json(artifacts / FIGURES) if FIGURES in drawn else {}
        again = (*design.views, "custom")  # decided anew, for these doses
        earlier, skipped = manifest.earlier.get("skipped", []), []
        for row in earlier:
            if row["dose"] not in doses or controlled_view(row["view"]) not in again:
                skipped.append(row)
        jobs = list(product(doses, SPLITS))
        for dose, split in tqdm(jobs, desc="phase D", unit=" file", disable=not progress):
            path = split_file(source_root, dose, split)
            scan = read_scan(path, load_truth=True)
            if (found := scan.metadata.get("replicate", design.replicate)) != design.replicate:
                text = f"{path} is of replicate {found}, the views are asked for replicate"
                text += f" {design.replicate}; a replicate moves noise, view selection and initial"
                raise ConfigError(f"{text} weights together: pass its own")
            plan = plans[split] = plans.get(split) or _Plan.of(scan, design)
            if not np.array_equal(scan.positions, plan.positions_px):
                text = f"{path}: its positions are not those of {dose_folder(doses[0])}; expected"
                advice = "run phase C again, for all doses into one folder"
                raise DataContractError(f"{text} one scan for all doses: {advice}")
            for view, reason in plan.skipped.items():
                stale = view_file("", "", dose, view, split).as_posix()
                manifest.files.pop(stale, None)
                (root / stale).unlink(missing_ok=True)
                skipped.append({"dose": dose, "view": view, "split": split, "reason": reason})
            file = path.relative_to(source_root).as_posix()
            parent = {"dose": dose, "file": file, "sha256": sha256_file(path)}
            of_dose = bundle.setdefault(dose_folder(dose), {})
            for view, figures in plan.figures(scan):
                of_dose.setdefault(view.name, {})[split] = figures
                if view.name != "baseline":
                    _write_view(manifest, scan, view, figures, parent, split)
        write_json(root / SKIPPED, skipped)
        drawn |= _write_artifacts(artifacts, plans, bundle)
        return manifest.write(skipped=skipped, artifacts=drawn)


def thinned_scan(scan: ScanData, keep: float, seed: list[int], source: Path) -> ScanData:
    """The scan as `keep` times the dose would have measured it: counts thinned, probe * sqrt(keep),
    `keep` times the background.

    Each pattern has a seed of its own out of `seed`. Counts that are not whole are refused."""
    raw, diffraction = RawDataTorch(scan, source), np.empty(scan.diffraction.shape, np.float32)
    seeds = np.random.SeedSequence(seed).generate_state(scan.n, np.uint64).astype(np.int64)
    for chunk in torch.arange(scan.n).split(_CHUNK):
        thinned = thin_counts(raw.counts(chunk), keep, torch.from_numpy(seeds)[chunk])
        diffraction[chunk.numpy()] = thinned.sqrt().numpy()
    background = None if scan.background is None else scan.background * np.float32(keep)
    fainter = {"probe": scan.probe * np.float32(keep**0.5), "background": background}
    return replace(scan, diffraction=diffraction, **fainter)


def _write_view(
    manifest: Manifest, scan: ScanData, view: View, figures: dict, parent: dict, split: str
) -> None:
    """Write a view's file, unless the manifest vouches for one of the same recipe."""
    dose = parent["dose"]
    seed = [view.selection["seed"], int(dose), *f"{view.name} {split}".encode()]
    chosen = b"".join(part.tobytes() for part in (view.images, view.groups) if part is not None)
    sha256 = hashlib.sha256(chosen).hexdigest()
    selection = view.selection | {"photons_kept": view.keep, "sha256": sha256}
    recipe = {
        "view": view.name,
        "gridsize": 1 if view.groups is None else round(view.groups.shape[1] ** 0.5),
        "overlap": figures,
        "parent": parent,
        "selection": selection | ({"thinning_seed": seed} if view.keep < 1 else {}),
    }
    name = view_file("", "", dose, view.name, split).as_posix()
    known, recipe_sha256 = manifest.files.get(name), sha256_json(recipe)
    if known and known["recipe_sha256"] == recipe_sha256:
        return
    seen = scan.subset(view.images)
    if view.keep < 1:
        seen = thinned_scan(scan, view.keep, seed, Path(parent["file"]))
    measured = {"dose": dose * view.keep, "photons_per_exposure": mean_photons(seen.diffraction)}
    metadata = scan.metadata | recipe | measured
    write_scan(manifest.root / name, replace(seen, groups=view.groups, metadata=metadata))
    row = {"dose": dose, "view": view.name, "split": split, "images": seen.n}
    manifest.add(name, **row, groups=figures["groups"], recipe_sha256=recipe_sha256)


def _write_artifacts(root: Path, plans: dict[str, _Plan], bundle: dict) -> dict[str, str]:
    """Figures and pictures under `root`; their SHA-256 by name."""
    write_json(root / FIGURES, bundle)
    names = [FIGURES]
    for dose, views in bundle.items():
        for view, splits in views.items():
            for split, figures in splits.items():
                names.append(f"{dose}/{view}/overlap_{split}.json")
                place = {"dose": float(dose.removeprefix("dose_")), "view": view, "split": split}
                write_json(root / names[-1], place | figures)
    for split, plan in plans.items():
        for view in plan.views:
            if view.keep == 1:  # fluence views lie where the baseline lies
                names.append(f"overlap/{view.name}_{split}.png")
                title = f"{view.name}, {split}"
                draw_view(root / names[-1], plan.positions_px, view, plan.diameter_px, title)
    return {name: sha256_file(root / name) for name in names}


def _doses(root: Path, doses: Doses | None) -> list[float]:
    """The doses to work on, ascending, each with both splits: `doses`, or all that there are."""
    present = (path.name.removeprefix("dose_") for path in root.glob("dose_*"))
    wanted = filter(str.isdigit, present) if doses is None else doses
    wanted = sorted({float(dose) for dose in wanted})
    files = (split_file(root, dose, split) for dose, split in product(wanted, SPLITS))
    absent = [str(path) for path in files if not path.is_file()]
    if absent or not wanted:
        missing = ", ".join(absent) or root / "dose_*"
        advice = f"make them: python -m fly64lib.generation --output-root {root}"
        raise DataContractError(f"{missing}: no such file; expected the data of phase C; {advice}")
    return wanted


@config
class Options:
    """Phase D: the overlap views of every dose and split of phase C, and their measured overlap."""

    phase_c_root: Path  # folder with dose_*/patched_*.npz
    output_root: Path  # folder for the views
    artifact_root: Path  # folder for figures and pictures
    doses: Doses | None = None  # only these; None: all there are
    design: ViewDesign = ViewDesign()


@command_line("python -m fly64lib.overlap")
def main(options: Options) -> int:
    """Make the views that the options describe, and print what there is."""
    manifest = generate_overlap_views(**vars(options), progress=True)
    for name, row in sorted(manifest["files"].items()):
        images = f"{row['images']} images in {row['groups']} groups"
        print(f"{name}  {images}  sha256 {row['sha256'][:12]}")
    for row in manifest["skipped"]:
        print(f"skipped: dose {row['dose']:g}, {row['view']}, {row['split']}: {row['reason']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
