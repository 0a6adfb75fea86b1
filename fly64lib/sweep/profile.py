"""What a run of the study does: a profile's settings, and the notebooks that they ask for.

Profiles are the small files in `profiles/`; results of different ones are not to be compared."""

from collections.abc import Iterable
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any

import yaml

from fly64lib.design.registries import METHODS
from fly64lib.design.study import (
    Doses,
    LimitsAsked,
    StudyDesign,
    View,
    controlled_view,
    controls_of,
    dose_folder,
    single_views,
)
from fly64lib.methods.by_name import networks, own_notebook
from fly64lib.reconstruction import MethodSettings
from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import (
    SEVERAL,
    Number,
    Positive,
    Settings,
    Threads,
    check_choice,
    config,
    field_names,
    from_dict,
    literal,
    refuse_unknown,
)

FOLDER = Path(__file__).parent / "profiles"
Methods = Annotated[tuple[METHODS.names, ...], SEVERAL]
Views = Annotated[tuple[View, ...], SEVERAL]
_VIEWS = StudyDesign().views
MAPPINGS = ("design", "training", "settings")  # fields that hold settings by name
SHORT = {  # what a setting may also be called
    **{name: f"design.{name}" for name in ("specimen", "base_npz", "probe", "simulation")},
    **{name: f"design.{name}" for name in ("N", "scan_step")},
    **{name: f"training.{name}" for name in ("batch_size", "accelerator")},
    "train_steps": "training.steps",
    "train_images": "training.n_images",
    "classical_steps": "settings.classical.steps",
    "lsqml_epochs": "settings.lsqml.epochs",
}


@config
class Profile:
    """All that decides a run's results, and its limits. `--cores` changes no result."""

    doses: Doses
    # views of single images at these linear overlaps, the map's columns
    overlaps: Annotated[tuple[Number, ...], SEVERAL] = ()
    views: Views = ("baseline", *_VIEWS)  # and these
    # scored with `control_methods`, without limits
    controls: Views = tuple(control for view in _VIEWS for control in controls_of(view))
    methods: Methods = ("pinn", "supervised", "classical", "lsqml")
    control_methods: Methods = ("pinn", "classical")
    # all methods of a condition in one notebook, also those that mostly take minutes
    one_notebook: bool = False
    replicates: Positive = 1
    # False: methods get a probe recovered from the patterns, from the file's without its light
    # beside the detector, and scores leave out what an unknown probe leaves open
    known_probe: bool = True
    design: Settings = field(default_factory=dict)  # other fields of StudyDesign
    training: Settings = field(default_factory=dict)  # fields of TrainingConfig and ModelConfig
    settings: Settings = field(default_factory=dict)  # of methods, by their names
    limits: LimitsAsked = "both"
    threads: Threads = 1  # of every job
    memory_mb: Positive = 3000  # of a job, asked of the cluster
    timeout_s: Positive = 900  # of a notebook, asked of the cluster too
    cell_timeout_s: Positive = 600

    def __post_init__(self) -> None:
        _ = self.study  # what it refuses is refused here
        TrainingConfig().with_settings(self.training)
        MethodSettings(settings=self.settings)
        for name in ("every_view", "controls", "methods", "control_methods"):
            chosen = getattr(self, name)
            if len(set(chosen)) < len(chosen) or not (chosen or name.startswith("control")):
                shown = "views and overlaps" if name == "every_view" else name
                raise ConfigError(f"{shown}={chosen} must be different names, at least one")
        for method in self.control_methods:
            check_choice("control_methods", method, self.methods)
        misplaced = [view for view in self.views if controlled_view(view) != view]
        misplaced += [view for view in self.controls if controlled_view(view) == view]
        if misplaced:
            text = "views holds baseline and overlap views, controls their controls such as"
            raise ConfigError(f"{misplaced[0]!r}: {text} 'dense_spread'")
        slow = any(map(own_notebook, self.control_methods))
        if self.controls and not self.control_methods or slow:
            text = f"expected some, none of {', '.join(filter(own_notebook, METHODS))}"
            raise ConfigError(f"control_methods={self.control_methods}: {text}")
        of_conditions = networks(self.control_methods)
        if self.controls and of_conditions and "baseline" not in self.every_view:
            text = "control views are reconstructed by the baseline's networks: add baseline to"
            raise ConfigError(f"{text} views, or set controls=()")

    @staticmethod
    def free_design() -> list[str]:
        """Settings of a study's design that the profile's own fields do not decide."""
        decided = ("doses", "views", "controls", "replicate")
        return [name for name in field_names(StudyDesign) if name not in decided]

    @property
    def every_view(self) -> tuple[str, ...]:
        """The views that are reconstructed by all methods."""
        return (*self.views, *single_views(self.overlaps))

    @property
    def study(self) -> StudyDesign:
        """The design of the study's data."""
        refuse_unknown(self.design, self.free_design(), "a profile's design")
        chosen = dict.fromkeys(map(controlled_view, (*self.every_view, *self.controls)))
        views = [view for view in chosen if view != "baseline"] or _VIEWS
        own = {"doses": self.doses, "views": views, "controls": bool(self.controls)}
        return from_dict(StudyDesign, self.design | own)

    @property
    def fast_methods(self) -> tuple[str, ...]:
        """Those that share one notebook a condition: a notebook takes some seconds to start."""
        return tuple(method for method in self.methods if method not in self.slow_methods)

    @property
    def slow_methods(self) -> tuple[str, ...]:
        """Those that have a notebook of their own."""
        return () if self.one_notebook else tuple(filter(own_notebook, self.methods))

    def notebooks(self) -> list[str]:
        """Every executed notebook of the study, relative to its folder, phase by phase."""
        data, trained, reconstructed, compared = [], [], [], []
        own = [f"_{method}" for method in self.slow_methods]
        kinds = ([""] if self.fast_methods else []) + own
        for replicate in range(self.replicates):
            root = f"notebooks/replicate_{replicate}"
            data += [f"{root}/generate", f"{root}/overlap"]
            for dose in self.doses:
                for view in self.every_view:
                    here = f"{root}/{dose_folder(dose)}/{view}"
                    for network in networks(self.methods):
                        trained.append(f"{here}/train_{Path(network.folder(dose, view)).name}")
                    reconstructed += [f"{here}/reconstruct{kind}" for kind in kinds]
                    compared.append(f"{here}/compare")
                if self.controls:
                    reconstructed.append(f"{root}/{dose_folder(dose)}/controls/reconstruct")
                    compared.append(f"{root}/{dose_folder(dose)}/controls/compare")
        names = (*data, *trained, *reconstructed, *compared, "notebooks/report")
        return [f"{name}.ipynb" for name in names]


def load_profile(name: str, settings: Iterable[str] = ()) -> Profile:
    """The profile of a name, with `key=value` settings in place of its own; a key may have dots, as
    in `training.width`. Raises ConfigError for what it does not know."""
    check_choice("profile", name, profile_names())
    values: dict[str, Any] = {}
    _put(values, yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8")))
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected key=value")
        _put(values, {key: literal(text)})
    return from_dict(Profile, values)


def _put(values: dict[str, Any], given: dict[str, Any], above: str = "") -> None:
    """Put values by their keys, long or short, into nested dictionaries."""
    for key, value in given.items():
        long = SHORT.get(above + key, above + key)
        if isinstance(value, dict):
            _put(values, value, f"{long}.")
        else:
            *path, last = long.split(".")
            place = values
            for name in path:
                place = place.setdefault(name, {})
            place[last] = value


def profile_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
