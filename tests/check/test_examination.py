"""`fly64 check`: a clean scan raises no warning, and each planted fault raises its own, at its
place, and no other."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import oracle
import pytest
from PIL import Image
from reported_scan import DETECTOR, DISTANCE_M, reported_scan, write_cxi
from small_scan import geometry, small_scan

from fly64lib.check.examination import EXCESS, examine_scan, explained
from fly64lib.check.measurements import Measurements
from fly64lib.cli.main import main
from fly64lib.formats.fit import GOOD
from ptycho_torch.data.contract import ScanData, write_scan

NAMES = [
    "contract",
    "photons",
    "dose",
    "exposures",
    "saturation",
    "dead pixels",
    "hot pixels",
    "beam centre",
    "positions",
    "object",
    "overlap",
    "coverage",
]


def counts_of(scan: ScanData) -> np.ndarray:
    return np.rint(np.square(scan.diffraction.astype(np.float64)))


def with_counts(scan: ScanData, counts: np.ndarray) -> ScanData:
    return replace(scan, diffraction=np.sqrt(counts).astype(np.float32))


def pixel(
    row: int, column: int, make: Callable[[np.ndarray], object]
) -> Callable[[ScanData], ScanData]:
    """A fault that gives one detector pixel, in all patterns, what `make` makes of its counts."""

    def fault(scan: ScanData) -> ScanData:
        counts = counts_of(scan)
        counts[:, row, column] = make(counts[:, row, column])
        return with_counts(scan, counts)

    return fault


def saturated(scan: ScanData) -> ScanData:
    counts = counts_of(scan)
    return with_counts(scan, np.minimum(counts, np.percentile(counts, 99.5)))


def shifted(rows: int, columns: int) -> Callable[[ScanData], ScanData]:
    return lambda scan: replace(
        scan, diffraction=np.roll(scan.diffraction, (rows, columns), (1, 2))
    )


def hole(scan: ScanData) -> ScanData:
    """Positions within 22 px of the scan's middle are not there."""
    from_middle = np.hypot(*(scan.positions - np.median(scan.positions, axis=0)).T)
    return scan.subset(np.flatnonzero(from_middle > 22))


def dark_exposure(scan: ScanData) -> ScanData:
    counts = counts_of(scan)
    counts[7] = np.random.default_rng(0).binomial(counts[7].astype(int), 0.1)
    return with_counts(scan, counts)


def sparse(scan: ScanData) -> ScanData:
    """Every third row and column of positions: 12 px apart, under a probe of some 14."""
    row, column = np.divmod(np.arange(scan.n), 10)
    return scan.subset(np.flatnonzero((row % 3 == 0) & (column % 3 == 0)))


FAULTS = {  # what is planted: the warnings that must come, and words of the first
    "dead pixel": (pixel(12, 7, lambda c: 0 * c), ["dead pixels"], "1: [12, 7]"),
    "dead pair": (
        lambda s: pixel(12, 8, lambda c: 0 * c)(pixel(12, 7, lambda c: 0 * c)(s)),
        ["dead pixels"],
        "2: [12, 7], [12, 8]",
    ),
    "hot pixel": (pixel(20, 4, lambda c: c + 700), ["hot pixels"], "1: [20, 4]"),
    "hot pixel in the dark": (pixel(0, 63, lambda c: c + 12), ["hot pixels"], "1: [0, 63]"),
    "saturated detector": (saturated, ["saturation"], "values pile up at the largest count, "),
    "beam off by a pixel": (shifted(0, 1), ["beam centre", "object"], "rows, +1.0"),
    "beam off by three and two": (shifted(3, -2), ["beam centre", "object"], "+3.0"),
    "hole in the coverage": (hole, ["coverage"], "1 hole with less than 0.1 of the median fluence"),
    "beam loss in one exposure": (dark_exposure, ["exposures"], "1 patterns are off the median"),
    "probe of another scale": (
        lambda s: replace(s, probe=s.probe * np.float32(3)),
        ["dose"],
        "photons per exposure",
    ),
    "scaled counts": (
        lambda s: replace(s, diffraction=s.diffraction * np.float32(1.1)),
        ["photons"],
        "% of diffraction^2",
    ),
    "object upside down": (
        lambda s: replace(s, object_guess=s.object_guess[::-1, ::-1].copy()),
        ["object"],
        "explains 0 %",
    ),
    "object conjugated": (
        lambda s: replace(s, object_guess=s.object_guess.conj()),
        ["object"],
        "explains 0 %",
    ),
    "steps too wide": (sparse, ["overlap"], "100 % of the images have none within D / 2"),
    "probe without an edge": (
        lambda s: replace(s, probe=np.full_like(s.probe, 5)),
        ["overlap"],
        "above half its maximum",
    ),
}


