"""Phase D end to end, on a small raster simulated by the engine and on the real scan's object,
probe and positions."""

import json
import shutil

import numpy as np
import pytest
import torch

from fly64lib.design.study import SPLITS, StudyDesign, ViewDesign, linear_overlap
from fly64lib.generation import generate_datasets
from fly64lib.overlap import generate_overlap_views, main, thinned_scan
from ptycho_torch.data.contract import ScanData, read_scan, write_scan
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.files import sha256_file, write_json
from ptycho_torch.physics.geometry import Geometry
from ptycho_torch.physics.noise import draw_counts

N, SHAPE, DOSES = 16, (40, 52), (200.0, 3000.0)
NAMED, CONTROLS = ("dense", "sparse"), ("_spread", "_fluence")


def phase_c(root, step=1.3, doses=DOSES):
    """Two halves of a jittered raster under a probe of 4.7 px, simulated at each dose."""
    rng = np.random.default_rng(1)
    r = np.arange(N) - N // 2
    probe = np.exp(-(r[:, None] ** 2 + r**2) / 16 + 0.05j * r[:, None] * r)[None]
    truth = np.exp(0.4j * rng.normal(size=SHAPE)).astype(np.complex64)
    rows, columns = (np.arange(N / 2 + 0.2, side - N / 2 - 0.2, step) for side in SHAPE)
    y, x = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    x, y = x + rng.uniform(-0.2, 0.2, x.size), y + rng.uniform(-0.2, 0.2, y.size)
    for dose in doses:
        scaled = (probe * np.sqrt(dose / (np.abs(probe) ** 2).sum())).astype(np.complex64)
        for split, half in zip(SPLITS, (y > 20, y < 20), strict=True):
            places = torch.from_numpy(np.stack([y[half], x[half]], axis=1))
            geometry = Geometry.of(places, torch.from_numpy(scaled), SHAPE, whole=True)
            canvas, every = torch.from_numpy(truth)[None], torch.arange(half.sum())
            expected, patches = geometry.expected(canvas, every), geometry.patches(canvas, every)
            counts = draw_counts(expected, torch.Generator().manual_seed(int(dose))).numpy()
            write_scan(
                root / f"dose_{dose:.0f}" / f"patched_{split}.npz",
                ScanData(
                    np.sqrt(counts),
                    x[half],
                    y[half],
                    scaled,
                    truth,
                    patches.numpy(),
                    np.flatnonzero(half),
                    metadata={
                        "dose": dose,
                        "split": split,
                        "view": "baseline",
                        "replicate": 0,
                        "object_kind": "truth",
                    },
                ),
            )
    return root


def run(root, replicate=0, **options):
    return generate_overlap_views(
        root / "c", root / "d", root / "a", ViewDesign(replicate=replicate), **options
    )


@pytest.fixture
def no_pictures(monkeypatch):
    """Pictures are drawn once, for `study`: they take most of the time of a small phase D."""
    monkeypatch.setattr(
        "fly64lib.overlap.draw_view", lambda path, *_: write_json(path, "no picture")
    )


def view(root, dose, name, split):
    return read_scan(
        root / "d" / f"dose_{dose:.0f}" / name / f"{name}_{split}.npz", load_truth=True
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    phase_c(root / "c")
    return root, run(root, s_img=0.5, n_groups=40)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["dense", "sparse", "dense_spread", "sparse_spread", "custom"])
def test_a_view_holds_its_images_patterns_positions_and_truth_as_phase_c_made_them(
    study, name, split
):
    root, _ = study
    parent = read_scan(root / "c" / "dose_200" / f"patched_{split}.npz", load_truth=True)
    scan = view(root, 200, name, split)
    rows = np.searchsorted(parent.scan_index, scan.scan_index)
    assert 4 <= len(np.unique(rows)) == scan.n < parent.n
    for key in ("diffraction", "xcoords", "ycoords", "truth_patches"):
        np.testing.assert_array_equal(getattr(scan, key), getattr(parent, key)[rows])
    np.testing.assert_array_equal(scan.probe, parent.probe)
    if scan.groups is not None:
        np.testing.assert_array_equal(np.unique(scan.groups), np.arange(scan.n))
    assert (scan.groups is None) == name.endswith("_spread")


