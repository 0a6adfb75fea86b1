"""The page of a study: what each section shows, from rows, for the templates beside.

`templates/page.html.j2` orders the sections, one file each, and holds the wording. The page needs
no network and no script: style and images are inside, notebooks are linked, and the choice of a
target is made of radio buttons and style."""

from collections.abc import Mapping
from itertools import product
from typing import Any

from pandas import DataFrame

from fly64lib.design.study import CONTROLS, OVERLAPS, linear_overlap
from fly64lib.evaluation.columns import LIMITS, REFERENCES, columns, number, table_columns
from fly64lib.methods.by_name import described
from fly64lib.plots.curves import Axis, by_view, over
from fly64lib.plots.dose_map import panel
from fly64lib.plots.styles import label, method_styles, reference_styles, view_styles
from fly64lib.report import answers, experiment, provenance, questions
from fly64lib.report.claims import claims
from fly64lib.report.dose_map import columns_of, dose_map, pixel_nm_of, place, viewed
from fly64lib.report.gallery import data_url, drawn, gallery
from fly64lib.report.notebook_html import page_of
from fly64lib.report.offline import templates
from fly64lib.report.rows import SETTING, StudyRows
from fly64lib.report.sentences import goal, peer_of, sentences, short_goal

Targets = Mapping[str, float]
Part = dict[str, Any]  # of the page: what a section's template shows