# Patterns of 32 px have no dark corner, a hole in their scan is small, two pixels are much, and the
# small object is a little like itself upside down.
LARGE = {"hot pixel in the dark", "hole in the coverage", "beam off by three and two"}
LARGE |= {"object upside down"}


@pytest.fixture(scope="module")
def clean() -> ScanData:
    return small_scan(1e5, N=32, across=9)


@pytest.fixture(scope="module")
def large() -> ScanData:
    return small_scan(1e5, N=64, across=9)


def warnings(scan: ScanData, folder: Path) -> dict[str, str]:
    write_scan(folder / "scan.npz", scan)
    found = examine_scan(folder / "scan.npz")
    assert list(found.verdicts) == NAMES
    warned = {name: one for name, one in found.verdicts.items() if not one.good}
    assert all(one.advice for one in warned.values()) and found.exit_code == bool(warned)
    return {name: one.found for name, one in warned.items()}


@pytest.mark.parametrize(
    "kinds",
    [
        {"dose": 1e5, "N": 64},
        {"dose": 1e3},
        {"dose": 1e6, "modes": 2},
        {"dose": 1e4, "specimen": "dead_leaves"},
        {"dose": 1e5, "specimen": "lines"},
        {"dose": 1e5},
        {"dose": 1e4, "N": 64, "across": 3},
    ],
    ids=str,
)
def test_a_clean_scan_raises_no_warning(tmp_path, kinds):
    assert warnings(small_scan(**{"N": 32, "across": 9} | kinds), tmp_path) == {}


def test_an_empty_starting_object_is_no_fault(clean, tmp_path):
    empty = replace(
        clean, object_guess=np.ones_like(clean.object_guess), metadata={"object_kind": "initial"}
    )
    assert warnings(empty, tmp_path) == {}


@pytest.mark.parametrize("kind", FAULTS)
def test_a_planted_fault_is_found_where_it_is(clean, large, tmp_path, kind):
    plant, expected, words = FAULTS[kind]
    found = warnings(plant(large if kind in LARGE else clean), tmp_path)
    assert words in found.get(expected[0], ""), found
    if kind != "probe without an edge":  # a wrong probe makes nearly everything wrong
        assert list(found) == expected


@pytest.mark.parametrize("before_the_end", [6, 18])
def test_a_frame_lost_near_the_end_is_told_with_the_patterns_that_do_not_fit(
    clean, tmp_path, before_the_end
):
    """Nine tenths of the patterns still fit: all in all there is no doubt."""
    lost = clean.n - before_the_end
    counts = np.delete(clean.diffraction, lost, 0)
    late = replace(clean, diffraction=np.concatenate([counts, counts[-1:]]))
    late = replace(late, object_guess=np.ones_like(late.object_guess), metadata={})
    write_scan(tmp_path / "scan.npz", late)
    verdict = examine_scan(tmp_path / "scan.npz").verdicts["positions"]
    first, last = verdict.values["apart"]["of"]
    assert not verdict.good and verdict.values["share"] > GOOD
    assert (
        first <= lost + 5 and last >= lost and f"--drop-patterns {first}-{last}" in verdict.advice
    )
    assert f", of patterns {first} to {last} " in verdict.found


