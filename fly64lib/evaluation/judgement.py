"""One judgement for every method: the scored region, the table of metrics, the deviance, photons
per object pixel.

Where the data file's object is the truth, all metrics of :mod:`fly64lib.evaluation.metrics`; where
it is not (measured data), the data-space deviance alone, and the rows say so. An object that isn't
truth is never scored against."""

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
    """A row per object, (H, W) complex on the file's canvas; `flat` (all ones) and, if known,
    `truth` are added.

    `region` defaults to the file's own scanned region; views of one half share the baseline's.
    `deviance` is the mean Poisson deviance per detector pixel on the file's patterns,
    `deviance_held_out` on those of `held_out`."""
    region = region or region_of(raw)
    whole = {"flat": np.ones_like(raw.scan.object_guess)}
    if has_truth(raw):
        truth = raw.scan.object_guess
        whole["truth"] = truth
        rows = score_table(
            {name: image[region] for name, image in objects.items()}, truth[region], gauge
        )
    else:
        rows = [{"method": name} for name in (*objects, "flat")]
    whole |= objects
    density = photons_per_pixel(raw, region)
    for row in rows:
        canvas = torch.from_numpy(np.ascontiguousarray(whole[row["method"]], dtype=np.complex64))
        row["deviance"] = data_deviance(canvas, raw)
        if held_out is not None:
            row["deviance_held_out"] = data_deviance(canvas, held_out)
        row["photons_per_pixel"] = density
    return rows


def photons_per_pixel(raw: RawDataTorch, region: Region) -> float:
    """Photons that the probe brought to an object pixel, mean over the region."""
    geometry = raw.geometry()
    return float(geometry.embed(geometry.fluence(), outside=0.0)[region].double().mean())
