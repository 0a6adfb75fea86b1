"""A scan under a probe recovered from its own patterns: `fly64 probe SRC.npz DST.npz --modes 3`.

Object and probe are fitted together (:mod:`fly64lib.methods.classical`), the probe as incoherent
modes that start from the file's. Every tenth pattern is kept out of the fit and tells whether the
recovery holds: the mean Poisson deviance per detector pixel there, under the file's probe and under
the recovered one, each with the object fitted under it. A perfect model would come to about 1; a
probe that does not lower it is not worth taking."""

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Complex

from fly64lib.evaluation.judgement import has_truth
from fly64lib.methods.classical import Classical
from ptycho_torch.commands import run_command
from ptycho_torch.data.contract import ScanData, write_scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.files import sha256_file
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge
from ptycho_torch.versions import software_versions

HELD_OUT_EVERY = 10


@dataclass(frozen=True, eq=False)
class RecoveredProbe:
    """A probe recovered from nine tenths of a scan, and what the last tenth says of it."""

    probe: Complex[
        np.ndarray, "modes N N"
    ]  # orthogonal modes, the strongest first; sum |P|^2 as in the file
    object: Complex[np.ndarray, "H W"]  # that was fitted with it
    deviance_before: float  # per detector pixel of the patterns held out, under the file's probe
    deviance_after: float
    cpu_seconds: float

    @property
    def shares(self) -> list[float]:
        """Power of the modes, as shares."""
        power = (np.abs(self.probe) ** 2).sum((1, 2))
        return (power / power.sum()).tolist()


def held_out(patterns: int) -> np.ndarray:
    """Which patterns of a scan are kept out of a fit: every tenth. Raises ConfigError for fewer
    than twenty."""
    if patterns < 2 * HELD_OUT_EVERY:
        raise ConfigError(
            f"{patterns} patterns: a probe is recovered from {2 * HELD_OUT_EVERY} or more"
        )
    return np.arange(patterns) % HELD_OUT_EVERY == 0


def recover_probe(
    scan: ScanData,
    modes: int,
    steps: int = 240,
    threads: int = 1,
    progress: bool = False,
    folder: Path | None = None,
) -> RecoveredProbe:
    """The probe of a scan as `modes` incoherent modes or more, after `steps` joint steps. No truth
    is used.

    `folder`: where two temporary files of the scan's size go.
    """
    held = held_out(scan.n)
    with tempfile.TemporaryDirectory(prefix=".probe-", dir=folder) as place:
        files = {name: Path(place) / f"{name}.npz" for name in ("fit", "held")}
        for name, which in (("fit", ~held), ("held", held)):
            write_scan(files[name], scan.subset(which))
        kept = Classical(threads=threads, progress=progress).reconstruct(files["fit"])
        found = Classical(
            probe="refine", probe_modes=modes, steps=steps, threads=threads, progress=progress
        ).reconstruct(files["fit"])
        raw = PyTorchMemmapBridge(files["held"]).raw_data_torch
        before = data_deviance(torch.from_numpy(kept.object), raw)
        write_scan(files["held"], replace(scan.subset(held), probe=found.probe))
        after = data_deviance(
            torch.from_numpy(found.object), PyTorchMemmapBridge(files["held"]).raw_data_torch
        )
    return RecoveredProbe(
        found.probe, found.object, before, after, kept.cpu_seconds + found.cpu_seconds
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fly64 probe", description=__doc__.split("\n")[0])
    parser.add_argument("source", type=Path, metavar="SRC.npz", help="a DATA-001 file")
    parser.add_argument(
        "output", type=Path, metavar="DST.npz", help="the same scan with the recovered probe"
    )
    parser.add_argument(
        "--modes", type=int, default=3, help="incoherent modes, at least (default: %(default)s)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=240,
        help="joint steps on object and probe (default: %(default)s)",
    )
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(argv)

    def command() -> int:
        if options.output.suffix != ".npz" or options.output.resolve() == options.source.resolve():
            raise ConfigError(
                f"output {options.output}: expected another file than the source, named *.npz"
            )
        raw = PyTorchMemmapBridge(options.source).raw_data_torch
        options.output.parent.mkdir(parents=True, exist_ok=True)
        found = recover_probe(
            raw.scan, options.modes, options.steps, options.threads, True, options.output.parent
        )
        print(
            f"modes: {', '.join(f'{share:.1%}' for share in found.shares)} of the power,"
            f" {found.cpu_seconds:.0f} CPU s\ndeviance per pixel on {held_out(raw.n).sum()}"
            f" patterns held out: {found.deviance_before:.3f} under the file's probe,"
            f" {found.deviance_after:.3f} under the recovered one"
        )
        if found.deviance_after >= found.deviance_before:
            print(
                "the recovered probe explains them no better: keep the file's; nothing was written"
            )
            return 1
        about = {
            "source_sha256": sha256_file(options.source),
            "modes": options.modes,
            "steps": options.steps,
            "deviance_before": found.deviance_before,
            "deviance_after": found.deviance_after,
            "versions": software_versions(),
        }
        metadata = raw.metadata | {"probe_kind": "reconstruction", "probe_recovery": about}
        changed = replace(raw.scan, probe=found.probe, metadata=metadata)
        if not has_truth(raw):
            changed = replace(
                changed,
                object_guess=found.object,
                metadata=metadata | {"object_kind": "reconstruction"},
            )
        write_scan(options.output, changed)
        print(options.output)
        return 0

    return run_command(command)


if __name__ == "__main__":
    raise SystemExit(main())
