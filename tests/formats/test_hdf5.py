"""HDF5 files are read without trusting them."""

import sys

import h5py
import numpy as np
import pytest


def lying(file: h5py.File) -> None:
    shape, packing = (10**5, 1000, 1000), {"chunks": (1, 100, 100), "compression": "gzip"}
    file.create_dataset("dp", shape, np.uint16, **packing)


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 8, 8), np.uint16)
    layout[:] = h5py.VirtualSource("/etc/hostname", "dp", (4, 8, 8))
    file.create_virtual_dataset("dp", layout)


def elsewhere(file: h5py.File) -> None:
    file.create_dataset("dp", (4, 8, 8), np.uint16, external=[("other.raw", 0, 512)])


def circle(file: h5py.File) -> None:
    file["dp"], file["other"] = h5py.SoftLink("/other"), h5py.SoftLink("/dp")


def link(file: h5py.File) -> None:
    file["dp"] = h5py.ExternalLink("/etc/hostname", "/dp")


def text(file: h5py.File) -> None:
    file["dp"] = ["a"]


def name_in_no_code(file: h5py.File) -> None:
    file[b"\xff\xfe"] = 1


def other_keys(file: h5py.File) -> None:
    file["rho"] = 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lying, "stored bytes claim to hold"),
        (virtual, "its values lie in other files"),
        (elsewhere, "its values lie in other files"),
        (link, "a link to another file, or in a circle"),
        (circle, "a link to another file, or in a circle"),
        (text, "dtype object"),
        (name_in_no_code, "an HDF5 file with no keys; expected one format (fly64: npz with diff3d"),
        (other_keys, "an HDF5 file with rho; expected one format"),
    ],
)
def test_an_hdf5_file_opens_no_other_file_and_is_believed_only_as_far_as_it_holds_bytes(
    tmp_path, refused, make, message
):
    with h5py.File(tmp_path / "x_dp.hdf5", "w") as file:
        make(file)
    with h5py.File(tmp_path / "x_para.hdf5", "w") as file:
        file["probe_position_x_m"] = file["probe_position_y_m"] = np.arange(4.0)
    assert message in refused(tmp_path / "x_dp.hdf5", "")


def test_without_h5py_the_message_says_what_to_install(tmp_path, refused, monkeypatch):
    with h5py.File(tmp_path / "x.cxi", "w") as file:
        file["entry_1/data_1/data"] = np.ones((2, 4, 4))
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "need h5py: pip install 'fly64[formats]'" in refused(tmp_path / "x.cxi", "")


def test_ptypy_positions_that_do_not_go_with_the_patterns_are_refused(tmp_path, refused):
    with h5py.File(tmp_path / "x.ptyd", "w") as file:
        file["chunks/0/data"], file["chunks/0/positions"] = np.ones((3, 8, 8)), np.ones((2, 2))
    assert "3 patterns (chunks/0/data), and 2 positions" in refused(tmp_path / "x.ptyd", "")
