"""Faults that people reported of their files: the right value, or a message whose advice works."""

import re

import h5py
import hdf5plugin
import numpy as np
import pytest
import reported_scan
from reported_scan import DETECTOR, N, metres, write_cxi, write_pair, write_ptyd

from fly64lib.design.registries import FORMATS
from fly64lib.formats.tables import UNUSED


@pytest.fixture(scope="module")
def scan() -> dict[str, np.ndarray]:
    return reported_scan.reported_scan()


def right(got, scan, patterns=slice(None), zero: np.ndarray | None = None) -> None:
    """Patterns and positions are those of the scan, up to a common shift."""
    counts = scan["counts"][patterns].copy()
    if zero is not None:
        counts[:, zero] = 0
    np.testing.assert_array_equal(np.rint(got.diffraction.astype(float) ** 2), counts)
    moved = got.positions - scan["at"][patterns]
    assert np.ptp(moved, axis=0).max() < 1e-3


def advised(said: str, option: str) -> str:
    """The option and its value as a message advises it."""
    return re.search(rf"{option}(?: [\w.,-]+)?", said).group(0)


@pytest.mark.parametrize("kind", ["column by column", "backwards", "one lost", "some"])
def test_positions_are_joined_to_patterns_by_their_numbers(scan, tmp_path, imported, kind):
    every = np.arange(90)
    order = {
        "column by column": every.reshape(9, 10).T.ravel(),
        "backwards": every[::-1],
        "one lost": np.r_[1:90, 89],
        "some": np.delete(every, [3, 50, 51]),
    }[kind]
    numbers = np.arange(1, 91) if kind == "one lost" else order
    taken = np.sort(order[np.r_[:89]]) if kind == "one lost" else np.sort(order)
    right(imported(write_pair(tmp_path, scan, order, numbers), ""), scan, taken)


def test_positions_out_of_step_are_refused_with_the_number_and_taken_only_when_asked(
    scan, tmp_path, refused, imported
):
    order = np.arange(90).reshape(9, 10).T.ravel()
    source = write_pair(tmp_path, scan, order, None)
    said = refused(source, "")
    assert "do not belong" in said and "a pixel" in said and "expected" in said
    imported(source, advised(said, "--orientation"))
    twice = np.r_[0, 0, 2:90]
    assert "two positions for pattern 0" in refused(write_pair(tmp_path, scan, order, twice), "")


@pytest.mark.parametrize("count", ["all", "most"])
def test_numbers_that_count_from_1_are_told_by_the_fit(scan, tmp_path, imported, capsys, count):
    """The largest is the number of patterns: from 0 the last would have no pattern."""
    every = np.arange(90) if count == "all" else np.delete(np.arange(90), [0, 20, 21])
    right(imported(write_pair(tmp_path, scan, every, every + 1), ""), scan, every)
    assert "count patterns from 1" in capsys.readouterr().out
    imported(tmp_path / "x_dp.hdf5", "--first-number 1 --orientation as-given")


def test_numbers_that_may_count_from_either_are_asked_about(scan, tmp_path, refused, imported):
    source = write_pair(tmp_path, scan, np.arange(90), np.arange(90) + 1)
    said = refused(source, "--orientation as-given")
    assert "numbered from 1 to 90 for 90 patterns" in said and "--first-number 0" in said
    right(imported(source, "--orientation as-given --first-number 1"), scan)


@pytest.mark.parametrize("lost", [40, 71])
def test_a_frame_lost_on_the_way_is_refused(scan, tmp_path, refused, lost):
    """The last frame of the scan is another one, of the last position."""
    last = np.random.default_rng(1).poisson(scan["counts"][-1:].astype(float))
    counts = np.delete(np.concatenate([scan["counts"], last]), lost, 0)
    said = refused(write_cxi(tmp_path / "a.cxi", scan | {"counts": counts}), "")
    first = int(re.search(r"patterns (\d+) to 89 fit better 1 position on", said)[1])
    assert abs(first - lost) <= 6


@pytest.mark.parametrize("step", [1, -2])
def test_positions_out_of_step_are_refused_and_moved_when_asked(
    scan, tmp_path, refused, imported, step
):
    """Positions too many at one end, and too few at the other."""
    source = write_cxi(tmp_path / "a.cxi", scan | {"at": np.roll(scan["at"], step, 0)})
    said = refused(source, "")
    many = f"{abs(step)} position{'s' * (abs(step) > 1)}"
    assert f"each pattern fits better {many} {'on' if step > 0 else 'back'}" in said
    taken = np.arange(90 - step) if step > 0 else np.arange(-step, 90)
    right(imported(source, advised(said, "--first-number")), scan, taken)