def test_a_weak_object_of_another_scan_is_told_where_photons_are_few(tmp_path):
    """Amplitudes tell nothing here: counting alone leaves nearly all of R."""
    image, probe, y, x, _ = geometry(N=32, across=9)
    other = geometry(N=32, across=9, specimen="lines")[0]
    weak, apart = (np.exp(0.3 * np.log(one)) for one in (image, other))
    expected = oracle.expected_counts(weak, probe, y, x)
    scale = 3e3 / expected.sum((1, 2)).mean()
    own = replace(
        small_scan(3e3, N=32, across=9),
        diffraction=np.sqrt(np.random.default_rng(1).poisson(expected * scale), dtype=np.float32),
        probe=(probe * scale**0.5).astype(np.complex64),
        object_guess=weak.astype(np.complex64),
    )
    found = explained(Measurements(tmp_path, own))
    assert found.good and found.values["explained"] > 0.9
    found = explained(Measurements(tmp_path, replace(own, object_guess=apart.astype(np.complex64))))
    assert not found.good and found.values["explained"] < 0.2
    assert found.values["R"] ** 2 - found.values["R_counts"] ** 2 < EXCESS**2


def test_the_hole_is_where_the_positions_are_missing(large, tmp_path):
    write_scan(tmp_path / "scan.npz", hole(large))
    verdict = examine_scan(tmp_path / "scan.npz").verdicts["coverage"]
    ((_, row, column),) = verdict.values["holes"]
    assert np.hypot(row - np.median(large.ycoords), column - np.median(large.xcoords)) < 5


def test_positions_off_by_more_than_a_pixel_are_told(clean, tmp_path):
    off = np.random.default_rng(0).normal(0, 1.5 / 2**0.5, (2, clean.n))
    wider = np.pad(clean.object_guess, 8, constant_values=1)
    jittered = replace(
        clean,
        object_guess=wider,
        ycoords=clean.ycoords + 8 + off[0],
        xcoords=clean.xcoords + 8 + off[1],
    )
    assert "positions" in warnings(jittered, tmp_path)


@pytest.mark.slow
def test_positions_that_are_off_are_told_by_how_much_and_cured_by_what_is_named(tmp_path):
    """Neighbours that are off alike explain much of each other: three quarters of what tells the
    patterns apart is explained as it is."""
    scan = reported_scan()
    off = np.random.default_rng([1, 130]).normal(0, 2**0.5, (90, 2))
    source = write_cxi(tmp_path / "a.cxi", scan | {"at": scan["at"] + off})
    files = [str(tmp_path / name) for name in ("a.npz", "b.npz")]
    assert main(["import", str(source), files[0], "--picture", "none"]) == 0
    told = examine_scan(files[0]).verdicts["positions"]
    assert told.values["share"] > GOOD and not told.good
    assert told.values["position_error_px"] == pytest.approx(2, abs=0.5)
    command = [
        "probe",
        *files,
        "--steps",
        "60",
        *re.search(r"--unknown \w+", told.advice)[0].split(),
    ]
    assert main(command) == 0
    assert examine_scan(files[1]).verdicts["positions"].good


def test_a_position_apart_is_named_with_what_leaves_it_out(clean, tmp_path):
    wider = np.pad(clean.object_guess, ((0, 400), (0, 0)), constant_values=1)
    y = clean.ycoords.copy()
    y[7] += 300
    write_scan(tmp_path / "scan.npz", replace(clean, object_guess=wider, ycoords=y))
    verdict = examine_scan(tmp_path / "scan.npz").verdicts["positions"]
    assert verdict.found.startswith("1 positions lie apart from all others: 7;")
    assert "--drop-patterns 7" in verdict.advice


def test_a_beam_beside_the_middle_is_cured_by_the_options_that_the_check_names(tmp_path):
    scan = reported_scan()
    source = write_cxi(tmp_path / "a.cxi", scan, np.roll(scan["counts"], (2, -3), (1, 2)))
    into = ["import", str(source), str(tmp_path / "a.npz"), "--picture", "none", "--overwrite"]
    into += ["--orientation", "as-given"]
    assert main(into) == 0
    beam = examine_scan(tmp_path / "a.npz").verdicts["beam centre"]
    assert not beam.good
    options = re.search(r"--centre \d+ \d+ --crop \d+", beam.advice).group(0)
    assert main([*into, *options.split()]) == 0
    assert examine_scan(tmp_path / "a.npz").verdicts["beam centre"].good


