"""Positions apart from the scan: a canvas that reaches them would be empty, and may not fit."""

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

SHARE = 0.05  # of the positions, below which a group that touches no other is apart
MAIN = 0.5  # of the positions in one group, from which there is a scan to be apart from


def outliers(positions: np.ndarray, window_px: float) -> np.ndarray:
    """Numbers of the positions (n, 2) whose patches, window_px wide, touch none of the scan's.

    Positions are sorted into cells of a window; neighbouring cells belong together. A scan without
    a group of most positions has no outliers. Memory is that of the list."""
    cells, of = np.unique(np.floor(positions / window_px), axis=0, return_inverse=True)
    pairs = cKDTree(cells).query_pairs(1.5, output_type="ndarray").T
    joined = coo_matrix((np.ones(pairs.shape[1]), tuple(pairs)), (len(cells),) * 2)
    group = connected_components(joined, directed=False)[1][of.ravel()]
    sizes = np.bincount(group) / len(positions)
    return np.flatnonzero(sizes[group] <= SHARE) if sizes.max() >= MAIN else np.empty(0, int)
