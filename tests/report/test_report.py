"""The report says what the rows say: photons needed, standing, gaps; its page is whole, offline,
and fits a phone."""

import json
import re
import shutil
import subprocess
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fly64lib.notebook.parameters import ExploreParameters, ReportParameters
from fly64lib.plots.curves import by_view, image_grid, method_colour, over, replicate_range
from fly64lib.plots.figures import saved
from fly64lib.report.report import TARGETS, answer, report_html, write_report
from fly64lib.report.rows import (
    best_view,
    collect,
    missing,
    need_text,
    needed,
    needed_photons,
    standing,
)
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.files import read_json, sha256_file, write_json

SLOPE = {
    "good": 10.0,
    "poor": 5.0,
    "cramer_rao": 12.0,
    "bayesian": 14.0,
    "flat": 0.0,
}  # dB per decade of photons
OFFSET = {"good": 2.0, "poor": 1.0, "cramer_rao": 2.0, "bayesian": 4.0, "flat": 9.0}
SHARE = {
    "baseline": 0.04,
    "dense": 0.02,
    "sparse": 0.004,
    "dense_spread": 0.02,
}  # photons per pixel over dose


def row(method: str, dose: float, view: str, replicate: int, **other: object) -> dict:
    """A row whose phase PSNR is OFFSET + SLOPE log10(photons per pixel), plus the replicate in
    dB."""
    photons = SHARE[view] * dose
    psnr = (
        OFFSET[method] + SLOPE[method] * np.log10(photons) + (0 if method == "flat" else replicate)
    )
    return {
        "dose": dose,
        "view": view,
        "replicate": replicate,
        "gauge": "known_probe",
        "images": round(1e4 * SHARE[view]),
        "photons_per_pixel": photons,
        "simulation": "fine",
        "specimen": "siemens_star",
        "method": method,
        "simulation_seed": 42 + 1000 * replicate,
        "phase_psnr": psnr,
        "frc_half": float(np.clip(psnr / 40, 0, 1)),
        "deviance_held_out": 10 / max(psnr, 0.1),
        "cpu_seconds": 2.0,
        "seconds": 1.0,
        "settings": '{"a": 1}',
    } | other


def write_study(
    root: Path,
    replicates: int = 1,
    views: tuple[str, ...] = ("baseline", "dense", "sparse"),
    methods: tuple[str, ...] = ("good", "poor", "flat", "cramer_rao", "bayesian"),
    first: int = 0,
    **other: object,
) -> Path:
    for replicate in range(first, first + replicates):
        for dose in (1e3, 1e4, 1e5):
            for view in views:
                path = (
                    root
                    / f"replicate_{replicate}"
                    / "phase_g"
                    / f"dose_{dose:.0f}"
                    / view
                    / "comparison.json"
                )
                write_json(
                    path,
                    {
                        "rows": [row(name, dose, view, replicate, **other) for name in methods],
                        "versions": {"python": "3.x"},
                    },
                )
    return root


def test_photons_needed_are_those_of_a_metric_linear_in_log_photons():
    points = [(photons, 2 + 10 * np.log10(photons)) for photons in (4.0, 40.0, 400.0)]
    found = needed(points[::-1], 20.0)
    assert found.kind == "=" and found.photons == pytest.approx(10**1.8)


def test_a_target_met_at_once_or_never_is_a_bound_and_not_a_number():
    assert str(needed([(4.0, 30.0), (40.0, 31.0)], 20.0)) == "≤ 4"
    assert str(needed([(4.0, 10.0), (400.0, 19.9)], 20.0)) == "> 400"


def test_a_metric_that_falls_again_with_more_photons_does_not_count_as_reached_before():
    found = needed([(1.0, 25.0), (10.0, 15.0), (100.0, 25.0)], 20.0)
    assert found.kind == "=" and found.photons == pytest.approx(10**1.5)


def test_replicates_give_a_median_and_a_range_and_one_replicate_none(tmp_path):
    alone = needed_photons(collect(write_study(tmp_path / "1")).rows, "phase_psnr", 20.0)
    assert need_text(alone["good", "baseline"]) == "63.1"
    three = needed_photons(
        collect(write_study(tmp_path / "3", replicates=3)).rows, "phase_psnr", 20.0
    )
    assert need_text(three["good", "dense"]) == "50.1 (39.8–63.1)"
    assert need_text(three["good", "baseline"]) == "≤ 40 in 1 of 3; 56.6 (50.1–63.1) in 2 of 3"
    assert best_view(three, "poor") is None and best_view(three, "good")[1] == pytest.approx(
        10**1.7
    )
    points = replicate_range(
        [one for one in collect(tmp_path / "3").rows if one["method"] == "good"],
        "dose",
        "phase_psnr",
    )
    assert len(points) == 9
    assert np.allclose(points[:, 3] - points[:, 2], 2)