def test_a_missing_filter_is_named_with_what_installs_it(scan, tmp_path, refused, monkeypatch):
    """h5py answers as where hdf5plugin is not installed."""
    source = write_cxi(tmp_path / "a.cxi", scan, **hdf5plugin.Bitshuffle())
    there = h5py.h5z.filter_avail
    monkeypatch.setattr(h5py.h5z, "filter_avail", lambda code: code < 256 and there(code))
    said = refused(source, "")
    assert "filter 32008" in said and "pip install hdf5plugin" in said


def dead(near: bool = False) -> np.ndarray:
    bad = np.zeros((N, N), bool)
    bad[13 if near else 5], bad[:, 20 if near else 25], bad[3, 4] = True, True, True
    return bad


@pytest.mark.parametrize("mark", [2**32 - 1, np.nan, 2**31 - 1, 65535.0 * 1e4, -1])
@pytest.mark.parametrize("near", [True, False])
def test_marks_are_bad_pixels_whatever_their_type(scan, tmp_path, refused, imported, mark, near):
    data = scan["counts"].astype(np.float32)
    data[:, dead(near)] = mark
    source = write_cxi(tmp_path / "a.cxi", scan, data)
    said = refused(source, "")
    assert "64 bad pixels" in said and "row " in said and "column " in said and "[3, 4]" in said
    got = imported(source, advised(said, "--bad-pixels"))
    right(got, scan, zero=dead(near))
    np.testing.assert_array_equal(~got.detector_mask, dead(near))


@pytest.mark.parametrize("value", [np.nan, 2**32 - 1])
def test_a_lost_pattern_is_named_and_can_be_left_out(scan, tmp_path, refused, imported, value):
    data = scan["counts"].astype(np.float32)
    data[[40, 7]] = value
    source = write_cxi(tmp_path / "a.cxi", scan, data)
    for options in ("", "--bad-pixels zero"):
        said = refused(source, options)
        assert "2 patterns of bad values only" in said
    taken = np.delete(np.arange(90), [7, 40])
    got = imported(source, advised(said, "--drop-patterns"))
    right(got, scan, taken)
    np.testing.assert_array_equal(got.scan_index, taken)


def test_an_empty_pattern_is_told(scan, tmp_path, imported, capsys):
    data = scan["counts"].astype(np.uint32)
    data[40] = 0
    imported(write_cxi(tmp_path / "a.cxi", scan, data), "--orientation as-given")
    assert "patterns without a photon: 40" in capsys.readouterr().out


def test_single_values_are_set_to_zero_within_a_bound(scan, tmp_path, refused, imported):
    data = scan["counts"].astype(np.float32)
    data[3, 2, 2], data[60, 30, 1] = np.nan, -4
    source = write_cxi(tmp_path / "a.cxi", scan, data)
    said = refused(source, "")
    assert "2 bad values in 2 pixels" in said and "pattern 3, pixel [2, 2]" in said
    assert imported(source, advised(said, "--bad-values")).diffraction[3, 2, 2] == 0
    data[:40:2, ::2, ::2] = np.nan
    said = refused(write_cxi(tmp_path / "b.cxi", scan, data), "--bad-values zero")
    assert "expected at most 0.1 %" in said
    imported(tmp_path / "b.cxi", f"{advised(said, '--bad-pixels')} --orientation as-given")


@pytest.mark.parametrize("longer", ["patterns", "positions"])
def test_a_list_that_is_longer_is_cut_by_an_option(scan, tmp_path, refused, imported, longer):
    more = dict(scan)
    key = "counts" if longer == "patterns" else "at"
    more[key] = np.concatenate([scan[key], scan[key][-3:]])
    source = write_cxi(tmp_path / "a.cxi", more)
    said = refused(source, "")
    assert "90" in said and "93" in said
    right(imported(source, advised(said, "--first")), scan)
    right(imported(source, "--drop-patterns 90-92"), scan)


def test_boolean_masks_are_read(scan, tmp_path, imported):
    bad = np.zeros((N, N), bool)
    bad[5] = True
    source = write_cxi(tmp_path / "a.cxi", scan)
    with h5py.File(source, "a") as file:
        file[f"{DETECTOR}/mask"] = bad
    right(imported(source, "--bad-pixels zero"), scan, zero=bad)
    weights = np.broadcast_to(~bad, scan["counts"].shape)
    source = write_ptyd(tmp_path / "a.ptyd", scan, chunks__0__weights=weights)
    np.savez(tmp_path / "p.npz", probeGuess=scan["probe"])
    right(imported(source, f"--bad-pixels mask --probe {tmp_path / 'p.npz'}"), scan, zero=bad)


