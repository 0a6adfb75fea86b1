"""Specimens that no setting was chosen on and no family of training objects resembles."""

import numpy as np
from jaxtyping import Complex

from fly64lib.simulation.specimens import (
    AMPLITUDE_PER_RAD,
    PHASE_MEAN,
    UNITS,
    Drawing,
    bar,
    disc,
    edge,
    smooth_field,
)

Image = Complex[np.ndarray, "H W"]
_WAVES, _PERIOD = 80, 15.0  # of the labyrinth: how many, and their mean length in units
_STRIPES = -0.55, 0.2  # phase of the two kinds of stripes, rad
_PITCH, _WIRE = 7.0, 2.8  # of the circuit's wires, units
_LAYERS, _METAL, _VIA = 3, -0.3, -0.35  # phase of a wire and of a contact, rad


def labyrinth(shape: tuple[int, int], seed: int) -> Image:
    """Winding stripes of two kinds, as magnetic domains or block copolymers make them."""
    rng, drawing = np.random.default_rng(seed), Drawing(shape, np.random.default_rng(seed), 0j)
    rows, columns = drawing.offsets(np.zeros(2))
    field = np.zeros(shape)
    for angle, turn in rng.uniform(0, 2 * np.pi, (_WAVES, 2)):
        k = 2 * np.pi / (_PERIOD * rng.uniform(0.85, 1.15))
        field += np.cos(k * (rows * np.sin(angle) + columns * np.cos(angle)) + turn)
    share = edge(field / (_WAVES / 2) ** 0.5 * _PERIOD / (2 * np.pi))
    phase = _STRIPES[0] + (_STRIPES[1] - _STRIPES[0]) * share + 0.08 * smooth_field(shape, rng, 5)
    amplitude = 1 + AMPLITUDE_PER_RAD * (phase - PHASE_MEAN) + 0.015 * smooth_field(shape, rng, 30)
    return amplitude * np.exp(1j * phase)


def circuit(shape: tuple[int, int], seed: int) -> Image:
    """Three layers of wires on a lattice, across each other by turns, with contacts between."""
    rng = np.random.default_rng(seed)
    total, lattice = np.zeros(shape, complex), np.arange(0, UNITS + _PITCH, _PITCH)
    for layer in range(_LAYERS):
        drawing = Drawing(shape, rng, 0j)
        for place in lattice:
            at = rng.uniform(-40, 40)
            while at < UNITS:
                length = rng.uniform(10, 90)
                middle = np.array([place, at + length / 2])
                figure = bar(length, _WIRE, np.pi / 2 * (layer % 2))
                drawing.paint(figure, middle[:: 1 - 2 * (layer % 2)], 1j * _METAL)
                at += length + rng.uniform(4, 40)
        for at in rng.choice(lattice, (60, 2)):
            drawing.paint(disc(1.8), at, 1j * _VIA)
        total += drawing.canvas
    phase = total.imag + 0.15 + 0.05 * smooth_field(shape, rng, 3)
    amplitude = 1 + 0.5 * AMPLITUDE_PER_RAD * phase + 0.01 * smooth_field(shape, rng, 40)
    return amplitude * np.exp(1j * phase)
