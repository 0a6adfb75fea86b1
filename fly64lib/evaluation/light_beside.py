"""How many pixels object and probe need so that no light is folded back onto the detector.

A detector of N pixels sees N / 2 of them out from the centre. The beam's pupil has a radius R, and
what the object does to it within the detector's reach begins up to R beyond the edge: M = N + 2 R
pixels have place for all of that (docs/forward_model.md)."""

from itertools import count

import numpy as np
from jaxtyping import Complex

_SHARE = 0.99  # of the probe's light inside the pupil: a file's probe has noise outside
_INSIDE = 0.25  # of N: a pupil of no larger radius folds next to nothing back

Probe = Complex[np.ndarray, "modes M M"]


def pupil_radius_px(probe: Probe) -> float:
    """Radius that holds nearly all light of the probe's far field, in detector pixels; of a probe
    on the detector's own grid at most what the detector reaches."""
    power = np.square(np.abs(np.fft.fft2(probe))).sum(0)
    rows, columns = (np.fft.fftfreq(size, 1 / size) for size in power.shape)
    radius = np.hypot(rows[:, None], columns).ravel()
    order = radius.argsort()
    inside = power.ravel()[order].cumsum()
    return float(radius[order][np.searchsorted(inside, _SHARE * inside[-1])])


def side_for(probe: Probe, N: int) -> int:
    """The smallest M with small primes, and even, that has place for all light; N where the pupil
    ends well inside the detector."""
    radius = pupil_radius_px(probe)
    least = N if radius <= _INSIDE * N else N + 2 * radius
    return next(M for M in count(N) if M >= least and (M == N or _handy(M)))


def in_words(probe: Probe, N: int) -> str:
    """What M the beam of a scan asks for."""
    M, side, radius = probe.shape[-1], side_for(probe, N), pupil_radius_px(probe)
    found = f"light beside the detector: the beam has a radius of {radius:.0f} px of the {N // 2}"
    found += f" that the detector reaches; M = {side} has place for all of its light"
    if side > 3 * N // 2 and N % 4 == 0:
        found += f", M = {3 * N // 2} for most"
    return f"{found} (docs/forward_model.md); M is {M}"


def _handy(M: int) -> bool:
    """Even, and of the primes 2, 3, 5 alone."""
    rest = M
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1 and M % 2 == 0