def test_standing_counts_conditions_above_the_flat_object_and_the_limits(tmp_path):
    good, poor = standing(collect(write_study(tmp_path)).rows)
    assert (good["conditions"], good["best"], poor["best"]) == (9, 9, 0)
    assert good["below_flat"] == ["dose 1,000 sparse, replicate 0"]  # 2 + 10 log10(4) < 9
    assert good["cramer_rao"]["above"] == 0 and good["cramer_rao"]["compared"] == 9
    gaps = [
        -2 * np.log10(SHARE[view] * dose)
        for view in ("baseline", "dense", "sparse")
        for dose in (1e3, 1e4, 1e5)
    ]
    assert good["cramer_rao"]["median_db"] == pytest.approx(np.median(gaps))


def test_cells_that_others_lead_one_to_expect_are_named_when_they_are_not_there(tmp_path):
    study = write_study(tmp_path, views=("baseline", "dense"))
    path = study / "replicate_0/phase_g/dose_1000/dense/comparison.json"
    write_json(
        path,
        {
            "rows": [one for one in read_json(path)["rows"] if one["method"] != "poor"],
            "versions": {},
        },
    )
    shutil.rmtree(study / "replicate_0/phase_g/dose_100000/baseline")
    gaps = missing(collect(study).rows)
    assert gaps[0] == "view sparse: in no condition"
    assert (
        "dose 1,000 dense, replicate 0: poor" in gaps
        and "dose 100,000 baseline, replicate 0: all" in gaps
    )
    page = report_html(collect(study))  # what there is is shown
    assert (
        all(gap in page for gap in gaps)
        and "No control views" in page
        and "Overlap was not measured" in page
    )


def test_scans_of_different_size_are_refused_and_so_is_a_row_that_is_there_twice(tmp_path):
    write_study(tmp_path / "quick")
    write_study(tmp_path / "full", first=7, images=10304)
    with pytest.raises(DataContractError, match="quick, full.*never compared"):
        collect(tmp_path)
    write_study(tmp_path / "twice/a")
    write_study(tmp_path / "twice/b")
    with pytest.raises(DataContractError, match="twice"):
        collect(tmp_path / "twice")
    with pytest.raises(DataContractError, match="comparison.json"):
        collect(tmp_path / "nowhere")


def test_matched_and_fine_stand_beside_each_other_and_are_never_pooled(tmp_path):
    for simulation in ("fine", "matched"):
        write_study(
            tmp_path / simulation,
            views=("baseline",),
            methods=("good", "flat"),
            simulation=simulation,
        )
    study = collect(tmp_path)
    assert {key[1]: len(rows) for key, rows in study.settings().items()} == {
        "fine": 6,
        "matched": 6,
    }
    page = report_html(study)
    assert "siemens star, matched simulation" in page and "siemens star, fine simulation" in page


