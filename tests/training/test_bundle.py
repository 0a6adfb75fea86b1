"""One file that loads alone: the same network, nothing executed, and a clear refusal of whatever is
not a bundle."""

import hashlib
import json
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.errors import DataContractError
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.training.bundle import load_bundle, read_sealed, save_bundle, write_sealed

CONFIG = TrainingConfig(
    model=ModelConfig(N=16, gridsize=2, width=8, depth=2),
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


def test_a_bundle_is_tensors_and_text_that_any_reader_of_safetensors_sees(bundle):
    with safetensors.safe_open(bundle, "pt") as file:
        text, probe = json.loads(file.metadata()["fly64"]), file.get_tensor("probe")
        names = set(file.keys())
    assert torch.equal(probe, model().probe) and names == set(model().state_dict())
    assert text["format"] == "fly64-bundle-2" and text["config"] == CONFIG.to_dict()
    assert text["legacy"]["gridsize"] == 2 and text["legacy"]["n_subsample"] == 40
    assert text["versions"]["torch"] == version("torch")
    assert text["versions"]["python"] in sys.version


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


def test_a_pickle_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path):
    torch.save({"format": "fly64-bundle-1", "x": Code(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(DataContractError, match="evil.pt: not a bundle .*nothing of it was execut"):
        load_bundle(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "evil.pt", weights_only=False)  # and it would have run
    assert (tmp_path / "ran").exists()


def test_a_bundle_of_an_older_version_is_named_as_one(tmp_path):
    torch.save({"format": "fly64-bundle-1"}, tmp_path / "old.pt")
    whole = (tmp_path / "old.pt").read_bytes()
    seal = b"fly64 bundle, sha256 of all before: " + 64 * b"7"
    (tmp_path / "old.pt").write_bytes(whole[:-2] + len(seal).to_bytes(2, "little") + seal)
    with pytest.raises(DataContractError, match="old.pt: .*of an older version: train again"):
        load_bundle(tmp_path / "old.pt")


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_bundle_is_refused_by_name(bundle, part):
    whole = bundle.read_bytes()
    bundle.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(
        DataContractError, match="bundle.pt: not a bundle that this version of the project can use"
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
        DataContractError, match="model.ckpt: .*give the bundle.pt that training wr"
    ):
        load_bundle(tmp_path / "model.ckpt")
    safetensors.torch.save_file({"a": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(DataContractError, match="other.pt: not a bundle"):
        load_bundle(tmp_path / "other.pt")
    with pytest.raises(DataContractError, match="absent.pt: no such bundle; training writes one"):
        load_bundle(tmp_path / "absent.pt")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda tensors, _: tensors.pop("probe"), "it lacks 'probe'"),
        (lambda tensors, _: tensors.pop("network.stem.bias"), "stem.bias are missing, or not of"),
        (lambda _, text: text["config"]["model"].update(width=16), "expected torch.float32"),
        (lambda _, text: text["config"].update(batchsize=3), "unknown parameter 'batchsize'"),
        (lambda _, text: text["config"].update(batch_size="many"), "batch_size='many'"),
        (lambda _, text: text.update(config=None), "config is a NoneType"),
    ],
)
def test_a_bundle_whose_parts_do_not_fit_is_refused_by_name(bundle, damage, says):
    tensors, text = read_sealed(bundle)
    damage(tensors, text)
    write_sealed(bundle, tensors, text)
    with pytest.raises(DataContractError, match=rf"bundle\.pt: not a bundle .*{says}"):
        load_bundle(bundle)


def test_a_failed_write_leaves_the_old_bundle(bundle):
    before = bundle.read_bytes()
    with pytest.raises(Exception, match="JSON"):
        save_bundle(bundle, model(), replace(CONFIG, seed=9), {"loss": float("nan")})
    assert bundle.read_bytes() == before and [path.name for path in bundle.parent.iterdir()] == [
        "bundle.pt"
    ]


def test_a_bundle_keeps_upstreams_names_and_the_same_one_has_the_same_bytes(bundle, tmp_path):
    assert load_bundle(bundle).legacy | {"gridsize": 2, "N": 16} == load_bundle(bundle).legacy
    save_bundle(tmp_path / "again.pt", model(), CONFIG, STATISTICS)
    assert (tmp_path / "again.pt").read_bytes() == bundle.read_bytes()


def test_the_seal_is_the_checksum_of_the_file_with_zeros_in_its_place(bundle):
    whole = bundle.read_bytes()
    seal = json.loads(json.loads(whole[8 : 8 + whole[0] + 256 * whole[1]])["__metadata__"]["fly64"])
    blank = whole.replace(seal["sha256"].encode(), b"0" * 64)
    assert len(blank) == len(whole) and hashlib.sha256(blank).hexdigest() == seal["sha256"]
