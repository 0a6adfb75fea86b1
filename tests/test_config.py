"""Configurations refuse what they do not know, by name; upstream's dict gets the same values under
upstream's names."""

import dataclasses
import json
from dataclasses import field, fields
from typing import Any

import pytest

from ptycho_torch import params
from ptycho_torch.config import LEGACY_NAMES, ModelConfig, TrainingConfig, update_legacy_dict
from ptycho_torch.errors import ConfigError, PtychoError
from ptycho_torch.fields import check_choice, config, from_dict, refuse_unknown


def test_the_default_configuration_is_valid_and_cannot_be_changed():
    config = TrainingConfig()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.seed = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.model.N = 32


def test_a_configuration_survives_json():
    config = TrainingConfig(model=ModelConfig(N=32, gridsize=2), n_images=7, learning_rate=0.01)
    again = TrainingConfig(**json.loads(json.dumps(config.to_dict())))
    assert again == config and again.model.images_per_group == 4


def test_an_int_passes_for_a_float_and_becomes_one():
    config = TrainingConfig(nphotons=1000, weight_decay=0)
    assert type(config.nphotons) is float and type(config.weight_decay) is float


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"batchsize": 4},
            "unknown parameter 'batchsize' of TrainingConfig; did you mean 'batch_size'",
        ),
        (
            {"model": {"gridsiz": 2}},
            r"unknown parameter 'gridsiz' of TrainingConfig\.model",
        ),
        ({"zzzz": 1}, r"unknown parameter 'zzzz' of TrainingConfig. Known: accelerator, "),
    ],
)
def test_a_misspelt_key_is_refused_with_the_nearest_known_one(values, says):
    with pytest.raises(ConfigError, match=says):
        TrainingConfig(**values)


WRONG = [
    (TrainingConfig, "batch_size", 2.5, "batch_size=2.5: expected a valid integer"),
    (TrainingConfig, "batch_size", True, "batch_size: True is no number"),
    (TrainingConfig, "batch_size", 0, "batch_size=0: expected greater than or equal to 1"),
    (TrainingConfig, "progress", "maybe", "progress='maybe': expected a valid boolean"),
    (TrainingConfig, "n_images", "all", "n_images='all': expected a valid integer"),
    (TrainingConfig, "n_images", 0, "n_images=0: expected greater"),
    (TrainingConfig, "n_groups", -1, "n_groups=-1: expected greater"),
    (TrainingConfig, "neighbor_count", 65, "neighbor_count=65: expected less than or equal to 64"),
    (TrainingConfig, "max_epochs", 0, "max_epochs=0: expected greater"),
    (TrainingConfig, "steps", None, "steps=None: expected a valid integer"),
    (TrainingConfig, "learning_rate", float("nan"), "learning_rate=nan: expected"),
    (TrainingConfig, "learning_rate", "fast", "learning_rate='fast': expected a valid number"),
    (TrainingConfig, "keep", 1.0, "keep=1.0: expected less than or equal to 0.99"),
    (TrainingConfig, "thinnings", 2000, "thinnings=2000: expected less"),
    (TrainingConfig, "nphotons", 0.0, "nphotons=0.0: expected greater"),
    (TrainingConfig, "nphotons", float("inf"), "nphotons=inf: expected a finite number"),
    (TrainingConfig, "seed", -1, "seed=-1: expected greater"),
    (TrainingConfig, "grouping_seed", -1, "grouping_seed=-1: expected greater"),
    (TrainingConfig, "subsample_seed", -1, "subsample_seed=-1: expected greater"),
    (TrainingConfig, "accelerator", "cuda", "accelerator='cuda': expected 'cpu', 'gpu' or 'auto'"),
    (TrainingConfig, "logger", "wandb", "logger='wandb': expected 'none', 'csv', 'tensorboard' or"),
    (TrainingConfig, "model", {"N": 4}, "model.N=4: expected greater than or equal to 8"),
    (ModelConfig, "N", 4, "N=4: expected greater"),
    (ModelConfig, "gridsize", 3, "gridsize=3: expected 1 or 2"),
    (ModelConfig, "objective", "mae", "objective='mae': expected 'poisson', 'supervised' or"),
    (ModelConfig, "network", "unett", "network='unett' is not known; did you mean 'unet'"),
    (ModelConfig, "width", 12, "width=12: expected a multiple of 8"),
    (ModelConfig, "depth", 0, "depth=0: expected greater"),
]


