"""What a real experiment has and no method is told of: parameters of the simulation, all zero by
default.

    I_j = working pixels * mean over the exposure of sum_m |F(P_m O at position_j + jitter_j +
    way_j)|^2

The file holds the stored positions, and the first modes alone with all the power, disturbed where
`probe_error` or `probe_defocus_rad` say so. Equal exposure at every strength: the dose is what a
whole, working detector would detect."""

from dataclasses import dataclass

import numpy as np
import torch

from fly64lib.simulation.probes import defocused, perturb_probe
from ptycho_torch.fields import check_range, check_types

# of the way that an exposure is averaged over; four as many change the patterns by under 1e-3
_MOMENTS_PER_PX = 2


@dataclass(frozen=True, kw_only=True)
class Imperfections:
    """How strong each one is; :data:`PERFECT` has none."""

    probe_error: float = 0.0  # of the file's probe: ||P' - P|| / ||P||, smooth and complex
    probe_defocus_rad: float = 0.0  # of the file's probe, see fly64lib.simulation.probes.defocused
    jitter_px: float = 0.0  # rms along each axis of the true positions about the stored ones
    incoherent: float = 0.0  # share of the power in probe modes that the file does not hold
    motion_px: float = (
        0.0  # way along the scan during an exposure, its middle at the stored position
    )
    beam_stop_px: float = (
        0.0  # radius of a disc about zero frequency that reads zero, detector pixels
    )
    dead_share: float = 0.0  # share of the detector's pixels, drawn at random, that read zero
    seed: int = 0  # of the jitter, the dead pixels and the probe's error

    def __post_init__(self) -> None:
        check_types(self)
        check_range("probe_error", self.probe_error, 0, 1)
        check_range("probe_defocus_rad", self.probe_defocus_rad, -10, 10)
        check_range("jitter_px", self.jitter_px, 0, 32)
        check_range("incoherent", self.incoherent, 0, 0.9)
        check_range("motion_px", self.motion_px, 0, 32)
        check_range("beam_stop_px", self.beam_stop_px, 0, 512)
        check_range("dead_share", self.dead_share, 0, 0.5)
        check_range("seed", self.seed, 0, 2**31)

    @property
    def probe_is_true(self) -> bool:
        """Whether the file's probe is the one that made the patterns."""
        return not (self.probe_error or self.probe_defocus_rad or self.incoherent)

    def file_probe(self, probe: np.ndarray) -> np.ndarray:
        """The probe (modes, N, N) complex64 that the file is to hold, of the same power."""
        if self.probe_error:
            probe = perturb_probe(probe, self.probe_error, self.seed)
        if self.probe_defocus_rad:
            probe = defocused(torch.from_numpy(probe), self.probe_defocus_rad).numpy()
        return probe

    def true_probe(self, probe: np.ndarray) -> np.ndarray:
        """The modes (modes + 2, n, n) that make the patterns, mutually orthogonal if `probe`'s are;
        the power stays.

        The two more are P_0 times its row and its column, made orthogonal, half of the share each:
        the form of the lowest modes of a partly coherent beam (as Hermite and Gauss's are to a
        Gaussian one), not of a certain source."""
        if not self.incoherent:
            return probe
        modes = list(probe)
        for ramp in np.indices(probe.shape[-2:]):
            mode = probe[0] * (ramp - probe.shape[-1] // 2)
            for other in modes:
                mode = mode - other * (np.vdot(other, mode) / np.vdot(other, other))
            modes.append(mode)
        more = np.stack([mode / np.linalg.norm(mode) for mode in modes[-2:]])
        more *= np.linalg.norm(probe) * (self.incoherent / 2) ** 0.5
        return np.concatenate([probe * (1 - self.incoherent) ** 0.5, more]).astype(probe.dtype)

    def true_positions(
        self, xcoords: np.ndarray, ycoords: np.ndarray, N: int, shape: tuple[int, int]
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """(xcoords, ycoords) at each moment that an exposure is averaged over, px; kept where a
        patch fits on (H, W).

        The way points from the position before to the one after in the order given.
        """
        if not (self.jitter_px or self.motion_px):
            return [(xcoords, ycoords)]
        at = np.stack([xcoords, ycoords])
        centre = at + self.jitter_px * np.random.default_rng(self.seed).standard_normal(at.shape)
        way = np.gradient(at, axis=1)
        way = way / np.maximum(
            np.hypot(*way), 1e-12
        )  # a stage that stands does not move during the exposure either
        count = max(3, int(np.ceil(self.motion_px * _MOMENTS_PER_PX))) if self.motion_px else 1
        most = np.array([[shape[1]], [shape[0]]]) - N / 2
        moments = (np.arange(count) + 0.5) / count - 0.5
        return [
            tuple(np.clip(centre + moment * self.motion_px * way, N / 2, most))
            for moment in moments
        ]

    def working_pixels(self, N: int) -> np.ndarray:
        """(N, N) bool: False under the beam stop and where a pixel is dead."""
        working = np.random.default_rng([self.seed, N]).permutation(N * N).reshape(N, N) >= round(
            self.dead_share * N * N
        )
        k = np.arange(N) - N // 2
        return working & ((np.hypot(k[:, None], k) > self.beam_stop_px) | (self.beam_stop_px == 0))


PERFECT = Imperfections()
