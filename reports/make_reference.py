"""Turn a finished study into the committed reference report, readable without running anything.

    python reports/make_reference.py runs/quick [reports/reference]
    python reports/make_reference.py runs/labyrinth reports/labyrinth --answer-only

Writes `index.html` (the study's page, its pictures smaller), `README.md` (the answer and how it was
made), `rows.csv` and `report.json` (settings without their lists), `study.json`, and of the first
replicate's first, middle and last dose and view `figures/` (objects, FRC and error spectra) and
`notebooks/` (executed, their pictures as JPEG, each with a page to read); the page links these
alone. Paths of the machine are cut at the study's folder. Fails when the whole is larger than 15
MB. The answer only is `README.md`, `rows.csv` and `study.json`."""

import base64
import io
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar
from urllib.parse import unquote

import tyro
from pandas import DataFrame
from PIL import Image

from fly64lib.design.study import dose_folder
from fly64lib.evaluation.columns import markdown_table
from fly64lib.plots.styles import label
from fly64lib.report import answers
from fly64lib.report.gallery import data_url
from fly64lib.report.notebook_html import write_page
from fly64lib.report.provenance import commit
from fly64lib.report.report import TARGETS
from fly64lib.report.rows import collect
from fly64lib.sweep.folder import SweepFolder, status
from fly64lib.sweep.profile import Profile, load_profile
from ptycho_torch.commands import run_options
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import config, flat, to_dict
from ptycho_torch.files import read_json, write_json

T = TypeVar("T")
LIMIT_MB = 15
WIDTH_PX, PAGE_PX = 340, 900  # of pictures beside the page and in it, at most
OUTPUT = Path(__file__).with_name("reference")


def make(study_dir: Path, output: Path, answer_only: bool = False) -> float:
    """Write the reference of a finished study in place of an earlier one; return its size in MB.
    Raises ConfigError for a study that is not finished, and for a folder that holds anything but an
    earlier reference."""
    study = SweepFolder.of(study_dir)
    states = status(study, working=False)
    if (
        len(states["done"]) < len(study.settings.notebooks())
        or not (study.folder / "index.html").is_file()
    ):
        raise ConfigError(f"{study_dir} is not finished; go on with: fly64 resume {study_dir}")
    if output.exists() and any(output.iterdir()) and not (output / "study.json").is_file():
        raise ConfigError(
            f"{output} holds something else than a reference report; choose another folder"
        )
    if output.exists():
        shutil.rmtree(output)
    rows = collect(study.folder).table
    if not answer_only:
        _write_pages(study, output)
    output.mkdir(parents=True, exist_ok=True)
    rows.assign(settings=rows["settings"].map(_brief)).to_csv(output / "rows.csv", index=False)
    _write(output / "README.md", _readme(study, rows, answer_only))
    write_json(
        output / "study.json", {"profile": study.profile, "settings": to_dict(study.settings)}
    )
    size_mb = sum(path.stat().st_size for path in output.rglob("*") if path.is_file()) / 1e6
    if size_mb > LIMIT_MB:
        raise ConfigError(
            f"{output} has {size_mb:.1f} MB, more than {LIMIT_MB}: fewer conditions, or smaller"
            " pictures"
        )
    return size_mb


def _write_pages(study: SweepFolder, output: Path) -> None:
    """The page with the record of its numbers, and notebooks and figures that it links."""
    root, conditions = str(study.folder), kept_conditions(study.settings)
    for name in study.settings.notebooks():
        if str(Path(name).parent).removeprefix("notebooks/") in ("notebooks", *conditions):
            _write(output / name, _smaller_notebook(study.folder / name, root))
            write_page(output / name)
    for condition in conditions[1:]:
        replicate, dose, view = condition.split("/")
        for path in sorted((study.folder / replicate / "phase_g" / dose / view).glob("*.png")):
            _picture(path, output / "figures" / f"{replicate}_{dose}_{view}_{path.stem}.jpg")
    page = (study.folder / "index.html").read_text(encoding="utf-8").replace(root, ".")
    _write(output / "index.html", _smaller_page(page, output))
    report = read_json(study.folder / "report.json")
    for row in report["rows"]:
        if "settings" in row:  # the limits have none
            row["settings"] = _brief(row["settings"])
    write_json(output / "report.json", report)


def kept_conditions(profile: Profile) -> list[str]:
    """The first replicate's folder, and in it those of the first, middle and last dose and view,
    and of all controls at these doses."""
    doses, views = _ends(sorted(profile.doses)), _ends(profile.every_view)
    views = [*views, "controls", *profile.controls]
    return ["replicate_0", *(f"replicate_0/{dose_folder(d)}/{v}" for d in doses for v in views)]


