"""The table of scores: all metrics of every reconstruction, of the flat object and of the truth,
and their skill."""

from collections.abc import Iterable, Mapping

import numpy as np

from fly64lib.design.registries import METRICS
from fly64lib.evaluation.gauge import TooSmall
from fly64lib.evaluation.metrics import Object, Pair
from ptycho_torch.errors import DataContractError

Objects = Mapping[str, Object]
Row = dict[str, str | float]


def score(reconstruction: Object, truth: Object, gauge: str = "known_probe") -> Row:
    """All `METRICS` of one reconstruction from a single alignment; with an unknown probe the region
    is smaller by `MAX_SHIFT_PX` at each border, for every object alike.

    A metric that does not exist on so small a region is nan, and `absent` says why."""
    pair, found, absent = Pair.aligned(reconstruction, truth, gauge), {}, {}
    for metric in METRICS.values():
        try:
            found[metric.name] = metric.compute(pair)
        except TooSmall as error:
            found[metric.name] = float("nan")
            absent.setdefault(str(error), []).append(metric.label)
    reasons = [f"no {', '.join(names)}: {why}" for why, names in absent.items()]
    return found | ({"absent": "; ".join(reasons)} if reasons else {})


def score_table(objects: Objects, truth: Object, gauge: str = "known_probe") -> list[Row]:
    """One row per method: `method`, every metric, `<metric>_skill`; `flat` and `truth` close it. A
    row with `absent` lacks metrics, and says why.

    The flat object is 1 everywhere (an empty beam path), aligned as any other. Under these two
    names only those objects are accepted, for the skill is measured from them."""
    references = {"flat": np.ones_like(truth), "truth": truth}
    for name in references.keys() & objects.keys():
        given = objects[name]
        if np.shape(given) != np.shape(truth) or not np.allclose(given, references[name]):
            raise DataContractError(f"{name!r} is not the {name} object; give it another name")
    objects = {name: image for name, image in objects.items() if name not in references}
    scores = {name: score(image, truth, gauge) for name, image in (objects | references).items()}
    flat, truth = scores["flat"], scores["truth"]
    return [
        {"method": name, **row}
        | {m.skill_column.name: m.skill(row[k], flat[k], truth[k]) for k, m in METRICS.items()}
        for name, row in scores.items()
    ]


def json_rows(rows: list[Row]) -> list[dict[str, str | float | None]]:
    """The rows with None for inf and nan, which JSON does not have."""

    def known(value: str | float) -> str | float | None:
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return [{key: known(value) for key, value in row.items()} for row in rows]


def absences(rows: Iterable[Mapping]) -> list[str]:
    """Why rows lack metrics: each reason once."""
    return list(dict.fromkeys(row["absent"] for row in rows if "absent" in row))
