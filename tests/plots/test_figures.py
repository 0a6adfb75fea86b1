"""Pictures of objects: one colour scale, the free phase removed, gaps marked."""

import numpy as np

from fly64lib.plots.figures import image_grid, objects


def test_a_grid_of_images_leaves_a_marked_gap_where_an_object_is_missing():
    truth = np.exp(1j * np.random.default_rng(0).normal(0, 0.2, (12, 20)))
    region = slice(1, 11), slice(2, 18)
    figure = image_grid({("a", "x"): truth * np.exp(0.7j)}, ["a"], ["x", "y"], truth, region)
    shown, gap = figure.axes[2], figure.axes[3]
    assert np.allclose(
        shown.images[0].get_array(), figure.axes[0].images[0].get_array(), atol=1e-6
    )  # the phase is free
    assert not gap.images and gap.texts[0].get_text() == "missing"


def test_objects_stand_side_by_side_under_their_names_in_the_order_of_the_truth_and_its_error():
    random = np.random.default_rng(0)
    truth = np.exp(1j * random.normal(0, 0.2, (12, 20))) * random.uniform(0.8, 1.1, (12, 20))
    region = slice(1, 11), slice(2, 18)
    shifted = truth * np.exp(0.7j)  # the global phase is free
    figure = objects({"a": shifted, "b+c": truth.conj()}, truth, region, errors=True)
    rows = [np.asarray(ax.images[0].get_array()) for ax in figure.axes[:4]]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["truth", "a", "b\n+c"]
    phase, amplitude, phase_error, amplitude_error = (np.split(row, [17, 34], 1) for row in rows)
    for one in (phase, amplitude):
        np.testing.assert_allclose(one[0][:, :16], one[1][:, :16], atol=1e-6)
        assert np.isnan(np.ma.filled(one[0][:, 16:], np.nan)).all()
    assert np.abs(phase_error[1][:, :16]).max() < 1e-6 < np.abs(phase_error[2]).max()
    assert np.abs(np.asarray(amplitude_error[2])).max() < 1e-6  # of the conjugate the same