class Links(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.targets, self.tags = [], []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append(tag)
        self.targets += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_needs_nothing_but_itself_and_the_record_is_written_last(tmp_path):
    study = write_study(
        tmp_path, replicates=2, views=("baseline", "dense", "sparse", "dense_spread")
    )
    name = 'notebooks/odd "<name>&.ipynb'
    write_json(study / name, {"metadata": {"papermill": {"duration": 12.5}}})
    for number, wall_s in enumerate((100.0, 31.5)):
        write_json(
            study / f"notebooks/{number}/train_gs1.ipynb",
            {"metadata": {"papermill": {"duration": wall_s}, "fly64": {"cpu_seconds": 20.25}}},
        )
    write_json(
        study / "study.json",
        {"profile": "quick", "settings": {"doses": [1000, 10000], "scan_step": 2}},
    )
    record = write_report(study, ReportParameters().targets)
    page = (study / "index.html").read_text(encoding="utf-8")
    links = Links(page)
    assert read_json(record)["index_sha256"] == sha256_file(study / "index.html")
    assert {link.split(":")[0] for link in links.targets if not link.startswith("#")} == {
        "data",
        "notebooks/odd%20%22%3Cname%3E%26.ipynb",
        "notebooks/0/train_gs1.ipynb",
        "notebooks/1/train_gs1.ipynb",
    }
    assert (
        "<td>train</td><td>2</td><td>132</td><td>40.5</td>" in page
    )  # wall and CPU seconds of the stage
    assert "profile quick" in page and "doses 1000/10000, scan_step 2" in page
    assert not {"script", "link", "iframe", "name"} & set(links.tags) and "url(" not in page
    assert {link[1:] for link in links.targets if link.startswith("#")} <= set(
        re.findall(r'id="([^"]+)"', page)
    )
    assert "median of 2 replicates" in page and "50%" in page
    assert "dense, 1,000, good" in page  # the control beside its named view


def test_the_legend_names_the_limits_that_there_are_and_no_other(tmp_path):
    without = collect(write_study(tmp_path, methods=("good", "flat")))
    page = report_html(without)
    assert (
        "The limits were not computed in this study." in page
        and "Cramér-Rao limit</span>" not in page
    )


def test_one_replicate_says_that_it_has_no_interval(tmp_path):
    study = collect(write_study(tmp_path))
    assert "no interval" in answer(study, study.rows, TARGETS)


def test_curves_draw_replicate_ranges_and_both_limits(tmp_path):
    rows = collect(write_study(tmp_path, replicates=3)).rows
    figure = over(
        [one for one in rows if one["view"] == "dense"],
        "dose",
        "phase_psnr",
        ["good", "poor"],
        20.0,
    )
    styles = [line.lines[0].get_linestyle() for line in figure.axes[0].containers]
    assert len(figure.axes[0].containers) == 5 and {"--", "-."} < set(styles)
    bars = figure.axes[0].containers[-1].lines[2][0].get_segments()
    assert all(np.ptp(segment[:, 1]) == pytest.approx(2) for segment in bars)
    assert by_view([one for one in rows if one["method"] != "poor"], "frc_half", 0.5).axes
    assert method_colour("pinn", ["lsqml", "pinn"]) != method_colour("lsqml", ["lsqml", "pinn"])


def test_a_grid_of_images_leaves_a_marked_gap_where_an_object_is_missing():
    truth = np.exp(1j * np.random.default_rng(0).normal(0, 0.2, (12, 20)))
    region = slice(1, 11), slice(2, 18)
    figure = image_grid({("a", "x"): truth * np.exp(0.7j)}, ["a"], ["x", "y"], truth, region)
    shown, gap = figure.axes[2], figure.axes[3]
    assert np.allclose(
        shown.images[0].get_array(), figure.axes[0].images[0].get_array(), atol=1e-6
    )  # the phase is free
    assert not gap.images and gap.texts[0].get_text() == "missing"


def test_targets_out_of_range_are_refused():
    with pytest.raises(ConfigError, match="resolution"):
        ReportParameters(resolution=2.0)
    with pytest.raises(ConfigError, match="view"):
        ExploreParameters(view=3)


@pytest.mark.browser
def test_the_page_fits_a_phone_and_a_desk_in_a_real_browser(tmp_path):
    chromium = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    assert chromium, "no Chromium here: apt-get install chromium"
    study = write_study(
        tmp_path / "study", replicates=2, views=("baseline", "dense", "sparse", "dense_spread")
    )
    picture = np.exp(1j * np.random.default_rng(0).normal(0, 0.2, (60, 160)))
    for name in ("objects", "frc", "spectrum"):
        saved(
            image_grid({("a", "x"): picture}, ["a"], ["x"], picture, (slice(None),) * 2),
            study / f"replicate_0/phase_g/dose_1000/baseline/{name}.png",
        )
    write_report(study)
    page = (study / "index.html").read_text(encoding="utf-8").replace("<details", "<details open")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
        "--hide-scrollbars",
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP * ~NOTFOUND",
        "--allow-file-access-from-files",
    ]  # offline, whatever the machine is

    def browser(what: str, width: int, height: int) -> str:
        profile = [
            f"--user-data-dir={tmp_path / f'profile-{width}-{what[2:6]}'}",
            f"--window-size={max(width, 500)},{height}",
        ]
        return subprocess.run(
            [chromium, *flags, *profile, what, (study / "frame.html").as_uri()],
            capture_output=True,
            text=True,
            timeout=600,
            check=True,
        ).stdout

    (study / "opened.html").write_text(page, encoding="utf-8")
    for width, height in (
        (390, 844),
        (1280, 900),
    ):  # a window is never narrower than 500 px: a frame is the phone
        (study / "frame.html").write_text(
            '<body style="margin:0"><iframe src="opened.html" style="border:0"'
            f' width="{width}" height="{height}"></iframe><script>onload = () => {{ const inner'
            " = document.querySelector('iframe').contentDocument;const seen = part =>"
            " part.offsetHeight > 40 && part.offsetWidth > 300;document.body.dataset.found ="
            " JSON.stringify({ width: inner.documentElement.scrollWidth,images:"
            " inner.images.length, broken: [...inner.images].filter(image =>"
            " !image.naturalWidth).length,sections:"
            " [...inner.querySelectorAll('section')].filter(seen).map(part => part.id),answer:"
            " inner.querySelector('.answer p').innerText.split('\\n')[0],tables:"
            " [...inner.querySelectorAll('table')].filter(seen).length }) }</script>",
            encoding="utf-8",
        )
        found = json.loads(
            unescape(re.search(r'data-found="([^"]*)"', browser("--dump-dom", width, height))[1])
        )
        assert (found["width"], found["broken"]) == (width, 0) and found["images"] > 20
        assert found["sections"] == [
            "answer",
            "reading-it",
            "curves",
            "controls",
            "images",
            "tables",
            "cost",
            "provenance",
            "notebooks",
        ]
        assert (
            found["answer"].startswith("good needs")
            and "photons per object pixel" in found["answer"]
        )
        assert found["tables"] >= 8
    shot = tmp_path / "shot.png"
    browser(f"--screenshot={shot}", 390, 844)
    with Image.open(shot) as picture:
        assert (
            picture.size == (500, 844) and np.asarray(picture.convert("L")).std() > 10
        )  # not blank