def test_a_file_without_a_probe_gets_a_first_one(scan, tmp_path, imported):
    for source in (
        write_cxi(tmp_path / "a.cxi", scan, probe=False),
        write_ptyd(tmp_path / "a.ptyd", scan),
    ):
        got = imported(source, "")
        right(got, scan)
        assert got.metadata["probe_kind"] == "initial"
        photons = scan["counts"].sum((1, 2)).mean()
        assert (np.abs(got.probe) ** 2).sum() == pytest.approx(photons, rel=1e-3)


@pytest.mark.parametrize("packing", [hdf5plugin.Bitshuffle, hdf5plugin.LZ4, hdf5plugin.Zstd])
def test_values_packed_by_plugins_are_read(scan, tmp_path, imported, packing):
    right(
        imported(write_cxi(tmp_path / "a.cxi", scan, **packing()), "--orientation as-given"), scan
    )


def test_links_are_followed_when_asked_and_only_beside_the_file(scan, tmp_path, refused, imported):
    source = write_cxi(tmp_path / "a.cxi", scan)
    with h5py.File(tmp_path / "part.h5", "w") as file:
        file["x"] = scan["counts"]
    layout = h5py.VirtualLayout(scan["counts"].shape, np.int64)
    layout[:] = h5py.VirtualSource("part.h5", "x", scan["counts"].shape)
    for link in ("external", "virtual", "missing", "elsewhere"):
        with h5py.File(source, "a") as file:
            del file[f"{DETECTOR}/data"]
            if link == "virtual":
                file.create_virtual_dataset(f"{DETECTOR}/data", layout)
            else:
                name = {"missing": "no.h5", "elsewhere": "/etc/hostname"}.get(link, "part.h5")
                file[f"{DETECTOR}/data"] = h5py.ExternalLink(name, "x")
        option = advised(refused(source, ""), "--follow-links")
        if link in ("external", "virtual"):
            right(imported(source, f"{option} --orientation as-given"), scan)
        else:
            assert "in the folder of this one" in refused(source, option)


def test_an_outlier_is_named_and_sets_no_canvas(scan, tmp_path, refused, imported):
    far = scan | {"at": scan["at"].copy()}
    far["at"][57] += [0, 4e6]
    source = write_cxi(tmp_path / "a.cxi", far)
    said = refused(source, "")
    assert "number 57" in said
    right(imported(source, advised(said, "--drop-patterns")), scan, np.delete(np.arange(90), 57))


@pytest.mark.parametrize(("value", "unit"), [(8.856, "keV"), (8856.0, "eV")])
def test_an_energy_in_another_unit_is_told_with_the_option_that_cures_it(
    scan, tmp_path, refused, imported, value, unit
):
    source = write_cxi(tmp_path / "a.cxi", scan)
    with h5py.File(source, "a") as file:
        file["entry_1/instrument_1/source_1/energy"][...] = value
    said = refused(source, "")
    assert "source_1/energy" in said and "--energy-kev 8.856" in said
    moved = imported(source, advised(said, "--energy-kev")).positions - scan["at"]
    assert np.ptp(moved, axis=0).max() < 0.02


def test_data_sets_of_any_name_can_be_imported(scan, tmp_path, refused, imported):
    order = np.arange(90)[::-1]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["scan/frames"], file["scan/y"] = scan["counts"], scan["at"][order, 0]
        file["scan/x"], file["beam"], file["scan/k"] = scan["at"][order, 1], scan["probe"], order
    assert "--patterns-key KEY" in refused(tmp_path / "a.h5", "")
    names = "--patterns-key scan/frames --y-key scan/y --x-key scan/x --numbers-key scan/k"
    right(imported(tmp_path / "a.h5", f"{names} --probe-key beam"), scan)


def test_unknown_keys_are_told(scan, tmp_path, imported, capsys):
    np.savez(tmp_path / "p.npz", probeGuess=scan["probe"])
    for source in (
        write_cxi(tmp_path / "a.cxi", scan),
        write_ptyd(tmp_path / "a.ptyd", scan),
        write_pair(tmp_path, scan, np.arange(90), None),
    ):
        with h5py.File(source, "a") as file:
            file["strange/key"] = 1
        imported(source, f"--orientation as-given --probe {tmp_path / 'p.npz'}")
        said = capsys.readouterr().out
        assert "keys that fly64 does not know, not used: strange/key" in said


CONTRADICTIONS = {
    "entry_1/data_1/data": np.ones((90, N, N), np.uint32),
    "entry_1/data_1/translation": np.ones((90, 3)),
    "entry_1/instrument_1/source_1/wavelength": 2e-10,
    f"{DETECTOR}/y_pixel_size": 50e-6,
    f"{DETECTOR}/basis_vectors": np.array([[0, -1e-4], [-1e-4, 0], [0, 0]]),
}