def _brief(settings: object) -> object:
    """A row's settings without lists and tables: priors tried, spectra found. A study has them in
    its result.json files."""
    if not isinstance(settings, str):
        return settings
    kept = {
        name: value
        for name, value in json.loads(settings).items()
        if not isinstance(value, list | dict)
    }
    return json.dumps(kept, sort_keys=True)


def _ends(values: Sequence[T]) -> list[T]:
    return list(dict.fromkeys((values[0], values[len(values) // 2], values[-1])))


def _smaller_page(page: str, folder: Path) -> str:
    """The study's page with smaller pictures, and no link to what is not in the folder."""

    def smaller(found: re.Match) -> str:
        with Image.open(io.BytesIO(base64.b64decode(found[1]))) as image:
            image = image.convert("RGB")
            image.thumbnail((PAGE_PX, 10 * PAGE_PX))
            data = io.BytesIO()
            image.save(data, "WEBP", quality=50, method=4)
        return data_url("image/webp", data.getvalue())

    def held(found: re.Match) -> str:
        return found[0] if (folder / unquote(found[1])).is_file() else found[2]

    page = re.sub(r"data:image/(?:webp|png);base64,([A-Za-z0-9+/=]+)", smaller, page)
    return re.sub(r'<a href="(notebooks/[^"]+)">([^<]*)</a>', held, page)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _smaller_notebook(path: Path, root: str) -> str:
    """An executed notebook's text with its pictures as JPEG, and without the machine's paths."""
    notebook = read_json(path)
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                png = base64.b64decode("".join(data.pop("image/png")))
                data["image/jpeg"] = base64.b64encode(_jpeg(png)).decode("ascii")
                output["metadata"] = {}
    notebook["metadata"].pop("widgets", None)  # pictures once more
    for key in ("input_path", "output_path"):
        notebook["metadata"].get("papermill", {}).pop(key, None)
    return json.dumps(notebook, indent=1, ensure_ascii=False).replace(root, ".") + "\n"


def _picture(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_jpeg(source.read_bytes()))


def _jpeg(png: bytes) -> bytes:
    data = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image = image.convert("RGB")
        image.thumbnail((WIDTH_PX, 10 * WIDTH_PX))
        image.save(data, "JPEG", quality=50, optimize=True)
    return data.getvalue()


def _readme(study: SweepFolder, rows: DataFrame, answer_only: bool) -> str:
    views, executed = list(rows["view"].unique()), len(study.settings.notebooks())
    how = "STUDY FOLDER --answer-only" if answer_only else "STUDY"
    pages = (
        f" Of {executed} executed notebooks those of the first replicate's first, middle and last"
        " dose and view are in `notebooks/`; open `index.html` for the whole report."
    )
    parts = [
        f"# Reference results: profile `{study.profile}`, {study.settings.study.specimen}\n",
        f"`fly64 run --profile {study.profile} --output STUDY{_changes(study)}`, then `python"
        f" reports/make_reference.py {how}`; {commit()}. Every number is in `rows.csv`."
        f"{'' if answer_only else pages} These results are of this profile's scan; other"
        " profiles' are never compared with them.\n",
    ]
    for metric, target in TARGETS.items():
        needs = answers.needed_photons(rows, metric, target)
        lines = [
            [label(name), *(answers.need_text(needs.get((name, view), [])) for view in views)]
            for name in dict.fromkeys(name for name, _ in needs)
        ]
        parts.append(f"Photons per object pixel for {metric} ≥ {target:g}:\n")
        parts.append(markdown_table(["", *views], lines) + "\n")
    return "\n".join(parts)


def _changes(study: SweepFolder) -> str:
    """The settings that are not the profile's own, as options."""
    own, taken = (flat(to_dict(one)) for one in (load_profile(study.profile), study.settings))
    changed = {key: value for key, value in taken.items() if own.get(key) != value}
    return "".join(f" --set {key}={_as_text(value)}" for key, value in changed.items())


def _as_text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


@config
class Options:
    """Turns a finished study into the committed reference report."""

    study: Annotated[Path, tyro.conf.Positional]  # a finished study's folder
    output: Annotated[Path, tyro.conf.Positional] = OUTPUT  # in place of what is there
    answer_only: bool = False  # README.md, rows.csv and study.json, without pages and pictures


def command(options: Options) -> int:
    size_mb = make(options.study, options.output, options.answer_only)
    print(f"{options.output}: {size_mb:.1f} MB")
    return 0


def main(argv: list[str] | None = None) -> int:
    return run_options(Options, command, argv, "python reports/make_reference.py")


if __name__ == "__main__":
    raise SystemExit(main())
