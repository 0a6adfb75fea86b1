"""Configuration of the engine: two frozen dataclasses, passed explicitly, checked when they are
made.

Importing this module imports neither torch nor lightning.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import check_choice, check_range, check_types
from ptycho_torch.fields import from_dict as _from_dict


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """What the network sees and how large it is. Stored in every bundle."""

    N: int = 64  # detector and patch side, pixels
    gridsize: int = 1  # a group holds gridsize**2 images
    context: str = (
        "view"  # patterns that make the input canvas: all of the "view", or the "group"'s own
    )
    objective: str = (  # counts only, no truth; "supervised": truth patches; "procedural": simulated fields
        "poisson"
    )
    canvas_passes: tuple[int, ...] = (
        2,
        5,
    )  # canvases after these many passes over the patterns are the input
    smoothness: float = 10.0  # penalty of those canvases' slopes, photons per object pixel
    width: int = 16  # channels of the first level, doubling per level
    depth: int = 3  # levels of the U-Net

    def __post_init__(self) -> None:
        check_types(self)
        check_range("N", self.N, 8, 1024)
        check_choice("gridsize", self.gridsize, (1, 2))
        check_choice("context", self.context, ("view", "group"))
        check_choice("objective", self.objective, ("poisson", "supervised", "procedural"))
        check_range("smoothness", self.smoothness, 0)
        check_range("width", self.width, 8, 512)
        check_choice("width modulo 8", self.width % 8, (0,))
        check_range("depth", self.depth, 1, 6)
        check_range("number of canvas_passes", len(self.canvas_passes), 1, 8)
        for steps in self.canvas_passes:
            check_range("canvas_passes", steps, 1, 1000)
        if list(self.canvas_passes) != sorted(set(self.canvas_passes)):
            raise ConfigError(
                f"canvas_passes={self.canvas_passes} do not rise; the canvases come in the order of"
                " the passes"
            )

    @property
    def images_per_group(self) -> int:
        return self.gridsize**2


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training job. `model` is what the bundle keeps; the rest says how it was trained."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train_data_file: str = ""  # DATA-001 npz of the training split
    test_data_file: str = ""  # DATA-001 npz of the held-out split
    output_dir: str = "runs/train"  # everything the job writes
    n_images: int | None = None  # at most this many training images; None: all
    n_groups: int | None = None  # groups drawn from them; None: one per image, or the view's own
    neighbor_count: int = 7  # K nearest images that groups are drawn from
    batch_size: int = 128  # groups per optimiser step
    max_epochs: int | None = (
        None  # an epoch shows every group once under every thinning; None: what `steps` need
    )
    steps: int = 400  # optimiser steps, at least, where max_epochs is None
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    keep: float = (
        0.8  # share of the photons that makes the network's input; it is scored on the others
    )
    thinnings: int = 8  # independent splits of the photons
    # photons per exposure the data were taken at (for the record; the probe carries the scale)
    nphotons: float = 1e5
    seed: int = 0  # initial weights, order, thinning
    grouping_seed: int = 123
    subsample_seed: int = 456
    accelerator: str = "cpu"  # "cpu", "gpu" or "auto" (Lightning's names)
    devices: int = 1
    threads: int = 1  # CPU threads; part of what "the same bits" means
    num_workers: int = 0
    deterministic: bool = True
    logger: str = "csv"  # "none", "csv", "tensorboard", "mlflow"
    checkpointing: bool = True
    # between two checkpoints, at least; they are taken between epochs, and after the last one
    checkpoint_steps: int = 50
    progress: bool = False  # a bar on the terminal; notebooks keep it off

    def __post_init__(self) -> None:
        check_types(self)
        check_range("n_images", self.n_images, 1)
        check_range("n_groups", self.n_groups, 1)
        check_range("neighbor_count", self.neighbor_count, self.model.images_per_group - 1, 64)
        check_range("batch_size", self.batch_size, 1)
        check_range("max_epochs", self.max_epochs, 1)
        check_range("steps", self.steps, 1)
        check_range("learning_rate", self.learning_rate, 1e-8, 1)
        check_range("weight_decay", self.weight_decay, 0, 10)
        check_range("keep", self.keep, 0.05, 0.99)
        check_range("thinnings", self.thinnings, 1, 1024)
        check_range("nphotons", self.nphotons, 1e-3)
        for name in ("seed", "grouping_seed", "subsample_seed"):
            check_range(name, getattr(self, name), 0, 2**31)
        check_range("devices", self.devices, 1)
        check_range("checkpoint_steps", self.checkpoint_steps, 1)
        check_range("threads", self.threads, 1, 1024)
        check_range("num_workers", self.num_workers, 0, 1024)
        check_choice("accelerator", self.accelerator, ("cpu", "gpu", "auto"))
        check_choice("logger", self.logger, ("none", "csv", "tensorboard", "mlflow"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, JSON-ready; :meth:`from_dict` is the way back."""
        values = asdict(self)
        values["model"]["canvas_passes"] = list(self.model.canvas_passes)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainingConfig":
        """The inverse of :meth:`to_dict`; unknown keys fail."""
        return _from_dict(cls, values)


LEGACY_NAMES = {  # upstream's key in params.cfg: where its value stands here
    "N": "model.N",
    "gridsize": "model.gridsize",
    "nphotons": "nphotons",
    "nepochs": "max_epochs",
    "batch_size": "batch_size",
    "neighbor_count": "neighbor_count",
    "n_groups": "n_groups",
    "n_subsample": "n_images",
    "subsample_seed": "subsample_seed",
    "train_data_file_path": "train_data_file",
    "test_data_file_path": "test_data_file",
    "output_prefix": "output_dir",
}


def update_legacy_dict(cfg: dict[str, Any], config: TrainingConfig) -> None:
    """Write the config's values under upstream's names into `cfg` (CONFIG-001: once per job, before
    data is loaded)."""
    for legacy, path in LEGACY_NAMES.items():
        value: Any = config
        for name in path.split("."):
            value = getattr(value, name)
        cfg[legacy] = value
