"""A plan: photons per pixel against hand computation and the Cramer-Rao bound, monotone in
resolution and contrast, measured rows followed and never extrapolated, errors that name the
option."""

import json
import re
import shlex
from math import inf, log, pi, sqrt
from pathlib import Path

import numpy as np
import pytest
from made_up_study import write_study
from pandas import DataFrame
from run_notebook import papermill, written_last
from small_scan import small_raw

from fly64lib.cli.main import main
from fly64lib.evaluation.judgement import region_of
from fly64lib.evaluation.limits import limits
from fly64lib.notebook import plan as planning
from fly64lib.notebook import plan_table
from fly64lib.notebook.parameters import PlanSettings
from fly64lib.notebook.paths import notebook
from fly64lib.report.rows import collect
from fly64lib.simulation.probes import FLY001

ROOT = Path(__file__).resolve().parents[2]
ASKED = {
    "energy_kev": 8.8,
    "detector": "64x75",
    "distance_m": 1.92,
    "photons": 1e4,
    "resolution_nm": 80.0,
    "probe_um": 1.7,
    "contrast_rad": 0.2,
    "field_um": (6.0, 5.0),
}
WORDS = ["--energy-kev", "8.8", "--detector", "64x75", "--distance-m", "1.92", "--photons", "1e4"]
WORDS += ["--resolution-nm", "80", "--probe-um", "1.7"]


def settings(**changes: object) -> PlanSettings:
    return PlanSettings(**ASKED | changes)


def limit_row(**changes: object) -> dict:
    return planning.plan(settings(**changes))["rows"][0]


def test_the_pixel_is_that_of_the_optics_and_by_hand():
    optics = planning.Optics.of(settings())
    assert optics.pixel_nm == pytest.approx(FLY001.object_pixel_m(64) * 1e9, rel=1e-9)
    assert optics.pixel_nm == pytest.approx(
        12.398419843 / 8.8 / 10 * 1.92e9 / (64 * 75e3), rel=1e-8
    )
    assert optics.finer_pixel_nm == pytest.approx(FLY001.object_pixel_m(96) * 1e9, rel=1e-9)


def test_the_limits_photons_steps_and_exposures_are_those_of_a_hand_computation():
    row, pixel = limit_row(photons=100), planning.Optics.of(settings()).pixel_nm
    needed = 1 / (3 * 0.2**2) * (pixel / 80) ** 2
    assert row["photons_per_pixel_needed"] == pytest.approx(needed)
    exposures = np.ceil(needed * 6000 * 5000 / pixel**2 / 100)
    assert row["exposures"] == exposures and row["decided_by"] == "photons"
    assert row["step_nm"] == pytest.approx(sqrt(6000 * 5000 / exposures))
    assert row["overlap"] == pytest.approx(1 - row["step_nm"] / 1700)
    assert row["photons_per_pixel"] == pytest.approx(100 * exposures * pixel**2 / 3e7)
    assert row["photons_per_exposure"] == pytest.approx(100, rel=1e-3)
    assert row["expected_nm"] == pytest.approx(80, rel=1e-3)


def test_where_photons_suffice_the_overlap_decides_and_fewer_per_exposure_are_enough():
    row = limit_row(photons=1e7)
    assert row["decided_by"] == "overlap" and row["overlap"] >= 0.5
    assert row["exposures"] == np.ceil(6000 * 5000 / 850**2)
    total = row["photons_per_exposure"] * row["exposures"] / 3e7
    pixel = planning.Optics.of(settings()).pixel_nm
    assert total * pixel**2 == pytest.approx(row["photons_per_pixel_needed"])
    assert row["expected_nm"] == pixel  # not finer than the detector's edge


def test_the_limit_lies_under_the_cramer_rao_bound_and_near_it():
    """The bound of a scan, for all its overlap of probes, is at least 1 / (2 F) and below twice
    that."""
    raw = small_raw(1e4, N=16, across=13)
    bound = limits(raw.scan.object_guess, raw.geometry(whole=True), region_of(raw))
    for part in (bound.phase, bound.amplitude):
        assert 0.5 < part.mse * bound.photons_per_pixel < 1.0


