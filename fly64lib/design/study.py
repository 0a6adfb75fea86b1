"""The study's design: the doses, views, seeds and settings that decide its data.

A view says which images of a scan a method gets, and at which dose:

    baseline          every image, one by one
    dense, sparse     groups of tight neighbours, their centres a linear overlap of 0.7 or 0.2 apart
    0.5               likewise, at any overlap from 0 up to 1, named by that number
    single_0.5        single images, that linear overlap apart; at 0 no pixel is lit by two of them
    <view>_spread     control of a grouped overlap view: as many images, spread evenly
    <view>_fluence    control of an overlap view: every image, at as many photons in total
    custom            a share of the images, regrouped

:mod:`fly64lib.simulation.views` chooses their images."""

import re
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field

from fly64lib.design.registries import PROBES, SPECIMENS
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.fields import Distinct, Number, Seed, Whole, config, field_names, nearest

OVERLAPS = {"dense": 0.7, "sparse": 0.2}  # overlap views with names of their own
SINGLE = "single_"  # how the names of overlap views of single images begin
CONTROLS = ("spread", "fluence")  # of an overlap view; single images
SPLITS = ("train", "test")
# on an object grid finer than the detector's the unbiased one takes minutes a condition
LimitsAsked = Literal["both", "bayesian", "none"]
Part = TypeVar("Part")


def linear_overlap(view: str) -> float | None:
    """f of an overlap view, whose images or group centres are (1 - f) D apart; None for all other
    views.

    A number has one spelling, so that a view has one folder. Raises ConfigError for other names."""
    if view in OVERLAPS:
        return OVERLAPS[view]
    if re.fullmatch(rf"({SINGLE})?(0|0\.\d*[1-9])", view):
        return float(view.removeprefix(SINGLE))
    named = controlled_view(view)
    if view in ("baseline", "custom") or (named != view and view in controls_of(named)):
        return None
    known = ["baseline", *OVERLAPS]
    text = f"view={view!r} is not known{nearest(view, known)}; expected {', '.join(known)}, a"
    text += " linear overlap from 0 up to (not including) 1 such as '0.5' (not '.5' or '0.50'),"
    text += " 'single_0.5' for single images that far apart, or"
    raise ConfigError(f"{text} a control of these such as 'dense_spread' or '0.5_fluence'")


def check_view(view: object) -> str:
    """The name of a view; a number is the name of an overlap view. Raises ConfigError."""
    name = str(float(view)).removesuffix(".0") if type(view) in (int, float) else view
    if not isinstance(name, str):
        raise ConfigError(f"view={view!r}: expected the name of one view")
    linear_overlap(name)
    return name


def single_views(overlaps: Iterable[float]) -> tuple[str, ...]:
    """The names of the overlap views of single images at these linear overlaps."""
    return tuple(SINGLE + check_view(overlap) for overlap in overlaps)


def gridsize_of(view: str) -> int:
    """1 for views of single images, 2 for groups."""
    return 1 if view.startswith(SINGLE) or linear_overlap(view) is None else 2


def controlled_view(view: str) -> str:
    """The overlap view that a control belongs to; any other view is its own."""
    name, _, control = view.rpartition("_")
    return name if control in CONTROLS else view


def controls_of(view: str) -> tuple[str, ...]:
    """The control views of an overlap view, none of any other; single images are spread anyway."""
    controls = CONTROLS if linear_overlap(view) is not None else ()
    controls = controls[1:] if view.startswith(SINGLE) else controls
    return tuple(f"{view}_{control}" for control in controls)


def dose_folder(dose: float) -> str:
    """`dose_1000`: the folder of a dose in photons per exposure."""
    if not float(dose).is_integer():  # NaN and infinity are none either
        raise ConfigError(f"dose={dose!r} is not a whole number of photons per exposure")
    return f"dose_{int(dose)}"


def _overlap_view(view: object) -> str:
    name = check_view(view)
    if linear_overlap(name) is None:
        text = f"view={name!r} is no overlap view; expected 'dense', 'sparse' or a linear overlap"
        raise ConfigError(f"{text} such as '0.5': baseline and controls belong to every design")
    return name


def _whole_dose(dose: float) -> float:
    dose_folder(dose)
    return dose


View = Annotated[str, BeforeValidator(check_view)]
Dose = Annotated[Number, AfterValidator(_whole_dose), Field(ge=1)]
Doses = Distinct[Dose]
OverlapViews = Distinct[Annotated[str, BeforeValidator(_overlap_view)]]


@config
class _Replicated:
    """What all parts of a design share."""

    # moves noise draw, view selection and initial weights together
    replicate: Annotated[Whole, Field(ge=0, le=9999)] = 0

    def seed(self, base: int) -> int:
        """The seed `base` of this replicate."""
        return base + 1000 * self.replicate


