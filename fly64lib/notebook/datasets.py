"""Simulated data on demand: made when absent, kept in a folder named by what decides their
content."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

from fly64lib.design import SPLITS, StudyDesign, controlled_view, view_file
from fly64lib.generation import generate_datasets
from fly64lib.notebook.code_hash import source_files
from fly64lib.overlap import generate_overlap_views
from ptycho_torch.fields import to_dict


def prepared_view(
    design: StudyDesign, dose: float, view: str, data_dir: str | Path, progress: bool = False
) -> tuple[Path, Path]:
    """(train, test) files of a view at a dose, made first if they are not there yet."""
    design = replace(design, doses=(dose,))
    root = Path(data_dir) / data_key(design)
    generate_datasets(root / "phase_c", design, progress=progress)
    phases = root / "phase_c", root / "phase_d"
    if view != "baseline":
        views = (controlled_view(view),)
        generate_overlap_views(*phases, root / "overlap", design, views=views, progress=progress)
    train, test = (view_file(*phases, dose, view, split) for split in SPLITS)
    return train, test


def data_key(design: StudyDesign) -> str:
    """Short hash of a design and of the code that turns it into data."""
    digest = hashlib.sha256(json.dumps(to_dict(design), sort_keys=True).encode())
    for path in source_files("import fly64lib.generation, fly64lib.overlap"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