def test_needs_rise_with_resolution_and_fall_with_contrast():
    for row in range(len(planning.plan(settings())["rows"])):

        def needs(row: int = row, **changes: object) -> float:
            found = planning.plan(settings(**changes))["rows"][row]["photons_per_pixel_needed"]
            return inf if found is None else found

        finer = [needs(resolution_nm=r) for r in (200, 120, 80, 60, 57)]
        assert finer == sorted(finer)
        plainer = [needs(contrast_rad=c) for c in (0.05, 0.1, 0.2, 0.4)]
        assert plainer == sorted(plainer, reverse=True) and plainer[0] > plainer[-1]


def test_a_measured_curve_is_followed_in_the_logarithm_and_not_beyond_its_ends():
    curve = plan_table.Curve(np.array([1.0, 100.0, 1e4]), np.array([0.2, 0.6, 0.5]))
    assert curve.needs(0.4) == pytest.approx(10) and curve.needs(0.1) == 1.0
    assert curve.needs(0.6) == pytest.approx(100) and curve.needs(0.61) == inf
    assert curve.at(10) == pytest.approx(0.4) and curve.at(1e3) == pytest.approx(0.55)
    assert curve.at(0.9) is None and curve.at(1.1e4) is None


def test_measured_needs_scale_with_contrast_squared_and_their_range_is_that_of_the_curves(
    monkeypatch,
):
    rows = []
    for replicate, shift in enumerate((1.0, 2.0, 4.0)):
        for dose, resolved in ((1e3, 0.2), (1e5, 1.0)):
            where = dict.fromkeys(("study", "specimen", "simulation", "view"), "made up")
            rows.append(where | {"method": "classical", "replicate": replicate, "dose": dose})
            rows[-1] |= {"photons_per_pixel": shift * dose / 10, "contrast_rad": 0.1}
            rows[-1] |= {"frc_half": resolved}
    monkeypatch.setattr(planning, "shipped_table", lambda: DataFrame(rows))
    pixel = planning.Optics.of(settings()).pixel_nm
    _, row = planning.plan(settings(resolution_nm=pixel / 0.6))["rows"]
    # halfway in the logarithm between 100 and 10,000 photons at 0.1 rad, a fourth at 0.2
    assert row["photons_per_pixel_needed"] == pytest.approx(2 * 1000 / 4)
    assert row["needed_range"] == pytest.approx([1000 / 4, 4 * 1000 / 4])
    assert row["expected_nm"] == pytest.approx(pixel / 0.6, rel=1e-3)
    slope = 0.8 / log(100)
    ends = [pixel / (0.6 + slope * log(2)), pixel / (0.6 - slope * log(2))]
    assert row["expected_range_nm"] == pytest.approx(ends, rel=1e-3)


def test_the_table_of_a_study_holds_its_rows_and_the_flat_objects_error_as_contrast(
    tmp_path, capsys
):
    study = write_study(tmp_path / "study", phase_mse=0.04)
    assert plan_table.main([str(study), str(tmp_path / "rows.csv")]) == 0
    table = plan_table.read_table(tmp_path / "rows.csv")
    assert len(table) and set(table.study) == {"study"}
    assert not set(table.method) & {"flat", "truth", "bayesian"}
    rows = collect(study).table
    one = table.iloc[0]
    same = rows[(rows.dose == one.dose) & (rows.view == one.view)]
    same = same[(same.replicate == one.replicate) & (same.specimen == one.specimen)]
    flat = same[same.method == "flat"].iloc[0]
    assert one.contrast_rad == pytest.approx(flat.phase_mse**0.5, rel=1e-3)
    own = same[same.method == one.method].iloc[0]
    assert one.frc_half == pytest.approx(own.frc_half, rel=1e-3)
    assert planning.plan(settings(study=str(study)))["studies"] == ["study"]


