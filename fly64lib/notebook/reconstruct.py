"""From a notebook's parameters to the jobs of phase F, and their picture."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure

from fly64lib.evaluation.judgement import has_truth, on_detector_grid, region_of
from fly64lib.notebook.parameters import ReconstructParameters
from fly64lib.plots import figures
from fly64lib.reconstruction import (
    ReconstructionJob,
    build_reconstruction_jobs,
    load_with_probe,
)
from ptycho_torch.memmap_bridge import open_scan


def jobs_of(parameters: ReconstructParameters) -> list[ReconstructionJob]:
    """The jobs that reconstruct.ipynb asks for, view by view."""
    roots = parameters.phase_c_root, parameters.phase_d_root, parameters.artifact_root
    asked = {"methods": parameters.method, "doses": (parameters.dose,), "views": parameters.view}
    return build_reconstruction_jobs(*roots, **asked, split=parameters.split)


def pictures(jobs: list[ReconstructionJob]) -> Iterator[tuple[Figure, Path]]:
    """A picture of each view's objects beside the truth, and where it belongs."""
    for dataset, group in groupby(jobs, key=lambda job: job.dataset):
        scan, folders = open_scan(dataset), {job.method: job.artifact_dir for job in group}
        truth = on_detector_grid(scan.scan.object_guess, scan) if has_truth(scan) else None
        made = {name: load_with_probe(folder) for name, folder in folders.items()}
        found = {name: on_detector_grid(image, scan) for name, (image, _) in made.items()}
        known = all(probe is None for _, probe in made.values())
        gauge = "known_probe" if known else "unknown_probe"
        place = next(iter(folders.values())).with_name("_".join(folders) + ".png")
        yield figures.objects(found, truth, region_of(scan), errors=True, gauge=gauge), place
