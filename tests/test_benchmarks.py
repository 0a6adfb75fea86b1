"""What the benchmarks compute besides running others' programs."""

import base64
import importlib
import inspect
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fly64lib.sweep.profile import load_profile
from ptycho_torch.commands import run_options
from ptycho_torch.files import read_json

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Imports a benchmark by name, its folder on the path as when one is run."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module


RUN = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
ELSEWHERE = ("common", "upstream_driver", "ptypy_driver")  # run in others
RUN = [name for name in RUN if name not in ELSEWHERE]


@pytest.mark.parametrize("name", RUN)
def test_a_benchmark_says_what_it_measures_and_explains_every_option(benchmark, capsys, name):
    module = benchmark(name)
    (options,) = [
        kind
        for label, kind in inspect.getmembers(module, inspect.isclass)
        if label.endswith("Options") and kind.__module__ == name
    ]
    assert f"python benchmarks/{name}.py" in module.__doc__
    with pytest.raises(SystemExit) as ended:
        run_options(options, lambda given: 1, ["--help"], name)
    shown = capsys.readouterr().out
    assert ended.value.code == 0 and options.__doc__.split(".")[0][:40] in shown


def test_kept_rows_are_found_again_and_carry_versions(benchmark, tmp_path):
    common = benchmark("common")
    common.Rows(tmp_path / "rows.json", steps=3).add({"dose": 1e3, "view": "dense", "psnr": 4.5})
    kept = common.Rows(tmp_path / "rows.json")
    assert {"dose": 1e3, "view": "dense"} in kept and {"dose": 1e3, "view": "sparse"} not in kept
    assert read_json(tmp_path / "rows.json").keys() == {"steps", "rows", "versions"}
    lines = common.table(kept.rows, ["view", "psnr", "none"]).splitlines()
    assert [line.split() for line in lines] == [["view", "psnr", "none"], ["dense", "4.5"]]


def test_the_peers_canvas_lands_where_its_middle_pixel_says(benchmark):
    canvas = np.zeros((9, 7), np.complex64)
    canvas[2:8, 1:6] = 1 + 1j
    canvas[4 + 2, 3 - 1] = 3 - 2j  # two rows below and one column left of the middle, (4, 3)
    placed = benchmark("upstream").on_canvas(canvas, np.array([10.0, 20.0]), (16, 32))
    np.testing.assert_allclose(placed[12, 19], 3 - 2j, atol=1e-5)
    np.testing.assert_allclose(placed[10, 20], 1 + 1j, atol=1e-5)
    np.testing.assert_allclose(
        [placed[0, 0], placed[10, 17]], 1, atol=1e-5, err_msg="without a patch it is empty"
    )


def test_a_canvas_between_pixels_is_read_between_pixels(benchmark):
    rows, columns = np.mgrid[:20, :20]
    canvas = (1 + rows + 2j * columns).astype(np.complex64)
    placed = benchmark("upstream").on_canvas(canvas, np.array([10.25, 9.5]), (20, 20))
    np.testing.assert_allclose(placed[10, 9], 1 + 9.75 + 2j * 9.5, rtol=1e-3)


def test_a_line_is_its_own_fit(benchmark):
    slope, intercept, deviation = benchmark("scaling").line([1, 2, 4, 9], [5, 7, 11, 21])
    assert (slope, intercept) == pytest.approx((2, 3)) and deviation < 1e-9
    assert benchmark("scaling").line([1, 2, 3], [1, 4, 9])[2] > 0.1


def test_flops_of_a_convolution_and_an_fft_are_the_counted_ones(benchmark):
    throughput = benchmark("throughput")
    image, weight = (
        torch.randn(2, 3, 8, 8, requires_grad=True),
        torch.randn(5, 3, 3, 3, requires_grad=True),
    )
    with throughput.Recorder() as recorder:
        torch.nn.functional.conv2d(image, weight, padding=1).square().sum().backward()
        torch.fft.fft2(torch.randn(4, 16, 16, dtype=torch.complex64))
    total = {"convolution": 0.0, "FFT": 0.0}
    for (func, described), count in recorder.calls.items():
        args = throughput._like(described)
        total[throughput.KINDS[func]] += count * throughput.flops_of(func, args, func(*args))
    forward = 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)
    assert total["convolution"] == 3 * forward, (
        "backwards once for the image and once for the weights"
    )
    assert total["FFT"] == 5 * 4 * 256 * 8