def test_a_reports_rows_are_a_study_too_and_join_a_table_that_is_there(tmp_path, capsys):
    study, out = write_study(tmp_path / "study", phase_mse=0.04), tmp_path / "rows.csv"
    report = tmp_path / "report" / "rows.csv"
    report.parent.mkdir()
    collect(study).table.to_csv(report, index=False)
    assert plan_table.main([str(study), str(out), "--methods", "good"]) == 0
    assert plan_table.main([str(report), str(out), "--methods", "poor", "--add"]) == 0
    table, of_study = plan_table.read_table(out), plan_table.table_of(study)
    assert set(table.method) == {"good", "poor"} and set(table.study) == {"study", "report"}
    for name, own in table.groupby("method"):
        whole = of_study[of_study.method == name]
        assert own.frc_half.tolist() == pytest.approx(whole.frc_half.tolist(), rel=1e-4)
    written = out.read_bytes()
    assert plan_table.main([str(report), str(out), "--methods", "poor", "--add"]) == 0
    assert out.read_bytes() == written  # what it has already is not there twice
    view = of_study["view"].iloc[0]
    assert plan_table.main([str(report), str(out), "--views", view]) == 0
    assert set(plan_table.read_table(out)["view"]) == {view}


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b"\x89HDF\r\n\x1a\n\xff\xfe", b"a\n1,2\n3,4,5\n"]
)
def test_a_file_that_is_no_table_of_rows_is_refused_with_what_is_one(tmp_path, capsys, content):
    (tmp_path / "other.csv").write_bytes(content)
    assert main(["plan", *WORDS, "--study", str(tmp_path / "other.csv")]) == 2
    said = capsys.readouterr().err
    assert "other.csv: " in said and "expected a study's folder, or the rows.csv of its" in said


def test_the_shipped_table_says_where_it_comes_from():
    table = plan_table.shipped_table()
    assert {"classical", "pinn-sim+refine"} <= set(table.method) and table.study.notna().all()
    assert table.frc_half.between(0, 1).all() and table.contrast_rad.between(0, pi).all()
    said = planning.in_words(planning.plan(settings()))
    assert all(study in said for study in set(table.study))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (["--detector", "64"], "detector='64': expected pixels across and their size in um"),
        (["--resolution-nm", "20"], "resolution_nm=20: the detector's edge allows 56.4; expected"),
        (["--probe-um", "9"], "probe_um=9: the detector's pixels resolve waves of up to 3.61 um"),
        (["--contrast-rad", "0"], "contrast_rad=0"),
        (["--photons", "-1"], "photons=-1"),
        (["--overlap", "1"], "overlap=1"),
        (["--field-um", "1", "2", "3"], "field_um"),
        (["--study", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_by_name(capsys, tmp_path, monkeypatch, changed, reason):
    monkeypatch.chdir(tmp_path)
    kept = [*WORDS, *changed]
    assert main(["plan", *kept]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: ") and reason in said.err


def test_an_option_that_is_missing_is_named(capsys):
    assert main(["plan", "--energy-kev", "8.8"]) == 2
    said = capsys.readouterr().err
    assert "--detector" in said and "--photons" in said and "--resolution-nm" in said


def test_the_commands_of_the_document_do_what_it_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "plan.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^fly64 (.*)$", text, re.M)
    assert len(commands) >= 2
    for command in commands:
        assert main(shlex.split(command)) == 0, command
    assert json.loads((tmp_path / "plan.json").read_text())["rows"][0]["by"] == planning.LIMIT


@pytest.mark.slow
def test_the_notebook_gives_the_same_numbers(served, tmp_path):
    run = papermill(notebook("plan"), tmp_path, served=served, output="out", photons=1000)
    assert run.returncode == 0, run.stderr
    assert written_last(tmp_path / "out" / "plan.json", tmp_path / "out")
    found = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert found["rows"] == planning.plan(PlanSettings(**found["settings"]))["rows"]
