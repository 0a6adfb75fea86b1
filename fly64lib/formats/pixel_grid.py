"""Probe, positions and object of a raw scan on the pixel grid of its cropped and binned
patterns."""

import numpy as np

from fly64lib.formats.frames import Reading, object_on_grid, probe_on_grid
from fly64lib.formats.options import ImportOptions
from fly64lib.formats.raw import RawScan, as_modes, need
from ptycho_torch.data.container import refused
from ptycho_torch.data.npz import open_npz

UNITS_M = {"m": 1.0, "um": 1e-6, "nm": 1e-9}
MOST_CANVAS_PX, MARGIN_PX = 2**27, 2
MOST = 1e15  # of an absolute value that is taken for a number
SCALE = 2.0  # a probe within this factor of the measured photons is in photons


def probe_for(
    raw: RawScan, reading: Reading, photons: float, options: ImportOptions
) -> tuple[np.ndarray, float]:
    """The probe on the patterns' grid, and the factor that brought its power to photons (1 where it
    was)."""
    probe, origin = raw.probe, options.probe or raw.source
    if options.probe:
        with open_npz(options.probe) as archive:
            key = need(archive, "a probe (N, N) or (modes, N, N)", "probeGuess", "probe")
            probe = as_modes(archive, key)
    if probe is None:
        raise raw.refused(
            f"a {raw.format} file without a probe; expected a probe to start from; pass --probe"
            " FILE.npz with an array probeGuess, such as another scan of the same beam",
        )
    if not (np.abs(probe) < MOST).all() or not probe.any():
        found = "values that are not finite, or all 0"
        raise refused(origin, "probe", f"{found}; expected a probe; give one: --probe FILE.npz")
    size, N = probe.shape[-1], reading.N
    if size not in (reading.frame_px, N) or size == reading.frame_px > raw.detector_px[0]:
        raise refused(
            origin,
            "probe",
            f"{size} px; expected {reading.frame_px} px as the frames, or {N} px as the patterns"
            " made of them; give one on either grid: --probe FILE.npz",
        )
    probe = probe_on_grid(probe, reading) if size == reading.frame_px else probe
    power = float((np.abs(probe) ** 2).sum())
    in_photons = photons / SCALE <= power <= photons * SCALE
    if raw.ours and not options.probe or in_photons:
        return probe, 1.0
    if not power > 0:
        text = "no power on the cropped detector; expected a probe that reaches it; correct --crop"
        raise raw.refused(text, "probe")
    return probe * (photons / power) ** 0.5, (photons / power) ** 0.5


def object_pixel_m(raw: RawScan, reading: Reading, options: ImportOptions) -> float | None:
    """Size of the result's object pixel; None if neither file nor options say it."""
    step = raw.detector_step_per_m
    if options.pixel_size_nm:
        step = 1e9 / (reading.frame_px * options.pixel_size_nm)
    return 1 / (reading.crop * step) if step else None


def positions_for(
    raw: RawScan, reading: Reading, pixel_m: float | None, options: ImportOptions
) -> np.ndarray:
    """Positions (n, 2) as (y, x) in pixels of the result, from the file's origin."""
    unit = options.position_unit or raw.position_unit
    if unit != "px" and pixel_m is None:
        raise raw.refused(
            f"positions in {unit}, and no size of the object's pixel; expected energy, distance and"
            " detector pixel in the file; pass --pixel-size-nm: wavelength x distance / (frame"
            " width x detector pixel)",
        )
    if not (np.abs(raw.positions) < MOST).all():
        raise raw.refused(
            "positions that are not finite; expected one for each pattern; measure or leave out"
            " these"
        )
    positions = raw.positions * (reading.ratio if unit == "px" else UNITS_M[unit] / pixel_m)
    span = np.ptp(positions, axis=0)
    if raw.n > 1 and span.max() < 1 or (span + reading.N).prod() > MOST_CANVAS_PX:
        raise raw.refused(
            f"positions that span {span[0]:.3g} x {span[1]:.3g} px (read as {unit}); expected"
            f" between 1 px and an object of {MOST_CANVAS_PX} px; say --position-unit m, um, nm or"
            " px, and --pixel-size-nm",
        )
    return positions


def object_for(
    raw: RawScan, reading: Reading, positions: np.ndarray, options: ImportOptions
) -> tuple[np.ndarray, np.ndarray, bool]:
    """(positions from the object's corner, object (H, W), whether it is more than a constant)."""
    image = None if options.no_object or raw.offset_px is None else raw.object_guess
    if image is None:
        span = np.ptp(positions, axis=0)
        shape = 2 * np.ceil((span + reading.N) / 2).astype(int) + MARGIN_PX
        middle = (positions.max(0) + positions.min(0)) / 2
        return positions - middle + shape / 2, np.ones(shape, np.complex128), False
    if not (np.abs(image) < MOST).all():
        text = "values that are not finite; expected an object; leave it out: --no-object"
        raise raw.refused(text, "object")
    known = bool((image != image.flat[0]).any())
    if reading.ratio != 1:
        image = object_on_grid(image, reading)
    return positions + np.asarray(raw.offset_px) * reading.ratio, image, known
