"""The table of scores: every metric of every reconstruction, beside the flat object and the truth,
and its skill: what it gains over the flat object."""

from collections.abc import Mapping

import numpy as np

from fly64lib.evaluation.metrics import Pair
from fly64lib.registries import METRICS
from ptycho_torch.errors import DataContractError

Row = dict[str, str | float]


def score(
    reconstruction: np.ndarray, truth: np.ndarray, gauge: str = "known_probe"
) -> dict[str, float]:
    """All `METRICS` of one reconstruction from a single alignment.

    With a known probe the numbers of `METRICS`. With an unknown probe the region is smaller by
    `MAX_SHIFT_PX` at each border, for truth, flat object and every method alike."""
    pair = Pair.aligned(reconstruction, truth, gauge)
    return {metric.name: metric.compute(pair) for metric in METRICS.values()}


def score_table(
    reconstructions: Mapping[str, np.ndarray], truth: np.ndarray, gauge: str = "known_probe"
) -> list[Row]:
    """One row per method: `method`, every metric, and `<metric>_skill`; the rows `flat` and `truth`
    always close it.

    The flat object is 1 everywhere (an empty beam path), aligned in the same gauge as any other.
    Under the names `flat` and `truth` only those objects are accepted, for the skill is measured
    from them."""
    references = {"flat": np.ones_like(truth), "truth": truth}
    for name in references.keys() & reconstructions.keys():
        given = reconstructions[name]
        if np.shape(given) != np.shape(truth) or not np.allclose(given, references[name]):
            raise DataContractError(
                f"the row {name!r} is not the {name} object; give this reconstruction another name"
            )
    objects = {
        name: image for name, image in reconstructions.items() if name not in references
    } | references
    scores = {name: score(image, truth, gauge) for name, image in objects.items()}
    rows: list[Row] = []
    for name, row in scores.items():
        skills = {
            metric.skill_column.name: metric.skill(
                *(scores[which][metric.name] for which in (name, "flat", "truth"))
            )
            for metric in METRICS.values()
        }
        rows.append({"method": name, **row, **skills})
    return rows


def json_rows(rows: list[Row]) -> list[dict[str, str | float | None]]:
    """The rows with None for inf and nan, which JSON does not have."""
    return [
        {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in row.items()
        }
        for row in rows
    ]
