"""The study's experiment as pictures, and the photons that each method has used."""

import numpy as np
from pandas import DataFrame

from fly64lib.design.registries import METHODS
from fly64lib.design.study import dose_folder, view_file
from fly64lib.methods.by_name import base_of, network_of
from fly64lib.plots.experiment import patterns, probe_modes, scan_plan
from fly64lib.report.answers import methods, named
from fly64lib.report.dose_map import columns_of, head
from fly64lib.report.gallery import Picture, drawn
from fly64lib.report.rows import StudyRows
from ptycho_torch.files import read_json
from ptycho_torch.memmap_bridge import open_scan

_LEARNED = {
    "poisson": "their counts, no truth",
    "supervised": "their counts and their truth, which no experiment has",
}


def pictures(study: StudyRows, rows: DataFrame) -> list[Picture]:
    """Scan positions at each overlap, a pattern at each dose, the probe: of the first replicate."""
    own = named(rows[rows.replicate == rows.replicate.min()])
    folder = study.root / own.folder.iloc[0]
    roots, doses = (folder / "phase_c", folder / "phase_d"), sorted(own.dose.unique())
    files = {view: view_file(*roots, doses[0], view, "test") for view in columns_of(own)}
    bright = {dose: view_file(*roots, dose, "baseline", "test") for dose in doses}
    gone = [path for path in (*files.values(), *bright.values()) if not path.is_file()]
    if gone:
        where = gone[0].relative_to(study.root)
        return [Picture("The experiment.", reason=f"{where} is not in the study's folder")]
    scans = {view: open_scan(path) for view, path in files.items()}
    first, places = next(iter(scans.values())), {}
    for view, scan in scans.items():
        places[head(view)] = scan.scan.positions
    found = [Picture("The probe's strongest mode.", drawn(probe_modes(first.scan.probe), "webp"))]
    if (diameter := _diameter(study, own)) is not None:
        figure = scan_plan(places, diameter)
        text = "Where the probe goes in the half that is scored. Circles have the probe's diameter;"
        found.append(Picture(f"{text} one is filled.", drawn(figure, "webp"), "wide"))
    counts, middle = {}, None
    for dose, path in bright.items():
        scan = open_scan(path)
        middle = scan.n // 2 if middle is None else middle
        counts[f"{dose:,.0f} photons"] = np.asarray(scan.counts([middle])[0])
    text = "One exposure at each dose, as counted. White: no photon."
    return [*found, Picture(text, drawn(patterns(counts), "webp"), "wide")]


def _diameter(study: StudyRows, rows: DataFrame) -> float | None:
    """D of the views, px of the canvas, as phase D measured with."""
    place = study.root / rows.folder.iloc[0]
    for path in sorted(place.glob("*/overlap_figures.json")):
        measured = read_json(path)[dose_folder(rows.dose.min())]
        return measured[rows["view"].iloc[0]]["test"]["probe_diameter_px"]
    return None


def other_photons(study: StudyRows, rows: DataFrame) -> dict[str, str]:
    """What exposures other than those it reconstructs a method has used, of those that have."""
    trained, found = DataFrame(study.trainings), {}
    for name in methods(rows):
        network = network_of(name) if name in METHODS else None
        if network:
            own = trained[trained.method == base_of(name)] if len(trained) else trained
            count = ""
            if len(own) and "images" in own:
                ends = dict.fromkeys(f"{end:,.0f}" for end in (own.images.min(), own.images.max()))
                count = " to ".join(ends) + " "
            what = _LEARNED.get(network.objective, network.objective)
            text = f"Its network has used {count}exposures of the other half at the same dose too"
            found[name] = f"{text} ({what}); they are not in these numbers."
    return found
