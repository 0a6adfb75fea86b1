"""What the phases' command lines share: the design's options, and errors printed without a
traceback."""

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from fly64lib.design import StudyDesign
from ptycho_torch.errors import PtychoError
from ptycho_torch.files import folder_lock, read_json, write_json

_PATIENCE_S = 30.0  # writing a manifest takes milliseconds


def run_command(command: Callable[[], int]) -> int:
    """Run a command; an error that the user can act on is printed and gives exit code 2: the
    project's own, and what the file system refuses (a folder that is a file, no permission, no
    space). 141, and silence, when a reader such as `head` has seen enough."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # what is still in the buffer has nowhere to go
        return 128 + signal.SIGPIPE
    except PtychoError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise  # not the file system's
        names = " -> ".join(
            str(name) for name in (error.filename, error.filename2) if name is not None
        )
        print(
            f"error: {names or 'a file'}: {error.strerror}; expected a place where files can be"
            " read and written: choose another one, or free it",
            file=sys.stderr,
        )
    return 2


def record_rows(
    manifest: Path,
    phase: str,
    rows: list[dict],
    keys: tuple[str, ...],
    skipped: list[dict],
    **content: object,
) -> None:
    """Write a command's rows, and `skip_summary.json`; the manifest's rows for other jobs are kept.

    `keys` name the entries that tell jobs apart. Commands that share a folder for different jobs
    take turns here, so that none loses another's rows."""
    with folder_lock(manifest.parent, patience_s=_PATIENCE_S):
        replaced = {tuple(row.get(key) for key in keys) for row in rows}
        kept = read_json(manifest)["jobs"] if manifest.is_file() else []
        kept = [row for row in kept if tuple(row.get(key) for key in keys) not in replaced]
        write_json(manifest, {"phase": phase, **content, "jobs": kept + rows})
        write_json(manifest.with_name("skip_summary.json"), {"phase": phase, "skipped": skipped})


def add_option(parser: argparse.ArgumentParser, name: str, **keywords: object) -> None:
    """Add `--two-words`, also taken as `--two_words`."""
    names = [name] + ([f"--{name[2:].replace('-', '_')}"] if "-" in name[2:] else [])
    parser.add_argument(*names, **keywords)  # type: ignore[arg-type]


def add_design_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose data: dose, specimen, simulation, N, replicate."""
    default = StudyDesign()
    parser.add_argument(
        "--dose",
        type=float,
        action="append",
        metavar="PHOTONS",
        help="photons per exposure, may be repeated (default:"
        f" {', '.join(f'{d:g}' for d in default.doses)})",
    )
    parser.add_argument(
        "--specimen", default=default.specimen, help="embedded specimen (default: %(default)s)"
    )
    parser.add_argument(
        "--simulation",
        default=default.simulation,
        choices=("fine", "matched"),
        help="grid of the simulation (default: %(default)s)",
    )
    parser.add_argument(
        "--N", type=int, default=default.N, help="detector side in pixels (default: %(default)s)"
    )
    add_option(
        parser,
        "--scan-step",
        type=int,
        default=1,
        help="keep every n-th row and sample (default: 1, all)",
    )
    parser.add_argument(
        "--replicate", type=int, default=0, help="moves noise, view and initial weights together"
    )


def design_from(options: argparse.Namespace) -> StudyDesign:
    """The design that the options of :func:`add_design_options` describe."""
    doses = tuple(options.dose) if options.dose else StudyDesign().doses
    return StudyDesign(
        doses=doses,
        specimen=options.specimen,
        simulation=options.simulation,
        N=options.N,
        scan_step=options.scan_step,
        replicate=options.replicate,
    )
