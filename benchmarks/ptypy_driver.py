"""Reads a CXI file with PtyPy's generic HDF5 loader and reconstructs it; a separate program that
`ptypy_reads.py` starts.

    PYTHONPATH=CHECKOUT PTYPY_PYTHON ptypy_driver.py SCAN.cxi RESULT.npz

The file's probe is kept: ten steps of difference map, then maximum likelihood with Poisson noise.
RESULT.npz holds the object on the file's probe, and `corner`, the place of its first pixel under
the positions (y, x) of patch centres, px. Nothing of fly64 is imported here: the environment is
PtyPy's."""

import sys

import h5py
import numpy as np
from ptypy.core import Ptycho
from ptypy.experiment import hdf5_loader  # noqa: F401 - its import names the loader
from ptypy.utils import Param
from scipy.constants import e

DETECTOR, SOURCE = "entry_1/instrument_1/detector_1", "entry_1/instrument_1/source_1"
DATA, TRANSLATION = "entry_1/data_1/data", "entry_1/sample_1/geometry_1/translation"


def reconstruct(source: str, target: str) -> None:
    """Read, reconstruct, and write the result."""
    with h5py.File(source) as file:
        at, probe = file[TRANSLATION][()], file[f"{SOURCE}/illumination"][()][0]
        side, pixel_m = file[DATA].shape[-1], float(file[f"{DETECTOR}/x_pixel_size"][()])
    axes = f"{target}.axes.h5"
    with h5py.File(axes, "w") as file:  # 0.5.0 wants an axis as a data set of its own
        file["slow"], file["fast"] = at[:, 1], at[:, 0]
    data = Param(name="Hdf5Loader", save=None, auto_center=False, shape=side)
    data.center = (side // 2, side // 2)
    data.psize = pixel_m  # 0.5.0 reads recorded_psize and does not use it
    data.intensities = Param(file=source, key=DATA)
    data.positions = Param(file=axes, slow_key="slow", fast_key="fast")
    data.recorded_energy = Param(file=source, key=f"{SOURCE}/energy", multiplier=1e-3 / e)
    data.recorded_distance = Param(file=source, key=f"{DETECTOR}/distance", multiplier=1.0)
    scan = Param(name="Full", data=data, sample=Param(model=None, fill=1.0 + 0j))
    scan.illumination = Param(
        model=probe, aperture=None, propagation=None, diversity=None, photons=None
    )
    known = {"probe_update_start": 10**9, "numiter_contiguous": 10}
    engines = Param(
        first=Param(name="DM", numiter=10, **known),
        second=Param(name="ML", ML_type="Poisson", numiter=60, reg_del2=False, **known),
    )
    quiet = Param(active=False)
    io = Param(rfile=None, autosave=quiet, autoplot=quiet, interaction=quiet)
    run = Ptycho(Param(verbose_level=1, io=io, scans=Param(scan=scan), engines=engines), level=5)
    image, beam = (next(iter(one.storages.values())).data[0] for one in (run.obj, run.probe))
    # it scales the probe to the brightest pattern, and the object takes the rest
    scale = np.linalg.norm(beam) / np.linalg.norm(probe)
    corners = np.array([pod.ob_view.dlow for pod in run.pods.values()])
    places = at[:, 1::-1] / run.model.scans["scan"].geometries[0].p.resolution - side / 2
    corner = places - corners
    np.savez(target, object=image * scale, corner=corner.mean(0), spread=np.ptp(corner, 0))


if __name__ == "__main__":
    reconstruct(*sys.argv[1:])
