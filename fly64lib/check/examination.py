"""What a scan is judged by: one function a check, with its thresholds and what to do about a
warning.

A warning is a reason to look at the picture, not a judgement on the science. A new check is one
function, its name in :data:`CHECKS` and its advice in :data:`ADVICE`. Thresholds of what is marked
in the picture stand where it is measured: in :mod:`fly64lib.check.measurements` and
:mod:`ptycho_torch.data.count_statistics`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fly64lib.check.measurements import DARK, UNEVEN_FACTOR, Measurements
from fly64lib.formats.fit import GOOD, UNEXPLAINED
from fly64lib.simulation.overlap_measures import geometry_figures
from ptycho_torch.data.contract import read_scan
from ptycho_torch.physics.noise import amplitude_misfit, perfect_deviance, poisson_deviance

NEIGHBOURS = 7  # K of the overlap figures
DOSE_FACTOR = 1.5  # between the photons of the patterns and those of the probe
OFFSET_PX = 0.5  # of the beam from where the file's probe puts it
FAR_SHARE = 0.05  # of images without another one within D / 2
EXPLAINED = 0.5  # share of the deviance between patterns
EXCESS = 0.1  # R that is left when what counting alone explains is taken off, by squares
ALIKE = 0.05  # of a perfect model's deviance, below which there is none between patterns
ADVICE = {  # with a warning of a check that gives no other itself
    "photons": "training and reconstruction refuse what is not a count: undo the scaling or the"
    " background subtraction, or draw counts from the expectation",
    "dose": "the probe carries the photon scale, and every method trusts it: scale probeGuess by"
    " the root of the ratio, unless the object absorbs or amplifies that much",
    "exposures": "shutter, beam loss or a double exposure? leave these patterns out of the file",
    "saturation": "counts there are lower bounds, which the Poisson likelihood takes for"
    " measurements: attenuate the beam, expose shorter, or move the beam stop",
    "object": "the file's object, probe, positions and patterns do not belong together: x and y"
    " swapped, patterns transposed or mirrored, the conjugate, or another scan's object; where it"
    " explains much and R is large, positions or probe are off: fly64 probe SRC.npz DST.npz"
    " --unknown positions",
    "positions": "patterns and positions do not belong together, or are off by a pixel or more: are"
    " they in one order, in the right unit, of one scan? import the source again with what its file"
    " says of it; small errors are found by fly64 probe SRC.npz DST.npz --unknown positions",
    "overlap": "overlap is what makes the object unique: scan with steps below D / 2, or check"
    " that positions are in pixels of objectGuess",
    "coverage": "nothing can be reconstructed there: scan these places, or leave them out of what"
    " is shown",
}


@dataclass(frozen=True)
class Verdict:
    """One line of the examination; `values` are its numbers for scripts."""

    good: bool
    found: str
    values: dict
    advice: str = ""  # what to do, where it is not good


def contract(of: Measurements) -> Verdict:
    """A file that can be examined keeps it."""
    scan, about = of.scan, of.scan.metadata
    kinds = {name: about.get(f"{name}_kind", "of unstated kind") for name in ("object", "probe")}
    values = {"patterns": scan.n, "N": scan.N, "modes": scan.modes, **kinds}
    (height, width), modes = scan.canvas_shape, f"{scan.modes} probe mode{'s' * (scan.modes > 1)}"
    found = f"DATA-001: {scan.n} patterns of {scan.N} x {scan.N} px, object of {height} x {width}"
    found += f" px ({kinds['object']}), {modes} ({kinds['probe']})"
    return Verdict(True, found, values)


def whole_counts(of: Measurements) -> Verdict:
    """Counts are whole numbers."""
    share = of.counts.not_whole
    found = f"{100 * (1 - share):.4g} % of diffraction^2 are whole numbers"
    return Verdict(share == 0, found, {"not_whole": share})


def dose(of: Measurements) -> Verdict:
    """The probe has the measured photons."""
    summary, probe = of.counts.summary(), of.probe_photons
    mean, empty = summary["photons_mean"], 100 * summary["share_of_empty_pixels"]
    found = f"{mean:.4g} photons per exposure, up to {summary['brightest_pixel']:.0f} in a pixel,"
    found += f" {empty:.3g} % of the pixels empty; the probe brings {probe:.4g}"
    good = 1 / DOSE_FACTOR < probe / mean < DOSE_FACTOR
    return Verdict(good, found, summary | {"probe_photons": probe})


def even_exposures(of: Measurements) -> Verdict:
    """No pattern is far off the median's photons."""
    photons, off = of.counts.photons, of.uneven
    found = f"patterns of {photons.min():.4g} to {photons.max():.4g} photons"
    if len(off):
        found = f"{len(off)} patterns are off the median of {np.median(photons):.4g} photons by"
        found += f" more than {UNEVEN_FACTOR:g} times: {_first_five(off)}"
    return Verdict(not len(off), found, {"uneven": off.tolist()})


