"""Other programs open what is exported, and reconstruct from it an object that explains the
patterns as well as one found here."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import oracle
import peer_reconstructions
import pytest
import torch
from small_scan import geometry

from fly64lib.cli.main import main
from fly64lib.methods.classical import Classical
from ptycho_torch.data.contract import ScanData, write_scan
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import RawDataTorch

DOSE = 1e5


@pytest.fixture(scope="module")
def raw() -> RawDataTorch:
    """90 patterns at whole-pixel positions: cdtools' simple model rounds them."""
    image, probe, y, x, _ = geometry()
    y, x = np.rint(y), np.rint(x)
    counts = np.random.default_rng(3).poisson(oracle.expected_counts(image, probe, y, x) * DOSE)
    amplitude = np.sqrt(counts).astype(np.float32)
    about = {"object_pixel_nm": 56.4, "probe_kind": "truth", "object_kind": "initial"}
    beam, empty = (probe * DOSE**0.5).astype(np.complex64), np.ones(image.shape, np.complex64)
    return RawDataTorch(ScanData(amplitude, x, y, beam, empty, metadata=about), Path("scan.npz"))


@pytest.fixture(scope="module")
def ours(raw) -> float:
    """The deviance of the classical iteration's object."""
    found = Classical(threads=1).reconstruct(raw)
    return data_deviance(torch.from_numpy(found.object), raw)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "options", "epochs"),
    [
        ("cdtools", "scan.cxi --energy-kev 8.8 --distance-m 1.92", 30),
        ("ptychi", "scan --format ptychi", 100),
    ],
)
def test_a_peer_reconstructs_an_export_to_the_same_deviance(
    raw, ours, tmp_path, program, options, epochs
):
    write_scan(tmp_path / "scan.npz", raw.scan)
    target, *more = options.split()
    assert main(["export", str(tmp_path / "scan.npz"), str(tmp_path / target), *more]) == 0
    script, result = peer_reconstructions.__file__, tmp_path / "result.npz"
    command = [sys.executable, script, program, str(tmp_path / target), str(result), str(epochs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(result) as found:
        image, corner = found["object"], np.rint(found["corner"]).astype(int)
    canvas = np.ones(raw.object_guess.shape, np.complex64)
    rows, columns = (
        np.arange(size) + first for size, first in zip(image.shape, corner, strict=True)
    )
    inside = [
        (at >= 0) & (at < size) for at, size in zip((rows, columns), canvas.shape, strict=True)
    ]
    canvas[np.ix_(rows[inside[0]], columns[inside[1]])] = image[np.ix_(*inside)]
    theirs, empty = (
        data_deviance(torch.from_numpy(one), raw) for one in (canvas, np.ones_like(canvas))
    )
    print(f"{program}: deviance {theirs:.4f}, here {ours:.4f}, empty {empty:.4f}")
    assert theirs == pytest.approx(ours, rel=0.05) and empty > 5 * ours
