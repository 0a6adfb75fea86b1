"""The notebooks' parameters: one checked dataclass each, and the guard that refuses a misspelt
name.

papermill only warns about an unknown `-p` name, and passes any type. So the first cell of every
notebook ends with

    parameters = read_parameters(TrainParameters, globals(), In)

which compares the names assigned in papermill's injected cell (kept by IPython in `In`) with the
dataclass, and then builds it from the notebook's variables. Nothing heavy is imported here: a wrong
name fails at once."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from fly64lib.design import Doses, ScanDesign, StudyDesign, ViewDesign, part_of
from fly64lib.registries import METHODS, SPECIMENS
from ptycho_torch.config import ModelConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import check_choice, check_range, check_types, config, refuse_unknown

T = TypeVar("T")
NAMED_VIEWS = ("baseline", "dense", "sparse")


def read_parameters(cls: type[T], namespace: dict[str, Any], cells: Sequence[str]) -> T:
    """Build `cls` from the notebook's variables; `cells` is IPython's `In`. Raises ConfigError
    naming the parameter."""
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    injected = [cell for cell in cells if cell.lstrip().startswith("# Parameters")]
    if injected:
        assigned = [
            target.id
            for node in ast.parse(injected[-1]).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        ]
        refuse_unknown(assigned, known, cls.__name__)
    return cls(**{name: namespace[name] for name in known if name in namespace})


def listed(names: str) -> tuple[str, ...]:
    """The names in "dense, sparse": papermill's command line passes no lists."""
    found = tuple(name.strip() for name in names.split(","))
    if not all(found) or len(set(found)) < len(found):
        raise ConfigError(f"{names!r} is not a list of different names such as 'dense,sparse'")
    return found


def _numbers(name: str, value: object) -> object:
    """Whole numbers as a tuple: notebooks hold lists, papermill's command line passes one number or
    text."""
    if isinstance(value, str):
        try:
            return tuple(int(number) for number in listed(value))
        except ValueError:
            raise ConfigError(
                f"{name}={value!r} is not a list of whole numbers such as '2,10'"
            ) from None
    return (value,) if type(value) is int else tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True, kw_only=True)
class DataParameters:
    """What data a notebook works on; shared by the notebooks that need simulated data."""

    dose: float = 1e5  # expected detected photons per exposure
    specimen: str = "siemens_star"
    simulation: str = "fine"  # "fine" or "matched"
    N: int = 64
    replicate: int = 0
    data_dir: str = "runs/data"  # simulated data are kept here, keyed by what they are made of

    def __post_init__(self) -> None:
        check_types(self)
        check_range("dose", self.dose, 1)
        check_range("N", self.N, 16, 1024)
        check_range("replicate", self.replicate, 0, 9999)
        SPECIMENS.check(self.specimen)
        check_choice("simulation", self.simulation, ("fine", "matched"))


@dataclass(frozen=True, kw_only=True)
class TrainParameters(DataParameters):
    """Parameters of train.ipynb."""

    view: str = "baseline"
    gridsize: int | None = None  # None: 1 for baseline, 2 for dense and sparse
    train_npz: str | None = None  # a DATA-001 file of your own instead of the simulation
    test_npz: str | None = None  # its held-out half, if there is one
    objective: str = "poisson"  # or "supervised", "procedural"
    canvas_passes: tuple[int, ...] = (
        ModelConfig.canvas_passes
    )  # a list, a number or "2,10" is taken too
    seed: int = 0
    epochs: int | None = None  # None: as many as `steps` need
    steps: int = 400  # optimiser steps
    n_images: int | None = 1000  # at most this many training images; None: all
    batch_size: int = 128  # groups per optimiser step
    learning_rate: float = 2e-3
    accelerator: str = "cpu"
    threads: int = 1
    progress: bool = False
    output_dir: str = "runs/train"

    def __post_init__(self) -> None:
        object.__setattr__(self, "canvas_passes", _numbers("canvas_passes", self.canvas_passes))
        super().__post_init__()
        ModelConfig(canvas_passes=self.canvas_passes)  # what it refuses is refused here
        check_choice("view", self.view, NAMED_VIEWS)
        check_choice("gridsize", self.gridsize, (None, 1, 2))
        check_choice("objective", self.objective, ("poisson", "supervised", "procedural"))
        check_choice("accelerator", self.accelerator, ("cpu", "gpu", "auto"))
        check_range("seed", self.seed, 0, 2**20)
        check_range("learning_rate", self.learning_rate, 1e-8, 1)
        check_range("threads", self.threads, 1, 1024)
        for name in ("epochs", "steps", "n_images", "batch_size"):
            check_range(name, getattr(self, name), 1)
        if self.test_npz and not self.train_npz:
            raise ConfigError("test_npz is given without train_npz; give both, or neither")


