"""Every way to break a scan file is refused with its own message, and intensity is told from
amplitude."""

import re
from dataclasses import replace

import numpy as np
import pytest
from contract_file import N, arrays, n, save, whole_scan

from ptycho_torch.data import checks as data_checks
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import check_scan, read_scan
from ptycho_torch.errors import DataContractError


def put(key, index, value):
    def change(made):
        made[key] = made[key].copy()
        made[key][index] = value

    return change


def replaced(key, make):
    return lambda made: made.update({key: make(made[key])})


def text(value):
    return replaced("metadata", lambda _: np.array(value))


# What is done to a correct file: the key named | what was found | what is expected | what to do.
BROKEN = {
    "diffraction missing": (
        lambda m: m.pop("diffraction"),
        "diffraction | missing; the keys are Y, | float32 | fly64 import",
    ),
    "probe missing": (lambda m: m.pop("probeGuess"), "probeGuess | missing | complex64 | add it"),
    "object missing": (
        lambda m: m.pop("objectGuess"),
        "objectGuess | missing | complex64 | add it",
    ),
    "x missing": (lambda m: m.pop("xcoords"), "xcoords | missing | float64 | add it"),
    "integer counts": (
        replaced("diffraction", lambda d: np.rint(d**2).astype(np.uint16)),
        "diffraction | dtype uint16 | float32 | np.sqrt",
    ),
    "float64 patterns": (
        replaced("diffraction", np.float64),
        "diffraction | dtype float64 | float32 | astype(np.float32)",
    ),
    "float16 patterns": (
        replaced("diffraction", np.float16),
        "diffraction | dtype float16 | float32 | astype",
    ),
    "big-endian patterns": (
        replaced("diffraction", lambda d: d.astype(">f4")),
        "diffraction | dtype >f4 | float32 | astype",
    ),
    "complex patterns": (
        replaced("diffraction", np.complex64),
        "diffraction | complex64 | float32 | no phase",
    ),
    "boolean patterns": (
        replaced("diffraction", lambda d: d > 6),
        "diffraction | dtype bool | float32 | np.sqrt",
    ),
    "integer positions": (
        replaced("xcoords", np.int64),
        "xcoords | dtype int64 | float64 | astype(np.float64)",
    ),
    "complex128 probe": (
        replaced("probeGuess", np.complex128),
        "probeGuess | complex128 | complex64 | astype(np.complex64)",
    ),
    "real object": (
        replaced("objectGuess", np.real),
        "objectGuess | float32 | complex64 | astype(np.complex64)",
    ),
    "complex128 truth": (replaced("Y", np.complex128), "Y | complex128 | complex64 | astype"),
    "float groups": (replaced("groups", np.float64), "groups | float64 | integer | np.int64"),
    "float scan index": (
        replaced("scan_index", np.float32),
        "scan_index | float32 | integer | np.int64",
    ),
    "one pattern without axis": (
        replaced("diffraction", lambda d: d[0]),
        "diffraction | 2 axes | (n, N, N) | reshape",
    ),
    "patterns with a channel": (
        replaced("diffraction", lambda d: d[..., None]),
        "diffraction | 4 axes | (n, N, N) | reshape",
    ),
    "positions as a column": (
        replaced("ycoords", lambda y: y[:, None]),
        "ycoords | 2 axes | (n,) | reshape",
    ),
    "probe with four axes": (
        replaced("probeGuess", lambda p: p[None]),
        "probeGuess | 4 axes | (modes, M, M) | reshape",
    ),
    "object with a slice axis": (
        replaced("objectGuess", lambda o: o[None]),
        "objectGuess | 3 axes | (H, W) | reshape",
    ),
    "patterns not square": (
        replaced("diffraction", lambda d: d[:, :, 1:]),
        "diffraction | not square | (n, N, N) | crop",
    ),
    "patterns last": (
        replaced("diffraction", lambda d: np.moveaxis(d, 0, -1)),
        "diffraction | not square, shape (9, 9, 6) | (n, N, N) | np.moveaxis(patterns, -1, 0)",
    ),
    "no patterns": (
        replaced("diffraction", lambda d: d[:0]),
        "diffraction | empty | at least one | give the data",
    ),
    "no groups": (
        replaced("groups", lambda g: g[:0]),
        "groups | empty | (G, C) | leave the key out",
    ),
    "a position short": (
        replaced("xcoords", lambda x: x[1:]),
        "xcoords | length 5 | 6, one for each | same patterns",
    ),
    "a truth patch short": (
        replaced("Y", lambda y: y[1:]),
        "Y | length 5 | 6, one for each | same patterns",
    ),
    "a scan index too many": (
        replaced("scan_index", lambda s: np.arange(7)),
        "scan_index | length 7 | 6, one | same patterns",
    ),
    "probe of another N": (
        lambda made: made.update({key: made[key][:, 1:, 1:] for key in ("probeGuess", "Y")}),
        "probeGuess | 8 px | at least N = 9 px | pad",
    ),
    "probe not square": (
        replaced("probeGuess", lambda p: p[:, :, 1:]),
        "probeGuess | not square, shape (2, 9, 8) | (modes, M, M) | crop or pad",
    ),
    "truth of another N": (
        replaced("Y", lambda y: y[:, 1:, 1:]),
        "Y | 8 px | M = 9 px | same pixel grid",
    ),
    "NaN in a pattern": (
        put("diffraction", (4, 7, 2), np.nan),
        "diffraction | NaN or infinite values, the first at [4, 7, 2] | sqrt(counts) | mask",
    ),
    "infinite pattern": (
        put("diffraction", (0, 0, 0), np.inf),
        "diffraction | [0, 0, 0] | sqrt(counts) | mask",
    ),
    "negative pattern": (
        put("diffraction", (5, 8, 8), -1e-6),
        "diffraction | negative values, the first at [5, 8, 8] | >= 0 | background",
    ),
    "dark patterns": (
        replaced("diffraction", np.zeros_like),
        "diffraction | every value is 0 | photons | check the source",
    ),
    "counts as floats": (
        replaced("diffraction", lambda d: np.rint(d**2)),
        "diffraction | intensity (counts) | amplitude | np.sqrt",
    ),
    "scaled intensity": (
        replaced("diffraction", lambda d: 1.1 * d**2),
        "diffraction | sum of the values: intensity | amplitude | np.sqrt",
    ),
    "amplitude in other units": (
        replaced("diffraction", lambda d: d / 9),
        "diffraction | but metadata say dose = 3240 | both agree | correct dose",
    ),
    "NaN position": (
        put("xcoords", 3, np.nan),
        "xcoords | NaN or infinite values, the first at [3] | finite | positions",
    ),
    "position outside": (
        put("ycoords", 5, 40.0),
        "ycoords | 1 of 6 patches | 4.5 .. 12.5 | pixels of objectGuess",
    ),
    "positions in metres": (
        replaced("xcoords", lambda x: x * 1e-9),
        "xcoords | 6 of 6 patches | 4.5 .. 26.5 | not metres",
    ),
    "positions from the centre": (
        replaced("ycoords", lambda y: y - y.mean()),
        "ycoords | patches leave | 4.5 | centre",
    ),
    "object smaller than a patch": (
        replaced("objectGuess", lambda o: o[:8]),
        "objectGuess | an edge of 8 px | M = 9 | canvas",
    ),
    "NaN in the object": (
        put("objectGuess", (16, 30), np.nan),
        "objectGuess | the first at [16, 30] | finite | ones",
    ),
    "NaN in the probe": (
        put("probeGuess", (1, 2, 3), np.nan),
        "probeGuess | the first at [1, 2, 3] | finite | recover",
    ),
    "dark probe": (
        replaced("probeGuess", np.zeros_like),
        "probeGuess | every value is 0 | photons | give the probe",
    ),
    "group beyond the scan": (put("groups", (1, 1), n), "groups | indices 0 .. 6 | 0 .. 5 | group"),
    "negative group": (put("groups", (0, 0), -1), "groups | indices -1 .. 5 | 0 .. 5 | group"),
    "one pattern four times": (
        put("groups", 1, 3),
        "groups | a pattern twice: [3, 3, 3, 3] | distinct | group",
    ),
    "pickled metadata": (
        replaced("metadata", lambda _: np.array({"dose": 1}, dtype=object)),
        "metadata | a pickled array | plain | could run code",
    ),
    "pickled patterns": (
        replaced("diffraction", lambda d: d.astype(object)),
        "diffraction | a pickled array | plain | save",
    ),
    "pickled unknown key": (
        lambda m: m.update(notes=np.array([None])),
        "notes | a pickled array | plain | save",
    ),
    "metadata not JSON": (text("dose=1000"), "metadata | not JSON | JSON object | json.dumps"),
    "metadata with NaN": (
        text('{"dose": NaN}'),
        "metadata | NaN is not JSON | JSON object | json.dumps",
    ),
    "metadata a list": (text("[1, 2]"), "metadata | JSON of a list | JSON object | dict"),
    "metadata bottomless": (text("[" * 100_000), "metadata | not JSON | JSON object | json.dumps"),
    "metadata bytes": (text(b"{}"), "metadata | dtype |S2 | text | json.dumps"),
    "metadata in a row": (text(["{}"]), "metadata | 1 axes | () | reshape"),
    "unknown object kind": (
        text('{"object_kind": "guess"}'),
        "metadata | object_kind is 'guess' | truth, recon | say what",
    ),
    "unknown probe kind": (
        text('{"probe_kind": ["truth"]}'),
        "metadata | probe_kind is ['truth'] | truth, recon | say what",
    ),
    "dose in words": (
        text('{"dose": "1e3"}'),
        "metadata | dose is '1e3' | photons per exposure | state",
    ),
    "dose of zero": (
        text('{"photons_per_exposure": 0}'),
        "metadata | photons_per_exposure is 0 | > 0 | state",
    ),
    "dose beyond numbers": (
        text('{"dose": 1' + "0" * 400 + "}"),
        "metadata | dose is 1000 | > 0 | state",
    ),
    "raw upstream file": (
        lambda m: (m.clear(), m.update(diff3d=np.ones((N, N, n), np.uint16))),
        "diff3d | a raw upstream file, intensity uint16 (9, 9, 6) | 'diffraction' | fly64 import",
    ),
    "nothing inside": (
        lambda m: m.clear(),
        "diffraction | missing; the keys are none | float32 | add it",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_file_is_refused_with_file_key_what_was_found_what_is_expected_and_what_to_do(
    tmp_path, kind
):
    change, words = BROKEN[kind]
    key, *words = words.split(" | ")
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
    for part, said in zip(parts.groups(), words, strict=True):
        assert said in part, str(caught.value)
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
    scan = whole_scan(metadata={}, groups=None)
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
    faint = (np.random.default_rng(1).random((n, N, N)) < 0.2).astype(np.float32)
    check_scan(whole_scan(diffraction=faint, metadata={}), "faint")


def test_few_photons_may_miss_the_stated_dose_by_more_than_a_factor_of_two():
    """Three photons where ten were expected in the mean of one pattern is chance, not a wrong
    unit."""
    few = np.zeros((n, N, N), np.float32)
    few[0, 4, 4] = 1
    check_scan(whole_scan(diffraction=few, metadata={"dose": 0.5}), "few")


def test_the_real_counts_given_for_amplitude_are_refused(real_scan_path, tmp_path):
    scan = read_scan(real_scan_path, cache_dir=tmp_path).subset(np.arange(20))
    for stated, words in (({}, "whole numbers only"), (scan.metadata, "whole numbers only")):
        with pytest.raises(DataContractError, match=words):
            check_scan(
                replace(scan, diffraction=np.rint(scan.diffraction**2), metadata=stated), "counts"
            )
    with pytest.raises(DataContractError, match="sum of the values: intensity"):
        check_scan(replace(scan, diffraction=1.01 * scan.diffraction**2), "scaled counts")
