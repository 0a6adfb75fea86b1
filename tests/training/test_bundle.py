"""One file that loads alone: the same network, nothing executed, and a clear refusal of whatever is
not a bundle."""

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.errors import DataContractError
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.training.bundle import load_bundle, save_bundle

CONFIG = TrainingConfig(
    model=ModelConfig(N=16, gridsize=2, canvas_passes=(1, 3), width=8, depth=2),
    seed=5,
    n_images=40,
    train_data_file="train.npz",
)
STATISTICS = {
    "images": 40,
    "photons_per_exposure": 1234.5,
    "metadata": {"dose": 1e3, "seeds": [1, 2], "note": None},
}


def model(modes: int = 2) -> PtychoModel:
    torch.manual_seed(3)
    made = PtychoModel(CONFIG.model, torch.randn(modes, 16, 16, dtype=torch.complex64))
    torch.nn.init.normal_(made.network.head.weight)
    return made


@pytest.fixture
def bundle(tmp_path) -> Path:
    save_bundle(tmp_path / "bundle.pt", model(), CONFIG, STATISTICS)
    return tmp_path / "bundle.pt"


def test_a_bundle_gives_back_network_probe_configuration_and_statistics(bundle):
    came = load_bundle(bundle)
    assert came.config == CONFIG and came.statistics == STATISTICS
    assert torch.equal(came.model.probe, model().probe) and not came.model.training
    channels = torch.randn(1, 5, 21, 30)
    assert torch.equal(came.model.network(channels), model().network(channels))


def test_its_checksum_is_that_of_the_file(tmp_path):
    path = tmp_path / "deep" / "er" / "bundle.pt"
    told = save_bundle(path, model(), CONFIG, STATISTICS)
    assert told == load_bundle(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_bundle_holds_tensors_and_plain_types_only(bundle):
    def check(value: object) -> None:
        assert type(value).__name__ in (
            "dict",
            "OrderedDict",
            "list",
            "str",
            "int",
            "float",
            "bool",
            "NoneType",
            "Tensor",
        )
        for inner in (
            [*value, *value.values()]
            if isinstance(value, dict)
            else value
            if isinstance(value, list)
            else []
        ):
            check(inner)

    content = torch.load(bundle, weights_only=False)
    check(content)
    assert content["legacy"]["gridsize"] == 2 and content["legacy"]["n_subsample"] == 40
    assert (
        content["versions"]["torch"] == str(torch.__version__)
        and content["versions"]["python"] in sys.version
    )


def test_statistics_of_numpy_types_still_make_a_bundle_that_loads(tmp_path):
    save_bundle(
        tmp_path / "b.pt",
        model(),
        CONFIG,
        {"mean": np.float32(0.5), "shape": np.array([3, 4]), "at": Path("x")},
    )
    assert load_bundle(tmp_path / "b.pt").statistics == {"mean": 0.5, "shape": [3, 4], "at": "x"}


class Code:
    """Pickles to a call that leaves a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


def test_a_bundle_with_code_in_it_is_refused_and_the_code_does_not_run(bundle, tmp_path):
    content = torch.load(bundle, weights_only=True)
    content["statistics"] = Code(tmp_path / "executed")
    torch.save(content, tmp_path / "evil.pt")
    with pytest.raises(
        DataContractError, match="evil.pt: not a bundle .*nothing of it was executed"
    ):
        load_bundle(tmp_path / "evil.pt")
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)  # and it would have run
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_bundle_is_refused_by_name(bundle, part):
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(
        DataContractError, match="bundle.pt: not a bundle that this project wrote, or a damaged one"
    ):
        load_bundle(bundle)


def test_what_is_not_a_bundle_is_refused_by_name(tmp_path):
    (tmp_path / "notes.pt").write_text("not a bundle")
    np.savez(tmp_path / "scan.npz", diffraction=np.ones(3))
    for name in ("notes.pt", "scan.npz"):
        with pytest.raises(DataContractError, match=f"{name}: not a bundle"):
            load_bundle(tmp_path / name)
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    with pytest.raises(
        DataContractError, match="model.ckpt: its format is None, expected 'fly64-bundle-1'"
    ):
        load_bundle(tmp_path / "model.ckpt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(DataContractError, match="list.pt: its format is None"):
        load_bundle(tmp_path / "list.pt")
    with pytest.raises(DataContractError, match="absent.pt: no such bundle; training writes one"):
        load_bundle(tmp_path / "absent.pt")


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content.pop("weights"),
        lambda content: content["weights"].pop("stem.bias"),
        lambda content: content["config"]["model"].update(width=16),
        lambda content: content["config"].update(batchsize=3),
        lambda content: content["config"].update(batch_size="many"),
        lambda content: content.update(config=None),
    ],
)
def test_a_bundle_whose_parts_do_not_fit_is_refused_by_name(bundle, damage):
    content = torch.load(bundle, weights_only=True)
    damage(content)
    torch.save(content, bundle)
    with pytest.raises(DataContractError, match=r"bundle\.pt: "):
        load_bundle(bundle)


def test_a_failed_write_leaves_the_old_bundle(bundle):
    before = bundle.read_bytes()
    with pytest.raises(Exception, match="JSON"):
        save_bundle(bundle, model(), replace(CONFIG, seed=9), {"loss": float("nan")})
    assert bundle.read_bytes() == before and [path.name for path in bundle.parent.iterdir()] == [
        "bundle.pt"
    ]


def test_a_bundle_keeps_upstreams_names_and_carries_its_own_checksum(bundle):
    came = load_bundle(bundle)
    assert (
        came.legacy["gridsize"] == 2 and came.legacy["n_subsample"] == 40 and came.legacy["N"] == 16
    )
    whole = bundle.read_bytes()
    assert whole[-64:].decode() == hashlib.sha256(whole[:-64]).hexdigest()


def test_a_bundle_from_before_the_checksum_is_read_by_the_zips_own(bundle):
    content = torch.load(bundle, weights_only=True)
    del content["sealed"]
    torch.save(content, bundle)
    assert load_bundle(bundle).config == CONFIG
    held = bytearray(bundle.read_bytes())
    held[len(held) // 2] ^= 1
    bundle.write_bytes(held)
    with pytest.raises(
        DataContractError, match=r"bundle\.pt: not a bundle .*the checksum of its part .* is wrong"
    ):
        load_bundle(bundle)
