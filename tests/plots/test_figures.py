"""Pictures of objects: one colour scale, the free phase removed, gaps marked."""

import numpy as np

from fly64lib.plots.figures import image_grid


def test_a_grid_of_images_leaves_a_marked_gap_where_an_object_is_missing():
    truth = np.exp(1j * np.random.default_rng(0).normal(0, 0.2, (12, 20)))
    region = slice(1, 11), slice(2, 18)
    figure = image_grid({("a", "x"): truth * np.exp(0.7j)}, ["a"], ["x", "y"], truth, region)
    shown, gap = figure.axes[2], figure.axes[3]
    assert np.allclose(
        shown.images[0].get_array(), figure.axes[0].images[0].get_array(), atol=1e-6
    )  # the phase is free
    assert not gap.images and gap.texts[0].get_text() == "missing"