@pytest.mark.parametrize("name", NAMED)
def test_group_centres_are_one_minus_overlap_of_the_probes_diameter_apart(study, name):
    scan = view(study[0], 3000, name, "train")
    centres = scan.positions[scan.groups[:, 0]]
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[
        np.triu_indices(len(centres), 1)
    ]
    D = scan.metadata["overlap"]["probe_diameter_px"]
    assert D == pytest.approx(2 * np.sqrt(8 * np.log(2)), rel=0.02)  # intensity exp(-r^2 / 8)
    assert apart.min() >= (1 - linear_overlap(name)) * D


def test_the_selection_is_the_same_for_all_doses(study):
    for name in ("dense", "sparse", "sparse_spread", "custom"):
        low, high = (view(study[0], dose, name, "test") for dose in DOSES)
        np.testing.assert_array_equal(low.scan_index, high.scan_index)
        if low.groups is not None:
            np.testing.assert_array_equal(low.groups, high.groups)


@pytest.mark.parametrize("name", NAMED)
def test_controls_bring_the_named_views_photons_to_the_specimen(study, name):
    root, _ = study
    named, few, every = (view(root, 3000, name + control, "train") for control in ("", *CONTROLS))
    parent = read_scan(root / "c" / "dose_3000" / "patched_train.npz")
    on_specimen = [scan.n * (np.abs(scan.probe) ** 2).sum() for scan in (named, few, every)]
    np.testing.assert_allclose(on_specimen, on_specimen[0], rtol=1e-5)
    assert every.n == parent.n and few.n == named.n
    detected, keep = np.square(every.diffraction).sum(), named.n / parent.n
    assert every.metadata["selection"]["photons_kept"] == pytest.approx(keep)
    assert every.metadata["dose"] == pytest.approx(3000 * keep)
    assert detected == pytest.approx(
        keep * np.square(parent.diffraction).sum(), abs=5 * float(detected) ** 0.5
    )
    per_pixel = [
        scan.metadata["overlap"]["fluence"]["photons_per_pixel"] for scan in (named, few, every)
    ]
    np.testing.assert_allclose(
        per_pixel, per_pixel[0], rtol=0.25
    )  # groups at the edge light more outside the region


def test_thinned_counts_are_poisson_at_the_fainter_dose_and_no_brighter_than_before(
    study, tmp_path
):
    parent = read_scan(study[0] / "c" / "dose_3000" / "patched_test.npz")
    same = ScanData(
        np.sqrt(np.random.default_rng(0).poisson(6.0, (400, N, N))).astype(np.float32),
        np.full(400, 20.0),
        np.full(400, 20.0),
        parent.probe,
        parent.object_guess,
    )
    thin = thinned_scan(same, 0.25, [3, 4], tmp_path)
    counts = np.square(thin.diffraction)
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    assert (counts <= np.square(same.diffraction) + 1e-4).all()
    assert counts.mean() == pytest.approx(1.5, abs=0.02) and counts.var() == pytest.approx(
        1.5, abs=0.04
    )
    rest = np.square(same.diffraction) - counts
    assert abs(np.corrcoef(rest.ravel(), counts.ravel())[0, 1]) < 0.01
    np.testing.assert_allclose(thin.probe, parent.probe / 2, rtol=1e-6)


def test_the_same_figures_stand_in_the_view_in_its_json_and_in_the_bundle(study):
    root, manifest = study
    bundle = json.loads((root / "a" / "overlap_figures.json").read_text())
    for name in ("baseline", "dense", "sparse", "dense_fluence"):
        figures = json.loads((root / "a" / "dose_200" / name / "overlap_test.json").read_text())
        assert bundle["dose_200"][name]["test"].items() <= figures.items()
        if name != "baseline":
            assert view(root, 200, name, "test").metadata["overlap"].items() <= figures.items()
    within, between = (
        [
            bundle["dose_200"][name]["test"][figure]["mean_disc_overlap"]
            for name in ("dense", "sparse")
        ]
        for figure in ("within_groups", "between_groups")
    )
    assert min(within) > 0.5 and between[0] > between[1]
    low, high = (
        bundle[f"dose_{dose:.0f}"]["sparse"]["test"]["fluence"]["photons_per_pixel"]
        for dose in DOSES
    )
    assert high / low == pytest.approx(15, rel=1e-4)
    for folder, names in (("d", manifest["files"]), ("a", manifest["artifacts"])):
        for path, row in names.items():
            assert sha256_file(root / folder / path) == (row["sha256"] if folder == "d" else row)
    for picture in ("baseline_train", "dense_test", "sparse_spread_test"):
        assert f"overlap/{picture}.png" in manifest["artifacts"]


