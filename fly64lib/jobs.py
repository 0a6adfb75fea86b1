"""What phases E and F share: a grid's conditions, and jobs run in order."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal

from fly64lib.design import Doses, StudyDesign, View, gridsize_of, view_file
from ptycho_torch.errors import DataContractError
from ptycho_torch.fields import config


@config
class GridOptions:
    """Which conditions a command works on, and where."""

    phase_c_root: Path  # phase C's folder
    phase_d_root: Path  # phase D's folder
    artifact_root: Path  # where the jobs' folders go
    doses: Doses = StudyDesign().doses  # only these; --dose may be repeated
    # only these; also any other that phase D made, such as 0.5; --view may be repeated
    views: tuple[View, ...] = ("baseline", *StudyDesign().views)
    gridsize: Literal[1, 2] | None = None  # only views of this gridsize
    allow_missing_phase_d: bool = False  # skip views whose files are absent
    dry_run: bool = False  # print the plan, run nothing

    @property
    def chosen_views(self) -> tuple[str, ...]:
        """The views that are of the gridsize asked for."""
        return tuple(one for one in self.views if self.gridsize in (None, gridsize_of(one)))


def conditions(
    phase_c_root: str | Path,
    phase_d_root: str | Path,
    grid: tuple[Iterable[float], Iterable[str], Iterable[str]],
    allow_missing_phase_d: bool,
    skipped: list[dict] | None,
) -> Iterator[tuple[float, str, list[Path]]]:
    """Each dose and view of a grid of (doses, views, splits), with its file of each split.

    Raises DataContractError where a file is missing; with `allow_missing_phase_d` a missing view is
    left out and its reason appended to `skipped`.
    """
    doses, views, splits = grid
    for dose, view in product(doses, views):
        files = [view_file(phase_c_root, phase_d_root, dose, view, split) for split in splits]
        missing = next((path for path in files if not path.is_file()), None)
        if missing is None:
            yield dose, view, files
        elif view == "baseline" or not allow_missing_phase_d:
            phase = "generation" if view == "baseline" else "overlap"
            advice = "" if view == "baseline" else ", or pass --allow-missing-phase-d"
            how = f"run python -m fly64lib.{phase} first{advice}"
            raise DataContractError(f"{missing}: no such file; {how}")
        elif skipped is not None:
            skipped.append({"dose": dose, "view": view, "reason": f"no file {missing}"})


def run_in_order(
    jobs: list[Any],
    row_of: Callable[[Any], dict],
    run: Callable[[Any], dict],
    record: Callable[[list[dict]], None] | None,
) -> list[dict]:
    """The jobs' rows, `row_of` each and what `run` gives or why it failed; `record` gets them after
    each job."""
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
        if record:
            record(rows)
    return rows
