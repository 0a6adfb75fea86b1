"""The page of a study: what each section shows, taken from rows, for the templates beside.

`templates/page.html.j2` orders the sections, one file each; wording stands there, numbers come from
here. The page needs no network and no script: style and images are inside, notebooks are linked."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from pandas import DataFrame

from fly64lib.design import OVERLAPS, controls_of, linear_overlap
from fly64lib.evaluation.columns import LIMITS, REFERENCES, columns, number, table_columns
from fly64lib.methods.by_name import described
from fly64lib.plots.curves import Axis, by_view, over
from fly64lib.plots.styles import label, method_styles, reference_styles, view_styles
from fly64lib.report import answers, provenance
from fly64lib.report.gallery import data_url, drawn, gallery
from fly64lib.report.rows import Setting, StudyRows

Targets = Mapping[str, float]
Line = tuple[list[str], str]  # cells of a table and the row's class

_TARGET_TEXT = {
    "frc_half": "Details down to {:g} of the Nyquist frequency (FRC with the truth at least 0.5)",
    "phase_psnr": "A phase PSNR of {:g} dB",
}
_LIMIT_TEXT = {
    "cramer_rao": "the least error of any unbiased method; a method with a prior may pass it",
    "bayesian": "the bound of who also knows the power spectrum of this class of specimens; a"
    " stronger prior may pass it",
}


def page_html(study: StudyRows, targets: Targets) -> str:
    """The whole page; each setting has its own answer, curves, images and tables."""
    table, settings = study.table, []
    for setting, rows in study.settings().items():
        parts = {
            "Answer": _answer(study, rows, targets),
            "Reading it": _reading(rows),
            "Curves": _curves(rows, targets),
            "Controls": _controls(rows, targets),
            "Images": gallery(study, rows),
            "Tables": _tables(rows),
        }
        settings.append({"title": _setting_text(setting), "parts": parts})
    doses = ", ".join(f"{dose:,.0f}" for dose in sorted(table.dose.unique()))
    names = ", ".join(map(label, answers.methods(table)))
    replicates = _count(table.replicate.nunique(), "replicate")
    titles = "; ".join(one["title"] for one in settings)
    profile = f" · profile {study.profile['profile']}" if study.profile else ""
    context = {
        "title": "How far can dose and overlap be cut?",
        "facts": (
            f"Ptychographic reconstruction of {titles}{profile}",
            f"{doses} photons per exposure · {names} · {replicates}",
        ),
        "settings": settings,
        "study": {
            "Cost": provenance.cost(study),
            "Provenance": provenance.origin(study),
            "Notebooks": provenance.notebook_lines(study),
        },
    }
    return _rendered("page", **context)


def answer(study: StudyRows, rows: DataFrame, targets: Targets) -> str:
    """The plain answer: photons needed for each target, by method and view, and what is missing."""
    return _rendered("answer", part=_answer(study, rows, targets))


def _rendered(template: str, **context: Any) -> str:
    environment = Environment(
        loader=PackageLoader("fly64lib.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"label": label, "number": number, "count": _count}
    return environment.get_template(f"{template}.html.j2").render(context)


def _answer(study: StudyRows, rows: DataFrame, targets: Targets) -> dict[str, Any]:
    standing = answers.standing(rows)
    replicates = rows.replicate.nunique()
    return {
        "replicates": replicates,
        "probability": 1 - 2.0 ** (1 - replicates),
        "cards": [_card(rows, metric, target) for metric, target in targets.items()],
        "most": rows.photons_per_pixel.max(),
        "gaps": answers.missing(rows, study.named_views) + study.failed,
        "standing": [(_standing_cells(entry), "") for entry in standing],
        "below_flat": {one["method"]: one["below_flat"] for one in standing if one["below_flat"]},
    }


def _card(rows: DataFrame, metric: str, target: float) -> dict[str, Any]:
    """Who needs the fewest photons, spread how; what the others need; who does not get there."""
    needs = answers.needed_photons(rows, metric, target)
    every, views = answers.methods(rows), answers.views(rows)
    best = {name: answers.best_view(needs, name) for name in every}
    reached = sorted((found[1], name, found[0]) for name, found in best.items() if found)
    sentences = []
    for photons, name, view in reached:
        own = rows[(rows.method == name) & (rows["view"] == view)]
        sentences.append(
            {
                "name": name,
                "view": view,
                "photons": photons,
                "at_most": any(need.kind == "<" for need in needs[name, view]),
                "images": own.images.median(),
                "exposure": photons / float((own.photons_per_pixel / own.dose).median()),
                "times": photons / reached[0][0],
            }
        )
    lines = []
    for name in (*every, *LIMITS):
        if any(name == key[0] for key in needs):
            cells = (answers.need_text(needs.get((name, view), [])) for view in views)
            lines.append(([label(name), *cells], "limit" if name in LIMITS else ""))
    column = columns()[metric]
    title = _TARGET_TEXT.get(metric, f"{column.label} of {{:g}} {column.unit}").format(target)
    return {
        "title": title,
        "reached": sentences,
        "failed": [name for name, found in best.items() if not found],
        "heads": ["photons per object pixel", *map(label, views)],
        "lines": lines,
    }


def _standing_cells(entry: Mapping[str, Any]) -> list[str]:
    total = entry["conditions"]
    counts = total - len(entry["below_flat"]), entry["predicts"], entry["best"]
    gaps = [
        f"{gap['median_db']:+.1f} dB; above in {gap['above']} of {gap['compared']}"
        if gap["compared"]
        else "–"
        for gap in (entry[limit] for limit in LIMITS)
    ]
    return [label(entry["method"]), *(f"{count} of {total}" for count in counts), *gaps]


def _reading(rows: DataFrame) -> dict[str, Any]:
    names = [*answers.methods(rows), "flat", *_limits(rows)]
    views = [view for view in answers.views(rows) if view not in OVERLAPS]
    return {
        "gauge": rows.gauge.iloc[0],
        "simulation": rows.simulation.iloc[0],
        "methods": {label(name): _LIMIT_TEXT.get(name) or described(name) for name in names},
        "other_views": [one for one in views if linear_overlap(one) is not None],
    }


def _limits(rows: DataFrame) -> list[str]:
    return [name for name in LIMITS if name in set(rows.method)]


def _curves(rows: DataFrame, targets: Targets) -> dict[str, Any]:
    names, limits = answers.methods(rows), _limits(rows)
    styles = reference_styles(limits) | method_styles(names)
    views = view_styles(answers.views(rows))
    axes = {
        column.name: Axis.of(rows, column, targets.get(column.name))
        for column in columns().values()
        if column.curve or column.name in targets
    }
    metrics = [_panels(axis, rows, styles, views) for axis in axes.values() if axis]
    return {
        "method_styles": method_styles(names) | reference_styles(limits),
        "view_styles": views,
        "limits": limits,
        "metrics": sorted(metrics, key=lambda one: not one["is_target"]),
    }


def _panels(axis: Axis, rows: DataFrame, styles: Mapping, views: Mapping) -> dict[str, Any]:
    """The three rows of curves of one metric."""
    named, label_ = answers.named(rows), axis.column.label
    over_dose = [
        (view.capitalize(), drawn(over(axis, own, "dose", styles)))
        for view, own in ((view, named[named["view"] == view]) for view in answers.views(named))
    ]
    over_photons = [
        (label(name), drawn(by_view(axis, rows[rows.method.isin((name, *REFERENCES))], views)))
        for name in answers.methods(rows)
    ]
    over_overlap = [
        (f"{dose:,.0f} photons per exposure", drawn(over(axis, own, "overlap", styles, True)))
        for dose, own in named.groupby("dose")
        if own.overlap.notna().any()
    ]
    return {
        "what": axis.column.title,
        "title": label_[0].upper() + label_[1:],
        "is_target": axis.target is not None,
        "over_dose": over_dose,
        "over_photons": over_photons,
        "over_overlap": over_overlap,
    }


def _controls(rows: DataFrame, targets: Targets) -> dict[str, Any]:
    """Medians over replicates of each overlap view beside its controls."""
    shown = ["photons_per_pixel", *(name for name in targets if name in rows)]
    medians = rows.groupby(["view", "dose", "method"])[shown].median()
    heads = [
        f"{'ph/px' if name == 'photons_per_pixel' else columns()[name].label}: {kind}"
        for name in shown
        for kind in ("named", "spread", "fluence")
    ]
    lines = []
    for view in answers.views(answers.named(rows)):
        places = (view, *controls_of(view))
        for dose in sorted(rows.dose.unique()):
            for name in answers.methods(rows):
                keys = [(place, dose, name) for place in places]
                if any(key in medians.index for key in keys[1:]):
                    cells = medians.reindex(keys)[shown].T.to_numpy().ravel()
                    values = [number(None if cell != cell else cell) for cell in cells]
                    lines.append(([f"{view}, {dose:,.0f}, {label(name)}", *values], ""))
    return {"heads": ["view, dose, method", *heads], "lines": lines}


def _tables(rows: DataFrame) -> dict[str, Any]:
    """All rows, view by view, and as CSV."""
    records = [
        {key: None if value != value else value for key, value in row.items()}
        for row in rows.to_dict("records")
    ]
    shown = table_columns(records, report=True)
    views: dict[str, list[Line]] = {}
    for row in records:
        name = row["method"]
        cells = [column.text(row.get(column.name)) for column in shown]
        line = ([f"{row['dose']:,.0f} {label(name)}", *cells], "limit" * (name in REFERENCES))
        views.setdefault(row["view"], []).append(line)
    return {
        "heads": ["dose, method", *(column.title for column in shown)],
        "views": views,
        "csv": data_url("text/csv", rows.to_csv(index=False).encode()),
        "count": len(rows),
    }


def _setting_text(setting: Setting) -> str:
    specimen, simulation, gauge = setting
    return f"{label(specimen)}, {simulation} simulation, {label(gauge)}"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
