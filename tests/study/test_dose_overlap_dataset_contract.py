"""Every file that phases C and D write is DATA-001, key by key, says what it is, and loses nothing
that phase C's files hold."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fly64lib.design.study import SPLITS, StudyDesign, held_out_file, split_file, view_file
from fly64lib.generation import generate_datasets
from fly64lib.overlap import generate_overlap_views
from ptycho_torch.data.contract import KEYS, read_scan, write_scan
from ptycho_torch.memmap_bridge import PyTorchMemmapBridge

N, M, DOSE = 64, 96, 1e3
NAMED, SINGLE = (
    ("dense", "sparse"),
    ("dense_spread", "dense_fluence", "sparse_spread", "sparse_fluence"),
)
ALWAYS = {
    "diffraction": "float32",
    "xcoords": "float64",
    "ycoords": "float64",
    "probeGuess": "complex64",
    "objectGuess": "complex64",
}
OF_A_SPLIT = {"Y": "complex64", "scan_index": "int64"}
C_FILES = ["patched_train", "patched_test", "held_out_test"]
D_FILES = [f"{view}/{view}_{split}" for view in (*NAMED, *SINGLE, "custom") for split in SPLITS]


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Phases C and D of the twin on every sixth row and sample; between them, keys that the
    contract does not know."""
    root = tmp_path_factory.mktemp("study")
    generate_datasets(root / "C", StudyDesign(doses=(DOSE,), scan_step=6, M=M))
    for split in SPLITS:
        path = split_file(root / "C", DOSE, split)
        scan = read_scan(path, load_truth=True)
        write_scan(
            path,
            replace(
                scan,
                extra={
                    "ring_current_mA": np.arange(scan.n, dtype=np.float32),
                    "beamline": np.array("twin of 2-ID-D, Velociprobe"),
                    "detector_gain": np.eye(N, dtype=bool),
                    "wavelength_m": np.float64(1.4e-10),
                },
            ),
        )
    with pytest.MonkeyPatch.context() as patch:  # pictures are phase D's own test's
        patch.setattr(
            "fly64lib.overlap.draw_view",
            lambda path, *_: (path.parent.mkdir(exist_ok=True), path.touch()),
        )
        generate_overlap_views(root / "C", root / "D", root / "A", StudyDesign(), s_img=0.5)
    return root


def path_of(root: Path, name: str) -> Path:
    return root / ("D" if "/" in name else "C") / "dose_1000" / f"{name}.npz"


def test_the_phases_write_these_files_and_no_others(study):
    written = sorted(path.relative_to(study).as_posix() for path in study.rglob("*.npz"))
    assert written == sorted(
        path_of(study, name).relative_to(study).as_posix() for name in C_FILES + D_FILES
    )
    assert (
        split_file(study / "C", DOSE, "train").is_file()
        and held_out_file(study / "C", DOSE).is_file()
    )
    assert view_file(study / "C", study / "D", DOSE, "sparse_spread", "test").is_file()


@pytest.mark.parametrize("name", C_FILES + D_FILES)
def test_a_file_has_the_contracts_keys_dtypes_and_lengths_and_nothing_pickled(study, name):
    with np.load(path_of(study, name), allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    view = name.split("/")[0]
    expected = ALWAYS | (OF_A_SPLIT if name != "held_out_test" else {})
    expected |= {"groups": "int64"} if view in (*NAMED, "custom") else {}
    known = {key.name for key in KEYS} & set(arrays) - {"metadata"}
    assert {key: str(arrays[key].dtype) for key in known} == expected
    assert arrays["metadata"].shape == () and arrays["metadata"].dtype.kind == "U"
    n = len(arrays["diffraction"])
    assert arrays["diffraction"].shape == (n, N, N) and arrays["probeGuess"].shape == (M, M)
    for key in known & {"xcoords", "ycoords", "Y", "scan_index"}:
        assert len(arrays[key]) == n
    if "groups" in known:
        assert arrays["groups"].shape[1] == 4 and set(arrays["groups"].ravel()) == set(range(n))


@pytest.mark.parametrize("name", C_FILES + D_FILES)
def test_a_file_reads_with_truth_and_its_counts_are_whole(study, name):
    path = path_of(study, name)
    scan = read_scan(path, load_truth=True)
    assert (scan.truth_patches is None) == (name == "held_out_test")
    raw = PyTorchMemmapBridge(path).raw_data_torch
    counts = raw.counts(np.arange(raw.n)).numpy()
    np.testing.assert_array_equal(counts, np.rint(np.square(scan.diffraction, dtype=np.float64)))
    keep = scan.metadata["dose"] / DOSE
    assert counts.sum((1, 2)).mean() == pytest.approx(
        scan.metadata["photons_per_exposure"], rel=1e-5
    )
    assert counts.sum((1, 2)).mean() == pytest.approx(keep * DOSE, rel=0.1)
    assert np.square(np.abs(scan.probe)).sum() == pytest.approx(keep * DOSE, rel=0.1)


@pytest.mark.parametrize("name", C_FILES + D_FILES)
def test_metadata_state_dose_seeds_geometry_provenance_versions_and_what_object_and_probe_are(
    study, name
):
    metadata = read_scan(path_of(study, name)).metadata
    assert metadata["object_kind"] == metadata["probe_kind"] == "truth"
    assert metadata["simulation_seed"] == 42 and metadata["replicate"] == 0
    assert metadata["split"] == name.rsplit("_", 1)[1]
    assert metadata["view"] == {"patched": "baseline", "held": "held_out"}.get(
        name.split("_")[0], name.split("/")[0]
    )
    assert {"N": N, "split_axis": "y", "pixels_lit_by_both_halves": 0}.items() <= metadata[
        "geometry"
    ].items()
    assert (
        metadata["provenance"]["specimen"] == "siemens_star"
        and metadata["provenance"]["simulation"] == "fine"
    )
    assert {"python", "numpy", "torch", "fly64"} <= set(metadata["versions"])
    if "/" in name:
        assert metadata["parent"]["file"] == f"dose_1000/patched_{metadata['split']}.npz"
        assert metadata["selection"]["seed"] == 456 and metadata["overlap"]["probe_diameter_px"] > 0
        assert (metadata["dose"] < DOSE) == name.split("/")[0].endswith("_fluence")


@pytest.mark.parametrize("name", D_FILES)
def test_keys_that_the_contract_does_not_know_reach_every_view(study, name):
    scan = read_scan(path_of(study, name))
    parent = read_scan(split_file(study / "C", DOSE, scan.metadata["split"]))
    assert set(scan.extra) == {"ring_current_mA", "beamline", "detector_gain", "wavelength_m"}
    rows = np.searchsorted(parent.scan_index, scan.scan_index)
    np.testing.assert_array_equal(
        scan.extra["ring_current_mA"], parent.extra["ring_current_mA"][rows]
    )
    np.testing.assert_array_equal(scan.extra["detector_gain"], np.eye(N, dtype=bool))
    assert (
        str(scan.extra["beamline"]) == "twin of 2-ID-D, Velociprobe"
        and scan.extra["wavelength_m"] == 1.4e-10
    )
