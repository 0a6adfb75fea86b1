"""What command lines share: options, errors without a traceback, and the manifest of a phase."""

import ctypes
import io
import os
import re
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import fields, is_dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import tyro

from ptycho_torch.errors import ConfigError, PtychoError
from ptycho_torch.files import folder_lock, read_json, write_json

Options = TypeVar("Options")
Rows = list[dict]
# As options that may be repeated were spelt, for a parser that knows the list only.
_REPEATED = {"dose": "doses", "view": "views", "method": "methods"}
_PATIENCE_S = 30.0  # writing a manifest takes milliseconds
STOPPED = 128 + signal.SIGINT  # exit code
# glibc's <malloc.h>, which refuses larger thresholds
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_MOST, _LARGEST_ON_HEAP = 2**31 - 1, 2**25


def command_line(prog: str) -> Callable[[Callable[[Options], int]], Callable[..., int]]:
    """Makes `main(argv=None, prog=prog)` of a function of its options: it is run on what the shell
    gives for the configuration that its argument is annotated with."""

    def main_of(command: Callable[[Options], int]) -> Callable[..., int]:
        options, *_ = get_type_hints(command).values()

        def main(argv: Sequence[str] | None = None, prog: str = prog) -> int:
            return run_options(options, command, argv, prog)

        return wraps(command)(main)

    return main_of


def run_options(
    options: type[Options], command: Callable[[Options], int], argv: Sequence[str] | None, prog: str
) -> int:
    """Run a command on what the shell gives for its options: the fields of a configuration.

    Every field is an option, its comment the help (tyro); fields of configurations in it are
    options of the same rank. `--dose 1 --dose 2` may be said for `--doses 1 2`."""
    given = _listed(sys.argv[1:] if argv is None else list(argv), set(_names(options)))
    shown = (
        *(tyro.conf.OmitArgPrefixes, tyro.conf.PositionalMetavarFromFieldName),
        *(tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone),  # --flag only; no {None}|INT
    )
    parse = partial(tyro.cli, options, args=given, prog=prog, config=shown)
    return run_command(lambda: command(_parsed(parse)))


def _parsed(parse: Callable[[], Options]) -> Options:
    """The options; what is wrong with them as one sentence, where tyro draws a box on stderr."""
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return parse()
    except SystemExit as end:
        if not end.code:  # --help
            raise
        cause = end.__context__
        while cause is not None and not isinstance(cause, PtychoError):
            cause = cause.__context__
        text = re.sub(r"[\u2500-\u257f]{4,}|-{5,}", "\n;", box.getvalue())  # lines of the box
        words = re.sub(r"[\u2500-\u257f]", " ", text.partition("\n;")[2]).split()
        raise cause or ConfigError(" ".join(words).replace(" ;", ";").strip("; ")) from None


def _names(options: type) -> Iterator[str]:
    """Names of a configuration's fields, and of those of the configurations in it."""
    for field in fields(options):
        yield field.name
        if is_dataclass(kind := get_type_hints(options)[field.name]):
            yield from _names(kind)


def _listed(argv: list[str], known: set[str]) -> list[str]:
    """Repeated options as one that takes a list, where only that one is known."""
    repeated = ArgumentParser(add_help=False, allow_abbrev=False)
    for one, several in _REPEATED.items():
        if several in known and one not in known:
            repeated.add_argument(f"--{one}", nargs="*", action="extend", dest=f"--{several}")
    found, left = repeated.parse_known_args(argv)
    given = {name: values for name, values in vars(found).items() if values is not None}
    return left + [part for name, values in given.items() for part in (name, *values)]


@contextmanager
def interruptible(*signals: signal.Signals) -> Iterator[None]:
    """The first of these signals raises KeyboardInterrupt; while what that set off is put in order,
    further ones do nothing. One that is ignored (`nohup`) stays so.

    The handler is a function, for children inherit an ignored signal and could not be stopped."""

    def first(number: int, frame: object) -> None:
        for one in before:
            signal.signal(one, lambda *_: None)
        raise KeyboardInterrupt

    heeded = [one for one in signals if signal.getsignal(one) is not signal.SIG_IGN]
    before: dict = {}
    for one in heeded:
        before[one] = signal.signal(one, first)
    try:
        yield
    finally:
        for one in before:
            signal.signal(one, before[one])


def stoppable(command: Callable[[], int]) -> int:
    """The exit code of a command, which Ctrl-C, or SIGTERM, ends with a line and no traceback, and
    with what it was in the middle of put in order."""
    if threading.current_thread() is not threading.main_thread():
        return command()  # signals are the main thread's
    with interruptible(signal.SIGINT, signal.SIGTERM):
        try:
            return command()
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return STOPPED


def run_command(command: Callable[[], int]) -> int:
    """Run a command; an error that the user can act on is printed and gives exit code 2: the
    project's own, and what the file system refuses (a folder that is a file, no permission, no
    space). 141, and silence, when a reader such as `head` has seen enough."""
    keep_freed()
    try:
        code = stoppable(command)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # what is still in the buffer has nowhere to go
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except PtychoError as error:
        text = str(error)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise  # not the file system's
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        text = f"{' -> '.join(names) or 'a file'}: {error.strerror}; expected a place where files"
        text += " can be read and written: choose another one, or free it"
    print(f"error: {text}", file=sys.stderr)
    return 2


def keep_freed() -> None:
    """Let this process, and those forked from it, use again what it has freed, arrays of up to
    32 MiB.

    A fit makes and drops such arrays thousands of times a minute. glibc gives each back to the
    system and asks for it again, page by page: a seventh of the time of joint steps on five modes.
    Nothing is done where the C library is another one."""
    if sys.platform == "linux":
        with suppress(AttributeError):
            set_option = ctypes.CDLL(None).mallopt
            set_option(_MMAP_THRESHOLD, _LARGEST_ON_HEAP)
            set_option(_TRIM_THRESHOLD, _MOST)


def cpu_seconds(own: bool = True) -> float:
    """CPU time of this process, where `own`, and of the processes that it has waited for."""
    return sum(os.times()[0 if own else 2 : 4])  # user, system, and the children's two


def record_rows(
    manifest: Path, phase: str, rows: Rows, keys: tuple[str, ...], skipped: Rows, **content: object
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


def run_in_order(
    jobs: list[Any],
    row_of: Callable[[Any], dict],
    run: Callable[[Any], dict],
    manifest: Path | None,
    **about: Any,
) -> list[dict]:
    """The jobs' rows, `row_of` each and what `run` gives or why it failed; where there is a
    manifest, it gets them after each job, `about` as in :func:`record_rows`."""
    rows: list[dict] = []
    for number, job in enumerate(jobs, 1):
        print(f"[{number}/{len(jobs)}] {job.name}", file=sys.stderr)
        started = time.perf_counter()
        try:
            found = run(job)
        except Exception as error:  # one job's failure, whatever it is, must not cost the others
            found = {"status": "failed", "error": f"{type(error).__name__}: {error}"}
            print(f"error: {job.name}: {error}", file=sys.stderr)
        seconds = round(time.perf_counter() - started, 2)
        rows.append({**row_of(job), "seconds": seconds, **found})
        if manifest:
            record_rows(manifest, rows=rows, **about)
    return rows
