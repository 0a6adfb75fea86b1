"""The U-Net: any canvas size, no start at a flat object, stacked canvases do not see each other."""

import numpy as np
import oracle
import pytest
import torch
from jaxtyping import TypeCheckError

from ptycho_torch.config import ModelConfig
from ptycho_torch.network.features import Features
from ptycho_torch.network.model import PtychoModel, _orient, _orient_back
from ptycho_torch.network.unet import CanvasUNet


def network(width: int = 8, depth: int = 3) -> CanvasUNet:
    """One whose last layers are no longer zero."""
    torch.manual_seed(0)
    made = CanvasUNet(5, ModelConfig(width=width, depth=depth))
    for name, weights in made.named_parameters():
        if name == "head.weight" or name.endswith("body.3.weight"):
            torch.nn.init.normal_(weights, std=0.1)
    return made


@pytest.mark.parametrize("depth", [1, 2, 4])
@pytest.mark.parametrize("canvas", [(32, 32), (33, 47), (5, 90), (1, 1)])
def test_a_canvas_of_any_size_gives_a_complex_correction_of_that_size(depth, canvas):
    came = network(depth=depth)(torch.randn(2, 5, *canvas))
    assert (
        came.shape == (2, *canvas)
        and came.dtype == torch.complex64
        and torch.isfinite(came.abs()).all()
    )


def test_an_untrained_network_corrects_nothing_so_the_start_is_the_canvas_of_the_steps():
    assert (CanvasUNet(5, ModelConfig())(torch.randn(1, 5, 24, 40)) == 0).all()


def test_the_correction_is_not_the_same_for_every_input():
    made = network()
    flat, other = torch.zeros(1, 5, 40, 40), torch.randn(1, 5, 40, 40)
    assert (made(flat) - made(other)).abs().mean() > 0.01


def test_a_canvas_is_corrected_the_same_alone_and_in_a_stack():
    made, canvases = network(), torch.randn(3, 5, 28, 36)
    together = made(canvases)
    for i in range(3):
        np.testing.assert_allclose(
            made(canvases[i : i + 1])[0].detach(), together[i].detach(), atol=1e-5
        )


def test_a_disturbance_stays_where_it_is():
    # No rolling, no transposing, no statistics over the canvas: far away nothing moves.
    made, canvas = network().eval(), torch.randn(1, 5, 96, 128)
    disturbed = canvas.clone()
    disturbed[..., 70:80, 100:110] += 3
    with torch.no_grad():
        change = (made(disturbed) - made(canvas)).abs()[0]
    assert change[60:90, 90:120].mean() > 0 and (change[:30, :60] == 0).all()
    row, column = np.unravel_index(int(change.argmax()), change.shape)
    assert 64 <= row < 86 and 94 <= column < 116


def test_the_eight_orientations_differ_and_are_undone():
    image = torch.from_numpy(oracle.complex_field(np.random.default_rng(0), 1, 3, 5))
    turned = [_orient(image, symmetry) for symmetry in range(8)]
    assert len({(tuple(t.shape), tuple(t.flatten().tolist())) for t in turned}) == 8
    for symmetry, one in enumerate(turned):
        assert torch.equal(_orient_back(one, symmetry), image)
    assert torch.equal(turned[0], image)


@pytest.mark.parametrize("symmetry", range(8))
def test_a_correction_made_in_another_orientation_comes_back_in_the_objects_own(symmetry):
    model = PtychoModel(
        ModelConfig(N=32, width=8),
        torch.ones(1, 32, 32, dtype=torch.complex64),
    )
    # A pixelwise network commutes with every orientation of the square.
    model.network.forward = lambda channels: torch.complex(channels[:, 0] ** 2, channels[:, 1])
    channels = torch.randn(2, 5, 33, 40)
    unit = (
        1 + (10 ** (2 * channels[:, -1]) - 0.1).clamp_min(0) / 30
    ) ** -0.5  # falls where light is plenty
    features = Features(channels)
    came = model.object_canvas(features, symmetry)
    correction = unit * torch.complex(channels[:, 0] ** 2, channels[:, 1])
    expected = features.base * torch.exp(correction)
    torch.testing.assert_close(came, expected, rtol=1e-5, atol=1e-6)


def test_shapes_and_dtypes_in_signatures_are_checked_in_the_tests():
    with pytest.raises(TypeCheckError):
        network()(torch.zeros(1, 5, 8))
    with pytest.raises(TypeCheckError):
        network()(torch.zeros(1, 5, 8, 8, dtype=torch.complex64))
