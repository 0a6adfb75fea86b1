"""A trained model applied to a scan: `fly64 reconstruct --bundle B --data X.npz`, and what
infer.ipynb does between its prose.

    fly64 reconstruct --bundle runs/train/bundle.pt --data scan.npz [--output scan_object.npz]
    [--threads 2]

Writes OUTPUT.png and then OUTPUT: the scan with the reconstruction for its object, in DATA-001,
labelled `reconstruction`, with the fluence beside it. The bundle has to be of the scan's probe and
N; its dose may differ, and is told."""

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from fly64lib.evaluation.columns import markdown_table, table
from fly64lib.evaluation.judgement import has_truth, judge
from fly64lib.evaluation.scores import json_rows
from fly64lib.methods.base import MethodResult
from fly64lib.methods.by_name import method_of
from fly64lib.methods.learned import Learned
from fly64lib.notebook.parameters import InferParameters
from fly64lib.plots import figures
from fly64lib.simulation.overlap_measures import fluence_map, scanned_region
from ptycho_torch.data.contract import write_scan
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.files import sha256_file
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge, RawDataTorch
from ptycho_torch.training.bundle import Bundle, load_bundle
from ptycho_torch.versions import software_versions


@dataclass(frozen=True, eq=False)
class Applied:
    """A bundle's object on a scan, with its table."""

    bundle: Bundle
    raw: RawDataTorch
    result: MethodResult
    rows: list[dict]
    note: str = ""  # why the object is not scored against the truth that the file holds

    def text(self) -> str:
        """What was trained on what, how the photons compare, what it took, and the rows as a
        table."""
        trained, here = (
            self.bundle.statistics.get("photons_per_exposure", float("nan")),
            self.raw.photons_per_exposure,
        )
        text = markdown_table(*table(self.rows, "method"))
        return (
            f"{self.result.note}, at {trained:.4g} photons per exposure; this scan has {here:.4g}\n"
            f"{self.raw.n} patterns in {self.result.cost.seconds:.1f} s\n{self.note}\n{text}"
        )

    def picture(self) -> Figure:
        """Truth or what the file holds beside the reconstruction."""
        truth, shown = (
            self.raw.scan.object_guess if has_truth(self.raw) else None,
            {"reconstruction": self.result.object},
        )
        if truth is None:
            shown["in the file (not truth)"] = self.raw.scan.object_guess
        return figures.objects(
            shown, truth, scanned_region(self.raw.positions.numpy()), errors=True
        )


def output_of(parameters: InferParameters) -> Path:
    """The result's path: `output_npz`, or the data file's name with `_object`, in this folder.
    Never the data file itself."""
    output = Path(parameters.output_npz or f"{Path(parameters.data_npz).stem}_object.npz")
    if output.suffix != ".npz" or output.resolve() == Path(parameters.data_npz).resolve():
        raise ConfigError(f"output {output}: expected another file than the data, named *.npz")
    if output.is_dir():
        raise ConfigError(f"output {output} is a folder; give the name of a file in it")
    there = next(folder for folder in output.parents if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(
            f"output {output}: {there} is not a folder that can be written to; choose another one"
        )
    return output


def apply_bundle(parameters: InferParameters) -> Applied:
    """Reconstruct all patterns of a file and judge the object: against the truth where the file's
    object is that, else in data space. Raises DataContractError for a broken bundle or file,
    ConfigError where they do not fit each other."""
    bundle = load_bundle(parameters.bundle)
    raw = PyTorchMemmapBridge(parameters.data_npz).raw_data_torch
    method = Learned(bundle=Path(parameters.bundle), threads=parameters.threads)
    result, name = method.reconstruct(raw), method_of(bundle.config.model.objective)
    try:
        return Applied(bundle, raw, result, judge({name: result.object}, raw))
    except DataContractError as error:  # a scan too small for the metrics still gets its object
        rows = [
            {"method": name, "deviance": data_deviance(torch.from_numpy(image), raw)}
            for name, image in {
                name: result.object,
                "flat": np.ones_like(result.object),
            }.items()
        ]
        return Applied(bundle, raw, result, rows, f"not scored against the truth: {error}\n")


def write_applied(output: Path, applied: Applied, parameters: InferParameters) -> Path:
    """Write the picture and, last, the scan with the new object; return the absolute path of the
    latter."""
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
    fluence = fluence_map(raw.positions.numpy(), raw.scan.probe, raw.scan.canvas_shape).astype(
        np.float32
    )
    scan = replace(
        raw.scan,
        object_guess=applied.result.object.astype(np.complex64),
        extra=raw.scan.extra | {"fluence": fluence},
        metadata=raw.metadata | {"object_kind": "reconstruction", "reconstruction": provenance},
    )
    figures.saved(applied.picture(), output.with_suffix(".png"))
    write_scan(output, scan)
    return output.resolve()


def main(argv: list[str]) -> int:
    """`fly64 reconstruct --bundle ... --data ...`."""
    from ptycho_torch.commands import add_option, run_command

    parser = argparse.ArgumentParser(prog="fly64 reconstruct", description=__doc__.split("\n")[0])
    parser.add_argument("--bundle", required=True, help="bundle.pt of a training")
    parser.add_argument(
        "--data", required=True, metavar="NPZ", help="a DATA-001 scan with the same probe and N"
    )
    parser.add_argument(
        "--output", metavar="NPZ", help="(default: DATA's name with _object.npz, in this folder)"
    )
    add_option(parser, "--threads", type=int, default=1)
    options = parser.parse_args(argv)

    def command() -> int:
        parameters = InferParameters(
            bundle=options.bundle,
            data_npz=options.data,
            output_npz=options.output,
            threads=options.threads,
        )
        output = output_of(parameters)
        applied = apply_bundle(parameters)
        print(applied.text())
        print(f"results: {write_applied(output, applied, parameters)}")
        return 0

    return run_command(command)
