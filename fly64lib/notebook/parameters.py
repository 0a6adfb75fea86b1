"""The notebooks' parameters: one checked dataclass each, and the guard against misspelt names.

papermill only warns about an unknown `-p` name, and passes any type. So every notebook begins with

    parameters = read_parameters(TrainParameters, globals(), In)

A setting has its default and its range in its own configuration: ScanDesign, ViewDesign,
TrainingConfig, ModelConfig, MethodSettings and the methods' classes. generate.ipynb and
overlap.ipynb have the fields of their design as parameters. The others take all settings by name in
the mappings `design`, `training` and `settings`, and the most common ones as parameters of the same
name (or that in `_SHORT`): None leaves the configuration's own value. What a mapping holds goes
before the parameter of the same name. Nothing heavy is imported here: a wrong name fails at once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import field, fields, replace
from symtable import symtable
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field

from fly64lib.design.registries import METHODS
from fly64lib.design.study import Dose, Doses, LimitsAsked, ScanDesign, View, ViewDesign, part_of
from ptycho_torch.config import SETTINGS, TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import (
    SEVERAL,
    Distinct,
    Number,
    Positive,
    Settings,
    Threads,
    Whole,
    config,
    field_names,
    from_dict,
    refuse_unknown,
)

if TYPE_CHECKING:
    from fly64lib.reconstruction import MethodSettings

T = TypeVar("T")
_PAPERMILLS = ("PAPERMILL_INPUT_PATH", "PAPERMILL_OUTPUT_PATH")  # of papermill --inject-paths
_SHORT = {"epochs": "max_epochs"}  # a parameter: the setting that it means

Views = Distinct[View]
Methods = Distinct[METHODS.names]


def read_parameters(cls: type[T], namespace: Mapping[str, Any], cells: Sequence[str]) -> T:
    """Build `cls` from the notebook's variables; `cells` is IPython's `In`, which keeps the cell
    that papermill injected. Raises ConfigError naming the parameter that is not `cls`'s."""
    known = field_names(cls)
    injected = ["", *(cell for cell in cells if cell.lstrip().startswith("# Parameters"))][-1]
    names = symtable(injected, "parameters", "exec").get_symbols()
    assigned = {one.get_name() for one in names if one.is_assigned()}
    refuse_unknown(sorted(assigned.difference(_PAPERMILLS)), known, cls.__name__)
    return from_dict(cls, {name: namespace[name] for name in known if name in namespace})


def given(parameters: object, names: Sequence[str]) -> dict[str, Any]:
    """Of settings with these names those that a notebook's parameters give."""
    found = {_SHORT.get(one.name, one.name): one.name for one in fields(parameters)}
    values = {name: getattr(parameters, found[name]) for name in names if name in found}
    return {name: value for name, value in values.items() if value is not None}


@config
class GenerateParameters(ScanDesign):
    """Parameters of generate.ipynb: a scan's design, and where its data go."""

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


@config
class _Simulated:
    """What notebooks share that simulate one dose and train on it."""

    dose: Dose = 1e5
    view: View = "baseline"
    specimen: str | None = None
    simulation: str | None = None
    replicate: Whole | None = None
    design: Settings = field(default_factory=dict)
    training: Settings = field(default_factory=dict)

    @property
    def scan_design(self) -> ScanDesign:
        """What is simulated."""
        if "doses" in self.design:
            text = "design holds doses; this notebook has one dose, the parameter `dose`"
            raise ConfigError(text)
        values = given(self, field_names(ScanDesign)) | self.design
        return from_dict(ScanDesign, values | {"doses": (self.dose,)})

    def _trained(self, settings: Mapping[str, Any]) -> TrainingConfig:
        """A training's configuration on the simulated data; the mapping's settings go first."""
        scan = self.scan_design
        config = TrainingConfig().with_settings({"N": scan.N} | settings | self.training)
        return replace(config, seed=scan.seed(config.seed))