def unsaturated(of: Measurements) -> Verdict:
    """Counts do not pile up at the largest one."""
    if of.saturated is None:
        found = f"none up to {of.counts.values[-1]:.0f} photons"
        return Verdict(True, found, {"level": None, "values": 0})
    level, values = of.saturated
    found = f"{values} values pile up at the largest count, {level:.0f}"
    return Verdict(False, found, {"level": level, "values": values})


def dead_pixels(of: Measurements) -> Verdict:
    """No pixel sees nothing where its neighbours are lit."""
    never = int((of.counts.mean == 0).sum())
    dark = f" among lit ones; {never} pixels in the dark saw no photon at all" if never else ""
    return _pixels(of.dead, f"none{dark}")


def hot_pixels(of: Measurements) -> Verdict:
    """No pixel stands out of its neighbours."""
    return _pixels(of.hot, "none")


def beam_centre(of: Measurements) -> Verdict:
    """The beam is where the file's probe and object put it."""
    (rows, columns), mean = of.offset_px, of.measured.mean(0)
    moments = [(axis * mean).sum() for axis in np.indices(mean.shape)]
    middle = [float(moment / mean.sum()) - len(mean) // 2 for moment in moments]
    found = f"{rows:+.2f} rows, {columns:+.2f} columns off the probe's own pattern; centre of mass"
    found += f" at {middle[0]:+.2f}, {middle[1]:+.2f} from pixel N // 2"
    values = {"offset_px": [rows, columns], "centre_of_mass_px": middle}
    advice = "zero frequency belongs on pixel N // 2: import the source again about the beam, by"
    advice += f" whole pixels: {_about_beam(of)}"
    return Verdict(max(abs(rows), abs(columns)) <= OFFSET_PX, found, values, advice)


def _about_beam(of: Measurements) -> str:
    """Options of the import that put the beam on pixel N // 2."""
    done = of.scan.metadata.get("import")
    if not (isinstance(done, dict) and {"centre_px", "bin", "frame", "crop"} <= done.keys()):
        return "fly64 import SRC DST.npz --centre ROW COLUMN --crop N"
    moved = [round(offset * done["bin"]) for offset in of.offset_px]
    at = [int(old + more) for old, more in zip(done["centre_px"], moved, strict=True)]
    room = min(2 * min(here, edge - here) for here, edge in zip(at, done["frame"], strict=True))
    crop = min(done["crop"], room) // (2 * done["bin"]) * 2 * done["bin"]
    return f"--centre {at[0]} {at[1]} --crop {crop}"


def positions(of: Measurements) -> Verdict:
    """Patterns and positions belong together: an object fitted to neighbours explains them, as far
    as counts allow, and no position lies apart from the scan."""
    fit, apart = of.fit, of.outliers
    values = asdict(fit) | {"share": fit.share, "outliers": apart.tolist(), "scale": of.scale}
    values["position_error_px"] = of.position_error
    if len(apart):
        row, column = of.scan.positions[apart[0]]
        found = f"{len(apart)} positions lie apart from all others: {_first_five(apart.tolist())};"
        found += f" the first at row {row:.0f}, column {column:.0f}"
        numbers = ",".join(map(str, apart[:20]))
        advice = f"import the source again without them: --drop-patterns {numbers}"
        return Verdict(False, found, values, advice)
    where = "" if of.scan.n <= 2 else f"patterns {fit.patterns[0]} to {fit.patterns[1]}: "
    if of.scale:
        found = f"{where}{fit.text()}; times {of.scale:g} the positions fit clearly better"
        advice = "the object's pixel, or the positions' unit, is off by about that factor: import"
        advice += " the source again with the right --energy-kev, --distance-m and"
        advice += " --detector-pixel-um, or --pixel-size-nm"
        return Verdict(False, found, values, advice)
    # of patterns in another order free positions explain more too, and are no cure
    if of.position_error and fit.share > UNEXPLAINED:
        found = f"{where}{fit.text()}; positions that may move explain much more, some"
        found += f" {of.position_error:.1f} px (rms) from where they are stated"
        advice = "let them be found along with the beam: fly64 probe --unknown positions, or"
        advice += " affine for a scale, rotation or shear of the whole scan"
        return Verdict(False, found, values, advice)
    if fit.apart and fit.share > GOOD:
        first, last = fit.apart.of
        advice = "a frame lost, taken twice or numbered wrongly on the way, or a beam that moved?"
        advice += " Bring positions and patterns in step, or leave out those that are not:"
        advice += f" fly64 import SRC DST.npz --drop-patterns {first}-{last}"
        return Verdict(False, where + fit.text(), values, advice)
    return Verdict(fit.share is None or fit.share > GOOD, where + fit.text(), values)


def explained(of: Measurements) -> Verdict:
    """How much of what tells the patterns apart the file's own object, probe and positions explain.

    Each measured pattern is compared with the one calculated for it, and with that of a position
    half a scan away: of the Poisson deviance by which the second is worse than a perfect model, the
    share that the first does not have. 1: all; 0: the object might as well be another one. Both at
    the patterns' photons: the scale is the dose's business. Beside it R = sum |a - A| / sum a of
    amplitudes, the field's number: what counting alone makes of it is taken off."""
    scaled = of.modelled * of.measured.sum() / of.modelled.sum()
    calculated, counts = torch.from_numpy(scaled), torch.from_numpy(of.measured)
    own, drawn, whole = amplitude_misfit(calculated, counts, torch.Generator().manual_seed(0))
    R, by_counting = own / whole, drawn / whole
    kind = of.scan.metadata.get("object_kind", "object")
    amplitudes = f"R = {100 * R:.1f} % between measured and calculated amplitudes,"
    amplitudes += f" {100 * by_counting:.1f} % by counting alone"
    values = {"R": R, "R_counts": by_counting}
    places = counts, counts.roll(len(counts) // 2, 0)
    own, other = (float(poisson_deviance(calculated, image).mean()) for image in places)
    least = float(perfect_deviance(calculated[::16]).mean())
    empty = not np.ptp(of.scan.object_guess.view(np.float32).reshape(-1, 2), axis=0).any()
    if empty or other - least < ALIKE * least:
        found = f"empty, or the patterns are too alike to tell ({kind}); {amplitudes}"
        return Verdict(True, found, values | {"explained": None})
    share = (other - own) / (other - least)
    percent = f"{100 * max(share, 0):.0f} %"
    found = f"the stored {kind} explains {percent} of what tells the patterns apart; {amplitudes}"
    good = share > EXPLAINED and max(R**2 - by_counting**2, 0) ** 0.5 < EXCESS
    return Verdict(good, found, values | {"explained": share})


def overlap(of: Measurements) -> Verdict:
    """Nearly every image has another one within half a probe."""
    diameter = of.diameter_px
    if diameter is None:
        advice = "overlap needs the probe's diameter: give a probe that falls off within its window"
        larger = "from a larger crop of the detector if need be"
        return Verdict(False, of.no_edge, {}, f"{advice}, {larger}")
    figures = geometry_figures(of.scan.positions, of.scan.groups, diameter, NEIGHBOURS)
    far = float((of.nearest_px > diameter / 2).mean()) if of.nearest_px.size else 1.0
    between, found = figures["between_images"], "a single image"
    if between["mean_disc_overlap"] is not None:
        K, nearest_px = min(NEIGHBOURS, of.scan.n - 1), between["mean_nearest_px"]
        found = f"{between['mean_disc_overlap']:.2f} of the disc with the {K} nearest images, the"
        found += f" nearest {nearest_px:.1f} px away; probe D = {diameter:.1f} px;"
        found += f" {100 * far:.3g} % of the images have none within D / 2"
    return Verdict(far <= FAR_SHARE, found, figures | {"share_far": far})


def coverage(of: Measurements) -> Verdict:
    """No hole in the fluence within the hull of the positions."""
    density, scanned = float(of.fluence[of.inside].mean()), int(of.inside.sum())
    holes, sizes = of.holes
    found = f"{density:.4g} photons per object pixel, no hole among the {scanned} scanned pixels"
    if sizes:
        area, row, column = max(sizes)
        found = f"{len(sizes)} hole{'s' * (len(sizes) > 1)} with less than {DARK:g} of the median"
        found += f" fluence, {int(holes.sum())} of {scanned} scanned pixels; the largest, {area}"
        found += f" px, about row {row}, column {column}"
    return Verdict(not sizes, found, {"photons_per_pixel": density, "holes": sizes})


def _pixels(where: np.ndarray, none: str) -> Verdict:
    named = [f"[{row}, {column}]" for row, column in where]
    found = f"{len(where)}: {_first_five(named)}" if named else none
    advice = "rows and columns of patterns: make them False in detector_mask and 0 in diffraction,"
    advice += " or import the source again with --bad-pixels mask, where it marks them"
    return Verdict(not named, found, {"pixels": where.tolist()}, advice)


def _first_five(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:5])) + (", ..." if len(items) > 5 else "")


