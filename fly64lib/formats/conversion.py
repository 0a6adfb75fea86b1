"""From a raw scan to DATA-001: patterns, probe, positions and object on one grid, in the
orientation that the forward model agrees with, and a record of what was decided."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fly64lib.formats.frames import Frames, Reading, decide, look, patterns, window
from fly64lib.formats.options import ImportOptions
from fly64lib.formats.orientation import OrientationChoice, find_orientation, turned
from fly64lib.formats.pixel_grid import object_for, object_pixel_m, positions_for, probe_for
from fly64lib.formats.raw import RawScan
from ptycho_torch.data.checks import mean_photons
from ptycho_torch.data.contract import check_scan
from ptycho_torch.data.scan import KEYS, ScanData


def converted(
    raw: RawScan, work: Path, options: ImportOptions
) -> tuple[ScanData, OrientationChoice]:
    """The scan, with patterns in a file of the folder `work`, and how its orientation was found."""
    frames = look(raw)
    reading = decide(raw, frames, options)
    bad = _bad_pixels(raw, frames, reading, options)
    diffraction = _stored_patterns(raw, reading, frames.bad, work / "patterns.npy")
    photons = mean_photons(diffraction)
    if not photons > 0:
        raise raw.refused(
            "no photon in the cropped square; expected the beam inside; correct --crop or --centre"
        )
    probe, scaled = probe_for(raw, reading, photons, options)
    pixel_m = object_pixel_m(raw, reading, options)
    positions = positions_for(raw, reading, pixel_m, options)
    positions, image, known = object_for(raw, reading, positions, options)
    changed = raw.detector_px != (reading.N, reading.N)
    kept = {} if changed else raw.extra  # extra arrays are on the frame's grid, or perhaps
    known_keys = {row.name for row in KEYS}
    scan = ScanData(
        diffraction,
        positions[:, 1],
        positions[:, 0],
        probe.astype(np.complex64),
        image.astype(np.complex64),
        scan_index=raw.extra.get("scan_index"),
        groups=raw.extra.get("groups"),
        truth_patches=kept.get("Y"),
        extra={key: value for key, value in kept.items() if key not in known_keys},
    )
    if options.orientation == "auto":
        choice = find_orientation(scan, raw.source, known)
    else:
        reason = f"positions are {options.orientation}, as asked"
        choice = OrientationChoice(options.orientation, reason)
    if choice.chosen != "as-given":
        scan = turned(scan, choice.chosen, known)
    if bad.any():
        k = reading.bin
        scan.extra["bad_pixels"] = bad.reshape(reading.N, k, reading.N, k).any((1, 3))
    stale = ("dose", "photons_per_exposure") if changed else ()
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


def _bad_pixels(
    raw: RawScan, frames: Frames, reading: Reading, options: ImportOptions
) -> np.ndarray:
    """Bad pixels (crop, crop) within the cropped square; refused unless they may count nothing."""
    bad = window(frames.bad, reading)
    if bad.any() and options.bad_pixels != "zero":
        raise raw.refused(
            f"{int(bad.sum())} bad pixels ({frames.masked} by the file's mask, the others negative,"
            " not finite or saturated in some pattern); expected photon counts in every pixel; crop"
            " them away, or pass --bad-pixels zero to count nothing there",
        )
    return bad


def _stored_patterns(raw: RawScan, reading: Reading, bad: np.ndarray, path: Path) -> np.ndarray:
    """Patterns (n, N, N) float32 in a mapped file, which may be larger than memory."""
    shape = (raw.n, reading.N, reading.N)
    stored, first = np.lib.format.open_memmap(path, "w+", np.float32, shape), 0
    for block in patterns(raw, reading, bad):
        stored[first : first + len(block)] = block
        first += len(block)
    return stored
