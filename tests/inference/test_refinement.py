"""Refinement: it follows the data where photons are many, the network where they are few, and
chooses without truth."""

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from small_scan import seen_region, small_raw

from fly64lib.methods.base import measured
from fly64lib.methods.classical import Classical
from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.inference import refinement
from ptycho_torch.inference.apply import Reconstruction, data_deviance
from ptycho_torch.inference.refinement import refine
from ptycho_torch.iteration import prior_search
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.model import PtychoModel

CONFIG = TrainingConfig(model=ModelConfig(N=32, width=8))


def afresh(dose: float, noise_seed: int = 1) -> RawDataTorch:
    return small_raw(dose, noise_seed, across=6)


# of which the search without a network is made once (ptycho_torch.data.once)
scan = cache(afresh)


@cache
def classical(dose: float) -> np.ndarray:
    return Classical().reconstruct(scan(dose)).object


def error(image, raw) -> float:
    """Root mean square error over the scanned region, global phase removed."""
    region = seen_region(raw)
    found, truth = np.asarray(image)[region], raw.object_guess.numpy()[region]
    return float(np.abs(oracle.without_phase(found, truth) - truth).std())


def excess_db(image, beside, dose: float) -> float:
    """How far an image's deviance lies above the truth's, in dB beside another image's, on patterns
    that neither was made from."""
    fresh = scan(dose, noise_seed=9)
    true = data_deviance(fresh.object_guess, fresh)
    one, other = (data_deviance(torch.as_tensor(at), fresh) - true for at in (image, beside))
    return float(10 * np.log10(max(one, 1e-9) / other))


def answering(image, monkeypatch) -> None:
    """Let the network's part answer `image` for any data."""

    def network(model, raw, config):
        light = torch.ones(raw.object_guess.shape)
        found = torch.as_tensor(image, dtype=torch.complex64)
        return Reconstruction(found, light, np.arange(raw.n), 0.0, 0.0)

    monkeypatch.setattr(refinement, "reconstruct", network)


def refined(image, raw, monkeypatch):
    answering(image, monkeypatch)
    return refine(PtychoModel(CONFIG.model, raw.probe), raw, CONFIG)


def scrambled(image: torch.Tensor) -> torch.Tensor:
    order = torch.randperm(image.numel(), generator=torch.Generator().manual_seed(0))
    return image.flatten()[order].view_as(image)


WRONG = {
    "flat": torch.ones_like,
    "scrambled": scrambled,
    "turned": lambda image: torch.flip(image, (0, 1)),
}


@pytest.mark.parametrize("dose", [1e3, 1e6])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_network_is_refused_or_put_right(wrong, dose, monkeypatch):
    raw = scan(dose)
    found = refined(WRONG[wrong](raw.object_guess), raw, monkeypatch)
    alone = classical(dose)
    assert found.kept in ("blend", "none") and found.judged["none"] < found.judged["network"]
    assert excess_db(found.object, alone, dose) < 0.1
    if found.kept == "none":  # it is the classical control
        region = seen_region(raw)
        np.testing.assert_allclose(found.object[region], alone[region], atol=1e-4)


def test_with_many_photons_a_noisy_network_is_put_right(monkeypatch):
    raw = scan(1e6)
    wrong = raw.object_guess + 0.1 * torch.from_numpy(
        oracle.complex_field(np.random.default_rng(0), *raw.object_guess.shape)
    )
    found = refined(wrong, raw, monkeypatch)
    assert error(found.object, raw) < 0.15 * error(wrong, raw)
    assert found.kept in ("blend", "none")


@pytest.mark.parametrize("dose", [30.0, 1e4])
def test_a_right_network_is_kept_or_held_to(dose, monkeypatch):
    raw = scan(dose)
    found = refined(raw.object_guess, raw, monkeypatch)
    alone = classical(dose)
    assert found.kept in ("network", "blend")
    assert error(found.object, raw) < 0.3 * error(alone, raw)


def test_neither_the_choice_nor_the_object_knows_the_files_object(monkeypatch):
    raw = scan(1e4)
    start = raw.object_guess * 1.05
    first, second = (refined(start, one, monkeypatch) for one in (raw, raw.without_truth()))
    assert torch.equal(first.object, second.object) and first.judged == second.judged


def test_what_photons_held_out_like_best_is_kept(monkeypatch):
    raw = scan(1e6)
    faded = raw.object_guess.abs() * torch.exp(0.5j * raw.object_guess.angle())
    for image, kept in ((raw.object_guess, "network"), (faded, "blend")):
        found = refined(image, raw, monkeypatch)
        assert list(found.judged) == ["none", "blend", "network"]
        assert found.kept == min(found.judged, key=found.judged.get) == kept
        assert (found.prior is None) == (kept == "network")


def test_what_no_pattern_covers_stays_as_the_network_left_it(monkeypatch):
    raw = scan(1e4)
    wide = np.pad(raw.scan.object_guess, ((0, 9), (0, 11)), constant_values=0.5)
    raw = RawDataTorch(replace(raw.scan, object_guess=wide), Path("wide.npz"))
    found = refined(raw.object_guess, raw, monkeypatch)
    assert (found.object[-9:] == 0.5).all() and (found.object[:, -11:] == 0.5).all()


def test_on_a_scan_that_classical_was_run_on_the_same_object_is_found_sooner_at_the_same_cost():
    raw, alone = afresh(1e3), afresh(1e3)
    model = PtychoModel(CONFIG.model, raw.probe)
    before = refine(model, alone, CONFIG)
    sought = []
    with measured(raw) as before_it:
        Classical().reconstruct(raw)
    with measured(raw) as cost, pytest.MonkeyPatch.context() as patch:
        patch.setattr(prior_search, "choose", lambda *a, **k: sought.append(a))
        after = refine(model, raw, CONFIG)
    assert torch.equal(after.object, before.object) and after.judged == before.judged
    assert sought == []  # the search without a network was classical's
    assert cost.cpu_seconds - after.cpu_seconds > 0.3 * before_it.cpu_seconds
    assert before_it.spared_cpu_seconds == 0
    assert cost.spared_cpu_seconds == pytest.approx(raw.once.spared[1])
