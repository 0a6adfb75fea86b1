"""From a notebook's parameters to the jobs of phases F and G."""

from dataclasses import fields

from fly64lib.parameters import ReconstructParameters
from fly64lib.reconstruction import MethodSettings, ReconstructionJob, build_reconstruction_jobs


def reconstruction_of(parameters: ReconstructParameters) -> tuple[ReconstructionJob, MethodSettings]:
    """The one job and the settings that reconstruct.ipynb asks for."""
    job, = build_reconstruction_jobs(parameters.phase_c_root, parameters.phase_d_root, parameters.artifact_root,
                                     methods=(parameters.method,), doses=(parameters.dose,), views=(parameters.view,),
                                     split=parameters.split)
    shared = {field.name for field in fields(MethodSettings)} & {field.name for field in fields(parameters)}
    return job, MethodSettings(**{name: getattr(parameters, name) for name in shared})
