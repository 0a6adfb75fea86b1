"""Reading an npz without trusting it: what is mapped is what was written, and a damaged or lying
file is refused."""

import os
import re
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from ptycho_torch.data import npz
from ptycho_torch.data.npz import NpzFile, cache_folder, open_npz, write_npz
from ptycho_torch.errors import DataContractError

RNG = np.random.default_rng(7)
ARRAYS = {
    "stack": RNG.normal(size=(3, 5, 4)).astype(np.float32),
    "wave": RNG.normal(size=(4, 3)) + 1j,
    "fortran": np.asfortranarray(RNG.normal(size=(3, 7))),
    "text": np.array("Grüße \u2135"),
    "flag": np.array(True),
    "none": np.zeros((0, 4)),
    "structured": np.array([(1, 2.5)], dtype=[("a", "<i4"), ("b", "<f8")]),
}


def npy(header: str, values: bytes = b"") -> bytes:
    """A version 1 .npy file with any header text."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode("latin1") + values


def zipped(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize(
    "save",
    [
        write_npz,
        lambda path, arrays: np.savez(path, **arrays),
        lambda path, arrays: np.savez_compressed(path, **arrays),
    ],
    ids=["ours", "numpy stored", "numpy deflated"],
)
def test_mapped_and_loaded_arrays_are_the_written_ones_and_outlive_the_open_file(tmp_path, save):
    save(tmp_path / "a.npz", ARRAYS)
    with open_npz(tmp_path / "a.npz") as archive:
        mapped = {key: archive.map(key, tmp_path / "cache") for key in archive.members}
        loaded = {key: archive.read(key) for key in archive.members}
    assert list(mapped) == list(loaded) == list(ARRAYS)
    for key, value in ARRAYS.items():
        for came in (mapped[key], loaded[key]):
            assert came.dtype == value.dtype and came.shape == value.shape
            np.testing.assert_array_equal(came, value)
        assert isinstance(mapped[key], np.memmap) or value.size == 0
        assert not isinstance(loaded[key], np.memmap)


def test_our_files_are_read_by_numpy_and_the_same_arrays_give_the_same_bytes(tmp_path):
    write_npz(tmp_path / "a.npz", ARRAYS)
    write_npz(tmp_path / "b.npz", ARRAYS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    with np.load(tmp_path / "a.npz", allow_pickle=False) as by_numpy:
        for key, value in ARRAYS.items():
            np.testing.assert_array_equal(by_numpy[key], value)


def test_a_compressed_file_is_unpacked_once_and_again_only_when_it_changes(tmp_path):
    path, cache = tmp_path / "a.npz", tmp_path / "cache"

    def mapped():
        with open_npz(path) as archive:
            return archive.map("stack", cache)

    np.savez_compressed(path, stack=ARRAYS["stack"])
    mapped()
    (first,) = cache.iterdir()
    written = first.stat().st_mtime_ns
    np.testing.assert_array_equal(mapped(), ARRAYS["stack"])
    assert [first] == list(cache.iterdir()) and first.stat().st_mtime_ns == written
    first.write_bytes(b"half")  # what a copy cut short would leave
    np.testing.assert_array_equal(mapped(), ARRAYS["stack"])
    np.savez_compressed(path, stack=ARRAYS["stack"] + 1)
    np.testing.assert_array_equal(mapped(), ARRAYS["stack"] + 1)
    assert len(list(cache.iterdir())) == 2


def test_a_changed_file_of_the_same_size_and_time_is_not_served_from_the_cache(tmp_path):
    path, came = tmp_path / "a.npz", []
    for value in (b"12345678", b"abcdefgh"):
        zipped(path, [("a.npy", npy(FLOATS % "()", value))], zipfile.ZIP_DEFLATED)
        os.utime(path, (1e9, 1e9))
        came.append((path.stat().st_size, path.stat().st_mtime_ns))
        with open_npz(path) as archive:
            assert archive.map("a", tmp_path / "cache").tobytes() == value
    assert came[0] == came[1]


def test_the_cache_lies_beside_the_file_or_for_a_read_only_folder_in_the_temporary_one(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(npz.tempfile, "gettempdir", lambda: str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez_compressed(folder / "a.npz", stack=ARRAYS["stack"])
    assert cache_folder(folder / "a.npz") == folder / ".fly64-cache"
    folder.chmod(0o555)
    try:
        with open_npz(folder / "a.npz") as archive:
            np.testing.assert_array_equal(archive.map("stack"), ARRAYS["stack"])
        (private,) = (tmp_path / "tmp").iterdir()
        assert private == cache_folder(folder / "a.npz") and private.stat().st_mode & 0o777 == 0o700
        assert [entry.name for entry in folder.iterdir()] == ["a.npz"]
        stranger = private.stat().st_uid + 1
        monkeypatch.setattr(npz.os, "getuid", lambda: stranger)
        private.rename(private.with_name(f"fly64-cache-{stranger}"))
        with pytest.raises(DataContractError, match="belongs to another user"):
            cache_folder(folder / "a.npz")
    finally:
        folder.chmod(0o755)


def test_a_full_disk_is_named_and_leaves_no_half_cache(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "a.npz", stack=ARRAYS["stack"])
    monkeypatch.setattr(npz.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10}))
    with (
        open_npz(tmp_path / "a.npz") as archive,
        pytest.raises(DataContractError, match="not enough free space.*cache_dir"),
    ):
        archive.map("stack", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_file_cut_anywhere_is_refused(tmp_path):
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "whole.npz", **ARRAYS)
        whole = (tmp_path / "whole.npz").read_bytes()
        for length in [0, 1, 2, 3, *range(7, len(whole) - 1, 61), len(whole) - 1]:
            (tmp_path / "cut.npz").write_bytes(whole[:length])
            with pytest.raises(DataContractError, match=r"cut\.npz: .*expected.*; "):
                read_everything(tmp_path / "cut.npz", tmp_path)


def test_a_file_with_one_wrong_byte_is_refused_or_reads_the_same(tmp_path):
    rng = np.random.default_rng(11)
    for save, refused_at_least in ((np.savez, 150), (np.savez_compressed, 150)):
        save(tmp_path / "whole.npz", **ARRAYS)
        whole, refused = (tmp_path / "whole.npz").read_bytes(), 0
        for _ in range(200):
            wrong = bytearray(whole)
            wrong[rng.integers(len(wrong))] ^= 1 << rng.integers(8)
            (tmp_path / "wrong.npz").write_bytes(wrong)
            try:
                with open_npz(tmp_path / "wrong.npz") as archive:
                    came = {key: archive.map(key, tmp_path / "cache") for key in archive.members}
            except DataContractError:
                refused += 1
                continue
            assert list(came) == list(ARRAYS)
            for key, value in ARRAYS.items():
                np.testing.assert_array_equal(came[key], value)
        assert refused >= refused_at_least


@pytest.mark.parametrize("take", [NpzFile.read, NpzFile.map])
def test_a_wrong_byte_far_into_a_large_stored_array_is_noticed(tmp_path, take):
    write_npz(tmp_path / "a.npz", {"stack": RNG.normal(size=(20, 32, 32))})
    wrong = bytearray((tmp_path / "a.npz").read_bytes())
    wrong[100_000] ^= 1
    (tmp_path / "a.npz").write_bytes(wrong)
    with (
        open_npz(tmp_path / "a.npz") as archive,
        pytest.raises(DataContractError, match="damaged .*Bad CRC"),
    ):
        take(archive, "stack")


def read_everything(path, cache):
    with open_npz(path) as archive:
        mapped = {key: archive.map(key, cache) for key in archive.members}
        for key in archive.members:
            archive.read(key)
    return mapped


FLOATS = "{'descr': '<f8', 'fortran_order': False, 'shape': %s, }"
HEADERS = {
    "claims more than the bytes": (
        npy(FLOATS % "(1000000000000,)", b"12345678"),
        "the header claims",
    ),
    "claims less than the bytes": (npy(FLOATS % "(1,)", b"1234567812345678"), "the header claims"),
    "product overflows 64 bits": (
        npy(FLOATS % "(4294967296, 4294967296, 2)", b"12345678"),
        "the header claims",
    ),
    "negative length": (npy(FLOATS % "(-1, -1)", b"12345678"), "the header claims"),
    "values of no size": (
        npy("{'descr': '|V0', 'fortran_order': False, 'shape': (9999999999999,), }"),
        "the header claims",
    ),
    "shape is not a tuple": (npy(FLOATS % "7"), "npy header cannot be read"),
    "a call in the header": (npy("__import__('os').abort()"), "npy header cannot be read"),
    "deep brackets": (npy("(" * 9000), "npy header cannot be read"),
    "header longer than the member": (npy(FLOATS % "(1,)")[:40], "npy header cannot be read"),
    "unknown version": (b"\x93NUMPY\x09\x00" + b"x" * 40, "npy header cannot be read"),
    "no npy at all": (b"hello", "npy header cannot be read"),
    "empty member": (b"", "npy header cannot be read"),
}


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_lying_header_is_refused_before_anything_is_allocated(tmp_path, kind, compression):
    content, words = HEADERS[kind]
    path = zipped(tmp_path / "lie.npz", [("a.npy", content)], compression)
    tracemalloc.start()
    with (
        pytest.raises(DataContractError, match=rf"lie\.npz: key 'a': .*{words}.*expected.*; "),
        open_npz(path),
    ):
        pass
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("a.npy", npy(FLOATS % "()", b"12345678"))] * 2, "key 'a': the key is there twice"),
        (
            [("a.npy", npy(FLOATS % "()", b"12345678")), ("notes.txt", b"hello")],
            "not an .npy array",
        ),
        ([(f"{i}.npy", npy(FLOATS % "()", b"12345678")) for i in range(257)], "257 members"),
    ],
)
def test_members_that_numpy_never_writes_are_refused(tmp_path, members, words):
    with (
        pytest.raises(DataContractError, match=re.escape(words)),
        open_npz(zipped(tmp_path / "a.npz", members)),
    ):
        pass


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compression_that_numpy_does_not_use_is_refused(tmp_path, compression):
    path = zipped(tmp_path / "a.npz", [("a.npy", npy(FLOATS % "()", b"12345678"))], compression)
    with (
        pytest.raises(DataContractError, match="compressed by a method numpy does not use"),
        open_npz(path),
    ):
        pass


def test_pickled_arrays_are_refused_and_no_code_of_theirs_runs(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    np.savez(tmp_path / "a.npz", metadata=np.array(Trap(), dtype=object), allow_pickle=True)
    with pytest.raises(DataContractError, match="key 'metadata': a pickled array .*could run code"):
        read_everything(tmp_path / "a.npz", tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (70 * 2**30, "claim to unpack"),
        (2**29, "claim to unpack"),
        (4096 + 128 + 1, "the header claims"),
    ],
)
def test_a_compressed_member_that_claims_too_much_is_refused(tmp_path, claim, words):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy((FLOATS % "(512,)").ljust(118), bytes(4096)))
        archive.filelist[0].file_size = claim  # the directory is written on closing
    with pytest.raises(DataContractError, match=words), open_npz(tmp_path / "bomb.npz"):
        pass


def test_a_stream_longer_or_shorter_than_the_directory_says_is_refused(tmp_path):
    for there, claimed in ((4096, 2048), (2048, 4096)):
        content = npy((FLOATS % f"({claimed // 8},)").ljust(118), bytes(there))
        with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.npy", content)
            archive.filelist[0].file_size = 128 + claimed
        for take in (NpzFile.read, lambda archive, key: archive.map(key, tmp_path)):
            with (
                pytest.raises(DataContractError, match="damaged or truncated"),
                open_npz(tmp_path / "a.npz") as archive,
            ):
                take(archive, "a")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.npz"]


def test_members_that_share_bytes_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        for key in "ab":
            archive.writestr(f"{key}.npy", npy(FLOATS % "()", b"12345678"))
        archive.filelist[1].header_offset = archive.filelist[0].header_offset
    with (
        pytest.raises(DataContractError, match="not where the one before ends"),
        open_npz(tmp_path / "a.npz"),
    ):
        pass


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello, world", "not a zip"),
        (b"PK\x03\x04" + bytes(50), "truncated or damaged zip"),
        (npy(FLOATS % "()"), "a single .npy array"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"BZh9", "a bzip2 file"),
        (zlib.compress(b"x"), "not a zip"),
        (b"PK\x05\x06" + b"\xff" * 18, "truncated or damaged zip"),
    ],
)
def test_other_kinds_of_file_are_named_with_what_to_do(tmp_path, content, words):
    (tmp_path / "a.npz").write_bytes(content)
    with (
        pytest.raises(DataContractError, match=rf"a\.npz: .*{words}.*fly64 import"),
        open_npz(tmp_path / "a.npz"),
    ):
        pass


def test_an_absent_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "absent.npz", tmp_path):
        with pytest.raises(DataContractError, match=rf"{path}: cannot be opened"), open_npz(path):
            pass
