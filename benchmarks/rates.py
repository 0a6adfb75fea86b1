"""What a job of a study takes, from finished studies: the rates of `fly64 run --estimate`.

    python benchmarks/rates.py STUDY ... [--output fly64lib/sweep/rates.csv] [--check STUDY ...]

CPU seconds and memory are those that the executed notebooks and `result.json` say, disk and files
are counted in the folders. What a method took from one before it on the same scan is not counted:
a study that leaves that one out takes more than the rates say. Each quantity is a sum of amounts
that the design gives (`fly64lib/sweep/work.py`) times rates that are not negative, of least squared
relative error. Where the studies have fewer different jobs than a sum has terms, the first terms
alone are fitted.
`--check` compares studies that the rates do not come from, notebook by notebook, finished or not.
The studies should have run on a machine that did nothing else."""

import base64
import csv
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import main, table
from scipy.optimize import nnls
from tyro.conf import Positional

from fly64lib.methods.by_name import own_notebook
from fly64lib.report.provenance import machine
from fly64lib.sweep.estimate import COLUMNS, START, Rate, Rates
from fly64lib.sweep.folder import SweepFolder
from fly64lib.sweep.work import Amounts, Job, Part, jobs_of
from ptycho_torch.fields import config
from ptycho_torch.files import atomic_path, read_json

_TERMS = {  # of a kind, or of the first word of it; the first ones matter most
    "generate": {
        "cpu_s": ("fine_mpx", "array_mb", "job"),
        "mb": ("array_mb", "whole_mpx", "job"),
        "files": ("doses", "job"),
        "peak_mb": ("job", "scan_mb"),
    },
    "overlap": {
        "cpu_s": ("job", "views", "array_mb"),
        "mb": ("array_mb", "whole_mpx", "job"),
        "files": ("views", "job"),
        "peak_mb": ("job", "scan_mb"),
    },
    "train": {
        "cpu_s": ("step_mpx", "thinned_patch_mpx", "thinned_mpx", "shown_patch_mpx", "job"),
        "mb": ("job", "thinned_mpx"),
        "files": ("job",),
        "peak_mb": ("job", "thinned_patch_mpx"),
    },
    "reconstruct": {
        "cpu_s": ("runs", "job", "canvas_mpx"),
        "mb": ("whole_mpx", "job"),
        "files": ("runs", "job"),
        "peak_mb": ("job", "patch_mpx"),
    },
    "method": {"cpu_s": ("patch_mpx", "canvas_mpx", "job")},
    "compare": {
        "cpu_s": ("runs", "canvas_mpx", "job"),
        "mb": ("runs", "job"),
        "files": ("job",),
        "peak_mb": ("job",),
    },
    "report": {
        "cpu_s": ("rows", "job"),
        "mb": ("conditions", "job"),
        "files": ("job",),
        "peak_mb": ("job", "rows"),
    },
    "start": {"cpu_s": ("job",)},
}
_PARTS = {"phase_c": "generate", "phase_d": "overlap", "overlap": "overlap"}  # of a replicate
_PER_CONDITION = {"phase_e": "train", "phase_f": "reconstruct", "phase_g": "compare"}


@config
class RatesOptions:
    """What a job of a study takes, from finished studies."""

    studies: Positional[tuple[Path, ...]] = ()  # folders; of an unfinished one, what is there
    output: Path = Path("fly64lib/sweep/rates.csv")
    check: tuple[Path, ...] = ()  # studies to compare with the rates


class Measured(NamedTuple):
    """One job's quantity."""

    kind: str
    quantity: str
    amounts: Amounts
    value: float


