"""What a study will take before it is run, from rates that finished studies gave.

`rates.csv` comes with the package; `python benchmarks/rates.py STUDY ...` makes it. Lines that
begin with # say where the rates were measured. A row is one rate:

    kind, quantity    what a job does, and CPU seconds, MB on the disk, files or peak MB of memory
    term, rate        that much of the quantity for each `term` (:mod:`fly64lib.sweep.work`)
    jobs, spread      how many jobs it was fitted to, and their rms relative deviation from the fit
    most              the largest job's amount of the term among them

What no finished study had is not counted and named."""

import csv
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from fly64lib.sweep.profile import Profile
from fly64lib.sweep.work import PHASES, Amounts, Job, Part, jobs_of
from ptycho_torch.config import TrainingConfig
from ptycho_torch.errors import DataContractError

COLUMNS = ("kind", "quantity", "term", "rate", "jobs", "spread", "most")
# Settings whose cost the amounts do not follow: the rates are those of the studies measured.
_NOT_FOLLOWED = ("network", "width", "depth", "devices", "num_workers")
_FOLLOWED = ("epochs", "device", "seed", "threads", "progress")  # of a method
START = "start of a job"  # kind: what papermill and Snakemake take beside a job's kernel
_SHARE = 0.01  # of a quantity; a term that is less of it does not count as one
_BEYOND = 1.5  # a job so many times the largest measured is marked


class Rate(NamedTuple):
    """A quantity of a kind of work, as a sum over terms."""

    rates: Amounts
    most: Amounts
    jobs: int
    spread: float  # rms of measured / fitted - 1

    def of(self, amounts: Amounts) -> float:
        return sum(rate * amounts[term] for term, rate in self.rates.items())

    def beyond(self, amounts: Amounts) -> float:
        """How many times the largest measured amount is asked, at most, of terms that matter."""
        least = _SHARE * self.of(amounts)
        matter = [term for term, rate in self.rates.items() if rate * amounts[term] > least]
        return max((amounts[term] / self.most[term] for term in matter), default=0.0)


class Rates(NamedTuple):
    """Rates by (kind, quantity), and where they were measured."""

    source: list[str]
    table: dict[tuple[str, str], Rate]

    @classmethod
    def read(cls, path: Path | None = None) -> "Rates":
        """Of a file, or those that come with the package. DataContractError for anything else."""
        path = path or Path(str(files("fly64lib.sweep"))) / "rates.csv"
        lines = path.read_text(encoding="utf-8").splitlines()
        source = [line.lstrip("# ") for line in lines if line.startswith("#")]
        reader = csv.DictReader(line for line in lines if not line.startswith("#"))
        if tuple(reader.fieldnames or ()) != COLUMNS:
            text = f"{path}: its columns are {reader.fieldnames}, expected {list(COLUMNS)}"
            raise DataContractError(f"{text}; python benchmarks/rates.py STUDY writes them")
        rows: dict[tuple[str, str], list[dict]] = defaultdict(list)
        for row in reader:
            rows[row["kind"], row["quantity"]].append(row)
        found = {}
        for key, own in rows.items():
            rates, most = ({r["term"]: float(r[name]) for r in own} for name in ("rate", "most"))
            found[key] = Rate(rates, most, int(own[0]["jobs"]), float(own[0]["spread"]))
        return cls(source, found)


@dataclass
class Row:
    """What all jobs of a kind take."""

    kind: str
    jobs: int = 0
    cpu_s: float = 0.0
    error_s: float = 0.0  # by the fits' spread, as if all jobs erred alike
    peak_mb: float = 0.0  # of the largest job; 0: not measured
    disk_mb: float = 0.0
    files: float = 0.0
    beyond: float = 0.0  # the largest job over the largest measured
    guessed: bool = False  # fitted to no more jobs than terms: the error is not known
    lacking: bool = False  # a part of the CPU time is not known


@dataclass
class Estimate:
    """What a study will take."""

    rows: list[Row] = field(default_factory=list)
    chain_s: float = 0.0  # CPU time of the longest jobs that must wait for one another
    missing: dict[str, list[str]] = field(default_factory=dict)  # quantities of no known rate
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> Row:
        """All rows as one."""
        total = Row("total")
        for name in ("jobs", "cpu_s", "error_s", "disk_mb", "files"):
            setattr(total, name, sum(getattr(row, name) for row in self.rows))
        for name in ("peak_mb", "beyond", "lacking"):
            setattr(total, name, max(getattr(row, name) for row in self.rows))
        return total

    def lack(self, kind: str, quantity: str) -> None:
        """Note that a quantity of a kind is not known."""
        named = self.missing.setdefault(kind, [])
        if quantity not in named:
            named.append(quantity)

    def wall_s(self, slots: int) -> tuple[float, float]:
        """Least and most wall time on so many jobs at a time, a core each that does nothing else.

        No order of jobs is faster than the first, none that leaves no slot idle without need is
        slower than the second (Graham 1969)."""
        share = self.total.cpu_s / slots
        return max(share, self.chain_s), share + self.chain_s * (1 - 1 / slots)


