"""Importing: every layout becomes the same scan, found in the right orientation, on the right
pixels, or is refused."""

import bz2
import io
import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import oracle
import pytest
import reference_writers
from small_scan import geometry

from fly64lib.cli.main import main
from fly64lib.formats import importing
from fly64lib.formats.orientation import ORIENTATIONS, oriented
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import ScanData, read_scan

DOSE = 1e5


@pytest.fixture(scope="module")
def scan() -> dict[str, np.ndarray]:
    """Counts of 90 patterns of 32 x 32 px from the oracle, with what belongs to them."""
    image, probe, y, x, expected = geometry()
    counts = np.random.default_rng(2).poisson(expected * DOSE).astype(np.uint16)
    return {
        "counts": counts,
        "y": y,
        "x": x,
        "probe": (probe[0] * DOSE**0.5).astype(np.complex64),
        "object": image,
    }


def imported(source: Path, *options: str) -> ScanData:
    target = source.parent / "imported.npz"
    assert (
        main(["import", str(source), str(target), "--overwrite", "--picture", "none", *options])
        == 0
    )
    return read_scan(target)


def refused(capsys: pytest.CaptureFixture, source: Path, *options: str) -> str:
    target = source.parent / "refused.npz"
    assert main(["import", str(source), str(target), "--picture", "none", *options]) == 2
    assert not target.exists() and not list(target.parent.glob(".fly64-import-*"))
    return capsys.readouterr().err


def upstream(path: Path, scan: dict, **changed: np.ndarray) -> Path:
    """A raw fly64 file as upstream has it; None leaves a key out."""
    keys = {
        "diff3d": scan["counts"],
        "xcoords": scan["x"],
        "ycoords": scan["y"],
        "probeGuess": scan["probe"],
        "objectGuess": np.ones(scan["object"].shape, complex),
    } | changed
    np.savez(path, **{key: value for key, value in keys.items() if value is not None})
    return path


def test_the_real_star_becomes_the_projects_real_scan_in_the_right_orientation_unasked(
    real_star_path, real_scan_path, tmp_path
):
    assert main(["import", str(real_star_path), str(tmp_path / "star.npz"), "--crop", "64"]) == 0
    star, known = read_scan(tmp_path / "star.npz"), read_scan(real_scan_path)
    np.testing.assert_array_equal(star.diffraction, known.diffraction)
    for key in ("xcoords", "ycoords"):
        np.testing.assert_allclose(getattr(star, key), getattr(known, key), rtol=0, atol=1e-9)
    start = known.extra["probeInitial"]  # tike's analytic probe on the cropped detector, in photons
    assert np.abs(star.probe[0] - start).max() < 1e-6 * np.abs(start).max()
    assert star.canvas_shape == known.canvas_shape and (star.object_guess == 1).all()
    assert (star.metadata["object_kind"], star.metadata["probe_kind"]) == ("initial", "initial")
    deviance = star.metadata["import"]["deviance"]
    assert star.metadata["import"]["orientation"] == min(deviance, key=deviance.get) == "as-given"
    assert sorted(deviance.values())[1] > 1.05 * deviance["as-given"]
    assert (tmp_path / "star.png").stat().st_size > 20_000


@pytest.mark.parametrize("axes", ["n first", "n last", "n last, Fortran order, compressed"])
def test_upstreams_raw_layouts_become_the_same_scan(scan, tmp_path, axes):
    counts = scan["counts"] if axes == "n first" else np.moveaxis(scan["counts"], 0, -1)
    source = upstream(tmp_path / "raw.npz", scan, diff3d=counts)
    if "Fortran" in axes:
        with np.load(source) as keys:
            np.savez_compressed(source, **{**keys, "diff3d": np.asfortranarray(counts)})
    got = imported(source, "--orientation", "as-given", "--zero-frequency", "centre")
    np.testing.assert_array_equal(got.diffraction, np.sqrt(scan["counts"]).astype(np.float32))
    np.testing.assert_array_equal(got.probe[0], scan["probe"])
    np.testing.assert_array_equal([got.ycoords, got.xcoords], [scan["y"], scan["x"]])
    assert got.canvas_shape == scan["object"].shape and got.metadata["object_kind"] == "initial"
    assert got.metadata["photons_per_exposure"] == pytest.approx(scan["counts"].sum((1, 2)).mean())