@pytest.mark.parametrize("wrong", [2.0, 1.25, 0.8, 0.5])
def test_positions_in_pixels_of_another_size_are_told_and_cured_by_an_option_that_is_named(
    tmp_path, wrong
):
    source = write_cxi(tmp_path / "a.cxi", reported_scan())
    with h5py.File(source, "a") as file:
        file[f"{DETECTOR}/distance"][...] = wrong * DISTANCE_M
    into = ["import", str(source), str(tmp_path / "a.npz"), "--picture", "none", "--overwrite"]
    assert main([*into, "--orientation", "as-given"]) == 0
    places = examine_scan(tmp_path / "a.npz").verdicts["positions"]
    assert not places.good and places.values["scale"] == wrong
    assert f"times {wrong:g} the positions fit clearly better" in places.found
    assert "--distance-m" in places.advice
    assert main([*into, "--distance-m", str(DISTANCE_M)]) == 0
    places = examine_scan(tmp_path / "a.npz").verdicts["positions"]
    assert places.good and places.values["scale"] is None


def test_wide_steps_are_no_reason_to_believe_in_wider_ones(large, tmp_path):
    """Patterns too far apart to share an object fit at any positions, under a wrong probe too."""
    wider = np.pad(large.object_guess, 64, constant_values=1)
    rough = large.probe * np.exp(1j * np.linspace(0, 2, 64)[:, None] ** 2).astype(np.complex64)
    y, x = large.ycoords + 64, large.xcoords + 64
    scan = replace(large, object_guess=wider, ycoords=y, xcoords=x, probe=rough)
    write_scan(tmp_path / "scan.npz", scan)
    assert examine_scan(tmp_path / "scan.npz").verdicts["positions"].values["scale"] is None


def test_few_patterns_and_positions_on_a_line_are_examined_too(clean, tmp_path):
    for chosen in ([4], [4, 5], [4, 5, 6]):
        assert "contract" not in warnings(clean.subset(np.array(chosen)), tmp_path)
    line = clean.subset(np.arange(10))
    assert "coverage" not in warnings(replace(line, ycoords=np.full(10, 40.0)), tmp_path)


def test_the_command_prints_draws_and_answers_scripts(clean, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_scan("good.npz", clean)
    write_scan("hot.npz", pixel(20, 4, lambda c: c + 700)(clean))
    Path("broken.npz").write_bytes(Path("good.npz").read_bytes()[:5000])
    assert main(["check", "good.npz"]) == 0
    said = capsys.readouterr().out
    assert said.count("\nok   ") == len(NAMES) - 1 and "to do:" not in said
    assert "picture: good_check.png" in said
    with Image.open("good_check.png") as picture:
        assert picture.size[0] > 1000
    assert main(["check", "hot.npz", "--json", "--picture", "deep/hot.png"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["exit_code"], found["picture"]) == (1, "deep/hot.png")
    assert Path("deep/hot.png").is_file()
    assert [one["values"]["pixels"] for one in found["verdicts"] if not one["good"]] == [[[20, 4]]]
    assert main(["check", "broken.npz"]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("error: broken.npz: a truncated or damaged zip")
    assert not Path("broken_check.png").exists()


def test_the_real_scan_is_clean(real_scan_path, tmp_path):
    found = examine_scan(real_scan_path, cache_dir=tmp_path)
    assert found.exit_code == 0, found.text()
    values = {name: one.values for name, one in found.verdicts.items()}
    assert (
        values["dose"]["photons_mean"] == pytest.approx(440557, rel=1e-5)
        and values["dose"]["brightest_pixel"] == 963
    )
    assert values["object"]["R"] < 0.085 and values["object"]["explained"] > 0.9
    assert np.abs(values["beam centre"]["offset_px"]).max() < 0.1
    assert values["overlap"]["probe_diameter_px"] == pytest.approx(29.9, abs=0.1)
