"""Endless objects of many families to train on: what specimens look like, and never one of them.

Each draws log-transmission, log a + i phase, on a canvas in the units of
:mod:`fly64lib.simulation.specimens`. :func:`drawn` picks a family, then contrast and absorption
anew: from weak to strong phase, amplitude that follows the phase or goes its own way."""

from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Complex
from numpy.random import Generator
from scipy.spatial import cKDTree

from fly64lib.simulation.specimens import (
    UNITS,
    Drawing,
    bar,
    disc,
    leaf,
    mixed_shapes,
    power_law,
    smooth_field,
)

Canvas = Complex[np.ndarray, "H W"]
_DEPTH = 0.8  # rad, of a thick figure's middle
_CONTRAST = 0.3, 1.8  # factor of the phase, drawn evenly on a logarithmic axis


def spokes(shape: tuple[int, int], rng: Generator) -> Canvas:
    """Sectors about a point anywhere, open at the hub, cut by rings."""
    drawing = Drawing(shape, rng, leaf(rng))
    down, right = drawing.offsets(drawing.place())
    radius, angle = np.hypot(down, right), np.arctan2(down, right)
    count, duty = rng.integers(8, 60), rng.uniform(0.25, 0.65)
    turn = np.abs((angle * count / (2 * np.pi) + rng.uniform()) % 1 - 0.5)
    inside = (duty / 2 - turn) * 2 * np.pi / count * radius
    inside = np.minimum(inside, radius - rng.uniform(5, 25))
    for _ in range(rng.integers(0, 3)):
        inside = np.minimum(inside, abs(radius - rng.uniform(20, 150)) - rng.uniform(0.5, 3))
    drawing.cover(inside, leaf(rng))
    return drawing.canvas


def leaves(shape: tuple[int, int], rng: Generator) -> Canvas:
    """Opaque discs on each other, of sizes by a power law."""
    drawing = Drawing(shape, rng, leaf(rng))
    smallest = rng.uniform(1.5, 5)
    sizes = power_law(rng, 500, smallest, rng.uniform(20, 60), rng.uniform(2.2, 3.5))
    for size in sizes:
        drawing.paint(disc(size), drawing.place(), leaf(rng))
    return drawing.canvas


def lines(shape: tuple[int, int], rng: Generator) -> Canvas:
    """Bars of any length and direction on an even ground."""
    drawing, wide = Drawing(shape, rng, leaf(rng)), rng.uniform(2, 12)
    for _ in range(rng.integers(20, 120)):
        figure = bar(rng.uniform(10, 150), rng.uniform(1.5, wide), rng.uniform(0, np.pi))
        drawing.paint(figure, drawing.place(), leaf(rng))
    return drawing.canvas


def cells(shape: tuple[int, int], rng: Generator) -> Canvas:
    """Thick ellipses with a nucleus and granules, over each other."""
    drawing = Drawing(shape, rng, 0j)
    for _ in range(rng.integers(4, 25)):
        centre, size, turn = drawing.place(), rng.uniform(10, 40), rng.uniform(0, np.pi)
        longer, depth = rng.uniform(1, 1.8), -_DEPTH * rng.uniform(0.4, 1)
        for share, weight in ((1, 1.0), (rng.uniform(0.25, 0.5), rng.uniform(0.2, 0.7))):
            drawing.thicken(centre, share * size, depth * weight, turn, longer)
        for _ in range(rng.integers(0, 12)):
            beside = centre + rng.uniform(-0.6, 0.6, 2) * size
            drawing.thicken(beside, rng.uniform(1, 3), depth * rng.uniform(0.1, 0.5))
    return drawing.canvas


def grains(shape: tuple[int, int], rng: Generator) -> Canvas:
    """Polygons that fill the plane, each of its own height, some with borders between."""
    drawing = Drawing(shape, rng, 0j)
    seeds = rng.uniform(-0.1, 1.1, (int(rng.integers(20, 400)), 2)) * UNITS
    distances, nearest = cKDTree(seeds).query(drawing.points(), 2)
    heights = np.array([leaf(rng) for _ in seeds])
    drawing.canvas[:] = heights[nearest[:, 0]].reshape(shape)
    if rng.random() < 0.5:
        gap = rng.uniform(0.5, 2) - np.diff(distances)[:, 0].reshape(shape)
        drawing.cover(gap, leaf(rng))
    return drawing.softened()


