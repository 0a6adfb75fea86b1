"""The cells of a cut scan's map: which there can be, the scan of one, its object on the disk."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fly64lib.overlap import thinned_scan
from fly64lib.simulation.overlap_measures import nearest_distances
from fly64lib.simulation.scans import Positions
from fly64lib.simulation.views import select_groups
from ptycho_torch.files import atomic_path, json_text
from ptycho_torch.memmap_bridge import RawDataTorch

_FEWEST = 4  # patterns of a cut


class Cell(NamedTuple):
    """One reconstruction of a cut scan."""

    share: float  # of the photons
    overlap: float | None  # linear, asked for; None: all positions
    method: str
    replicate: int

    @property
    def name(self) -> str:
        """Of its file."""
        method = re.sub(r"\W", "-", self.method)
        return f"share_{self.share:g}_overlap_{self.overlap}_{method}_{self.replicate}.npz"


def linear_overlap(positions: Positions, diameter_px: float) -> float:
    """1 - d / D, d the median distance of positions (y, x), px, to their nearest ones."""
    return 1 - float(np.median(nearest_distances(positions, 1))) / diameter_px


def possible_overlaps(
    asked: Sequence[float], positions: Positions, diameter_px: float
) -> tuple[list[float], dict[float, str]]:
    """Of linear overlaps those that positions (y, x), px, can be thinned to, from the largest, and
    why the others cannot."""
    own = linear_overlap(positions, diameter_px)
    kept, left_out = [], {}
    for overlap in sorted(asked, reverse=True):
        images = select_groups(positions, (1 - overlap) * diameter_px, 1)
        if overlap >= own:
            left_out[overlap] = f"the scan itself has a linear overlap of {own:.2f}"
        elif len(images) < _FEWEST:
            left_out[overlap] = f"{len(images)} patterns would be left, {_FEWEST} are needed"
        else:
            kept.append(overlap)
    return kept, left_out


def all_cells(
    shares: Sequence[float], overlaps: Sequence[float], methods: Sequence[str], replicates: int
) -> Iterator[Cell]:
    """In the order of work: the whole map once, then again for its intervals."""
    shares = sorted(shares, reverse=True)
    for replicate in range(replicates):
        for share, overlap, method in product(shares, (None, *overlaps), methods):
            if replicate == 0 or share < 1 or overlap is not None:  # else nothing in it is drawn
                yield Cell(share, overlap, method, replicate)


def cut(scan: RawDataTorch, cell: Cell, D: float) -> tuple[RawDataTorch, np.ndarray]:
    """A cell's scan without an object, and which images are in it."""
    images = np.arange(scan.n)
    if cell.overlap is not None:
        spacing = (1 - cell.overlap) * D
        images = np.sort(select_groups(scan.scan.positions, spacing, 1, seed=cell.replicate)[:, 0])
    chosen = scan.scan.subset(images)
    if cell.share < 1:
        place = 0 if cell.overlap is None else 1 + round(cell.overlap * 1e6)
        seed = [cell.replicate, round(cell.share * 1e9), place]
        chosen = thinned_scan(chosen, cell.share, seed, scan.source)
    return RawDataTorch(chosen, scan.source).without_truth(), images


def store(path: Path, key: Mapping[str, str], row: dict, image: np.ndarray) -> None:
    """Write a cell's row and object (h, w); `key` says what they were made of."""
    with atomic_path(path) as temporary:
        np.savez(temporary, about=np.array(json_text({"key": key, "row": row})), object=image)


def stored(path: Path, key: Mapping[str, str], cell: Cell) -> tuple[dict, np.ndarray] | None:
    """What :func:`store` wrote of this cell under this key; None where it did not."""
    if not path.is_file():
        return None
    with np.load(path) as arrays:
        about = json.loads(str(arrays["about"]))
        same = about["key"] == key and all(about["row"][k] == v for k, v in cell._asdict().items())
        return (about["row"], arrays["object"]) if same else None
