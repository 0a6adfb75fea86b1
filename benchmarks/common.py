"""What the benchmarks share: command lines, kept rows, tables, small studies, trainings, and
measurements in processes of their own."""

import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import torch

from fly64lib.design.study import StudyDesign, gridsize_of, held_out_file, split_file, view_file
from fly64lib.evaluation.judgement import Region, region_of
from fly64lib.generation import generate_datasets
from fly64lib.overlap import generate_overlap_views
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from ptycho_torch.commands import run_options
from ptycho_torch.config import TrainingConfig
from ptycho_torch.files import read_json, write_json
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.versions import software_versions

T = TypeVar("T")
Options = TypeVar("Options")
PLAIN = TrainingConfig(checkpointing=False, logger="none")  # nothing but training takes time


def main(options: type[Options], command: Callable[[Options], int]) -> NoReturn:
    """Run a benchmark on its command line, on one thread unless it says otherwise."""
    torch.set_num_threads(1)
    raise SystemExit(run_options(options, command, None, Path(sys.argv[0]).name))


class Rows:
    """Results kept in a JSON file with the versions, so that a rerun does what is missing."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path, self.settings = path, settings
        self.rows: list[dict] = read_json(path)["rows"] if path.is_file() else []

    def __contains__(self, cell: Mapping[str, Any]) -> bool:
        return any(row.items() >= cell.items() for row in self.rows)

    def add(self, row: dict) -> None:
        self.rows.append(row)
        content = {**self.settings, "rows": self.rows, "versions": software_versions()}
        write_json(self.path, content)


def table(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as text, a column under each name; numbers with four digits."""

    def cell(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)

    lines = [list(columns), *([cell(row.get(name)) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True))
        for line in lines
    )


def decibels(row: Mapping[str, float]) -> dict[str, float]:
    """Of a judged row what most tables show."""
    return {key: row[key] for key in ("phase_psnr", "amplitude_psnr")}


class SmallStudy:
    """Phases C and D of a design without control views, made under `root` where absent."""

    def __init__(
        self, root: Path, design: StudyDesign, imperfections: Imperfections = PERFECT
    ) -> None:
        self.c, self.d = root / "C", root / "D"
        generate_datasets(self.c, design, imperfections=imperfections)
        generate_overlap_views(self.c, self.d, root / "overlap", design)

    def file(self, dose: float, view: str, split: str) -> Path:
        return view_file(self.c, self.d, dose, view, split)

    def region(self, dose: float) -> Region:
        """Where all views of a dose are scored: the baseline's scanned region."""
        return region_of(open_scan(split_file(self.c, dose, "test")))

    def held_out(self, dose: float) -> RawDataTorch:
        """Patterns that no method gets."""
        return open_scan(held_out_file(self.c, dose))


def trained(
    folder: Path, data: Path, dose: float, view: str, *, again: bool = False, **settings: Any
) -> tuple[Path, float]:
    """The bundle of a training on a file, and its CPU seconds; done where `folder` has none.

    `settings` are those of `TrainingConfig` and `ModelConfig` by name.
    """
    # Lightning takes seconds to import, and what only reads should not wait for it.
    from fly64lib.training import TrainingJob, run_training_job

    cost = folder / "cost.json"
    if again:
        shutil.rmtree(folder, ignore_errors=True)
    if not cost.is_file():
        job = TrainingJob(dose, view, gridsize_of(view), data, data, folder)
        done = run_training_job(job, config=PLAIN.with_settings(settings))
        write_json(cost, done["cpu_seconds"])
    return folder / "bundle.pt", read_json(cost)


def fresh(function: Callable[..., T], *arguments: Any) -> T:
    """What a function returns in a new process, which has held nothing before."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def rss_anon_mb() -> float:
    """Anonymous resident memory of this process (Linux), MB; what only mirrors a file is not in
    it: the system takes that back when it needs to."""
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


@contextmanager
def peak_rss_anon() -> Iterator[list[float]]:
    """The largest `rss_anon_mb` of a block, read every 2 ms; one number, in a list."""
    peak, done = [rss_anon_mb()], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], rss_anon_mb())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        done.set()
        watcher.join()
