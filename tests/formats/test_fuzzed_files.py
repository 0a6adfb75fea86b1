"""Broken, cut, garbled and hostile files: the importer ends soon, and with a message or a valid
scan, never a traceback."""

import bz2
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import oracle
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fly64lib.cli.main import main
from ptycho_torch.data.contract import read_scan

EXAMPLES = int(os.environ.get("FLY64_FUZZ", "25"))  # more by hand
QUICK = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
n, N = 4, 8
RNG = np.random.default_rng(8)
SQUARE = (np.arange(N) - 4) ** 2 + (np.arange(N)[:, None] - 4) ** 2
PROBE = 9 * np.exp(-SQUARE / 3).astype(np.complex64)
PLACES = RNG.uniform(5, 9, (n, 2))
COUNTS = RNG.poisson(np.abs(oracle.far_field(PROBE)) ** 2, (n, N, N)).astype(np.uint16)


def npz(**keys: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **keys)
    return out.getvalue()


def hdf5(fill: Callable[[h5py.File], None]) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        fill(file)
    return out.getvalue()


def cxi(file: h5py.File) -> None:
    detector = file.create_group("entry_1/instrument_1/detector_1")
    detector.create_dataset("data", data=COUNTS, chunks=(1, N, N), compression="gzip")
    detector["x_pixel_size"], detector["distance"] = 75e-6, 2.0
    (
        file["entry_1/instrument_1/source_1/energy"],
        file["entry_1/instrument_1/source_1/illumination"],
    ) = (
        1.4e-15,
        PROBE,
    )
    file["entry_1/sample_1/geometry_1/translation"] = np.pad(PLACES, ((0, 0), (0, 1))) * 1e-6
    file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")


def ptyd(file: h5py.File) -> None:
    file["chunks/0/data"], file["chunks/0/positions"] = COUNTS, PLACES * 1e-6
    file["meta/energy"], file["meta/distance"], file["meta/psize"] = 8.0, 2.0, [75e-6, 75e-6]


def dp(file: h5py.File) -> None:
    file["dp"] = COUNTS


def parameters(file: h5py.File) -> None:
    file["probe"], file["object"] = PROBE[None, None], np.ones((1, 20, 20), complex)
    file["object"].attrs["pixel_height_m"] = 1e-8
    file["probe_position_y_m"], file["probe_position_x_m"] = (PLACES.T - 7) * 1e-8


FLY64 = {
    "diff3d": COUNTS,
    "xcoords": PLACES[:, 1],
    "ycoords": PLACES[:, 0],
    "probeGuess": PROBE,
    "objectGuess": np.ones((20, 20), complex),
}


def plain(file: h5py.File) -> None:
    file["counts"], file["at"], file["beam"] = COUNTS, PLACES, PROBE


CORNER = np.fft.ifftshift(COUNTS, axes=(1, 2))
FILES = {
    "fly64.npz": npz(**FLY64),
    "star.npz.bz2": bz2.compress(npz(data=CORNER[None], scan=PLACES[None], probe=PROBE)),
    "scan.cxi": hdf5(cxi),
    "scan.ptyd": hdf5(ptyd),
    "x_dp.hdf5": hdf5(dp),
    "x_para.hdf5": hdf5(parameters),
    "plain.h5": hdf5(plain),
    "probe.npz": npz(probe=PROBE),
}
SOURCES = ("fly64.npz", "star.npz.bz2", "scan.cxi", "scan.ptyd", "x_dp.hdf5", "plain.h5")
NEEDED = {
    "scan.ptyd": "--probe {0}/probe.npz",
    "plain.h5": "--patterns-key counts --positions-key at --probe-key beam",
}


