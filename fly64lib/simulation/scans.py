"""Scan positions: the published snake of fly001.

Positions are patch centres (y, x) in object pixels, float64; the patch's top-left (row, column) is
(y - N/2, x - N/2). The snake is a model fitted to the public twentieth of the scan (516 positions):
rows of constant speed, mirrored in turn, that stand at each turn while y steps to the next row. The
fit leaves 0.15 px rms (the stage's own wander; 0.33 px at most), under a tenth of the distance
between positions."""

import numpy as np
from jaxtyping import Float

from ptycho_torch.errors import ConfigError

Positions = Float[np.ndarray, "n 2"]

CANVAS = 232  # pixels at N = 64; the scan is symmetric about CANVAS / 2
ROWS, PER_ROW, LAST_ROW = 100, 103, 4
STEP_PX, PITCH_PX = 1.6567, 1.6581  # along a row, from row to row
TURN_PX = 34.0275  # nearest to the canvas' edge that a row comes
# Samples of a row, counted from its first: the last row's motion ends, this row's motion starts; y
# leaves and arrives.
TURN_ENDS, ROW_STARTS, Y_LEAVES, Y_ARRIVES = 1.2767, 5.2649, 1.6596, 5.3193
FIRST_ROW_PX = 197.2315  # y of the first row once the turn is over


def snake_scan(scale: float = 1.0, step: int = 1, width: float = 1.0) -> Positions:
    """The 10,304 positions in scan order, for N = 64 on a 232 x 232 canvas, times `scale`.

    scale = 2 is the same scan in the pixels of N = 128, or of a grid twice as fine. `step` keeps
    every step-th row and of it every step-th sample, `width` that share of all rows, about their
    middle."""
    if not scale > 0:
        raise ConfigError(
            f"snake_scan got scale = {scale}; expected a positive factor (N = 64: 1, N = 128: 2)"
        )
    row, sample = np.divmod(np.arange(ROWS * PER_ROW + LAST_ROW), PER_ROW)
    samples_from_turn = np.maximum(0, np.maximum(TURN_ENDS - sample, sample - ROW_STARTS))
    rising = TURN_PX + STEP_PX * samples_from_turn
    x = np.where(row % 2 == 0, rising, CANVAS - rising)
    rows_done = row + np.interp(sample, [Y_LEAVES, Y_ARRIVES], [-1, 0])
    # The scan ends within its last turn; by its published range y doesn't step there any more.
    y = FIRST_ROW_PX - PITCH_PX * np.minimum(rows_done, ROWS - 1)
    kept = (row % step == 0) & (sample % step == 0)
    kept &= np.abs(x - CANVAS / 2) <= width * (CANVAS / 2 - TURN_PX) * (1 + 1e-9)
    return np.stack([y * scale, x * scale], axis=1)[kept]
