"""`fly64 check FILE`: is this scan fit for a reconstruction, and if not, what is wrong with it.

    fly64 check scan.npz [--picture scan_check.png] [--json]

Exit code 0: nothing found; 1: a warning, the file can be used; 2: the file breaks DATA-001 or
cannot be read. The contract is checked first; what it lets pass is measured. Every threshold is a
constant here or in :mod:`ptycho_torch.data.count_statistics`; a warning is a reason to look at the
picture, not a judgement on the science."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from scipy.spatial import Delaunay, QhullError

from fly64lib.plots.figures import saved
from fly64lib.simulation.overlap_measures import fluence_map, geometry_figures, nearest_distances
from fly64lib.simulation.probes import outer_half_maximum_diameter
from ptycho_torch.data.contract import ScanData, read_scan
from ptycho_torch.data.count_statistics import (
    CountStatistics,
    centre_offset,
    count_statistics,
    dead_pixels,
    hot_pixels,
    saturation,
)
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.files import json_text
from ptycho_torch.physics import optics
from ptycho_torch.physics.noise import perfect_deviance, poisson_deviance
from ptycho_torch.physics.patches import cut, on_canvas, split_positions

GOOD, WARNINGS, BROKEN = 0, 1, 2  # exit codes
NEIGHBOURS = 7  # K of the overlap figures
SAMPLE = 128  # patterns that are calculated from the file's object and probe
DOSE_FACTOR = 1.5  # between the photons of the patterns and those of the probe
UNEVEN_FACTOR, UNEVEN_SIGMA = 2.0, 10.0  # of a pattern's photons to the median's
OFFSET_PX = 0.5  # of the beam from where the file's probe puts it
FAR_SHARE = 0.05  # of images without another one within D / 2
EXPLAINED, ALIKE = (
    0.5,
    0.05,
)  # share of the deviance between patterns; of a perfect model's, below which there is none
DARK, HOLE_PX = 0.1, 16  # of the median fluence; smallest hole in the coverage, object pixels


@dataclass(frozen=True)
class Verdict:
    """One line of the examination; `values` are its numbers for scripts."""

    what: str
    good: bool
    found: str
    values: dict
    advice: str = ""  # what to do, where it is not good


@dataclass(frozen=True, eq=False)
class Examination:
    """Everything that was measured of a file that keeps the contract."""

    source: Path
    scan: ScanData
    counts: CountStatistics
    dead: np.ndarray  # (k, 2) row, column
    hot: np.ndarray
    model: np.ndarray  # (N, N) mean pattern calculated from object and probe
    fluence: np.ndarray  # (H, W) photons per object pixel
    inside: np.ndarray  # (H, W) bool: within the convex hull of the positions
    holes: np.ndarray  # (H, W) bool
    diameter_px: float | None
    verdicts: list[Verdict]

    @property
    def exit_code(self) -> int:
        return GOOD if all(verdict.good for verdict in self.verdicts) else WARNINGS

    def text(self) -> str:
        """A line per verdict, and under a warning what to do."""
        return "\n".join(
            f"{'ok  ' if one.good else 'look'} {one.what}: {one.found}"
            + ("" if one.good else f"\n       to do: {one.advice}")
            for one in self.verdicts
        )

    def to_dict(self) -> dict:
        """Plain values for scripts."""
        verdicts = [
            asdict(one) | {"advice": "" if one.good else one.advice} for one in self.verdicts
        ]
        return {"file": str(self.source), "exit_code": self.exit_code, "verdicts": verdicts}


def examine(path: str | Path, cache_dir: str | Path | None = None) -> Examination:
    """Check a DATA-001 file. Raises DataContractError where it breaks the contract."""
    scan, source = read_scan(path, cache_dir=cache_dir), Path(path)
    counts = count_statistics(scan.diffraction)
    positions = np.stack([scan.ycoords, scan.xcoords], axis=1)
    sample = np.unique(np.linspace(0, scan.n - 1, min(SAMPLE, scan.n)).astype(int))
    measured = np.square(np.asarray(scan.diffraction[sample]), dtype=np.float64)
    modelled = _calculated(scan, positions[sample])
    model = modelled.mean(0)
    dead, hot = dead_pixels(counts, model), hot_pixels(counts, model)
    fluence = fluence_map(positions, scan.probe, scan.canvas_shape)
    inside = _hull(positions, scan.canvas_shape)
    holes, sizes = _holes(fluence, inside)
    diameter, overlap = _overlap(scan, positions)
    verdicts = [
        _contract(scan),
        _whole(counts),
        _dose(scan, counts),
        _even(counts),
        _saturation(counts),
        _pixels("dead", dead, counts),
        _pixels("hot", hot, counts),
        _beam(measured.mean(0), model),
        _explained(scan, measured, modelled),
        overlap,
        _coverage(fluence, inside, holes, sizes),
    ]
    return Examination(
        source, scan, counts, dead, hot, model, fluence, inside, holes, diameter, verdicts
    )


def _contract(scan: ScanData) -> Verdict:
    kinds = {
        name: scan.metadata.get(f"{name}_kind", "of unstated kind") for name in ("object", "probe")
    }
    found = (
        f"DATA-001: {scan.n} patterns of {scan.N} x {scan.N} px, object of {scan.canvas_shape[0]} x"
        f" {scan.canvas_shape[1]} px ({kinds['object']}), {scan.modes} probe"
        f" mode{'s' * (scan.modes > 1)} ({kinds['probe']})"
    )
    return Verdict(
        "contract", True, found, {"patterns": scan.n, "N": scan.N, "modes": scan.modes, **kinds}
    )


def _whole(counts: CountStatistics) -> Verdict:
    return Verdict(
        "photons",
        counts.not_whole == 0,
        f"{100 * (1 - counts.not_whole):.4g} % of diffraction^2 are whole numbers",
        {"not_whole": counts.not_whole},
        "training and reconstruction refuse what is not a count: undo the scaling or "
        "the background subtraction, or draw counts from the expectation",
    )


def _dose(scan: ScanData, counts: CountStatistics) -> Verdict:
    summary, probe = counts.summary(), float(np.square(np.abs(scan.probe), dtype=np.float64).sum())
    found = (
        f"{summary['photons_mean']:.4g} photons per exposure, up to"
        f" {summary['brightest_pixel']:.0f} in a pixel,"
        f" {100 * summary['share_of_empty_pixels']:.3g} % of the pixels empty; the probe brings"
        f" {probe:.4g}"
    )
    return Verdict(
        "dose",
        1 / DOSE_FACTOR < probe / summary["photons_mean"] < DOSE_FACTOR,
        found,
        summary | {"probe_photons": probe},
        "the probe carries the photon scale, and every method trusts it: scale "
        "probeGuess by the root of the ratio, unless the object absorbs or amplifies that much",
    )


def _even(counts: CountStatistics) -> Verdict:
    photons, median = counts.photons, float(np.median(counts.photons))
    off = (photons < median / UNEVEN_FACTOR) | (photons > median * UNEVEN_FACTOR)
    off = np.flatnonzero(off & (np.abs(photons - median) > UNEVEN_SIGMA * np.sqrt(median)))
    named = ", ".join(map(str, off[:5])) + (", ..." if len(off) > 5 else "")
    found = (
        f"patterns of {photons.min():.4g} to {photons.max():.4g} photons"
        if not len(off)
        else (
            f"{len(off)} patterns are off the median of {median:.4g} photons by more than"
            f" {UNEVEN_FACTOR:g} times: {named}"
        )
    )
    return Verdict(
        "exposures",
        not len(off),
        found,
        {"uneven": off.tolist()},
        "shutter, beam loss or a double exposure? leave these patterns out of the file",
    )


def _saturation(counts: CountStatistics) -> Verdict:
    piled = saturation(counts)
    found = (
        f"none up to {counts.values[-1]:.0f} photons"
        if piled is None
        else (f"{piled[1]} values pile up at the largest count, {piled[0]:.0f}")
    )
    return Verdict(
        "saturation",
        piled is None,
        found,
        {"level": piled and piled[0], "values": piled[1] if piled else 0},
        "counts there are lower bounds, which the Poisson likelihood takes for measurements:"
        " attenuate the beam, expose shorter, or move the beam stop",
    )


def _pixels(kind: str, where: np.ndarray, counts: CountStatistics) -> Verdict:
    named = ", ".join(f"[{row}, {column}]" for row, column in where[:5]) + (
        ", ..." if len(where) > 5 else ""
    )
    found = f"{len(where)}: {named}" if len(where) else "none"
    if not len(where) and kind == "dead" and (never := int((counts.mean == 0).sum())):
        found = f"none among lit ones; {never} pixels in the dark saw no photon at all"
    return Verdict(
        f"{kind} pixels",
        not len(where),
        found,
        {"pixels": where.tolist()},
        "rows and columns of patterns; there is no mask in DATA-001: give these pixels the rounded"
        " mean count of their neighbours, and say so in the metadata",
    )


def _beam(measured: np.ndarray, model: np.ndarray) -> Verdict:
    rows, columns = centre_offset(measured, model)
    middle = [
        float((axis * measured).sum() / measured.sum()) - len(measured) // 2
        for axis in np.indices(measured.shape)
    ]
    return Verdict(
        "beam centre",
        max(abs(rows), abs(columns)) <= OFFSET_PX,
        f"{rows:+.2f} rows, {columns:+.2f} columns off the probe's own pattern; centre of mass at"
        f" {middle[0]:+.2f}, {middle[1]:+.2f} from pixel N // 2",
        {"offset_px": [rows, columns], "centre_of_mass_px": middle},
        "zero frequency belongs on pixel N // 2: crop the patterns from the detector about the"
        " beam, by whole pixels (a rest below a pixel is a ramp on the probe)",
    )


def _explained(scan: ScanData, measured: np.ndarray, modelled: np.ndarray) -> Verdict:
    """How much of what tells the patterns apart the file's own object, probe and positions explain.

    Each measured pattern is compared with the one calculated for it, and with that of a position
    half a scan away: of the Poisson deviance by which the second is worse than a perfect model, the
    share that the first does not have. 1: all; 0: the object might as well be another one. Both at
    the patterns' photons: the scale is the dose's business. Beside it R = sum |a - A| / sum a of
    amplitudes, the field's number."""
    calculated, counts = (
        torch.from_numpy(image) for image in (modelled * measured.sum() / modelled.sum(), measured)
    )
    R = float((counts.sqrt() - calculated.sqrt()).abs().sum() / counts.sqrt().sum())
    kind, values = scan.metadata.get("object_kind", "object"), {"R": R, "explained": None}
    own, other = (
        float(poisson_deviance(calculated, image).mean())
        for image in (counts, counts.roll(len(counts) // 2, 0))
    )
    least = float(perfect_deviance(calculated[::16]).mean())
    if (
        other - least < ALIKE * least
        or not np.ptp(scan.object_guess.view(np.float32).reshape(-1, 2), axis=0).any()
    ):
        return Verdict(
            "object",
            True,
            f"empty, or the patterns are too alike to tell ({kind}); R = {100 * R:.1f} % between "
            "measured and calculated amplitudes",
            values,
        )
    values["explained"] = explained = (other - own) / (other - least)
    return Verdict(
        "object",
        explained > EXPLAINED,
        f"the stored {kind} explains {100 * max(explained, 0):.0f} % of what tells "
        f"the patterns apart; R = {100 * R:.1f} % between measured and calculated amplitudes",
        values,
        "the file's object, probe, positions and patterns do not belong together: x and y swapped,"
        " patterns transposed or mirrored, the conjugate, or another scan's object",
    )


def _overlap(scan: ScanData, positions: np.ndarray) -> tuple[float | None, Verdict]:
    try:
        diameter = outer_half_maximum_diameter(scan.probe)
    except DataContractError as error:
        return None, Verdict(
            "overlap",
            False,
            str(error),
            {},
            "overlap needs the probe's diameter: give a probe that falls off "
            "within its window, from a larger crop of the detector if need be",
        )
    figures = geometry_figures(positions, scan.groups, diameter, NEIGHBOURS)
    nearest = nearest_distances(positions, 1)
    far = float((nearest > diameter / 2).mean()) if nearest.size else 1.0
    between = figures["between_images"]
    found = (
        "a single image"
        if between["mean_disc_overlap"] is None
        else (
            f"{between['mean_disc_overlap']:.2f} of the disc with the {min(NEIGHBOURS, scan.n - 1)}"
            f" nearest images, the nearest {between['mean_nearest_px']:.1f} px away; probe D ="
            f" {diameter:.1f} px; {100 * far:.3g} % of the images have none within D / 2"
        )
    )
    return diameter, Verdict(
        "overlap",
        far <= FAR_SHARE,
        found,
        figures | {"share_far": far},
        "overlap is what makes the object unique: scan with steps below D / 2, or check that"
        " positions are in pixels of objectGuess",
    )


def _coverage(
    fluence: np.ndarray, inside: np.ndarray, holes: np.ndarray, sizes: list[tuple[int, int, int]]
) -> Verdict:
    density = float(fluence[inside].mean())
    found = (
        f"{density:.4g} photons per object pixel, no hole among the {int(inside.sum())} scanned"
        " pixels"
    )
    if sizes:
        area, row, column = max(sizes)
        found = (
            f"{len(sizes)} hole{'s' * (len(sizes) > 1)} with less than {DARK:g} of the median"
            f" fluence, {int(holes.sum())} of {int(inside.sum())} scanned pixels; the largest,"
            f" {area} px, about row {row}, column {column}"
        )
    return Verdict(
        "coverage",
        not sizes,
        found,
        {"photons_per_pixel": density, "holes": sizes},
        "nothing can be reconstructed there: scan these places, or leave them out of what is shown",
    )


def _calculated(scan: ScanData, positions: np.ndarray) -> np.ndarray:
    """Expected counts at some positions from the file's object and probe, (k, N, N)."""
    corners, residual = split_positions(torch.from_numpy(positions), scan.N)
    canvas, probe = (
        torch.from_numpy(np.ascontiguousarray(scan.object_guess))[None],
        torch.from_numpy(scan.probe),
    )
    found = [
        optics.expected_counts(
            cut(canvas, on_canvas(corner), scan.N), optics.shift_probe(probe, rest)
        )
        for corner, rest in zip(corners.split(16), residual.split(16), strict=True)
    ]
    return torch.cat(found).numpy().astype(np.float64)


def _hull(positions: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels within the convex hull of the positions; for positions on a line, those nearest to
    it."""
    grid = np.indices(shape).reshape(2, -1).T
    try:
        return (Delaunay(positions).find_simplex(grid) >= 0).reshape(shape)
    except (QhullError, ValueError):  # fewer than three positions, or all on a line
        inside = np.zeros(shape, bool)
        inside[tuple(np.clip(np.rint(positions).astype(int), 0, np.array(shape) - 1).T)] = True
        return inside


def _holes(
    fluence: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Dark regions of at least HOLE_PX within the scan, and (pixels, middle row, middle column) of
    each."""
    regions, _ = label(inside & (fluence < DARK * np.median(fluence[inside])))
    holes, sizes = np.zeros_like(inside), []
    for number, box in enumerate(find_objects(regions), 1):
        region = regions[box] == number
        if region.sum() >= HOLE_PX:
            holes[box] |= region
            sizes.append((int(region.sum()), *(int((side.start + side.stop) // 2) for side in box)))
    return holes, sizes


def check(path: str | Path, picture: str | Path | None = None, as_json: bool = False) -> int:
    """Examine a file, print the verdicts, draw the picture (default: FILE's name with _check.png,
    in this folder), and return the exit code."""
    from fly64lib.check.picture import draw

    picture = Path(picture or f"{Path(path).stem}_check.png")
    if picture.suffix != ".png" or picture.is_dir():
        raise ConfigError(f"picture {picture}: expected a name that ends in .png, and no folder")
    found = examine(path)
    saved(draw(found), picture)
    print(
        json_text(found.to_dict() | {"picture": str(picture)}, indent=2)
        if as_json
        else f"{found.text()}\npicture: {picture}"
    )
    return found.exit_code
