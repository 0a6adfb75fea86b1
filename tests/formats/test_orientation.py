"""The forward model finds the orientation of the positions, and patterns are never turned."""

import numpy as np
import pytest

from fly64lib.formats.orientation import ORIENTATIONS, oriented


@pytest.mark.parametrize("orientation", ["flip-y", "swap", "swap-flip-x"])
def test_positions_in_another_orientation_are_found_by_the_forward_model_and_turned_back(
    made, raw_file, imported, orientation
):
    y, x = oriented(made["positions"], orientation).T
    source = raw_file(xcoords=x, ycoords=y, objectGuess=None)
    got = imported(source, "--zero-frequency centre")
    back = {"swap-flip-x": "swap-flip-y"}.get(orientation, orientation)
    assert got.metadata["import"]["orientation"] == back
    assert np.ptp(got.positions - made["positions"], axis=0).max() < 1e-9
    np.testing.assert_array_equal(got.diffraction, np.sqrt(made["counts"]).astype(np.float32))


def test_the_eight_orientations_are_distinct_and_each_has_an_inverse():
    """A person can draw it: one point right of the middle, as (y, x)."""
    point = np.array([[1.0, 2.0]])
    at = {name: tuple(oriented(point, name)[0]) for name in ORIENTATIONS}
    assert len(set(at.values())) == 8
    assert (at["flip-y"], at["swap"], at["swap-flip-x"]) == ((-1, 2), (2, 1), (2, -1))
    for name in ORIENTATIONS:
        again = [oriented(oriented(point, name), other) for other in ORIENTATIONS]
        assert any((end == point).all() for end in again)
