"""The loss knows the truth: the true object scores below flat and below what the steps make, at
every dose, both gridsizes."""

import numpy as np
import oracle
import pytest
import torch
from small_scan import geometry, random_patterns, small_raw

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.network.features import Features, make_features
from ptycho_torch.network.model import Batch, PtychoModel
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns
from ptycho_torch.physics.noise import perfect_deviance
from ptycho_torch.training.samples import Split

DOSES = (1e3, 1e4, 1e5)


def prepared(
    dose: float, gridsize: int = 1, groups: int = 12, objective: str = "poisson", modes: int = 1
) -> tuple[PtychoModel, Batch, torch.Tensor]:
    """A model, a batch of a small scan, and the true object on the batch's canvas."""
    raw = small_raw(dose, truth=objective == "supervised", modes=modes)
    model = {"N": 32, "gridsize": gridsize, "width": 8}
    config = TrainingConfig(model=ModelConfig(**model, objective=objective), thinnings=1)
    split = Split(raw, config)
    torch.manual_seed(1)
    made = PtychoModel(config.model, raw.probe)
    return made, split[0, list(range(groups))], split.geometry.crop(raw.object_guess)


def counts_of(model: PtychoModel, canvas: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Expected counts of a batch's patterns."""
    probe, shape = model.probe * batch.share**0.5, tuple(canvas.shape)
    places = Geometry(batch.address, batch.residual_px, probe, shape)
    return places.expected(canvas, torch.arange(len(places)))


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("dose", DOSES)
def test_the_true_object_scores_below_the_flat_one_and_below_anything_near_it(dose, gridsize):
    model, batch, truth = prepared(dose, gridsize)
    best = float(model.loss(truth, batch))
    noise = oracle.complex_field(np.random.default_rng(0), *truth.shape)
    for change in (
        torch.ones_like(truth),
        batch.features.base,  # the fit to the photons of the input
        truth * 0.9,
        truth.conj(),
        truth.roll(1, -1),
        truth * torch.exp(0.3j * truth.imag),
        truth + 0.2 * torch.from_numpy(noise).to(truth.dtype),
    ):
        assert best < float(model.loss(change, batch))


@pytest.mark.parametrize("dose", DOSES)
def test_the_true_objects_loss_is_that_of_a_perfect_model(dose):
    model, batch, truth = prepared(dose, groups=90)
    expected = counts_of(model, truth, batch)
    perfect = 0.5 * float(perfect_deviance(expected.double()).sum() / batch.counts.sum())
    assert float(model.loss(truth, batch)) == pytest.approx(perfect, rel=0.03)


@pytest.mark.parametrize("modes", [1, 2])
def test_the_loss_scores_the_model_at_its_share_of_the_photons(modes):
    model, batch, truth = prepared(1e5, groups=90, modes=modes)
    losses = {
        share: float(model.loss(truth, batch._replace(share=share))) for share in (0.19, 0.2, 0.21)
    }
    assert min(losses, key=losses.get) == pytest.approx(batch.share) == 0.2


def test_the_gradient_of_the_loss_with_respect_to_the_canvas_is_the_numerical_one():
    patterns, canvas = random_patterns(6, canvases=2)
    place, counts = patterns.geometry, patterns.counts(torch.arange(6))
    model = PtychoModel(ModelConfig(N=8, width=8), place.probe)
    batch = Batch(None, place.address, place.residual_px, counts, 0.2, None, Detector(6), None)
    canvas.requires_grad_()
    assert torch.autograd.gradcheck(lambda canvas: model.loss(canvas, batch), (canvas,))


def test_the_gradient_has_the_same_scale_at_every_dose():
    scales = []
    for dose in DOSES:
        model, batch, truth = prepared(dose, groups=90)
        expected = counts_of(model, truth, batch)
        flat = torch.ones_like(truth).requires_grad_()
        model.loss(flat, batch._replace(counts=expected)).backward()
        scales.append(float(flat.grad.norm()))
    np.testing.assert_allclose(scales, scales[0], rtol=1e-4)


def test_the_first_gradient_falls_no_faster_than_the_dose_rises():
    config, norms = ModelConfig(N=32, width=8), []
    for dose in DOSES:
        raw, expected = small_raw(dose), torch.from_numpy(geometry()[-1]).float()
        # Without noise, which is a matter of dose.
        counts, place = dose * expected / expected.sum((1, 2)).mean(), raw.geometry()
        features = make_features(Patterns(place, counts.__getitem__))
        torch.manual_seed(1)
        model = PtychoModel(config, raw.probe)
        batch = Batch(
            features, place.address, place.residual_px, counts, 1.0, None, Detector(raw.N), None
        )
        model.loss(model.object_canvas(features), batch).backward()
        norms.append(float(model.network.head.weight.grad.norm()))
    # Without noise the input errs by the priors' pull alone, and that falls as the dose rises.
    assert max(norms) < max(DOSES) / min(DOSES) * min(norms)
    assert min(norms) > 1e-5  # far above what Adam's epsilon would notice


def test_the_probe_is_a_buffer_of_the_model_and_is_never_trained():
    model, _, _ = prepared(1e3)
    assert "probe" in dict(model.named_buffers()) and "probe" in model.state_dict()
    assert all("probe" not in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("objective", ["poisson", "supervised"])
@pytest.mark.parametrize("gridsize", [1, 2])
def test_every_parameter_gets_a_gradient(gridsize, objective):
    model, batch, _ = prepared(1e4, gridsize, objective=objective)
    # The last layer of each block and of the whole starts at zero, so that at the very first step
    # the head alone learns, then the blocks' last ones, then all.
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    lasts = [item for item in model.named_parameters() if "body.3" in item[0]]
    for parameters in (model.network.head.named_parameters(), lasts, model.named_parameters()):
        optimizer.zero_grad()
        model.loss(model.object_canvas(batch.features), batch).backward()
        for name, parameter in parameters:
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        optimizer.step()


@pytest.mark.parametrize("objective", ["poisson", "supervised"])
def test_one_batch_overfits(objective):
    model, batch, truth = prepared(1e4, groups=6, objective=objective)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    losses = []
    for _ in range(120):
        optimizer.zero_grad()
        loss = model.loss(model.object_canvas(batch.features), batch)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    if objective == "poisson":  # it fits even the noise of the photons that score it
        assert losses[-1] < float(model.loss(truth, batch)) < losses[0]
    else:
        assert losses[-1] < 0.1 * losses[0]


# --- supervised ---


def test_the_supervised_loss_is_zero_at_the_truth_whatever_the_free_phase_of_each_canvas():
    model, batch, truth = prepared(1e5, 2, objective="supervised")
    again = batch.address + torch.tensor([1, 0, 0])
    both = {"address": torch.cat([batch.address, again]), "truth": batch.truth.repeat(2, 1, 1)}
    batch, truth = batch._replace(**both), truth.repeat(2, 1, 1)
    phases = torch.exp(1j * torch.tensor([0.7, -2.0])).view(2, 1, 1)
    assert float(model.loss(truth * phases, batch)) < 1e-9
    assert float(model.loss(torch.ones_like(truth), batch)) > 0.02


def test_the_supervised_loss_weighs_errors_by_the_light_on_them():
    model, batch, truth = prepared(1e5, 2, objective="supervised")
    light = model.probe.abs().square().sum(0)
    one = batch._replace(address=batch.address[:1], truth=batch.truth[:1])
    row, column = batch.address[0, 1:].tolist()
    for place in (int(light.argmax()), int(light.argmin())):
        wrong = truth.clone()
        wrong[0, row + place // 32, column + place % 32] += 0.01
        expected = float(1e-4 * light.flatten()[place] / light.sum())
        assert float(model.loss(wrong, one)) == pytest.approx(expected, rel=0.02, abs=1e-12)


def test_features_without_light_give_finite_objects():
    model, batch, _ = prepared(1e3)
    dark = Features(*map(torch.zeros_like, batch.features))
    loss = model.loss(model.object_canvas(dark), batch)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(p.grad).all() for p in model.parameters())
