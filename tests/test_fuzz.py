"""Files with arbitrary damage and lies: refused with a PtychoError, or what was written; never a
hang or much memory."""

import hashlib
import io
import json
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ptycho_torch.config import ModelConfig, TrainingConfig
from ptycho_torch.data.contract import read_scan
from ptycho_torch.errors import PtychoError
from ptycho_torch.network.model import PtychoModel
from ptycho_torch.training.bundle import load_bundle, read_sealed, save_bundle, write_sealed

N = 8
CONFIG = TrainingConfig(model=ModelConfig(N=N, width=8, depth=1))
BOUNDED = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "set", "cut", "drop", "double"]),
        st.floats(0, 1),
        st.integers(0, 255),
    ),
    min_size=1,
    max_size=4,
)


def edited(whole: bytes, edits: list[tuple[str, float, int]]) -> bytes:
    """Bytes flipped or set, the end cut off, up to 255 bytes dropped or written twice."""
    held = bytearray(whole)
    for kind, where, value in edits:
        at = min(int(where * len(held)), max(len(held) - 1, 0))
        if kind in ("flip", "set") and held:
            held[at] = held[at] ^ (1 << value % 8) if kind == "flip" else value
        elif kind == "cut":
            del held[at:]
        elif kind == "drop":
            del held[at : at + value]
        elif kind == "double":
            held[at:at] = held[at : at + value]
    return bytes(held)


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "diffraction": np.sqrt(rng.poisson(5.0, (4, N, N))).astype(np.float32),
        "xcoords": np.linspace(4, 12, 4),
        "ycoords": np.linspace(4, 12, 4),
        "probeGuess": np.ones((N, N), np.complex64),
        "objectGuess": np.ones((16, 16), np.complex64),
        "metadata": np.array('{"object_kind": "truth"}'),
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    here = tmp_path_factory.mktemp("fuzz")
    np.savez(here / "stored.npz", **arrays())
    np.savez_compressed(here / "packed.npz", **arrays())
    torch.manual_seed(0)
    save_bundle(
        here / "bundle.pt",
        PtychoModel(CONFIG.model, torch.ones(1, N, N, dtype=torch.complex64)),
        CONFIG,
        {"images": 4},
    )
    return here


@BOUNDED
@given(EDITS, st.sampled_from(["stored.npz", "packed.npz"]))
@example([("flip", 0.5, 0)], "stored.npz")
@example([("cut", 0.999, 0)], "packed.npz")
def test_a_damaged_scan_is_refused_or_is_what_was_written(folder, edits, name):
    (folder / "damaged.npz").write_bytes(edited((folder / name).read_bytes(), edits))
    try:
        came = read_scan(folder / "damaged.npz", cache_dir=folder / "cache")
    except PtychoError as error:
        assert "damaged.npz" in str(error) and "expected" in str(error)
        return
    made = arrays()
    np.testing.assert_array_equal(came.diffraction, made["diffraction"])
    np.testing.assert_array_equal(came.xcoords, made["xcoords"])
    assert not came.extra and came.metadata == {"object_kind": "truth"}


@BOUNDED
@given(EDITS)
@example([("flip", 0.999, 3)])
@example([("flip", 0.5, 0)])
def test_a_bundle_with_any_byte_changed_is_refused(folder, edits):
    whole = (folder / "bundle.pt").read_bytes()
    damaged = edited(whole, edits)
    if damaged == whole:
        return
    (folder / "damaged.pt").write_bytes(damaged)
    with pytest.raises(PtychoError, match=r"damaged\.pt: "):
        load_bundle(folder / "damaged.pt")


def test_a_bundle_with_one_byte_changed_is_refused_at_every_hundredth_place_and_at_its_end(folder):
    whole = (folder / "bundle.pt").read_bytes()
    for at in [*range(0, len(whole), 100), *range(len(whole) - 1000, len(whole), 3)]:
        (folder / "damaged.pt").write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(PtychoError):
            load_bundle(folder / "damaged.pt")


LENGTH = st.one_of(st.integers(-2, 20), st.integers(2**20, 2**62))