@pytest.mark.parametrize(
    ("cls", "name", "value", "says"),
    WRONG,
    ids=[f"{name}={value!r}" for _, name, value, _ in WRONG],
)
def test_a_value_of_the_wrong_type_or_out_of_range_is_refused_by_name(cls, name, value, says):
    with pytest.raises(ConfigError, match=says):
        cls(**{name: value})


def test_every_number_of_the_configuration_has_a_range():
    """A number that is not checked takes -1e9."""
    for cls in (ModelConfig, TrainingConfig):
        for one in fields(cls):
            if one.type in ("int", int, "float", float, int | None, "int | None"):
                kind = float if one.type in ("float", float) else int
                with pytest.raises(ConfigError, match=one.name):
                    cls(**{one.name: kind(-1e9)})


def test_groups_of_four_need_three_neighbours():
    with pytest.raises(
        ConfigError, match="neighbor_count=2 is too small for groups of 4; expected 3"
    ):
        TrainingConfig(model=ModelConfig(gridsize=2), neighbor_count=2)


# --- fields ---


@config
class Inner:
    sizes: tuple[int, int] = (1, 2)


@config
class Outer:
    inner: Inner = field(default_factory=Inner)
    many: tuple[float, ...] = ()
    table: dict[str, int] = field(default_factory=dict)
    anything: Any = None
    either: int | str | None = None


def test_nested_dataclasses_and_tuples_are_rebuilt_from_plain_values():
    built = from_dict(
        Outer, {"inner": {"sizes": [3, 4]}, "many": [1.5, 2], "table": {"a": 1}, "either": "x"}
    )
    assert built == Outer(inner=Inner(sizes=(3, 4)), many=(1.5, 2.0), table={"a": 1}, either="x")


@pytest.mark.parametrize(
    "values",
    [
        {"inner": 5},
        {"inner": {"sizes": [1, 2, 3]}},
        {"many": (1, "two")},
        {"table": {"a": 1.5}},
        {"table": {2: 1}},
        {"table": [1]},
        {"either": 1.5},
    ],
)
def test_types_are_checked_to_the_bottom(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        Outer(**values)


def test_choices_and_names_are_refused_in_words():
    with pytest.raises(ConfigError, match=r"side='left' is not one of 'up', 'down'"):
        check_choice("side", "left", ("up", "down"))
    with pytest.raises(
        ConfigError,
        match="unknown parameter 'dosee' of here; did you mean 'dose'. Known: dose, view",
    ):
        refuse_unknown(["view", "dosee"], ["view", "dose"], "here")
    assert issubclass(ConfigError, PtychoError) and issubclass(ConfigError, ValueError)


# --- upstream's dict ---


def test_upstreams_dict_sees_the_same_values_under_upstreams_names():
    config = TrainingConfig(
        model=ModelConfig(N=128, gridsize=2),
        train_data_file="a.npz",
        test_data_file="b.npz",
        output_dir="out",
        n_images=512,
        n_groups=600,
        neighbor_count=9,
        batch_size=16,
        max_epochs=50,
        nphotons=1e4,
        subsample_seed=7,
    )
    cfg: dict[str, Any] = {"theirs": "stays", "N": 64}
    update_legacy_dict(cfg, config)
    assert cfg == {
        "theirs": "stays",
        "N": 128,
        "gridsize": 2,
        "nphotons": 1e4,
        "nepochs": 50,
        "batch_size": 16,
        "neighbor_count": 9,
        "n_groups": 600,
        "n_subsample": 512,
        "subsample_seed": 7,
        "train_data_file_path": "a.npz",
        "test_data_file_path": "b.npz",
        "output_prefix": "out",
    }
    assert set(cfg) - {"theirs"} == set(LEGACY_NAMES)


def test_upstreams_dict_is_a_plain_dict_that_starts_empty():
    assert type(params.cfg) is dict and params.cfg == {}
