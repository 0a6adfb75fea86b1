"""`fly64 probe SRC.npz DST.npz --modes 3`: a scan under a probe recovered from its own patterns.

Writes DST.png, the modes, DST.positions.png, where positions were sought, and then DST.npz, if
patterns held out say that the recovery holds (:mod:`fly64lib.methods.probe_recovery`)."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional

from fly64lib.evaluation.judgement import has_truth
from fly64lib.evaluation.moves import moves
from fly64lib.methods.classical import UNKNOWNS, Weight
from fly64lib.methods.probe_recovery import held_out, recover_probe
from fly64lib.plots import figures, positions
from fly64lib.plots.modes import modes
from ptycho_torch.data.contract import write_scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import SEVERAL, Positive, Threads, config
from ptycho_torch.files import sha256_file
from ptycho_torch.memmap_bridge import open_scan
from ptycho_torch.versions import software_versions


@config
class Probe:
    """A scan under a probe recovered from its own patterns."""

    source: Positional[Path]  # a DATA-001 file
    output: Positional[Path]  # the same scan with the recovered probe, *.npz
    modes: Positive = 3  # incoherent modes, at least
    M: Positive | None = None  # side of the recovered probe, pixels; None: as in the file
    # of the exposures: affine, positions, brightness, background
    unknown: Annotated[tuple[Literal[UNKNOWNS], ...], SEVERAL] = ()
    steps: Positive = 240  # joint steps on object and probe
    tikhonov: Weight = 30.0  # holds the slopes of the object meanwhile, photons per object pixel
    threads: Threads = 1


def recover(options: Probe) -> int:
    """Recover, print what patterns held out say, and write; exit code 1 where that is no better."""
    source, output = options.source, options.output
    if output.suffix != ".npz" or output.resolve() == source.resolve():
        raise ConfigError(f"output {output}: expected another file than the source, named *.npz")
    raw = open_scan(source)
    how = {name: getattr(options, name) for name in ("M", "unknown", "tikhonov")}
    found = recover_probe(raw, options.modes, options.steps, options.threads, True, **how)
    print(
        f"modes: {', '.join(f'{share:.1%}' for share in found.shares)} of the power,"
        f" {found.cpu_seconds:.0f} CPU s\ndeviance per pixel on {held_out(raw.n).sum()} patterns"
        f" held out: {found.deviance_before:.3f} under the file's probe,"
        f" {found.deviance_after:.3f} under the recovered one"
    )
    if not found.better:
        print("the recovered probe explains them no better: keep the file's; nothing was written")
        return 1
    about = {"source_sha256": sha256_file(source), "modes": options.modes, "steps": options.steps}
    about |= how | {name: getattr(found, name) for name in ("deviance_before", "deviance_after")}
    about["versions"] = software_versions()
    kinds = {"probe_kind": "reconstruction", "probe_recovery": about}
    recovered = found.scan.scan
    if has_truth(raw):  # the truth stays, on the grid of the probe
        truth = raw if options.M is None else raw.finer(options.M)
        recovered = replace(recovered, object_guess=truth.scan.object_guess)
    else:
        kinds["object_kind"] = "reconstruction"
    kept = {"metadata": raw.metadata | kinds, "extra": raw.scan.extra, "groups": raw.scan.groups}
    picture = modes({"in the file": raw.scan.probe, "recovered": found.scan.scan.probe})
    print(figures.saved(picture, output.with_suffix(".png")))
    if moved := moves(raw.scan.positions * (found.scan.M / raw.M), found.scan.scan.positions):
        print(moved)
        print(figures.saved(positions.moved(moved), output.with_suffix(".positions.png")))
    write_scan(output, replace(recovered, **kept))
    print(output)
    return 0
