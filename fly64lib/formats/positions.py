"""Probe, positions and object of a raw scan on the pixel grid of its cropped and binned
patterns."""

from argparse import Namespace

import numpy as np

from fly64lib.formats.frames import Reading, object_on_grid, probe_on_grid
from fly64lib.formats.raw import RawScan, as_modes
from ptycho_torch.data.npz import broken, open_npz

UNITS_M = {"m": 1.0, "um": 1e-6, "nm": 1e-9}
MOST_CANVAS_PX, MARGIN_PX = 2**27, 2


def probe_for(
    raw: RawScan, reading: Reading, grid: int, photons: float, options: Namespace
) -> tuple[np.ndarray, float]:
    """The probe on the patterns' grid, and the factor that brought its power to photons (1 where it
    was)."""
    probe = raw.probe
    if options.probe:
        with open_npz(options.probe) as archive:
            key = next((key for key in ("probeGuess", "probe") if key in archive.members), None)
            if key is None:
                raise broken(
                    options.probe,
                    "probeGuess",
                    f"missing; the keys are {', '.join(archive.members) or 'none'}",
                    "a probe (N, N) or (modes, N, N)",
                    "store it under this name",
                )
            probe = as_modes(archive.read(key), options.probe, key)
    if probe is None:
        raise broken(
            raw.source,
            None,
            f"a {raw.format} file without a probe",
            "a probe to start from",
            "pass --probe FILE.npz with an array probeGuess, such as another scan of the same beam",
        )
    if not (np.abs(probe) < 1e15).all() or not probe.any():
        raise broken(
            options.probe or raw.source,
            "probe",
            "values that are not finite, or all 0",
            "a probe",
            "give another one: --probe FILE.npz",
        )
    size = probe.shape[-1]
    if size not in (grid, reading.N) or size == grid and raw.detector_px[0] < size:
        raise broken(
            options.probe or raw.source,
            "probe",
            f"{size} px",
            f"{grid} px as the frames, or {reading.N} px as the patterns made of them",
            "give one on either grid: --probe FILE.npz",
        )
    probe = probe_on_grid(probe, reading) if size == grid else probe
    power = float((np.abs(probe) ** 2).sum())
    if raw.ours and not options.probe or photons / 2 <= power <= photons * 2:
        return probe, 1.0
    if not power > 0:
        raise broken(
            raw.source,
            "probe",
            "no power on the cropped detector",
            "a probe that reaches it",
            "correct --crop",
        )
    return probe * (photons / power) ** 0.5, (photons / power) ** 0.5


def placed(
    raw: RawScan, reading: Reading, grid: int, options: Namespace
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool, float | None]:
    """(y, x, object, whether the object is more than a constant, object pixel in m) on the grid of
    the patterns."""
    unit, ratio = options.position_unit or raw.position_unit, reading.crop / grid
    step = (
        1e9 / (grid * options.pixel_size_nm) if options.pixel_size_nm else raw.detector_step_per_m
    )
    pixel_m = 1 / (reading.crop * step) if step else None
    if unit != "px" and pixel_m is None:
        raise broken(
            raw.source,
            None,
            f"positions in {unit}, and no size of the object's pixel",
            "energy, distance and detector pixel in the file",
            "pass --pixel-size-nm: wavelength x distance / (frame width x detector pixel)",
        )
    if not (np.abs(raw.positions) < 1e15).all():
        raise broken(
            raw.source,
            None,
            "positions that are not finite",
            "one for each pattern",
            "measure or leave out these",
        )
    positions = raw.positions * (ratio if unit == "px" else UNITS_M[unit] / pixel_m)
    span = np.ptp(positions, axis=0)
    if raw.n > 1 and span.max() < 1 or (span + reading.N).prod() > MOST_CANVAS_PX:
        raise broken(
            raw.source,
            None,
            f"positions that span {span[0]:.3g} x {span[1]:.3g} px (read as {unit})",
            f"between 1 px and an object of {MOST_CANVAS_PX} px",
            "say --position-unit m, um, nm or px, and --pixel-size-nm",
        )
    image = None if options.no_object or raw.offset_px is None else raw.object_guess
    if image is None:
        shape = 2 * np.ceil((span + reading.N) / 2).astype(int) + MARGIN_PX
        positions = positions - (positions.max(0) + positions.min(0)) / 2 + shape / 2
        return *positions.T, np.ones(shape, np.complex128), False, pixel_m
    if not (np.abs(image) < 1e15).all():
        raise broken(
            raw.source,
            "object",
            "values that are not finite",
            "an object",
            "leave it out: --no-object",
        )
    positions = positions + np.asarray(raw.offset_px) * ratio
    known = bool((image != image.flat[0]).any())
    image = image if ratio == 1 else object_on_grid(image, grid, reading)
    return *positions.T, image, known, pixel_m