@config
class TrainParameters(_Simulated):
    """Parameters of train.ipynb."""

    gridsize: Literal[1, 2] | None = None  # None: the view's
    N: Whole | None = None
    train_npz: str | None = None  # a DATA-001 file of your own instead of the simulation
    test_npz: str | None = None  # its held-out half, if there is one
    objective: str | None = None
    known_probe: bool = True  # False: recovered from the patterns before
    seed: Whole | None = None
    epochs: Whole | None = None
    steps: Whole | None = None
    n_images: Whole | None = 1000  # enough for a first look; None: all
    batch_size: Whole | None = None
    learning_rate: float | None = None
    accelerator: str | None = None
    threads: Whole | None = None
    progress: bool = False
    data_dir: str = "runs/data"  # simulated data are kept here, keyed by what they are made of
    output_dir: str = "runs/train"

    def __post_init__(self) -> None:
        _ = self.config  # what it refuses is refused here
        if self.test_npz and not self.train_npz:
            raise ConfigError("test_npz is given without train_npz; give both, or neither")

    @property
    def config(self) -> TrainingConfig:
        """The settings of a job; :func:`fly64lib.training.run_training_job` adds the job's own."""
        return self._trained(given(self, SETTINGS))


@config
class ReconstructParameters:
    """Parameters of reconstruct.ipynb."""

    dose: Dose = 1e5
    view: Views = ("dense",)
    split: Literal["train", "test"] = "test"
    method: Methods = ("classical",)
    settings: Settings = field(default_factory=dict)
    num_epochs: Whole | None = None
    noise_model: str | None = None
    steps: Whole | None = None
    probe: str | None = None
    probe_modes: Whole | None = None
    probe_defocus_rad: float | None = None
    threads: Whole | None = None
    phase_c_root: str = "runs/study/phase_c"
    phase_d_root: str = "runs/study/phase_d"
    training_root: str = "runs/study/phase_e"
    artifact_root: str = "runs/study/phase_f"

    def __post_init__(self) -> None:
        short = [one.name for one in fields(self) if one.default is None and one.name != "threads"]
        if self.settings or any(getattr(self, name) is not None for name in short):
            _ = self.how  # what it refuses is refused here

    @property
    def how(self) -> "MethodSettings":
        """The settings of the methods."""
        from fly64lib.reconstruction import MethodSettings  # takes some seconds

        return MethodSettings(**given(self, field_names(MethodSettings)))


@config
class InferParameters:
    """Parameters of infer.ipynb and of `fly64 reconstruct --bundle`."""

    bundle: str = "runs/train/bundle.pt"
    data_npz: str = "scan.npz"
    output_npz: str | None = None  # None: the data's name with _object.npz, in this folder
    threads: Threads = 1


@config
class OwnScanSettings:
    """How one's own scan is reconstructed, for the command and for the notebook."""

    # by which the object is reconstructed; the best one's is written
    methods: Methods = ("classical", "pinn-sim+refine")
    steps: Positive = 40  # joint steps of each thing that the scan may need
    # seconds after which nothing further is tried of what the scan may need
    time_limit: Annotated[float, Field(gt=0)] | None = None
    model: bool = True  # --no-model: take probe, positions and grid as the file has them
    threads: Threads = 2


@config
class OwnScanParameters(OwnScanSettings):
    """Parameters of own_scan.ipynb."""

    source: str = "scan.npz"  # a DATA-001 scan, or a file that fly64 import reads
    output: str | None = None  # folder; None: source's name with _reconstructed, here


@config
class CutSettings:
    """How a scan is cut, for the command and for the notebook."""

    # of the photons of each exposure that are kept
    shares: Distinct[Annotated[Number, Field(gt=0, le=1)]] = (1.0, 0.3, 0.1, 0.03)
    # linear, of neighbouring exposures; those that the scan itself has not are left out
    overlaps: Distinct[Annotated[Number, Field(ge=0, lt=1)]] = (0.8, 0.5, 0.2)
    # none: classical, and pinn-sim+refine where a network for these pixels comes with the package
    methods: Annotated[tuple[METHODS.names, ...], SEVERAL] = ()
    replicates: Annotated[Positive, Field(le=100)] = 3  # draws of photons and positions
    threads: Threads = 1


