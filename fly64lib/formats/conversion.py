"""From a raw scan to DATA-001: patterns, probe, positions and object on one pixel grid, in the
orientation that the forward model agrees with, and a record of what was decided."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fly64lib.formats import frames
from fly64lib.formats.options import ImportOptions
from fly64lib.formats.orientation import OrientationChoice, find_orientation, turned
from fly64lib.formats.raw import RawScan, as_modes, need
from ptycho_torch.data.checks import DOSE_KEYS, mean_photons
from ptycho_torch.data.container import refused
from ptycho_torch.data.contract import check_scan
from ptycho_torch.data.npz import open_npz
from ptycho_torch.data.scan import KEYS, ScanData

UNITS_M = {"m": 1.0, "um": 1e-6, "nm": 1e-9}
MOST_CANVAS_PX, MARGIN_PX = 2**27, 2
MOST = 1e15  # of an absolute value that is taken for a number
SCALE = 2.0  # a probe within this factor of the measured photons is in photons
_KNOWN = {row.name for row in KEYS}


def converted(
    raw: RawScan, work: Path, options: ImportOptions
) -> tuple[ScanData, OrientationChoice]:
    """The scan, with patterns in a file of the folder `work`, and how its orientation was found."""
    seen = frames.look(raw)
    reading = frames.decide(raw, seen, options)
    bad = frames.window(seen.bad, reading)
    if bad.any() and options.bad_pixels == "refuse":
        text = f"{int(bad.sum())} bad pixels ({seen.masked} by the file's mask, the others"
        text += " negative, not finite or saturated in some pattern); expected photon counts in"
        text += " every pixel; pass --bad-pixels mask to leave them out of everything"
        raise raw.refused(text)
    # in a mapped file, which may be larger than memory
    shape, first = (raw.n, reading.N, reading.N), 0
    diffraction = np.lib.format.open_memmap(work / "patterns.npy", "w+", np.float32, shape)
    for block in frames.patterns(raw, reading, seen.bad):
        diffraction[first : first + len(block)] = block
        first += len(block)
    photons = mean_photons(diffraction)
    if not photons > 0:
        text = "no photon in the cropped square; expected the beam inside; correct --crop or"
        raise raw.refused(f"{text} --centre")
    probe, scaled = _probe_for(raw, reading, photons, options)
    step = raw.detector_step_per_m
    if options.pixel_size_nm:
        step = 1e9 / (reading.frame_px * options.pixel_size_nm)
    pixel_m = 1 / (reading.crop * step) if step else None
    positions = _positions_for(raw, reading, pixel_m, options)
    positions, image, known = _object_for(raw, reading, positions, options)
    changed = raw.detector_px != (reading.N, reading.N)
    kept = {} if changed else raw.extra  # extra arrays are on the frame's grid, or perhaps
    mask = None
    if bad.any():
        k = reading.bin
        bad = bad.reshape(reading.N, k, reading.N, k).any((1, 3))
        if options.bad_pixels == "mask":
            mask = ~bad
            diffraction *= mask  # of a binned pixel that is bad in part
    scan = ScanData(
        diffraction,
        positions[:, 1],
        positions[:, 0],
        probe.astype(np.complex64),
        image.astype(np.complex64),
        scan_index=raw.extra.get("scan_index"),
        groups=raw.extra.get("groups"),
        truth_patches=kept.get("Y"),
        detector_mask=mask,
        extra={key: value for key, value in kept.items() if key not in _KNOWN},
    )
    asked = options.orientation
    choice = OrientationChoice(asked, f"positions are {asked}, as asked")
    if asked == "auto":
        choice = find_orientation(scan, raw.source, known)
    if choice.chosen != "as-given":
        scan = turned(scan, choice.chosen, known)
    if bad.any() and mask is None:
        scan.extra["bad_pixels"] = bad
    stale = DOSE_KEYS if changed else ()
    about = {key: value for key, value in raw.metadata.items() if key not in stale}
    about.setdefault("photons_per_exposure", photons)
    if pixel_m:
        about["object_pixel_nm"] = pixel_m * 1e9
    stated = about.get("object_kind", "reconstruction") if known else "initial"
    about["object_kind"] = options.object_kind or stated
    about["probe_kind"] = options.probe_kind or about.get("probe_kind", "initial")
    about["import"] = {
        "source": raw.source.name,
        "format": raw.format,
        **asdict(reading),
        "orientation": choice.chosen,
        "deviance": choice.deviance,
        "probe_scaled_by": scaled,
        "left_out": sorted(raw.extra.keys() - kept.keys() - {"scan_index", "groups"}),
    }
    scan = replace(scan, metadata=about)
    check_scan(scan, raw.source)
    return scan, choice


def _probe_for(
    raw: RawScan, reading: frames.Reading, photons: float, options: ImportOptions
) -> tuple[np.ndarray, float]:
    """The probe on the patterns' grid, and the factor that brought its power to photons."""
    probe, origin = raw.probe, options.probe or raw.source
    if options.probe:
        with open_npz(options.probe) as archive:
            key = need(archive, "a probe (N, N) or (modes, N, N)", "probeGuess", "probe")
            probe = as_modes(archive, key)
    if probe is None:
        text = f"a {raw.format} file without a probe; expected a probe to start from; pass --probe"
        text += " FILE.npz with an array probeGuess, such as another scan of the same beam"
        raise raw.refused(text)
    if not (np.abs(probe) < MOST).all() or not probe.any():
        found = "values that are not finite, or all 0"
        raise refused(origin, "probe", f"{found}; expected a probe; give one: --probe FILE.npz")
    size, N = probe.shape[-1], reading.N
    if size not in (reading.frame_px, N) or size == reading.frame_px > raw.detector_px[0]:
        text = f"{size} px; expected {reading.frame_px} px as the frames, or {N} px as the patterns"
        text += " made of them; give one on either grid: --probe FILE.npz"
        raise refused(origin, "probe", text)
    probe = frames.probe_on_grid(probe, reading) if size == reading.frame_px else probe
    power = float((np.abs(probe) ** 2).sum())
    if raw.ours and not options.probe or photons / SCALE <= power <= photons * SCALE:
        return probe, 1.0
    if not power > 0:
        text = "no power on the cropped detector; expected a probe that reaches it; correct --crop"
        raise raw.refused(text, "probe")
    return probe * (photons / power) ** 0.5, (photons / power) ** 0.5


