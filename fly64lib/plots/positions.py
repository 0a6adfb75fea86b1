"""A picture of positions that were corrected."""

import numpy as np
from matplotlib.figure import Figure

from fly64lib.evaluation.moves import Moves

_LONG = 0.06, 98  # of the field: the arrow of a step that this many per cent do not exceed


def moved(moves: Moves) -> Figure:
    """An arrow from each stated position, enlarged, and beside it the steps in the order of the
    exposures, which shows a drift."""
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    plan, order = figure.subplots(1, 2)
    (y, x), (down, right) = moves.stated_px.T, moves.steps_px.T
    share, percent = _LONG
    longest = share * max(np.ptp(moves.stated_px, axis=0).max(), 1.0)
    scale = np.percentile(np.hypot(down, right), percent) / longest  # px of step to a px of arrow
    arrows = {"angles": "xy", "scale_units": "xy", "scale": scale, "width": 0.002}
    drawn = plan.quiver(x, y, right, down, np.arange(len(x)), cmap="viridis", **arrows)
    figure.colorbar(drawn, ax=plan, label="exposure")
    title = f"arrows {1 / scale:.3g} times as long as the steps"
    plan.set(aspect="equal", xlabel="x / px", ylabel="y / px", title=title)
    plan.invert_yaxis()
    for name, part in {"rows": down, "columns": right}.items():
        order.plot(part, ".", markersize=3, label=name)
    order.set(xlabel="exposure", ylabel="step / px of the object", title="in the scan's order")
    order.legend()
    return figure
