"""Groups (OVERSAMPLING-001) of C = gridsize^2 images: a seed image and some of its K nearest."""

from itertools import combinations

import numpy as np
from scipy.spatial import cKDTree

from ptycho_torch.config import TrainingConfig
from ptycho_torch.data.scan import ScanData
from ptycho_torch.errors import ConfigError


def draw_groups(
    positions_px: np.ndarray, C: int, neighbor_count: int, n_groups: int | None, seed: int
) -> np.ndarray:
    """Groups of C images as indices, int64 (n_groups, C); the first of each row is its seed image.

    Every image seeds a group before one seeds a second. A group is the seed image and C - 1 of its
    K = `neighbor_count` nearest others, drawn without regard to distance; no two groups hold the
    same images. With C = 1 a group is an image. `n_groups` defaults to the number of images.

    Raises ConfigError when there are too few images, or fewer distinct groups than asked for."""
    n, text = len(positions_px), f"n_groups={n_groups} is more than the"
    n_groups = n if n_groups is None else n_groups
    if n < C:
        says = f"{n} images cannot form a group of {C} (gridsize {int(C**0.5)}): use more images"
        raise ConfigError(f"{says} or gridsize 1")
    neighbours = min(neighbor_count, n - 1)
    if neighbours < C - 1:
        says = f"neighbor_count={neighbor_count} is too small for groups of {C}: at least {C - 1}"
        raise ConfigError(says)
    if C == 1 and n_groups > n:
        raise ConfigError(f"{text} {n} images; a group of gridsize 1 is an image")
    rng = np.random.default_rng(seed)
    order = rng.permutation(n)
    if C == 1:
        return np.sort(order[:n_groups])[:, None]
    nearest = cKDTree(positions_px).query(positions_px, neighbours + 1)[1]
    others = np.array([[j for j in row if j != i][:neighbours] for i, row in enumerate(nearest)])
    choices = np.array(list(combinations(range(neighbours), C - 1)))
    groups = {}  # as drawn, by the images they hold
    queues = {i: iter(others[i][rng.permutation(choices)]) for i in order}
    while queues and len(groups) < n_groups:
        for i in list(queues):
            drawn = ([i, *row] for row in queues[i])
            group = next((group for group in drawn if frozenset(group) not in groups), None)
            if group is None:
                del queues[i]
            elif len(groups) < n_groups:
                groups[frozenset(group)] = group
    if len(groups) < n_groups:
        text += f" {len(groups)} distinct groups of {C} that {n} images with {neighbours}"
        raise ConfigError(f"{text} neighbours allow")
    return np.array(list(groups.values()), dtype=np.int64)


def choose_groups(scan: ScanData, config: TrainingConfig, source: object) -> np.ndarray:
    """Groups of image indices (G, C) for a scan: the named view's own, or drawn anew.

    Stored groups are never mixed or split: `n_images` keeps whole groups, and combinations do not
    cross them. Raises ConfigError, naming `source`, where scan and configuration do not fit."""
    C, rng = config.model.images_per_group, np.random.default_rng(config.subsample_seed)
    if scan.groups is None or C == 1:
        images = np.sort(rng.permutation(scan.n)[: config.n_images])  # None: all of them
        settings = (C, config.neighbor_count, config.n_groups, config.grouping_seed)
        return images[draw_groups(scan.positions[images], *settings)]
    stored, held = scan.groups.shape
    if held != C:
        text = f"gridsize {config.model.gridsize} asks for {C}"
        raise ConfigError(f"{source}: its groups hold {held} images, {text}")
    wanted = stored if config.n_groups is None else config.n_groups
    if wanted > stored:
        raise ConfigError(f"n_groups={wanted}, but {source} is a named view of {stored} groups")
    if config.n_images is not None:
        wanted = min(wanted, max(1, config.n_images // C))
    return scan.groups[np.sort(rng.permutation(stored)[:wanted])]