def _positions_for(
    raw: RawScan, reading: frames.Reading, pixel_m: float | None, options: ImportOptions
) -> np.ndarray:
    """Positions (n, 2) as (y, x) in pixels of the result, from the file's origin."""
    unit = options.position_unit or raw.position_unit
    if unit != "px" and pixel_m is None:
        text = f"positions in {unit}, and no size of the object's pixel; expected energy, distance"
        text += " and detector pixel in the file; pass --pixel-size-nm: wavelength x distance /"
        raise raw.refused(f"{text} (frame width x detector pixel)")
    if not (np.abs(raw.positions) < MOST).all():
        text = "positions that are not finite; expected one for each pattern; measure or leave out"
        raise raw.refused(f"{text} these")
    positions = raw.positions * (reading.ratio if unit == "px" else UNITS_M[unit] / pixel_m)
    span = np.ptp(positions, axis=0)
    if raw.n > 1 and span.max() < 1 or (span + reading.N).prod() > MOST_CANVAS_PX:
        text = f"positions that span {span[0]:.3g} x {span[1]:.3g} px (read as {unit}); expected"
        text += f" between 1 px and an object of {MOST_CANVAS_PX} px; say --position-unit m, um, nm"
        raise raw.refused(f"{text} or px, and --pixel-size-nm")
    return positions


def _object_for(
    raw: RawScan, reading: frames.Reading, positions: np.ndarray, options: ImportOptions
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
        image = frames.object_on_grid(image, reading)
    return positions + np.asarray(raw.offset_px) * reading.ratio, image, known