@pytest.mark.parametrize("key", CONTRADICTIONS)
def test_a_cxi_file_that_contradicts_itself_is_refused(scan, tmp_path, refused, key):
    source = write_cxi(tmp_path / "a.cxi", scan)
    with h5py.File(source, "a") as file:
        file[key] = CONTRADICTIONS[key]
    assert "expected" in refused(source, "")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("chunks__0__indices", np.arange(5), "5 indices"),
        ("chunks__0__indices", np.zeros(90, int), "there twice"),
        ("meta__shape", [16, 16], "the patterns' shape"),
        ("meta__propagation", "nearfield", "distant detector"),
        ("meta__psize", [75.0, 75.0], "--detector-pixel-um 75"),
        ("meta__energy", 8856.0, "--energy-kev 8.856"),
    ],
)
def test_a_ptyd_file_that_contradicts_itself_is_refused(scan, tmp_path, refused, key, value, words):
    assert words in refused(write_ptyd(tmp_path / "a.ptyd", scan, **{key: value}), "")


PAIR = {
    "probe_position_y_m": np.arange(90.0),  # beside PtychoShelves' positions
    "dx": 1e-7,
    "probe_position_indexes": np.arange(90) + 0.5,
}


@pytest.mark.parametrize("key", PAIR)
def test_a_pair_that_contradicts_itself_is_refused(scan, tmp_path, refused, key):
    source = write_pair(tmp_path, scan, np.arange(90), None)
    with h5py.File(tmp_path / "x_para.hdf5", "a") as file:
        if key == "probe_position_y_m":
            file["ppY"], file["ppX"] = metres(scan["at"]).T
            del file[key]
        file[key] = PAIR[key]
    assert "expected" in refused(source, "")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("diffraction", np.ones((90, N, N), np.float32), "expected one of the two"),
        ("scan_index", np.arange(5), "one for each"),
        ("brightness", np.ones(90), "DATA-001 already"),
        ("background", np.ones((N, N)), "DATA-001 already"),
    ],
)
def test_an_npz_file_that_contradicts_itself_is_refused(scan, tmp_path, refused, key, value, words):
    y, x = scan["at"].T
    keys = {"diff3d": scan["counts"], "ycoords": y, "xcoords": x, "probeGuess": scan["probe"]}
    np.savez(tmp_path / "a.npz", **keys, **{key: value})
    assert words in refused(tmp_path / "a.npz")
    corner = np.fft.ifftshift(scan["counts"], axes=(1, 2))[None]
    np.savez(tmp_path / "b.npz", data=corner, scan=np.ones((1, 5, 2)))
    assert "90 patterns (data), and 5 positions" in refused(tmp_path / "b.npz")


def test_keys_that_are_known_and_not_used_are_told(scan, tmp_path, imported, capsys):
    """Each that a table lets pass, in a file of its format."""
    np.savez(tmp_path / "p.npz", probeGuess=scan["probe"])
    y, x = scan["at"].T
    pair = write_pair(tmp_path, scan, np.arange(90), None)
    files = {
        "cxi": write_cxi(tmp_path / "a.cxi", scan),
        "ptypy": write_ptyd(tmp_path / "a.ptyd", scan),
        "ptychi": pair,
    }
    for name, source in files.items():
        table = {key for key, text in FORMATS[name].table.items() if text.startswith(UNUSED)}
        named = {key.replace("chunks/*", "chunks/0/*").replace("*", "some") for key in table}
        with h5py.File(source, "a") as file:
            for key in named:
                file[key] = 1
        imported(source, f"--orientation as-given --probe {tmp_path / 'p.npz'}")
        said = capsys.readouterr().out
        assert "not used: " in said and "does not know" not in said, name
        assert any(key in said for key in named)
    keys = {"diff3d": scan["counts"], "ycoords": y, "xcoords": x, "probeGuess": scan["probe"]}
    corner = np.fft.ifftshift(scan["counts"], axes=(1, 2))[None]
    other = {"data": corner, "scan": scan["at"][None], "probe": scan["probe"]}
    for name, held in (("fly64", keys), ("tike", other)):
        table = {key for key, text in FORMATS[name].table.items() if text.startswith(UNUSED)}
        more = {key.replace("[xy]", "x").replace("*", "some"): np.ones(3) for key in table}
        np.savez(tmp_path / "a.npz", **held, **more)
        zero = "corner" if name == "tike" else "centre"
        imported(tmp_path / "a.npz", f"--orientation as-given --zero-frequency {zero}")
        said = capsys.readouterr().out
        assert "not used: " in said and "does not know" not in said, name


def test_every_format_says_what_becomes_of_its_keys():
    for name in ("fly64", "tike", "cxi", "ptychi", "ptypy"):
        table = FORMATS[name].table
        assert set(FORMATS[name].keys) & {key.replace("*", "0") for key in table}
        assert all(table.values()) and any(not v.startswith(UNUSED) for v in table.values())
