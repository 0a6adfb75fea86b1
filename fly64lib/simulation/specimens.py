"""Specimens: complex objects by name and seed on any grid, and endless objects to train on.

A specimen is a function of a shape (H, W) and a seed. An object is exp(log a + i phase),
complex128, about 1 in amplitude. Lengths are in units of 1/232 of the longer side (a pixel of the
standard canvas), and pixel i lies at i / side, so the same seed on a grid twice as fine is the same
specimen: its pixel 2i is the coarse pixel i, as for the Fourier crop and for scan positions times
two. Edges are soft by 0.7 units rms (40 nm at N = 64), as what a 50 nm lens images; a canvas of far
fewer than 232 px undersamples them.

The Siemens star is a twin of fly001's, drawn by this file from numbers read off the reconstruction
of the public data: 30 spokes about (113.7, 104.5), three levels of height (spoke, open gap,
unwritten membrane), an unwritten hub, a ring that cuts the spokes, a spoke missing inside the ring
and one outside, a film with a straight edge over the lower part."""

from collections.abc import Callable
from itertools import starmap

import numpy as np
from jaxtyping import Complex, Float
from numpy.random import Generator
from scipy.ndimage import gaussian_filter
from scipy.special import ndtr

from ptycho_torch.errors import ConfigError

Image = Complex[np.ndarray, "H W"]
Point = Float[np.ndarray, "2"]  # row, column
# (down, right) from the centre in units -> below 0 inside; and how far from the centre it ends
Shape = tuple[Callable[[np.ndarray, np.ndarray], np.ndarray], float]

UNITS = 232.0
EDGE = 0.7  # rms width of an edge, in units
PHASE_RANGE = (-0.88, 0.27)  # 1 and 99 % of fly001's reconstruction
AMPLITUDE_PER_RAD = 0.145  # thickness absorbs: amplitude falls with phase
AMPLITUDE_TEXTURE = 0.022  # rms of the amplitude that doesn't follow the phase
LEAF_AMPLITUDE = 0.035  # the same of a leaf, disc or bar, each of one amplitude
PHASE_TEXTURE = 0.02
PHASE_MEAN = -0.15  # where amplitude is 1

STAR_CENTRE = (113.7, 104.5)  # row, column
SPOKES, FIRST_SPOKE_DEG, SPOKE_DUTY = 30, 8.0, 0.35
HUB, RING, RING_WIDTH = 17.0, 79.0, 1.0
SPOKE_PHASE, OPEN_PHASE, UNWRITTEN_PHASE = -0.72, 0.22, 0.05
# film where row > FILM_ROW + FILM_SLOPE * column
FILM_PHASE, FILM_ROW, FILM_SLOPE = -0.15, 201.0, -0.226
NICKS = 3  # short pieces of spokes lost, beside the two long ones