def test_error_bars_that_are_honest_cover_what_they_promise(benchmark):
    """Members scatter by 1 about a mean that errs by 1, or by 3: 95.4 % and 49.5 % of a Gaussian
    lie within 2 deviations."""
    rng = np.random.default_rng(0)
    for error, expected in ((1.0, 0.954), (3.0, 0.495)):
        members = error * rng.standard_normal((60, 70)) + rng.standard_normal((400, 60, 70))
        covered, of_mean, deviation = benchmark("survival").coverage(members)
        assert covered == pytest.approx(expected, abs=0.02)
        assert (of_mean, deviation) == pytest.approx((error, 1.0), rel=0.05)


def test_a_phase_error_is_free_of_the_global_phase(benchmark):
    truth = np.exp(1j * np.linspace(-0.4, 0.4, 35)).reshape(5, 7)
    wrong = truth * np.exp(1j * 2.0)
    wrong[0, 0] *= np.exp(0.1j)
    errors = benchmark("survival").turned(wrong, truth)
    assert errors[0, 0] == pytest.approx(0.1, abs=0.01) and np.abs(errors[1:]).max() < 0.01


def test_rates_are_those_that_the_jobs_were_made_from(benchmark):
    """Seconds of 3 a job and 50 a unit; of a kind with jobs of one size only the first term."""
    rates = benchmark("rates")
    amounts = [{"runs": float(n), "job": 1.0, "canvas_mpx": 0.5 * n * n} for n in (1, 2, 5)]
    rows = [
        rates.Measured("reconstruct", "cpu_s", one, 50 * one["runs"] + 3 * one["job"])
        for one in amounts
    ]
    rows += [rates.Measured("compare", "files", {"job": 1.0, "runs": 6.0}, 7.0)] * 3
    found = rates.fitted(rows)
    fit = found["reconstruct", "cpu_s"]
    assert fit.rates == pytest.approx({"runs": 50, "job": 3, "canvas_mpx": 0}, abs=1e-6)
    assert (fit.jobs, fit.most["runs"]) == (3, 5) and fit.spread < 1e-9
    assert fit.of({"runs": 10.0, "job": 1.0, "canvas_mpx": 9.0}) == pytest.approx(503)
    assert fit.beyond({"runs": 10.0, "job": 1.0, "canvas_mpx": 99.0}) == pytest.approx(2)
    assert found["compare", "files"].rates == {"job": 7.0}


@pytest.mark.parametrize(
    ("file", "notebook"),
    [
        ("replicate_1/phase_c/dose_10/patched_test.npz", "replicate_1/generate"),
        ("replicate_1/overlap/overlap.json", "replicate_1/overlap"),
        ("replicate_0/phase_e/dose_10/dense/gs2/csv_log/metrics.csv", "{0}/dense/train_gs2"),
        ("replicate_0/phase_f/dose_10/dense/pinn/object.npz", "{0}/dense/reconstruct"),
        ("replicate_0/phase_f/dose_10/dense/lsqml/object.npz", "{0}/dense/reconstruct_lsqml"),
        ("replicate_0/phase_f/dose_10/dense/lsqml.png", "{0}/dense/reconstruct_lsqml"),
        ("replicate_0/phase_g/dose_10/dense/frc.png", "{0}/dense/compare"),
        ("notebooks/replicate_0/dose_10/dense/compare.html", "{0}/dense/compare"),
        ("logs/replicate_0/dose_10/dense/compare.log", "{0}/dense/compare"),
        ("index.html", "report"),
        ("logs/report.log", "report"),
    ],
)
def test_a_file_of_a_study_is_counted_for_the_job_that_wrote_it(benchmark, file, notebook):
    owner, parts = benchmark("rates").owner, tuple(file.split("/"))
    expected = notebook.format("replicate_0/dose_10")
    assert owner(parts, {"reconstruct_lsqml"}) == expected
    name = base64.b64encode(file.encode()).decode()  # as Snakemake records an output
    assert owner((".snakemake", "metadata", name), {"reconstruct_lsqml"}) == expected


@pytest.mark.parametrize("by", ["replicates", "doses"])
def test_a_profile_is_scaled_to_about_as_many_jobs_as_asked(benchmark, by):
    graph = benchmark("sweep_graph")
    full = load_profile("full")
    # what one more replicate, or dose of one replicate, adds: no other number of them is nearer
    unit = len(replace(full, replicates=2).notebooks()) - len(
        replace(full, replicates=1).notebooks()
    )
    unit = unit / len(full.doses) if by == "doses" else unit
    for jobs in (1000, 10_000):
        scaled = graph.scaled(full, jobs, by)
        assert abs(len(scaled.notebooks()) - jobs) <= unit / 2 + 3