def test_metadata_name_the_parent_the_seeds_and_the_rule(study):
    root, _ = study
    metadata = view(root, 200, "sparse", "train").metadata
    assert (
        metadata["view"] == "sparse"
        and metadata["gridsize"] == 2
        and metadata["object_kind"] == "truth"
    )
    parent = root / "c" / "dose_200" / "patched_train.npz"
    assert metadata["parent"] == {
        "file": "dose_200/patched_train.npz",
        "sha256": sha256_file(parent),
        "dose": 200.0,
    }
    assert metadata["selection"]["seed"] == 456 and metadata["selection"]["neighbor_count"] == 7
    assert view(root, 200, "custom", "train").metadata["selection"]["grouping_seed"] == 123


def test_two_runs_with_one_seed_give_identical_files_and_manifests_but_for_the_time(
    study, tmp_path
):
    root, first = study
    shutil.copytree(root / "c", tmp_path / "c")
    second = run(tmp_path, s_img=0.5, n_groups=40)
    assert first.pop("seconds") > 0 and second.pop("seconds") > 0
    assert first == second
    first["seconds"] = 1.0


def test_a_second_run_makes_only_what_is_missing_damaged_or_of_other_inputs(tmp_path, no_pictures):
    phase_c(tmp_path / "c", doses=(200.0,))
    rows = run(tmp_path)["files"]
    paths = {name: tmp_path / "d" / name for name in rows}
    lost, damaged, *_ = paths
    before = {name: path.stat().st_mtime_ns for name, path in paths.items()}
    paths[lost].unlink()
    paths[damaged].write_bytes(b"half a file")
    assert run(tmp_path)["files"] == rows
    assert {name for name, path in paths.items() if path.stat().st_mtime_ns != before[name]} == {
        lost,
        damaged,
    }
    other = run(tmp_path, rng_seed_subsample=7)["files"]
    assert all(other[name]["sha256"] != rows[name]["sha256"] for name in rows)


def test_doses_may_come_one_after_another(tmp_path, no_pictures):
    phase_c(tmp_path / "c")
    run(tmp_path, doses=(200,), controls=False)
    manifest = run(tmp_path, doses=(3000,), controls=False)
    assert len(manifest["files"]) == 8
    assert set(json.loads((tmp_path / "a" / "overlap_figures.json").read_text())) == {
        "dose_200",
        "dose_3000",
    }


def test_a_view_at_any_overlap_is_made_with_its_controls_beside_the_views_there_are(
    tmp_path, no_pictures
):
    phase_c(tmp_path / "c", doses=(200.0,))
    dense = run(tmp_path, views=("dense",))["files"]
    times = {name: (tmp_path / "d" / name).stat().st_mtime_ns for name in dense}
    manifest = run(tmp_path, views=("0.5", "0.35"))
    assert dense.items() <= manifest["files"].items() and len(manifest["files"]) == 18
    assert times == {name: (tmp_path / "d" / name).stat().st_mtime_ns for name in dense}
    named, few, every = (view(tmp_path, 200, "0.5" + end, "test") for end in ("", *CONTROLS))
    parent = read_scan(tmp_path / "c" / "dose_200" / "patched_test.npz")
    assert few.n == named.n < every.n == parent.n and few.groups is None
    assert every.metadata["dose"] == pytest.approx(200 * named.n / parent.n)
    assert named.metadata["view"] == "0.5" and named.metadata["gridsize"] == 2
    assert named.metadata["selection"]["linear_overlap"] == 0.5
    centres = named.positions[named.groups[:, 0]]
    apart = np.linalg.norm(centres[:, None] - centres, axis=-1)[np.triu_indices(len(centres), 1)]
    assert apart.min() >= 0.5 * named.metadata["overlap"]["probe_diameter_px"]
    bundle = json.loads((tmp_path / "a" / "overlap_figures.json").read_text())["dose_200"]
    pairs = [bundle[name]["train"]["groups"] for name in ("dense", "0.5", "0.35")]
    assert pairs == sorted(pairs, reverse=True) and len(set(pairs)) == 3


