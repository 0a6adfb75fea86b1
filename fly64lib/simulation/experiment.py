"""From a specimen to counts: the reconstruction's physics, on its own grid or a finer one.

    matched   object, probe and detector as the reconstruction has them: for tests and for checking
              the limits
    fine      object pixels of 1 / (fine N) of the field of view, a detector of fine N pixels of
              which the central N are kept; the truth is the Fourier crop of the fine object and
              probe to the reconstruction's M pixels. `fine` is at least twice M / N: 2 at M = N, 4
              up to M = 2 N, so that no method inverts its own simulation. What the crop loses, no
              model of M pixels can explain: honest.

DOSE-001: a dose is the expected number of *detected* photons per exposure, mean over the whole
scan; one scale of the probe serves all positions."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, gcd

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from tqdm import tqdm

from fly64lib.design.registries import PROBES, SPECIMENS
from fly64lib.design.study import ScanDesign
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from fly64lib.simulation.probes import FLY001, fourier_crop
from fly64lib.simulation.scans import CANVAS, snake_scan
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.physics.geometry import CHUNK, Detector, Geometry
from ptycho_torch.physics.noise import draw_counts

_WIDEST = 4  # M, in detector sides
_FLY001_N = 64


@dataclass(frozen=True)
class Experiment:
    """Object, probe and scan that a simulation starts from, on a grid of the probe's S pixels."""

    object: Complex[np.ndarray, "fine_H fine_W"]
    probe: Complex[np.ndarray, "modes S S"]  # of any scale
    positions_px: Float[np.ndarray, "n 2"]  # (y, x), px of the reconstruction's grid
    N: int  # side of the detector
    M: int  # side of probe and patches on the reconstruction's grid
    description: dict  # provenance, for the metadata

    @property
    def finer(self) -> float:
        """How many times finer than the reconstruction's grid the simulation's is."""
        return self.probe.shape[-1] / self.M

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """(H, W) on the reconstruction's grid."""
        return tuple(round(side / self.finer) for side in self.object.shape)

    @cached_property
    def truth(self) -> Complex[np.ndarray, "H W"]:
        """The object on the reconstruction's grid, complex64."""
        whole = self.finer == 1
        image = self.object if whole else fourier_crop(self.object, self.canvas_shape, "mean")
        return image.astype(np.complex64)

    @cached_property
    def coarse_probe(self) -> Complex[np.ndarray, "modes M M"]:
        """The probe on the reconstruction's grid, complex64, same scale."""
        return _cropped(self.probe, self.M).astype(np.complex64)


def embedded_experiment(design: ScanDesign) -> Experiment:
    """The twin of fly001: specimen and probe by name, snake scan. Needs no file."""
    N, M, matched = design.N, design.M or design.N, design.simulation == "matched"
    if not N <= M <= _WIDEST * N:
        most = f"at most {_WIDEST} N = {_WIDEST * N} pixels"
        raise ConfigError(f"M={M}: expected at least N = {N}, {most}")
    fine = 2 * ceil(M / N)  # times finer than the detector's grid, along each axis
    even = np.lcm(2, N // gcd(M, N))  # a canvas with whole pixels on both grids
    side = int(even * round(CANVAS * N / _FLY001_N / even))
    positions = snake_scan(N / _FLY001_N, design.scan_step, design.scan_width) * (M / N)
    probe = np.asarray(PROBES[design.probe](N, fine))
    specimen = np.asarray(SPECIMENS[design.specimen]((fine * side,) * 2, design.simulation_seed))
    _check_side(f"probe {design.probe!r}", probe.shape[-2:], fine * N)
    _check_side(f"specimen {design.specimen!r}", specimen.shape, fine * side)
    probe = probe.reshape(-1, *probe.shape[-2:])
    if matched:
        probe, specimen = _cropped(probe, M), fourier_crop(specimen, (side * M // N,) * 2, "mean")
    description = {
        "specimen": design.specimen,
        "probe": design.probe,
        "simulation": design.simulation,
        "scan": f"fly001 snake, {len(positions)} of 10,304 positions",
        "object_pixel_nm": FLY001.object_pixel_m(M) * 1e9,
    }
    return Experiment(specimen, probe, positions, N, M, description)


def expected_patterns(
    experiment: Experiment, imperfections: Imperfections = PERFECT, progress: bool = False
) -> Float[np.ndarray, "n N N"]:
    """Expected counts, float32, at the experiment's own probe scale, detector crop included.

    Of the imperfections those of the light: jitter, motion, incoherence; not the detector's."""
    true = replace(experiment, probe=imperfections.true_probe(experiment.probe))
    stored, shape = experiment.positions_px, experiment.canvas_shape
    moments = imperfections.true_positions(stored, experiment.M, shape)
    shown = (_patterns(replace(true, positions_px=moment), progress) for moment in moments)
    return sum(shown, np.float32(0)) / np.float32(len(moments))


def draw_amplitudes(
    expected: Float[np.ndarray, "n N N"], images: Int[np.ndarray, " k"], factor: float, seed: int
) -> Float[np.ndarray, "k N N"]:
    """sqrt(counts) of some images, float32: Poisson counts of mean `factor` * expected.

    Every image has its own seed, so a pattern does not depend on which others are drawn with it."""
    seeds = np.random.SeedSequence(seed).generate_state(len(expected), np.uint64).astype(np.int64)
    amplitudes = np.empty((len(images), *expected.shape[1:]), dtype=np.float32)
    generator = torch.Generator()
    for row, image in enumerate(images):
        generator.manual_seed(int(seeds[image]))
        mean = torch.from_numpy(expected[image].astype(np.float32) * np.float32(factor))
        amplitudes[row] = draw_counts(mean, generator).sqrt().numpy()
    return amplitudes


def _check_side(entry: str, shape: tuple[int, ...], side: int) -> None:
    if shape != (side, side):
        raise ConfigError(f"{entry} gave an array of {shape} px, expected {(side, side)}")


def _cropped(probe: np.ndarray, M: int) -> np.ndarray:
    """The modes as a detector of M pixels sees them."""
    if probe.shape[-1] == M:
        return probe
    return np.stack([fourier_crop(mode, (M, M), "power") for mode in probe])


def _patterns(experiment: Experiment, progress: bool) -> np.ndarray:
    canvas = torch.from_numpy(experiment.object.astype(np.complex64))[None]
    probe = torch.from_numpy(experiment.probe.astype(np.complex64))
    positions, N = torch.from_numpy(experiment.positions_px * experiment.finer), experiment.N
    shape, detector = experiment.object.shape, Detector(N)
    geometry = Geometry.of(positions, probe, shape, whole=True, detector=detector)
    geometry = replace(geometry, passes=False)
    expected = np.empty((len(geometry), N, N), dtype=np.float32)
    chunks = list(geometry.chunks())
    bar = {"desc": "diffraction", "unit": " patterns", "unit_scale": CHUNK}
    for chunk in tqdm(chunks, disable=not progress, **bar):
        expected[chunk.numpy()] = geometry.expected(canvas, chunk).numpy()
    if not np.isfinite(expected).all() or expected.sum() <= 0:
        raise DataContractError(
            "the simulation expects no photons, or not a finite number: check object and probe"
            " for NaN"
        )
    return expected
