"""One judgement for every method: scored region, metrics, deviance, photons per object pixel.

Where the data file's object is the truth, all metrics of :mod:`fly64lib.evaluation.metrics`; where
it is not (measured data), the data-space deviance alone: no object is scored against what isn't
truth."""

from collections.abc import Mapping

import numpy as np
import torch

from fly64lib.design.registries import METRICS
from fly64lib.evaluation.detector_grid import DetectorGrid
from fly64lib.evaluation.gauge import Region, scored_region
from fly64lib.evaluation.metrics import Pair
from fly64lib.evaluation.scores import score_table
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import RawDataTorch


def region_of(raw: RawDataTorch) -> Region:
    """The scanned region of a data file, px of the detector's grid."""
    grid = DetectorGrid.of(raw)
    x, y = raw.scan.xcoords / grid.finer, raw.scan.ycoords / grid.finer
    return scored_region(x, y, grid.shape(raw.scan.canvas_shape))


def on_detector_grid(image: np.ndarray, raw: RawDataTorch) -> np.ndarray:
    """An object (H, W) on a scan's canvas as it is scored: at the detector's N pixels a patch."""
    whole = torch.from_numpy(np.ascontiguousarray(image))
    return DetectorGrid.of(raw).image(whole).numpy()


def has_truth(raw: RawDataTorch) -> bool:
    """Whether the file's object is the truth, by its own metadata."""
    return raw.metadata.get("object_kind") == "truth"


def judge(
    objects: Mapping[str, np.ndarray],
    raw: RawDataTorch,
    *,
    region: Region | None = None,
    gauge: str = "known_probe",
    held_out: RawDataTorch | None = None,
    probes: Mapping[str, np.ndarray] | None = None,
) -> list[dict]:
    """A row per object, (H, W) complex on the file's canvas, also `flat` and, if known, `truth`.

    They are scored on the detector's grid; where the object's is finer, `phase_psnr_fine` and
    `amplitude_psnr_fine` stand beside, on the object's own. `region`, px of the detector's grid,
    defaults to the file's own scanned region; views of one half share the baseline's. `deviance` is
    the mean Poisson deviance per detector pixel on the file's patterns, `deviance_held_out` on
    those of `held_out`, each under its own one of `probes` where it has one, else the file's;
    photons per pixel (of the detector's grid) are the region's mean fluence.
    """
    region, grid = region or region_of(raw), DetectorGrid.of(raw)
    fine, truth = grid.on_canvas(region), raw.scan.object_guess
    whole = {"flat": np.ones_like(truth), "truth": truth, **objects}
    if has_truth(raw):
        seen = {name: on_detector_grid(image, raw)[region] for name, image in objects.items()}
        rows = score_table(seen, on_detector_grid(truth, raw)[region], gauge)
        for row in rows if grid.finer > 1 else ():
            pair = Pair.aligned(whole[row["method"]][fine], truth[fine], gauge)
            for name in ("phase_psnr", "amplitude_psnr"):
                row[f"{name}_fine"] = METRICS[name].compute(pair)
    else:
        rows = [{"method": name} for name in (*objects, "flat")]
    geometry = raw.geometry()
    fluence = geometry.embed(geometry.fluence(), outside=0.0)[fine].double() * grid.finer**2
    for row in rows:
        canvas = torch.from_numpy(np.ascontiguousarray(whole[row["method"]], dtype=np.complex64))
        own = (probes or {}).get(row["method"])
        for name, scan in {"deviance": raw, "deviance_held_out": held_out}.items():
            if scan is not None:
                row[name] = data_deviance(canvas, scan if own is None else scan.under(own))
        row["photons_per_pixel"] = float(fluence.mean())
    return rows
