"""Cut and paste: an adjoint pair on several canvases, and the convention of positions that a person
can draw."""

import numpy as np
import oracle
import pytest
import torch

from ptycho_torch.errors import DataContractError
from ptycho_torch.physics.patches import cut, on_canvas, paste, split_positions

SHAPE = (2, 11, 17)  # two canvases of 11 rows and 17 columns
ADDRESS = torch.tensor(
    [[0, 0, 0], [1, 2, 9], [0, 6, 5], [1, 2, 10], [1, 2, 9]]
)  # corners and overlaps; one twice


def canvas(seed: int = 0, dtype: torch.dtype = torch.complex128) -> torch.Tensor:
    return torch.from_numpy(oracle.complex_field(np.random.default_rng(seed), *SHAPE)).to(dtype)


def test_a_single_bright_pixel_appears_where_a_person_would_draw_it():
    # Row 7, column 4 of a 12 x 10 object; a patch of 6 px centred at y = 6, x = 5 starts at row 3,
    # column 2.
    image = torch.zeros(1, 12, 10)
    image[0, 7, 4] = 1
    corners, rest = split_positions(torch.tensor([[6.0, 5.0]], dtype=torch.float64), 6)
    assert corners.tolist() == [[3, 2]] and rest.tolist() == [[0, 0]]
    patch = cut(image, on_canvas(corners), 6)[0]
    assert torch.nonzero(patch).tolist() == [[7 - 3, 4 - 2]]


def test_positions_split_into_a_whole_corner_and_a_rest_that_moves_the_probe_the_rest_of_the_way():
    positions = torch.tensor([[10.3, 20.0], [10.0, 20.4], [9.6, 19.5 + 1e-9]], dtype=torch.float64)
    corners, rest = split_positions(positions, 8)
    assert corners.tolist() == [[6, 16], [6, 16], [6, 16]]
    np.testing.assert_allclose(rest, [[0.3, 0], [0, 0.4], [-0.4, -0.5]], atol=1e-7)
    odd_corners, odd_rest = split_positions(torch.tensor([[10.5, 20.2]], dtype=torch.float64), 9)
    assert odd_corners.tolist() == [[6, 16]]
    np.testing.assert_allclose(odd_rest, [[0, -0.3]], atol=1e-7)


def test_corner_and_rest_always_add_up_to_the_position():
    rng = np.random.default_rng(1)
    for N in (7, 8, 64):
        positions = torch.from_numpy(rng.uniform(N / 2 + 1, 900, (200, 2)))
        corners, rest = split_positions(positions, N)
        np.testing.assert_allclose(corners + rest.double() + N / 2, positions, atol=1e-6)
        assert float(rest.abs().max()) <= 0.5


@pytest.mark.parametrize("size", [5, (3, 7), (11, 1)])
def test_cut_takes_the_slice_at_each_address(size):
    image, (rows, columns) = canvas(), (size, size) if isinstance(size, int) else size
    address = torch.tensor([[0, 0, 0], [1, 11 - rows, 17 - columns], [0, 11 - rows, 3]])
    came = cut(image, address, size)
    for patch, (field, row, column) in zip(came, address.tolist(), strict=True):
        assert torch.equal(patch, image[field, row : row + rows, column : column + columns])


def test_paste_is_the_adjoint_of_cut_with_complex_values_overlaps_and_repeats():
    image = canvas(2)
    patches = torch.from_numpy(oracle.complex_field(np.random.default_rng(3), len(ADDRESS), 4, 5))
    there = (patches.conj() * cut(image, ADDRESS, (4, 5))).sum()
    back = (paste(patches, ADDRESS, SHAPE).conj() * image).sum()
    assert complex(there) == pytest.approx(complex(back), rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float32])
def test_pasting_by_index_and_by_slices_gives_the_same_bits_and_the_first_has_a_gradient(dtype):
    rng = np.random.default_rng(5)
    patches = torch.from_numpy(oracle.complex_field(rng, len(ADDRESS), 4, 5)).to(torch.complex64)
    patches = patches.conj() if dtype.is_complex else patches.real.contiguous()
    learned = patches.clone().requires_grad_()  # autograd cannot see slices: an index per pixel
    pasted = paste(learned, ADDRESS, SHAPE)
    assert torch.equal(pasted, paste(patches, ADDRESS, SHAPE))
    outside = canvas(6).to(torch.complex64) if dtype.is_complex else canvas(6).real.float()
    pasted.backward(outside)
    assert torch.equal(learned.grad, cut(outside, ADDRESS, (4, 5)))


def test_pasting_ones_counts_the_patches_over_every_pixel():
    counts = paste(torch.ones(len(ADDRESS), 4, 5), ADDRESS, SHAPE)
    by_hand = np.zeros(SHAPE)
    for field, row, column in ADDRESS.tolist():
        by_hand[field, row : row + 4, column : column + 5] += 1
    np.testing.assert_array_equal(counts, by_hand)
    assert counts.sum() == len(ADDRESS) * 20  # nothing is lost at the rim


def test_the_gradient_of_cut_is_the_numerical_one():
    image = canvas(4)[:, :4, :5].contiguous().requires_grad_()
    address = torch.tensor([[0, 0, 0], [1, 1, 2], [1, 1, 1], [1, 1, 2]])
    assert torch.autograd.gradcheck(lambda canvas: cut(canvas, address, (3, 2)), (image,))


@pytest.mark.parametrize(
    "address", [[0, -1, 0], [0, 0, -1], [0, 8, 0], [0, 0, 13], [2, 0, 0], [-1, 0, 0]]
)
def test_a_patch_that_leaves_its_canvas_is_refused_and_not_wrapped_around(address):
    with pytest.raises(DataContractError, match="leaves the canvas of 2 x 11 x 17 px"):
        cut(canvas(), torch.tensor([address]), (4, 5))
    with pytest.raises(DataContractError, match="leaves the canvas"):
        paste(torch.ones(1, 4, 5), torch.tensor([address]), SHAPE)


def test_addresses_name_one_field_for_all_corners_or_one_for_each():
    corners = torch.tensor([[3, 4], [5, 6]])
    assert on_canvas(corners).tolist() == [[0, 3, 4], [0, 5, 6]]
    assert on_canvas(corners, torch.tensor([2, 7])).tolist() == [[2, 3, 4], [7, 5, 6]]