def estimate(profile: Profile, rates: Rates) -> Estimate:
    """What a profile will take. Raises ConfigError for a design that cannot be made."""
    found, rows, longest = Estimate(), {}, dict.fromkeys(PHASES, 0.0)
    for job in jobs_of(profile):
        first = job.parts[0]
        row = rows.setdefault(first.kind, Row(first.kind))
        row.jobs += job.count
        cpu_s = 0.0
        for part in (*job.parts, Part(START, {"job": 1.0})):
            rate = rates.table.get((part.kind, "cpu_s"))
            if rate is None:
                found.lack(part.kind, "CPU time")
                row.lacking = True
                continue
            cpu_s += rate.of(part.amounts)
            row.error_s += job.count * rate.of(part.amounts) * rate.spread
            row.beyond = max(row.beyond, rate.beyond(part.amounts))
            row.guessed |= rate.jobs <= len(rate.rates) and part.kind != START
        row.cpu_s += job.count * cpu_s
        longest[job.phase] = max(longest[job.phase], cpu_s)
        _add_sizes(row, job, rates, found)
    found.rows, found.chain_s = list(rows.values()), sum(longest.values())
    found.notes = list(_notes(profile))
    return found


def _add_sizes(row: Row, job: Job, rates: Rates, found: Estimate) -> None:
    first = job.parts[0]
    for quantity, name in (("mb", "disk"), ("files", "files"), ("peak_mb", "memory")):
        rate = rates.table.get((first.kind, quantity))
        if rate is None:
            found.lack(first.kind, name)
        elif quantity == "mb":
            row.disk_mb += job.count * rate.of(first.amounts)
        elif quantity == "files":
            row.files += job.count * rate.of(first.amounts)
        else:
            row.peak_mb = max(row.peak_mb, rate.of(first.amounts))


def _notes(profile: Profile) -> Iterable[str]:
    config = TrainingConfig().with_settings(profile.training)
    accelerator = config.accelerator
    on_gpu = [m for m, values in profile.settings.items() if values.get("device") == "gpu"]
    if accelerator != "cpu":
        text = f"GPU hours: not measured. accelerator={accelerator} trains on a GPU where there is"
        yield f"{text} one; no training on one is among the rates, the CPU hours are without it"
    if on_gpu:
        yield f"GPU hours of {', '.join(on_gpu)}: not measured"
    if accelerator == "cpu" and not on_gpu:
        yield "GPU hours: 0, nothing is asked to run on one"
    unknown = [f"training.{name}" for name in profile.training if name in _NOT_FOLLOWED]
    unknown += ["training.start"] * (config.start != "shipped")
    for method, values in profile.settings.items():
        unknown += [f"settings.{method}.{name}" for name in values if name not in _FOLLOWED]
    if unknown:
        yield f"as in the studies measured, whatever is asked: the cost of {', '.join(unknown)}"
    if not profile.known_probe:
        yield "known_probe=False: recovering probes was not measured; CPU hours are without it"
    if profile.threads > 1:
        text = f"threads={profile.threads}: what they speed up was not measured; the wall time"
        yield f"{text} takes a job's CPU time for its time"


def text_of(found: Estimate, profile: Profile, cores: int, source: Iterable[str]) -> str:
    """The estimate as a table, with what it leaves out and where it comes from."""
    heads = ("", "jobs", "CPU h", "+- %", "peak MB", "disk GB", "files", "size")
    lines = [heads, *map(_cells, (*found.rows, found.total))]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])])
        for line in lines
    ]
    shown.insert(-1, "-" * len(shown[0]))
    slots = max(1, cores // min(profile.threads, cores))
    least, most = (f"{seconds / 3600:.2g}" for seconds in found.wall_s(slots))
    peak_mb, asked_mb = found.total.peak_mb, profile.memory_mb
    shown += ["", f"wall time on {cores} cores, {slots} jobs at a time: {least} to {most} h"]
    shown += [f"memory at once: up to {slots * peak_mb / 1000:.1f} GB"]
    if peak_mb > asked_mb:
        shown[-1] += f"; a job may need more than the profile's memory_mb={asked_mb}"
    shown += found.notes
    shown += [
        f"not counted, for no finished study had it: {kind} ({', '.join(names)})"
        for kind, names in found.missing.items()
    ]
    shown += [
        "+-: the jobs' rms deviation from the rates, where they were measured. size: the largest",
        f"job over the largest measured; above {_BEYOND:g} the error is not known.",
        *source,
    ]
    return "\n".join(shown)


def _cells(row: Row) -> tuple[str, ...]:
    error = f"{100 * row.error_s / row.cpu_s:.0f}" if row.cpu_s and not row.guessed else "?"
    sizes = (f"{row.peak_mb:.0f}" if row.peak_mb else "?", f"{row.disk_mb / 1000:.2f}")
    beyond = f"{row.beyond:.1f}" + ("*" if row.beyond > _BEYOND else "")
    hours = ">" * row.lacking + f"{row.cpu_s / 3600:.2f}"
    numbers = (str(row.jobs), hours, error, *sizes)
    return (row.kind, *numbers, f"{row.files:.0f}", beyond)