def siemens_star(shape: tuple[int, int], seed: int) -> Image:
    """The twin of fly001's Siemens star; the seed chooses the texture and which pieces are lost."""
    rows, columns, _ = _grid(shape)
    height, width = np.array(shape) / max(shape)
    down, right = rows - STAR_CENTRE[0] * height, columns - STAR_CENTRE[1] * width
    radius = np.hypot(down, right)
    rng = np.random.default_rng(seed)
    inner, outer = rng.choice(SPOKES, 2, replace=False)
    lost = {inner: -1, outer: 1}  # inside the ring, outside
    spokes, middles = rng.integers(SPOKES, size=NICKS), rng.uniform(25, 100, NICKS)
    nicks = list(zip(spokes, middles, rng.uniform(2, 6, NICKS), strict=True))

    unwritten, written = edge(HUB - radius), np.zeros(shape)
    for spoke in range(SPOKES):
        angle = np.radians(FIRST_SPOKE_DEG + spoke * 360 / SPOKES)
        along = right * np.cos(angle) + down * np.sin(angle)
        across = down * np.cos(angle) - right * np.sin(angle)
        half = along * np.tan(np.pi * SPOKE_DUTY / SPOKES)
        near = (along > 0) & (abs(across) < half + 6 * EDGE)
        r = radius[near]
        present = edge(r - HUB) * (1 - _between(r, RING, RING_WIDTH))
        for nicked, middle, length in nicks:
            present *= 1 - (nicked == spoke) * _between(r, middle, length)
        if spoke in lost:
            present *= edge(lost[spoke] * (RING - r))
            # The open gaps beside it are lost too: membrane up to the neighbours, 1 spoke away.
            wedge = along * np.tan(2 * np.pi / SPOKES) - abs(across)
            gap = edge(np.minimum(wedge, lost[spoke] * (radius - RING)))
            unwritten = np.maximum(unwritten, gap)
        written[near] += present * _between(across[near], 0.0, 2 * half[near])

    ground = OPEN_PHASE + (UNWRITTEN_PHASE - OPEN_PHASE) * unwritten
    phase = ground + (SPOKE_PHASE - ground) * written
    phase += FILM_PHASE * edge(rows - FILM_ROW * height - FILM_SLOPE * columns)
    texture = AMPLITUDE_TEXTURE * smooth_field(shape, rng, 24)
    amplitude = 1 + AMPLITUDE_PER_RAD * (phase - PHASE_MEAN) + texture
    return amplitude * np.exp(1j * (phase + PHASE_TEXTURE * smooth_field(shape, rng, 6)))


def dead_leaves(shape: tuple[int, int], seed: int) -> Image:
    """Opaque discs on each other, radii 3 .. 45 units, density r^-3: details of all sizes."""
    rng = np.random.default_rng(seed)
    drawing = Drawing(shape, rng, leaf(rng))
    for radius in power_law(rng, 700, 3.0, 45.0, 3.0):
        drawing.paint(disc(radius), drawing.place(), leaf(rng))
    return np.exp(drawing.canvas)


def lines(shape: tuple[int, int], seed: int) -> Image:
    """Bars of any direction, 20 .. 150 by 1.5 .. 12 units, among discs, on an empty membrane."""
    rng = np.random.default_rng(seed)
    drawing = Drawing(shape, rng, 0.03 + 1j * PHASE_RANGE[1])
    for kind in rng.permutation(["bar"] * 60 + ["disc"] * 40):
        if kind == "bar":
            figure = bar(rng.uniform(20, 150), rng.uniform(1.5, 12), rng.uniform(0, np.pi))
        else:
            figure = disc(rng.uniform(2, 14))
        drawing.paint(figure, drawing.place(), leaf(rng))
    return np.exp(drawing.canvas)


def mixed_shapes(shape: tuple[int, int], rng: Generator) -> Image:
    """Log-transmission of a mixture of discs, bars, rings, wedges.

    Density, sizes, opacity and the mixture itself are drawn first. Most are written in one layer,
    as lithography does: two or three heights, with sharp borders between them."""
    ground = leaf(rng)
    drawing = Drawing(shape, rng, ground)
    mixture = rng.dirichlet([0.7, 0.7, 0.3, 0.7])
    smallest = rng.uniform(1.5, 6)
    sizes = power_law(rng, 400, smallest, smallest * rng.uniform(4, 12), rng.uniform(1.5, 3.5))
    # As many as cover the canvas some 0.3 to 3 times: a shape of size s covers about 3 s^2.
    cover = np.exp(rng.uniform(np.log(0.3), np.log(3))) * np.prod(shape) / drawing.unit**2
    sizes = sizes[: max(10, int(np.searchsorted(np.cumsum(3 * sizes**2), cover)))]
    layered = rng.random() < 0.6
    opacity = 1.0 if layered or rng.random() < 0.6 else rng.uniform(0.4, 1)
    heights = [ground, *(leaf(rng) for _ in range(rng.integers(1, 3)))]
    if layered:  # heights that differ by less are no pattern; towards the range's other end
        step = -np.sign(ground.imag - np.mean(PHASE_RANGE)) * rng.uniform(0.4, 1.0)
        heights[1] = complex(heights[1].real, ground.imag + step)
    along = rng.uniform(0, np.pi)  # of the bars that are not turned by themselves
    turned = rng.random() < 0.7
    for size, kind in zip(sizes, rng.choice(4, len(sizes), p=mixture), strict=True):
        angle = rng.uniform(0, np.pi) if turned else along + rng.choice([0, np.pi / 2])
        if kind == 0:
            figure = disc(size)
        elif kind == 2:
            figure = ring(size, rng.uniform(1.5, 1.5 + size / 2))
        else:
            length, taper = size * rng.uniform(1, 8), 0.0 if kind == 1 else rng.uniform(0.3, 1)
            figure = bar(length, size, angle, taper)
        value = heights[rng.integers(len(heights))] if layered else leaf(rng)
        drawing.paint(figure, drawing.place(), value, opacity)
    return drawing.canvas


