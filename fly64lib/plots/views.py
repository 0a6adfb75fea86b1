"""A view at a glance: where its images and groups lie on the scan, and how far apart they are."""

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from fly64lib.simulation.overlap_measures import nearest_distances
from ptycho_torch.files import atomic_path


def draw_view(
    path: str | Path,
    positions_px: np.ndarray,
    images: np.ndarray,
    groups: np.ndarray | None,
    diameter_px: float,
    title: str,
) -> None:
    """Draw positions (n, 2) as (y, x), the chosen `images` in a colour per group, and histograms of
    spacing, as PNG.

    `groups` (G, C) hold indices into `images`; without them every image is its own group. The
    circle has the probe's diameter D. No wall-clock time goes into the file: the same view gives
    the same bytes."""
    chosen = positions_px[images]
    groups = np.arange(len(images))[:, None] if groups is None else groups
    colours = colormaps["tab20"](np.arange(len(groups)) % 20)
    figure = Figure(figsize=(11, 4.5))
    plan, histogram = figure.subplots(
        1, 2, gridspec_kw={"left": 0.06, "right": 0.98, "top": 0.92, "bottom": 0.25}
    )
    plan.scatter(
        positions_px[:, 1], positions_px[:, 0], s=1, c="0.85", label="all positions of the split"
    )
    y, x = chosen[groups.ravel()].T
    plan.scatter(
        x,
        y,
        s=4,
        c=np.repeat(colours, groups.shape[1], axis=0),
        label="chosen, a colour for each group",
    )
    y, x = chosen[groups[0, 0]]
    plan.add_patch(
        Circle((x, y), diameter_px / 2, fill=False, label=f"probe, D = {diameter_px:g} px")
    )
    title = f"{title}: {len(images)} images, {len(groups)} groups"
    plan.set(aspect="equal", xlabel="x / px", ylabel="y / px", title=title)
    plan.invert_yaxis()
    spacings = {"image to nearest image": nearest_distances(chosen, 1)}
    if groups.shape[1] > 1:
        spacings["centre to nearest centre"] = nearest_distances(chosen[np.unique(groups[:, 0])], 1)
    edges = np.linspace(0, max([diameter_px, *(s.max() for s in spacings.values() if s.size)]), 61)
    for label, spacing in spacings.items():
        histogram.hist(spacing.ravel(), edges, histtype="stepfilled", alpha=0.6, label=label)
    histogram.set(xlabel="distance / px", ylabel="number", title="spacing")
    histogram.axvline(diameter_px, color="0.5", linestyle=":", label="D")
    for axes in (plan, histogram):
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=3, fontsize="x-small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=100)
