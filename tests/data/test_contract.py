"""DATA-001: what is written is what is read, in the contract's orientation."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from contract_file import H, N, W, arrays, n, save, whole_scan

from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import KEYS, read_scan, write_scan
from ptycho_torch.errors import DataContractError


@pytest.mark.parametrize("compressed", [False, True])
def test_a_scan_read_from_numpys_file_holds_its_arrays_and_keeps_patterns_in_the_file(
    tmp_path, compressed
):
    made = arrays()
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **made)
    scan = read_scan(tmp_path / "a.npz", load_truth=True)
    assert isinstance(scan.diffraction, np.memmap) and isinstance(scan.truth_patches, np.memmap)
    assert (scan.n, scan.N, scan.modes, scan.canvas_shape) == (n, N, 2, (H, W))
    for field, key in {
        "diffraction": "diffraction",
        "xcoords": "xcoords",
        "ycoords": "ycoords",
        "probe": "probeGuess",
        "object_guess": "objectGuess",
        "truth_patches": "Y",
        "scan_index": "scan_index",
        "groups": "groups",
    }.items():
        np.testing.assert_array_equal(getattr(scan, field), made[key])
    np.testing.assert_array_equal(scan.positions.T, [made["ycoords"], made["xcoords"]])
    assert scan.metadata == json.loads(str(made["metadata"]))
    assert set(scan.extra) == {"weather", "temperature_K"}
    assert (tmp_path / ".fly64-cache").exists() == compressed


def test_a_scan_written_and_read_again_is_the_same_with_its_unknown_keys_and_bytes(tmp_path):
    scan = read_scan(save(tmp_path / "a.npz", arrays()), load_truth=True)
    write_scan(tmp_path / "b.npz", scan)
    write_scan(tmp_path / "c.npz", read_scan(tmp_path / "b.npz", load_truth=True))
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
    with np.load(tmp_path / "b.npz", allow_pickle=False) as by_numpy:
        assert set(by_numpy) == set(arrays())
        for key, value in arrays().items():
            if key == "metadata":
                assert json.loads(str(by_numpy[key])) == json.loads(str(value))
            else:
                assert by_numpy[key].dtype == value.dtype
                np.testing.assert_array_equal(by_numpy[key], value)


def test_one_mode_is_written_as_a_plain_probe_and_optional_keys_stay_absent(tmp_path):
    made = {
        key: value
        for key, value in arrays().items()
        if key in [row.name for row in KEYS if row.required]
    }
    made["probeGuess"] = made["probeGuess"][0]
    made["xcoords"] = made["xcoords"].astype(np.float32)
    scan = read_scan(save(tmp_path / "a.npz", made))
    assert scan.probe.shape == (1, N, N) and scan.xcoords.dtype == np.float64
    assert (
        scan.truth_patches is scan.scan_index is scan.groups is None
        and scan.metadata == scan.extra == {}
    )
    write_scan(tmp_path / "b.npz", scan)
    with np.load(tmp_path / "b.npz") as written:
        assert set(written) == set(made) and written["probeGuess"].shape == (N, N)


def test_truth_is_left_alone_unless_asked_for(tmp_path):
    made = arrays()
    made["Y"][2, 3, 4] = np.nan
    assert read_scan(save(tmp_path / "a.npz", made)).truth_patches is None
    with pytest.raises(
        DataContractError, match=r"key 'Y': NaN or infinite values, the first at \[2, 3, 4\]"
    ):
        read_scan(tmp_path / "a.npz", load_truth=True)


def test_y_runs_along_rows_and_x_along_columns(tmp_path):
    """A patch low in a wide canvas: x may be large, y may not."""
    made = arrays()
    made["xcoords"][:], made["ycoords"][:] = 26.5, 12.5
    read_scan(save(tmp_path / "a.npz", made))
    made["xcoords"], made["ycoords"] = made["ycoords"], made["xcoords"]
    with pytest.raises(
        DataContractError,
        match=r"key 'ycoords': 6 of 6 patches leave the object, .* at 26\.50; expected "
        r"patch centres in 4\.5 \.\. 12\.5 px",
    ):
        read_scan(save(tmp_path / "a.npz", made))


@pytest.mark.parametrize(
    ("key", "centre", "inside"),
    [
        ("xcoords", N / 2, True),
        ("xcoords", W - N / 2, True),
        ("ycoords", N / 2 - 0.5, True),
        ("ycoords", H - N / 2 + 0.49, True),
        ("xcoords", N / 2 - 0.51, False),
        ("xcoords", W - N / 2 + 0.51, False),
        ("ycoords", H - N / 2 + 0.51, False),
        ("ycoords", -3.0, False),
        ("ycoords", 1e300, False),
    ],
)
def test_a_patch_may_touch_the_edge_of_the_object_but_not_cross_it(tmp_path, key, centre, inside):
    made = arrays()
    made[key][4] = centre
    save(tmp_path / "a.npz", made)
    if inside:
        assert getattr(read_scan(tmp_path / "a.npz"), key)[4] == centre
    else:
        with pytest.raises(
            DataContractError,
            match=f"key '{key}': 1 of 6 patches leave the object, the first is pattern 4",
        ):
            read_scan(tmp_path / "a.npz")


def test_a_refused_scan_is_not_written_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.npz"
    write_scan(path, whole_scan())
    before = path.read_bytes()
    for change in (
        {"diffraction": -np.ones((n, N, N), np.float32)},
        {"metadata": {"seed": np.nan}},
        {"metadata": {"when": object()}},
        {"extra": {"xcoords": np.ones(3)}},
        {"extra": {"x": np.array([None])}},
        {"extra": {"line\nbreak": np.ones(3)}},
    ):
        with pytest.raises(DataContractError, match=r"a\.npz: key .*; expected .*; "):
            write_scan(path, whole_scan(**change))
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_numbers_of_numpy_in_the_metadata_are_written_as_numbers(tmp_path):
    numbers = {"dose": np.float32(3240), "seeds": np.arange(3), "file": Path("a/b")}
    write_scan(tmp_path / "a.npz", whole_scan(metadata=numbers))
    assert read_scan(tmp_path / "a.npz").metadata == {
        "dose": 3240.0,
        "seeds": [0, 1, 2],
        "file": "a/b",
    }


def test_reading_a_scan_needs_neither_torch_nor_lightning():
    code = (
        "import sys, ptycho_torch.data.contract; raise SystemExit(bool({'torch', 'lightning'} &"
        " set(sys.modules)))"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False
        ).returncode
        == 0
    )


def test_the_real_scan_is_read_with_its_geometry_and_photons_and_survives_a_round_trip(
    real_scan_path, tmp_path
):
    scan = read_scan(real_scan_path, cache_dir=tmp_path)
    assert (scan.n, scan.N, scan.modes, scan.canvas_shape) == (516, 64, 1, (232, 232))
    assert (
        isinstance(scan.diffraction, np.memmap) and scan.metadata["object_kind"] == "reconstruction"
    )
    np.testing.assert_array_equal(scan.scan_index, np.arange(0, 10304, 20)[:516])
    np.testing.assert_allclose(
        [mean_photons(scan.diffraction), (np.abs(scan.probe) ** 2).sum()], 4.41e5, rtol=5e-3
    )
    with np.load(real_scan_path) as by_numpy:
        np.testing.assert_array_equal(scan.diffraction, by_numpy["diffraction"])
        np.testing.assert_array_equal(scan.extra["probeInitial"], by_numpy["probeInitial"])
    write_scan(tmp_path / "again.npz", scan)
    again = read_scan(tmp_path / "again.npz")
    np.testing.assert_array_equal(again.diffraction, scan.diffraction)
    assert again.metadata == scan.metadata and again.xcoords.tolist() == scan.xcoords.tolist()


def test_the_real_object_and_probe_explain_the_real_patterns_only_in_the_contracts_orientation(
    real_scan_path, tmp_path
):
    """R = sum |a - A| / sum a with an independent numpy model: 8 % as stored, above 20 % with x and
    y swapped."""
    scan = read_scan(real_scan_path, cache_dir=tmp_path).subset(np.arange(0, 516, 13))
    frequency = np.fft.fftfreq(scan.N)

    def misfit(rows, columns):
        difference = 0.0
        for measured, y, x in zip(scan.diffraction, rows, columns, strict=True):
            top, left = y - scan.N / 2, x - scan.N / 2
            row, column = int(np.rint(top)), int(np.rint(left))
            ramp = np.exp(
                -2j * np.pi * (frequency[:, None] * (top - row) + frequency * (left - column))
            )
            probe = np.fft.ifft2(np.fft.fft2(scan.probe[0]) * ramp)
            wave = probe * scan.object_guess[row : row + scan.N, column : column + scan.N]
            model = np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wave), norm="ortho")))
            difference += np.abs(measured - model).sum()
        return difference / scan.diffraction.sum()

    assert misfit(scan.ycoords, scan.xcoords) < 0.09
    assert misfit(scan.xcoords, scan.ycoords) > 0.2
