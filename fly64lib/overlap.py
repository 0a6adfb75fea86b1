"""Phase D: the overlap views of every dose and split of phase C, their control views, and their
measured overlap.

    python -m fly64lib.overlap --phase-c-root C --output-root D --artifact-root A [--s-img 0.5
    --n-groups 200 ...]

Writes `D/dose_1000/{view}/{view}_{split}.npz` (DATA-001), `D/run_manifest.json`,
`D/skip_summary.json`; under A the figures as `dose_1000/{view}/overlap_{split}.json`, all of them
in `overlap_figures.json`, `overlap/{view}_{split}.png`. :mod:`fly64lib.simulation.views` says which
views there are. What they hold depends on positions, seed and replicate, and is the same for all
doses and methods. A file that the manifest vouches for, made from the same inputs, is not made
again.

The fluence controls need no second simulation. Keeping each photon of a Poisson count with
probability p, here the named view's number of images over the baseline's, gives a Poisson count at
p times the dose; the probe is scaled by sqrt(p). So the named view and its controls bring the same
photons to the specimen: in few exposures in tight groups, in few spread ones, or in all. What then
differs between them is overlap; between control and baseline it is dose. Equal is the total: groups
sit at the scan's edge more often than its inside, so photons per pixel inside it differ by some 10
%."""

import argparse
import hashlib
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from fly64lib.design import SPLITS, StudyDesign, dose_folder, split_file, view_file
from fly64lib.plots.views import draw_view
from fly64lib.simulation.overlap_measures import fluence_figures, geometry_figures, scanned_region
from fly64lib.simulation.probes import outer_half_maximum_diameter
from fly64lib.simulation.views import View, choose_views
from ptycho_torch.commands import run_command
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.fields import check_range
from ptycho_torch.files import folder_lock, json_text, read_json, sha256_file, write_json
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.noise import thin_counts
from ptycho_torch.versions import software_versions

MANIFEST, SKIPPED, FIGURES = "run_manifest.json", "skip_summary.json", "overlap_figures.json"
_CHUNK = 128


@dataclass(frozen=True, eq=False)
class _Plan:
    """What all doses of a split share."""

    positions_px: np.ndarray
    views: list[View]
    geometry: list[dict]  # figures 1 to 3 of each view
    skipped: dict[str, str]  # view -> reason
    diameter_px: float

    @classmethod
    def of(
        cls, scan: ScanData, design: StudyDesign, diameter_px: float | None, **options: object
    ) -> "_Plan":
        """The plan of a split's scan of any dose; `options` go to
        :func:`fly64lib.simulation.views.choose_views`."""
        positions = _positions(scan)
        # To 1e-3 px: probes of several doses differ by rounding, which must not reach the
        # selection.
        diameter = diameter_px or round(outer_half_maximum_diameter(scan.probe), 3)
        views, skipped = choose_views(positions, diameter, design, **options)
        geometry = [
            geometry_figures(positions[view.images], view.groups, diameter, design.neighbor_count)
            for view in views
        ]
        return cls(positions, views, geometry, skipped, diameter)


