"""How methods, limits and views look and are called: the same in every curve, table and page."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from fly64lib.design.registries import METHODS
from fly64lib.design.study import controlled_view
from fly64lib.evaluation.columns import LIMITS
from fly64lib.methods.by_name import base_of

# Okabe and Ito's colours, which colour-blind readers can tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_LIMIT_LINES = dict(zip(LIMITS, ("--", "-."), strict=True))
_CONTROL_MARKERS = {"spread": "D", "fluence": "X"}
_DASHES = {"-": "none", ":": "2 3", "--": "6 3", "-.": "8 3 2 3"}  # of SVG, by matplotlib's line
_LABELS = {"cramer_rao": "Cramér-Rao limit", "bayesian": "Bayesian limit", "flat": "empty object"}


class Style(NamedTuple):
    """A curve's look."""

    colour: str
    line: str = "-"
    marker: str = ""
    hollow: bool = False
    width: float = 1.5

    @property
    def dashes(self) -> str:
        """The line as SVG's stroke-dasharray."""
        return _DASHES[self.line]

    @property
    def keywords(self) -> dict[str, object]:
        """Arguments of matplotlib's plot and errorbar."""
        face = "white" if self.hollow else self.colour
        look = {"color": self.colour, "linestyle": self.line, "linewidth": self.width}
        return look | {"marker": self.marker, "markerfacecolor": face}


def label(name: str) -> str:
    """A method's, limit's or view's name as people read it."""
    return _LABELS.get(name, name.replace("_", " "))


def method_colour(name: str, names: Sequence[str]) -> str:
    """One colour a method in all panels, shared by what starts from it (`pinn`, `pinn+refine`)."""
    bases = dict.fromkeys(map(base_of, names))
    order = [known for known in (*METHODS, *sorted(set(bases) - set(METHODS))) if known in bases]
    return PALETTE[order.index(base_of(name)) % len(PALETTE)]


def method_styles(names: Sequence[str]) -> dict[str, Style]:
    """Methods in colour, what starts from another one dotted and hollow."""
    styles = {}
    for name in names:
        started = name != base_of(name)
        styles[name] = Style(method_colour(name, names), ":" if started else "-", "o", started)
    if "flat" in styles:
        styles["flat"] = reference_styles()["flat"]
    return styles


def reference_styles(limits: Iterable[str] = LIMITS) -> dict[str, Style]:
    """The flat object grey, the limits black."""
    lines = {name: Style("#000000", _LIMIT_LINES[name], width=0.9) for name in limits}
    return {"flat": Style("#999999", ":")} | lines


def view_styles(views: Iterable[str]) -> dict[str, Style]:
    """A colour for each named view, the baseline grey; controls in it, dotted and hollow."""
    views = list(views)
    colours = {"baseline": "#444444"}
    for view in dict.fromkeys(map(controlled_view, views)):
        colours.setdefault(view, PALETTE[(len(colours) - 1) % len(PALETTE)])
    styles = {}
    for view in views:
        named = controlled_view(view)
        marker = _CONTROL_MARKERS.get(view.removeprefix(f"{named}_"), "o")
        control = view != named
        styles[view] = Style(colours[named], ":" if control else "-", marker, control)
    return styles
