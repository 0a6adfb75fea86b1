"""Where exposures lie: canvases that are not square and begin anywhere, against the oracle's own
corners and sums."""

from dataclasses import replace

import numpy as np
import oracle
import pytest
import torch
from small_scan import noiseless, random_patterns

from ptycho_torch.physics import geometry as module
from ptycho_torch.physics.geometry import Geometry, Patterns

SHAPE = (31, 26)  # of the object
EVERY = torch.arange(17)


def scattered(N: int, whole: bool = False) -> tuple[Geometry, np.ndarray, np.ndarray]:
    """17 exposures under two complex modes, off every edge of the object; that probe and their
    positions (y, x)."""
    rng = np.random.default_rng(N)
    positions = rng.uniform((N / 2 + 3, N / 2 + 5), np.subtract(SHAPE, N / 2 + 4), (17, 2))
    probe = oracle.complex_field(rng, 2, N, N)
    places = torch.from_numpy(positions), torch.from_numpy(probe)
    return Geometry.of(*places, SHAPE, whole=whole), probe, positions


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("N", [7, 8])
def test_a_canvas_is_the_box_around_all_patches_or_the_whole_object(N, whole):
    geometry, _, positions = scattered(N, whole)
    places = np.array([oracle.corner_and_rest(*at, N) for at in positions])
    corners, (_, height, width) = places[:, :2], geometry.shape
    np.testing.assert_array_equal(geometry.address[:, 1:] + torch.tensor(geometry.origin), corners)
    np.testing.assert_allclose(geometry.residual_px, places[:, 2:], atol=1e-6)
    assert (geometry.address[:, 0] == 0).all() and (len(geometry), geometry.N) == (17, N)
    first, behind = ((0, 0), SHAPE) if whole else (corners.min(0), corners.max(0) + N)
    assert geometry.origin == tuple(first)
    assert (geometry.origin[0] + height, geometry.origin[1] + width) == tuple(behind)


@pytest.mark.parametrize("whole", [False, True])
def test_a_canvas_goes_into_the_object_where_it_was_taken_from(whole):
    geometry, _, _ = scattered(7, whole)
    image = torch.from_numpy(oracle.complex_field(np.random.default_rng(1), *SHAPE))
    canvas = geometry.crop(image)
    (row, column), (_, height, width) = geometry.origin, geometry.shape
    assert torch.equal(canvas[0], image[row : row + height, column : column + width])
    assert torch.equal(geometry.embed(canvas, outside=image), image)
    for level, part in ((1.0, canvas), (0.0, canvas.real)):
        alone = geometry.embed(part, outside=level)
        assert alone.dtype == part.dtype and torch.equal(alone[geometry.window], part[0])
        outside = torch.ones(SHAPE, dtype=torch.bool)
        outside[geometry.window] = False
        assert (alone[outside] == level).all() and outside.any() != whole


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("N", [7, 8])
def test_fluence_and_expected_counts_are_the_oracles(N, whole):
    geometry, probe, positions = scattered(N, whole)
    light = oracle.fluence(SHAPE, probe, *positions.T)
    np.testing.assert_allclose(geometry.fluence()[0], light[geometry.window], rtol=1e-4, atol=1e-3)
    image = oracle.complex_field(np.random.default_rng(3), *SHAPE)
    expected = oracle.expected_counts(image, probe, *positions.T)
    canvas, some = geometry.crop(torch.from_numpy(image)), torch.tensor([16, 3, 3, 0])
    for indices in (EVERY, some):
        found = geometry.expected(canvas, indices)
        np.testing.assert_allclose(found, expected[indices], rtol=1e-4, atol=1e-3)


def test_some_of_the_exposures_lie_where_they_lay_among_all():
    geometry, some = scattered(8)[0], torch.tensor([9, 2, 2])
    part, canvas = geometry.at(some), random_canvas(geometry)
    assert part.origin == geometry.origin and part.shape == geometry.shape
    assert torch.equal(part.expected(canvas, torch.arange(3)), geometry.expected(canvas, some))


def random_canvas(geometry: Geometry) -> torch.Tensor:
    return torch.from_numpy(oracle.complex_field(np.random.default_rng(5), *geometry.shape))


def test_another_probe_changes_all_that_is_made_of_the_first_and_the_first_stays():
    patterns, canvas = random_patterns(7)
    patterns = replace(patterns, geometry=replace(patterns.geometry, passes=True))
    geometry, every = patterns.geometry, torch.arange(3)
    before = geometry.expected(canvas, every), geometry.fluence(), patterns.measured(every)
    brighter = patterns.under(geometry.probe * 2)
    for found, factor in ((brighter, 4), (patterns, 1)):
        place = found.geometry
        torch.testing.assert_close(place.expected(canvas, every), factor * before[0])
        torch.testing.assert_close(place.fluence(), factor * before[1])
        assert torch.equal(found.measured(every), before[2])


def test_what_is_kept_is_what_would_be_made_again(monkeypatch):
    """Shifted probes and counts, whatever was asked for before, kept or not, in chunks or not."""
    (kept, _), every = noiseless(1.0, modes=2), torch.arange(90)
    fresh = kept.geometry.residual_px, kept.geometry.probe
    alone = module.optics.shift_probe(*reversed(fresh))
    for memory, chunk in ((2048, 64), (2048, 7), (0, 7)):
        monkeypatch.setattr(module, "_CACHED_PATTERNS", memory)
        monkeypatch.setattr(module, "CHUNK", chunk)
        patterns = Patterns(kept.geometry.at(every), kept.counts)
        assert patterns.geometry.worth_keeping() == bool(memory)
        chunks = list(patterns.geometry.chunks())
        assert torch.equal(torch.cat(chunks), every) and len(chunks[0]) == chunk
        for indices in (torch.arange(3), torch.arange(60, 75), torch.tensor([0, 40, 2]), every):
            assert torch.equal(patterns.geometry.probes(indices), alone[indices])
            assert torch.equal(patterns.measured(indices), kept.counts(indices))


# --- subsets ---


def test_subsets_part_the_patterns_and_neighbours_go_to_different_ones():
    geometry = noiseless(1e4)[0].geometry
    places, fair = geometry.places(), len(geometry) / 4
    assert len(places) == len(geometry)
    assert torch.bincount(places % 4, minlength=4).min() > 0.8 * fair
    corners = geometry.address[:, 1:].double()

    def gap(corners: torch.Tensor) -> float:
        return float(torch.cdist(corners, corners).fill_diagonal_(torch.inf).amin(1).median())

    assert min(gap(corners[places % 4 == place]) for place in range(4)) > 1.4 * gap(corners)


@pytest.mark.parametrize("count", [1, 2, 8, 16])
def test_the_subsets_fluences_add_up_to_the_whole(count):
    geometry = noiseless(1e4, modes=2)[0].geometry
    parts = geometry.subset_fluence(count)
    assert parts.shape == (count, *geometry.shape)
    torch.testing.assert_close(parts.sum(0), geometry.fluence(), rtol=1e-4, atol=1e-3)
    chosen = torch.nonzero(geometry.places() % count == count - 1)[:, 0]
    alone = geometry.at(chosen).fluence()
    torch.testing.assert_close(parts[-1], alone, rtol=1e-4, atol=1e-3)