@dataclass(frozen=True, kw_only=True)
class ReconstructParameters:
    """Parameters of reconstruct.ipynb."""

    dose: float = 1e5
    view: str = "dense"
    split: str = "test"
    method: str = "classical"
    num_epochs: int = 60
    noise_model: str = "poisson"
    steps: int = 80
    probe: str = "known"
    probe_modes: int = 1
    probe_defocus_rad: float = 0.0
    threads: int = 1
    phase_c_root: str = "runs/study/phase_c"
    phase_d_root: str = "runs/study/phase_d"
    training_root: str = "runs/study/phase_e"
    artifact_root: str = "runs/study/phase_f"

    def __post_init__(self) -> None:
        check_types(self)
        check_choice("split", self.split, ("train", "test"))
        for method in self.methods:
            METHODS.check(method)
        check_choice("probe", self.probe, ("known", "refine"))
        check_choice("noise_model", self.noise_model, ("poisson", "gaussian"))
        check_range("num_epochs", self.num_epochs, 1)
        check_range("steps", self.steps, 1)
        check_range("probe_modes", self.probe_modes, 1, 16)
        check_range("threads", self.threads, 1, 1024)

    @property
    def views(self) -> tuple[str, ...]:
        return listed(self.view)

    @property
    def methods(self) -> tuple[str, ...]:
        return listed(self.method)


@dataclass(frozen=True, kw_only=True)
class InferParameters:
    """Parameters of infer.ipynb and of `fly64 reconstruct --bundle`."""

    bundle: str = "runs/train/bundle.pt"
    data_npz: str = "scan.npz"
    output_npz: str | None = None  # None: the data's name with _object.npz, in this folder
    threads: int = 1

    def __post_init__(self) -> None:
        check_types(self)
        check_range("threads", self.threads, 1, 1024)


@dataclass(frozen=True, kw_only=True)
class CompareParameters:
    """Parameters of compare.ipynb."""

    dose: float = 1e5
    view: str = "dense"
    method: str | None = None  # None: all that are there
    gauge: str = "known_probe"
    with_limits: bool = True
    phase_c_root: str = "runs/study/phase_c"
    phase_d_root: str = "runs/study/phase_d"
    reconstruction_root: str = "runs/study/phase_f"
    output_root: str = "runs/study/phase_g"

    def __post_init__(self) -> None:
        check_types(self)
        check_choice("gauge", self.gauge, ("known_probe", "unknown_probe"))

    @property
    def views(self) -> tuple[str, ...]:
        return listed(self.view)

    @property
    def methods(self) -> tuple[str, ...] | None:
        return None if self.method is None else listed(self.method)


@config
class GenerateParameters(ScanDesign):
    """Parameters of generate.ipynb: a scan's design, and where its data go."""

    base_npz: str | None = None
    progress: bool = False
    output_root: str = "runs/study/phase_c"

    @property
    def design(self) -> ScanDesign:
        """The design that these parameters describe."""
        return part_of(ScanDesign, self)


@config
class OverlapParameters(ViewDesign):
    """Parameters of overlap.ipynb: the views' design, of which data, and where they go."""

    doses: Doses | None = None  # None: all that phase C made
    progress: bool = False
    phase_c_root: str = "runs/study/phase_c"
    output_root: str = "runs/study/phase_d"
    artifact_root: str = "runs/study/overlap"

    @property
    def design(self) -> ViewDesign:
        """The design that these parameters describe."""
        return part_of(ViewDesign, self)


@dataclass(frozen=True, kw_only=True)
class ReportParameters:
    """Parameters of report.ipynb."""

    study_dir: str = "runs/study"
    resolution: float = 0.5  # target: FRC 0.5 at this fraction of Nyquist
    phase_psnr_db: float = 20.0  # target

    def __post_init__(self) -> None:
        check_types(self)
        check_range("resolution", self.resolution, 0.01, 1)

    @property
    def targets(self) -> dict[str, float]:
        """Metric -> value to be reached."""
        return {"frc_half": self.resolution, "phase_psnr": self.phase_psnr_db}


@dataclass(frozen=True, kw_only=True)
class ExploreParameters:
    """Parameters of explore.ipynb: what it shows first; None: the first that there is."""

    study_dir: str = "runs/study"
    replicate: int | None = None
    dose: float | None = None
    view: str | None = None
    method: str | None = None

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class RobustnessParameters:
    """Parameters of robustness.ipynb."""

    imperfection: str = "probe_error,jitter_px,incoherent,motion_px,beam_stop_px,dead_share"
    strengths: int = 2  # of the four stated of each imperfection, the largest ones
    method: str = "pinn,lsqml"
    dose: float = 1e4
    view: str = "baseline"
    scan_step: int = 6
    specimen: str = "siemens_star"
    simulation: str = "matched"
    replicate: int = 0
    training_steps: int = 24
    num_epochs: int = 30
    steps: int = 80
    threads: int = 1
    output_root: str = "runs/robustness"

    def __post_init__(self) -> None:
        check_types(self)
        check_range("strengths", self.strengths, 1, 4)
        check_range("training_steps", self.training_steps, 1)
        check_choice("view", self.view, NAMED_VIEWS)
        for method in self.methods:
            METHODS.check(method)
        _ = self.design  # what it refuses is refused here

    @property
    def imperfections(self) -> tuple[str, ...]:
        return listed(self.imperfection)

    @property
    def methods(self) -> tuple[str, ...]:
        return listed(self.method)

    @property
    def design(self) -> StudyDesign:
        """The design whose simulation is disturbed."""
        return StudyDesign(
            doses=(self.dose,),
            specimen=self.specimen,
            simulation=self.simulation,
            scan_step=self.scan_step,
            replicate=self.replicate,
        )
