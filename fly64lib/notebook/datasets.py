"""Simulated data on demand, kept in a folder that is named by what decides their content."""

import hashlib
import json
from pathlib import Path

from fly64lib.design.registries import PROBES, SPECIMENS
from fly64lib.design.study import SPLITS, ScanDesign, ViewDesign, controlled_view, view_file
from fly64lib.generation import generate_datasets
from fly64lib.notebook.code_hash import source_files
from fly64lib.overlap import generate_overlap_views
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from ptycho_torch.fields import to_dict


def simulate(
    design: ScanDesign, view: str, data_dir: str | Path = "runs/data", progress: bool = False
) -> list[Path]:
    """Train and test file of a view, such as `"dense"`, at the design's first dose; made if they
    are not there yet."""
    # The folder's name: a hash of the design and of the code that turns it into data.
    digest = hashlib.sha256(json.dumps(to_dict(design), sort_keys=True).encode())
    entries = (SPECIMENS.file(design.specimen), PROBES.file(design.probe))
    base = [Path(design.base_npz)] if design.base_npz else []
    for path in (*source_files("import fly64lib.generation, fly64lib.overlap", entries), *base):
        digest.update(path.read_bytes())
    files = made(Path(data_dir) / digest.hexdigest()[:16], design, view, progress)
    return [files[split] for split in SPLITS]


def made(
    root: Path,
    design: ScanDesign,
    view: str,
    progress: bool = False,
    imperfections: Imperfections = PERFECT,
) -> dict[str, Path]:
    """Both halves of a view at the design's first dose, made under `root` if they are not there
    yet; `whole` is the test half with all its images."""
    phases, dose = (root / "phase_c", root / "phase_d"), design.doses[0]
    generate_datasets(phases[0], design, progress=progress, imperfections=imperfections)
    if view != "baseline":
        views = ViewDesign(views=controlled_view(view), replicate=design.replicate)
        generate_overlap_views(*phases, root / "overlap", views, progress=progress)
    files = {split: view_file(*phases, dose, view, split) for split in SPLITS}
    return files | {"whole": view_file(*phases, dose, "baseline", "test")}
