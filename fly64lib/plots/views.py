"""A view at a glance: where its images and groups lie on the scan, and how far apart they are."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from fly64lib.simulation.overlap_measures import nearest_distances
from fly64lib.simulation.views import View
from ptycho_torch.files import atomic_path

Positions = Float[np.ndarray, "n 2"]


def draw_view(path: Path, positions_px: Positions, view: View, D_px: float, title: str) -> None:
    """Draw a view's images among all positions (y, x), and histograms of spacing, as PNG.

    A colour for each group (without groups, each image); the circle has the probe's diameter D. No
    wall-clock time goes into the file: the same view gives the same bytes."""
    chosen, groups = positions_px[view.images], view.groups
    groups = np.arange(len(chosen))[:, None] if groups is None else groups
    colours = colormaps["tab20"](np.arange(len(groups)) % 20)
    figure = Figure(figsize=(11, 4.5))
    margins = {"left": 0.06, "right": 0.98, "top": 0.92, "bottom": 0.25}
    plan, histogram = figure.subplots(1, 2, gridspec_kw=margins)
    y, x = positions_px.T
    plan.scatter(x, y, s=1, c="0.85", label="all positions of the split")
    y, x = chosen[groups.ravel()].T
    each = np.repeat(colours, groups.shape[1], axis=0)
    plan.scatter(x, y, s=4, c=each, label="chosen, a colour for each group")
    y, x = chosen[groups[0, 0]]
    label = f"probe, D = {D_px:g} px"
    plan.add_patch(Circle((x, y), D_px / 2, fill=False, label=label))
    title = f"{title}: {len(chosen)} images, {len(groups)} groups"
    plan.set(aspect="equal", xlabel="x / px", ylabel="y / px", title=title)
    plan.invert_yaxis()
    spacings = {"image to nearest image": nearest_distances(chosen, 1)}
    if groups.shape[1] > 1:
        spacings["centre to nearest centre"] = nearest_distances(chosen[np.unique(groups[:, 0])], 1)
    edges = np.linspace(0, max([D_px, *(s.max() for s in spacings.values() if s.size)]), 61)
    for label, spacing in spacings.items():
        histogram.hist(spacing.ravel(), edges, histtype="stepfilled", alpha=0.6, label=label)
    histogram.set(xlabel="distance / px", ylabel="number", title="spacing")
    histogram.axvline(D_px, color="0.5", linestyle=":", label="D")
    for axes in (plan, histogram):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, fontsize="x-small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
