"""Exported files opened and reconstructed by other programs, knowing nothing but the file.

    python peer_reconstructions.py cdtools SCAN.cxi RESULT.npz EPOCHS
    python peer_reconstructions.py ptychi PREFIX RESULT.npz EPOCHS    of PREFIX_{dp,para}.hdf5

In a process of its own: pty-chi changes torch's defaults for the whole process. The file's probe is
kept. RESULT.npz holds the object and `corner`, the place of its first pixel under the positions
(y, x) of the exported scan, px, where these count from a patch's centre."""

import sys
import warnings
from pathlib import Path

import h5py
import numpy as np
import torch


def by_cdtools(path: Path, epochs: int) -> dict[str, np.ndarray]:
    """Its own reader, its simple model (positions on whole pixels) and Adam, in which amplitudes
    are fitted."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # of matplotlib, by cdtools' colour maps
        from cdtools.datasets import Ptycho2DDataset
        from cdtools.models import SimplePtycho

    dataset = Ptycho2DDataset.from_cxi(path)
    model = SimplePtycho.from_dataset(dataset)
    with h5py.File(path) as file:
        probe = torch.from_numpy(file["entry_1/instrument_1/source_1/illumination"][0])
    model.probe.data = probe.to(torch.complex64) / model.probe_norm
    model.probe.requires_grad = False
    for rate in (0.03, 0.005, 0.001):
        for _ in model.Adam_optimize(epochs, dataset, lr=rate, batch_size=20, thread=False):
            pass
    found = model.obj.detach().numpy()
    return {"object": found, "corner": model.min_translation.numpy() - probe.shape[-1] / 2}


def by_ptychi(prefix: Path, epochs: int) -> dict[str, np.ndarray]:
    """Its documented keys, and LSQML; the object begins empty."""
    from ptychi import api
    from ptychi.api.task import PtychographyTask

    with h5py.File(f"{prefix}_dp.hdf5") as file:
        counts = torch.from_numpy(file["dp"][()])
    with h5py.File(f"{prefix}_para.hdf5") as file:
        probe, image = torch.from_numpy(file["probe"][()]), file["object"]
        pixel_m, shape = image.attrs["pixel_height_m"], image.shape
        places = {
            f"probe_position_{axis}_px": file[f"probe_position_{axis}_m"][()] for axis in "yx"
        }
    options = api.LSQMLOptions()
    reconstructor = options.reconstructor_options
    reconstructor.default_device, reconstructor.num_epochs = api.Devices.CPU, epochs
    reconstructor.batching_mode, reconstructor.batch_size = api.BatchingModes.COMPACT, len(counts)
    reconstructor.noise_model = api.NoiseModels.POISSON
    reconstructor.momentum_acceleration_gain = 1.0
    reconstructor.rescale_probe_intensity_in_first_epoch = False
    options.object_options.pixel_size_m = pixel_m
    options.object_options.remove_object_probe_ambiguity.enabled = False
    options.probe_options.optimizable = False
    given = {name: torch.from_numpy(at / pixel_m).float() for name, at in places.items()}
    given |= {"probe_data": probe, "object_data": torch.ones(shape, dtype=torch.complex64)}
    with PtychographyTask(options, diffraction_data=counts, **given) as task:
        task.run()
        return {"object": task.get_data_to_cpu("object", as_numpy=True)[0], "corner": np.zeros(2)}


if __name__ == "__main__":
    torch.set_num_threads(1)
    program, source, target, epochs = sys.argv[1:]
    reconstruct = {"cdtools": by_cdtools, "ptychi": by_ptychi}[program]
    np.savez(target, **reconstruct(Path(source), int(epochs)))
