"""Gains in frequency against dense matrices."""

import pytest
import torch

from ptycho_torch.iteration.gain import filtered, inverse, plus, rooted

SHAPES = [(4, 5), (5, 6), (3, 3)]


def gain(shape: tuple[int, int], parts: int, seed: int = 0) -> torch.Tensor:
    """The same at a frequency and its mirror image, and positive definite at each."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(parts, *shape, generator=generator, dtype=torch.float64)
    even = torch.fft.rfft2(images).abs() ** 0.5
    even[:2] += 0.3
    if parts == 3:
        even[2] = even[:2].prod(0).sqrt() * torch.tanh(even[2] - even[2].mean())
    return even


def dense(linear, shape: tuple[int, int]) -> torch.Tensor:
    size = 2 * shape[0] * shape[1]
    eye = torch.eye(size, dtype=torch.float64).view(size, 2, *shape)
    return torch.stack([linear(one).flatten() for one in eye], 1)


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_gain_is_the_matrices_of_its_frequencies(shape, parts):
    own = gain(shape, parts)
    logs = torch.randn(2, *shape, dtype=torch.float64)
    amplitude, phase = torch.fft.rfft2(logs)
    beside = own[2] if parts == 3 else 0.0
    expected = torch.stack(
        [own[0] * amplitude + beside * phase, beside * amplitude + own[1] * phase]
    )
    torch.testing.assert_close(torch.fft.rfft2(filtered(logs, own)), expected)
    matrix = dense(lambda one: filtered(one, own), shape)
    torch.testing.assert_close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_inverse_and_root_are_those_of_the_dense_matrix(shape, parts):
    own = gain(shape, parts)
    matrix = dense(lambda one: filtered(one, own), shape)
    back = dense(lambda one: filtered(one, inverse(own)), shape)
    torch.testing.assert_close(back, torch.linalg.inv(matrix))
    root = dense(lambda one: rooted(one, own), shape)
    torch.testing.assert_close(root @ root.T, matrix)


@pytest.mark.parametrize("parts", [(2, 2), (2, 3), (3, 2), (3, 3)])
def test_a_sum_is_that_of_the_matrices(parts):
    one, other = gain((4, 5), parts[0]), gain((4, 5), parts[1], seed=1)
    logs = torch.randn(2, 4, 5, dtype=torch.float64)
    expected = filtered(logs, one) + filtered(logs, other)
    torch.testing.assert_close(filtered(logs, plus(one, other)), expected)
