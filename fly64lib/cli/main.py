"""`fly64`: the project's one command. Each subcommand is a short call of the module that does the
work.

fly64 notebook train OUT.ipynb -p dose 1000 -p view dense
fly64 run --profile quick --output DIR        then: fly64 status | resume | cancel DIR
fly64 doctor                                  fly64 init DIR            fly64 check SCAN.npz
fly64 import SRC DST.npz                      fly64 export SRC.npz DST  fly64 probe SRC.npz DST.npz
fly64 generate | overlap | train | reconstruct | compare ...   a phase on its own, see its --help
"""

import argparse
import importlib
import os
import shutil
import sys
from pathlib import Path

from ptycho_torch.commands import add_option, run_command
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import check_range

PHASES = {
    "generate": "generation",
    "overlap": "overlap",
    "train": "training",
    "reconstruct": "reconstruction",
    "compare": "comparison",
    "probe": "methods.probe_recovery",
    "check": "check.command",
    "import": "formats.importing",
    "export": "formats.exporting",
}


def notebook(options: argparse.Namespace) -> int:
    # jsonschema, where it finds this package, compiles a grammar of IRIs while it is imported: more
    # than half of the time that this command takes to start. No field of a notebook is checked as
    # an IRI.
    sys.modules.setdefault("rfc3987_syntax", None)
    from fly64lib.notebook.runner import run_notebook
    from fly64lib.sweep.profile import parse_value

    given = {name: parse_value(text) for name, text in options.parameter}
    result = run_notebook(
        options.notebook,
        options.output,
        given,
        timeout_s=options.timeout_s,
        cell_timeout_s=options.cell_timeout_s,
    )
    print(f"{options.output}  results: {result}")
    return 0


def run(options: argparse.Namespace) -> int:
    from fly64lib.sweep import control
    from fly64lib.sweep.profile import load_profile

    study = control.prepare(
        options.output,
        options.profile,
        load_profile(options.profile, options.set),
        cores=options.cores,
        executor=options.executor,
        options=tuple(options.options),
        notebooks=options.notebooks,
        update=options.update,
    )
    return _driven(study)


