"""Do these patterns belong to these positions? An absolute answer, without a stored object.

Where neighbouring patterns overlap they see the same object. An object and a correction of the
probe are fitted to neighbouring patterns, once as they are and once with the patterns dealt out
anew among the same positions. The first has to explain what tells the patterns apart: of the
deviance by which the second is worse than a perfect model, the *share* that the first does not
have. 1: all that the counts allow; 0: any other order would do as well. Beside it R = sum |a - A| /
sum a of amplitudes, and the R that counting alone would leave.

Shares measured: good scans 0.75 to 1, under one mode for several and under a wrong first probe too;
on the measured scan as given 0.90, positions off by 0.75 px rms 0.77 to 0.80, by 1.5 px 0.47 to
0.53, out of step by one 0.14, swapped 0.06. On a small scan of steps of 3 px out of step by one
leaves 0.58: neighbouring positions are tried as well."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np
import torch
from torch import Tensor

from fly64lib.formats.frames import Reading, probe_on_grid, window
from ptycho_torch.data.scan import ScanData
from ptycho_torch.iteration.canvas import canvas_steps, joint_steps
from ptycho_torch.iteration.exposures import Unknown, positions_of
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns
from ptycho_torch.physics.noise import amplitude_misfit, perfect_deviance, poisson_deviance

NEIGHBOURS, CHECK_PX, STEPS = 60, 64, 8
OF_EACH = 50  # patterns of each of three parts
JOINT = (24, 56)  # steps on object and probe: the first do for most scans
GOOD, UNEXPLAINED = 0.65, 0.5  # least share of a good scan; below this, it does not belong
FITTED = 1.15  # times a perfect deviance, within which nothing is left to explain
TELLING = 0.1  # of a perfect deviance, by which the order must matter
SEED = 0  # of the other order
MOST = 1e6  # of an object's amplitude, beyond which steps have diverged
# share above which none is looked for, gain from which one is there, fewest patterns that tell
SURE, BETTER, LEAST = 0.85, 0.1, 16
# of positions in pixels of another size
FACTORS = (0.5, 0.8, 1.25, 2.0)
# most that is left of the excess over a perfect deviance where other positions are right (a wrong
# quarter more of their size: 3 to 5 times as much on measured scans; a frame that was lost at 20 to
# 71 of 90 and is looked for within 5 patterns of that: 0 to 0.45 is left)
LEFT = 0.5
# likewise where positions are free to move; measured: right positions 0.93 to 1, under one mode for
# several too, off by 0.7 px rms 0.55, by 1.4 px 0.45, by 2 px on a small scan 0
FREED = 0.75
# patterns in a row; by how much less their share is than that of most rows where something broke
# (measured: up to 0.06 in good scans, 0.29 and more from the fifth pattern after a lost frame), and
# in units of the rows' scatter
ROW, DROP, SCATTERS = 5, 0.2, 5.0
MOST_PX, SEEN_PX = 0.5, 0.25  # that one moves at a time; rms by which right ones may seem off


@dataclass(frozen=True)
class Apart:
    """Patterns in a row that fit clearly worse than the others."""

    of: tuple[int, int]  # first and last
    share: float  # explained of what tells them apart


@dataclass(frozen=True)
class Fit:
    """How well a part of a scan fits together; per measured pixel."""

    deviance: float
    perfect: float  # deviance of a perfect model at these counts
    shuffled: float | None  # deviance of the patterns in another order; None: not needed
    R: float
    R_counts: float  # R of a perfect model at these counts
    patterns: tuple[int, int] = (0, 0)  # first and last that were looked at
    at: float | None = None  # about which share of the sequence; None: about the median position
    apart: Apart | None = None  # in this part, or in another one that was looked at

    @property
    def share(self) -> float | None:
        """Share of what tells the patterns apart that is explained; None: cannot be told."""
        if self.shuffled is None:
            return 1.0
        if self.shuffled - self.perfect < TELLING * self.perfect:
            return None
        return (self.shuffled - self.deviance) / (self.shuffled - self.perfect)

    def text(self) -> str:
        """The numbers in words."""
        share = self.share
        told = (
            "too few photons to tell" if share is None else f"{100 * max(0, min(share, 1)):.0f} %"
        )
        return (
            f"deviance {self.deviance:.2f} a pixel, {self.perfect:.2f} for a perfect model; R ="
            f" {100 * self.R:.1f} %, {100 * self.R_counts:.1f} % by counting alone; explained of"
            f" what tells the patterns apart: {told}{self._of_row()}"
        )

    def _of_row(self) -> str:
        if self.apart is None:
            return ""
        (first, last), share = self.apart.of, max(0, self.apart.share)
        return f", of patterns {first} to {last} {100 * share:.0f} %"


@dataclass(frozen=True)
class Step:
    """Patterns that fit clearly better at another position than their own."""

    by: int  # 1: at the next one, -1: at the one before, 2: at the next but one
    of: tuple[int, int] | None = None  # first and last of these patterns; None: all


@dataclass(frozen=True)
class Part:
    """Some patterns of a scan, cropped to CHECK_PX where the object's pixel is the detector's."""

    counts: Tensor  # (k, N, N)
    positions: np.ndarray  # (k, 2)
    probe: Tensor  # (modes, M, M)
    detector: Detector | None
    brightness: Tensor | None
    _reached: dict[tuple[int, bool], tuple[Patterns, Tensor]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def fitted(self, dealt: bool = False) -> tuple[Patterns, Tensor]:
        """Patterns, perhaps dealt out anew, and the canvas after the first steps."""
        M = self.probe.shape[-1]
        at = self.positions - self.positions.min(0) + M / 2 + 1
        shape = tuple(int(edge) + M // 2 + 3 for edge in at.max(0))
        of = {"detector": self.detector, "brightness": self.brightness}
        geometry = Geometry.of(torch.from_numpy(at), self.probe, shape, whole=True, **of)
        order = np.random.default_rng(SEED).permutation(len(at))
        counts = self.counts[torch.from_numpy(order)] if dealt else self.counts
        patterns = Patterns(geometry, counts.__getitem__)
        start = torch.ones(1, *shape, dtype=self.probe.dtype)
        return patterns, canvas_steps(patterns, start, STEPS)

    def reached(self, rounds: int = 1, dealt: bool = False) -> tuple[Patterns, Tensor]:
        """The same after so many rounds of joint steps. Made once."""
        if (rounds, dealt) not in self._reached:
            before = self.reached(rounds - 1, dealt) if rounds > 1 else self.fitted(dealt)
            self._reached[rounds, dealt] = _further(*before, JOINT[rounds - 1])
        return self._reached[rounds, dealt]

    def deviances(self, patterns: Patterns, canvas: Tensor) -> tuple[float, float]:
        """A canvas's, and that of a perfect model; per measured pixel."""

        def both(expected: Tensor, counts: Tensor) -> list[float]:
            parts = poisson_deviance(expected, counts), perfect_deviance(expected)
            return [*(float(part.sum(dtype=torch.float64)) for part in parts), expected.numel()]

        own, perfect, pixels = self._summed(both, patterns, canvas)
        return own / pixels, perfect / pixels

    def of_each(self, patterns: Patterns, canvas: Tensor) -> np.ndarray:
        """A canvas's of each pattern, per measured pixel."""
        pixels = (poisson_deviance(*pair) for pair in self._pairs(patterns, canvas))
        return torch.cat([part.double().flatten(1).mean(1) for part in pixels]).numpy()

    def misfit(self, patterns: Patterns, canvas: Tensor) -> tuple[float, float]:
        """R of a canvas, and R by counting alone."""
        generator = torch.Generator().manual_seed(SEED)

        def amplitudes(expected: Tensor, counts: Tensor) -> tuple[float, float, float]:
            return amplitude_misfit(expected, counts, generator)

        own, by_counting, whole = self._summed(amplitudes, patterns, canvas)
        return own / whole, by_counting / whole

    def _summed(
        self,
        figures: Callable[[Tensor, Tensor], Sequence[float]],
        patterns: Patterns,
        canvas: Tensor,
    ) -> np.ndarray:
        """Figures of expected and measured counts, over all patterns."""
        total = np.zeros(())
        for pair in self._pairs(patterns, canvas):
            total = total + figures(*pair)
        return total

    def _pairs(self, patterns: Patterns, canvas: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Expected and measured counts where these were measured, some patterns at a time."""
        geometry = patterns.geometry
        masked = self.detector is not None and self.detector.mask is not None
        seen = self.detector.mask if masked else slice(None)
        for chunk in geometry.chunks():
            expected = geometry.expected(canvas, chunk)[:, seen].clamp_min(0)
            yield expected, patterns.measured(chunk)[:, seen]


def part_of(scan: ScanData, about: np.ndarray | None = None, most: int = NEIGHBOURS) -> Part:
    """The `most` patterns nearest to a position, by default the median one."""
    near = nearest(scan, about, most)
    background, mask, counts = (
        scan.background,
        scan.detector_mask,
        np.asarray(scan.diffraction[near]),
    )
    probe, positions = scan.probe.astype(np.complex128), scan.positions[near].astype(np.float64)
    if scan.M == scan.N > CHECK_PX:
        small = Reading("amplitude", "centre", (scan.N // 2,) * 2, CHECK_PX, scan.N)
        probe, positions = probe_on_grid(probe, small), positions * small.ratio
        counts = window(counts, small)
        mask = None if mask is None else window(mask, small)
        background = None if background is None else window(background, small)
    detector = None
    if scan.M > scan.N or mask is not None or background is not None:
        held = [None if one is None else torch.from_numpy(one.copy()) for one in (mask, background)]
        detector = Detector(counts.shape[-1], *held)
    bright = None if scan.brightness is None else torch.from_numpy(scan.brightness[near].copy())
    squares = torch.from_numpy(np.square(counts, dtype=np.float32))
    return Part(squares, positions, torch.from_numpy(probe.astype(np.complex64)), detector, bright)


def nearest(scan: ScanData, about: np.ndarray | None, most: int) -> np.ndarray:
    """Numbers of the patterns nearest to a position, rising."""
    middle = np.median(scan.positions, axis=0) if about is None else about
    distance = np.hypot(*(scan.positions - middle).T)
    return np.sort(np.argsort(distance, kind="stable")[:most])


def fit_of(
    scan: ScanData,
    about: np.ndarray | None = None,
    most: int = NEIGHBOURS,
    part: Part | None = None,
) -> Fit:
    """The fit of the patterns near a position, of which `part` may be there already. More steps
    only where it is not good yet."""
    near, part = nearest(scan, about, most), part or part_of(scan, about, most)
    ends, found = (int(near[0]), int(near[-1])), None
    for rounds in range(1, len(JOINT) + 1):
        own, shuffled = part.reached(rounds), None
        deviance, perfect = part.deviances(*own)
        if deviance > FITTED * perfect:
            shuffled = part.deviances(*part.reached(rounds, dealt=True))[0]
        found = Fit(deviance, perfect, shuffled, *part.misfit(*own), ends)
        if found.share is None or found.share > GOOD:
            break
    if found.shuffled is not None and found.share is not None and len(near) >= LEAST:
        found = replace(found, apart=_apart(found, part.of_each(*own), near))
    return found


def _apart(fit: Fit, deviances: np.ndarray, near: np.ndarray) -> Apart | None:
    """The row of patterns that fits worst, if clearly worse than most rows."""
    shares = (fit.shuffled - deviances) / (fit.shuffled - fit.perfect)
    rows = np.lib.stride_tricks.sliding_window_view(shares, ROW).mean(1)
    worst, usual = int(rows.argmin()), float(np.median(rows))
    scatter = 1.48 * float(np.median(np.abs(rows - usual)))
    if usual - rows[worst] <= max(DROP, SCATTERS * scatter):
        return None
    return Apart((int(near[worst]), int(near[worst + ROW - 1])), float(rows[worst]))


def _further(
    patterns: Patterns, canvas: Tensor, steps: int, renew: Unknown | None = None
) -> tuple[Patterns, Tensor]:
    """Joint steps, or where these diverge, as patterns can make them that no object explains, what
    they started from."""
    reached, under = joint_steps(patterns, canvas, steps, renew=renew)
    finite = bool(torch.isfinite(reached).all() and torch.isfinite(under.geometry.probe).all())
    return (under, reached) if finite and reached.abs().max() < MOST else (patterns, canvas)


def better_step(scan: ScanData, fit: Fit) -> Step | None:
    """Positions out of step with the patterns, in the whole scan or, after a lost frame, in a part
    of it; None where there are none, or the fit as it is leaves no doubt."""
    if fit.share is None or fit.shuffled is None or scan.n < LEAST:
        return None
    n, half, small = scan.n, scan.n // 2, _places(scan) == (None,)
    if fit.share <= SURE:
        # after a frame lost on the way the rest still fits
        halves = fit.share > UNEXPLAINED and not small
        for low, high in [(0, n), *([(half, n), (0, half)] if halves else [])]:
            if step := _step_of(scan, fit, low, high):
                return step
    return _step_on_the_way(scan) if small and fit.share > UNEXPLAINED else None


def _step_of(scan: ScanData, fit: Fit, low: int, high: int) -> Step | None:
    """Of the patterns `low` to `high`, of the whole scan or of a half of it."""
    n, every = scan.n, np.arange(low, high)
    whole, part, moved = high - low == n, scan.subset(every), {}
    for by in (1, -1, 2, -2, 3, -3) if whole else (1, -1):
        own = every[(every + by >= 0) & (every + by < n)]
        y, x = scan.ycoords[own + by], scan.xcoords[own + by]
        moved[by] = replace(scan.subset(own), ycoords=y, xcoords=x)
    # first steps alone tell most that are no step
    places = (fit.at,) if whole else _places(part)
    most = _early(part, places)
    moved = {by: one for by, one in moved.items() if _early(one, places) < most}
    if not moved:
        return None
    given = fit if whole else worst_fit(part)
    shares = {0: (1.0 if given.share is None else given.share) + BETTER}
    for by, one in moved.items():
        # what explains less than this is no step, however little it is
        shares[by] = worst_fit(one, max(shares[0], GOOD)).share or 0.0
        if shares[by] > max(SURE, shares[0]):
            break
    best = max(shares, key=shares.get)
    if best and shares[best] > GOOD:  # else nothing explains them, a step as little
        return Step(best, None if whole else (low, high - 1))
    return None


def _step_on_the_way(scan: ScanData) -> Step | None:
    """Of a scan that is looked at whole: from some pattern on, these and the positions are out of
    step, since a frame was lost or taken twice. Looked for at each eighth of the sequence."""
    every, n = np.arange(scan.n), scan.n

    def excess(by: int, first: int) -> float:
        at = every + by * (every >= first)
        own = every[at < n]
        y, x = scan.ycoords[at[own]], scan.xcoords[at[own]]
        return _excess(part_of(replace(scan.subset(own), ycoords=y, xcoords=x), most=n))

    places = [(by, quarter * n // 4) for by in (1, -1) for quarter in (1, 2, 3)]
    tried = {place: excess(*place) for place in places}
    by, about = min(tried, key=tried.get)
    for first in (about - n // 8, about + n // 8):
        tried[by, first] = excess(by, first)
    best = min(tried, key=tried.get)
    if tried[best] < LEFT * _excess(part_of(scan, most=n)):
        return Step(best[0], (best[1], n - 1))
    return None


def better_scale(scan: ScanData, fit: Fit, part: Part) -> float | None:
    """A factor on all positions under which much of what they leave unexplained is gone: they are
    in pixels of another size. None: no such factor, or the fit left nothing unexplained."""
    if fit.shuffled is None or fit.share is None or scan.n < LEAST:
        return None
    parts = {factor: replace(part, positions=factor * part.positions) for factor in FACTORS}
    excess, most = {factor: _excess(one) for factor, one in parts.items()}, LEFT * _excess(part)
    for factor in sorted((one for one in FACTORS if excess[one] < most), key=excess.get):
        # positions far enough apart fit anything, in any order
        if excess[factor] < (1 - GOOD) * _excess(parts[factor], dealt=True):
            return factor
    return None


def position_error(scan: ScanData, fit: Fit, part: Part) -> float | None:
    """By how many object pixels (rms) positions are off, as far as their own fit finds it; None
    where free positions explain hardly more than the given ones, or nothing was unexplained."""
    if fit.shuffled is None or fit.share is None or scan.n < LEAST:
        return None
    deviance, perfect = part.deviances(*part.reached(2))
    free = Unknown(part.reached()[0], ("positions",), MOST_PX, probe_known=False)
    freed = _further(*part.reached(), JOINT[1], free)
    better, best = part.deviances(*freed)
    if better - best > FREED * (deviance - perfect):
        return None
    away = positions_of(freed[0].geometry) - free.stated
    error = float((away - away.mean(0)).square().sum(1).mean().sqrt())
    return error if error > SEEN_PX else None


def _excess(part: Part, dealt: bool = False) -> float:
    """Deviance over a perfect one, after the first joint steps."""
    deviance, perfect = part.deviances(*part.reached(dealt=dealt))
    return deviance - perfect


def worst_fit(scan: ScanData, least: float = -inf, part: Part | None = None) -> Fit:
    """Of the patterns about the first, middle and last sixth of the sequence, the part that fits
    worst: what goes wrong in the course of a scan shows there. The first part that explains less
    than `least` ends the search. A short scan has one, about the median position, which may be
    there already."""
    fits = []
    for at in _places(scan):
        known = part if at is None else None
        fits.append(replace(fit_of(scan, *_about(scan, at), known), at=at))
        if _known(fits[-1]) < least:
            break
    rows = [fit.apart for fit in fits if fit.apart]
    return replace(min(fits, key=_known), apart=min(rows, key=lambda row: row.share, default=None))


def _places(scan: ScanData) -> tuple[float | None, ...]:
    """Shares of the sequence about which a scan is looked at; None: about its median position."""
    return (None,) if scan.n <= 3 * NEIGHBOURS else (1 / 6, 1 / 2, 5 / 6)


def _about(scan: ScanData, at: float | None) -> tuple[np.ndarray | None, int]:
    """The position there, and how many patterns near it are looked at."""
    return (None, NEIGHBOURS) if at is None else (scan.positions[int(scan.n * at)], OF_EACH)


def _early(scan: ScanData, places: tuple[float | None, ...]) -> float:
    """Deviance over a perfect one after the first joint steps, summed over places."""
    return sum(_excess(part_of(scan, *_about(scan, at))) for at in places)


def _known(fit: Fit) -> float:
    """Its share; 1 where nothing can be told."""
    return 1.0 if fit.share is None else fit.share