class Drawing:
    """A canvas of log-transmission, log a + i phase: painting blends phase and absorption, not
    complex numbers. `unit` is its pixels per unit."""

    def __init__(self, shape: tuple[int, int], rng: Generator, ground: complex) -> None:
        self.rng, self.unit = rng, _grid(shape)[2]
        self.canvas = np.full(shape, ground, dtype=np.complex128)

    def place(self) -> Point:
        """A random (row, column) on the canvas or just beside it, in units."""
        return self.rng.uniform(-0.05, 1.05, 2) * self.canvas.shape / self.unit

    def offsets(self, centre: Point) -> tuple[np.ndarray, np.ndarray]:
        """How far down and right of a point each row and column lies, in units."""
        return tuple(
            axis / self.unit - middle
            for axis, middle in zip(
                np.ogrid[tuple(map(slice, self.canvas.shape))], centre, strict=True
            )
        )

    def points(self) -> Float[np.ndarray, "n 2"]:
        """(row, column) of every pixel, in units."""
        rows, columns = self.offsets(np.zeros(2))
        return np.stack(np.broadcast_arrays(rows, columns), -1).reshape(-1, 2)

    def holds(self, centre: Point) -> bool:
        """Whether a point lies on the canvas or just beside it."""
        at = centre * self.unit / self.canvas.shape
        return bool((at > -0.05).all() and (at < 1.05).all())

    def cover(self, inside: np.ndarray, value: complex) -> None:
        """Blend `value` in where `inside`, a distance in units, is above 0."""
        self.canvas += np.clip(0.5 + inside / (EDGE * np.sqrt(12)), 0, 1) * (value - self.canvas)

    def thicken(
        self, centre: Point, size: float, depth: float, turn: float = 0.0, longer: float = 1.0
    ) -> None:
        """Add the phase of an ellipsoid: `depth` rad in the middle, none from the border on."""
        ends = (centre - size * longer) * self.unit, (centre + size * longer) * self.unit + 1
        window = tuple(starmap(slice, np.clip(ends, 0, self.canvas.shape).astype(int).T))
        axes = zip(np.ogrid[window], centre, strict=True)
        down, right = (axis / self.unit - middle for axis, middle in axes)
        along = (right * np.cos(turn) + down * np.sin(turn)) / longer
        across = down * np.cos(turn) - right * np.sin(turn)
        squared = (along**2 + across**2) / size**2
        self.canvas[window] += 1j * depth * np.sqrt(np.clip(1 - squared, 0, None))

    def softened(self) -> Image:
        """The canvas with edges of rms width EDGE."""
        return gaussian_filter(self.canvas, EDGE * self.unit)

    def paint(self, figure: Shape, centre: Point, value: complex, opacity: float = 1.0) -> None:
        """Blend `value` in where the shape is, over a linear edge of rms width EDGE."""
        (distance, reach), edge = figure, EDGE * np.sqrt(12)
        ends = (centre - reach - edge) * self.unit, (centre + reach + edge) * self.unit + 1
        window = tuple(starmap(slice, np.clip(ends, 0, self.canvas.shape).astype(int).T))
        axes = zip(np.ogrid[window], centre, strict=True)
        down, right = (axis / self.unit - middle for axis, middle in axes)
        cover = opacity * np.clip(0.5 - distance(down, right) / edge, 0, 1)
        self.canvas[window] += cover * (value - self.canvas[window])


