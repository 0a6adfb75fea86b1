"""From a raw scan to DATA-001: patterns, probe, positions and object on one pixel grid, in the
orientation that the forward model agrees with, and a record of what was decided."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from fly64lib.formats import frames
from fly64lib.formats.bad_values import Frames, judge, look
from fly64lib.formats.first_probe import first_probe, from_mean
from fly64lib.formats.fit import Step
from fly64lib.formats.options import ImportOptions
from fly64lib.formats.orientation import OrientationChoice, find_orientation, turned
from fly64lib.formats.outliers import outliers
from fly64lib.formats.raw import RawScan, as_modes, need
from fly64lib.formats.selection import counted_from, listed, selected
from fly64lib.formats.sizes import detector_step_per_m
from ptycho_torch.data.checks import DOSE_KEYS, mean_photons, pattern_chunks
from ptycho_torch.data.container import refused
from ptycho_torch.data.contract import check_scan
from ptycho_torch.data.npz import open_npz, release
from ptycho_torch.data.scan import KEYS, ScanData
from ptycho_torch.errors import DataContractError

UNITS_M = {"m": 1.0, "um": 1e-6, "nm": 1e-9}
MOST_CANVAS_PX, MARGIN_PX = 2**27, 2
PATCHES = 16  # of the object for each pattern, beyond which positions are in another unit
MOST = 1e15  # of an absolute value that is taken for a number
SCALE = 2.0  # a probe within this factor of the measured photons is in photons
_KNOWN = {row.name for row in KEYS}


def converted(
    raw: RawScan, work: Path, options: ImportOptions
) -> tuple[ScanData, OrientationChoice]:
    """The scan, with patterns in a file of the folder `work`, and how its orientation was found."""
    given = raw
    raw, either = counted_from(raw, options.first_number)
    raw = selected(raw, options.first, options.drop_patterns)
    seen = look(raw)
    reading = frames.decide(raw, seen, options)
    left_out = judge(raw, seen, options.bad_pixels, options.bad_values)
    bad = frames.window(left_out, reading)
    step = raw.detector_step_per_m
    if options.pixel_size_nm:
        step = 1e9 / (reading.frame_px * options.pixel_size_nm)
    else:
        step = detector_step_per_m(raw, options)
    pixel_m = 1 / (reading.crop * step) if step else None
    positions = _positions_for(raw, reading, pixel_m, options)
    notes = list(raw.notes)
    if len(seen.empty):
        text = f"patterns without a photon: {listed(seen.empty)}; leave them out:"
        notes.append(f"{text} --drop-patterns {listed(seen.empty)}")
    if seen.single.any() and options.bad_values == "zero":
        notes.append(f"{int(seen.single.sum())} bad single values are set to zero")
    # in a mapped file, which may be larger than memory
    shape, first = (raw.n, reading.N, reading.N), 0
    diffraction = np.lib.format.open_memmap(work / "patterns.npy", "w+", np.float32, shape)
    for block in frames.patterns(raw, reading, left_out):
        diffraction[first : first + len(block)] = block
        first += len(block)
        release(diffraction)
    photons = mean_photons(diffraction)
    if not photons > 0:
        text = "no photon in the cropped square; expected the beam inside; correct --crop or"
        raise raw.refused(f"{text} --centre")
    guessed = options.first_probe or (raw.probe is None and options.probe is None)
    if guessed:
        if options.probe:
            text = "--probe and --first-probe; expected one of them; leave one out"
            raise raw.refused(text)
        probe, scaled = from_mean(_mean_counts(seen, reading, left_out), 0.0), 1.0
    else:
        probe, scaled = _probe_for(raw, reading, photons, options)
    positions, image, known = _object_for(raw, reading, positions, options)
    changed = raw.detector_px != (reading.N, reading.N)
    kept = {} if changed else raw.extra  # extra arrays are on the frame's grid, or perhaps
    mask = None
    if bad.any():
        k = reading.bin
        bad = bad.reshape(reading.N, k, reading.N, k).any((1, 3))
        if options.bad_pixels == "mask":
            mask = ~bad
            for _, block in pattern_chunks(diffraction):
                block *= mask  # of a binned pixel that is bad in part
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
    # where the mask is not kept, its zeros are no measurement either
    seeing = (
        replace(scan, detector_mask=~bad)
        if bad.any() and bad.shape == scan.probe.shape[1:]
        else scan
    )
    if guessed:
        probe, defocus = first_probe(seeing, _mean_counts(seen, reading, left_out))
        scan, seeing = replace(scan, probe=probe), replace(seeing, probe=probe)
        text = "no probe is known: a first one is made from the mean pattern, out of focus by"
        notes.append(f"{text} {defocus:g} of the window; fly64 probe recovers it from the counts")
    asked = options.orientation
    choice = OrientationChoice(asked, f"positions are {asked}, as asked")
    if asked == "auto":
        choice = find_orientation(seeing, raw.source, known, guessed)
        if either and choice.step == Step(1):
            text = "the positions' numbers count patterns from 1: so they fit, and from 0 they do"
            given = replace(given, notes=[*given.notes, f"{text} not"])
            return converted(given, work, replace(options, first_number=1))
        if choice.step:
            raise _out_of_step(raw, choice, options.first_number or 0)
    if either and (choice.fit is None or choice.fit.share is None):
        text = f"positions numbered from 1 to {given.held} for {given.held} patterns, and nothing"
        text += " tells whether the first pattern is 0 or 1; expected one of them; say which:"
        raise raw.refused(f"{text} --first-number 0, or --first-number 1")
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
    if guessed:
        about["probe_kind"] = "initial"
    about["probe_kind"] = options.probe_kind or about.get("probe_kind", "initial")
    about["import"] = {
        "source": raw.source.name,
        "format": raw.format,
        **asdict(reading),
        "orientation": choice.chosen,
        "deviance": choice.deviance,
        "fit": None if choice.fit is None else asdict(choice.fit),
        "frame": list(raw.detector_px),
        "notes": notes,
        "probe_scaled_by": scaled,
        "left_out": sorted(raw.extra.keys() - kept.keys() - {"scan_index", "groups"}),
    }
    scan = replace(scan, metadata=about)
    check_scan(scan, raw.source)
    return scan, choice


def _out_of_step(raw: RawScan, choice: OrientationChoice, first: int) -> DataContractError:
    """What to do where patterns fit better at other positions."""
    by, of = choice.step.by, choice.step.of
    which = "each pattern fits" if of is None else f"patterns {of[0]} to {of[1]} fit"
    text = f"{which} better {abs(by)} position{'s' * (abs(by) > 1)} {'on' if by > 0 else 'back'}"
    text += f" ({choice.fit.text()}); expected the best fit at its own;"
    if of is None:
        text += f" move them: --first-number {first + by};"
    else:
        text += " was a frame or a position lost on the way? give each position the number of its"
        text += " pattern (--numbers-key KEY, probe_position_indexes);"
    return raw.refused(f"{text} or take them as they are: --orientation as-given")


def _mean_counts(seen: Frames, reading: frames.Reading, bad: np.ndarray) -> np.ndarray:
    """Mean counts (N, N) of the patterns, bad pixels 0."""
    mean = np.where(bad, 0, seen.mean)
    mean = frames.window(mean**2 if reading.values == "amplitude" else mean, reading)
    k, N = reading.bin, reading.N
    return mean.reshape(N, k, N, k).sum((1, 3)) * reading.photons_per_unit


def _probe_for(
    raw: RawScan, reading: frames.Reading, photons: float, options: ImportOptions
) -> tuple[np.ndarray, float]:
    """The probe on the patterns' grid, and the factor that brought its power to photons."""
    probe, origin = raw.probe, options.probe or raw.source
    if options.probe:
        with open_npz(options.probe) as archive:
            key = need(archive, "a probe (N, N) or (modes, N, N)", "probeGuess", "probe")
            probe = as_modes(archive, key)
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
    most = min(MOST_CANVAS_PX, PATCHES * raw.n * reading.N**2)
    span = np.ptp(positions, axis=0)
    far = outliers(positions, reading.N)
    if len(far):
        at = ", ".join(f"{place:.4g}" for place in positions[far[0]] - np.median(positions, axis=0))
        numbers = far if raw.kept is None else np.flatnonzero(raw.kept)[far]
        text = f"{len(far)} of {raw.n} positions lie apart from all others: number"
        text += f" {listed(numbers)}, the first ({at}) px from the middle; expected patches that"
        text += f" touch; correct them, or leave them out: --drop-patterns {listed(numbers)}"
        raise raw.refused(text)
    if raw.n > 1 and span.max() < 1 or (span + reading.N).prod() > most:
        text = f"positions that span {span[0]:.3g} x {span[1]:.3g} px (read as {unit}); expected"
        text += f" between 1 px and an object of {most} px, {PATCHES} patches a pattern; say"
        raise raw.refused(f"{text} --position-unit m, um, nm or px, and --pixel-size-nm")
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
