"""From a detector's frames to DATA-001 patterns: counts or amplitude, where zero frequency lies,
crop, bin.

    crop to N of N0 pixels    object pixel times N0 / N, positions in pixels divided by it; the
                              probe keeps the central N x N of its spectrum, the object likewise
    bin by k                  counts are summed; the object pixel stays, the field of view shrinks
                              to N / k pixels

The middle of the block that zero frequency falls into lies beside it, (k - 1) / 2 pixels where N /
k is even: the probe takes the phase ramp that says so, since F(q + s) = F[P exp(-2 pi i s r /
N)](q)."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fly64lib.formats.bad_values import Frames, is_bad
from fly64lib.formats.options import ImportOptions
from fly64lib.formats.raw import RawScan
from fly64lib.simulation.probes import fourier_crop

CLEAR = 1.3  # ratio of second moments from which the place of zero frequency counts as found


@dataclass(frozen=True)
class Reading:
    """How frames become patterns."""

    values: str  # intensity | amplitude
    zero_frequency: str  # centre | corner
    centre_px: tuple[int, int]  # pixel of zero frequency after that is undone
    crop: int
    frame_px: int  # edge of the patches that the file's probe, positions and object belong to
    bin: int = 1
    photons_per_unit: float = 1.0
    round: bool = False
    whole: bool = True  # whether the patterns are square roots of whole numbers

    @property
    def N(self) -> int:
        """Edge of a pattern, px."""
        return self.crop // self.bin

    @property
    def ratio(self) -> float:
        """Object pixels of the result for one of the file."""
        return self.crop / self.frame_px


def decide(scan: RawScan, frames: Frames, options: ImportOptions) -> Reading:
    """What options, the file and the frames lead to; refused where they leave it open."""
    values = options.values or _values(scan, frames, options.photons_per_unit)
    (rows, columns), k = scan.detector_px, options.bin
    crop = options.crop or min(rows, columns) // k * k
    if crop > min(rows, columns) or crop % k or crop // k < 2:
        text = f"frames of {rows} x {columns} px, to be cropped to {crop} and binned by {k};"
        text += " expected a square of at most the frame's size, a multiple of the bin; pass --crop"
        raise scan.refused(f"{text} N, N <= {min(rows, columns)}")
    zero = _zero_frequency(scan, frames, values, options.zero_frequency)
    centre = options.centre or (rows // 2, columns // 2)
    ends = [(at - crop // 2, at - crop // 2 + crop) for at in centre]
    if any(low < 0 or high > edge for (low, high), edge in zip(ends, (rows, columns), strict=True)):
        text = f"a square of {crop} px about ({centre[0]}, {centre[1]}) leaves the frame of {rows}"
        text += f" x {columns} px; expected a square inside; crop to less, or correct --centre ROW"
        raise scan.refused(f"{text} COLUMN")
    frame_px = rows if rows == columns else crop  # of the square taken, if frames are not square
    scale = options.photons_per_unit or 1.0
    squares_whole = values == "amplitude" and frames.squares_whole
    whole = options.round or frames.whole or squares_whole
    return Reading(values, zero, centre, crop, frame_px, k, scale, options.round, whole)


def window(image: np.ndarray, reading: Reading) -> np.ndarray:
    """The cropped square of frames (.., rows, columns), zero frequency on pixel crop // 2."""
    if reading.zero_frequency == "corner":
        image = np.fft.fftshift(image, axes=(-2, -1))
    (top, left), N = (at - reading.crop // 2 for at in reading.centre_px), reading.crop
    return image[..., top : top + N, left : left + N]


def patterns(scan: RawScan, reading: Reading, bad: np.ndarray) -> Iterator[np.ndarray]:
    """Amplitudes (k, N, N) float32, in order. Pixels in `bad` (rows, columns), and single values
    that are, count nothing."""
    k, N = reading.bin, reading.N
    for block in scan.blocks():
        counts = block.astype(np.float64)
        counts[is_bad(block) | bad] = 0
        counts = counts**2 if reading.values == "amplitude" else counts
        binned = window(counts, reading).reshape(len(counts), N, k, N, k).sum((2, 4))
        counts = binned * reading.photons_per_unit
        yield np.sqrt(np.rint(counts) if reading.round else counts).astype(np.float32)


def probe_on_grid(probe: np.ndarray, reading: Reading) -> np.ndarray:
    """Probe (modes, source_N, source_N) complex128, as the cropped and binned detector sees it."""
    probe = np.stack([fourier_crop(mode, (reading.crop, reading.crop), "power") for mode in probe])
    if reading.bin == 1:
        return probe
    r = np.arange(reading.crop) - reading.crop // 2
    # the middle of the block that zero frequency falls into, number N // 2, lies beside it
    beside = reading.N // 2 * reading.bin + (reading.bin - 1) / 2 - reading.crop // 2
    ramp = np.exp(-2j * np.pi * beside * r / reading.crop)
    first = reading.crop // 2 - reading.N // 2
    inside = slice(first, first + reading.N)
    return (probe * ramp[:, None] * ramp)[:, inside, inside]


def object_on_grid(image: np.ndarray, reading: Reading) -> np.ndarray:
    """The object on the cropped detector's pixels, its edges grown to a multiple of the ratio."""
    step = reading.frame_px // np.gcd(reading.frame_px, reading.crop)
    image = np.pad(image, [(0, -edge % step) for edge in image.shape], constant_values=1)
    shape = tuple(edge * reading.crop // reading.frame_px for edge in image.shape)
    return fourier_crop(image, shape, "mean")


def _values(scan: RawScan, frames: Frames, photons_per_unit: float | None) -> str:
    """The format's word, unless the values speak against it; then what the values look like."""
    roots = frames.squares_whole and not frames.whole
    if roots and (scan.values == "amplitude" or not photons_per_unit):
        return "amplitude"
    if frames.whole or photons_per_unit or scan.values == "intensity":
        return "intensity"
    text = "patterns whose values are not whole, and neither are their squares; expected photon"
    text += " counts, or their square root; say --values intensity or --values amplitude, and for"
    raise scan.refused(f"{text} scaled intensity --photons-per-unit K")


def _zero_frequency(scan: RawScan, frames: Frames, values: str, asked: str | None) -> str:
    """centre or corner: asked for, or where the mean frame is the more compact."""
    said = asked or scan.zero_frequency
    power = frames.mean**2 if values == "amplitude" else frames.mean
    rows, columns = (np.arange(length) - length // 2 for length in power.shape)
    distance = rows[:, None] ** 2.0 + columns**2.0
    centre, corner = (distance * power).sum(), (distance * np.fft.fftshift(power)).sum()
    clear = max(centre, corner) > CLEAR * min(centre, corner)
    found = "corner" if corner < centre else "centre"
    if said is None and not clear:
        text = "a mean pattern that is as wide about its centre as about its corner; expected one"
        text += " place of zero frequency; say --zero-frequency centre or --zero-frequency corner"
        raise scan.refused(text)
    if asked is None and said is not None and clear and found != said:
        text = f"zero frequency at the {found}; expected at the {said}, as this format has it; say"
        raise scan.refused(f"{text} which holds with --zero-frequency centre or corner")
    return said or found