def ends_well(changed: dict[str, bytes], source: str, *options: str) -> int:
    """Import `source` from a folder of the files, some changed: 0 and a scan that reads, or 2 and
    nothing left."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in (FILES | changed).items():
            (Path(folder) / name).write_bytes(content)
        target = Path(folder) / "out.npz"
        chosen = NEEDED.get(source, "").format(folder).split()
        asked = [f"{folder}/{source}", str(target), "--picture", "none", *chosen, *options]
        code = main(["import", *asked])
        assert code in (0, 2) and target.exists() == (code == 0)
        if code == 0:
            assert read_scan(target).n > 0
        assert not list(Path(folder).glob(".fly64-import-*"))
        return code


@pytest.mark.parametrize("source", SOURCES)
def test_the_unbroken_files_are_imported(source):
    # four patterns of an empty object do not tell how they lie
    assert ends_well({}, source, "--orientation", "as-given") == 0


@pytest.mark.parametrize("broken", (*SOURCES, "x_para.hdf5", "probe.npz"))
@QUICK
@given(data=st.data())
def test_a_file_with_bytes_changed_or_cut_off_is_read_or_refused(broken, data):
    content = bytearray(FILES[broken])
    kind = data.draw(st.sampled_from(["flip", "cut", "splice"]))
    at = data.draw(st.integers(0, len(content) - 1))
    if kind == "cut":
        del content[at:]
    elif kind == "flip":
        for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
            content[place] = data.draw(st.integers(0, 255))
    else:
        content[at : at + data.draw(st.integers(0, 64))] = data.draw(st.binary(max_size=64))
    source = {"x_para.hdf5": "x_dp.hdf5", "probe.npz": "scan.ptyd"}.get(broken, broken)
    ends_well({broken: bytes(content)}, source, "--orientation", "as-given")


@QUICK
@given(
    start=st.sampled_from([b"", b"PK\x03\x04", b"BZh9", b"\x89HDF\r\n\x1a\n", b"\x93NUMPY"]),
    rest=st.binary(max_size=200),
)
def test_garbage_is_refused_whatever_it_begins_with(start, rest):
    assert ends_well({"fly64.npz": start + rest}, "fly64.npz") == 2


shapes = st.lists(st.sampled_from([0, 1, 2, n, N, 20]), max_size=4).map(tuple)
numbers = st.sampled_from([0.0, 1.0, -1.0, 7.0, 1e-30, 1e30, np.nan, np.inf])
arrays = st.builds(
    lambda shape, value, dtype: np.full(shape, value).astype(dtype),
    shapes,
    numbers,
    st.sampled_from(["f4", "f8", "c8", "c16"]),
) | st.builds(
    lambda shape, value, dtype: np.full(shape, value, dtype),
    shapes,
    st.integers(0, 200),
    st.sampled_from(["u1", "i8", "?", "U3"]),
)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of the test's own arrays
@QUICK
@given(
    key=st.sampled_from(sorted(FLY64)),
    value=arrays,
    options=st.sampled_from(
        [
            (),
            ("--bin", "2"),
            ("--crop", "5"),
            ("--bad-pixels", "zero"),
            ("--orientation", "swap"),
            ("--no-object",),
        ]
    ),
)
def test_any_array_in_place_of_a_key_is_read_or_refused(key, value, options):
    ends_well({"fly64.npz": npz(**FLY64 | {key: value})}, "fly64.npz", *options)


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
@QUICK
@given(
    key=st.sampled_from(
        [
            "entry_1/instrument_1/detector_1/data",
            "entry_1/sample_1/geometry_1/translation",
            "entry_1/instrument_1/detector_1/distance",
            "entry_1/instrument_1/source_1/energy",
            "entry_1/instrument_1/source_1/illumination",
            "entry_1/instrument_1/detector_1/mask",
            "entry_1/instrument_1/detector_1/basis_vectors",
            "entry_1/fly64/metadata",
            "entry_1",
        ]
    ),
    value=arrays,
)
@example(key="entry_1/instrument_1/detector_1/mask", value=np.zeros((0, 0), np.uint8))
def test_any_data_set_in_place_of_one_of_a_cxi_file_is_read_or_refused(key, value):
    def fill(file: h5py.File) -> None:
        cxi(file)
        if key in file:
            del file[key]
        file[key] = "[" * 3000 if value.dtype.kind == "U" else value

    ends_well({"scan.cxi": hdf5(fill)}, "scan.cxi", "--orientation", "as-given")
