"""Selection of views (VIEW-001): which images of a scan a view holds, and in which groups.

:mod:`fly64lib.design.study` names the views. Positions and seeds decide what they hold.

    overlap views    tight groups of C, centres at least S = (1 - f) D apart, f the linear overlap;
                     or single images that far apart; at f = 0 their probes do not meet at all
    their _spread    as many single images, spread evenly: same photons, no groups
    their _fluence   every image, with that share of the photons: same photons, full overlap
    custom           a share `s_img` of the images, regrouped to `n_groups` groups
                     (OVERSAMPLING-001)

Centres are thrown like darts: in random order, an image is taken unless one taken before lies
closer than S, until none is left (random sequential addition, Rényi 1958: about 0.70 / S^2 centres
per px^2). Positions are patch centres (y, x), px."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int
from scipy.spatial import cKDTree

from fly64lib.design.study import ViewDesign, controls_of, gridsize_of, linear_overlap
from fly64lib.simulation.overlap_measures import Groups
from fly64lib.simulation.scans import Positions
from ptycho_torch.data.grouping import draw_groups
from ptycho_torch.errors import ConfigError


@dataclass(frozen=True, eq=False)
class View:
    """What a view takes of a split."""

    name: str
    images: Int[np.ndarray, " n"]  # indices into the split, ascending
    groups: Groups | None = None  # indices into `images`; None: single images
    keep: float = 1.0  # share of the photons
    selection: dict = field(default_factory=dict)  # how it was chosen, for the metadata

    @classmethod
    def of_groups(cls, name: str, groups: Groups, selection: dict) -> "View":
        """The view of the images that occur in groups of the split's indices."""
        images = np.unique(groups)
        return cls(name, images, np.searchsorted(images, groups), selection=selection)


def choose_views(
    positions_px: Positions, diameter_px: float, design: ViewDesign, apart_px: float = 0.0
) -> tuple[list[View], dict[str, str]]:
    """All views of a split, the baseline first, and the reason for each one that is too small.

    `apart_px` is the distance from which on two probes light no pixel together; views of single
    images at overlap 0 keep it."""
    n, C, K = len(positions_px), design.gridsize**2, design.neighbor_count
    views, skipped = [View("baseline", np.arange(n))], {}
    too_few = f"cannot form one group of {C} (gridsize {design.gridsize})"
    seed = design.seed(design.rng_seed_subsample)
    chosen = {"seed": seed, "neighbor_count": K}
    for name in design.views:
        overlap, single = linear_overlap(name), gridsize_of(name) == 1
        spacing = max((1 - overlap) * diameter_px, apart_px if single and overlap == 0 else 0)
        groups = select_groups(positions_px, spacing, 1 if single else C, K, seed)
        controls = controls_of(name) if design.controls else ()
        if not len(groups):
            skipped |= dict.fromkeys((name, *controls), f"{n} images {too_few}")
            continue
        how = chosen | {"linear_overlap": overlap, "spacing_px": spacing}
        if single:
            how |= {"rule": "single images apart"}
            views.append(View(name, np.sort(groups[:, 0]), selection=how))
        else:
            how |= {"rule": "group centres apart, with their nearest images"}
            views.append(View.of_groups(name, groups, how))
        for control in controls:
            if control.endswith("_spread"):
                even = {"rule": f"as many single images as {name}, spread evenly", "seed": seed}
                images = spread(positions_px, groups.size, seed)
                views.append(View(control, images, selection=even))
            else:
                thin = {"rule": f"every image, photons thinned to the total of {name}"}
                thin |= {"seed": seed}
                views.append(View(control, np.arange(n), keep=groups.size / n, selection=thin))
    if design.s_img is not None or design.n_groups is not None:
        kept = max(1, round((1.0 if design.s_img is None else design.s_img) * n))
        if kept < C:
            skipped["custom"] = f"{kept} images (s_img={design.s_img}) {too_few}"
        else:
            images = np.sort(np.random.default_rng(seed).permutation(n)[:kept])
            again = design.seed(design.grouping_seed)
            groups = draw_groups(positions_px[images], C, K, design.n_groups, again)
            how = chosen | {"rule": "random images, regrouped", "grouping_seed": again}
            how |= {"s_img": design.s_img, "n_groups": design.n_groups, "images_drawn": kept}
            views.append(View.of_groups("custom", images[groups], how))
    return views, skipped


def select_groups(
    positions_px: Positions,
    spacing_px: float,
    images_per_group: int = 4,
    neighbor_count: int = 7,
    seed: int = 0,
) -> Groups:
    """Groups of image indices in scan order; a row is a centre and the images nearest to it.

    Centres are at least `spacing_px` apart, and no further image could be a centre. An image serves
    one group: where a coarse scan makes groups compete, a later one takes the nearest that are free
    among the `neighbor_count` nearest images of its centre, and an image with fewer than C - 1 free
    ones is no centre. G = 0 if there are fewer than C images. Raises ConfigError for a spacing that
    is not positive, or more images a group than neighbours allow."""
    C, n = images_per_group, len(positions_px)
    if not spacing_px > 0:
        raise ConfigError(
            f"spacing_px={spacing_px} between group centres; expected a positive number of pixels"
        )
    if not 0 <= C - 1 <= neighbor_count:
        raise ConfigError(
            f"neighbor_count={neighbor_count} cannot fill groups of {C} images; expected at least "
            f"C - 1 = {C - 1} neighbours of a group's centre"
        )
    groups, tree = [], cKDTree(positions_px)
    closer = spacing_px * (1 - 1e-9)  # on a raster whose pitch is S, rounding must not decide
    too_close, used = np.zeros((2, n), dtype=bool)
    for centre in np.random.default_rng(seed).permutation(n):
        if too_close[centre] or used[centre]:
            continue
        nearest = np.atleast_1d(tree.query(positions_px[centre], min(n, neighbor_count + 1))[1])
        free = [image for image in nearest if image != centre and not used[image]][: C - 1]
        if len(free) == C - 1:
            groups.append([centre, *free])
            used[groups[-1]] = True
            too_close[tree.query_ball_point(positions_px[centre], closer)] = True
    return np.array(sorted(groups), dtype=np.int64).reshape(-1, C)


def spread(positions_px: Positions, count: int, seed: int = 0) -> Int[np.ndarray, " count"]:
    """Indices of `count` images spread evenly, ascending: each the farthest from all before it.

    Farthest-point sampling (Gonzalez 1985) from a random first image: no position is farther from a
    chosen one than chosen ones are from each other. 0.1 s for 400 of 4,000."""
    if not 1 <= count <= len(positions_px):
        raise ConfigError(
            f"count={count} images to spread out of {len(positions_px)}; expected 1 up to all"
        )
    chosen = [int(np.random.default_rng(seed).integers(len(positions_px)))]
    squared = np.full(len(positions_px), np.inf)  # distance to the nearest chosen one
    while len(chosen) < count:
        away = np.square(positions_px - positions_px[chosen[-1]]).sum(axis=1)
        squared = np.minimum(squared, away)
        squared[chosen[-1]] = -1  # positions may coincide, images may not
        chosen.append(int(squared.argmax()))
    return np.array(sorted(chosen), dtype=np.int64)