CHECKS = {  # in the order of the report
    "contract": contract,
    "photons": whole_counts,
    "dose": dose,
    "exposures": even_exposures,
    "saturation": unsaturated,
    "dead pixels": dead_pixels,
    "hot pixels": hot_pixels,
    "beam centre": beam_centre,
    "positions": positions,
    "object": explained,
    "overlap": overlap,
    "coverage": coverage,
}


@dataclass(frozen=True, eq=False)
class Examination:
    """Measurements of a file that keeps the contract, and the verdict of every check."""

    of: Measurements
    verdicts: Mapping[str, Verdict]

    @property
    def exit_code(self) -> int:
        """0 without a warning, else 1; a file that breaks DATA-001 gives 2."""
        return int(not all(one.good for one in self.verdicts.values()))

    def text(self) -> str:
        """A line per verdict, and under a warning what to do."""
        return "\n".join(
            f"{'ok  ' if one.good else 'look'} {name}: {one.found}"
            + ("" if one.good else f"\n       to do: {one.advice}")
            for name, one in self.verdicts.items()
        )

    def to_dict(self) -> dict:
        """Plain values for scripts."""
        verdicts = [{"what": name, **asdict(one)} for name, one in self.verdicts.items()]
        return {"file": str(self.of.source), "exit_code": self.exit_code, "verdicts": verdicts}


def examine_scan(path: str | Path, cache_dir: str | Path | None = None) -> Examination:
    """Check a DATA-001 file. Raises DataContractError where it breaks the contract."""
    of, verdicts = Measurements(Path(path), read_scan(path, cache_dir=cache_dir)), {}
    for name, judge in CHECKS.items():
        one = judge(of)
        verdicts[name] = replace(one, advice="" if one.good else one.advice or ADVICE[name])
    return Examination(of, verdicts)
