"""`fly64`: the project's one command. A command's module is imported when it is asked for."""

import sys
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import get_type_hints

from fly64lib.notebook.paths import without_iris
from ptycho_torch.commands import run_options, stoppable
from ptycho_torch.fields import nearest

COMMANDS = {  # the function that a command calls, and what the command does
    "notebook": ("cli.notebooks:run", "execute a notebook, by name or file"),
    "init": ("cli.notebooks:init", "lay down editable copies of the notebooks"),
    "run": ("cli.study:run", "the whole study, into a folder; or what is left of it"),
    "resume": ("cli.study:resume", "go on after a crash or a cancel"),
    "status": ("cli.study:status", "what is done, running, failed and left"),
    "cancel": ("cli.study:cancel", "stop the study's processes and cluster jobs"),
    "doctor": ("cli.doctor:doctor", "what works on this machine, and what to do about the rest"),
    "check": ("check.command:check", "is this scan fit for a reconstruction?"),
    "import": ("formats.importing:imported", "a scan of another format, as DATA-001"),
    "export": ("formats.exporting:exported", "a DATA-001 scan, in another format"),
    "probe": ("cli.probe:recover", "a probe recovered from a scan's own counts"),
    "generate": ("generation:main", "phase C: diffraction patterns at each dose"),
    "overlap": ("overlap:main", "phase D: views of them with less overlap"),
    "train": ("training:main", "phase E: the networks"),
    "reconstruct": ("notebook.own_scan:command", "one's own scan to its object; study: phase F"),
    "cut": ("notebook.cut_scan:command", "what one's own scan loses with fewer photons, positions"),
    "plan": ("notebook.plan:command", "dose, step and exposures that a resolution needs"),
    "compare": ("comparison:main", "phase G: all methods beside the limits"),
}
NEXT = {  # what to do after a command that ended well
    "import": "fly64 check SCAN.npz; then fly64 reconstruct SCAN.npz, or fly64 probe SCAN.npz"
    " OUT.npz alone, for the file's probe is seldom the beam that made the patterns",
}
_EXAMPLES = """  fly64 notebook train OUT.ipynb -p dose 1000 -p view dense
  fly64 run --profile quick --output DIR        then: fly64 status | resume | cancel DIR"""


def main(argv: list[str] | None = None) -> int:
    """Run the command that the arguments name; its exit code."""
    # Importing a command's module takes seconds, in which Ctrl-C is to end it as quietly as later.
    return stoppable(partial(_run, sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> int:
    if not argv:
        print("error: fly64 needs a command; fly64 --help lists them", file=sys.stderr)
        return 2
    name, *rest = argv
    if name in ("-h", "--help"):
        print("usage: fly64 [-h] [--version] COMMAND ...\n")
        print(*(f"  {one:<12} {text}" for one, (_, text) in COMMANDS.items()), sep="\n")
        print(f"\noptions of a command: fly64 COMMAND --help. Such as\n\n{_EXAMPLES}")
        return 0
    if name == "--version":
        print(f"fly64 {version('fly64')}")
        return 0
    if name not in COMMANDS:
        guess = nearest(name, COMMANDS) or f"; there are {', '.join(COMMANDS)}"
        print(f"error: fly64 has no command {name!r}{guess}", file=sys.stderr)
        return 2
    place, _ = COMMANDS[name]
    without_iris()
    if name == "reconstruct" and any(text.startswith(("--bundle", "--data")) for text in rest):
        place = "notebook.infer:main"
    if name == "reconstruct" and any(text.startswith("--phase-c-root") for text in rest):
        place = "reconstruction:main"
    module, function = place.split(":")
    command = getattr(import_module(f"fly64lib.{module}"), function)
    if function == "main":
        return command(rest, prog=f"fly64 {name}")
    hints = get_type_hints(command)
    options, *_ = hints.values()
    # further ones are for Snakemake
    end = rest.index("--") if "--" in rest and "further" in hints else len(rest)
    if rest[end:]:
        command = partial(command, further=tuple(rest[end + 1 :]))
    code = run_options(options, command, rest[:end], f"fly64 {name}")
    if code == 0 and name in NEXT:
        print(f"next: {NEXT[name]}")
    return code


if __name__ == "__main__":
    raise SystemExit(main())
