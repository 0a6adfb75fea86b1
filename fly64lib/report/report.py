"""The study's report: one self-contained page, `DIR/index.html`, from the rows of a study folder,
and a page beside each executed notebook that has none; `DIR/report.json` last.

Rows come from `comparison.json` files. Of notebooks the ends alone are read, for what they took."""

from pathlib import Path

from fly64lib.evaluation.columns import columns
from fly64lib.report import answers
from fly64lib.report.notebook_html import page_of, write_page
from fly64lib.report.provenance import executed
from fly64lib.report.rows import collect
from fly64lib.report.study_page import Targets, page_html
from ptycho_torch.fields import refuse_unknown
from ptycho_torch.files import atomic_path, sha256_file, write_json

TARGETS = {"resolved": 0.5, "frc_half": 0.5, "phase_psnr": 20.0}


def write_report(study_dir: str | Path, targets: Targets = TARGETS) -> Path:
    """Write the notebooks' pages, `index.html`, then `report.json`, whose presence says that the
    report is complete; return its path.

    `targets` are columns of `comparison.json` with the value to be reached. Raises
    DataContractError for results that are missing or must not be compared
    (:func:`fly64lib.report.rows.collect`), ConfigError for a target that is no column."""
    refuse_unknown(targets, columns(), "the report's targets")
    study = collect(study_dir)
    for link in executed(study.root).link:
        notebook, page = study.root / link, study.root / page_of(link)
        if not page.is_file() or page.stat().st_mtime < notebook.stat().st_mtime:
            write_page(notebook)  # else the notebook's own job has made it
    page = study.root / "index.html"
    with atomic_path(page) as temporary:
        temporary.write_text(page_html(study, targets), encoding="utf-8")
    found, gaps = [], []
    for setting, rows in study.settings().items():
        gaps += answers.missing(rows, study.named_views)
        for metric, target in targets.items():
            about = {"setting": list(setting), "metric": metric, "target": target}
            for (method, view), needs in answers.needed_photons(rows, metric, target).items():
                found.append(about | {"method": method, "view": view, "needs": needs})
    written = {"answers": found, "missing": gaps, "rows": study.rows, "failed": study.failed}
    write_json(study.root / "report.json", written | {"index_sha256": sha256_file(page)})
    return study.root / "report.json"