def generate_overlap_views(
    phase_c_root: str | Path,
    output_root: str | Path,
    artifact_root: str | Path,
    design: StudyDesign,
    *,
    gridsize: int = 2,
    s_img: float | None = None,
    n_groups: int | None = None,
    neighbor_count: int | None = None,
    probe_diameter_px: float | None = None,
    rng_seed_subsample: int | None = None,
    doses: tuple[float, ...] | None = None,
    controls: bool = True,
    progress: bool = False,
) -> dict:
    """Write the views of every dose of phase C (or of `doses`) and return the manifest.

    Of the design count overlaps, neighbor_count, seeds and replicate; `neighbor_count` and
    `rng_seed_subsample` replace its values. D is the probe's outer half-maximum diameter, unless
    `probe_diameter_px` is given.

    A view too small for one group is skipped with its reason. Raises ConfigError for values out of
    range or a replicate that is not phase C's, DataContractError for missing or broken files and
    for doses whose positions differ."""
    given = {"neighbor_count": neighbor_count, "subsample_seed": rng_seed_subsample}
    design = replace(design, **{name: value for name, value in given.items() if value is not None})
    check_range("gridsize", gridsize, 1, 8)
    check_range("s_img", s_img, 1e-6, 1)
    check_range("n_groups", n_groups, 1)
    check_range("probe_diameter_px", probe_diameter_px, 1e-3)
    source_root, output_root, artifact_root = (
        Path(phase_c_root),
        Path(output_root),
        Path(artifact_root),
    )
    doses, started = _doses(source_root, doses), time.perf_counter()
    options = {"gridsize": gridsize, "s_img": s_img, "n_groups": n_groups, "controls": controls}
    decides = ("overlaps", "neighbor_count", "subsample_seed", "grouping_seed", "replicate")
    inputs = (
        options
        | {"probe_diameter_px": probe_diameter_px}
        | {name: getattr(design, name) for name in decides}
    )
    plans: dict[str, _Plan] = {}
    with ExitStack() as locks:
        for folder in sorted({output_root.resolve(), artifact_root.resolve()}):
            locks.enter_context(folder_lock(folder))
        manifest, bundle = _resume(output_root, artifact_root, inputs, doses)
        for dose, split in tqdm(
            [(dose, split) for dose in doses for split in SPLITS],
            desc="phase D",
            unit=" file",
            disable=not progress,
        ):
            path = split_file(source_root, dose, split)
            scan = read_scan(path, load_truth=True)
            _check_replicate(scan, design, path)
            plan = plans[split] = plans.get(split) or _Plan.of(
                scan, design, probe_diameter_px, **options
            )
            if not np.array_equal(_positions(scan), plan.positions_px):
                raise DataContractError(
                    f"{path}: its positions are not those of {dose_folder(doses[0])}; expected one "
                    "scan for all doses: run phase C again, for all doses into one folder"
                )
            for name, reason in plan.skipped.items():
                stale = view_file("", "", dose, name, split).as_posix()
                manifest["files"].pop(stale, None)
                (output_root / stale).unlink(missing_ok=True)
                manifest["skipped"].append(
                    {"dose": dose, "view": name, "split": split, "reason": reason}
                )
            source = {
                "dose": dose,
                "file": path.relative_to(source_root).as_posix(),
                "sha256": sha256_file(path),
            }
            for view, geometry in zip(plan.views, plan.geometry, strict=True):
                figures = geometry | {
                    "fluence": fluence_figures(
                        plan.positions_px[view.images],
                        scan.probe * np.float32(view.keep**0.5),
                        scan.canvas_shape,
                        scanned_region(plan.positions_px),
                    )
                }
                bundle.setdefault(dose_folder(dose), {}).setdefault(view.name, {})[split] = figures
                if view.name != "baseline":
                    name = view_file("", "", dose, view.name, split).as_posix()
                    known = manifest["files"].get(name)
                    manifest["files"][name] = _written(
                        output_root / name, known, scan, view, figures, source, split
                    )
                    write_json(output_root / MANIFEST, manifest)
        manifest["artifacts"] = _write_artifacts(artifact_root, plans, bundle)
        write_json(output_root / SKIPPED, manifest["skipped"])
        manifest["seconds"] = round(time.perf_counter() - started, 2)
        write_json(output_root / MANIFEST, manifest)
    return manifest


def thinned_scan(scan: ScanData, keep: float, seed: list[int], source: Path) -> ScanData:
    """The scan as `keep` times the dose would have measured it: counts thinned binomially, probe
    times sqrt(keep).

    Each pattern has a seed of its own out of `seed`. Counts that are not whole are refused.
    """
    raw, diffraction = (
        RawDataTorch(scan, source),
        np.empty(scan.diffraction.shape, dtype=np.float32),
    )
    seeds = torch.from_numpy(
        np.random.SeedSequence(seed).generate_state(scan.n, np.uint64).astype(np.int64)
    )
    for chunk in torch.arange(scan.n).split(_CHUNK):
        diffraction[chunk.numpy()] = (
            thin_counts(raw.counts(chunk), keep, seeds[chunk]).sqrt().numpy()
        )
    return replace(scan, diffraction=diffraction, probe=scan.probe * np.float32(keep**0.5))


def _written(
    path: Path,
    known: dict | None,
    scan: ScanData,
    view: View,
    figures: dict,
    parent: dict,
    split: str,
) -> dict:
    """The manifest's row of a view's file, which is written unless `known` vouches for one of the
    same recipe."""
    dose = parent["dose"]
    seed = [view.selection["seed"], int(dose), *f"{view.name} {split}".encode()]
    chosen = b"".join(part.tobytes() for part in (view.images, view.groups) if part is not None)
    recipe = {
        "view": view.name,
        "gridsize": 1 if view.groups is None else round(view.groups.shape[1] ** 0.5),
        "overlap": figures,
        "parent": parent,
        "selection": (
            view.selection
            | {
                "photons_kept": view.keep,
                "sha256": hashlib.sha256(chosen).hexdigest(),
            }
        ),
    }
    if view.keep < 1:
        recipe["selection"]["thinning_seed"] = seed
    recipe_sha256 = hashlib.sha256(json_text(recipe, sort_keys=True).encode()).hexdigest()
    if known and known["recipe_sha256"] == recipe_sha256:
        return known
    seen = (
        scan.subset(view.images)
        if view.keep == 1
        else thinned_scan(scan, view.keep, seed, Path(parent["file"]))
    )
    measured = {"dose": dose * view.keep, "photons_per_exposure": mean_photons(seen.diffraction)}
    write_scan(path, replace(seen, groups=view.groups, metadata=scan.metadata | recipe | measured))
    return {
        "dose": dose,
        "view": view.name,
        "split": split,
        "images": seen.n,
        "groups": figures["groups"],
        "sha256": sha256_file(path),
        "recipe_sha256": recipe_sha256,
    }


