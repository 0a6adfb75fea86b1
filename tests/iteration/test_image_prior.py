"""The power-law prior: its precision against sums over neighbours, and logarithms that unwrap."""

import numpy as np
import pytest
import torch

from ptycho_torch.iteration.gain import filtered
from ptycho_torch.iteration.image_prior import ImagePrior, ProductPrior, logs_of, object_of

SHAPES = [(24, 33), (17, 20)]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_slope_of_two_without_a_longest_length_is_the_sum_of_squared_differences(shape):
    logs = torch.randn(2, *shape, dtype=torch.float64)
    prior = ImagePrior(7.0, slope=2.0, amplitude=5.0, length_px=float("inf"))
    found = (logs * filtered(logs, prior.precision(shape, logs))).sum((-2, -1))
    rough = sum((logs.roll(-1, axis) - logs).square().sum((-2, -1)) for axis in (-2, -1))
    torch.testing.assert_close(found, rough * torch.tensor([35.0, 7.0], dtype=torch.float64))


def test_a_steeper_prior_holds_details_more_and_beyond_its_length_nothing_changes():
    like = torch.zeros(1)
    flat, steep = (ImagePrior(1.0, slope, 1.0).precision((64, 64), like)[1] for slope in (2.0, 4.0))
    assert steep[0, 1] < flat[0, 1] and steep[32, 32] > flat[32, 32]
    short = ImagePrior(1.0, 4.0, 1.0, length_px=8.0).precision((64, 64), like)[1]
    assert short[0, 1] < 1.1 * short[0, 0] < 0.01 * short[32, 32]


@pytest.mark.parametrize("correlation", [0.7, -0.95])
def test_a_coupled_prior_is_of_that_covariance_at_every_frequency(correlation):
    like = torch.zeros(1, dtype=torch.float64)
    apart = ImagePrior(3.0, 3.0, 9.0).precision((12, 9), like)
    amplitude, phase, beside = ImagePrior(3.0, 3.0, 9.0, correlation=correlation).precision(
        (12, 9), like
    )
    determinant = amplitude * phase - beside.square()
    covariance = torch.stack([phase, amplitude, -beside]) / determinant
    torch.testing.assert_close(covariance[:2], 1 / apart)
    found = covariance[2] / covariance[:2].prod(0).sqrt()
    torch.testing.assert_close(found, torch.full_like(found, correlation))


@pytest.mark.parametrize("shape", SHAPES)
def test_two_priors_meet_where_their_sum_is_least(shape):
    given = torch.randn(2, *shape, dtype=torch.float64)
    near, image = ImagePrior(2.0, 2.0, 5.0), ImagePrior(7.0, 4.0, 3.0, correlation=0.9)
    both = ProductPrior(near, image)
    centre = both.centre(given)
    slope = filtered(centre - given, near.precision(shape, given))
    slope = slope + filtered(centre, image.precision(shape, given))
    assert slope.abs().max() < 1e-9 * given.abs().max()
    away = torch.randn(2, *shape, dtype=torch.float64)

    def value(logs):
        pulls = filtered(logs - given, near.precision(shape, given))
        own = (logs * filtered(logs, image.precision(shape, given))).sum()
        return ((logs - given) * pulls).sum() + own

    rise = value(centre + away) - value(centre)
    own = (away * filtered(away, both.precision(shape, given))).sum()
    torch.testing.assert_close(rise, own)


@pytest.mark.parametrize("shape", SHAPES)
def test_logarithm_and_object_are_inverse_but_for_the_global_phase(shape):
    logs = 0.3 * torch.randn(2, *shape)
    canvas, fluence = object_of(logs) * np.exp(2.2j), torch.rand(1, *shape)
    again = object_of(logs_of(canvas, fluence))
    turn = (again / canvas).mean()
    torch.testing.assert_close(again, canvas * turn, rtol=1e-4, atol=1e-4)
    assert abs(float(torch.angle((fluence * again).sum()))) < 1e-4


@pytest.mark.parametrize(("height", "width"), [(90, 70), (71, 89)])
def test_a_phase_of_several_turns_is_unwrapped(height, width):
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    hill = 20 * torch.exp(-((rows - 45) ** 2 + (columns - 35) ** 2) / 400)
    phase = logs_of(torch.exp(1j * hill)[None], torch.ones(1, height, width))[1]
    away = phase - hill
    assert float(away.max() - away.min()) < 1e-3


def test_a_ramp_that_does_not_close_on_itself_is_unwrapped():
    rows, columns = torch.meshgrid(torch.arange(60), torch.arange(45), indexing="ij")
    ramp = 0.7 * rows - 0.31 * columns
    canvas = 0.5 * torch.exp(1j * ramp)[None]
    logs = logs_of(canvas, torch.rand(1, 60, 45))
    away = logs[1] - ramp
    assert float(away.max() - away.min()) < 1e-3
    torch.testing.assert_close(logs[0], torch.full_like(ramp, 0.5).log())


@pytest.mark.parametrize("shape", SHAPES)
def test_filtering_is_linear_symmetric_and_of_each_part_alone(shape):
    one, two = torch.randn(2, 2, *shape, dtype=torch.float64)
    gain = ImagePrior(2.0, slope=3.0).precision(shape, one)
    across, back = (one * filtered(two, gain)).sum(), (two * filtered(one, gain)).sum()
    torch.testing.assert_close(across, back)
    only = filtered(torch.stack([one[0], torch.zeros(shape, dtype=torch.float64)]), gain)
    assert (only[1] == 0).all()
    torch.testing.assert_close(only[0], filtered(one, gain)[0])


def test_a_pixel_without_amplitude_has_a_logarithm():
    canvas = torch.ones(1, 6, 8, dtype=torch.complex64)
    canvas[0, 2, 3] = 0
    logs = logs_of(canvas, torch.ones(1, 6, 8))
    assert torch.isfinite(logs).all() and object_of(logs)[0, 2, 3].abs() < 0.1
