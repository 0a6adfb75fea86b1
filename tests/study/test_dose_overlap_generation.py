"""Phase C: dose, split, truth and noise of its files against independent physics; what is made
again and what is not."""

import json
from pathlib import Path

import numpy as np
import oracle
import pytest

from fly64lib import generation
from fly64lib.design.study import ScanDesign, StudyDesign, held_out_file, split_file
from fly64lib.generation import generate_datasets, main
from fly64lib.simulation.scans import snake_scan
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.fields import from_dict
from ptycho_torch.files import read_json, sha256_file

STEP, DOSES, SPLITS = 6, (1e3, 1e5), ("train", "test")
FILES = ("held_out_test.npz", "patched_test.npz", "patched_train.npz")


def small(**values) -> StudyDesign:
    """The twin on every sixth row and sample: 306 positions, some 10 px apart, object and probe as
    in the whole study; the fine one with object pixels of two thirds of the detector's grid."""
    side = {} if values.get("simulation") == "matched" else {"M": 96}
    return StudyDesign(**{"scan_step": STEP, "doses": (1e3,)} | side | values)


@pytest.fixture(scope="module")
def fine(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("fine")
    generate_datasets(root, small(doses=DOSES))
    return root


@pytest.fixture(scope="module")
def matched(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("matched")
    generate_datasets(root, small(doses=DOSES, simulation="matched"))
    return root


def halves(root: Path, dose: float = 1e5) -> dict[str, ScanData]:
    return {split: read_scan(split_file(root, dose, split), load_truth=True) for split in SPLITS}


def counts_of(scan: ScanData, images: slice = slice(None)) -> np.ndarray:
    return np.square(scan.diffraction[images], dtype=np.float64)


def model_of(scan: ScanData, images: slice = slice(None)) -> np.ndarray:
    """What object, probe and positions of a file say that its patterns should be: the oracle's
    physics, in float64."""
    far = oracle.expected_counts(
        scan.object_guess.astype(complex),
        scan.probe.astype(complex),
        scan.ycoords[images],
        scan.xcoords[images],
    )
    kept = slice(scan.M // 2 - scan.N // 2, scan.M // 2 - scan.N // 2 + scan.N)
    return far[:, kept, kept]


def misfit(scan: ScanData, images: slice) -> float:
    """Mean of (counts - expected)^2 / expected where 5 photons or more are expected: 1 for Poisson
    noise alone."""
    expected, counts = model_of(scan, images), counts_of(scan, images)
    return float((np.square(counts - expected) / expected)[expected > 5].mean())


def files_of(root: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in root.rglob("*.npz")
    }


# DOSE-001


def test_the_dose_is_the_mean_of_expected_photons_over_the_whole_scan_before_splitting(matched):
    scan = halves(matched)["train"]
    y, x = snake_scan(step=STEP).T
    exit_power = [
        np.square(np.abs(oracle.moved(scan.probe[0].astype(complex), dy, dx) * patch)).sum()
        for (*_, dy, dx), patch in zip(
            (oracle.corner_and_rest(*at, 64) for at in zip(y, x, strict=True)),
            oracle.patches(scan.object_guess, y, x, 64),
            strict=True,
        )
    ]  # detected, by Parseval's theorem
    assert np.mean(exit_power) == pytest.approx(1e5, rel=1e-4)


@pytest.mark.parametrize("mode", ["fine", "matched"])
@pytest.mark.parametrize("dose", DOSES)
def test_measured_photons_agree_with_the_dose_asked_for(request, mode, dose):
    root = request.getfixturevalue(mode)
    for scan in halves(root, dose).values():
        measured = counts_of(scan).sum((1, 2)).mean()
        assert scan.metadata["photons_per_exposure"] == pytest.approx(measured, rel=1e-6)
        assert scan.metadata["dose"] == dose
        assert measured == pytest.approx(
            dose, rel=0.03
        )  # halves of the object differ in absorption by some percent


def test_detected_counts_are_whole_numbers_with_poisson_noise_about_the_oracles_expectation(
    matched,
):
    for scan in halves(matched).values():
        np.testing.assert_allclose(counts_of(scan), np.rint(counts_of(scan)), atol=1e-2)
        expected = model_of(scan, slice(0, 100, 10))
        assert counts_of(scan, slice(0, 100, 10)).sum() == pytest.approx(
            expected.sum(), abs=5 * expected.sum() ** 0.5
        )
        assert misfit(scan, slice(0, 100, 10)) == pytest.approx(1, abs=0.06)


def test_one_probe_scale_serves_all_exposures_and_grows_with_the_root_of_the_dose(
    fine,
):
    probes = {}
    for dose in DOSES:
        train, test = (scan.probe for scan in halves(fine, dose).values())
        np.testing.assert_array_equal(train, test)
        np.testing.assert_array_equal(train, read_scan(held_out_file(fine, dose)).probe)
        probes[dose] = train
    np.testing.assert_allclose(probes[1e5], probes[1e3] * 10, rtol=1e-5, atol=1e-5)


def test_doses_do_not_share_their_noise(matched):
    low, high = (halves(matched, dose)["test"] for dose in DOSES)
    images = slice(0, 100, 10)
    expected = model_of(high, images)
    bright = expected > 50
    noise = [
        (counts_of(scan, images) - scale * expected)[bright]
        for scan, scale in ((low, 0.01), (high, 1.0))
    ]
    assert abs(np.corrcoef(*noise)[0, 1]) < 5 / bright.sum() ** 0.5


# SPLIT-001


def test_no_object_pixel_is_lit_by_both_halves(fine):
    lit = []
    for scan in halves(fine).values():
        light = oracle.fluence(
            scan.canvas_shape, scan.probe.astype(complex), scan.ycoords, scan.xcoords
        )
        scanned = light[
            int(scan.ycoords.min()) : int(scan.ycoords.max()) + 1,
            int(scan.xcoords.min()) : int(scan.xcoords.max()),
        ]
        lit.append(light > 0.01 * np.median(scanned))
    assert min(mask.sum() for mask in lit) > 10_000
    assert (lit[0] & lit[1]).sum() == 0 == scan.metadata["geometry"]["pixels_lit_by_both_halves"]


def test_the_guard_band_is_twice_the_radius_that_holds_98_percent_of_the_probes_power(fine):
    train, test = halves(fine).values()
    guard, middle = (train.metadata["geometry"][key] for key in ("guard_px", "middle_px"))
    assert train.probe.shape[-1] == 96
    r = np.arange(96) - 48
    radius = np.hypot(r[:, None], r).ravel()
    power = np.square(np.abs(train.probe)).sum(0).ravel()
    within = power[radius <= guard / 2].sum() / power.sum()
    assert within == pytest.approx(0.98, abs=0.01) and guard == pytest.approx(1.5 * 46, abs=4)
    assert train.ycoords.min() > middle + guard / 2 and test.ycoords.max() < middle - guard / 2
    y = 1.5 * snake_scan(step=STEP)[:, 0]
    assert middle == pytest.approx((y.min() + y.max()) / 2)
    assert train.n + test.n == (abs(y - middle) > guard / 2).sum()  # nothing else is lost


def test_a_scan_so_coarse_that_both_halves_light_a_pixel_is_refused(tmp_path):
    with pytest.raises(
        ConfigError, match="object pixels are lit by both halves across a guard band of"
    ):
        generate_datasets(
            tmp_path, small(N=32, M=32)
        )  # so small a detector cuts the zone plate's ring to a frame: long tails
    assert not list(tmp_path.rglob("*.npz"))


# Truth and positions


def test_truth_patches_are_cut_from_the_object_where_the_positions_say(fine):
    for scan in halves(fine).values():
        np.testing.assert_array_equal(
            scan.truth_patches, oracle.patches(scan.object_guess, scan.ycoords, scan.xcoords, 96)
        )
        y, x = 1.5 * snake_scan(step=STEP).T
        np.testing.assert_array_equal(scan.xcoords, x[scan.scan_index])
        np.testing.assert_array_equal(scan.ycoords, y[scan.scan_index])


def test_held_out_exposures_lie_inside_the_test_half_and_hold_no_truth_patches(
    fine,
):
    scan, test = read_scan(held_out_file(fine, 1e3), load_truth=True), halves(fine, 1e3)["test"]
    for ours, theirs in ((scan.xcoords, test.xcoords), (scan.ycoords, test.ycoords)):
        assert theirs.min() <= ours.min() and ours.max() <= theirs.max()
    apart = np.hypot(scan.xcoords[:, None] - test.xcoords, scan.ycoords[:, None] - test.ycoords)
    assert apart.min() > 0 and scan.n == 256
    assert (
        scan.truth_patches is None
        and scan.scan_index is None
        and scan.metadata["view"] == "held_out"
    )


def test_both_modes_have_one_truth_and_what_the_model_on_the_detectors_grid_cannot_explain(
    fine, matched, tmp_path
):
    images = slice(0, 100, 10)
    on_fine, on_matched = halves(fine)["test"], halves(matched)["test"]
    generate_datasets(tmp_path, small(doses=(1e5,), M=64))
    folded = halves(tmp_path)["test"]
    np.testing.assert_allclose(folded.object_guess, on_matched.object_guess, atol=1e-6)
    assert misfit(folded, images) > 1.15 > 1.06 > misfit(on_matched, images)
    assert misfit(on_fine, images) < 1.06
    low_dose = halves(fine, 1e3)["test"]
    expected = model_of(low_dose, images)
    bright = expected > 0.5
    assert (np.square(counts_of(low_dose, images) - expected) / expected)[
        bright
    ].mean() == pytest.approx(1, abs=0.1)
    assert [scan.metadata["provenance"]["simulation"] for scan in (on_fine, on_matched)] == [
        "fine",
        "matched",
    ]


# Seeds, manifests, resuming


def test_two_runs_with_one_seed_give_the_same_bytes_and_manifests_but_for_the_time(fine, tmp_path):
    generate_datasets(tmp_path, small(doses=DOSES))
    first, second = (files_of(root) for root in (fine, tmp_path))
    assert {name: content for name, (content, _) in first.items()} == {
        name: content for name, (content, _) in second.items()
    }
    manifests = [json.loads((root / "run_manifest.json").read_text()) for root in (fine, tmp_path)]
    assert all(manifest.pop("seconds") >= 0 for manifest in manifests)
    assert manifests[0] == manifests[1]


def test_the_manifest_vouches_for_every_file_by_its_sha256(fine):
    manifest = json.loads((fine / "run_manifest.json").read_text())
    assert sorted(manifest["files"]) == sorted(
        f"dose_{dose:.0f}/{name}" for dose in DOSES for name in FILES
    )
    for name, row in manifest["files"].items():
        assert (
            row["sha256"] == sha256_file(fine / name) and row["images"] == read_scan(fine / name).n
        )
    assert from_dict(StudyDesign, manifest["inputs"]["design"]) == small(doses=DOSES)


def test_another_replicate_has_other_noise_on_the_same_object(matched, tmp_path):
    generate_datasets(tmp_path, small(doses=(1e5,), simulation="matched", replicate=1))
    one, other = halves(matched)["test"], halves(tmp_path)["test"]
    np.testing.assert_array_equal(one.object_guess, other.object_guess)
    np.testing.assert_array_equal(one.probe, other.probe)
    images = slice(0, 100, 10)
    expected = model_of(one, images)
    noise = [
        ((counts_of(scan, images) - expected) / expected**0.5)[expected > 5]
        for scan in (one, other)
    ]
    assert abs(np.corrcoef(*noise)[0, 1]) < 5 / noise[0].size ** 0.5
    assert other.metadata["replicate"] == 1 and other.metadata["simulation_seed"] == 1042


def test_a_second_run_writes_nothing_again_and_a_lost_or_damaged_file_alone_is_made_again(tmp_path):
    generate_datasets(tmp_path, small(simulation="matched"))
    before = files_of(tmp_path)
    stamp = (tmp_path / "run_manifest.json").stat().st_mtime_ns
    generate_datasets(tmp_path, small(simulation="matched"))
    assert (
        files_of(tmp_path) == before
        and (tmp_path / "run_manifest.json").stat().st_mtime_ns == stamp
    )
    lost, damaged = (
        tmp_path / "dose_1000/patched_train.npz",
        tmp_path / "dose_1000/held_out_test.npz",
    )
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    generate_datasets(tmp_path, small(simulation="matched"))
    after = files_of(tmp_path)
    assert {name: content for name, (content, _) in after.items()} == {
        name: content for name, (content, _) in before.items()
    }
    assert {name for name in after if after[name][1] != before[name][1]} == {
        f"dose_1000/{path.name}" for path in (lost, damaged)
    }


def test_other_inputs_are_not_taken_for_the_same_ones(tmp_path):
    generate_datasets(tmp_path, small(simulation="matched"))
    before = files_of(tmp_path)
    generate_datasets(tmp_path, small(simulation="matched", specimen="lines"))
    after = files_of(tmp_path)
    assert set(after) == set(before) and all(after[name][0] != before[name][0] for name in before)


def test_doses_may_come_one_after_another_and_the_manifest_vouches_for_all(tmp_path):
    generate_datasets(tmp_path, small(simulation="matched"))
    before = files_of(tmp_path)
    manifest = generate_datasets(tmp_path, small(simulation="matched", doses=(200.0,)))
    assert {row["dose"] for row in manifest["files"].values()} == {200.0, 1e3} and len(
        manifest["files"]
    ) == 6
    assert before.items() <= files_of(tmp_path).items()
    assert (
        generate_datasets(tmp_path, small(simulation="matched", doses=(200.0, 1e3)))["files"]
        == manifest["files"]
    )


# Base files


def test_a_base_file_gives_its_object_probe_and_positions_and_is_labelled_matched(
    real_scan_path, tmp_path
):
    base = read_scan(real_scan_path)
    manifest = generate_datasets(tmp_path, StudyDesign(doses=(1e4,), base_npz=str(real_scan_path)))
    assert manifest["inputs"]["base_sha256"] == sha256_file(real_scan_path)
    for scan in halves(tmp_path, 1e4).values():
        np.testing.assert_array_equal(scan.object_guess, base.object_guess)
        np.testing.assert_array_equal(scan.xcoords, base.xcoords[scan.scan_index])
        np.testing.assert_array_equal(scan.ycoords, base.ycoords[scan.scan_index])
        ratio = scan.probe / base.probe
        np.testing.assert_allclose(
            ratio, np.median(ratio.real), rtol=1e-3, atol=1e-3
        )  # one real factor
        np.testing.assert_array_equal(
            scan.truth_patches, oracle.patches(scan.object_guess, scan.ycoords, scan.xcoords, 64)
        )
        provenance = scan.metadata["provenance"]
        assert (
            provenance["simulation"] == "matched" and real_scan_path.name in provenance["specimen"]
        )
        assert provenance["base_object_kind"] == base.metadata["object_kind"] != "truth"
        assert scan.metadata["object_kind"] == "truth"  # of the simulation
        assert counts_of(scan).sum((1, 2)).mean() == pytest.approx(1e4, rel=0.1)


def test_a_raw_upstream_file_is_refused_with_the_command_that_imports_it(tmp_path, capsys):
    raw = tmp_path / "fly001_transposed.npz"
    np.savez(
        raw, diff3d=np.ones((8, 8, 5), dtype=np.uint16), xcoords=np.zeros(5), ycoords=np.zeros(5)
    )
    with pytest.raises(
        DataContractError, match=r"fly001_transposed\.npz.*diff3d.*uint16.*fly64 import"
    ):
        generate_datasets(tmp_path / "C", small(base_npz=str(raw)))
    assert main(["--base-npz", str(raw), "--output-root", str(tmp_path / "C")]) == 2
    captured = capsys.readouterr()
    assert (
        captured.err.startswith("error: ") and "fly64 import" in captured.err and not captured.out
    )
    assert not (tmp_path / "C").exists()


# The command line


def test_the_command_writes_the_doses_asked_for_and_prints_what_it_wrote(tmp_path, capsys):
    options = "--dose 1000 --dose 300 --scan_step 6 --specimen lines --simulation matched"
    argv = ["--output_root", str(tmp_path), *options.split(), "--replicate", "2"]
    assert main(argv) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 6 and all("images  sha256" in line for line in lines)
    assert last.startswith("light beside the detector: the beam has a radius of 35 px")
    assert sorted(path.name for path in (tmp_path / "dose_300").iterdir()) == list(FILES)
    design = from_dict(StudyDesign, read_json(tmp_path / "run_manifest.json")["inputs"]["design"])
    assert design == small(doses=(1e3, 300.0), specimen="lines", simulation="matched", replicate=2)


def test_the_commands_default_is_the_whole_study_from_the_embedded_twin(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(
        generation, "generate_datasets", lambda *a, **k: (calls.append((a, k)), {"files": {}})[1]
    )
    assert main(["--output-root", str(tmp_path)]) == 0
    given = {"output_root": tmp_path, "design": ScanDesign(), "progress": True}
    assert calls == [((), given)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dose", "1000.5"), "dose=1000.5 is not a whole number of photons"),
        (("--N", "7"), "N=7: expected greater than or equal to 16"),
        (("--base-npz", "absent.npz"), "absent.npz: cannot be opened"),
        (("--dose", "nan"), "dose=nan is not a whole number"),
        (("--specimen", "cat"), "'cat' for argument '--specimen'. Expected one of ('siemens_star'"),
    ],
)
def test_bad_options_are_refused_by_name_and_nothing_is_written(tmp_path, capsys, options, message):
    try:
        code = main(["--output-root", str(tmp_path / "C"), *options])
    except SystemExit as ended:
        code = ended.code
    said = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert code == 2 and message in said
    assert not [path for path in (tmp_path / "C").rglob("*") if path.is_file()]


def test_a_base_scan_too_small_for_two_halves_and_a_guard_band_is_refused(small_scan, tmp_path):
    write_scan(tmp_path / "base.npz", small_scan())
    with pytest.raises(
        ConfigError, match=r"a guard band of \d+\.\d px leaves no positions on one side"
    ):
        generate_datasets(tmp_path / "C", small(base_npz=str(tmp_path / "base.npz")))
