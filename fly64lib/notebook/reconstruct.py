"""From a notebook's parameters to the jobs of phases F and G."""

from dataclasses import fields

from fly64lib.notebook.parameters import ReconstructParameters
from fly64lib.reconstruction import MethodSettings, ReconstructionJob, build_reconstruction_jobs


def reconstructions_of(
    parameters: ReconstructParameters,
) -> tuple[list[ReconstructionJob], MethodSettings]:
    """The jobs, view by view, and the settings that reconstruct.ipynb asks for."""
    jobs = build_reconstruction_jobs(
        parameters.phase_c_root,
        parameters.phase_d_root,
        parameters.artifact_root,
        methods=parameters.methods,
        doses=(parameters.dose,),
        views=parameters.views,
        split=parameters.split,
    )
    shared = {field.name for field in fields(MethodSettings)} & {
        field.name for field in fields(parameters)
    }
    return jobs, MethodSettings(**{name: getattr(parameters, name) for name in shared})