@pytest.mark.parametrize("orientation", ["flip-y", "swap", "swap-flip-x"])
def test_positions_in_another_orientation_are_found_by_the_forward_model_and_turned_back(
    scan, tmp_path, orientation
):
    y, x = oriented(np.stack([scan["y"], scan["x"]], 1), orientation).T
    source = upstream(tmp_path / "raw.npz", scan, xcoords=x, ycoords=y, objectGuess=None)
    got = imported(source, "--zero-frequency", "centre")
    back = {"swap-flip-x": "swap-flip-y"}.get(orientation, orientation)
    assert got.metadata["import"]["orientation"] == back
    moved = np.stack([got.ycoords - scan["y"], got.xcoords - scan["x"]], 1)
    assert np.ptp(moved, axis=0).max() < 1e-9
    np.testing.assert_array_equal(
        got.diffraction, np.sqrt(scan["counts"]).astype(np.float32)
    )  # patterns are never turned


def test_the_eight_orientations_are_distinct_and_each_has_an_inverse():
    """A person can draw it: one point right of the middle, as (y, x)."""
    point = np.array([[1.0, 2.0]])
    seen = {tuple(oriented(point, name)[0]) for name in ORIENTATIONS}
    assert (
        len(seen) == 8
        and tuple(oriented(point, "flip-y")[0]) == (-1, 2)
        and tuple(oriented(point, "swap")[0]) == (2, 1)
    )
    assert tuple(oriented(point, "swap-flip-x")[0]) == (2, -1)
    for name in ORIENTATIONS:
        assert any(
            (oriented(oriented(point, name), other) == point).all() for other in ORIENTATIONS
        )


def test_cropping_the_detector_doubles_the_object_pixel_and_halves_positions(scan, tmp_path):
    np.savez(
        tmp_path / "raw.npz",
        diff3d=scan["counts"],
        xcoords=scan["x"],
        ycoords=scan["y"],
        probeGuess=scan["probe"],
        objectGuess=scan["object"],
    )
    got = imported(
        tmp_path / "raw.npz",
        "--crop",
        "16",
        "--zero-frequency",
        "centre",
        "--orientation",
        "as-given",
        "--pixel-size-nm",
        "50",
    )
    central = (slice(None), slice(8, 24), slice(8, 24))
    np.testing.assert_array_equal(
        got.diffraction, np.sqrt(scan["counts"][central]).astype(np.float32)
    )
    np.testing.assert_array_equal([got.ycoords, got.xcoords], [scan["y"] / 2, scan["x"] / 2])
    assert (
        got.metadata["object_pixel_nm"] == pytest.approx(100)
        and got.metadata["object_kind"] == "reconstruction"
    )
    wave = oracle.far_field(got.probe[0].astype(complex))
    full = oracle.far_field(scan["probe"].astype(complex))[8:24, 8:24]
    np.testing.assert_allclose(
        wave / np.linalg.norm(wave), full / np.linalg.norm(full), rtol=0, atol=1e-6
    )
    assert got.canvas_shape == (37, 39)  # 73 x 77 grown to even edges, halved
    assert (
        np.abs(got.object_guess[10, 12] - scan["object"][20, 24]) < 0.35
    )  # pixel i of the result was pixel 2 i