@BOUNDED
@given(
    st.sampled_from(sorted(arrays())),
    st.lists(LENGTH, max_size=5),
    st.sampled_from(["<f4", "<f8", "<c8", "|O", "|V0", "<U99", "|u1", ">f4"]),
    st.booleans(),
    st.booleans(),
)
def test_a_scan_whose_headers_lie_is_refused_in_little_memory(
    folder, key, shape, dtype, fortran, packed
):
    """The header of one array says another shape and dtype; the zip's checksums are right."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": dtype, "fortran_order": fortran, "shape": tuple(shape)}
    )
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(folder / "lies.npz", "w", kind) as archive:
        for name, array in arrays().items():
            sound = io.BytesIO()
            np.lib.format.write_array(sound, array, allow_pickle=False)
            archive.writestr(
                f"{name}.npy",
                header.getvalue() + array.tobytes() if name == key else sound.getvalue(),
            )
    tracemalloc.start()
    try:
        came = read_scan(folder / "lies.npz", cache_dir=folder / "cache")
        assert came.diffraction.dtype == np.float32 and came.diffraction.shape == (
            4,
            N,
            N,
        )  # the lie was the truth
    except PtychoError as error:
        assert "lies.npz" in str(error)
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert most < 2**24


PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = [
    ("config",),
    ("statistics",),
    ("legacy",),
    ("versions",),
    ("config", "model"),
    ("config", "seed"),
    ("config", "model", "N"),
    ("config", "model", "width"),
    ("config", "model", "network"),
]


@BOUNDED
@given(st.sampled_from(PLACES), PLAIN)
def test_a_bundle_whose_parts_are_anything_is_refused_or_whole(folder, place, value):
    tensors, content = read_sealed(folder / "bundle.pt")
    part = content
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = value
    try:
        write_sealed(folder / "odd.pt", tensors, content)
        came = load_bundle(folder / "odd.pt")
    except PtychoError as error:
        assert "odd.pt: " in str(error) or "as JSON (Out of range float" in str(error)
        assert len(str(error)) < 1200
    else:
        assert came.model.config.N == N and isinstance(came.statistics, dict)


LIMITED = """
import resource, sys, io, pickle, zipfile, torch, numpy as np
from ptycho_torch.training.bundle import load_bundle
from ptycho_torch.data.contract import read_scan
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**28, held + 2**28))
for name in ("network.pt", "tensor.pt", "bomb.npz"):
    try:
        (read_scan if name == "bomb.npz" else load_bundle)(name)
        print(name, "was read")
    except Exception as error:
        print(type(error).__name__, error)
"""


def lying(content: dict) -> bytes:
    """A sealed bundle whose header claims one tensor of 8 GB, with 64 bytes of it."""
    text = json.dumps({"sha256": "0" * 64, "format": "fly64-bundle-2", **content})
    probe = {"dtype": "C64", "shape": [2**30], "data_offsets": [0, 2**33]}
    header = json.dumps({"__metadata__": {"fly64": text}, "probe": probe}).encode()
    blank = len(header).to_bytes(8, "little") + header + bytes(64)
    return blank.replace(b"0" * 64, hashlib.sha256(blank).hexdigest().encode(), 1)


@pytest.mark.slow
def test_lying_sizes_and_decompression_bombs_are_refused_within_256_megabytes(folder, tmp_path):
    tensors, content = read_sealed(folder / "bundle.pt")
    content["config"]["model"].update(width=512, depth=6)  # 10 GB of weights
    write_sealed(tmp_path / "network.pt", tensors, content)
    (tmp_path / "tensor.pt").write_bytes(lying(content))
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("diffraction.npy", "w", force_zip64=True) as stream:
            np.lib.format.write_array_header_1_0(
                stream, {"descr": "<f4", "fortran_order": False, "shape": (2**15, 64, 64)}
            )
            for _ in range(2**9):
                stream.write(bytes(2**20))
    assert (tmp_path / "bomb.npz").stat().st_size < 2**23
    run = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    told = run.stdout.splitlines()
    assert run.returncode == 0 and len(told) == 3, run.stderr
    assert all(line.startswith("DataContractError") for line in told), told
    assert "are missing, or not of this configuration" in told[0]
    assert "SafetensorError" in told[1] and "claim to unpack" in told[2]
