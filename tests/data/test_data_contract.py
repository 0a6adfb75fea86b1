"""DATA-001: what is written is what is read, and every way to break a scan file is refused with its
own message."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ptycho_torch.data import checks as data_checks
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import KEYS, ScanData, check_scan, read_scan, write_scan
from ptycho_torch.errors import DataContractError

n, N, H, W = 6, 9, 17, 31  # odd, and a canvas that is not square


def arrays(seed: int = 3) -> dict[str, np.ndarray]:
    """A complete, correct file, made with numpy alone."""
    rng = np.random.default_rng(seed)

    def wave(*shape: int) -> np.ndarray:
        return (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype(np.complex64)

    counts = rng.poisson(40.0, (n, N, N))
    metadata = {
        "dose": 40.0 * N**2,
        "object_kind": "truth",
        "probe_kind": "initial",
        "sample": "Ångström",
        "seeds": [1, 2],
    }
    return {
        "diffraction": np.sqrt(counts).astype(np.float32),
        "xcoords": rng.uniform(N / 2, W - N / 2, n),
        "ycoords": rng.uniform(N / 2, H - N / 2, n),
        "probeGuess": wave(2, N, N),
        "objectGuess": wave(H, W),
        "Y": wave(n, N, N),
        "scan_index": np.arange(0, 20 * n, 20),
        "groups": np.array([[0, 1, 2, 3], [5, 4, 1, 0]]),
        "metadata": np.array(json.dumps(metadata)),
        "weather": rng.normal(size=(2, 3)),
        "temperature_K": np.arange(n),
    }


def save(path: Path, contents: dict[str, np.ndarray]) -> Path:
    np.savez(path, **contents, allow_pickle=True)
    return path


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


def put(key, index, value):
    def change(made):
        made[key] = made[key].copy()
        made[key][index] = value

    return change


def replaced(key, make):
    return lambda made: made.update({key: make(made[key])})


def text(value):
    return replaced("metadata", lambda _: np.array(value))


BROKEN = {  # what is done to a correct file: the key named, what came, what is expected, what to do
    "diffraction missing": (
        lambda m: m.pop("diffraction"),
        "diffraction",
        "missing; the keys are Y,",
        "float32",
        "fly64 import",
    ),
    "probe missing": (
        lambda m: m.pop("probeGuess"),
        "probeGuess",
        "missing",
        "complex64",
        "add it",
    ),
    "object missing": (
        lambda m: m.pop("objectGuess"),
        "objectGuess",
        "missing",
        "complex64",
        "add it",
    ),
    "x missing": (lambda m: m.pop("xcoords"), "xcoords", "missing", "float64", "add it"),
    "integer counts": (
        replaced("diffraction", lambda d: np.rint(d**2).astype(np.uint16)),
        "diffraction",
        "dtype uint16",
        "float32",
        "np.sqrt",
    ),
    "float64 patterns": (
        replaced("diffraction", np.float64),
        "diffraction",
        "dtype float64",
        "float32",
        "astype(np.float32)",
    ),
    "float16 patterns": (
        replaced("diffraction", np.float16),
        "diffraction",
        "dtype float16",
        "float32",
        "astype",
    ),
    "big-endian patterns": (
        replaced("diffraction", lambda d: d.astype(">f4")),
        "diffraction",
        "dtype >f4",
        "float32",
        "astype",
    ),
    "complex patterns": (
        replaced("diffraction", np.complex64),
        "diffraction",
        "complex64",
        "float32",
        "no phase",
    ),
    "boolean patterns": (
        replaced("diffraction", lambda d: d > 6),
        "diffraction",
        "dtype bool",
        "float32",
        "np.sqrt",
    ),
    "integer positions": (
        replaced("xcoords", np.int64),
        "xcoords",
        "dtype int64",
        "float64",
        "astype(np.float64)",
    ),
    "complex128 probe": (
        replaced("probeGuess", np.complex128),
        "probeGuess",
        "complex128",
        "complex64",
        "astype(np.complex64)",
    ),
    "real object": (
        replaced("objectGuess", np.real),
        "objectGuess",
        "float32",
        "complex64",
        "astype(np.complex64)",
    ),
    "complex128 truth": (replaced("Y", np.complex128), "Y", "complex128", "complex64", "astype"),
    "float groups": (replaced("groups", np.float64), "groups", "float64", "integer", "np.int64"),
    "float scan index": (
        replaced("scan_index", np.float32),
        "scan_index",
        "float32",
        "integer",
        "np.int64",
    ),
    "one pattern without axis": (
        replaced("diffraction", lambda d: d[0]),
        "diffraction",
        "2 axes",
        "(n, N, N)",
        "reshape",
    ),
    "patterns with a channel": (
        replaced("diffraction", lambda d: d[..., None]),
        "diffraction",
        "4 axes",
        "(n, N, N)",
        "reshape",
    ),
    "positions as a column": (
        replaced("ycoords", lambda y: y[:, None]),
        "ycoords",
        "2 axes",
        "(n,)",
        "reshape",
    ),
    "probe with four axes": (
        replaced("probeGuess", lambda p: p[None]),
        "probeGuess",
        "4 axes",
        "(modes, N, N)",
        "reshape",
    ),
    "object with a slice axis": (
        replaced("objectGuess", lambda o: o[None]),
        "objectGuess",
        "3 axes",
        "(H, W)",
        "reshape",
    ),
    "patterns not square": (
        replaced("diffraction", lambda d: d[:, :, 1:]),
        "diffraction",
        "not square",
        "(n, N, N)",
        "crop",
    ),
    "patterns last": (
        replaced("diffraction", lambda d: np.moveaxis(d, 0, -1)),
        "diffraction",
        "not square, shape (9, 9, 6)",
        "(n, N, N)",
        "np.moveaxis(patterns, -1, 0)",
    ),
    "no patterns": (
        replaced("diffraction", lambda d: d[:0]),
        "diffraction",
        "empty",
        "at least one",
        "give the data",
    ),
    "no groups": (
        replaced("groups", lambda g: g[:0]),
        "groups",
        "empty",
        "(G, C)",
        "leave the key out",
    ),
    "a position short": (
        replaced("xcoords", lambda x: x[1:]),
        "xcoords",
        "length 5",
        "6, one for each",
        "same patterns",
    ),
    "a truth patch short": (
        replaced("Y", lambda y: y[1:]),
        "Y",
        "length 5",
        "6, one for each",
        "same patterns",
    ),
    "a scan index too many": (
        replaced("scan_index", lambda s: np.arange(7)),
        "scan_index",
        "length 7",
        "6, one",
        "same patterns",
    ),
    "probe of another N": (
        replaced("probeGuess", lambda p: p[:, 1:, 1:]),
        "probeGuess",
        "8 px",
        "N = 9 px",
        "same pixel grid",
    ),
    "probe not square": (
        replaced("probeGuess", lambda p: p[:, :, 1:]),
        "probeGuess",
        "8 px",
        "N = 9 px",
        "same pixel grid",
    ),
    "truth of another N": (
        replaced("Y", lambda y: y[:, 1:, 1:]),
        "Y",
        "8 px",
        "N = 9 px",
        "same pixel grid",
    ),
    "NaN in a pattern": (
        put("diffraction", (4, 7, 2), np.nan),
        "diffraction",
        "NaN or infinite values, the first at [4, 7, 2]",
        "sqrt(counts)",
        "mask",
    ),
    "infinite pattern": (
        put("diffraction", (0, 0, 0), np.inf),
        "diffraction",
        "[0, 0, 0]",
        "sqrt(counts)",
        "mask",
    ),
    "negative pattern": (
        put("diffraction", (5, 8, 8), -1e-6),
        "diffraction",
        "negative values, the first at [5, 8, 8]",
        ">= 0",
        "background",
    ),
    "dark patterns": (
        replaced("diffraction", np.zeros_like),
        "diffraction",
        "every value is 0",
        "photons",
        "check the source",
    ),
    "counts as floats": (
        replaced("diffraction", lambda d: np.rint(d**2)),
        "diffraction",
        "intensity (counts)",
        "amplitude",
        "np.sqrt",
    ),
    "scaled intensity": (
        replaced("diffraction", lambda d: 1.1 * d**2),
        "diffraction",
        "sum of the values: intensity",
        "amplitude",
        "np.sqrt",
    ),
    "amplitude in other units": (
        replaced("diffraction", lambda d: d / 9),
        "diffraction",
        "but metadata say dose = 3240",
        "both agree",
        "correct dose",
    ),
    "NaN position": (
        put("xcoords", 3, np.nan),
        "xcoords",
        "NaN or infinite values, the first at [3]",
        "finite",
        "positions",
    ),
    "position outside": (
        put("ycoords", 5, 40.0),
        "ycoords",
        "1 of 6 patches",
        "4.5 .. 12.5",
        "pixels of objectGuess",
    ),
    "positions in metres": (
        replaced("xcoords", lambda x: x * 1e-9),
        "xcoords",
        "6 of 6 patches",
        "4.5 .. 26.5",
        "not metres",
    ),
    "positions from the centre": (
        replaced("ycoords", lambda y: y - y.mean()),
        "ycoords",
        "patches leave",
        "4.5",
        "centre",
    ),
    "object smaller than a patch": (
        replaced("objectGuess", lambda o: o[:8]),
        "objectGuess",
        "an edge of 8 px",
        "N = 9",
        "canvas",
    ),
    "NaN in the object": (
        put("objectGuess", (16, 30), np.nan),
        "objectGuess",
        "the first at [16, 30]",
        "finite",
        "ones",
    ),
    "NaN in the probe": (
        put("probeGuess", (1, 2, 3), np.nan),
        "probeGuess",
        "the first at [1, 2, 3]",
        "finite",
        "recover",
    ),
    "dark probe": (
        replaced("probeGuess", np.zeros_like),
        "probeGuess",
        "every value is 0",
        "photons",
        "give the probe",
    ),
    "group beyond the scan": (
        put("groups", (1, 1), n),
        "groups",
        "indices 0 .. 6",
        "0 .. 5",
        "group",
    ),
    "negative group": (put("groups", (0, 0), -1), "groups", "indices -1 .. 5", "0 .. 5", "group"),
    "one pattern four times": (
        put("groups", 1, 3),
        "groups",
        "a pattern twice: [3, 3, 3, 3]",
        "distinct",
        "group",
    ),
    "pickled metadata": (
        replaced("metadata", lambda _: np.array({"dose": 1}, dtype=object)),
        "metadata",
        "a pickled array",
        "plain",
        "could run code",
    ),
    "pickled patterns": (
        replaced("diffraction", lambda d: d.astype(object)),
        "diffraction",
        "a pickled array",
        "plain",
        "save",
    ),
    "pickled unknown key": (
        lambda m: m.update(notes=np.array([None])),
        "notes",
        "a pickled array",
        "plain",
        "save",
    ),
    "metadata not JSON": (text("dose=1000"), "metadata", "not JSON", "JSON object", "json.dumps"),
    "metadata with NaN": (
        text('{"dose": NaN}'),
        "metadata",
        "NaN is not JSON",
        "JSON object",
        "json.dumps",
    ),
    "metadata a list": (text("[1, 2]"), "metadata", "JSON of a list", "JSON object", "dict"),
    "metadata bottomless": (
        text("[" * 100_000),
        "metadata",
        "not JSON",
        "JSON object",
        "json.dumps",
    ),
    "metadata bytes": (text(b"{}"), "metadata", "dtype |S2", "text", "json.dumps"),
    "metadata in a row": (text(["{}"]), "metadata", "1 axes", "()", "reshape"),
    "unknown object kind": (
        text('{"object_kind": "guess"}'),
        "metadata",
        "object_kind is 'guess'",
        "truth, recon",
        "say what",
    ),
    "unknown probe kind": (
        text('{"probe_kind": ["truth"]}'),
        "metadata",
        "probe_kind is ['truth']",
        "truth, recon",
        "say what",
    ),
    "dose in words": (
        text('{"dose": "1e3"}'),
        "metadata",
        "dose is '1e3'",
        "photons per exposure",
        "state",
    ),
    "dose of zero": (
        text('{"photons_per_exposure": 0}'),
        "metadata",
        "photons_per_exposure is 0",
        "> 0",
        "state",
    ),
    "dose beyond numbers": (
        text('{"dose": 1' + "0" * 400 + "}"),
        "metadata",
        "dose is 1000",
        "> 0",
        "state",
    ),
    "raw upstream file": (
        lambda m: (m.clear(), m.update(diff3d=np.ones((N, N, n), np.uint16))),
        "diff3d",
        "a raw upstream file, intensity uint16 (9, 9, 6)",
        "'diffraction'",
        "fly64 import",
    ),
    "nothing inside": (
        lambda m: m.clear(),
        "diffraction",
        "missing; the keys are none",
        "float32",
        "add it",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_with_file_key_what_came_what_is_expected_and_what_to_do(
    tmp_path, kind
):
    change, key, came, expected, todo = BROKEN[kind]
    made = arrays()
    change(made)
    path = save(tmp_path / "bad.npz", made)
    with pytest.raises(DataContractError) as caught:
        read_scan(path, load_truth=True)
    parts = re.fullmatch(
        rf"{re.escape(str(path))}: key '{key}': (.*); expected (.*?); (.*)",
        str(caught.value),
        re.DOTALL,
    )
    assert parts, str(caught.value)
    for part, words in zip(parts.groups(), (came, expected, todo), strict=True):
        assert words in part, str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["bad.npz"]


def test_a_fault_in_a_later_chunk_is_found_at_its_own_pattern(tmp_path, monkeypatch):
    made = arrays()
    made["diffraction"][4, 7, 2], made["Y"][5, 0, 8] = np.nan, np.inf
    monkeypatch.setattr(data_checks, "CHUNK_PIXELS", 2 * N * N)
    save(tmp_path / "a.npz", made)
    with pytest.raises(
        DataContractError, match=r"'diffraction': NaN or infinite values, the first at \[4, 7, 2\]"
    ):
        read_scan(tmp_path / "a.npz")
    made["diffraction"][4, 7, 2] = 6
    save(tmp_path / "a.npz", made)
    np.testing.assert_allclose(
        mean_photons(made["diffraction"]), np.square(made["diffraction"]).sum() / n, rtol=1e-6
    )
    with pytest.raises(
        DataContractError, match=r"'Y': NaN or infinite values, the first at \[5, 0, 8\]"
    ):
        read_scan(tmp_path / "a.npz", load_truth=True)


@pytest.mark.parametrize("mean_counts", [0.3, 2.0, 100.0, 3000.0])
def test_counts_given_for_amplitude_are_noticed_and_amplitudes_never_taken_for_them(mean_counts):
    scan = ScanData(**{**scan_fields(), "metadata": {}, "groups": None})
    rng = np.random.default_rng(int(mean_counts * 100))
    counts = rng.poisson(mean_counts, (300, 16, 16)).astype(np.float32)
    big = {
        "xcoords": np.full(300, 9.0),
        "ycoords": np.full(300, 8.0),
        "probe": np.ones((1, 16, 16), np.complex64),
        "scan_index": None,
        "truth_patches": None,
    }
    check_scan(replace(scan, diffraction=np.sqrt(counts), **big), "amplitudes")
    with pytest.raises(DataContractError, match="whole numbers only, up to .*: intensity"):
        check_scan(replace(scan, diffraction=counts, **big), "counts")


def test_single_photons_are_their_own_square_root():
    """Counts of 0 and 1 only cannot tell amplitude from intensity, and need not."""
    fields = scan_fields() | {"metadata": {}}
    fields["diffraction"] = (np.random.default_rng(1).random((n, N, N)) < 0.2).astype(np.float32)
    check_scan(ScanData(**fields), "faint")


def scan_fields() -> dict:
    made = arrays()
    return {
        "diffraction": made["diffraction"],
        "xcoords": made["xcoords"],
        "ycoords": made["ycoords"],
        "probe": made["probeGuess"],
        "object_guess": made["objectGuess"],
        "truth_patches": made["Y"],
        "scan_index": made["scan_index"],
        "groups": made["groups"],
        "metadata": json.loads(str(made["metadata"])),
        "extra": {key: made[key] for key in ("weather", "temperature_K")},
    }


def test_few_photons_may_miss_the_stated_dose_by_more_than_a_factor_of_two():
    """Three photons where ten were expected in the mean of one pattern is chance, not a wrong
    unit."""
    fields = scan_fields()
    fields["diffraction"] = np.zeros((n, N, N), np.float32)
    fields["diffraction"][0, 4, 4] = 1
    fields["metadata"] = {"dose": 0.5}
    check_scan(ScanData(**fields), "few")


def test_a_refused_scan_is_not_written_and_the_old_file_stays(tmp_path):
    path = tmp_path / "a.npz"
    write_scan(path, ScanData(**scan_fields()))
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
            write_scan(path, replace(ScanData(**scan_fields()), **change))
    assert path.read_bytes() == before and [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_numbers_of_numpy_in_the_metadata_are_written_as_numbers(tmp_path):
    fields = scan_fields()
    fields["metadata"] = {"dose": np.float32(3240), "seeds": np.arange(3), "file": Path("a/b")}
    write_scan(tmp_path / "a.npz", ScanData(**fields))
    assert read_scan(tmp_path / "a.npz").metadata == {
        "dose": 3240.0,
        "seeds": [0, 1, 2],
        "file": "a/b",
    }


def test_a_subset_takes_everything_that_belongs_to_its_patterns_and_keeps_the_rest(tmp_path):
    fields = scan_fields()
    fields["extra"]["probeInitial"] = fields["probe"][0]
    scan = ScanData(**fields)
    part = scan.subset(np.array([4, 0, 4]))
    for name in ("diffraction", "xcoords", "ycoords", "truth_patches", "scan_index"):
        np.testing.assert_array_equal(getattr(part, name), getattr(scan, name)[[4, 0, 4]])
    np.testing.assert_array_equal(part.extra["temperature_K"], [4, 0, 4])
    assert (
        part.extra["weather"] is scan.extra["weather"]
        and part.extra["probeInitial"] is scan.extra["probeInitial"]
    )
    assert part.groups is None and part.metadata == scan.metadata and part.probe is scan.probe
    check_scan(part, "part")
    np.testing.assert_array_equal(
        scan.subset(scan.xcoords > 12).xcoords, scan.xcoords[scan.xcoords > 12]
    )
    for wrong in ([6], [-1], [0.5], [[0]], [True, False]):
        with pytest.raises(DataContractError, match=r"expected a list of integers in \[0, 6\)"):
            scan.subset(np.array(wrong))
    mapped = read_scan(save(tmp_path / "a.npz", arrays()))
    assert np.shares_memory(mapped.subset(np.arange(2, 5)).diffraction, mapped.diffraction)


def test_an_extra_of_as_many_rows_as_patterns_but_shaped_like_the_probe_is_not_cut():
    fields = scan_fields() | {
        "extra": {"probeInitial": np.ones((N, N), np.complex64)},
        "groups": None,
    }
    for name in ("diffraction", "xcoords", "ycoords", "truth_patches", "scan_index"):
        fields[name] = np.concatenate([fields[name], fields[name][:3]])
    assert fields["diffraction"].shape == (N, N, N)
    assert ScanData(**fields).subset(np.arange(4)).extra["probeInitial"].shape == (N, N)


def test_the_table_in_the_documentation_is_the_table_in_the_code():
    page = (Path(__file__).parents[2] / "docs" / "data_contract.md").read_text(encoding="utf-8")
    table = page.split("| key | required |")[1].split("\n\n")[0].splitlines()[2:]
    rows = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table
    ]
    assert rows == [
        [f"`{key.name}`", "yes" if key.required else "no", key.dtype, key.shape, key.meaning]
        for key in KEYS
    ]


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


def test_the_real_counts_given_for_amplitude_are_refused(real_scan_path, tmp_path):
    scan = read_scan(real_scan_path, cache_dir=tmp_path).subset(np.arange(20))
    for stated, words in (({}, "whole numbers only"), (scan.metadata, "whole numbers only")):
        with pytest.raises(DataContractError, match=words):
            check_scan(
                replace(scan, diffraction=np.rint(scan.diffraction**2), metadata=stated), "counts"
            )
    with pytest.raises(DataContractError, match="sum of the values: intensity"):
        check_scan(replace(scan, diffraction=1.01 * scan.diffraction**2), "scaled counts")