@config
class CutParameters(CutSettings):
    """Parameters of cut.ipynb."""

    source: str = "scan_reconstructed/reconstruction.npz"
    output: str | None = None  # None: the source's name with _cut, in this folder


_Above = Annotated[Number, Field(gt=0, allow_inf_nan=False)]


@config
class PlanSettings:
    """An experiment that is planned, for the command and for the notebook."""

    energy_kev: _Above  # of the photons
    detector: str  # pixels across and their size in um: 256x75
    distance_m: _Above  # specimen to detector
    photons: _Above  # on the specimen, per exposure
    resolution_nm: _Above  # half of the smallest period that is to be seen
    probe_um: _Above  # outer diameter of the probe at half maximum
    contrast_rad: Annotated[Number, Field(gt=0, le=3.1)] = 0.2  # rms phase of the specimen
    # sides of the scanned field; one number: a square
    field_um: Annotated[tuple[_Above, ...], SEVERAL, Field(min_length=1, max_length=2)] = (10.0,)
    # least linear overlap of neighbouring exposures
    overlap: Annotated[Number, Field(ge=0, lt=1)] = 0.5
    study: str | None = None  # whose measured rows are used; None: those of the package


@config
class PlanParameters(PlanSettings):
    """Parameters of plan.ipynb: at first the experiment of fly001."""

    energy_kev: _Above = 8.8
    detector: str = "64x75"
    distance_m: _Above = 1.92
    photons: _Above = 1e4
    resolution_nm: _Above = 80.0
    probe_um: _Above = 1.7
    output: str = "runs/plan"


@config
class CompareParameters:
    """Parameters of compare.ipynb."""

    dose: Dose = 1e5
    view: Views | None = None  # None: all that were reconstructed
    method: Methods | None = None  # None: all that are there
    gauge: Literal["known_probe", "unknown_probe"] = "known_probe"
    limits: LimitsAsked = "both"
    phase_c_root: str = "runs/study/phase_c"
    phase_d_root: str = "runs/study/phase_d"
    reconstruction_root: str = "runs/study/phase_f"
    output_root: str = "runs/study/phase_g"


@config
class ReportParameters:
    """Parameters of report.ipynb."""

    study_dir: str = "runs/study"
    # target: contrast and noise, and FRC 0.5, hold up to this fraction of Nyquist
    resolution: Annotated[float, Field(ge=0.01, le=1)] = 0.5
    phase_psnr_db: float = 20.0  # target

    @property
    def targets(self) -> dict[str, float]:
        """Metric -> value to be reached."""
        same = {"resolved": self.resolution, "frc_half": self.resolution}
        return same | {"phase_psnr": self.phase_psnr_db}


@config
class ExploreParameters:
    """Parameters of explore.ipynb: what it shows first; None: the first that there is."""

    study_dir: str | None = None  # None: the newest under runs/
    replicate: Whole | None = None
    dose: Dose | None = None
    view: View | None = None
    method: str | None = None


@config
class RobustnessParameters(_Simulated):
    """Parameters of robustness.ipynb."""

    imperfection: Distinct[str] = (
        *("probe_error", "jitter_px", "incoherent", "motion_px", "beam_stop_px", "dead_share"),
    )
    strengths: Annotated[Whole, Field(ge=1, le=4)] = 2  # of the four of each, the largest ones
    method: Methods = ("pinn", "lsqml")
    dose: Dose = 1e4
    scan_step: Whole | None = 6
    simulation: str | None = "matched"
    training_steps: Positive = 24
    num_epochs: Whole | None = 30
    steps: Whole | None = None
    settings: Settings = field(default_factory=dict)
    threads: Threads = 1
    output_root: str = "runs/robustness"

    def __post_init__(self) -> None:
        _ = self.scan_design, self.config  # what they refuse is refused here
        for method in self.settings:  # its own class checks them
            METHODS.check(method)

    @property
    def config(self) -> TrainingConfig:
        """The settings of the trainings: short ones."""
        short = {"steps": self.training_steps, "thinnings": 4, "logger": "none"}
        return self._trained(short | {"threads": self.threads})