def page_html(study: StudyRows, targets: Targets) -> str:
    """The whole page; each setting has its own answer, curves, images and tables."""
    table, settings = study.table, []
    for setting, rows in study.settings().items():
        parts = {
            "Answer": _answer(study, rows, targets, maps=True),
            "Claims": claims(rows),
            "Reading it": _reading(rows),
            "Experiment": experiment.pictures(study, rows),
            "Images": gallery(study, rows),
            "Curves": _curves(rows, targets),
            "Controls": _controls(rows, targets),
            "Tables": _tables(rows, targets),
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
    """The plain answer: what each method needs for each target, and what is missing."""
    return _rendered("answer", part=_answer(study, rows, targets, maps=False), number_of=0)


def _rendered(template: str, **context: Any) -> str:
    environment = templates()
    filters = (label, number, described, answers.need_text)
    own = {"count": _count, "viewed": viewed, "page_of": page_of}
    environment.filters |= {one.__name__: one for one in filters} | own
    return environment.get_template(f"{template}.html.j2").render(context)


def _answer(study: StudyRows, rows: DataFrame, targets: Targets, maps: bool) -> Part:
    """A choice of targets with maps, the first at several levels; else each alone, in words."""
    replicates, pixel_nm = rows.replicate.nunique(), pixel_nm_of(rows)
    there = {name for name in targets if name in rows and rows[name].notna().any()}
    known = {name: targets[name] for name in targets if name in there}
    more = experiment.other_photons(study, rows)
    several = next(iter(known), None) if maps else None
    chosen = [
        (name, one)
        for name, value in known.items()
        for one in (_levels(name, value) if name == several else [value])
    ]
    absent = [
        f"{columns()[name].label}: not in these rows" for name in targets if name not in known
    ]
    return {
        "replicates": replicates,
        "probability": 1 - 2.0 ** (1 - replicates),
        "choices": [_choice(rows, *one, pixel_nm, more, maps) for one in chosen],
        "first": next((k for k, one in enumerate(chosen) if one[1] == targets[one[0]]), 0),
        "limits": _limits(rows),
        "gaps": absent + answers.missing(rows, study.named_views) + study.failed,
        "standing": answers.standing(rows),
        "elsewhere": _elsewhere(study, rows, dict(list(known.items())[:1])),
        "taught": [name for name in answers.methods(rows) if name not in answers.usable(rows)],
        "peer": peer_of(answers.methods(rows)),
    }


def _elsewhere(study: StudyRows, rows: DataFrame, targets: Targets) -> list[tuple[str, Part]]:
    """Of each other setting its name and the sentences of the same target."""
    found, own = [], tuple(rows.iloc[0][list(SETTING)])
    for setting, others in study.settings().items():
        for metric, target in targets.items():
            if setting != own and metric in others:
                pixel_nm = pixel_nm_of(others)
                said = sentences(others, metric, target, pixel_nm, {})
                found.append((f"{label(setting[0])}, {setting[1]} simulation", said))
    return found


def _levels(metric: str, target: float) -> list[float]:
    """The target with one under and one over it, where the metric's unit says what that is."""
    unit = columns()[metric].unit
    if unit == "dB":
        return [target - 5, target, target + 5]
    return sorted({target / 2, target, min(1.5 * target, 1)}) if unit == "Nyquist" else [target]


def _choice(
    rows: DataFrame, metric: str, target: float, pixel_nm: float | None, more: Mapping, maps: bool
) -> Part:
    """Maps, sentences and the three questions for one target."""
    shown = dose_map(rows, metric, target)
    heads, lines = questions.gains(rows, metric, target)
    needs = answers.needed_photons(rows, metric, target, "dose")
    names = [*answers.methods(rows), *_limits(rows)]
    views = columns_of(rows)
    return {
        "metric": metric,
        "title": goal(metric, target, pixel_nm),
        "short": short_goal(metric, target, pixel_nm),
        "maps": [(label(name), drawn(panel(shown, name), "webp")) for name in shown.cells]
        if maps
        else [],
        "sentences": sentences(rows, metric, target, pixel_nm, more),
        "by_exposure": list(questions.by_exposure(rows, metric, target, pixel_nm)),
        "by_budget": list(questions.by_budget(rows, metric, pixel_nm)),
        "gain_heads": heads,
        "gains": lines,
        "places": [place(view) for view in views],
        "needs": [(name, [needs.get((name, view), []) for view in views]) for name in names],
    }


def _reading(rows: DataFrame) -> Part:
    views = [view for view in answers.views(rows) if view not in OVERLAPS]
    return {
        "first": rows.iloc[0],
        "methods": [*answers.methods(rows), "flat"],
        "limits": _limits(rows),
        "other_views": [view for view in views if linear_overlap(view) is not None],
        "present": answers.views(rows),
    }


def _limits(rows: DataFrame) -> list[str]:
    return [name for name in LIMITS if name in set(rows.method)]


def _curves(rows: DataFrame, targets: Targets) -> Part:
    names, limits = answers.methods(rows), _limits(rows)
    styles, views = method_styles(names), view_styles(answers.views(rows))
    drawn_first = reference_styles(limits) | styles
    first = [columns()[name] for name in targets]
    shown = [*first, *(one for one in columns().values() if one.curve and one not in first)]
    axes = [Axis.of(rows, column, targets.get(column.name)) for column in shown]
    metrics = [_panels(axis, rows, drawn_first, views) for axis in axes if axis]
    return {
        "method_styles": styles | reference_styles(limits),
        "view_styles": views,
        "limits": limits,
        "metrics": metrics,
    }


def _panels(axis: Axis, rows: DataFrame, styles: Mapping, views: Mapping) -> Part:
    """The two rows of curves of one metric."""
    named, title = answers.named(rows), axis.column.label
    part = {"what": axis.column.title, "title": title[0].upper() + title[1:]}
    part |= {"is_target": axis.target is not None, "over_dose": []}
    if axis.target is not None:
        part["over_dose"] = [
            (_begun(place(view)), drawn(over(axis, named[named["view"] == view], "dose", styles)))
            for view in columns_of(named)
        ]
    part["over_photons"] = [
        (label(name), drawn(by_view(axis, rows[rows.method.isin((name, *REFERENCES))], views)))
        for name in answers.methods(rows)
    ]
    return part


def _begun(text: str) -> str:
    return text[0].upper() + text[1:]


def _controls(rows: DataFrame, targets: Targets) -> Part:
    """Medians over replicates of each overlap view beside its controls."""
    shown = {"photons_per_pixel": "ph/px"}
    shown |= {name: columns()[name].label for name in targets if name in rows}
    medians = rows.groupby(["view", "dose", "method"])[list(shown)].median()
    lines = []
    conditions = answers.views(answers.named(rows)), sorted(rows.dose.unique())
    for view, dose, name in product(*conditions, answers.methods(rows)):
        keys = [(one, dose, name) for one in (view, *(f"{view}_{kind}" for kind in CONTROLS))]
        if any(key in medians.index for key in keys[1:]):
            values = medians.reindex(keys).T.to_numpy().ravel()
            lines.append({"view": view, "dose": dose, "method": name, "values": values})
    kinds = ("named", *CONTROLS)
    return {"heads": [f"{what}: {k}" for what in shown.values() for k in kinds], "lines": lines}


def _tables(rows: DataFrame, targets: Targets) -> Part:
    """All rows, view by view, in two tables that fit a page: what people ask for, and the rest; and
    as CSV."""
    shown = [one for one in table_columns(rows, report=True) if not one.name.endswith("_skill")]
    first = ("photons_per_pixel", "phase_psnr", "amplitude_psnr", "deviance_held_out", *targets)
    kinds = (
        [one for one in shown if one.name in first],
        [one for one in shown if one.name not in first],
    )
    return {
        "kinds": dict(zip(("Photons and targets", "All else"), kinds, strict=True)),
        "views": {view: own.to_dict("records") for view, own in rows.groupby("view", sort=False)},
        "references": REFERENCES,
        "csv": data_url("text/csv", rows.to_csv(index=False).encode()),
        "count": len(rows),
    }


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" + ("" if count == 1 else "s")