@config
class ScanDesign(_Replicated):
    """What phase C simulates."""

    doses: Doses = (1e3, 1e4, 1e5)  # expected detected photons per exposure
    # a DATA-001 file: its object, probe and positions, on its own grid, instead of the twin's
    base_npz: str | None = None
    specimen: SPECIMENS.names = "siemens_star"  # of the twin, of docs/extending.md's registry
    probe: PROBES.names = "zone_plate"
    # "fine": on a grid finer than any reconstruction's, cropped; "matched": on the same grid
    simulation: Literal["fine", "matched"] = "fine"
    N: Annotated[Whole, Field(ge=16, le=1024)] = 64  # detector side, pixels
    # side of probe and patches, object pixels; None: N, as is usual. 1.5 N explains the twin
    M: Annotated[Whole, Field(ge=16, le=4096)] | None = None
    # keep every scan_step-th row and sample of the scan: a smaller study, not compared with others
    scan_step: Annotated[Whole, Field(ge=1, le=16)] = 1
    # keep this share of the scan's width, about its middle: likewise
    scan_width: Annotated[float, Field(ge=0.2, le=1)] = 1.0
    # the guard band is twice the radius that holds this share of the probe's power
    guard_power: Annotated[float, Field(ge=0.5, le=0.999)] = 0.98
    simulation_seed: Seed = 42  # of specimen and noise


@config
class ViewDesign(_Replicated):
    """What phase D makes of phase C's data."""

    # names, any linear overlap such as 0.5, or single_0.5 for single images
    views: OverlapViews = ("dense", "sparse")
    gridsize: Annotated[Whole, Field(ge=1, le=8)] = 2  # overlap views have groups of gridsize^2
    controls: bool = True  # also write each overlap view's spread and fluence controls
    # adds the view `custom`: this share of the images, in (0, 1]
    s_img: Annotated[float, Field(gt=0, le=1)] | None = None
    # adds the view `custom`: this many groups; None: one for each image
    n_groups: Annotated[Whole, Field(ge=1)] | None = None
    neighbor_count: Annotated[Whole, Field(ge=1, le=64)] = 7  # K nearest images, for groups
    # D; None: the outer half-maximum diameter of the probe
    probe_diameter_px: Annotated[float, Field(ge=1e-3)] | None = None
    grouping_seed: Seed = 123  # of the groups of the view `custom`
    rng_seed_subsample: Seed = 456  # of the images that views hold


@config
class StudyDesign(ScanDesign, ViewDesign):
    """Everything that decides the data of the study; the methods' settings are their own."""


@config
class GridOptions:
    """Which conditions a command works on, and where."""

    phase_c_root: Path  # phase C's folder
    phase_d_root: Path  # phase D's folder
    artifact_root: Path  # where the jobs' folders go
    doses: Doses = StudyDesign().doses  # only these; --dose may be repeated
    # only these; also any other that phase D made, such as 0.5; --view may be repeated
    views: tuple[View, ...] = ("baseline", *StudyDesign().views)
    gridsize: Literal[1, 2] | None = None  # only views of this gridsize
    allow_missing_phase_d: bool = False  # skip views whose files are absent
    dry_run: bool = False  # print the plan, run nothing

    @property
    def chosen_views(self) -> tuple[str, ...]:
        """The views that are of the gridsize asked for."""
        return tuple(one for one in self.views if self.gridsize in (None, gridsize_of(one)))


def part_of(cls: type[Part], design: Part) -> Part:
    """The part of a design that a phase's data depend on."""
    return cls(**{name: getattr(design, name) for name in field_names(cls)})


def split_file(phase_c_root: str | Path, dose: float, split: str) -> Path:
    """Phase C's file of a dose and split."""
    return Path(phase_c_root) / dose_folder(dose) / f"patched_{split}.npz"


def held_out_file(phase_c_root: str | Path, dose: float) -> Path:
    """Phase C's patterns of the test half that no method gets; all objects are scored on them."""
    return Path(phase_c_root) / dose_folder(dose) / "held_out_test.npz"


def view_file(
    phase_c_root: str | Path, phase_d_root: str | Path, dose: float, view: str, split: str
) -> Path:
    """The file of a view and split: phase C's for the baseline, phase D's for all others."""
    if view == "baseline":
        return split_file(phase_c_root, dose, split)
    return Path(phase_d_root) / dose_folder(dose) / view / f"{view}_{split}.npz"


def conditions(
    phase_c_root: str | Path,
    phase_d_root: str | Path,
    grid: tuple[Iterable[float], Iterable[str], Iterable[str]],
    allow_missing_phase_d: bool,
    skipped: list[dict] | None,
) -> Iterator[tuple[float, str, list[Path]]]:
    """Each dose and view of a grid of (doses, views, splits), with its file of each split.

    Raises DataContractError where a file is missing; with `allow_missing_phase_d` a missing view is
    left out and its reason appended to `skipped`."""
    doses, views, splits = grid
    for dose, view in product(doses, views):
        files = [view_file(phase_c_root, phase_d_root, dose, view, split) for split in splits]
        missing = next((path for path in files if not path.is_file()), None)
        if missing is None:
            yield dose, view, files
        elif view == "baseline" or not allow_missing_phase_d:
            phase = "generation" if view == "baseline" else "overlap"
            advice = "" if view == "baseline" else ", or pass --allow-missing-phase-d"
            how = f"run python -m fly64lib.{phase} first{advice}"
            raise DataContractError(f"{missing}: no such file; {how}")
        elif skipped is not None:
            skipped.append({"dose": dose, "view": view, "reason": f"no file {missing}"})
