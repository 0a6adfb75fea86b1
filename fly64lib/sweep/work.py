"""What each job of a study works on, counted from the design alone: nothing is simulated.

The positions, the halves and the views are made by the design's own code, for the first replicate;
other replicates' views differ by a few images. Costs are then rates times these amounts
(:mod:`fly64lib.sweep.estimate`)."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

import numpy as np

from fly64lib.design.registries import METHODS
from fly64lib.design.study import SPLITS, StudyDesign
from fly64lib.generation import HELD_OUT_PATTERNS, base_experiment
from fly64lib.methods.by_name import networks
from fly64lib.notebook.parameters import TrainParameters
from fly64lib.overlap import reach
from fly64lib.simulation.experiment import embedded_experiment
from fly64lib.simulation.split import split_scan
from fly64lib.simulation.views import choose_views
from fly64lib.sweep.profile import Profile
from ptycho_torch.config import TrainingConfig
from ptycho_torch.fields import field_names

Amounts = dict[str, float]  # how much of each term that a rate is per; `job` is 1
PHASES = ("generate", "overlap", "train", "reconstruct", "compare", "report")


class Seen(NamedTuple):
    """What a method gets of a half."""

    images: int
    groups: int
    canvas_mpx: float  # the bounding box of its patches, 1e6 object pixels


@dataclass(frozen=True)
class Design:
    """Sizes of a study's data."""

    N: int  # detector side, px
    M: int  # patch side, px
    fine: float  # how many times finer than the reconstruction's grid the simulation's is
    positions: int  # of the whole scan
    whole_mpx: float  # the object that every file carries, 1e6 px
    seen: dict[tuple[str, str], Seen]  # by view and split

    @classmethod
    def of(cls, design: StudyDesign) -> "Design":
        """Count a design. Raises ConfigError where its scan or its halves cannot be made."""
        base = design.base_npz
        experiment = base_experiment(base) if base else embedded_experiment(design)
        probe, shape, M = experiment.coarse_probe, experiment.canvas_shape, experiment.M
        halves = split_scan(experiment.positions_px, probe, shape, design.guard_power)
        diameter, apart = reach(probe, design)
        seen = {}
        for split in SPLITS:
            positions = experiment.positions_px[halves[split]]
            views, _ = choose_views(positions, diameter, design, apart)
            for view in views:
                box = np.ptp(positions[view.images], axis=0) + M
                groups = len(view.images if view.groups is None else view.groups)
                seen[view.name, split] = Seen(len(view.images), groups, float(box.prod()) / 1e6)
        whole_mpx, n = shape[0] * shape[1] / 1e6, len(experiment.positions_px)
        return cls(experiment.N, M, experiment.finer, n, whole_mpx, seen)

    def array_mb(self, images: int) -> float:
        """Amplitudes (float32) and truth patches (complex64) of so many images, MB."""
        return images * (4 * self.N**2 + 8 * self.M**2) / 1e6

    def patch_mpx(self, images: int) -> float:
        """Object pixels that so many images light, each counted for itself, 1e6."""
        return images * self.M**2 / 1e6


class Part(NamedTuple):
    """A piece of a job that has rates of its own."""

    kind: str
    amounts: Amounts


class Job(NamedTuple):
    """Jobs of a study that are alike but for dose and replicate."""

    phase: str
    view: str  # or `controls`; empty where it is of the whole replicate
    name: str  # of its notebook, without suffix
    count: int
    parts: list[Part]


def jobs_of(profile: Profile) -> Iterator[Job]:
    """Every job that a profile asks for, phase by phase, the same ones as its notebooks."""
    design, doses, replicates = Design.of(profile.study), len(profile.doses), profile.replicates
    yield Job("generate", "", "generate", replicates, [_generate(design, doses)])
    yield Job("overlap", "", "overlap", replicates, [_overlap(design, doses)])
    cells = doses * replicates
    there = [view for view in profile.every_view if (view, "test") in design.seen]
    for view in there:
        for network in networks(profile.methods):
            folder = network.folder(profile.doses[0], view).rpartition("/")[2]
            part = _train(design, profile.training, network.objective, view)
            yield Job("train", view, f"train_{folder}", cells, [part])
    alone = profile.slow_methods
    together = [[*profile.fast_methods], *([method] for method in alone)]
    for methods in filter(None, together):
        name = f"reconstruct_{methods[0]}" if methods[0] in alone else "reconstruct"
        for view in there:
            parts = _reconstruct(design, profile, [view], methods)
            yield Job("reconstruct", view, name, cells, parts)
    controls = [view for view in profile.controls if (view, "test") in design.seen]
    if profile.controls:
        parts = _reconstruct(design, profile, controls, list(profile.control_methods))
        yield Job("reconstruct", "controls", "reconstruct", cells, parts)
    for view in there:
        part = _compare(design, [view], len(profile.methods), profile.limits)
        yield Job("compare", view, "compare", cells, [part])
    if profile.controls:
        part = _compare(design, controls, len(profile.control_methods), "none")
        yield Job("compare", "controls", "compare", cells, [part])
    rows = cells * len(there) * len(profile.methods)
    rows += cells * len(controls) * len(profile.control_methods)
    conditions = cells * (len(there) + len(controls))
    amounts = {"job": 1.0, "rows": rows, "conditions": conditions}
    yield Job("report", "", "report", 1, [Part("report", amounts)])


