"""The study's report: one self-contained page, `DIR/index.html`, from the rows of a study folder;
`DIR/report.json` last.

    from fly64lib.report.report import write_report
    write_report("runs/study")

The page needs no network and no script: style and images are inside, the executed notebooks are
linked. What the rows say is computed in :mod:`fly64lib.report.rows`, curves are drawn in
:mod:`fly64lib.plots.curves`; here they are put in order."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from html import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from fly64lib.design import CONTROL_VIEWS, VIEWS, dose_folder
from fly64lib.methods.by_name import described
from fly64lib.plots import curves as draw
from fly64lib.report import page as html
from fly64lib.report import rows as told
from fly64lib.report.page import label
from fly64lib.report.rows import Study, number, select
from ptycho_torch.errors import PtychoError
from ptycho_torch.files import atomic_path, read_json, sha256_file, write_json

TARGETS = {"frc_half": 0.5, "phase_psnr": 20.0}
_TARGET_TEXT = {
    "frc_half": "Details down to {:g} of the Nyquist frequency (FRC with the truth at least 0.5)",
    "phase_psnr": "A phase PSNR of {:g} dB",
}
_LIMITS = {
    "cramer_rao": "the least error of any unbiased method; a method with a prior may pass it",
    "bayesian": "the bound of who also knows the power spectrum of this class of specimens; a stronger"
    " prior may pass it",
}
_VIEWS = {
    "baseline": "every position of the test half, images used singly",
    "dense": "tight groups of four neighbouring images, the groups close together",
    "sparse": "tight groups of four neighbouring images, the groups far apart",
    "… spread": "control: as many images as the named view, single and spread evenly; same photons, no"
    " groups",
    "… fluence": "control: every position, dose lowered to the named view's total; same photons, full"
    " overlap",
}
_GRID = {
    "fine": "The data were simulated on a grid twice as fine as the reconstruction's (fine) and"
    " cropped, as a measurement would be: they hold detail that no model on the coarse grid"
    " explains. The limits leave that out, so at high dose they promise more than any method"
    " can reach.",
    "matched": "The data were simulated on the reconstruction's own grid (matched), so the limits hold as"
    " they stand. Measured data are never of this kind.",
}
_PICTURES = {
    "objects": ("phase, amplitude, phase error", "wide"),
    "frc": ("Fourier ring correlation with the truth", "grid"),
    "spectrum": ("spectrum of the phase error", "grid"),
}
_COLUMNS = {
    "replicate": "replicate",
    "images": "images",
    "ph/px": "photons_per_pixel",
    "phase PSNR / dB": "phase_psnr",
    "above flat": "phase_psnr_skill",
    "phase MS-SSIM": "phase_ms_ssim",
    "phase MAE / rad": "phase_mae",
    "amplitude PSNR / dB": "amplitude_psnr",
    "above flat ": "amplitude_psnr_skill",
    "amplitude MS-SSIM": "amplitude_ms_ssim",
    "FRC 0.5": "frc_half",
    "half bit": "frc_half_bit",
    "deviance": "deviance",
    "held out": "deviance_held_out",
    "CPU s": "cpu_seconds",
}
_LIMITS_NOTE = {
    True: "The limits have no MS-SSIM and no deviance.",
    False: "The limits were not computed in this study.",
}
Targets = Mapping[str, float]
Rows = Sequence[Mapping]


def write_report(study_dir: str | Path, targets: Targets = TARGETS) -> Path:
    """Write `index.html` and then `report.json`, whose presence says that the report is complete;
    return its path.

    `targets` are metrics of `comparison.json` with the value to be reached. Raises
    DataContractError for a folder without results, or with results that must not be compared
    (:func:`fly64lib.report.rows.collect`)."""
    study = told.collect(study_dir)
    path = study.root / "index.html"
    with atomic_path(path) as temporary:
        temporary.write_text(report_html(study, targets), encoding="utf-8")
    settings = study.settings().items()
    answers = [
        {
            "setting": list(setting),
            "metric": metric,
            "target": target,
            "method": method,
            "view": view,
            "needs": [[need.kind, need.photons] for need in needs],
        }
        for setting, rows in settings
        for metric, target in targets.items()
        for (method, view), needs in told.needed_photons(rows, metric, target).items()
    ]
    write_json(
        study.root / "report.json",
        {
            "answers": answers,
            "rows": study.rows,
            "missing": [gap for _, rows in settings for gap in told.missing(rows)],
            "failed": study.failed,
            "index_sha256": sha256_file(path),
        },
    )
    return study.root / "report.json"


def report_html(study: Study, targets: Targets = TARGETS) -> str:
    """The whole page; each setting has its own answer, curves, images and tables."""
    settings = study.settings()
    sections: dict[str, str] = {}
    for setting, rows in settings.items():
        title = f"<h3>{escape(_setting_text(setting))}</h3>" if len(settings) > 1 else ""
        for name, section in (
            ("Answer", answer),
            ("Reading it", _reading),
            ("Curves", _curves),
            ("Controls", _controls),
            ("Images", _gallery),
            ("Tables", _tables),
        ):
            sections[name] = sections.get(name, "") + title + section(study, rows, targets)
    sections |= {
        "Cost": _cost(study),
        "Provenance": _provenance(study),
        "Notebooks": _notebooks(study),
    }
    doses, replicates = ({row[key] for row in study.rows} for key in ("dose", "replicate"))
    profile = _profile(study)
    facts = (
        "Ptychographic reconstruction of "
        + "; ".join(map(_setting_text, settings))
        + (f" · profile {profile['profile']}" if profile else ""),
        f"{', '.join(f'{dose:,.0f}' for dose in sorted(doses))} photons per exposure ·"
        f" {', '.join(map(label, told.methods(study.rows)))} ·"
        f" {_count(len(replicates), 'replicate')}",
    )
    return html.page("How far can dose and overlap be cut?", facts, sections)


def answer(study: Study, rows: Rows, targets: Targets) -> str:
    """The plain answer as HTML: photons needed for each target, by method and view, and what is
    missing."""
    cards, gaps = "", told.missing(rows) + study.failed
    views = [view for view in (*VIEWS, *CONTROL_VIEWS) if select(rows, view=view)]
    for metric, target in targets.items():
        needs = told.needed_photons(rows, metric, target)
        names = [
            name
            for name in (*told.methods(rows), *draw.LIMITS)
            if any(name == method for method, _ in needs)
        ]
        lines = [
            (
                [
                    escape(label(name)),
                    *(escape(told.need_text(needs.get((name, view), []))) for view in views),
                ],
                "limit" if name in draw.LIMITS else "",
            )
            for name in names
        ]
        title = _TARGET_TEXT.get(metric, metric + " of {:g}").format(target)
        cards += (
            f'<div class="answer"><h3>{escape(title)}</h3><p>{_sentences(rows, needs)}</p>'
            + html.table(
                ["photons per object pixel", *(view.replace("_", " ") for view in views)], lines
            )
            + "</div>"
        )
    count = len({row["replicate"] for row in rows})
    interval = (
        f"Numbers are the median of {count} replicates (smallest–largest); that range holds the"
        f" median of all possible replicates with a probability of {1 - 2.0 ** (1 - count):.0%}."
        if count > 1
        else (
            "There is one replicate, so no interval: how far another noise draw, choice of"
            " positions and initial weights would move these numbers, this study cannot say."
        )
    )
    title = f"Missing from this study: {_count(len(gaps), 'gap')}"
    gap = (
        f'<div class="gap">{html.details(title, html.items(gaps), opened=len(gaps) < 6)}</div>'
        if gaps
        else ""
    )
    return (
        "<p>How many photons each object pixel must get, and how they are spread, until a target"
        f" is met. {interval}</p>"
        f'{cards}<p class="note">≤: the lowest dose met it already. &gt;: the highest dose did not.'
        " Between two doses the "
        "metric is taken as linear in the logarithm of photons, and it must stay at the target from"
        " there on.</p>"
        f"{gap}{_standing(rows)}"
    )


def _sentences(rows: Rows, needs: Mapping[tuple[str, str], Sequence[told.Needed]]) -> str:
    """Who needs the fewest photons, spread how; what the others need; who does not get there."""
    best = {name: told.best_view(needs, name) for name in told.methods(rows)}
    reached = sorted((found[1], name, found[0]) for name, found in best.items() if found)
    lines = []
    for photons, name, view in reached:
        own = select(rows, view=view, method=name)
        at_most = "at most " if any(need.kind == "<" for need in needs[name, view]) else ""
        exposure = number(
            photons / float(np.median([row["photons_per_pixel"] / row["dose"] for row in own]))
        )
        more = (
            f"; {photons / reached[0][0]:.2g} times the fewest" if photons > reached[0][0] else ""
        )
        lines.append(
            f"<strong>{escape(label(name))}</strong> needs"
            f" {at_most}<strong>{number(photons)}</strong> photons per object pixel, spread as"
            f" {view} ({_median(own, 'images'):,.0f} exposures of {exposure} photons{more})."
        )
    failed = ", ".join(escape(label(name)) for name, found in best.items() if not found)
    if failed:
        most = number(max(row["photons_per_pixel"] for row in rows))
        lines.append(
            f"<strong>{failed}</strong>: not met by all replicates of any named view, up to {most}"
            " photons per object pixel."
        )
    return "<br>".join(lines)


def _standing(rows: Rows) -> str:
    """Against the flat object and the limits, over the named views."""
    lines, below = [], ""
    for entry in told.standing(rows):
        total, name = entry["conditions"], escape(label(entry["method"]))
        gaps = [
            (
                f"{gap['median_db']:+.1f} dB; above in {gap['above']} of {gap['compared']}"
                if gap["compared"]
                else "–"
            )
            for gap in (entry[limit] for limit in draw.LIMITS)
        ]
        lines.append(
            (
                [
                    name,
                    f"{total - len(entry['below_flat'])} of {total}",
                    f"{entry['predicts']} of {total}",
                    f"{entry['best']} of {total}",
                    *gaps,
                ],
                "",
            )
        )
        if entry["below_flat"]:
            below += (
                f"<p>{name} does not beat an empty object at"
                f" {escape('; '.join(entry['below_flat']))}.</p>"
            )
    return (
        "<h3>Against an empty object and the limits</h3>"
        + html.table(
            [
                "over the named views",
                "phase PSNR above an empty object's",
                "predicts held-out patterns better than it",
                "best phase PSNR of all methods",
                "to the Cramér-Rao limit (median)",
                "to the Bayesian limit (median)",
            ],
            lines,
        )
        + below
    )


def _reading(study: Study, rows: Rows, targets: Targets) -> str:
    names = [
        *told.methods(rows),
        "flat",
        *(name for name in draw.LIMITS if select(rows, method=name)),
    ]
    gauge = {
        "known_probe": "a global phase",
        "unknown_probe": "a global phase, a phase ramp, a shift and a scale",
    }
    return (
        "<p><strong>One table row</strong> is one method on one view of one dose in one replicate:"
        " the object that it made "
        "of the test half, scored on the baseline's scanned region whatever the view, only "
        f"{gauge[rows[0]['gauge']]} removed. Resolution is where the FRC with the truth first falls"
        " under 0.5, coming from "
        "coarse structure: 0 if the coarsest is wrong. The held-out deviance is that of exposures"
        " that no method got; 1 is "
        "a perfect model where counts are large.</p>"
        "<p><strong>Photons per object pixel</strong> is what the probe brought to the "
        "specimen, mean over that region. Fewer positions also mean fewer photons: compare views at"
        " equal photons per "
        "pixel, not at equal dose.</p><p><strong>Simulation.</strong>"
        f" {_GRID[rows[0]['simulation']]}</p>"
        "<p>Quick and full are never compared with each other: their scans differ in"
        " size.</p><h3>Methods and limits</h3>"
        f"{html.definitions({label(name): _LIMITS.get(name) or described(name) for name in names})}<h3>Views</h3>"
        f"{html.definitions(_VIEWS)}"
    )


def _curves(study: Study, rows: Rows, targets: Targets) -> str:
    names, named, content = told.methods(rows), select(rows, view=VIEWS), ""
    limits = [name for name in draw.LIMITS if select(rows, method=name)]
    measured = any(row["overlap"] is not None for row in named)
    for metric, what in draw.METRIC_LABELS.items():
        curve = partial(
            draw.over,
            metric=metric,
            names=names,
            target=targets.get(metric),
            span=draw.span(rows, metric),
        )
        views = [
            (view.capitalize(), partial(curve, select(named, view=view), "dose"))
            for view in VIEWS
            if select(named, view=view)
        ]
        fluence = [
            (
                label(name),
                partial(
                    draw.by_view,
                    select(rows, method=(name, *draw.REFERENCES)),
                    metric,
                    targets.get(metric),
                    draw.span(rows, metric),
                ),
            )
            for name in names
        ]
        overlap = [
            (
                f"{dose:,.0f} photons per exposure",
                partial(curve, select(named, dose=dose), "overlap", annotate=True),
            )
            for dose in sorted({row["dose"] for row in named})
        ]
        title = what.split(" / ")[0]
        block = (
            f"{html.legend(draw.method_styles(names, limits))}<h4>Over dose, in each"
            f" view</h4>{html.panels(views, what)}<h4>Over photons per object pixel, for each"
            f" method</h4>{html.legend(draw.view_styles(rows))}<p class='note'>Named views are"
            " filled, control views hollow and dotted. Where curves of different views coincide"
            " only photons count; where they part, overlap does. Black: the limits of each named"
            f" view.</p>{html.panels(fluence, what)}<h4>Over measured overlap, at each dose</h4>"
            + (
                "<p class='note'>Photons per object pixel change along the axis too; the tables"
                " below hold them.</p>" + html.panels(overlap, what)
                if measured
                else (
                    '<p class="gap">Overlap was not measured here: there is no'
                    " overlap_figures.json.</p>"
                )
            )
        )
        title = title[0].upper() + title[1:]
        content += (
            f"<h3>{escape(title)}</h3>{block}" if metric in targets else html.details(title, block)
        )
    return (
        "<p class='note'>Points are medians of the replicates, bars reach from the smallest to the"
        f" largest. Thin grey line: target. {_LIMITS_NOTE[bool(limits)]}</p>{content}"
    )


def _controls(study: Study, rows: Rows, targets: Targets) -> str:
    lines = []
    for view in VIEWS[1:]:
        for dose in sorted({row["dose"] for row in rows}):
            for name in told.methods(rows):
                cells = [
                    select(rows, view=one, dose=dose, method=name) for one in _with_controls(view)
                ]
                if any(cells[1:]):
                    values = [
                        number(_median(cell, key))
                        for key in ("photons_per_pixel", *targets)
                        for cell in cells
                    ]
                    lines.append(([f"{view}, {dose:,.0f}, {escape(label(name))}", *values], ""))
    if not lines:
        return (
            '<p class="gap">No control views in this study: overlap and photons cannot be told'
            " apart by it.</p>"
        )
    heads = [
        f"{short}: {kind}"
        for short in (
            "ph/px",
            *(draw.METRIC_LABELS.get(key, key).split(" / ")[0] for key in targets),
        )
        for kind in ("named", "spread", "fluence")
    ]
    return (
        "<p>The same photons on the specimen in three ways: tight groups (named), as many single"
        " images spread evenly (spread), every position at a lower dose (fluence). Medians over"
        " replicates.</p>" + html.table(["view, dose, method", *heads], lines)
    )


def _gallery(study: Study, rows: Rows, targets: Targets) -> str:
    first = min(row["replicate"] for row in rows)
    own = select(rows, replicate=first)
    doses = sorted({row["dose"] for row in own})
    content = (
        f"<p class='note'>Replicate {first}. All images of a picture share the truth's colour"
        " scale.</p>"
    )
    for view in VIEWS:
        content += _grid(
            study,
            {f"{dose:,.0f} photons": select(own, view=view, dose=dose) for dose in doses},
            f"Phase, {view}. Dose rises to the right.",
        )
    for view in VIEWS[1:]:
        content += html.details(
            f"{view.capitalize()} beside its controls",
            "".join(
                _grid(
                    study,
                    {
                        one.replace("_", " "): select(own, view=one, dose=dose)
                        for one in _with_controls(view)
                    },
                    f"Phase, {dose:,.0f} photons per exposure in {view} and its spread control; as"
                    " many in all in its fluence control.",
                )
                for dose in doses
                if select(own, view=_with_controls(view)[1:], dose=dose)
            ),
        )
    for view in VIEWS:
        pictures = ""
        for dose in doses:
            for row in select(own, view=view, dose=dose)[:1]:
                for name, (text, kind) in _PICTURES.items():
                    path = (
                        study.root
                        / row["folder"]
                        / "phase_g"
                        / dose_folder(dose)
                        / view
                        / f"{name}.png"
                    )
                    if path.is_file():
                        pictures += html.picture(
                            html.from_disk(path),
                            f"{label(view)}, {dose:,.0f} photons: {text}",
                            kind,
                        )
        content += html.details(f"{label(view)}: objects, errors, FRC at every dose", pictures)
    return content


def _grid(study: Study, columns: Mapping[str, Rows], caption: str) -> str:
    """Phase images, a row for each method and a column for each entry, or the reason why there are
    none."""
    objects, reasons = {}, []
    for title, rows in ((title, rows) for title, rows in columns.items() if rows):
        try:
            images, truth, region = told.load_condition(study, rows[0])
            objects |= {
                (name, title): images[name] for name in told.methods(rows) if name in images
            }
        except PtychoError as error:
            reasons.append(str(error))
    if not objects:
        return (
            f'<p class="gap">{escape(caption)} No images:'
            f" {escape('; '.join(reasons) or 'no such condition')}.</p>"
        )
    names = [name for name in told.methods(study.rows) if any(name == key for key, _ in objects)]
    figure = draw.image_grid(objects, names, list(columns), truth, region)
    return html.picture(html.drawn(figure, "webp"), caption)


def _tables(study: Study, rows: Rows, targets: Targets) -> str:
    content = ""
    for view in dict.fromkeys(row["view"] for row in rows):
        lines = [
            (
                [
                    f"{row['dose']:,.0f} {escape(label(row['method']))}",
                    *(number(row.get(key)) for key in _COLUMNS.values()),
                ],
                "limit" if row["method"] in draw.REFERENCES else "",
            )
            for row in select(rows, view=view)
        ]
        content += html.details(
            label(view), html.table(["dose, method", *_COLUMNS], lines), opened=view == VIEWS[0]
        )
    text = io.StringIO()
    writer = csv.DictWriter(
        text, fieldnames=list(dict.fromkeys(key for row in rows for key in row))
    )
    writer.writeheader()
    writer.writerows(rows)
    link = html.data_url("text/csv", text.getvalue().encode())
    return (
        f'{content}<p><a download="rows.csv" href="{link}">All {len(rows)} rows with every column,'
        " as CSV</a></p>"
    )


def _cost(study: Study) -> str:
    lines = []
    for name in told.methods(study.rows):
        own, trained = (
            select(study.rows, method=name),
            [entry for entry in study.trainings if entry["method"] == name],
        )
        total = sum(entry["cpu_seconds"] for entry in (*own, *trained) if entry.get("cpu_seconds"))
        lines.append(
            (
                [
                    escape(label(name)),
                    *(
                        number(_median(own, key))
                        for key in ("cpu_seconds", "seconds", "peak_memory_mb")
                    ),
                    str(len(trained) or "–"),
                    *(number(_median(trained, key)) for key in ("cpu_seconds", "seconds")),
                    number(total),
                ],
                "",
            )
        )
    stages: dict[str, list[Executed]] = {}
    for notebook in _executed(study):
        stages.setdefault(Path(notebook.link).stem.split("_")[0], []).append(notebook)
    whole = [
        (
            [
                escape(stage),
                str(len(ran)),
                number(sum(one.wall_s or 0 for one in ran)),
                (
                    number(sum(one.cpu_s for one in ran))
                    if all(one.cpu_s is not None for one in ran)
                    else "–"
                ),
            ],
            "",
        )
        for stage, ran in stages.items()
    ]
    return (
        "<p>Medians over conditions. Wall times are those of the machine that ran the job, shared"
        " or not.</p>"
        + html.table(
            [
                "method",
                "reconstruction CPU s",
                "wall s",
                "peak memory MB",
                "trainings",
                "training CPU s",
                "wall s",
                "CPU s in all",
            ],
            lines,
        )
        + "<h3>By stage</h3><p>Whole notebooks, from the start of their kernel to its "
        "end; several run at a time.</p>"
        + html.table(["stage", "notebooks", "wall s, summed", "CPU s, summed"], whole)
    )


def _provenance(study: Study) -> str:
    seeds = sorted({(row["replicate"], row["simulation_seed"]) for row in study.rows})
    facts = {
        "Code": html.commit(),
        "Machine": f"{html.machine()} (where this page was written)",
        "Versions": ", ".join(
            f"{name} {' / '.join(sorted(found))}" for name, found in sorted(study.versions.items())
        ),
        "Seeds": "; ".join(
            f"replicate {replicate}: simulation {seed}" for replicate, seed in seeds
        ),
    }
    settings = {
        row["method"]: row["settings"] for row in reversed(study.rows) if row.get("settings")
    }
    profile, designs = _profile(study), ""
    if profile:
        facts["Profile"] = f"{profile['profile']}: " + ", ".join(
            f"{name} {'/'.join(map(str, value)) if isinstance(value, list) else value}"
            for name, value in profile["settings"].items()
        )
    for folder in dict.fromkeys(row["folder"] for row in study.rows):
        manifest = study.root / folder / "phase_c" / "run_manifest.json"
        if manifest.is_file():
            text = json.dumps(read_json(manifest)["inputs"], indent=1)
            designs += html.details(
                f"Design of {folder}: doses, overlaps, seeds", f"<pre>{escape(text)}</pre>"
            )
    lines = [([escape(label(name)), escape(text)], "") for name, text in settings.items()]
    return (
        html.definitions(facts)
        + designs
        + html.details(
            "Settings of the methods",
            html.table(["method", "settings in the first condition"], lines, longs=True),
        )
    )


def _profile(study: Study) -> dict | None:
    """Name and settings of the sweep that made the study; None where the phases were run one by
    one."""
    path = study.root / "study.json"
    return read_json(path) if path.is_file() else None


def _notebooks(study: Study) -> str:
    lines = [
        (
            [
                f'<a href="{quote(one.link)}">{escape(one.link)}</a>',
                "failed" if one.failed else number(one.wall_s),
                number(one.cpu_s),
            ],
            "",
        )
        for one in _executed(study)
    ]
    if not lines:
        return "<p>No executed notebooks lie in this folder.</p>"
    count = f"<p>{_count(len(lines), 'executed notebook')} beside this page.</p>"
    return count + html.table(["notebook", "wall s", "CPU s"], lines)


class Executed(NamedTuple):
    """A notebook of the study's folder; what it took is None where it doesn't say so."""

    link: str  # relative to the study
    failed: bool
    wall_s: float | None
    cpu_s: float | None


def _executed(study: Study) -> list[Executed]:
    found = []
    for path in sorted(study.root.rglob("*.ipynb")):
        if ".ipynb_checkpoints" not in path.parts and not path.name.startswith(
            ".tmp-"
        ):  # the report's own is being written
            metadata = read_json(path).get("metadata", {})
            ran = metadata.get("papermill", {})
            failed = bool(ran.get("exception")) or path.name.endswith(".failed.ipynb")
            found.append(
                Executed(
                    path.relative_to(study.root).as_posix(),
                    failed,
                    ran.get("duration"),
                    metadata.get("fly64", {}).get("cpu_seconds"),
                )
            )
    return found


def _with_controls(view: str) -> tuple[str, ...]:
    return view, *(control for control in CONTROL_VIEWS if control.startswith(f"{view}_"))


def _setting_text(setting: told.Setting) -> str:
    specimen, simulation, gauge = setting
    return f"{label(specimen)}, {simulation} simulation, {label(gauge)}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _median(rows: Iterable[Mapping], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.median(values)) if values else None
