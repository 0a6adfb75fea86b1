"""A scan exported as CXI, opened and reconstructed by PtyPy.

    python benchmarks/ptypy_reads.py SCAN.npz --ptypy CHECKOUT --ptypy-python ENV/bin/python

CHECKOUT is your own copy of PtyPy 0.5.0, the last under the GPL, which is on no index of packages;
ENV an environment that runs it (numpy < 1.24, matplotlib < 3.7, scipy, h5py, pyzmq, pillow). It
runs as a separate program (`ptypy_driver.py`) and gets nothing but the exported file. SCAN has one
mode of the probe and M = N. PtyPy's object and one found here by the classical iteration are judged
by the Poisson deviance a pixel on the scan's patterns."""

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch
from common import main, table
from tyro.conf import Positional

from fly64lib.formats.base import Optics
from fly64lib.formats.exporting import exported
from fly64lib.formats.options import ExportOptions
from fly64lib.methods.classical import Classical
from ptycho_torch.errors import PtychoError
from ptycho_torch.fields import config
from ptycho_torch.inference.apply import data_deviance
from ptycho_torch.memmap_bridge import open_scan

DRIVER = Path(__file__).with_name("ptypy_driver.py")


@config
class PtypyOptions:
    """An export that PtyPy opens and reconstructs."""

    scan: Positional[Path]
    ptypy: Path
    ptypy_python: Path
    energy_kev: float = 8.8
    distance_m: float = 1.92


def run(options: PtypyOptions) -> int:
    """Export, reconstruct by both, print the deviances."""
    raw = open_scan(options.scan)
    with tempfile.TemporaryDirectory(prefix="fly64-") as folder:
        source, result = Path(folder) / "scan.cxi", Path(folder) / "result.npz"
        optics = Optics(energy_kev=options.energy_kev, distance_m=options.distance_m)
        exported(ExportOptions(source=options.scan, target=source, optics=optics))
        command = [options.ptypy_python, DRIVER, source, result]
        path = os.environ | {"PYTHONPATH": str(options.ptypy), "MPLBACKEND": "agg"}
        done = subprocess.run(command, capture_output=True, text=True, env=path)
        if done.returncode:
            raise PtychoError(f"PtyPy failed:\n{done.stderr[-2000:]}")
        with np.load(result) as found:
            image, corner, spread = (found[key] for key in ("object", "corner", "spread"))
    if np.abs(spread).max() > 0.5:
        raise PtychoError(f"PtyPy's patches lie apart from the file's by {spread} px")
    canvas, first = np.ones(raw.object_guess.shape, np.complex64), np.rint(corner).astype(int)
    rows, columns = (
        np.arange(size) + start for size, start in zip(image.shape, first, strict=True)
    )
    canvas[np.ix_(rows, columns)] = image
    objects = {"PtyPy": canvas, "here": Classical().reconstruct(raw.without_truth()).object}
    objects["empty"] = np.ones_like(canvas)
    rows = [
        {"object": name, "deviance": data_deviance(torch.from_numpy(one), raw)}
        for name, one in objects.items()
    ]
    print(table(rows, ["object", "deviance"]))
    return 0


if __name__ == "__main__":
    main(PtypyOptions, run)
