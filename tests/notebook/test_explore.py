"""explore.ipynb finds the study by itself."""

import os
from pathlib import Path

import pytest

from fly64lib.notebook.explore import newest_study
from ptycho_torch.errors import DataContractError


def compared(study: Path, when: int, replicate: str = "replicate_0") -> None:
    """A result of phase G, written at a time."""
    result = study / replicate / "phase_g" / "dose_1000" / "dense" / "comparison.json"
    result.parent.mkdir(parents=True)
    result.touch()
    os.utime(result, (when, when))


def test_the_newest_study_is_found_from_the_checkout_and_from_the_notebooks_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataContractError, match="no finished study under .*fly64 run"):
        newest_study()
    compared(tmp_path / "runs" / "quick", 2000)
    compared(tmp_path / "runs" / "by_hand", 1000, replicate="")
    (tmp_path / "runs" / "train").mkdir()  # no study
    assert newest_study() == Path("runs/quick")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert newest_study() == Path("../runs/quick")
    compared(tmp_path / "runs" / "later", 3000)
    assert newest_study() == Path("../runs/later")
    compared(tmp_path / "notebooks" / "runs" / "mine", 500)  # what lies here goes first
    assert newest_study() == Path("runs/mine")
