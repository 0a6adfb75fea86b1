"""Configuration of the engine: two frozen dataclasses, passed explicitly, checked when made.

Importing this module imports neither torch nor lightning."""

from collections.abc import Mapping
from dataclasses import field, replace
from operator import attrgetter
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field
from tyro.conf import Suppress as OfJob  # what a job decides: neither an option nor a setting

from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import Positive, Seed, Threads, Whole, config, refuse_unknown
from ptycho_torch.fields import to_dict as _to_dict
from ptycho_torch.registry import Registry

# What they are: ptycho_torch.network.
NETWORKS = Registry("network", "fly64.networks", {"unet": "ptycho_torch.network.unet:CanvasUNet"})


@config
class ModelConfig:
    """What the network sees and how large it is. Stored in every bundle."""

    N: Annotated[Whole, Field(ge=8, le=1024)] = 64  # detector and patch side, pixels
    gridsize: OfJob[Literal[1, 2]] = 1  # a group holds gridsize**2 images
    # counts only, no truth; "supervised": truth patches; "general": simulated canvases of
    # procedural objects, by fly64lib.simulation.pretraining
    objective: Literal["poisson", "supervised", "general"] = "poisson"
    network: str = "unet"  # a name in NETWORKS
    # channels of the first level, doubling per level
    width: Annotated[Whole, Field(ge=8, le=512, multiple_of=8)] = 16
    depth: Annotated[Whole, Field(ge=1, le=6)] = 3  # levels of the U-Net

    def __post_init__(self) -> None:
        NETWORKS.check(self.network)

    @property
    def images_per_group(self) -> int:
        return self.gridsize**2


@config
class TrainingConfig:
    """One training job. `model` is what the bundle keeps; the rest says how it was trained."""

    model: ModelConfig = field(default_factory=ModelConfig)
    train_data_file: OfJob[str] = ""  # DATA-001 npz of the training split
    test_data_file: OfJob[str] = ""  # DATA-001 npz of the held-out split
    output_dir: OfJob[str] = "runs/train"  # everything the job writes
    n_images: Positive | None = None  # at most this many training images; None: all
    n_groups: Positive | None = None  # groups drawn from them; None: one per image, or the view's
    neighbor_count: Annotated[Whole, Field(ge=0, le=64)] = 7  # K nearest, to draw groups from
    # "shipped": the network that comes with the package for these N and M, its width and depth
    # included, adapted; what photons held out of everything explain best is kept
    start: Literal["scratch", "shipped"] = "scratch"
    # share of the photons that judges a shipped network's adaptation
    held_out: Annotated[float, Field(ge=0.01, le=0.5)] = 0.1
    batch_size: Positive = 128  # groups per optimiser step
    # an epoch shows every group once under every thinning; None: what `steps` need
    max_epochs: Positive | None = None
    steps: Positive = 400  # optimiser steps, at least, where max_epochs is None
    learning_rate: Annotated[float, Field(ge=1e-8, le=1)] = 2e-3
    weight_decay: Annotated[float, Field(ge=0, le=10)] = 1e-3
    # share of the photons that makes the network's input; it is scored on the others
    keep: Annotated[float, Field(ge=0.05, le=0.99)] = 0.8
    thinnings: Annotated[Whole, Field(ge=1, le=1024)] = 8  # independent splits of the photons
    # photons per exposure of the data (for the record; the probe carries the scale)
    nphotons: OfJob[Annotated[float, Field(ge=1e-3, allow_inf_nan=False)]] = 1e5
    seed: Seed = 0  # initial weights, order, thinning
    grouping_seed: Seed = 123
    subsample_seed: Seed = 456
    accelerator: Literal["cpu", "gpu", "auto"] = "cpu"  # Lightning's names
    devices: Positive = 1
    threads: Threads = 1  # CPU threads; part of what "the same bits" means
    num_workers: Annotated[Whole, Field(ge=0, le=1024)] = 0
    deterministic: bool = True
    logger: Literal["none", "csv", "tensorboard", "mlflow"] = "csv"
    checkpointing: bool = True
    # between two checkpoints, at least; they are taken between epochs, and after the last one
    checkpoint_steps: Positive = 50
    progress: bool = False  # a bar on the terminal; notebooks keep it off

    def __post_init__(self) -> None:
        if self.neighbor_count < (C := self.model.images_per_group) - 1:
            text = f"neighbor_count={self.neighbor_count} is too small for groups of {C}; expected"
            raise ConfigError(f"{text} {C - 1} or more")

    to_dict = _to_dict  # `TrainingConfig(**values)` is the way back; unknown keys fail

    def with_settings(self, settings: Mapping[str, Any]) -> "TrainingConfig":
        """This configuration with other values; names of ModelConfig's fields go to `model`.

        No name stands in both, so that one flat mapping serves notebooks, profiles and the shell.
        Raises ConfigError for an unknown name, and for one whose value the job decides."""
        refuse_unknown(settings, SETTINGS, "a training")
        of_model = {name: settings[name] for name in settings if hasattr(self.model, name)}
        values = {name: settings[name] for name in settings if name not in of_model}
        return replace(self, model=replace(self.model, **of_model), **values)


SETTINGS = [  # of a training, by name
    name
    for cls in (TrainingConfig, ModelConfig)
    for name, hint in get_type_hints(cls, include_extras=True).items()
    if name != "model" and OfJob not in getattr(hint, "__metadata__", ())
]
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
    """Write the config's values under upstream's names: CONFIG-001, once per job, before data."""
    cfg.update((legacy, attrgetter(path)(config)) for legacy, path in LEGACY_NAMES.items())