def _resume(root: Path, artifact_root: Path, inputs: dict, doses: list[float]) -> tuple[dict, dict]:
    """Manifest and figures to go on with: what an earlier run of the same inputs made and is still
    as it left it."""
    manifest = {
        "phase": "D",
        "inputs": inputs,
        "files": {},
        "skipped": [],
        "versions": software_versions(),
    }
    if not (root / MANIFEST).is_file():
        return manifest, {}
    earlier = read_json(root / MANIFEST)
    if any(earlier.get(key) != manifest[key] for key in ("inputs", "versions")):
        return manifest, {}
    manifest["files"] = {
        name: row
        for name, row in earlier["files"].items()
        if (root / name).is_file() and sha256_file(root / name) == row["sha256"]
    }
    manifest["skipped"] = [row for row in earlier["skipped"] if row["dose"] not in doses]
    figures = artifact_root / FIGURES
    vouched = figures.is_file() and earlier.get("artifacts", {}).get(FIGURES) == sha256_file(
        figures
    )
    return manifest, read_json(figures) if vouched else {}


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
        for view in (
            view for view in plan.views if view.keep == 1
        ):  # fluence views lie where the baseline lies
            names.append(f"overlap/{view.name}_{split}.png")
            draw_view(
                root / names[-1],
                plan.positions_px,
                view.images,
                view.groups,
                plan.diameter_px,
                f"{view.name}, {split}",
            )
    return {name: sha256_file(root / name) for name in names}


def _doses(root: Path, doses: tuple[float, ...] | None) -> list[float]:
    """The doses to work on, ascending, each with both splits: `doses`, or all that there are."""
    present = (path.name.removeprefix("dose_") for path in root.glob("dose_*"))
    wanted = sorted(
        {float(dose) for dose in (filter(str.isdigit, present) if doses is None else doses)}
    )
    absent = [
        str(path)
        for dose in wanted
        for split in SPLITS
        if not (path := split_file(root, dose, split)).is_file()
    ]
    if absent or not wanted:
        raise DataContractError(
            f"{', '.join(absent) or root / 'dose_*'}: no such file; expected the data of phase C; "
            f"make them: python -m fly64lib.generation --output-root {root}"
        )
    return wanted


def _positions(scan: ScanData) -> np.ndarray:
    """Patch centres (n, 2) as (y, x), px."""
    return np.stack([scan.ycoords, scan.xcoords], axis=1)


def _check_replicate(scan: ScanData, design: StudyDesign, path: Path) -> None:
    came = scan.metadata.get("replicate", design.replicate)
    if came != design.replicate:
        raise ConfigError(
            f"{path} is of replicate {came}, the views are asked for replicate {design.replicate};"
            " a replicate moves noise, view selection and initial weights together: pass its own"
        )


def main(argv: list[str] | None = None) -> int:
    default = StudyDesign()
    parser = argparse.ArgumentParser(
        prog="python -m fly64lib.overlap", description=__doc__.split("\n")[0]
    )

    def add(name: str, meaning: str, **how: object) -> None:
        spellings = dict.fromkeys([f"--{name}", f"--{name.replace('-', '_')}"])
        parser.add_argument(*spellings, help=meaning, **how)

    add("phase-c-root", "folder with dose_*/patched_*.npz", required=True)
    add("output-root", "folder for the views", required=True)
    add("artifact-root", "folder for figures and pictures", required=True)
    add(
        "gridsize",
        "named views have groups of gridsize^2 images (default: %(default)s)",
        type=int,
        default=2,
    )
    add("s-img", "adds the view `custom`: this share of the images, in (0, 1]", type=float)
    add(
        "n-groups",
        "adds the view `custom`: this many groups (default: one for each image)",
        type=int,
    )
    add(
        "neighbor-count",
        "K nearest images that groups draw from (default: %(default)s)",
        type=int,
        default=default.neighbor_count,
    )
    add(
        "probe-diameter-px", "D (default: the outer half-maximum diameter of the probe)", type=float
    )
    add(
        "rng-seed-subsample",
        "seed of the selection (default: %(default)s)",
        type=int,
        default=default.subsample_seed,
    )
    add("replicate", "replicate of the phase C data (default: %(default)s)", type=int, default=0)
    add(
        "dose",
        "only this dose, may be repeated (default: all there are)",
        type=float,
        action="append",
        dest="doses",
    )
    add(
        "no-controls",
        "leave out the spread and the fluence views",
        action="store_false",
        dest="controls",
    )
    options = vars(parser.parse_args(argv))

    def command() -> int:
        replicate = options.pop("replicate")
        manifest = generate_overlap_views(
            design=StudyDesign(replicate=replicate), progress=True, **options
        )
        for name, row in sorted(manifest["files"].items()):
            print(
                f"{name}  {row['images']} images in {row['groups']} groups  sha256"
                f" {row['sha256'][:12]}"
            )
        for row in manifest["skipped"]:
            print(f"skipped: dose {row['dose']:g}, {row['view']}, {row['split']}: {row['reason']}")
        return 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
