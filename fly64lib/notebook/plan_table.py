"""Measured rows that plans are made from: `python -m fly64lib.notebook.plan_table STUDY OUT.csv`.

A CSV file, a row a condition, method and replicate of a study's comparison:

    study, specimen, simulation, method, view, replicate, dose    where it was measured
    photons_per_pixel    of the detector's grid, mean over the scored region
    contrast_rad         rms phase of the specimen about its mean there: the flat object's error
    frc_half             resolution, FRC with the truth at 0.5, as a share of Nyquist

Methods, and the Cramer-Rao limit of the very specimen. `plan_rows.csv` comes with the package."""

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from pandas import DataFrame, concat, notna, read_csv

from fly64lib.report.rows import collect
from ptycho_torch.commands import command_line
from ptycho_torch.errors import DataContractError
from ptycho_torch.fields import SEVERAL, config
from ptycho_torch.files import atomic_path

_WHERE = ("study", "specimen", "simulation", "method", "view", "replicate", "dose")
COLUMNS = (*_WHERE, "photons_per_pixel", "contrast_rad", "frc_half")
_CURVE = ("study", "specimen", "simulation", "view", "replicate")  # over dose
_LEFT_OUT = ("flat", "truth", "bayesian")


class Curve(NamedTuple):
    """Resolution over photons of one specimen, view and replicate by one method."""

    information: np.ndarray  # photons per pixel times contrast squared, ascending
    resolved: np.ndarray  # share of Nyquist

    def needs(self, wanted: float) -> float:
        """The least information from which on so much is resolved; infinite where none does.

        Between doses the logarithm is followed; below the least dose measured nothing is known."""
        best = np.maximum.accumulate(self.resolved)
        reached = np.flatnonzero(best >= wanted)
        if not reached.size:
            return float("inf")
        if (at := reached[0]) == 0:
            return float(self.information[0])
        low, high = np.log(self.information[at - 1 : at + 1])
        part = (wanted - best[at - 1]) / (best[at] - best[at - 1])
        return float(np.exp(low + part * (high - low)))

    def at(self, information: float) -> float | None:
        """What is resolved; None outside the doses measured."""
        if not self.information[0] <= information <= self.information[-1]:
            return None
        logs = np.log(self.information)
        return float(np.interp(np.log(information), logs, self.resolved))


def curves(table: DataFrame) -> dict[str, list[Curve]]:
    """The curves of each method."""
    found: dict[str, list[Curve]] = {}
    for (method, *_), rows in table.groupby(["method", *_CURVE], sort=False):
        x = (rows.photons_per_pixel * rows.contrast_rad**2).to_numpy(float)
        order = np.argsort(x)
        found.setdefault(method, []).append(Curve(x[order], rows.frc_half.to_numpy()[order]))
    return found


def table_of(study: str | Path) -> DataFrame:
    """The rows of a study's folder, or of the `rows.csv` of its report. DataContractError where it
    has no comparison."""
    path = Path(study).resolve()
    if path.is_file():
        needed = {*COLUMNS, "gauge", "phase_mse"} - {"study", "contrast_rad"}
        how = "expected a study's folder, or the rows.csv of its report"
        rows, name = _columns(path, needed, how).to_dict("records"), path.parent.name
    else:
        rows, name = collect(study).rows, path.name
    return DataFrame([{"study": name} | row for row in _rows(rows)], columns=list(COLUMNS))


def _rows(rows: list[dict]) -> Iterator[dict]:
    where = ("replicate", "specimen", "simulation", "gauge", "dose", "view")
    contrast = {
        tuple(row[name] for name in where): row["phase_mse"] ** 0.5
        for row in rows
        if row["method"] == "flat"
    }
    for row in rows:
        if row["method"] not in _LEFT_OUT and notna(row.get("frc_half")):
            of = {name: row[name] for name in COLUMNS if name in row}
            yield of | {"contrast_rad": contrast[tuple(row[name] for name in where)]}


def shipped_table() -> DataFrame:
    """The rows that come with the package."""
    return read_table(Path(str(files("fly64lib.notebook"))) / "plan_rows.csv")


def read_table(path: Path) -> DataFrame:
    """A table of measured rows; DataContractError for one without its columns."""
    how = "python -m fly64lib.notebook.plan_table STUDY OUT.csv writes one"
    return _columns(path, set(COLUMNS), how)


def _columns(path: Path, needed: set[str], how: str) -> DataFrame:
    """A CSV file that has these columns, or the error that says what to do."""
    try:
        table = read_csv(path)
    except ValueError as error:  # no table, no text
        raise DataContractError(f"{path}: no CSV table ({error}); {how}") from error
    if missing := sorted(needed - set(table.columns)):
        raise DataContractError(f"{path}: it has no {', '.join(missing)}; {how}")
    return table


@config
class TableOptions:
    """The measured rows of a study, for fly64 plan."""

    study: tyro.conf.Positional[Path]  # folder with phase_g's comparisons, or its report's rows.csv
    target: tyro.conf.Positional[Path]  # CSV
    methods: Annotated[tuple[str, ...], SEVERAL] = ()  # these only, if any is named
    views: Annotated[tuple[str, ...], SEVERAL] = ()  # likewise
    add: bool = False  # to the rows that TARGET has


@command_line("python -m fly64lib.notebook.plan_table")
def main(options: TableOptions) -> int:
    """Write the table."""
    table = table_of(options.study)
    for names, column in ((options.methods, "method"), (options.views, "view")):
        table = table[table[column].isin(names)] if names else table
    if options.add:
        both = concat([read_table(options.target), table])
        table = both.drop_duplicates(list(_WHERE), keep="last")
    with atomic_path(options.target) as temporary:
        table.to_csv(temporary, index=False, float_format="%.5g")
    print(f"{len(table)} rows: {options.target}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
