"""A scan under a probe recovered from its own patterns: `fly64 probe SRC.npz DST.npz --modes 3`.

Object and probe are fitted together (:mod:`fly64lib.methods.classical`), the probe as incoherent
modes that start from the file's. Every tenth pattern is kept out of the fit and tells whether the
recovery holds: the mean Poisson deviance per detector pixel there, under the file's probe and under
the recovered one, each with the object fitted under it. A perfect model would come to about 1; a
probe that does not lower it is not worth taking."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from jaxtyping import Complex

from fly64lib.evaluation.judgement import has_truth
from fly64lib.methods.classical import Classical
from ptycho_torch.commands import run_options
from ptycho_torch.data.contract import write_scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import Positive, Threads, config
from ptycho_torch.files import sha256_file
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.versions import software_versions

HELD_OUT_EVERY = 10


@dataclass(frozen=True, eq=False)
class RecoveredProbe:
    """A probe recovered from nine tenths of a scan, and what the last tenth says of it."""

    probe: Complex[np.ndarray, "modes N N"]  # orthogonal, strongest first; sum |P|^2 as in the file
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
    """Which patterns are kept out of a fit: every tenth. ConfigError for fewer than twenty."""
    if patterns < (least := 2 * HELD_OUT_EVERY):
        raise ConfigError(f"{patterns} patterns: a probe is recovered from {least} or more")
    return np.arange(patterns) % HELD_OUT_EVERY == 0


def recover_probe(
    scan: RawDataTorch, modes: int, steps: int = 240, threads: int = 1, progress: bool = False
) -> RecoveredProbe:
    """The probe as `modes` incoherent modes or more, after `steps` joint steps, without truth."""
    held, blind = held_out(scan.n), scan.without_truth()
    fitted, kept_out = blind.subset(~held), blind.subset(held)
    common = {"threads": threads, "progress": progress}
    kept = Classical(**common).reconstruct(fitted)
    found = Classical(probe="refine", probe_modes=modes, steps=steps, **common).reconstruct(fitted)
    before = data_deviance(torch.from_numpy(kept.object), kept_out)
    after = data_deviance(torch.from_numpy(found.object), kept_out.under(found.probe))
    seconds = kept.cost.cpu_seconds + found.cost.cpu_seconds
    return RecoveredProbe(found.probe, found.object, before, after, seconds)


@config
class Options:
    """A scan under a probe recovered from its own patterns."""

    source: Annotated[Path, tyro.conf.Positional]  # a DATA-001 file
    output: Annotated[Path, tyro.conf.Positional]  # the same scan with the recovered probe, *.npz
    modes: Positive = 3  # incoherent modes, at least
    steps: Positive = 240  # joint steps on object and probe
    threads: Threads = 1


def command(options: Options) -> int:
    source, output = options.source, options.output
    if output.suffix != ".npz" or output.resolve() == source.resolve():
        raise ConfigError(f"output {output}: expected another file than the source, named *.npz")
    raw = open_scan(source)
    found = recover_probe(raw, options.modes, options.steps, options.threads, progress=True)
    print(
        f"modes: {', '.join(f'{share:.1%}' for share in found.shares)} of the power,"
        f" {found.cpu_seconds:.0f} CPU s\ndeviance per pixel on {held_out(raw.n).sum()} patterns"
        f" held out: {found.deviance_before:.3f} under the file's probe,"
        f" {found.deviance_after:.3f} under the recovered one"
    )
    if found.deviance_after >= found.deviance_before:
        print("the recovered probe explains them no better: keep the file's; nothing was written")
        return 1
    about = {"source_sha256": sha256_file(source), "modes": options.modes, "steps": options.steps}
    about |= {name: getattr(found, name) for name in ("deviance_before", "deviance_after")}
    about["versions"] = software_versions()
    kinds = {"probe_kind": "reconstruction", "probe_recovery": about}
    changed = replace(raw.scan, probe=found.probe)
    if not has_truth(raw):
        kinds["object_kind"] = "reconstruction"
        changed = replace(changed, object_guess=found.object)
    write_scan(output, replace(changed, metadata=raw.metadata | kinds))
    print(output)
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_options(Options, command, argv, "fly64 probe")


if __name__ == "__main__":
    raise SystemExit(main())
