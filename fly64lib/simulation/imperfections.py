"""What a real experiment has and no method knows: parameters of the simulation, all 0 at first.

    I_j = working pixels * mean over the exposure of sum_m |F(P_m O at position_j + jitter_j +
    way_j)|^2

The file holds the stored positions, and the first modes alone with all the power, disturbed where
`probe_error` or `probe_defocus_rad` say so. Equal exposure at every strength: the dose is what a
whole, working detector would detect."""

from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Bool, Complex
from pydantic import Field

from fly64lib.simulation.probes import Modes, defocused, perturb_probe
from fly64lib.simulation.scans import Positions
from ptycho_torch.fields import Seed, config
from ptycho_torch.physics.geometry import moments, ways


def _to(most: float) -> Any:
    """The type of a strength from 0 to `most`."""
    return Annotated[float, Field(ge=0, le=most)]


@config
class Imperfections:
    """How strong each one is; :data:`PERFECT` has none."""

    probe_error: _to(1.0) = 0.0  # of the file's probe: ||P' - P|| / ||P||, smooth and complex
    # of the file's probe, see fly64lib.simulation.probes.defocused
    probe_defocus_rad: Annotated[float, Field(ge=-10, le=10)] = 0.0
    jitter_px: _to(32.0) = 0.0  # rms along each axis of the true positions about the stored ones
    incoherent: _to(0.9) = 0.0  # share of the power in probe modes that the file does not hold
    motion_px: _to(32.0) = 0.0  # way during an exposure, its middle at the stored position
    beam_stop_px: _to(512.0) = 0.0  # radius of a disc about zero frequency that reads zero
    dead_share: _to(0.5) = 0.0  # share of the detector's pixels, drawn at random, that read zero
    seed: Seed = 0  # of the jitter, the dead pixels and the probe's error

    @property
    def probe_is_true(self) -> bool:
        """Whether the file's probe is the one that made the patterns."""
        return not (self.probe_error or self.probe_defocus_rad or self.incoherent)

    def file_probe(self, probe: Modes) -> Modes:
        """The probe that the file is to hold, complex64, of the same power."""
        if self.probe_error:
            probe = perturb_probe(probe, self.probe_error, self.seed)
        if self.probe_defocus_rad:
            probe = defocused(torch.from_numpy(probe), self.probe_defocus_rad).numpy()
        return probe

    def true_probe(self, probe: Modes) -> Complex[np.ndarray, "all_modes M M"]:
        """The modes that make the patterns: two more than `probe`'s, orthogonal; the power stays.

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
        self, positions_px: Positions, M: int, shape: tuple[int, int]
    ) -> list[Positions]:
        """Positions (y, x) at each moment that an exposure is averaged over, px.

        They are kept where a patch fits on (H, W). The way points from the position before to the
        one after in the order given."""
        if not (self.jitter_px or self.motion_px):
            return [positions_px]
        # drawn for x, then for y
        drawn = np.random.default_rng(self.seed).standard_normal((2, len(positions_px)))
        centre = positions_px + self.jitter_px * drawn[::-1].T
        way = ways(positions_px, self.motion_px)
        most = np.array(shape) - M / 2
        shares = moments(self.motion_px) if self.motion_px else [0.0]
        return [np.clip(centre + share * way, M / 2, most) for share in shares]

    def working_pixels(self, N: int) -> Bool[np.ndarray, "N N"]:
        """False under the beam stop and where a pixel is dead."""
        order = np.random.default_rng([self.seed, N]).permutation(N * N).reshape(N, N)
        working = order >= round(self.dead_share * N * N)
        k = np.arange(N) - N // 2
        return working & ((np.hypot(k[:, None], k) > self.beam_stop_px) | (self.beam_stop_px == 0))


PERFECT = Imperfections()
