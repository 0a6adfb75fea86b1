"""The page's images: figures and picture files as data URLs, and grids of reconstructed objects."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from pandas import DataFrame
from PIL import Image

from fly64lib.design.study import controls_of, dose_folder
from fly64lib.plots.figures import image_grid
from fly64lib.plots.styles import label
from fly64lib.report import answers
from fly64lib.report.dose_map import place
from fly64lib.report.rows import StudyRows
from ptycho_torch.errors import PtychoError

_PICTURES = {  # of a condition, made by phase G
    "objects": ("phase, amplitude, their errors; orange and blue: beyond the scale", "wide"),
    "frc": ("Fourier ring correlation with the truth", "grid"),
    "spectrum": ("spectrum of the phase error", "grid"),
}


class Picture(NamedTuple):
    """An image as a data URL, or the reason why there is none."""

    caption: str
    source: str = ""
    kind: str = "grid"  # "wide" scrolls sideways on a narrow page
    reason: str = ""


def gallery(study: StudyRows, rows: DataFrame) -> dict[str, Any]:
    """The first replicate's objects over dose and beside controls, and phase G's pictures."""
    first = rows.replicate.min()
    own = rows[rows.replicate == first]
    cells = {key: part for key, part in own.groupby(["view", "dose"])}
    doses, views = sorted(own.dose.unique()), answers.views(answers.named(own))
    grids, controls, every = [], {}, {}
    for view in views:
        there = [dose for dose in doses if (view, dose) in cells]
        columns = {f"{dose:,.0f} photons": cells[view, dose] for dose in there}
        caption = f"Phase {place(view)}. Dose rises to the right."
        grids.append(_grid(study, columns, caption))
        beside_it = (view, *controls_of(view))
        beside, pictures = [], []
        for dose in doses:
            if any((one, dose) in cells for one in beside_it[1:]):
                there = [one for one in beside_it if (one, dose) in cells]
                columns = {label(one): cells[one, dose] for one in there}
                caption = (
                    f"Phase, {dose:,.0f} photons per exposure in {view} and its spread control; as"
                    " many in all in its fluence control."
                )
                beside.append(_grid(study, columns, caption, everywhere=True))
            if (view, dose) in cells:
                folder = study.root / cells[view, dose].folder.iloc[0] / "phase_g"
                folder = folder / dose_folder(dose) / view
                title = f"{label(view)}, {dose:,.0f} photons"
                for path in filter(Path.is_file, (folder / f"{name}.png" for name in _PICTURES)):
                    text, kind = _PICTURES[path.stem]
                    pictures.append(Picture(f"{title}: {text}", from_disk(path), kind))
        controls[f"{view.capitalize()} beside its controls"] = beside
        every[f"{label(view)}: objects, errors, FRC at every dose"] = pictures
    return {"replicate": first, "grids": grids, "folded": controls | every}


def _grid(
    study: StudyRows, columns: Mapping[str, DataFrame], caption: str, everywhere: bool = False
) -> Picture:
    """Phase images, a row for each method and a column for each entry; `everywhere`: only of
    methods that all entries have, where there are some."""
    objects, reasons, names = {}, [], []
    for title, rows in columns.items():
        try:
            images, truth, region = study.condition(rows.iloc[0])
            own = [name for name in answers.methods(rows) if name in images]
            objects |= {(name, title): images[name] for name in own}
            names += own
        except PtychoError as error:
            reasons.append(str(error))
    if not objects:
        return Picture(caption, reason="; ".join(reasons) or "no such condition")
    ordered = [name for name in answers.methods(study.table) if name in names]
    whole = [name for name in ordered if names.count(name) == len(columns)]
    ordered = whole if everywhere and whole else ordered
    figure = image_grid(objects, ordered, list(columns), truth, region)
    return Picture(caption, drawn(figure, "webp"))


def drawn(figure: Figure, kind: str = "png") -> str:
    """A figure as a data URL: "png" for lines, "webp" for images."""
    data = io.BytesIO()
    figure.savefig(data, dpi=140, format=kind)
    return data_url(f"image/{kind}", data.getvalue())


def from_disk(path: Path) -> str:
    """A picture file as a data URL, at a fifth of a PNG's size."""
    data = io.BytesIO()
    with Image.open(path) as image:
        image.convert("RGB").save(data, "WEBP", quality=80)
    return data_url("image/webp", data.getvalue())


def data_url(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
