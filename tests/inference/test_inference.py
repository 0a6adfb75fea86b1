"""From model and file to object: a perfect network gives the perfect object, in both contexts and
for both gridsizes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, seen_region, small_raw, small_scan

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.errors import ConfigError
from ptycho_torch.inference.apply import apply as inference
from ptycho_torch.inference.apply import check_probe, data_deviance, reconstruct
from ptycho_torch.iteration import canvas
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.network.features import Features
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.physics.noise import perfect_deviance

SETTINGS = [("view", 1), ("view", 2), ("group", 1), ("group", 2)]


def config(context: str = "view", gridsize: int = 1, **training) -> TrainingConfig:
    model = ModelConfig(N=32, context=context, gridsize=gridsize, canvas_passes=(2, 8), width=8)
    return TrainingConfig(model=model, **training)


def untrained(settings: TrainingConfig, raw: RawDataTorch) -> PtychoModel:
    return PtychoModel(settings.model, raw.probe)


def perfect(settings: TrainingConfig, raw: RawDataTorch, monkeypatch) -> PtychoModel:
    """A model that answers each field with the true object there, in a random global phase."""
    model, origins = untrained(settings, raw), []
    padded = torch.nn.functional.pad(raw.object_guess, (64, 64, 64, 64), value=1.0)
    for name in ("view_layout", "group_layout"):
        make = getattr(inference, name)

        def noted(*arguments, make=make):
            origins.append(make(*arguments).origin)
            return make(*arguments)

        monkeypatch.setattr(inference, name, noted)

    def truth(features: Features) -> torch.Tensor:
        origin, (height, width) = origins[len(used)], features.base.shape[1:]
        used.append(len(origin))
        generator = torch.Generator().manual_seed(len(used))
        return torch.stack(
            [
                padded[64 + row : 64 + row + height, 64 + column : 64 + column + width]
                * torch.exp(2j * torch.pi * torch.rand((), generator=generator))
                for row, column in origin.tolist()
            ]
        )

    used: list[int] = []
    monkeypatch.setattr(model, "object_canvas", truth)
    return model


@pytest.mark.parametrize(("context", "gridsize"), SETTINGS)
def test_a_perfect_networks_fields_stitch_to_the_object(context, gridsize, monkeypatch):
    raw, settings = small_raw(1e4), config(context, gridsize)
    monkeypatch.setattr(inference, "_FIELDS_AT_ONCE", 16)  # several rounds of fields
    came = reconstruct(perfect(settings, raw, monkeypatch), raw, settings)
    assert came.object.shape == raw.object_guess.shape and came.object.dtype == torch.complex64
    lit, truth = (came.fluence > 0.01 * came.fluence.max()).numpy(), raw.object_guess.numpy()
    found, truth = came.object.numpy()[lit], truth[lit]
    assert np.abs(oracle.without_phase(found, truth) - truth).max() < 1e-2 and lit.mean() > 0.4
    np.testing.assert_array_equal(came.images, np.arange(raw.n))


@pytest.mark.parametrize(("context", "gridsize"), SETTINGS)
def test_fluence_is_what_the_probe_brought_each_pattern_once(context, gridsize):
    raw, settings = small_raw(1e4), config(context, gridsize, n_images=20)
    came = reconstruct(untrained(settings, raw), raw, settings)
    _, _, y, x, _ = geometry()
    assert len(came.images) == 20
    expected = oracle.fluence(
        raw.object_guess.shape, raw.probe.numpy().astype(complex), y[came.images], x[came.images]
    )
    np.testing.assert_allclose(came.fluence, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("context", "gridsize"), SETTINGS)
def test_what_no_photon_reached_is_empty(context, gridsize):
    scan = small_scan(1e4)
    wider = np.pad(scan.object_guess, ((0, 9), (0, 14)), constant_values=1)
    raw = RawDataTorch(replace(scan, object_guess=wider), Path("wider.npz"))
    settings = config(context, gridsize)
    came = reconstruct(untrained(settings, raw), raw, settings)
    assert came.object.shape == wider.shape
    assert (
        (came.object[-9:] == 1).all()
        and (came.object[:, -14:] == 1).all()
        and (came.fluence[-9:] == 0).all()
    )


@pytest.mark.parametrize("context", ["view", "group"])
def test_a_speck_is_reconstructed_at_its_row_and_column(context):
    image, probe, y, x, _ = geometry()
    speck = np.ones_like(image)
    speck[31, 44] = np.exp(2j)  # one pixel of phase at row 31, column 44
    counts = np.random.default_rng(0).poisson(1e6 * oracle.expected_counts(speck, probe, y, x))
    raw = RawDataTorch(
        replace(
            small_scan(),
            diffraction=np.sqrt(counts).astype(np.float32),
            probe=(probe * 1e3).astype(np.complex64),
            object_guess=speck.astype(np.complex64),
            metadata={},
        ),
        Path("speck.npz"),
    )
    settings = config(context, 2)
    phase = torch.angle(reconstruct(untrained(settings, raw), raw, settings).object)
    phase = (phase - phase[seen_region(raw)].median()).abs()
    assert np.unravel_index(int(phase.argmax()), phase.shape) == (31, 44)


@pytest.mark.parametrize(("context", "gridsize"), SETTINGS)
def test_an_untrained_network_gives_what_the_steps_give_and_the_star_is_there(context, gridsize):
    raw, settings = small_raw(1e5), config(context, gridsize)
    came = reconstruct(untrained(settings, raw), raw, settings).object.numpy()
    region, truth = seen_region(raw), raw.object_guess.numpy()
    gain = oracle.psnr_phase(came[region], truth[region]) - oracle.psnr_phase(
        np.ones_like(truth)[region], truth[region]
    )
    # A single pattern tells little; four neighbours more; the whole view much.
    assert gain > {"view": 20, "group": 4}[context]


@pytest.mark.parametrize("context", ["view", "group"])
def test_truth_in_the_file_is_not_used(context):
    scan, settings = small_scan(1e4, truth=True), config(context, 2)
    blank = replace(scan, object_guess=np.ones_like(scan.object_guess), truth_patches=None)
    first, second = (RawDataTorch(one, Path("scan.npz")) for one in (scan, blank))
    assert torch.equal(
        reconstruct(untrained(settings, first), first, settings).object,
        reconstruct(untrained(settings, second), second, settings).object,
    )


@pytest.mark.parametrize("context", ["view", "group"])
def test_every_pattern_of_the_groups_is_read_and_no_other(context, monkeypatch):
    groups = np.array([[0, 1, 10, 11], [33, 34, 43, 44], [60, 61, 71, 70]])
    raw, settings, read = small_raw(1e4, groups=groups), config(context, 2), set()
    counts = raw.counts
    monkeypatch.setattr(
        raw, "counts", lambda indices: read.update(indices.tolist()) or counts(indices)
    )
    came = reconstruct(untrained(settings, raw), raw, settings)
    assert read == set(groups.ravel().tolist()) == set(came.images.tolist())


@pytest.mark.parametrize("context", ["view", "group"])
def test_how_many_patterns_or_fields_are_held_at_once_does_not_change_the_object(
    context, monkeypatch
):
    raw, settings = small_raw(1e4), config(context, 2, n_images=24)
    model = untrained(settings, raw)
    torch.nn.init.normal_(model.network.head.weight, std=0.05)
    whole = reconstruct(model, raw, settings).object
    monkeypatch.setattr(inference, "_FIELDS_AT_ONCE", 7)
    np.testing.assert_allclose(reconstruct(model, raw, settings).object, whole, atol=1e-5)
    torch.nn.init.zeros_(
        model.network.head.weight
    )  # sums in another order: a random network would amplify the rounding
    whole = reconstruct(model, raw, settings).object
    monkeypatch.setattr(canvas, "CHUNK", 5)
    np.testing.assert_allclose(reconstruct(model, raw, settings).object, whole, atol=1e-3)


def test_a_brighter_probe_or_one_with_another_global_phase_is_the_same_probe():
    raw = small_raw(1e4)
    check_probe(small_raw(1e5).probe * torch.exp(torch.tensor(1j)), raw)


def test_a_model_of_another_probe_size_or_number_of_modes_is_refused_with_the_files_name():
    raw, settings = small_raw(1e4), config()
    other = torch.roll(raw.probe, 5, -1)
    with pytest.raises(
        ConfigError,
        match="small_scan.npz: its probe has a correlation of 0[.0-9]* with the one the model",
    ):
        reconstruct(PtychoModel(settings.model, other), raw, settings)
    with pytest.raises(
        ConfigError,
        match=r"small_scan.npz: its probe is \(1, 32, 32\), the model was trained for \(2, 32, ",
    ):
        reconstruct(PtychoModel(settings.model, small_raw(1e4, modes=2).probe), raw, settings)
    wide = replace(settings.model, N=64)
    with pytest.raises(
        ConfigError, match=r"its probe is \(1, 32, 32\), the model was trained for \(1, 64, 64\)"
    ):
        reconstruct(PtychoModel(wide, torch.ones(1, 64, 64, dtype=torch.complex64)), raw, settings)


@pytest.mark.parametrize("modes", [1, 2])
@pytest.mark.parametrize("dose", [1e3, 1e5])
def test_the_deviance_of_the_truth_is_that_of_a_perfect_model_and_a_flat_object_is_worse(
    dose, modes
):
    raw = small_raw(dose, modes=modes)
    expected = geometry(modes=modes)[-1]
    perfect = float(
        perfect_deviance(torch.from_numpy(expected * dose / expected.sum((1, 2)).mean())).mean()
    )
    came = data_deviance(raw.object_guess, raw)
    assert came == pytest.approx(perfect, rel=0.02)
    assert data_deviance(raw.object_guess * np.exp(1.3j), raw) == pytest.approx(came, rel=1e-4)
    assert data_deviance(torch.ones_like(raw.object_guess), raw) > 1.05 * came
    halves = [data_deviance(raw.object_guess, raw, np.arange(raw.n)[part::2]) for part in (0, 1)]
    assert np.mean(halves) == pytest.approx(came, rel=1e-6)


def test_fields_that_reach_over_the_objects_edge_are_merged_and_cropped():
    truth = torch.from_numpy(geometry()[0]).to(torch.complex64)[:30, :40]
    padded = torch.nn.functional.pad(truth, (9, 9, 9, 9), value=5.0)
    corners = torch.tensor([[-9, -9], [-9, 18], [9, -9], [9, 18]])
    fields = torch.stack(
        [padded[row + 9 : row + 39, column + 9 : column + 40] for row, column in corners.tolist()]
    )
    merged, fluence = inference._merge(fields, corners, torch.ones(4, 30, 31), (30, 40))
    np.testing.assert_allclose(merged, truth, atol=1e-5)
    assert fluence.shape == (30, 40) and fluence.max() == 4


def test_a_reconstruction_says_what_it_took():
    raw, settings = small_raw(1e4), config()
    came = reconstruct(untrained(settings, raw), raw, settings)
    assert 0 < came.cpu_seconds and 0 < came.seconds < 60
