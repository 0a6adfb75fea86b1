"""What a study took, and where it comes from: cost, code, machine, versions, seeds, notebooks."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup
from pandas import DataFrame

from fly64lib.evaluation.columns import number
from fly64lib.plots.styles import label
from fly64lib.report import answers
from fly64lib.report.rows import StudyRows
from ptycho_torch.files import read_json

_COST = ["cpu_seconds", "seconds", "peak_memory_mb"]


def cost(study: StudyRows) -> dict[str, Any]:
    """Lines of two tables: what each method took, and what each stage's notebooks did."""
    methods, table = [], study.table.reindex(columns=["method", *_COST])
    trainings = DataFrame(study.trainings).reindex(columns=["method", *_COST])
    for name in answers.methods(study.table):
        own, trained = (part[part.method == name] for part in (table, trainings))
        total = own.cpu_seconds.sum() + trained.cpu_seconds.sum()
        cells = [*(_median(own, key) for key in _COST), str(len(trained) or "–")]
        cells += [*(_median(trained, key) for key in _COST[:2]), number(total)]
        methods.append(([label(name), *cells], ""))
    stages = []
    executed = executed_notebooks(study.root)
    for stage, ran in executed.groupby("stage", sort=False):
        cpu = number(ran.cpu_s.sum()) if ran.cpu_s.notna().all() else "–"
        stages.append(([stage, str(len(ran)), number(ran.wall_s.sum()), cpu], ""))
    return {"methods": methods, "stages": stages}


def origin(study: StudyRows) -> dict[str, Any]:
    """Facts by name, the designs of the data, and each method's settings in its first condition."""
    table = study.table
    seeds = table[["replicate", "simulation_seed"]].drop_duplicates().sort_values("replicate")
    facts = {
        "Code": commit(),
        "Machine": f"{machine()} (where this page was written)",
        "Versions": ", ".join(
            f"{name} {' / '.join(sorted(found))}" for name, found in sorted(study.versions.items())
        ),
        "Seeds": "; ".join(f"replicate {r}: simulation {seed}" for r, seed in seeds.to_numpy()),
    }
    if study.profile:
        values = ", ".join(
            f"{name} {'/'.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in study.profile["settings"].items()
        )
        facts["Profile"] = f"{study.profile['profile']}: {values}"
    designs = {}
    for folder in table.folder.unique():
        manifest = study.root / folder / "phase_c" / "run_manifest.json"
        if manifest.is_file():
            designs[folder] = json.dumps(read_json(manifest)["inputs"], indent=1)
    settings = {row["method"]: row["settings"] for row in study.rows[::-1] if row.get("settings")}
    lines = [([label(name), text], "") for name, text in settings.items()]
    return {"facts": facts, "designs": designs, "settings": lines}


def notebook_lines(study: StudyRows) -> list[tuple[list[str], str]]:
    """A line with a link for each executed notebook of the study's folder."""
    return [
        (
            [
                Markup('<a href="{}">{}</a>').format(quote(one.link), one.link),
                "failed" if one.failed else number(_or_none(one.wall_s)),
                number(_or_none(one.cpu_s)),
            ],
            "",
        )
        for one in executed_notebooks(study.root).itertuples()
    ]


def executed_notebooks(root: Path) -> DataFrame:
    """Link (relative to the study), stage, failed, wall and CPU seconds of each notebook; NaN for
    what it does not say."""
    found = []
    for path in sorted(root.rglob("*.ipynb")):
        # The report's own is being written.
        if ".ipynb_checkpoints" not in path.parts and not path.name.startswith(".tmp-"):
            metadata = read_json(path).get("metadata", {})
            ran = metadata.get("papermill", {})
            found.append(
                {
                    "link": path.relative_to(root).as_posix(),
                    "stage": path.stem.split("_")[0],
                    "failed": bool(ran.get("exception")) or path.name.endswith(".failed.ipynb"),
                    "wall_s": ran.get("duration"),
                    "cpu_s": metadata.get("fly64", {}).get("cpu_seconds"),
                }
            )
    return DataFrame(found, columns=["link", "stage", "failed", "wall_s", "cpu_s"])


def commit() -> str:
    """The git commit of the checkout that this code runs from, and whether it was changed since."""
    git = ["git", "-C", str(Path(__file__).resolve().parent)]
    unchanged = ["status", "--porcelain", "--", ":/", ":!/reports"]
    try:
        head, changes = (
            subprocess.run(
                [*git, *words], capture_output=True, text=True, check=True
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], unchanged)
        )
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout; see the version of fly64"
    return f"commit {head[:12]}" + (" with uncommitted changes" if changes else "")


def machine() -> str:
    """CPU model, cores and memory."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores,"
        f" {memory_gib:.0f} GiB, {platform.system()}"
    )


def _median(rows: DataFrame, key: str) -> str:
    return number(_or_none(rows[key].median()))


def _or_none(value: float) -> float | None:
    return None if value != value else value