def resume(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from fly64lib.sweep import control

    study = control.Study.of(options.folder)
    check_range("cores", options.cores, 1)
    return _driven(
        replace(
            study, cores=options.cores or study.cores, executor=options.executor or study.executor
        )
    )


def _driven(study: object) -> int:
    from fly64lib.sweep import control

    code = control.run(study)
    if code:
        failed = [
            f"{name}: {control.why(study.folder / 'logs' / f'{name}.log')}"
            for name in control.status(study)["failed"]
        ]
        for line in failed or control.ending(study.log):
            print(f"  {line}", file=sys.stderr)
        print(
            f"error: not finished (see {study.log}); go on with: fly64 resume {study.folder}",
            file=sys.stderr,
        )
        return 1
    print(f"report: {study.folder / 'index.html'}")
    return 0


def status(options: argparse.Namespace) -> int:
    from fly64lib.sweep import control

    study = control.Study.of(options.folder)
    states, pid, alive = control.status(study), control.driver(study), control.alive(study)
    left = (
        f", but {alive} processes or jobs of an earlier run go on until fly64 resume or cancel"
        if alive
        else ""
    )
    print(
        f"{study.folder}: profile {study.profile}, {study.executor}, {study.name}; "
        + (f"run by process {pid}" if pid else f"nobody runs it{left}")
    )
    total = sum(map(len, states.values()))
    print(
        f"{len(states['done'])} of {total} notebooks done, "
        + ", ".join(f"{len(names)} {state}" for state, names in states.items() if state != "done")
    )
    for name in states["running"]:
        print(f"  running  {name}")
    for name in states["failed"]:
        print(f"  failed   {name}: {control.why(study.folder / 'logs' / f'{name}.log')}")
    if states["failed"] or states["remaining"] and not pid:
        print(f"go on: fly64 resume {options.folder}")
    return 0


def cancel(options: argparse.Namespace) -> int:
    from fly64lib.sweep import control

    print(*control.stop(control.Study.of(options.folder)) or ["nothing was running"], sep="\n")
    return 0


def doctor(options: argparse.Namespace) -> int:
    from fly64lib.cli.doctor import examine

    findings = examine(options.folder)
    for finding in findings:
        print(
            f"{'ok  ' if finding.works else 'no  '} {finding.what}: {finding.found}"
            + ("" if finding.works else f"\n       to do: {finding.advice}")
        )
    return 1 if any(finding.required and not finding.works for finding in findings) else 0


def init(options: argparse.Namespace) -> int:
    from fly64lib.notebook.paths import notebooks_folder

    target = Path(options.folder)
    files = sorted(notebooks_folder().glob("*.ipynb"))
    there = [file.name for file in files if (target / file.name).exists()]
    if there:
        raise ConfigError(
            f"{target} already has {', '.join(there)}; choose another folder, so that nothing of"
            " yours is lost"
        )
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copyfile(file, target / file.name)
        print(target / file.name)
    print(
        f"edit them, in JupyterLab say; then: fly64 notebook {target / 'train.ipynb'} OUT.ipynb, or"
        f" the whole study with fly64 run --profile quick --output STUDY --notebooks {target}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fly64",
        description=__doc__.split("\n")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(function: object, text: str, **named: object) -> argparse.ArgumentParser:
        added = commands.add_parser(function.__name__, help=text, description=text, **named)
        added.set_defaults(function=function)
        return added

    one = command(
        notebook, "execute a notebook, by name or file; OUT.failed.ipynb is what a failure leaves"
    )
    one.add_argument(
        "notebook", help="generate, overlap, train, reconstruct, compare, report, ... or FILE.ipynb"
    )
    one.add_argument("output", type=Path, help="OUT.ipynb")
    one.add_argument(
        "-p", "--parameter", nargs=2, action="append", default=[], metavar=("NAME", "VALUE")
    )
    add_option(one, "--timeout-s", type=float, help="limit of the whole notebook, seconds")
    add_option(one, "--cell-timeout-s", type=float, help="limit of each cell, seconds")
    sweep = command(
        run,
        "run the whole study into a folder; with the same settings again, what is left of it. "
        "Options after -- go to Snakemake",
    )
    sweep.add_argument("--profile", required=True, help="smoke, quick or full")
    sweep.add_argument("--output", required=True, metavar="DIR")
    sweep.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="a setting of the profile; may be repeated",
    )
    sweep.add_argument(
        "--update", action="store_true", help="take changed settings, and rerun what they reach"
    )
    sweep.add_argument(
        "--notebooks",
        metavar="DIR",
        help="run edited copies (fly64 init DIR) instead of the project's notebooks",
    )
    again = command(resume, "go on after a crash or a cancel, with the settings of the folder")
    for added, cores, executor in (
        (sweep, len(os.sched_getaffinity(0)), "local"),
        (again, None, None),
    ):
        added.add_argument(
            "--cores",
            type=int,
            default=cores,
            help="jobs at a time are cores / the profile's threads",
        )
        added.add_argument("--executor", choices=("local", "slurm", "pbs"), default=executor)
    for added in (
        again,
        command(status, "what is done, running, failed and left"),
        command(cancel, "stop the study's processes and cluster jobs"),
        command(init, "lay down editable copies of the notebooks"),
    ):
        added.add_argument("folder", metavar="DIR")
    here = command(doctor, "what works here, and what to do about the rest")
    here.add_argument("folder", nargs="?", default=".", metavar="DIR")
    for name in PHASES:
        commands.add_parser(name, help=f"on its own: fly64 {name} --help", add_help=False)
    return parser


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["reconstruct"] and any(
        text.startswith(("--bundle", "--data")) for text in argv
    ):
        return importlib.import_module("fly64lib.notebook.infer").main(argv[1:])
    if argv and argv[0] in PHASES:
        return importlib.import_module(f"fly64lib.{PHASES[argv[0]]}").main(argv[1:])
    end = argv.index("--") if "--" in argv else len(argv)
    options = _parser().parse_args(argv[:end])
    options.options = argv[end + 1 :]
    return run_command(lambda: options.function(options))


if __name__ == "__main__":
    raise SystemExit(main())