@pytest.mark.parametrize("k", [2, 3])
def test_binning_sums_counts_and_the_probe_follows_the_middle_of_the_blocks(tmp_path, k):
    """A narrow lopsided probe on k times more detector pixels: the binned forward model has to
    predict the sums."""
    rng, N = np.random.default_rng(4), 24
    r = np.arange(N * k) - N * k // 2
    narrow = np.exp(-((r[:, None] - 1) ** 2 + (r + 2.0) ** 2) / 8) * np.exp(0.15j * r)
    image = np.exp(0.5j * rng.normal(size=(N * k + 9, N * k + 9)))
    y, x = rng.integers(0, 8, (2, 5)) + N * k / 2
    fine = oracle.expected_counts(image, narrow[None] * 100, y, x)
    np.savez(
        tmp_path / "raw.npz",
        diff3d=np.rint(fine).astype(np.uint32),
        xcoords=x,
        ycoords=y,
        probeGuess=narrow * 100,
        objectGuess=image,
    )
    got = imported(
        tmp_path / "raw.npz",
        "--bin",
        str(k),
        "--zero-frequency",
        "centre",
        "--orientation",
        "as-given",
    )
    counts = np.rint(fine).reshape(5, N, k, N, k).sum((2, 4))
    np.testing.assert_allclose(got.diffraction**2, counts, rtol=1e-6)
    np.testing.assert_array_equal([got.ycoords, got.xcoords], [y, x])
    model = oracle.expected_counts(image, got.probe.astype(complex), y, x)
    error = np.abs(model - counts).sum() / counts.sum()
    still = (
        narrow[N * (k - 1) // 2 :, N * (k - 1) // 2 :][:N, :N] * 100
    )  # the same probe without the ramp
    unmoved = np.abs(oracle.expected_counts(image, still[None], y, x) - counts).sum() / counts.sum()
    assert error < 0.03 and unmoved > 3 * error


def test_amplitudes_and_zero_frequency_at_the_corner_are_found_and_unclear_values_asked_for(
    scan, tmp_path, capsys
):
    counts = np.zeros((90, 32, 32))
    counts[:, 10:23, 10:23] = scan["counts"][:, 10:23, 10:23]
    corner = np.fft.ifftshift(np.sqrt(counts), axes=(1, 2))
    source = upstream(
        tmp_path / "raw.npz", scan, diff3d=None, diffraction=corner.astype(np.float32)
    )
    got = imported(source, "--orientation", "as-given")
    np.testing.assert_array_equal(got.diffraction, np.sqrt(counts).astype(np.float32))
    assert (
        got.metadata["import"]["values"] == "amplitude"
        and got.metadata["import"]["zero_frequency"] == "corner"
    )
    upstream(source, scan, diff3d=None, diffraction=counts * 0.3712)
    assert "neither are their squares" in refused(capsys, source)
    scaled = imported(
        source,
        "--values",
        "intensity",
        "--photons-per-unit",
        str(1 / 0.3712),
        "--round",
        "--orientation",
        "as-given",
    )
    np.testing.assert_array_equal(scaled.diffraction, np.sqrt(counts).astype(np.float32))
    upstream(
        source, scan, diff3d=np.random.default_rng(1).poisson(9.0, (90, 32, 32))
    )  # no beam to be seen
    assert "say --zero-frequency centre or --zero-frequency corner" in refused(capsys, source)


@pytest.fixture(scope="module")
def reference_files(tmp_path_factory) -> Path:
    """A folder with files that cdtools and pty-chi made, and what went into them."""
    image, probe, y, x, _ = geometry()
    folder = tmp_path_factory.mktemp("reference")
    np.savez(
        folder / "scan.npz",
        object=image,
        probe=(probe[0] * DOSE**0.5).astype(np.complex64),
        corners=np.rint(np.stack([y, x], 1) - 16).astype(int),
    )
    subprocess.run(
        [sys.executable, reference_writers.__file__, str(folder / "scan.npz"), str(folder)],
        check=True,
        capture_output=True,
        timeout=300,
    )
    return folder


@pytest.mark.parametrize("name", ["cdtools.cxi", "ptychodus_dp.hdf5"])
def test_a_file_that_another_program_simulated_and_wrote_is_explained_as_given(
    reference_files, name
):
    """cdtools' CXI has no probe and no object, pty-chi's pair has both; signs, axes, units and
    origin are theirs."""
    made = np.load(reference_files / "scan.npz")
    got = imported(
        reference_files / name,
        *(["--probe", str(reference_files / "scan.npz")] if name == "cdtools.cxi" else []),
    )
    about = got.metadata["import"]
    assert about["orientation"] == "as-given" and about["probe_scaled_by"] == 1
    assert about["deviance"]["as-given"] < 1.3 and sorted(about["deviance"].values())[1] > 5
    pixel = reference_writers.object_pixel_m(32) * 1e9
    assert got.metadata["object_pixel_nm"] == pytest.approx(pixel, rel=1e-6)
    moved = np.stack([got.ycoords, got.xcoords], 1) - 16 - made["corners"]
    assert np.ptp(moved, axis=0).max() < 1e-4
    np.testing.assert_allclose(got.probe[0], made["probe"], rtol=1e-5, atol=1e-4)
    if name != "cdtools.cxi":
        assert np.abs(moved).max() < 1e-4
        np.testing.assert_allclose(got.object_guess, made["object"], atol=1e-6)


def test_ptychographic_positions_of_the_other_sign_in_a_cxi_file_are_turned(
    reference_files, tmp_path
):
    source = tmp_path / "turned.cxi"
    source.write_bytes((reference_files / "cdtools.cxi").read_bytes())
    with h5py.File(source, "a") as file:
        file["entry_1/sample_1/geometry_1/translation"][:, 1] *= -1
    got = imported(source, "--probe", str(reference_files / "scan.npz"))
    assert got.metadata["import"]["orientation"] == "flip-y"


def test_ptychoshelves_parameters_give_positions_and_pixel_in_metres(scan, tmp_path):
    with h5py.File(tmp_path / "data_roi0_dp.hdf5", "w") as file:
        file["dp"] = scan["counts"]
    with h5py.File(tmp_path / "data_roi0_para.hdf5", "w") as file:
        file["ppX"], file["ppY"], file["dx"], file["lambda"] = (
            scan["x"][None] * 2e-8,
            scan["y"][None] * 2e-8,
            2e-8,
            1e-10,
        )
    np.savez(tmp_path / "probe.npz", probeGuess=scan["probe"])
    got = imported(
        tmp_path / "data_roi0_dp.hdf5",
        "--probe",
        str(tmp_path / "probe.npz"),
        "--orientation",
        "as-given",
    )
    assert np.ptp(got.ycoords - scan["y"]) < 1e-9 and got.metadata[
        "object_pixel_nm"
    ] == pytest.approx(20)


def test_ptypys_chunks_are_joined_and_its_optics_give_the_pixel(scan, tmp_path):
    pixel_m = 1.23984193e-9 / 8.0 * 2.0 / (32 * 75e-6)
    with h5py.File(tmp_path / "scan.ptyd", "w") as file:
        for number, part in enumerate((slice(0, 40), slice(40, 90))):
            chunk = file.create_group(f"chunks/{number}")
            chunk["data"], chunk["indices"], chunk["weights"] = (
                scan["counts"][part],
                np.arange(90)[part],
                np.zeros(0),
            )
            chunk["positions"] = np.stack([scan["y"], scan["x"]], 1)[part] * pixel_m
        file["meta/energy"], file["meta/distance"], file["meta/psize"] = 8.0, 2.0, [75e-6, 75e-6]
        file["meta/label"] = "star"
    np.savez(tmp_path / "probe.npz", probeGuess=scan["probe"])
    got = imported(
        tmp_path / "scan.ptyd", "--probe", str(tmp_path / "probe.npz"), "--orientation", "as-given"
    )
    np.testing.assert_array_equal(got.diffraction, np.sqrt(scan["counts"]).astype(np.float32))
    assert np.ptp(got.ycoords - scan["y"]) < 1e-5 and got.metadata["label"] == "star"


def test_bad_pixels_are_refused_and_count_nothing_only_when_told(scan, tmp_path, capsys):
    counts = scan["counts"].astype(np.float32)
    counts[3, 5, 6], counts[4, 7, 8] = -1, np.nan
    source = upstream(tmp_path / "raw.npz", scan, diff3d=counts)
    assert "2 bad pixels (0 by the file's mask" in refused(
        capsys, source, "--zero-frequency", "centre"
    )
    got = imported(
        source, "--zero-frequency", "centre", "--bad-pixels", "zero", "--orientation", "as-given"
    )
    assert set(zip(*np.nonzero(got.extra["bad_pixels"]), strict=True)) == {(5, 6), (7, 8)}
    assert not got.diffraction[:, 5, 6].any() and got.diffraction[:, 9, 9].any()


def test_a_probe_in_other_units_is_scaled_to_the_measured_photons(scan, tmp_path):
    source = upstream(tmp_path / "raw.npz", scan, probeGuess=scan["probe"] * 1e-3)
    got = imported(source, "--zero-frequency", "centre", "--orientation", "as-given")
    assert (np.abs(got.probe) ** 2).sum() == pytest.approx(mean_photons(got.diffraction), rel=1e-5)
    assert got.metadata["import"]["probe_scaled_by"] > 100


@pytest.mark.parametrize(
    ("changed", "options", "message"),
    [
        (
            {"probeGuess": None},
            [],
            "a fly64 file without a probe; expected a probe to start from; pass --probe FILE.npz",
        ),
        ({"xcoords": None}, [], "key 'xcoords': missing; the keys are diff3d"),
        ({"xcoords": np.arange(5.0)}, [], "key 'xcoords': 5 values; expected 90 as in 'ycoords'"),
        ({"diff3d": np.ones((4, 5, 6))}, [], "shape (4, 5, 6), and 90 positions"),
        ({"diff3d": np.ones((90, 32, 32), complex)}, [], "dtype complex128; expected real numbers"),
        (
            {"probeGuess": np.ones((0, 0, 0, 0), complex)},
            [],
            "expected a complex probe (N, N) or (modes, N, N)",
        ),
        ({"probeGuess": np.ones((16, 16), complex)}, [], "16 px; expected 32 px as the frames"),
        ({"objectGuess": np.ones((2, 40, 40), complex)}, [], "expected one complex object (H, W)"),
        ({"xcoords": np.full(90, np.inf)}, [], "positions that are not finite"),
        (
            {"objectGuess": None},
            ["--position-unit", "um"],
            "positions in um, and no size of the object's pixel",
        ),
        (
            {"objectGuess": None},
            ["--position-unit", "m", "--pixel-size-nm", "50"],
            "px (read as m); expected between 1 px",
        ),
        ({}, ["--crop", "40"], "to be cropped to 40"),
        ({}, ["--crop", "30", "--bin", "4"], "a multiple of the bin"),
        ({}, ["--centre", "2", "16"], "leaves the frame"),
        ({"diff3d": np.zeros((90, 32, 32), np.uint16)}, [], "every value of every pattern is 0"),
        ({"diff3d": None, "other": np.ones(3)}, [], "an npz file with objectGuess, other"),
    ],
)
def test_what_cannot_become_a_scan_is_refused_with_what_to_do(
    scan, tmp_path, capsys, changed, options, message
):
    source = upstream(tmp_path / "raw.npz", scan, **changed)
    assert message in refused(capsys, source, "--zero-frequency", "centre", *options)


def test_a_file_that_is_data_001_already_is_kept_as_it_is(scan, tmp_path, capsys):
    imported(
        upstream(tmp_path / "raw.npz", scan),
        "--zero-frequency",
        "centre",
        "--orientation",
        "as-given",
    )
    said = refused(capsys, tmp_path / "imported.npz")
    assert "this is a DATA-001 file already" in said and "use it as it is" in said
    assert "it is there already; choose another name" in _second(capsys, tmp_path)


def _second(capsys: pytest.CaptureFixture, folder: Path) -> str:
    assert main(["import", str(folder / "raw.npz"), str(folder / "imported.npz")]) == 2
    return capsys.readouterr().err


def test_a_bzip2_bomb_stops_at_its_bound_and_a_cut_one_is_named(
    scan, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(importing, "BOMB_BYTES", 2**20)
    (tmp_path / "bomb.npz.bz2").write_bytes(bz2.compress(bytes(2**22)))
    assert "unpacks to more than 1048576 bytes" in refused(capsys, tmp_path / "bomb.npz.bz2")
    stored = io.BytesIO()
    np.savez(stored, data=scan["counts"], scan=np.stack([scan["y"], scan["x"]], 1))
    (tmp_path / "cut.npz.bz2").write_bytes(bz2.compress(stored.getvalue())[:-50])
    assert "damaged or truncated bzip2" in refused(capsys, tmp_path / "cut.npz.bz2")


def test_a_damaged_npz_is_not_sent_back_to_the_importer(scan, tmp_path, capsys):
    source = upstream(tmp_path / "raw.npz", scan)
    source.write_bytes(source.read_bytes()[:5000])
    said = refused(capsys, source)
    assert "a truncated or damaged zip" in said and said.endswith("copy or write it again\n")


def test_without_h5py_the_message_says_what_to_install(tmp_path, capsys, monkeypatch):
    with h5py.File(tmp_path / "x.cxi", "w") as file:
        file["entry_1/data_1/data"] = np.ones((2, 4, 4))
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "need h5py: pip install 'fly64[formats]'" in refused(capsys, tmp_path / "x.cxi")


def _lying(file: h5py.File) -> None:
    file.create_dataset(
        "dp", (10**5, 1000, 1000), np.uint16, chunks=(1, 100, 100), compression="gzip"
    )


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 8, 8), np.uint16)
    layout[:] = h5py.VirtualSource("/etc/hostname", "dp", (4, 8, 8))
    file.create_virtual_dataset("dp", layout)