def _generate(design: Design, doses: int) -> Part:
    halves = sum(design.seen["baseline", split].images for split in SPLITS)
    # Expected patterns are made once, on the simulation's grid, and drawn for each dose.
    exposures = design.positions + HELD_OUT_PATTERNS
    fine_mpx = exposures * (design.fine * design.M) ** 2 / 1e6
    array_mb = doses * design.array_mb(halves + HELD_OUT_PATTERNS)
    amounts = {"job": 1.0, "doses": doses, "fine_mpx": fine_mpx, "array_mb": array_mb}
    amounts["scan_mb"] = design.array_mb(design.positions)
    return Part("generate", amounts | {"whole_mpx": 3 * doses * design.whole_mpx})


def _overlap(design: Design, doses: int) -> Part:
    views = [key for key in design.seen if key[0] != "baseline"]
    array_mb = doses * sum(design.array_mb(design.seen[key].images) for key in views)
    amounts = {"job": 1.0, "doses": doses, "views": doses * len(views), "array_mb": array_mb}
    amounts["scan_mb"] = design.array_mb(design.positions)
    return Part("overlap", amounts | {"whole_mpx": doses * len(views) * design.whole_mpx})


def _train(design: Design, training: dict, objective: str, view: str) -> Part:
    usual = {"n_images": TrainParameters().n_images}  # the notebook's, where a profile has none
    seen, config = design.seen[view, "train"], TrainingConfig().with_settings(usual | training)
    share = min(1.0, (config.n_images or seen.images) / seen.images)
    groups = max(1, round(share * seen.groups))
    batches = config.thinnings * ceil(groups / config.batch_size)  # of an epoch
    epochs = config.max_epochs or ceil(config.steps / batches)
    amounts = {
        "job": 1.0,
        "step_mpx": epochs * batches * seen.canvas_mpx,
        "thinned_mpx": config.thinnings * seen.canvas_mpx,
        "thinned_patch_mpx": config.thinnings * design.patch_mpx(share * seen.images),
        "shown_patch_mpx": epochs * config.thinnings * design.patch_mpx(share * seen.images),
    }
    return Part(f"train {objective}", amounts)


def _reconstruct(
    design: Design, profile: Profile, views: list[str], methods: list[str]
) -> list[Part]:
    seen = [design.seen[view, "test"] for view in views]
    runs, canvas_mpx = len(seen) * len(methods), sum(one.canvas_mpx for one in seen)
    amounts = {"job": 1.0, "runs": runs, "canvas_mpx": canvas_mpx * len(methods)}
    amounts["whole_mpx"] = runs * design.whole_mpx
    amounts["patch_mpx"] = design.patch_mpx(max(one.images for one in seen))
    alone = methods[0] in profile.slow_methods
    parts = [Part(f"reconstruct {methods[0]}" if alone else "reconstruct", amounts)]
    for method in methods:
        iterated = {"epochs"} & set(field_names(METHODS[method]))
        epochs = METHODS[method](**profile.settings.get(method, {})).epochs if iterated else 1
        for one in seen:
            amounts = {"job": 1.0, "canvas_mpx": epochs * one.canvas_mpx}
            amounts["patch_mpx"] = epochs * design.patch_mpx(one.images)
            parts.append(Part(f"method {method}", amounts))
    return parts


def _compare(design: Design, views: list[str], methods: int, limits: str) -> Part:
    canvas_mpx = len(views) * design.seen["baseline", "test"].canvas_mpx
    amounts = {"job": 1.0, "runs": methods * len(views), "canvas_mpx": methods * canvas_mpx}
    return Part("compare" if limits == "none" else f"compare, limits {limits}", amounts)
