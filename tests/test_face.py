"""`import fly64lib` shows the package's public names, and loads what stands behind one on use."""

import subprocess
import sys

import pytest
from contract_file import arrays, save

import fly64lib


@pytest.mark.parametrize("name", fly64lib.__all__)
def test_a_public_name_is_found_and_documented(name):
    found = getattr(fly64lib, name)
    assert name in dir(fly64lib) and found.__doc__


def test_another_name_is_refused_with_the_names_that_there_are():
    with pytest.raises(AttributeError, match="'simulated'; it has .*'simulate'"):
        fly64lib.simulated  # noqa: B018


def test_the_import_alone_loads_no_engine():
    code = "import fly64lib, sys; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_method_of_the_face_is_the_method_without_the_truth(tmp_path):
    scan = fly64lib.open_scan(save(tmp_path / "scan.npz", arrays()))
    found = fly64lib.reconstruct(scan, "classical", steps=2)
    alone = fly64lib.METHODS["classical"](steps=2).reconstruct(scan.without_truth())
    assert (found.object == alone.object).all()
