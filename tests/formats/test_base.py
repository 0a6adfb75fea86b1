"""A format is one file and one line, also of another installed package."""

import sys

import numpy as np
import pytest
from small_scan import small_scan

from fly64lib.cli.main import main
from fly64lib.design.registries import FORMATS
from ptycho_torch.data.contract import read_scan, write_scan

TOY = '''
"""All of a scan in one (n + 1, N, N) array: counts, then the probe; positions beside it."""
import numpy as np
from fly64lib.formats.base import Format
from fly64lib.formats.raw import RawScan, Stack

def read(path, access):
    counts, positions = np.load(path), np.load(access.parameters)
    probe = counts[-1:].astype(complex)
    scan = RawScan(path, [Stack(counts[:-1].real, len(positions), path, "toy")], positions)
    scan.probe, scan.values, scan.zero_frequency = probe, "intensity", "centre"
    return scan

def write(path, scan, optics):
    with path.open("wb") as file:
        np.save(file, np.concatenate([np.rint(scan.diffraction**2), scan.probe]))
    beside = path.with_suffix(".places")
    with beside.open("wb") as file:
        np.save(file, scan.positions)
    return [path, beside]

TOY = Format(read=read, write=write, endings=(".toy",))
'''


@pytest.fixture
def toy_package(tmp_path, monkeypatch):
    """Another package with a format, as pip installs one."""
    installed = tmp_path / "site"
    about = installed / "toy_formats-1.0.dist-info"
    about.mkdir(parents=True)
    (installed / "toy_formats.py").write_text(TOY)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-formats\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[fly64.formats]\ntoy = toy_formats:TOY\n")
    monkeypatch.syspath_prepend(installed)
    vars(FORMATS).pop("_places", None)  # names are looked up once
    yield
    vars(FORMATS).pop("_places", None)
    sys.modules.pop("toy_formats", None)


def test_a_format_of_another_package_is_exported_imported_and_listed(toy_package, tmp_path, capsys):
    scan = small_scan(across=4)
    write_scan(tmp_path / "scan.npz", scan)
    assert main(["export", str(tmp_path / "scan.npz"), str(tmp_path / "a.toy")]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / name) for name in ("a.toy", "a.places")
    ]
    parameters = ["--parameters", str(tmp_path / "a.places"), "--picture", "none"]
    back = tmp_path / "back.npz"
    assert main(["import", str(tmp_path / "a.toy"), str(back), *parameters]) == 0
    np.testing.assert_array_equal(read_scan(back).diffraction, scan.diffraction)
    assert read_scan(back).metadata["import"]["format"] == "toy"
    assert main(["export", str(tmp_path / "scan.npz"), str(tmp_path / "a.xyz")]) == 2
    assert capsys.readouterr().err.rstrip().endswith("| toy")


@pytest.mark.parametrize("command", ["import", "export"])
def test_the_help_lists_the_formats_of_the_registry(toy_package, command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert ("ptypy" in said) == (command == "import") and ("tiff" in said) == (command == "export")
    assert "cxi" in said and "toy" in said


def test_an_unknown_format_and_one_that_goes_the_other_way_are_refused(tmp_path, capsys):
    (tmp_path / "x").write_bytes(b"PK")
    for asked, words in (("cxy", "did you mean 'cxi'"), ("png", "cannot be imported")):
        assert (
            main(["import", str(tmp_path / "x"), str(tmp_path / "y.npz"), "--format", asked]) == 2
        )
        assert words in capsys.readouterr().err


def test_a_file_that_fits_two_formats_is_asked_about(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", data=np.ones(3), scan=np.ones(3), diff3d=np.ones(3))
    assert main(["import", str(tmp_path / "x.npz"), str(tmp_path / "y.npz")]) == 2
    assert "fits fly64 and tike" in capsys.readouterr().err
