"""What a study folder holds, as rows.

    DIR/replicate_<r>/phase_g/dose_*/<view>/comparison.json    rows (fly64lib.comparison)
    DIR/replicate_<r>/**/overlap_figures.json                  measured overlap (fly64lib.overlap)
    DIR/replicate_<r>/phase_e/dose_*/<view>/*/metrics.json     trainings, or training_manifest.json
    DIR/study.json                                             profile of the sweep, if one made it

Rows are of one setting if they share specimen, simulation grid and gauge; settings stand beside
each other and are never pooled."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pandas import DataFrame

from fly64lib.design.study import (
    CONTROLS,
    OVERLAPS,
    controlled_view,
    dose_folder,
    gridsize_of,
    linear_overlap,
)
from fly64lib.evaluation.gauge import Region
from fly64lib.evaluation.judgement import on_detector_grid, region_of
from fly64lib.methods.by_name import method_of
from fly64lib.reconstruction import load_object
from ptycho_torch.errors import DataContractError
from ptycho_torch.files import read_json
from ptycho_torch.memmap_bridge import open_scan

SETTING = ("specimen", "simulation", "gauge")
CONDITION = ("replicate", "dose", "view")


class StudyRows(NamedTuple):
    """All rows of a study folder and what stands beside them."""

    root: Path
    rows: list[dict]  # of comparison.json, with `overlap` (or None) and `folder` (of the replicate)
    trainings: list[dict]
    versions: dict[str, set[str]]  # of all programs that wrote rows
    failed: list[str]  # jobs that say so themselves, skipped or failed
    profile: dict | None  # name and settings of the sweep; None where phases were run one by one

    @property
    def table(self) -> DataFrame:
        return DataFrame(self.rows)

    @property
    def named_views(self) -> list[str]:
        """The views that the study is to have, controls aside."""
        settings = self.profile["settings"] if self.profile else {}
        return list(settings.get("views", ("baseline", *OVERLAPS)))

    def settings(self) -> dict[tuple[str, str, str], DataFrame]:
        """Rows by (specimen, simulation, gauge)."""
        return {key: rows for key, rows in self.table.groupby(list(SETTING), sort=False)}

    def condition(self, row: Mapping) -> tuple[dict[str, np.ndarray], np.ndarray, Region]:
        """Objects by method, truth and scored region of a row's condition, from phases C and F.

        Raises PtychoError where a file is gone or is not what its result says."""
        folder, dose = self.root / row["folder"], dose_folder(row["dose"])
        raw = open_scan(folder / "phase_c" / dose / "patched_test.npz")
        results = sorted((folder / "phase_f" / dose / row["view"]).glob("*/result.json"))
        folders = [path.parent for path in results if path.parent.name not in ("flat", "truth")]
        images = {folder.name: on_detector_grid(load_object(folder), raw) for folder in folders}
        return images, on_detector_grid(raw.scan.object_guess, raw), region_of(raw)


def collect(study_dir: str | Path) -> StudyRows:
    """Read a study folder. DataContractError for no rows, a row twice or scans of several sizes."""
    root = Path(study_dir)
    profile = root / "study.json"
    study = StudyRows(root, [], [], {}, [], read_json(profile) if profile.is_file() else None)
    for folder in sorted(path.parent for path in root.rglob("phase_g") if path.is_dir()):
        place = folder.relative_to(root).as_posix()
        overlaps = [read_json(path) for path in sorted(folder.glob("*/overlap_figures.json"))]
        for path in sorted(folder.glob("phase_g/dose_*/*/comparison.json")):
            written = read_json(path)
            for name, version in written["versions"].items():
                study.versions.setdefault(name, set()).add(version)
            for row in written["rows"]:
                measured = overlaps[0] if overlaps else {}
                for key in (dose_folder(row["dose"]), row["view"], "test", "between_images"):
                    measured = measured.get(key, {})
                overlap = measured.get("mean_disc_overlap")
                study.rows.append(row | {"folder": place, "overlap": overlap})
        study.trainings.extend(_trainings(folder))
        study.failed.extend(f"{place}: {text}" for text in _failures(folder))
    notebooks = sorted(root.rglob("*.failed.ipynb"))
    study.failed.extend(f"failed notebook: {path.relative_to(root)}" for path in notebooks)
    study.rows.sort(key=lambda row: (row["replicate"], row["dose"], view_order(row["view"])))
    _check(study)
    return study


def view_order(view: str) -> tuple:
    """A key that sorts views: baseline, overlap from the densest, then controls; groups last."""
    named = controlled_view(view)
    kind = CONTROLS.index(view.removeprefix(f"{named}_")) if view != named else -1
    groups = named != "baseline" and gridsize_of(named) > 1
    return kind, groups, -(linear_overlap(named) or 0) if named != "baseline" else -1


def _check(study: StudyRows) -> None:
    if not study.rows:
        raise DataContractError(
            f"{study.root}: no phase_g/dose_*/<view>/comparison.json in it; expected the results of"
            " a study: run the phases up to python -m fly64lib.comparison first"
        )
    key = [*SETTING, *CONDITION, "method"]
    table = study.table
    for row in table[table.duplicated(key)].to_dict("records")[:1]:
        raise DataContractError(
            f"{study.root}: {', '.join(str(row[name]) for name in key)} is there twice; a study"
            " folder holds each condition once: remove one"
        )
    for setting, rows in study.settings().items():
        sizes = sorted(rows.images[rows["view"] == "baseline"].unique())
        if len(sizes) > 1:
            raise DataContractError(
                f"{study.root}: the baselines of {', '.join(setting)} have {sizes} images;"
                " studies of different size (quick, full) are never compared: give each a folder"
            )


def _trainings(folder: Path) -> list[dict]:
    found = []
    for path in sorted(folder.glob("phase_e/**/metrics.json")):
        for run in read_json(path)["runs"]:
            found.append({"method": run["rows"][0]["method"], **run["training"]})
    manifest = folder / "phase_e" / "training_manifest.json"
    if not found and manifest.is_file():
        done = [job for job in read_json(manifest)["jobs"] if job["status"] == "complete"]
        found += [{"method": method_of(job["config"]["model"]["objective"]), **job} for job in done]
    return found


def _failures(folder: Path) -> list[str]:
    found = []
    for path in sorted(folder.glob("phase_[ef]/*_manifest.json")):
        for job in (job for job in read_json(path)["jobs"] if job["status"] == "failed"):
            what, why = job.get("method", "training"), job.get("error", "failed")
            found.append(f"dose {job['dose']:g}, {job['view']}, {what}: {why}")
    for path in sorted(folder.glob("phase_*/skip_summary.json")):
        written = read_json(path)
        for job in written["skipped"] if isinstance(written, dict) else written:
            found.append(f"dose {job['dose']:g}, {job['view']}: skipped, {job['reason']}")
    return found
