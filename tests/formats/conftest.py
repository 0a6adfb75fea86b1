"""A small scan as files hold it, and the importer called as a user calls it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_scan import geometry

from fly64lib.cli.main import main
from ptycho_torch.data.contract import ScanData, read_scan

DOSE = 1e5
AS_GIVEN = "--zero-frequency centre --orientation as-given"


@pytest.fixture(scope="session")
def made() -> dict[str, np.ndarray]:
    """Counts of 90 patterns of 32 x 32 px from the oracle, with what belongs to them."""
    image, probe, y, x, expected = geometry()
    counts = np.random.default_rng(2).poisson(expected * DOSE).astype(np.uint16)
    modes = (probe[0] * DOSE**0.5).astype(np.complex64)
    positions = np.stack([y, x], 1)
    return {"counts": counts, "positions": positions, "probe": modes, "object": image}


@pytest.fixture
def raw_file(made, tmp_path) -> Callable[..., Path]:
    """raw.npz as upstream has it, with keys changed; None leaves a key out."""

    def write(**changed: np.ndarray | None) -> Path:
        y, x = made["positions"].T
        keys = {"diff3d": made["counts"], "xcoords": x, "ycoords": y, "probeGuess": made["probe"]}
        keys |= {"objectGuess": np.ones(made["object"].shape, complex)} | changed
        there = {key: value for key, value in keys.items() if value is not None}
        np.savez(tmp_path / "raw.npz", **there)
        return tmp_path / "raw.npz"

    return write


@pytest.fixture
def probe_file(made, tmp_path) -> Path:
    np.savez(tmp_path / "probe.npz", probeGuess=made["probe"])
    return tmp_path / "probe.npz"


@pytest.fixture
def imported(tmp_path) -> Callable[..., ScanData]:
    """The scan that a file becomes under options in one text."""

    def run(source: Path, options: str = AS_GIVEN) -> ScanData:
        target = tmp_path / "imported.npz"
        rest = ["--overwrite", "--picture", "none", *options.split()]
        assert main(["import", str(source), str(target), *rest]) == 0
        return read_scan(target)

    return run


@pytest.fixture
def refused(tmp_path, capsys) -> Callable[..., str]:
    """What is said of a file that is not imported; nothing is left behind."""

    def run(source: Path, options: str = "--zero-frequency centre") -> str:
        target = tmp_path / "refused.npz"
        rest = ["--picture", "none", *options.split()]
        assert main(["import", str(source), str(target), *rest]) == 2
        assert not target.exists() and not list(tmp_path.glob(".fly64-import-*"))
        said = capsys.readouterr().err
        assert said.count("; ") >= 2 and "; expected " in said or "pip install" in said
        return said

    return run
