"""What a run of the study does: a profile's settings, and the notebooks that they ask for.

Profiles are the small files in `profiles/`. Their numbers are of one study: results of different
profiles are never compared with each other."""

import ast
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from fly64lib.design import CONTROL_VIEWS, VIEWS, StudyDesign, dose_folder
from fly64lib.methods.by_name import networks, own_notebook
from fly64lib.registries import METHODS
from ptycho_torch.config import ModelConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import check_choice, check_range, check_types, from_dict, refuse_unknown

FOLDER = Path(__file__).parent / "profiles"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Everything that decides a run's results, and its limits. Threads are fixed: `--cores` changes
    no result."""

    doses: tuple[float, ...]
    views: tuple[str, ...] = VIEWS
    controls: tuple[str, ...] = CONTROL_VIEWS  # scored with `control_methods`, without limits
    methods: tuple[str, ...] = ("pinn", "supervised", "classical", "lsqml")
    control_methods: tuple[str, ...] = ("pinn", "classical")
    replicates: int = 1
    specimen: str = "siemens_star"
    simulation: str = "fine"
    N: int = 64
    scan_step: int = 1
    canvas_passes: tuple[int, ...] = (
        ModelConfig.canvas_passes
    )  # that make the networks' input; more for bright data
    train_steps: int = 400
    shared_train_steps: int = 2000  # of a network that serves all conditions of a replicate
    train_images: int | None = 1000  # of the baseline; None: all
    batch_size: int = 128
    classical_steps: int = 80
    lsqml_epochs: int = 60
    limits: bool = True
    accelerator: str = "cpu"
    threads: int = 1  # of every job
    memory_mb: int = 3000  # of a job, asked of the cluster
    timeout_s: int = 900  # of a notebook, asked of the cluster too
    cell_timeout_s: int = 600

    def __post_init__(self) -> None:
        check_types(self)
        StudyDesign(
            doses=self.doses,
            specimen=self.specimen,
            simulation=self.simulation,
            N=self.N,
            scan_step=self.scan_step,
        )
        known_names = {
            "views": VIEWS,
            "controls": CONTROL_VIEWS,
            "methods": METHODS,
            "control_methods": self.methods,
        }
        for name, known in known_names.items():
            chosen = getattr(self, name)
            if len(set(chosen)) < len(chosen) or not (chosen or name.startswith("control")):
                raise ConfigError(f"{name}={chosen} must be different names, at least one")
            for one in chosen:
                check_choice(name, one, known)
        if (
            self.controls
            and not self.control_methods
            or any(map(own_notebook, self.control_methods))
        ):
            raise ConfigError(
                f"control_methods={self.control_methods}: expected some, none of"
                f" {', '.join(filter(own_notebook, METHODS))}"
            )
        if (
            self.controls
            and networks(self.control_methods, "condition")
            and "baseline" not in self.views
        ):
            raise ConfigError(
                "control views are reconstructed by the baseline's networks: add baseline to views,"
                " or set controls=()"
            )
        ModelConfig(canvas_passes=self.canvas_passes)  # what it refuses is refused here
        check_choice("accelerator", self.accelerator, ("cpu", "gpu", "auto"))
        for name in (
            "replicates",
            "train_steps",
            "shared_train_steps",
            "batch_size",
            "classical_steps",
            "lsqml_epochs",
            "threads",
            "memory_mb",
            "timeout_s",
            "cell_timeout_s",
        ):
            check_range(name, getattr(self, name), 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; `from_dict(Profile, ...)` is the way back."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @property
    def fast_methods(self) -> tuple[str, ...]:
        """Those that share one notebook a condition: a notebook takes some seconds to start."""
        return tuple(method for method in self.methods if not own_notebook(method))

    def notebooks(self) -> list[str]:
        """Every executed notebook of the study, relative to its folder, in the order of the
        phases."""
        slow = [method for method in self.methods if own_notebook(method)]
        phases: list[list[str]] = [[], [], [], []]
        for replicate in range(self.replicates):
            root = f"notebooks/replicate_{replicate}"
            phases[0] += [f"{root}/generate.ipynb", f"{root}/overlap.ipynb"]
            phases[1] += [
                f"{root}/sim/train_{network.objective}.ipynb"
                for network in networks(self.methods, "replicate")
            ]
            for dose in self.doses:
                for view in self.views:
                    here = f"{root}/{dose_folder(dose)}/{view}"
                    phases[1] += [
                        f"{here}/train_{network.folder(dose, view).rpartition('/')[2]}.ipynb"
                        for network in networks(self.methods, "condition")
                    ]
                    phases[2] += [f"{here}/reconstruct.ipynb"] * bool(self.fast_methods)
                    phases[2] += [f"{here}/reconstruct_{method}.ipynb" for method in slow]
                    phases[3] += [f"{here}/compare.ipynb"]
                if self.controls:
                    phases[2] += [f"{root}/{dose_folder(dose)}/controls/reconstruct.ipynb"]
                    phases[3] += [f"{root}/{dose_folder(dose)}/controls/compare.ipynb"]
        return [*sum(phases, []), "notebooks/report.ipynb"]


def load_profile(name: str, settings: list[str] | None = None) -> Profile:
    """The profile of a name, with `key=value` settings in place of its own. Raises ConfigError for
    what it doesn't know."""
    check_choice("profile", name, profile_names())
    profile = from_dict(
        Profile, yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    )
    given = {}
    for setting in settings or []:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting}: expected key=value")
        refuse_unknown([key], [field.name for field in fields(Profile)], f"profile {name}")
        value = parse_value(text)
        if isinstance(getattr(profile, key), tuple):
            value = tuple(value.split(",")) if isinstance(value, str) else value
            value = tuple(value) if isinstance(value, tuple | list) else (value,)
        given[key] = value
    return replace(profile, **given)


def profile_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def parse_value(text: str) -> Any:
    """A value as Python writes it (`1e5`, `None`, `True`, `[1000, 10000]`); anything else is
    text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