def _circle(file: h5py.File) -> None:
    file["dp"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("/dp")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_lying, "stored bytes claim to hold"),
        (_virtual, "its values lie in other files"),
        (
            lambda file: file.__setitem__("dp", h5py.ExternalLink("/etc/hostname", "/dp")),
            "a link to another file, or in a circle",
        ),
        (_circle, "a link to another file, or in a circle"),
        (lambda file: file.__setitem__("dp", ["a"]), "dtype object"),
        (
            lambda file: file.create_dataset(
                "dp", (4, 8, 8), np.uint16, external=[("other.raw", 0, 512)]
            ),
            "its values lie in other",
        ),
        (
            lambda file: file.__setitem__(b"\xff\xfe", 1),
            "an HDF5 file with no keys; expected one format (fly64: npz with diff3d",
        ),
        (
            lambda file: file.__setitem__("rho", 1),
            "an HDF5 file with rho; expected one format",
        ),
    ],
)
def test_an_hdf5_file_opens_no_other_file_and_is_believed_only_as_far_as_it_holds_bytes(
    tmp_path, capsys, make, message
):
    with h5py.File(tmp_path / "x_dp.hdf5", "w") as file:
        make(file)
    with h5py.File(tmp_path / "x_para.hdf5", "w") as file:
        file["probe_position_x_m"] = file["probe_position_y_m"] = np.arange(4.0)
    assert message in refused(capsys, tmp_path / "x_dp.hdf5")


def test_the_metadata_say_how_the_file_was_read(scan, tmp_path):
    got = imported(
        upstream(tmp_path / "raw.npz", scan),
        "--zero-frequency",
        "centre",
        "--orientation",
        "as-given",
    )
    about = json.loads(json.dumps(got.metadata["import"]))
    assert about == {
        "source": "raw.npz",
        "format": "fly64",
        "values": "intensity",
        "zero_frequency": "centre",
        "crop": 32,
        "frame_px": 32,
        "centre_px": [16, 16],
        "bin": 1,
        "photons_per_unit": 1.0,
        "round": False,
        "orientation": "as-given",
        "deviance": {},
        "probe_scaled_by": 1.0,
        "whole": True,
        "left_out": [],
    }
