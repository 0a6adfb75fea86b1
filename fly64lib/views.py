"""Selection of views (VIEW-001): which images of a scan a view holds, and in which groups. Positions and seeds decide.

    dense, sparse     groups of C tight neighbours; group centres are at least S = (1 - f) D apart, f the linear overlap
    spread            as many single images, as far from each other as they can be: the same photons, no tight groups

Centres are thrown like darts: in random order, an image is taken unless one taken before lies closer than S, until none
is left (random sequential addition, Rényi 1958: about 0.70 / S^2 centres per px^2). Positions are (n, 2) as (y, x), px.
"""

import numpy as np
from scipy.spatial import cKDTree

from ptycho_torch.errors import ConfigError


def select_groups(positions_px: np.ndarray, spacing_px: float, images_per_group: int = 4, neighbor_count: int = 7,
                  seed: int = 0) -> np.ndarray:
    """Groups of image indices, int64 (G, C), rows in scan order; the first of a row is its centre, the rest the nearest.

    Centres are at least `spacing_px` apart, and no further image could be a centre. An image serves one group: where a
    coarse scan makes groups compete, a later one takes the nearest that are free among the `neighbor_count` nearest
    images of its centre, and an image with fewer than C - 1 free ones is no centre. G = 0 if there are fewer than C
    images. Raises ConfigError for a spacing that is not positive, or more images a group than neighbours allow.
    """
    C, n = images_per_group, len(positions_px)
    if not spacing_px > 0:
        raise ConfigError(f"spacing_px={spacing_px} between group centres; expected a positive number of pixels")
    if not 0 <= C - 1 <= neighbor_count:
        raise ConfigError(f"neighbor_count={neighbor_count} cannot fill groups of {C} images; expected at least C - 1 = "
                          f"{C - 1} neighbours of a group's centre")
    groups = []
    if n >= C:
        tree = cKDTree(positions_px)
        closer = spacing_px * (1 - 1e-9)  # on a raster whose pitch is S, rounding must not decide
        too_close, used = np.zeros((2, n), dtype=bool)
        for centre in np.random.default_rng(seed).permutation(n):
            if too_close[centre] or used[centre]:
                continue
            nearest = np.atleast_1d(tree.query(positions_px[centre], min(n, neighbor_count + 1))[1])
            free = [image for image in nearest if image != centre and not used[image]][:C - 1]
            if len(free) == C - 1:
                groups.append([centre, *free])
                used[groups[-1]] = True
                too_close[tree.query_ball_point(positions_px[centre], closer)] = True
    return np.array(sorted(groups), dtype=np.int64).reshape(-1, C)


def spread(positions_px: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Indices of `count` images spread evenly, ascending: each next image is the one farthest from all before it.

    Farthest-point sampling (Gonzalez 1985) from a random first image: no position is farther from a chosen one than
    chosen ones are from each other. Costs n * count distances, 0.1 s for 400 of 4,000.
    """
    if not 1 <= count <= len(positions_px):
        raise ConfigError(f"count={count} images to spread out of {len(positions_px)}; expected 1 to as many as there are")
    chosen = [int(np.random.default_rng(seed).integers(len(positions_px)))]
    squared = np.full(len(positions_px), np.inf)  # distance to the nearest chosen one
    while len(chosen) < count:
        squared = np.minimum(squared, np.square(positions_px - positions_px[chosen[-1]]).sum(axis=1))
        squared[chosen[-1]] = -1  # positions may coincide, images may not
        chosen.append(int(squared.argmax()))
    return np.array(sorted(chosen), dtype=np.int64)