def glyphs(shape: tuple[int, int], rng: Generator) -> Canvas:
    """Rows of small signs of a few strokes, as writing or circuits have them."""
    drawing, size = Drawing(shape, rng, leaf(rng)), rng.uniform(6, 20)
    ink, width = leaf(rng), size * rng.uniform(0.1, 0.2)
    turn = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
    across = np.array([np.sin(turn), np.cos(turn)])
    down = np.array([np.cos(turn), -np.sin(turn)])
    middle = np.array(drawing.canvas.shape) / drawing.unit / 2
    reach = int(1.5 * UNITS / size)
    for row in range(-reach, reach + 1, 2):
        for column in range(-reach, reach + 1):
            if rng.random() < 0.25:
                continue
            centre = middle + size * (0.8 * row * down + 0.9 * column * across)
            if not drawing.holds(centre):
                continue
            for _ in range(rng.integers(2, 5)):
                place = rng.choice([-0.35, 0, 0.35], 2)
                along = turn + rng.choice([0, np.pi / 2, np.pi / 4])
                figure = bar(size * rng.uniform(0.4, 0.9), width, along)
                drawing.paint(figure, centre + size * (place[0] * down + place[1] * across), ink)
    return drawing.canvas


def fields(shape: tuple[int, int], rng: Generator) -> Canvas:
    """Gaussian fields whose power falls with frequency, phase and amplitude alike or apart."""
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])
    least = rng.uniform(1, 6) / max(shape)
    gain = (np.hypot(rows, columns) + least) ** -rng.uniform(1.2, 2.5)
    parts = [np.fft.ifft2(np.fft.fft2(rng.standard_normal(shape)) * gain).real for _ in range(2)]
    phase, other = (part / part.std() for part in parts)
    if rng.random() < 0.3:  # two phases of a mixture, with a border between
        phase = np.tanh(phase * rng.uniform(1, 5))
    follows = rng.uniform(-1, 1)
    return 0.05 * (follows * phase + (1 - abs(follows)) * other) + 0.3j * phase


def particles(shape: tuple[int, int], rng: Generator) -> Canvas:
    """Spheres, single and in clusters, on an even ground."""
    drawing = Drawing(shape, rng, 0j)
    largest, depth = rng.uniform(3, 14), -_DEPTH * rng.uniform(0.4, 1)
    centre = drawing.place()
    for _ in range(rng.integers(20, 250)):
        centre = centre + rng.normal(0, 2 * largest, 2)
        if rng.random() < 0.2 or not drawing.holds(centre):
            centre = drawing.place()
        size = rng.uniform(0.3, 1) * largest
        drawing.thicken(centre, size, depth * size / largest)
    return drawing.canvas


FAMILIES: dict[str, Callable[[tuple[int, int], Generator], Canvas]] = {
    "shapes": mixed_shapes,
    **{f.__name__: f for f in (spokes, leaves, lines, cells, grains, glyphs, fields, particles)},
}


def drawn(shape: tuple[int, int], seed: int, family: str | None = None) -> Canvas:
    """A complex object (H, W) of a family, any of them where none is named."""
    rng = np.random.default_rng(seed)
    draw = FAMILIES[family or rng.choice(list(FAMILIES))]
    canvas = draw(shape, rng)
    contrast = np.exp(rng.uniform(*np.log(_CONTRAST)))
    follows = rng.uniform(0, 0.3) if rng.random() < 0.5 else 0.14
    phase, absorbed = contrast * canvas.imag, canvas.real * rng.uniform(0, 2)
    if not absorbed.any():
        absorbed = follows * phase
    field = partial(smooth_field, shape, rng)
    for detail in (4, 16, 40):
        absorbed = absorbed + rng.exponential(0.01) * field(detail)
        phase = phase + rng.exponential(0.02) * field(detail)
    phase -= phase.mean()
    absorbed -= absorbed.mean()
    return np.exp(np.minimum(absorbed, 0.3) + 1j * phase)


def drawn_window(shape: tuple[int, int], standard_px: int, rng: Generator) -> Canvas:
    """A window (H, W) of a drawn object, complex64, with details as large as on a standard canvas
    of `standard_px` a side."""
    side = max(*shape, standard_px)
    whole = drawn((side, side), int(rng.integers(2**31)))
    row, column = (rng.integers(side - length + 1) for length in shape)
    return whole[row : row + shape[0], column : column + shape[1]].astype(np.complex64)
