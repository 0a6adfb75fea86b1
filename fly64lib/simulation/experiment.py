"""From a specimen to counts: the reconstruction's physics, on its own grid or a finer one.

    matched   object, probe and detector as the reconstruction has them: for tests and for checking
              the limits
    fine      object pixels FINE times as small, a detector of FINE N pixels of which the central N
              are kept; the truth is the Fourier crop of the fine object and probe. What the crop
              loses, no model of N pixels can explain: honest.

DOSE-001: a dose is the expected number of *detected* photons per exposure, mean over the whole
scan; one scale of the probe serves all positions."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from tqdm import tqdm

from fly64lib.design import ScanDesign
from fly64lib.registries import PROBES, SPECIMENS
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from fly64lib.simulation.probes import FLY001, fourier_crop
from fly64lib.simulation.scans import CANVAS, snake_scan
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.physics.geometry import CHUNK, Geometry
from ptycho_torch.physics.noise import draw_counts

FINE = 2  # how many times finer the grid of the mode "fine" is, along each axis
_FLY001_N = 64


@dataclass(frozen=True)
class Experiment:
    """Object, probe and scan that a simulation starts from, on a grid `fine` times as fine."""

    object: Complex[np.ndarray, "fine_H fine_W"]
    probe: Complex[np.ndarray, "modes fine_N fine_N"]  # of any scale
    positions_px: Float[np.ndarray, "n 2"]  # (y, x), px of the reconstruction's grid
    N: int
    fine: int
    description: dict  # provenance, for the metadata

    @property
    def canvas_shape(self) -> tuple[int, int]:
        """(H, W) on the reconstruction's grid."""
        return tuple(side // self.fine for side in self.object.shape)

    @cached_property
    def truth(self) -> Complex[np.ndarray, "H W"]:
        """The object on the reconstruction's grid, complex64."""
        whole = self.fine == 1
        image = self.object if whole else fourier_crop(self.object, self.canvas_shape, "mean")
        return image.astype(np.complex64)

    @cached_property
    def coarse_probe(self) -> Complex[np.ndarray, "modes N N"]:
        """The probe on the reconstruction's grid, complex64, same scale."""
        return _detected(self.probe, self.N).astype(np.complex64)


def embedded_experiment(design: ScanDesign) -> Experiment:
    """The twin of fly001: specimen and probe by name, snake scan. Needs no file."""
    N, scale = design.N, design.N / _FLY001_N
    positions, side = snake_scan(scale, design.scan_step), 2 * round(CANVAS * scale / 2)
    probe = np.asarray(PROBES[design.probe](N, FINE))
    specimen = np.asarray(SPECIMENS[design.specimen]((FINE * side,) * 2, design.simulation_seed))
    _check_side(f"probe {design.probe!r}", probe.shape[-2:], FINE * N)
    _check_side(f"specimen {design.specimen!r}", specimen.shape, FINE * side)
    probe, fine = probe.reshape(-1, *probe.shape[-2:]), FINE
    if design.simulation == "matched":
        probe, specimen, fine = _detected(probe, N), fourier_crop(specimen, (side,) * 2, "mean"), 1
    description = {
        "specimen": design.specimen,
        "probe": design.probe,
        "simulation": design.simulation,
        "scan": f"fly001 snake, {len(positions)} of 10,304 positions",
        "object_pixel_nm": FLY001.object_pixel_m(N) * 1e9,
    }
    return Experiment(specimen, probe, positions, N, fine, description)


def expected_patterns(
    experiment: Experiment, imperfections: Imperfections = PERFECT, progress: bool = False
) -> Float[np.ndarray, "n N N"]:
    """Expected counts, float32, at the experiment's own probe scale, detector crop included.

    Of the imperfections those of the light: jitter, motion, incoherence; not the detector's."""
    true = replace(experiment, probe=imperfections.true_probe(experiment.probe))
    stored, shape = experiment.positions_px, experiment.canvas_shape
    moments = imperfections.true_positions(stored, experiment.N, shape)
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


def _detected(probe: np.ndarray, N: int) -> np.ndarray:
    """The modes as a detector of N pixels sees them."""
    if probe.shape[-1] == N:
        return probe
    return np.stack([fourier_crop(mode, (N, N), "power") for mode in probe])


def _patterns(experiment: Experiment, progress: bool) -> np.ndarray:
    N, size = experiment.N, experiment.N * experiment.fine
    canvas = torch.from_numpy(experiment.object.astype(np.complex64))[None]
    probe = torch.from_numpy(experiment.probe.astype(np.complex64))
    positions = torch.from_numpy(experiment.positions_px * experiment.fine)
    geometry = Geometry.of(positions, probe, experiment.object.shape, whole=True)
    kept = slice((size - N) // 2, (size + N) // 2)
    expected = np.empty((len(geometry), N, N), dtype=np.float32)
    chunks = list(geometry.chunks())
    bar = {"desc": "diffraction", "unit": " patterns", "unit_scale": CHUNK}
    for chunk in tqdm(chunks, disable=not progress, **bar):
        expected[chunk.numpy()] = geometry.expected(canvas, chunk)[:, kept, kept].numpy()
    if not np.isfinite(expected).all() or expected.sum() <= 0:
        raise DataContractError(
            "the simulation expects no photons, or not a finite number: check object and probe"
            " for NaN"
        )
    return expected
