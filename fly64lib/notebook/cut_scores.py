"""How far objects of a cut scan agree with the full reconstruction, and the noise in that itself.

All on the detector's grid, inside the scanned region. The cuts keep the probe of the full
reconstruction, so that the gauge is one global phase; it is removed."""

from dataclasses import replace

import numpy as np
from jaxtyping import Complex

from fly64lib.design.registries import METHODS
from fly64lib.evaluation.gauge import Region
from fly64lib.evaluation.judgement import on_detector_grid
from fly64lib.evaluation.metrics import Pair
from fly64lib.evaluation.rings import first_crossing
from fly64lib.methods.base import MethodResult
from fly64lib.methods.by_name import reconstruct
from fly64lib.overlap import thinned_scan
from ptycho_torch.fields import field_names
from ptycho_torch.memmap_bridge import RawDataTorch

# Correlation of halves where that of the whole with the noise-free object, sqrt(2 h / (1 + h)), is
# 0.5 (Rosenthal & Henderson, J. Mol. Biol. 333, 721 (2003)).
OF_HALVES = 1 / 7

Image = Complex[np.ndarray, "h w"]


def agreement(image: Image, reference: Image) -> dict[str, float]:
    """Of two images of the region: rms difference of phase (rad, wrapped) and of amplitude (the
    empty object has 1), and the frequency up to which their ring correlation is at least 0.5, as a
    share of Nyquist."""
    pair = Pair.aligned(image, reference)
    return {
        "phase_rms_rad": _rms(pair.phase.error),
        "amplitude_rms": _rms(pair.amplitude.error),
        "frc_half": first_crossing(pair.frc, 0.5),
    }


def noise_of_reference(raw: RawDataTorch, region: Region, method: str, threads: int) -> dict:
    """What the photons' noise does to a full reconstruction by this method: each photon of the scan
    goes to one of two independent halves, and both are reconstructed.

    Their difference has the variance of two halves, each twice that of the whole: half of its rms
    is the whole's noise. What a method gets wrong in both halves alike is not seen by it."""
    halves, images = _halves(raw), []
    for half in halves:
        found = reconstructed(half, method, threads)
        images.append(on_detector_grid(found.object, raw)[region])
    pair = Pair.aligned(*images)
    return {
        "phase_rms_rad": _rms(pair.phase.error) / 2,
        "amplitude_rms": _rms(pair.amplitude.error) / 2,
        "frc_half": first_crossing(pair.frc, OF_HALVES),
    }


def reconstructed(scan: RawDataTorch, method: str, threads: int) -> MethodResult:
    """The object of a scan by a method, on so many threads where it has that setting."""
    settings = {"threads": threads} if "threads" in field_names(METHODS[method]) else {}
    return reconstruct(scan, method, **settings)


def _halves(raw: RawDataTorch) -> list[RawDataTorch]:
    """Two scans whose counts are independent and sum up to the scan's."""
    one = thinned_scan(raw.scan, 0.5, [0, 1, 2], raw.source)
    rest = raw.counts(slice(None)).numpy() - np.rint(np.square(one.diffraction))
    other = replace(one, diffraction=np.sqrt(rest))
    return [RawDataTorch(half, raw.source) for half in (one, other)]


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.square(values).mean()))
