"""Scan files as other programs make them: their own physics, and their own writer where they have
one.

Run in a process of its own (`python reference_writers.py SCAN.npz FOLDER`): pty-chi changes torch's
defaults for the whole process. SCAN.npz holds an object, a probe and integer patch corners; FOLDER
gets `cdtools.cxi`, pty-chi's pair, and the counts that pty-chi expects (`ptychi_expected.npy`)."""

import sys
from pathlib import Path

import h5py
import numpy as np
import torch

WAVELENGTH_M, DISTANCE_M, DETECTOR_PIXEL_M = 1.4e-10, 2.0, 75e-6


def object_pixel_m(N: int) -> float:
    return WAVELENGTH_M * DISTANCE_M / (N * DETECTOR_PIXEL_M)


def write_cdtools(
    path: Path, image: np.ndarray, probe: np.ndarray, corners: np.ndarray, seed: int
) -> None:
    """cdtools' model makes the patterns, its data set writes the CXI file."""
    from cdtools.datasets import Ptycho2DDataset
    from cdtools.models import SimplePtycho
    from cdtools.tools import initializers, interactions

    basis = torch.tensor([[0, -DETECTOR_PIXEL_M, 0], [-DETECTOR_PIXEL_M, 0, 0]]).T
    probe_basis = initializers.exit_wave_geometry(basis, probe.shape, WAVELENGTH_M, DISTANCE_M)
    translations = interactions.pixel_to_translations(
        probe_basis, torch.tensor(corners, dtype=torch.float32)
    )
    model = SimplePtycho(WAVELENGTH_M, probe_basis, probe, image)
    expected = model.measurement(
        model.forward_propagator(model.interaction(torch.arange(len(corners)), translations))
    )
    counts = np.random.default_rng(seed).poisson(expected.detach().numpy())
    Ptycho2DDataset(
        translations.numpy(),
        torch.tensor(counts, dtype=torch.float32),
        wavelength=WAVELENGTH_M,
        detector_geometry={"distance": DISTANCE_M, "basis": basis},
    ).to_cxi(path)


def write_ptychi(
    folder: Path, image: np.ndarray, probe: np.ndarray, corners: np.ndarray, seed: int
) -> None:
    """pty-chi's forward model makes the patterns; it has no writer, so h5py writes its documented
    keys."""
    from ptychi import api, forward_models
    from ptychi.data_structures import object as objects
    from ptychi.data_structures import opr_mode_weights, parameter_group, probe_positions
    from ptychi.data_structures import probe as probes

    N, pixel_m = probe.shape[-1], object_pixel_m(probe.shape[-1])
    positions = torch.tensor(
        corners + N / 2 - np.rint(np.array(image.shape) / 2), dtype=torch.float32
    )
    group = parameter_group.PtychographyParameterGroup(
        object=objects.PlanarObject(
            data=torch.tensor(image, dtype=torch.complex64)[None],
            options=api.base.ObjectOptions(pixel_size_m=pixel_m),
        ),
        probe=probes.Probe(
            data=torch.tensor(probe / N, dtype=torch.complex64)[None, None],
            options=api.base.ProbeOptions(),
        ),
        probe_positions=probe_positions.ProbePositions(
            data=positions, options=api.base.ProbePositionOptions()
        ),
        opr_mode_weights=opr_mode_weights.OPRModeWeights(
            data=torch.ones(len(corners), 1), options=api.base.OPRModeWeightsOptions()
        ),
    )
    model = forward_models.PlanarPtychographyForwardModel(
        parameter_group=group, wavelength_m=WAVELENGTH_M
    )
    expected = np.fft.fftshift(
        model(indices=torch.arange(len(corners))).detach().numpy(), axes=(-2, -1)
    )
    np.save(folder / "ptychi_expected.npy", expected)
    with h5py.File(folder / "ptychodus_dp.hdf5", "w") as file:
        file["dp"] = np.random.default_rng(seed).poisson(expected).astype(np.float32)
    with h5py.File(folder / "ptychodus_para.hdf5", "w") as file:
        file["probe"], file["object"] = (
            group.probe.data.detach().numpy(),
            group.object.data.detach().numpy(),
        )
        for name in ("pixel_height_m", "pixel_width_m"):
            file["object"].attrs[name] = pixel_m
        file["probe_position_y_m"], file["probe_position_x_m"] = positions.numpy().T * pixel_m


if __name__ == "__main__":
    torch.set_num_threads(1)
    with np.load(sys.argv[1], allow_pickle=False) as scan:
        arguments = scan["object"], scan["probe"], scan["corners"], 5
    write_cdtools(Path(sys.argv[2]) / "cdtools.cxi", *arguments)
    write_ptychi(Path(sys.argv[2]), *arguments)
