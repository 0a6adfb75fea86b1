"""What a study took, and where it comes from: cost, code, machine, versions, seeds, notebooks."""

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from pandas import DataFrame

from fly64lib.report import answers
from fly64lib.report.notebook_html import metadata_of
from fly64lib.report.rows import StudyRows
from ptycho_torch.files import read_json

_CHANGES = ["status", "--porcelain", "--", ":/", ":!/reports"]
_COST = ["cpu_seconds", "seconds", "peak_memory_mb"]


def cost(study: StudyRows) -> dict[str, list]:
    """What methods took, in the median of their runs and trainings, and the notebooks by stage."""
    methods, table = [], study.table.reindex(columns=["method", *_COST])
    trainings = DataFrame(study.trainings).reindex(columns=["method", *_COST])
    for name in answers.methods(study.table):
        own, trained = (part[part.method == name][_COST] for part in (table, trainings))
        total = own.cpu_seconds.sum() + trained.cpu_seconds.sum()
        one = {"name": name, "own": own.median(), "training": trained.median()}
        methods.append(one | {"trainings": len(trained), "cpu_seconds": total})
    stages = []
    for stage, ran in executed(study.root).groupby("stage", sort=False):
        one = {"stage": stage, "count": len(ran), "wall_s": ran.wall_s.sum()}
        stages.append(one | {"cpu_s": ran.cpu_s.sum(skipna=False)})
    return {"methods": methods, "stages": stages}


def executed(root: Path) -> DataFrame:
    """Link (relative to the study), stage, failed, wall and CPU seconds (NaN: not said) of each
    executed notebook."""
    found = []
    for path in sorted(root.rglob("*.ipynb")):
        # The report's own is being written.
        if ".ipynb_checkpoints" not in path.parts and not path.name.startswith(".tmp-"):
            metadata = metadata_of(path)
            ran, spent = metadata.get("papermill", {}), metadata.get("fly64", {})
            failed = bool(ran.get("exception")) or path.name.endswith(".failed.ipynb")
            about = path.relative_to(root).as_posix(), path.stem.split("_")[0], failed
            found.append((*about, ran.get("duration"), spent.get("cpu_seconds")))
    return DataFrame(found, columns=["link", "stage", "failed", "wall_s", "cpu_s"])


def origin(study: StudyRows) -> dict[str, Any]:
    """Facts by name, the designs of the data, and each method's settings in its first condition."""
    table = study.table
    seeds = table[["replicate", "simulation_seed"]].drop_duplicates().sort_values("replicate")
    versions = sorted(study.versions.items())
    facts = {
        "Code": commit(),
        "Machine": f"{machine()} (where this page was written)",
        "Versions": ", ".join(f"{name} {' / '.join(sorted(found))}" for name, found in versions),
        "Seeds": "; ".join(f"replicate {r}: simulation {seed}" for r, seed in seeds.to_numpy()),
    }
    if study.profile:
        settings = study.profile["settings"].items()
        values = (f"{k} {'/'.join(map(str, v)) if isinstance(v, list) else v}" for k, v in settings)
        facts["Profile"] = f"{study.profile['profile']}: {', '.join(values)}"
    designs = {}
    for folder in table.folder.unique():
        manifest = study.root / folder / "phase_c" / "run_manifest.json"
        if manifest.is_file():
            designs[folder] = json.dumps(read_json(manifest)["inputs"], indent=1)
    settings = {row["method"]: row["settings"] for row in study.rows[::-1] if row.get("settings")}
    return {"facts": facts, "designs": designs, "settings": settings}


def commit() -> str:
    """The git commit of the checkout that this code runs from, and whether it was changed since."""
    here = {"cwd": Path(__file__).resolve().parent, "capture_output": True, "text": True}
    try:
        head, changes = (
            subprocess.run(["git", *words], **here, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], _CHANGES)
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
    model, cores = models[0] if models else platform.machine(), os.cpu_count()
    return f"{model}, {cores} cores, {memory_gib:.0f} GiB, {platform.system()}"
