"""explore.ipynb: one condition of a finished study at a time, chosen by drop-down menus."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from IPython.display import Image, Markdown, display
from matplotlib.figure import Figure

from fly64lib.design.study import dose_folder
from fly64lib.evaluation.columns import REFERENCES, markdown_table, number, table
from fly64lib.evaluation.rings import frc_curve
from fly64lib.notebook.parameters import ExploreParameters
from fly64lib.plots import figures
from fly64lib.report.rows import StudyRows
from ptycho_torch.errors import DataContractError, MissingDependencyError
from ptycho_torch.files import read_json

KEYS = ("replicate", "dose", "view", "method")


def newest_study() -> Path:
    """The study under runs/, here or else in the folder above, that was compared last, relative to
    this folder. Raises DataContractError where there is none."""
    for runs in (Path("runs"), Path("..", "runs")):
        results = [
            path
            for below in ("", "replicate_*/")
            for path in runs.glob(f"*/{below}phase_g/dose_*/*/comparison.json")
        ]
        if results:
            newest = max(results, key=lambda path: path.stat().st_mtime)
            return runs / newest.relative_to(runs).parts[0]
    text = f"no finished study under {Path('runs').resolve()} or in the folder above it"
    advice = "make one (fly64 run --profile quick --output runs/quick), or give its study_dir"
    raise DataContractError(f"{text}; {advice}")


def choices(study: StudyRows) -> dict[str, list]:
    """What there is to choose from, by key, in order of appearance."""
    rows = _rows(study, {})
    return {key: list(dict.fromkeys(row[key] for row in rows)) for key in KEYS}


def start(study: StudyRows, parameters: ExploreParameters) -> dict:
    """The first condition that is what the parameters say, where they say anything."""
    asked = {key: getattr(parameters, key) for key in KEYS if getattr(parameters, key) is not None}
    found = _rows(study, asked)
    if not found:
        raise DataContractError(f"{study.root} has no {asked}; there are {choices(study)}")
    return {key: found[0][key] for key in KEYS}


def show(study: StudyRows, choice: Mapping) -> None:
    """Display metrics, object and error, FRC, scan positions and measured overlap of one row."""
    found = _rows(study, choice)
    if not found:
        display(Markdown(f"**There is no {choice['method']} for this condition.**"))
        return
    (row,) = found
    display(Markdown(markdown_table(*table([row]))))
    images, truth, region = study.condition(row)
    image, folder = images[row["method"]], study.root / row["folder"]
    display(_png(figures.objects({row["method"]: image}, truth, region, errors=True)))
    display(_png(figures.frc_curves({row["method"]: frc_curve(image[region], truth[region])})))
    # Fluence views lie where the baseline lies.
    positions = "baseline" if "_fluence" in row["view"] else row["view"]
    for path in sorted(folder.glob(f"*/overlap/{positions}_test.png")):
        display(Image(str(path)))
    here = f"{dose_folder(row['dose'])}/{row['view']}"
    for path in sorted(folder.glob(f"*/{here}/overlap_test.json")):
        display(Markdown(_overlap(read_json(path))))


def _overlap(measured: Mapping) -> str:
    """The figures of a view's overlap as a table."""
    names = ("within_groups", "between_images", "between_groups")
    heads = [f"disc overlap {name.replace('_', ' ')}" for name in names]
    overlaps = [number(measured[name]["mean_disc_overlap"]) for name in names]
    heads = ["groups", "probe diameter D / px", *heads, "pixels under a tenth of the mean fluence"]
    line = [str(measured["groups"]), number(measured["probe_diameter_px"]), *overlaps]
    return markdown_table(heads, [[*line, f"{measured['fluence']['share_under_tenth']:.1%}"]])


def _rows(study: StudyRows, choice: Mapping) -> list[dict]:
    """Rows of reconstructions."""
    rows = (row for row in study.rows if row["method"] not in REFERENCES)
    return [row for row in rows if choice.items() <= row.items()]


def browser(study: StudyRows, first: Mapping) -> object:
    """Menus above what :func:`show` displays. Raises MissingDependencyError without ipywidgets."""
    try:
        import ipywidgets
    except ImportError as error:
        advice = "choosing needs ipywidgets: pip install 'fly64[lab]'"
        raise MissingDependencyError(advice) from error
    menus = {}
    for key, values in choices(study).items():
        options = [(f"{one:,.10g}" if key == "dose" else str(one), one) for one in values]
        menus[key] = ipywidgets.Dropdown(options=options, value=first[key], description=key)
    output = ipywidgets.interactive_output(lambda **choice: show(study, choice), menus)
    return ipywidgets.VBox([ipywidgets.HBox(list(menus.values())), output])


def _png(figure: Figure) -> Image:
    data = BytesIO()
    figure.savefig(data, dpi=90, format="png")
    return Image(data.getvalue())