def measured(folder: Path) -> Iterator[Measured]:
    """What the executed notebooks of a study took; of one that is not finished, those there are."""
    study = SweepFolder.of(folder)
    known = {(job.view, job.name): job for job in jobs_of(study.settings)}
    sizes, kernels_s = sizes_of(folder), []
    workers_s, forking = 0.0, study.executor == "local" and sys.platform == "linux"
    for name in study.settings.notebooks():
        path = folder / name
        if not path.is_file():
            continue
        job, view = job_of(name, known)
        first, spent = job.parts[0], read_json(path)["metadata"]["fly64"]
        kernels_s.append(spent["cpu_seconds"])
        own_s, peaks_mb = spent["cpu_seconds"], [spent.get("peak_memory_mb")]
        for part, result in results(folder, name, job):
            spent_here_s = result["cpu_seconds"] - result["spared_cpu_seconds"]
            if forking and own_notebook(part.kind.removeprefix("method ")):
                workers_s += spent_here_s  # a forked worker's, which is no child of the kernel
            else:
                own_s -= spent_here_s
            peaks_mb.append(result["peak_memory_mb"])
            yield Measured(part.kind, "cpu_s", part.amounts, spent_here_s)
        yield Measured(first.kind, "cpu_s", first.amounts, own_s)
        if known_mb := [peak for peak in peaks_mb if peak]:
            yield Measured(first.kind, "peak_mb", first.amounts, max(known_mb))
        bytes_there, files_there = sizes[name.removeprefix("notebooks/").removesuffix(".ipynb")]
        yield Measured(first.kind, "mb", first.amounts, bytes_there / 1e6)
        yield Measured(first.kind, "files", first.amounts, files_there)
    if (folder / "report.json").is_file():
        start_s = (spent_s(folder) - sum(kernels_s) - workers_s) / len(kernels_s)
        yield Measured(START, "cpu_s", {"job": 1.0}, start_s)


def spent_s(folder: Path) -> float:
    """CPU seconds of all finished runs of a study."""
    runs = (folder / "logs" / "runs.jsonl").read_text().splitlines()
    return sum(json.loads(run)["cpu_s"] for run in runs)


def job_of(notebook: str, known: dict[tuple[str, str], Job]) -> tuple[Job, str]:
    """The job of an executed notebook, and its view."""
    *place, file = Path(notebook).with_suffix("").parts
    view = place[-1] if len(place) == 4 else ""
    return known[view, file], view


def results(folder: Path, notebook: str, job: Job) -> Iterator[tuple[Part, dict]]:
    """A reconstruction's methods beside what `result.json` says of each."""
    _, replicate, *place = Path(notebook).parts
    if job.phase == "reconstruct" and job.view != "controls":
        for part in job.parts[1:]:
            method = part.kind.removeprefix("method ")
            found = folder / replicate / "phase_f" / place[0] / place[1] / method / "result.json"
            yield part, read_json(found)


def sizes_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Bytes and number of the files that each notebook's job left, by the notebook's name: its
    page, log and Snakemake's records included."""
    found: dict[str, list[int]] = defaultdict(list)
    alone = {path.stem for path in folder.glob("notebooks/*/*/*/reconstruct_*.ipynb")}
    for path in (one for one in folder.rglob("*") if one.is_file()):
        owned = owner(path.relative_to(folder).parts, alone)
        found[owned].append(path.stat().st_blocks * 512)  # POSIX: what it takes of the disk
    return {name: (sum(sizes), len(sizes)) for name, sizes in found.items()}


def owner(parts: tuple[str, ...], alone: set[str]) -> str:
    """The name of the notebook whose job wrote a file of a study; the report has what is left."""
    top, *rest = parts
    if parts[:2] == (".snakemake", "metadata"):  # of an output, whose path is the name, in base64
        name = "".join(part.removeprefix("@") for part in parts[2:])
        return owner(Path(base64.b64decode(name).decode()).parts, alone)
    if top in ("notebooks", "logs") and len(parts) > 2:
        return Path(*rest).with_suffix("").as_posix()
    if not top.startswith("replicate_"):
        return "report"
    if rest[0] in _PARTS:
        return f"{top}/{_PARTS[rest[0]]}"
    phase, dose, view, *file = rest
    kind = _PER_CONDITION[phase]
    if kind == "train":
        kind = f"train_{file[0]}"
    elif kind == "reconstruct" and f"reconstruct_{file[0].removesuffix('.png')}" in alone:
        kind = f"reconstruct_{file[0].removesuffix('.png')}"
    return f"{top}/{dose}/{view}/{kind}"


