"""The page of a study: what each section shows, from rows, for the templates beside.

`templates/page.html.j2` orders the sections, one file each, and holds the wording. The page needs
no network and no script: style and images are inside, notebooks are linked."""

from collections.abc import Mapping
from itertools import product
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
from fly64lib.report.rows import StudyRows

Targets = Mapping[str, float]
Part = dict[str, Any]  # of the page: what a section's template shows


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
        specimen, simulation, gauge = setting
        title = f"{label(specimen)}, {simulation} simulation, {label(gauge)}"
        settings.append({"title": title, "parts": parts})
    doses = ", ".join(f"{dose:,.0f}" for dose in sorted(table.dose.unique()))
    names = ", ".join(map(label, answers.methods(table)))
    replicates = _count(table.replicate.nunique(), "replicate")
    titles = "; ".join(one["title"] for one in settings)
    profile = f" · profile {study.profile['profile']}" if study.profile else ""
    facts = (
        f"Ptychographic reconstruction of {titles}{profile}",
        f"{doses} photons per exposure · {names} · {replicates}",
    )
    of_study = {
        "Cost": provenance.cost(study),
        "Provenance": provenance.origin(study),
        "Notebooks": provenance.executed(study.root).to_dict("records"),
    }
    title = "How far can dose and overlap be cut?"
    return _rendered("page", title=title, facts=facts, settings=settings, study=of_study)


def answer(study: StudyRows, rows: DataFrame, targets: Targets) -> str:
    """The plain answer: photons needed for each target, by method and view, and what is missing."""
    return _rendered("answer", part=_answer(study, rows, targets))


def _rendered(template: str, **context: Any) -> str:
    layout = {"trim_blocks": True, "lstrip_blocks": True, "undefined": StrictUndefined}
    environment = Environment(loader=PackageLoader("fly64lib.report"), autoescape=True, **layout)
    filters = (label, number, described, answers.need_text)
    environment.filters |= {one.__name__: one for one in filters} | {"count": _count}
    return environment.get_template(f"{template}.html.j2").render(context)


def _answer(study: StudyRows, rows: DataFrame, targets: Targets) -> Part:
    replicates = rows.replicate.nunique()
    return {
        "replicates": replicates,
        "probability": 1 - 2.0 ** (1 - replicates),
        "cards": [_card(rows, metric, target) for metric, target in targets.items()],
        "views": answers.views(rows),
        "limits": LIMITS,
        "most": rows.photons_per_pixel.max(),
        "gaps": answers.missing(rows, study.named_views) + study.failed,
        "standing": answers.standing(rows),
    }


def _card(rows: DataFrame, metric: str, target: float) -> Part:
    """Who needs the fewest photons, spread how; what the others need; who does not get there."""
    needs, names = answers.needed_photons(rows, metric, target), answers.methods(rows)
    best = {name: answers.best_view(needs, name) for name in names}
    reached = []
    for photons, name, view in sorted((b[1], name, b[0]) for name, b in best.items() if b):
        own = rows[(rows.method == name) & (rows["view"] == view)]
        one = {"name": name, "view": view, "photons": photons, "images": own.images.median()}
        one["at_most"] = any(need.kind == "<" for need in needs[name, view])
        one["exposure"] = photons / float((own.photons_per_pixel / own.dose).median())
        one["times"] = photons / reached[0]["photons"] if reached else 1.0
        reached.append(one)
    failed, with_needs = [name for name in names if not best[name]], {name for name, _ in needs}
    about = {"metric": metric, "target": target, "column": columns()[metric], "needs": needs}
    shown = [name for name in (*names, *LIMITS) if name in with_needs]
    return about | {"reached": reached, "failed": failed, "names": shown}


def _reading(rows: DataFrame) -> Part:
    views = [view for view in answers.views(rows) if view not in OVERLAPS]
    return {
        "first": rows.iloc[0],
        "methods": [*answers.methods(rows), "flat"],
        "limits": _limits(rows),
        "other_views": [view for view in views if linear_overlap(view) is not None],
    }


def _limits(rows: DataFrame) -> list[str]:
    return [name for name in LIMITS if name in set(rows.method)]


def _curves(rows: DataFrame, targets: Targets) -> Part:
    names, limits = answers.methods(rows), _limits(rows)
    styles, views = method_styles(names), view_styles(answers.views(rows))
    drawn_first = reference_styles(limits) | styles
    shown = [one for one in columns().values() if one.curve or one.name in targets]
    axes = [Axis.of(rows, column, targets.get(column.name)) for column in shown]
    metrics = [_panels(axis, rows, drawn_first, views) for axis in axes if axis]
    return {
        "method_styles": styles | reference_styles(limits),
        "view_styles": views,
        "limits": limits,
        "metrics": sorted(metrics, key=lambda one: not one["is_target"]),
    }


def _panels(axis: Axis, rows: DataFrame, styles: Mapping, views: Mapping) -> Part:
    """The three rows of curves of one metric."""
    named, title = answers.named(rows), axis.column.label
    part = {"what": axis.column.title, "title": title[0].upper() + title[1:]}
    part |= {"is_target": axis.target is not None}
    part["over_dose"] = [
        (view.capitalize(), drawn(over(axis, named[named["view"] == view], "dose", styles)))
        for view in answers.views(named)
    ]
    part["over_photons"] = [
        (label(name), drawn(by_view(axis, rows[rows.method.isin((name, *REFERENCES))], views)))
        for name in answers.methods(rows)
    ]
    part["over_overlap"] = [
        (f"{dose:,.0f} photons per exposure", drawn(over(axis, own, "overlap", styles)))
        for dose, own in named.groupby("dose")
        if own.overlap.notna().any()
    ]
    return part


def _controls(rows: DataFrame, targets: Targets) -> Part:
    """Medians over replicates of each overlap view beside its controls."""
    shown = {"photons_per_pixel": "ph/px"}
    shown |= {name: columns()[name].label for name in targets if name in rows}
    medians = rows.groupby(["view", "dose", "method"])[list(shown)].median()
    lines = []
    conditions = answers.views(answers.named(rows)), sorted(rows.dose.unique())
    for view, dose, name in product(*conditions, answers.methods(rows)):
        keys = [(place, dose, name) for place in (view, *controls_of(view))]
        if any(key in medians.index for key in keys[1:]):
            values = medians.reindex(keys).T.to_numpy().ravel()
            lines.append({"view": view, "dose": dose, "method": name, "values": values})
    kinds = ("named", "spread", "fluence")
    return {"heads": [f"{what}: {k}" for what in shown.values() for k in kinds], "lines": lines}


def _tables(rows: DataFrame) -> Part:
    """All rows, view by view, and as CSV."""
    return {
        "columns": table_columns(rows, report=True),
        "views": {view: own.to_dict("records") for view, own in rows.groupby("view", sort=False)},
        "references": REFERENCES,
        "csv": data_url("text/csv", rows.to_csv(index=False).encode()),
        "count": len(rows),
    }


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
