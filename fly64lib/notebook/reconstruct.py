"""From a notebook's parameters to the jobs of phase F, and their picture."""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

from matplotlib.figure import Figure

from fly64lib.evaluation.judgement import has_truth, region_of
from fly64lib.notebook.parameters import ReconstructParameters, given
from fly64lib.plots import figures
from fly64lib.reconstruction import (
    MethodSettings,
    ReconstructionJob,
    build_reconstruction_jobs,
    load_object,
)
from ptycho_torch.fields import field_names
from ptycho_torch.memmap_bridge import open_scan


def reconstructions_of(
    parameters: ReconstructParameters,
) -> tuple[list[ReconstructionJob], MethodSettings]:
    """The jobs, view by view, and the settings that reconstruct.ipynb asks for."""
    jobs = build_reconstruction_jobs(
        parameters.phase_c_root,
        parameters.phase_d_root,
        parameters.artifact_root,
        methods=parameters.method,
        doses=(parameters.dose,),
        views=parameters.view,
        split=parameters.split,
    )
    return jobs, MethodSettings(**given(parameters, field_names(MethodSettings)))


def pictures(jobs: list[ReconstructionJob]) -> Iterator[tuple[Figure, Path]]:
    """A picture of each view's objects beside the truth, and where it belongs."""
    for dataset, group in groupby(jobs, key=lambda job: job.dataset):
        scan, folders = open_scan(dataset), {job.method: job.artifact_dir for job in group}
        truth = scan.scan.object_guess if has_truth(scan) else None
        found = {name: load_object(folder) for name, folder in folders.items()}
        place = next(iter(folders.values())).with_name("_".join(folders) + ".png")
        yield figures.objects(found, truth, region_of(scan), errors=True), place