def test_a_view_too_small_for_one_group_is_skipped_with_its_reason_and_no_stale_file_stays(
    tmp_path, no_pictures
):
    phase_c(tmp_path / "c", doses=(200.0,))
    run(tmp_path, controls=False)
    parent = tmp_path / "c" / "dose_200" / "patched_test.npz"
    write_scan(parent, read_scan(parent, load_truth=True).subset(np.arange(3)))
    manifest = run(tmp_path, controls=False)
    skipped = json.loads((tmp_path / "d" / "skip_summary.json").read_text())
    assert skipped == [
        {
            "dose": 200.0,
            "view": name,
            "split": "test",
            "reason": "3 images cannot form one group of 4 (gridsize 2)",
        }
        for name in NAMED
    ]
    assert sorted(manifest["files"]) == [f"dose_200/{name}/{name}_train.npz" for name in NAMED]
    assert not (tmp_path / "d" / "dose_200" / "dense" / "dense_test.npz").exists()


def test_impossible_input_is_refused_by_name(tmp_path, no_pictures):
    phase_c(tmp_path / "c", doses=(200.0,))
    with pytest.raises(ConfigError, match="s_img=1.5"):
        run(tmp_path, s_img=1.5)
    with pytest.raises(ConfigError, match="n_groups=100000 is more than"):
        run(tmp_path, s_img=0.05, n_groups=100_000)
    with pytest.raises(ConfigError, match="is of replicate 0, the views are asked for replicate 2"):
        run(tmp_path, replicate=2)
    with pytest.raises(
        DataContractError, match="dose_500/patched_train.npz.*no such file.*fly64lib.generation"
    ):
        run(tmp_path, doses=(200, 500))
    phase_c(tmp_path / "c", step=1.5, doses=(3000.0,))
    with pytest.raises(DataContractError, match="its positions are not those of dose_200"):
        run(tmp_path)


def test_the_command_line_takes_both_spellings_and_prints_errors_without_a_traceback(
    tmp_path, capsys, no_pictures
):
    phase_c(tmp_path / "c", doses=(200.0,))
    c, d, a = (str(tmp_path / folder) for folder in "cda")
    common = ["--phase-c-root", c, "--output_root", d, "--artifact-root", a]
    options = "--s_img 0.5 --n-groups 9 --probe-diameter-px 6 --neighbor_count 5 --no-controls"
    assert main([*common, *options.split(), "--rng-seed-subsample", "3"]) == 0
    out = capsys.readouterr().out
    assert (
        "dose_200/dense/dense_train.npz" in out
        and "images in 9 groups" in out
        and "spread" not in out
    )
    scan = view(tmp_path, 200, "dense", "test")
    assert scan.metadata["selection"]["spacing_px"] == pytest.approx(1.8)
    assert (
        scan.metadata["selection"]["neighbor_count"] == 5
        and scan.metadata["selection"]["seed"] == 3
    )
    assert main([*common, "--gridsize", "3"]) == 2
    assert (
        capsys.readouterr()
        .err.splitlines()[-1]
        .startswith("error: neighbor_count=7 cannot fill groups of 9")
    )
    assert main(["--phase-c-root", str(tmp_path / "none"), *common[2:]]) == 2
    assert "no such file; expected the data of phase C" in capsys.readouterr().err


def test_phase_d_runs_on_the_real_scans_object_probe_and_positions(
    real_scan_path, tmp_path, no_pictures
):
    generate_datasets(tmp_path / "c", StudyDesign(doses=(1e3,), base_npz=str(real_scan_path)))
    manifest = run(tmp_path)
    assert not manifest["skipped"] and len(manifest["files"]) == 12
    bundle = json.loads((tmp_path / "a" / "overlap_figures.json").read_text())["dose_1000"]
    for split in SPLITS:
        dense, sparse = bundle["dense"][split], bundle["sparse"][split]
        assert dense["probe_diameter_px"] == pytest.approx(30, abs=0.5)
        assert dense["groups"] > 2 * sparse["groups"] > 20
        assert dense["between_groups"]["smallest_px"] >= 0.3 * dense["probe_diameter_px"]
        assert sparse["between_groups"]["smallest_px"] >= 0.8 * dense["probe_diameter_px"]
