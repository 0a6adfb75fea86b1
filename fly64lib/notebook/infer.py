"""A trained model applied to a scan: `fly64 reconstruct --bundle B --data X.npz`, and what
infer.ipynb does.

Writes OUTPUT.png and then OUTPUT: the scan with the reconstruction for its object, in DATA-001,
labelled `reconstruction`, with the fluence beside it. The bundle has to be of the scan's probe and
N; its dose may differ, and both doses are printed."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from fly64lib.evaluation.judgement import judge
from fly64lib.evaluation.scores import json_rows
from fly64lib.methods.by_name import method_of
from fly64lib.methods.learned import Learned
from fly64lib.notebook.judged import Judged
from fly64lib.notebook.parameters import InferParameters
from fly64lib.plots import figures
from fly64lib.simulation.overlap_measures import fluence_map
from ptycho_torch.commands import command_line
from ptycho_torch.data.contract import write_scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import Threads, config
from ptycho_torch.files import sha256_file
from ptycho_torch.memmap_bridge import open_scan
from ptycho_torch.training.bundle import load_bundle
from ptycho_torch.versions import software_versions


def output_of(parameters: InferParameters) -> Path:
    """The result's path: `output_npz`, or the data's name with `_object`; never the data file."""
    output = Path(parameters.output_npz or f"{Path(parameters.data_npz).stem}_object.npz")
    if output.suffix != ".npz" or output.resolve() == Path(parameters.data_npz).resolve():
        raise ConfigError(f"output {output}: expected another file than the data, named *.npz")
    if output.is_dir():
        raise ConfigError(f"output {output} is a folder; give the name of a file in it")
    there = next(folder for folder in output.parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        text = "is not a folder that can be written to; choose another one"
        raise ConfigError(f"output {output}: {there} {text}")
    return output


def apply_bundle(parameters: InferParameters) -> Judged:
    """Reconstruct all patterns of a file and judge the object: against the truth where the file's
    object is that, else in data space. Raises DataContractError for a broken bundle or file,
    ConfigError where they do not fit each other."""
    bundle, raw = load_bundle(parameters.bundle), open_scan(parameters.data_npz)
    method = Learned(bundle=Path(parameters.bundle), threads=parameters.threads)
    result, name = method.reconstruct(raw), method_of(bundle.config.model.objective)
    trained = bundle.statistics.get("photons_per_exposure", float("nan"))
    photons = f"at {trained:.4g} photons per exposure; this scan has {raw.photons_per_exposure:.4g}"
    remarks = [f"{result.note}, {photons}", f"{raw.n} patterns in {result.cost.seconds:.1f} s"]
    rows = judge({name: result.object}, raw)
    return Judged(result.object, bundle, raw, rows, tuple(remarks))


def write_applied(output: Path, applied: Judged, parameters: InferParameters) -> Path:
    """Write the picture and, last, the scan with the new object; return the latter's path."""
    raw = applied.raw
    provenance = {
        "bundle": str(parameters.bundle),
        "bundle_sha256": applied.bundle.sha256,
        "data": str(raw.source),
        "data_sha256": sha256_file(raw.source),
        "training": applied.bundle.config.to_dict(),
        "versions": software_versions(),
        "rows": json_rows(applied.rows),
    }
    fluence = fluence_map(raw.positions.numpy(), raw.scan.probe, raw.scan.canvas_shape)
    scan = replace(
        raw.scan,
        object_guess=applied.object.astype(np.complex64),
        extra=raw.scan.extra | {"fluence": fluence.astype(np.float32)},
        metadata=raw.metadata | {"object_kind": "reconstruction", "reconstruction": provenance},
    )
    figures.saved(applied.picture(), output.with_suffix(".png"))
    write_scan(output, scan)
    return output.resolve()


@config
class Options:
    """A trained model applied to a scan."""

    bundle: str  # bundle.pt of a training
    data: str  # a DATA-001 scan with the same probe and N
    output: str | None = None  # if not given, DATA's name with _object.npz, in this folder
    threads: Threads = 1


@command_line("fly64 reconstruct")
def main(options: Options) -> int:
    """Apply the bundle, print the table and the file that was written."""
    files = {"bundle": options.bundle, "data_npz": options.data, "output_npz": options.output}
    parameters = InferParameters(**files, threads=options.threads)
    output = output_of(parameters)
    applied = apply_bundle(parameters)
    print(applied.text())
    print(f"results: {write_applied(output, applied, parameters)}")
    return 0