def fitted(rows: list[Measured]) -> dict[tuple[str, str], Rate]:
    """Rates of every kind and quantity among the rows."""
    groups: dict[tuple[str, str], list[Measured]] = defaultdict(list)
    for row in rows:
        groups[row.kind, row.quantity].append(row)
    found = {}
    for (kind, quantity), own in groups.items():
        terms = _TERMS[kind.replace(",", " ").split()[0]][quantity]
        amounts = np.array([[row.amounts[term] for term in terms] for row in own])
        values = np.array([row.value for row in own])
        used = min(len(terms), len(np.unique(amounts.round(9), axis=0)))
        weighted = amounts[:, :used] / values[:, None]
        scale = weighted.max(axis=0)
        rates = nnls(weighted / scale, np.ones(len(own)))[0] / scale
        off = values / (amounts[:, :used] @ rates) - 1
        most = amounts[:, :used].max(axis=0)
        by_term = [dict(zip(terms, map(float, column), strict=False)) for column in (rates, most)]
        found[kind, quantity] = Rate(*by_term, len(own), float(np.sqrt((off**2).mean())))
    return found


def compared(folder: Path, rates: Rates) -> list[dict]:
    """Of each kind of a study's work, in CPU seconds, what the rates say and what was measured."""
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0.0, 0.0])
    for row in measured(folder):
        rate = rates.table.get((row.kind, row.quantity))
        if row.quantity == "cpu_s" and rate:
            one = sums[row.kind]
            one[0], one[1], one[2] = one[0] + 1, one[1] + rate.of(row.amounts), one[2] + row.value
    sums["all"] = [sum(column) for column in zip(*sums.values(), strict=True)]
    heads = ("jobs", "predicted", "measured")
    rows = [{"kind": kind, **dict(zip(heads, one, strict=True))} for kind, one in sums.items()]
    return [row | {"ratio": row["predicted"] / row["measured"]} for row in rows]


def source_of(folder: Path) -> str:
    """One line on a study: its profile, design, jobs and date."""
    study = SweepFolder.of(folder)
    names = study.settings.notebooks()
    there = [path for path in (folder / name for name in names) if path.is_file()]
    day = datetime.fromtimestamp(max(path.stat().st_mtime for path in there)).strftime("%Y-%m-%d")
    design = ", ".join(f"{name} {value}" for name, value in sorted(study.settings.design.items()))
    jobs = f"{len(there)} of {len(names)} jobs on {study.cores} core" + "s" * (study.cores > 1)
    return f"profile {study.profile} ({design}): {jobs}, {day}"


def write(path: Path, source: list[str], found: dict[tuple[str, str], Rate]) -> None:
    """Write the table."""
    with atomic_path(path) as temporary, temporary.open("w", newline="") as file:
        file.writelines(f"# {line}\n" for line in source)
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for (kind, quantity), rate in sorted(found.items()):
            for term, value in rate.rates.items():
                numbers = (
                    f"{value:.4g}",
                    rate.jobs,
                    f"{rate.spread:.3f}",
                    f"{rate.most[term]:.4g}",
                )
                writer.writerow((kind, quantity, term, *numbers))


def rates(options: RatesOptions) -> int:
    """Fit the rates, write them, and compare."""
    if options.studies:
        found = fitted([row for folder in options.studies for row in measured(folder)])
        source = [f"rates: measured on {machine()}"]
        write(options.output, [*source, *map(source_of, options.studies)], found)
        print(f"{len(found)} rates: {options.output}")
    known = Rates.read(options.output)
    for folder in options.check:
        print(f"\n{folder.resolve().name}, CPU s")
        print(table(compared(folder, known), ["kind", "jobs", "predicted", "measured", "ratio"]))
    return 0


if __name__ == "__main__":
    main(RatesOptions, rates)
