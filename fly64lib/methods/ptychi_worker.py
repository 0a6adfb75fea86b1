"""pty-chi in a process of its own: `python -m fly64lib.methods.ptychi_worker job.json`.

pty-chi changes the default device, the dtype and the random states of its whole process, so it
never shares ours. The job file names the data, the settings and the result. Progress is one JSON
line per epoch on stdout, all else goes to stderr.

From our conventions to pty-chi 2.2's: counts as intensities, zero frequency centred (it shifts them
itself); the probe divided by N, since its FFT is not normalised; positions (y, x) centred on an
even canvas, patch top-left = pos + H/2 - N/2. On the detector's grid (M = N of its own) the probe
is the detector's part of it and the object is spread over M pixels in the end; on the object's, the
patterns get a border up to M that is marked as not measured, as masked pixels are. Epoch 0 and the
object-probe ambiguity would rescale even a fixed probe: both off. Their free scale is fixed at the
end."""

import json
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import ptychi.api as api
import torch
from ptychi.api.task import PtychographyTask
from torch.nn.functional import pad

from fly64lib.evaluation.detector_grid import DetectorGrid
from fly64lib.methods.base import measured
from fly64lib.methods.starting_probes import photons_restored, starting_probe
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan
from ptycho_torch.physics.optics import backpropagate, propagate

OPTIONS = {"lsqml": api.LSQMLOptions, "rpie": api.RPIEOptions, "dm": api.DMOptions}


def run(job: dict[str, Any], progress: TextIO) -> None:
    """Reconstruct `job["dataset"]` with `job["settings"]`; write the arrays to `job["result"]`."""
    settings = job["settings"]
    torch.set_num_threads(settings["threads"])
    raw, options = open_scan(job["dataset"]), make_options(settings)
    given = task_data(raw, settings)
    with measured() as cost, PtychographyTask(options, **given) as task:
        for epoch in range(settings["epochs"]):
            task.run(1)
            loss = float(task.reconstructor.loss_tracker.table["loss"].iloc[-1])
            line = {"epoch": epoch + 1, "loss": loss if np.isfinite(loss) else None}
            print(json.dumps(line), file=progress, flush=True)
        H, W = raw.object_guess.shape
        canvas = task.get_data_to_cpu("object", as_numpy=True)[0, :H, :W]
        side = given["probe_data"].shape[-1]
        probe = task.get_data_to_cpu("probe", as_numpy=True)[0] * side
        if side < raw.M:
            grid = DetectorGrid.of(raw)
            h, w = grid.shape(raw.object_guess.shape)
            canvas = grid.spread(torch.from_numpy(canvas[:h, :w]), (H, W)).numpy()
            probe = backpropagate(propagate(torch.from_numpy(probe)), raw.M).numpy()
        if settings["probe"] == "refine":
            canvas, probe = photons_restored(canvas, probe, float(raw.probe.abs().square().sum()))
    np.savez(
        job["result"],
        object=canvas.astype(np.complex64),
        probe=probe.astype(np.complex64),
        seconds=cost.seconds,
        cpu_seconds=cost.cpu_seconds,
        peak_memory_mb=np.nan if cost.peak_memory_mb is None else cost.peak_memory_mb,
    )


def make_options(settings: dict[str, Any]) -> Any:
    """pty-chi's options for the named method; what is not set here is its default."""
    options = OPTIONS[settings["method"]]()
    reconstructor = options.reconstructor_options
    reconstructor.default_device = api.Devices(settings["device"])
    reconstructor.num_epochs, reconstructor.random_seed = settings["epochs"], settings["seed"]
    if settings["method"] == "dm":
        reconstructor.chunk_length = settings["batch_size"]  # memory only
        reconstructor.exit_wave_update_relaxation = settings["relaxation"]
    else:
        reconstructor.batch_size = settings["batch_size"]
    if settings["method"] == "lsqml":
        reconstructor.noise_model = api.NoiseModels(settings["noise_model"])
        reconstructor.batching_mode = api.BatchingModes.COMPACT  # object momentum exists only there
        reconstructor.momentum_acceleration_gain = settings["momentum"]
        reconstructor.rescale_probe_intensity_in_first_epoch = False
    options.object_options.remove_object_probe_ambiguity.enabled = False
    options.probe_options.optimizable = settings["probe"] == "refine"
    options.probe_options.orthogonalize_incoherent_modes.enabled = settings["probe"] == "refine"
    return options


def task_data(raw: RawDataTorch, settings: dict[str, Any]) -> dict[str, Any]:
    """A data file's arrays in pty-chi's conventions, an empty object on its canvas made even."""
    probe, counts = starting_probe(raw, settings["probe_defocus_rad"]), raw.counts(slice(None))
    positions, shape, mask = raw.positions, raw.object_guess.shape, raw.detector.mask
    if raw.M > raw.N and settings["grid"] == "object":
        before = raw.M // 2 - raw.N // 2
        border = (before, raw.M - raw.N - before) * 2
        mask = torch.ones(raw.N, raw.N, dtype=torch.bool) if mask is None else mask
        counts, mask = pad(counts, border), pad(mask, border)
    elif raw.M > raw.N:
        grid = DetectorGrid.of(raw)
        positions, shape = positions / grid.finer, grid.shape(shape)
        probe = backpropagate(propagate(probe, raw.N))
    H, W = (size + size % 2 for size in shape)
    positions = positions - torch.tensor([H / 2, W / 2], dtype=torch.float64)
    return {
        "diffraction_data": counts,
        "object_data": torch.ones(1, H, W, dtype=torch.complex64),
        "probe_data": probe[None] / probe.shape[-1],
        "probe_position_y_px": positions[:, 0].float(),
        "probe_position_x_px": positions[:, 1].float(),
    } | ({} if mask is None else {"valid_pixel_mask": mask})


if __name__ == "__main__":
    # pty-chi prints as it likes; stdout is the protocol's
    lines, sys.stdout = sys.stdout, sys.stderr
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), lines)
