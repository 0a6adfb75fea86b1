"""The page is whole, offline, says what the rows say, and fits a phone."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from chromium import WINDOWS, assert_fits, chromium
from made_up_study import write_study
from pandas import DataFrame
from PIL import Image

from fly64lib.notebook.parameters import ExploreParameters, ReportParameters
from fly64lib.plots.figures import image_grid, saved
from fly64lib.report.experiment import other_photons
from fly64lib.report.report import TARGETS, write_report
from fly64lib.report.rows import StudyRows, collect
from fly64lib.report.study_page import page_html
from ptycho_torch.errors import ConfigError
from ptycho_torch.files import read_json, sha256_file, write_json


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
    page = page_html(study, TARGETS)
    assert "siemens star, matched simulation" in page and "siemens star, fine simulation" in page


SECTIONS = (
    "answer claims reading-it experiment images curves controls tables cost provenance notebooks"
).split()


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
        "notebooks/odd%20%22%3Cname%3E%26.html",
        "notebooks/0/train_gs1.html",
        "notebooks/1/train_gs1.html",
    }
    assert (
        "<td>train</td><td>2</td><td>132</td><td>40.5</td>" in page
    )  # wall and CPU seconds of the stage
    assert "profile quick" in page and "doses 1000/10000, scan_step 2" in page
    assert not {"script", "link", "iframe", "name"} & set(links.tags) and "url(" not in page
    assert {link[1:] for link in links.targets if link.startswith("#")} <= set(
        re.findall(r'id="([^"]+)"', page)
    )
    assert "half the range of 2 replicates" in page and "50%" in page
    assert "dense, 1,000, good" in page  # the control beside its named view


def test_the_legend_names_the_limits_that_there_are_and_no_other(tmp_path):
    without = collect(write_study(tmp_path, methods=("good", "flat")))
    page = page_html(without, TARGETS)
    assert (
        "The limits were not computed in this study." in page
        and "Cramér-Rao limit</span>" not in page
    )


def test_what_is_not_there_is_said(tmp_path):
    page = page_html(collect(write_study(tmp_path, views=("baseline", "dense"))), TARGETS)
    assert "view sparse: in no condition" in page
    assert "No control views" in page and "resolution (contrast and noise): not in these" in page
    assert "phase_c/dose_1000/patched_test.npz is not in the study" in page
    assert "no views of single images" in page  # beside what others claim


def test_a_metric_of_another_package_has_a_column_curves_and_may_be_a_target(
    tmp_path, foreign_metric
):
    study = write_study(tmp_path, phase_bias=0.125)
    page = page_html(collect(study), {foreign_metric: 0.1})
    assert "<th>phase bias / rad</th>" in page and "<td>0.1250</td>" in page
    assert "phase bias of 0.1 rad" in page and 'alt="phase bias / rad: At every position"' in page


def test_targets_that_are_no_column_or_out_of_range_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'phase_psnr'"):
        write_report(write_study(tmp_path), {"phase_psn": 20.0})
    with pytest.raises(ConfigError, match="resolution"):
        ReportParameters(resolution=2.0)
    with pytest.raises(ConfigError, match="view"):
        ExploreParameters(view=3)


@pytest.mark.browser
def test_the_page_fits_a_phone_and_a_desk_in_a_real_browser(tmp_path):
    views = ("baseline", "dense", "sparse", "dense_spread")
    curves = {"amplitude_psnr": 20.0, "phase_ms_ssim": 0.5}
    study = write_study(tmp_path / "study", replicates=2, views=views, **curves)
    picture = np.exp(1j * np.random.default_rng(0).normal(0, 0.2, (60, 160)))
    for name in ("objects", "frc", "spectrum"):
        saved(
            image_grid({("a", "x"): picture}, ["a"], ["x"], picture, (slice(None),) * 2),
            study / f"replicate_0/phase_g/dose_1000/baseline/{name}.png",
        )
    write_report(study)
    page = (study / "index.html").read_text(encoding="utf-8").replace("<details", "<details open")
    (study / "opened.html").write_text(page, encoding="utf-8")
    seen = "filter(part => part.offsetHeight > 40 && part.offsetWidth > 300)"
    with chromium(tmp_path) as page:
        for width, height in WINDOWS:
            page.open((study / "opened.html").as_uri(), width, height)
            assert_fits(page, width)
            assert page.value("document.images.length") > 20
            sections = f"[...document.querySelectorAll('section')].{seen}.map(part => part.id)"
            assert page.value(sections) == SECTIONS
            answer = page.value("document.querySelector('.answer p').innerText.split('\\n')[0]")
            assert answer.startswith("good resolves") and "per object pixel" in answer
            assert page.value(f"[...document.querySelectorAll('table')].{seen}.length") >= 8
            shot = page.picture(tmp_path / f"page_{width}.png")
            with Image.open(shot) as picture:
                assert picture.size == (width, height)
                assert np.asarray(picture.convert("L")).std() > 10  # not blank
        assert not page.errors


def test_the_page_says_how_many_exposures_of_the_other_half_a_network_has_used():
    seen = [{"method": "pinn", "images": images} for images in (4, 11, 37)]
    study = StudyRows(Path(), [], seen, {}, [], None)
    rows = DataFrame({"method": ["pinn", "classical"]})
    said = other_photons(study, rows)
    assert list(said) == ["pinn"] and "used 4 to 37 exposures of the other half" in said["pinn"]
    said = other_photons(study._replace(trainings=seen[:1]), rows)
    assert "used 4 exposures of the other half" in said["pinn"]