def _grid(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, float]:
    """Row (H, 1) and column (1, W) coordinates in units, and pixels per unit."""
    if len(shape) != 2 or min(shape) < 2:
        raise ConfigError(
            f"a specimen of shape {shape} was asked for; expected (rows, columns), both 2 or more"
        )
    unit = max(shape) / UNITS
    return np.arange(shape[0])[:, None] / unit, np.arange(shape[1])[None, :] / unit, unit


def edge(distance: np.ndarray) -> np.ndarray:
    """A straight edge blurred by a Gaussian of rms EDGE: 1 well above 0 (units), 0 well below."""
    return ndtr(distance / EDGE)


def _between(at: np.ndarray, middle: float, width: float | np.ndarray) -> np.ndarray:
    """A bar blurred likewise: exact also for those thinner than the blur, as spokes at the hub."""
    return edge(at - middle + width / 2) - edge(at - middle - width / 2)


def leaf(rng: Generator) -> complex:
    """Log-transmission of a leaf: a phase in PHASE_RANGE, an amplitude that follows it in part."""
    phase = rng.uniform(*PHASE_RANGE)
    follows = AMPLITUDE_PER_RAD * (phase - np.mean(PHASE_RANGE))
    return complex(np.log(1 + follows + LEAF_AMPLITUDE * rng.standard_normal()), phase)


def power_law(rng: Generator, count: int, low: float, high: float, exponent: float) -> np.ndarray:
    """`count` draws from the density ~ r^-exponent on low .. high, exponent != 1."""
    ends = low ** (1 - exponent), high ** (1 - exponent)
    return rng.uniform(min(ends), max(ends), count) ** (1 / (1 - exponent))


def disc(radius: float) -> Shape:
    return lambda down, right: np.hypot(down, right) - radius, radius


def ring(radius: float, width: float) -> Shape:
    half = width / 2
    return lambda down, right: abs(np.hypot(down, right) - radius) - half, radius + half


def bar(length: float, width: float, angle: float, taper: float = 0.0) -> Shape:
    """A bar; `taper` 1 makes it a wedge, twice as wide at one end and of no width at the other."""
    cosine, sine = np.cos(angle), np.sin(angle)

    def distance(down: np.ndarray, right: np.ndarray) -> np.ndarray:
        ahead = right * cosine + down * sine
        half = width / 2 * (1 + taper * np.clip(2 * ahead / length, -1, 1))
        return np.maximum(abs(ahead) - length / 2, abs(down * cosine - right * sine) - half)

    return distance, np.hypot(length, width * (1 + taper)) / 2


def smooth_field(shape: tuple[int, int], rng: Generator, detail: int) -> Float[np.ndarray, "H W"]:
    """A Gaussian field, rms 1, of waves, up to `detail` periods on 1.3 times the longer side."""
    rows, columns, _ = _grid(shape)
    waves = np.arange(-detail, detail + 1)
    weights = np.exp(-2 * (waves[:, None] ** 2 + waves**2) / detail**2)
    weights[detail, detail] = 0  # no mean
    real = rng.standard_normal(weights.shape)
    coefficients = weights * (real + 1j * rng.standard_normal(weights.shape))
    coefficients *= np.sqrt(2) / np.linalg.norm(coefficients)
    period = 1.3 * UNITS  # opposite edges needn't meet
    down = np.exp(2j * np.pi * rows * waves / period)
    right = np.exp(2j * np.pi * waves[:, None] * columns / period)
    return (down @ coefficients @ right).real
