"""What a study folder holds, as rows, and what the rows say: photons needed, standing to flat and
limits, gaps.

    DIR/replicate_<r>/phase_g/dose_*/<view>/comparison.json    rows of methods and limits
    (fly64lib.comparison)
    DIR/replicate_<r>/**/overlap_figures.json                  measured overlap (fly64lib.overlap)
    DIR/replicate_<r>/phase_e/dose_*/<view>/*/metrics.json     trainings, or
    phase_e/training_manifest.json

Every statement of the report is computed here from rows; none is written by hand. Rows are of one
setting if they share specimen, simulation grid and gauge; settings stand beside each other and are
never pooled."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fly64lib.design import CONTROL_VIEWS, VIEWS, dose_folder
from fly64lib.evaluation.gauge import Region
from fly64lib.evaluation.judgement import region_of
from fly64lib.methods.by_name import base_of, method_of, network_of
from fly64lib.plots.curves import REFERENCES
from fly64lib.reconstruction import load_object
from fly64lib.registries import METHODS
from ptycho_torch.errors import DataContractError
from ptycho_torch.files import read_json
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge

Setting = tuple[str, str, str]


@dataclass(frozen=True)
class Study:
    """All rows of a study folder and what stands beside them."""

    root: Path
    rows: list[
        dict
    ]  # of comparison.json, with `overlap` (or None) and `folder` (of the replicate, relative to root)
    trainings: list[dict] = field(default_factory=list)
    versions: dict[str, set[str]] = field(
        default_factory=lambda: defaultdict(set)
    )  # all that wrote rows
    failed: list[str] = field(
        default_factory=list
    )  # jobs that say so themselves, skipped or failed

    def settings(self) -> dict[Setting, list[dict]]:
        """Rows by (specimen, simulation, gauge)."""
        found: dict[Setting, list[dict]] = defaultdict(list)
        for row in self.rows:
            found[row["specimen"], row["simulation"], row["gauge"]].append(row)
        return dict(found)


def collect(study_dir: str | Path) -> Study:
    """Read a study folder. Raises DataContractError if there are no rows, a row twice, or scans of
    several sizes."""
    root = Path(study_dir)
    study, seen = Study(root, []), set()
    for folder in sorted(path.parent for path in root.rglob("phase_g") if path.is_dir()):
        place = folder.relative_to(root).as_posix()
        figures = next(
            (read_json(path) for path in sorted(folder.glob("*/overlap_figures.json"))), {}
        )
        for path in sorted(folder.glob("phase_g/dose_*/*/comparison.json")):
            written = read_json(path)
            for name, version in written["versions"].items():
                study.versions[name].add(version)
            for row in written["rows"]:
                key = tuple(
                    row[name]
                    for name in (
                        "specimen",
                        "simulation",
                        "gauge",
                        "replicate",
                        "dose",
                        "view",
                        "method",
                    )
                )
                if key in seen:
                    raise DataContractError(
                        f"{path}: {', '.join(map(str, key))} is in {root} twice; a study folder"
                        " holds each condition once: remove one"
                    )
                seen.add(key)
                measured = (
                    figures.get(dose_folder(row["dose"]), {}).get(row["view"], {}).get("test", {})
                )
                study.rows.append(
                    row
                    | {
                        "folder": place,
                        "overlap": measured.get("between_images", {}).get("mean_disc_overlap"),
                    }
                )
        study.trainings.extend(_trainings(folder))
        study.failed.extend(f"{place}: {text}" for text in _failures(folder))
    study.failed.extend(
        f"failed notebook: {path.relative_to(root)}"
        for path in sorted(root.rglob("*.failed.ipynb"))
    )
    if not study.rows:
        raise DataContractError(
            f"{root}: no phase_g/dose_*/<view>/comparison.json in it; expected the results of a"
            " study: run the phases up to python -m fly64lib.comparison first"
        )
    for setting, rows in study.settings().items():
        sizes = {row["images"] for row in rows if row["view"] == "baseline"}
        if len(sizes) > 1:
            raise DataContractError(
                f"{root}: the baselines of {', '.join(setting)} have {sorted(sizes)} images;"
                " studies of different size (quick, full) are never compared: give each a folder"
                " of its own"
            )
    order = [*VIEWS, *CONTROL_VIEWS]
    study.rows.sort(
        key=lambda row: (
            row["replicate"],
            row["dose"],
            order.index(row["view"]) if row["view"] in order else 99,
        )
    )
    return study


def _trainings(folder: Path) -> list[dict]:
    found = [
        {
            "method": _trained_for(
                path.relative_to(folder / "phase_e").parent.as_posix(), run["rows"][0]["method"]
            ),
            **run["training"],
        }
        for path in sorted(folder.glob("phase_e/**/metrics.json"))
        for run in read_json(path)["runs"]
    ]
    manifest = folder / "phase_e" / "training_manifest.json"
    if not found and manifest.is_file():
        for job in read_json(manifest)["jobs"]:
            if job["status"] == "complete":
                found.append({"method": method_of(job["config"]["model"]["objective"]), **job})
    return found


def _trained_for(folder: str, method: str) -> str:
    """The method that a network was trained for. One that serves all conditions is told by its
    folder: what its own notebook scored it as (`method`) is the name of the networks of single
    conditions."""
    shared = {
        network_of(name).folder(0, ""): name
        for name in METHODS
        if network_of(name) and network_of(name).scope == "replicate" and name == base_of(name)
    }
    return shared.get(folder, method)


def _failures(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.glob("phase_[ef]/*_manifest.json")):
        found += [
            f"dose {job['dose']:g}, {job['view']}, {job.get('method', 'training')}:"
            f" {job.get('error', 'failed')}"
            for job in read_json(path)["jobs"]
            if job["status"] == "failed"
        ]
    for path in sorted(folder.glob("phase_*/skip_summary.json")):
        written = read_json(path)
        found += [
            f"dose {job['dose']:g}, {job['view']}: skipped, {job['reason']}"
            for job in (written["skipped"] if isinstance(written, dict) else written)
        ]
    return found


def methods(rows: Sequence[Mapping]) -> list[str]:
    """Names of the reconstructions in order of appearance: neither limits nor references."""
    return [name for name in dict.fromkeys(row["method"] for row in rows) if name not in REFERENCES]


def select(rows: Sequence[Mapping], **wanted: object) -> list[Mapping]:
    """Rows whose entries equal (or, for a tuple, are among) what is wanted."""
    return [
        row
        for row in rows
        if all(
            row[key] in value if isinstance(value, tuple) else row[key] == value
            for key, value in wanted.items()
        )
    ]


@dataclass(frozen=True)
class Needed:
    """Photons per object pixel for a target: "=" interpolated, "<" at the lowest dose already, ">"
    not at the highest."""

    kind: str
    photons: float

    def __str__(self) -> str:
        return {"=": "", "<": "≤ ", ">": "> "}[self.kind] + number(self.photons)


def needed(points: Sequence[tuple[float, float]], target: float) -> Needed:
    """From which photons per pixel on the metric is at the target or above, at every larger
    measured one too.

    `points` are (photons per pixel, metric) of one method, view and replicate; between the two
    doses around the crossing the metric is taken as linear in log(photons)."""
    points = sorted(points)
    failing = [k for k, (_, value) in enumerate(points) if value < target]
    if not failing:
        return Needed("<", points[0][0])
    if failing[-1] == len(points) - 1:
        return Needed(">", points[-1][0])
    (x0, y0), (x1, y1) = points[failing[-1] : failing[-1] + 2]
    return Needed("=", x0 * (x1 / x0) ** ((target - y0) / (y1 - y0)))


def needed_photons(
    rows: Sequence[Mapping], metric: str, target: float
) -> dict[tuple[str, str], list[Needed]]:
    """(method, view) -> the need of each replicate, for every method and limit that has the
    metric."""
    points: dict[tuple, list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.get(metric) is not None and row["method"] not in ("flat", "truth"):
            points[row["method"], row["view"], row["replicate"]].append(
                (row["photons_per_pixel"], row[metric])
            )
    found: dict[tuple[str, str], list[Needed]] = defaultdict(list)
    for (method, view, _), values in points.items():
        found[method, view].append(needed(values, target))
    return dict(found)


def need_text(needs: Sequence[Needed]) -> str:
    """The needs of replicates in one cell: median (range), or, where they differ in kind, each kind
    with its share."""
    if not needs:
        return "not run"
    parts = []
    for kind in ("<", "=", ">"):
        same = sorted(need.photons for need in needs if need.kind == kind)
        if same:
            text = str(
                Needed(kind, float(np.median(same)))
            )  # of bounds too: their median bounds the median
            text += (
                f" ({number(same[0])}–{number(same[-1])})" if kind == "=" and len(same) > 1 else ""
            )
            parts.append(
                text + (f" in {len(same)} of {len(needs)}" if len(same) < len(needs) else "")
            )
    return "; ".join(parts)


def best_view(
    needs: Mapping[tuple[str, str], Sequence[Needed]], method: str
) -> tuple[str, float] | None:
    """The named view in which every replicate of a method reaches the target with the fewest
    photons, and that median."""
    reached = {
        view: float(np.median([need.photons for need in found]))
        for (name, view), found in needs.items()
        if name == method and view in VIEWS and all(need.kind != ">" for need in found)
    }
    return min(reached.items(), key=lambda item: item[1]) if reached else None


def standing(rows: Sequence[Mapping]) -> list[dict]:
    """Per method, over the named views: in how many conditions above flat, above the limits, and
    best."""
    named = select(rows, view=VIEWS)
    cells: dict[tuple, dict[str, Mapping]] = defaultdict(dict)
    for row in named:
        cells[row["replicate"], row["dose"], row["view"]][row["method"]] = row
    best = Counter(
        max((row["phase_psnr"], name) for name, row in cell.items() if name not in REFERENCES)[1]
        for cell in cells.values()
        if any(name not in REFERENCES for name in cell)
    )
    found = []
    for name in methods(named):
        own = [cell for cell in cells.values() if name in cell]
        entry = {
            "method": name,
            "conditions": len(own),
            "best": best[name],
            "below_flat": [
                condition_text(cell[name])
                for cell in own
                if cell[name]["phase_psnr"] <= cell["flat"]["phase_psnr"]
            ],
        }
        entry["predicts"] = sum(
            cell[name]["deviance_held_out"] < cell["flat"]["deviance_held_out"] for cell in own
        )
        for limit in ("cramer_rao", "bayesian"):
            gaps = [
                cell[name]["phase_psnr"] - cell[limit]["phase_psnr"]
                for cell in own
                if limit in cell
            ]
            entry[limit] = {
                "compared": len(gaps),
                "above": sum(gap > 0 for gap in gaps),
                "median_db": float(np.median(gaps)) if gaps else None,
            }
        found.append(entry)
    return found


def missing(rows: Sequence[Mapping]) -> list[str]:
    """Conditions that others' rows lead one to expect: every dose x named view x method x replicate
    seen anywhere."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    have = {(row["replicate"], row["dose"], row["view"], row["method"]) for row in rows}
    found = [f"view {view}: in no condition" for view in VIEWS if not select(rows, view=view)]
    for replicate in sorted({row["replicate"] for row in rows}):
        for dose in sorted({row["dose"] for row in rows}):
            for view in (view for view in VIEWS if select(rows, view=view)):
                gone = [name for name in names if (replicate, dose, view, name) not in have]
                if gone:
                    place = {"replicate": replicate, "dose": dose, "view": view}
                    found.append(
                        f"{condition_text(place)}: {'all' if gone == names else ', '.join(gone)}"
                    )
    return found


def condition_text(row: Mapping) -> str:
    return f"dose {row['dose']:,.0f} {row['view'].replace('_', ' ')}, replicate {row['replicate']}"


def number(value: float | None) -> str:
    """Three digits, thousands separated; what does not exist is a dash."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def load_condition(study: Study, row: Mapping) -> tuple[dict[str, np.ndarray], np.ndarray, Region]:
    """Objects by method, truth and scored region of a row's condition, from phases C and F.

    Raises DataContractError or PtychoError where a file is gone or is not what its result says.
    """
    folder = study.root / row["folder"]
    raw = PyTorchMemmapBridge(
        folder / "phase_c" / dose_folder(row["dose"]) / "patched_test.npz"
    ).raw_data_torch
    results = sorted(
        (folder / "phase_f" / dose_folder(row["dose"]) / row["view"]).glob("*/result.json")
    )
    images = {path.parent.name: load_object(path.parent) for path in results}
    return (
        {name: image for name, image in images.items() if name not in REFERENCES},
        raw.scan.object_guess,
        region_of(raw),
    )
