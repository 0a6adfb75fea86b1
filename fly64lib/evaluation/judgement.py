"""One judgement for every method: scored region, metrics, deviance, photons per object pixel.

Where the data file's object is the truth, all metrics of :mod:`fly64lib.evaluation.metrics`; where
it is not (measured data), the data-space deviance alone: no object is scored against what isn't
truth."""

from collections.abc import Mapping

import numpy as np
import torch

from fly64lib.evaluation.gauge import Region, scored_region
from fly64lib.evaluation.scores import score_table
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import RawDataTorch


def region_of(raw: RawDataTorch) -> Region:
    """The scanned region of a data file on its object."""
    return scored_region(raw.scan.xcoords, raw.scan.ycoords, raw.scan.canvas_shape)


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
) -> list[dict]:
    """A row per object, (H, W) complex on the file's canvas, also `flat` and, if known, `truth`.

    `region` defaults to the file's own scanned region; views of one half share the baseline's.
    `deviance` is the mean Poisson deviance per detector pixel on the file's patterns,
    `deviance_held_out` on those of `held_out`; photons per pixel are the region's mean fluence."""
    region = region or region_of(raw)
    truth = raw.scan.object_guess
    whole = {"flat": np.ones_like(truth), "truth": truth, **objects}
    if has_truth(raw):
        cropped = {name: image[region] for name, image in objects.items()}
        rows = score_table(cropped, truth[region], gauge)
    else:
        rows = [{"method": name} for name in (*objects, "flat")]
    geometry = raw.geometry()
    fluence = geometry.embed(geometry.fluence(), outside=0.0)[region].double()
    for row in rows:
        canvas = torch.from_numpy(np.ascontiguousarray(whole[row["method"]], dtype=np.complex64))
        row["deviance"] = data_deviance(canvas, raw)
        if held_out is not None:
            row["deviance_held_out"] = data_deviance(canvas, held_out)
        row["photons_per_pixel"] = float(fluence.mean())
    return rows
