"""From a specimen to counts: the same physics as the reconstruction, on its own grid or on one
twice as fine.

    matched   object, probe and detector as the reconstruction has them: for tests and for checking
    the limits
    fine      object pixels half as large, a detector of 2 N pixels of which the central N are kept;
    the truth is the
              Fourier crop of the fine object and probe. What the crop loses, no model of N pixels
              can explain: honest.

DOSE-001: a dose is the expected number of *detected* photons per exposure, mean over the whole
scan; one scale of the probe serves all positions."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from tqdm import tqdm

from fly64lib.design import StudyDesign
from fly64lib.simulation.imperfections import PERFECT, Imperfections
from fly64lib.simulation.probes import ZonePlate, fourier_crop, zone_plate_probe
from fly64lib.simulation.scans import CANVAS, PER_ROW, snake_scan
from fly64lib.simulation.specimens import SPECIMENS
from ptycho_torch.errors import ConfigError, DataContractError
from ptycho_torch.physics import optics
from ptycho_torch.physics.noise import draw_counts
from ptycho_torch.physics.patches import cut, on_canvas, split_positions

_CHUNK = 128
_FLY001_N = 64


@dataclass(frozen=True)
class Experiment:
    """Object, probe and scan that a simulation starts from. `fine` = 2: object and probe on the
    twice finer grid."""

    object: np.ndarray  # (fine H, fine W) complex
    probe: np.ndarray  # (modes, fine N, fine N) complex, any scale
    xcoords: np.ndarray  # (n,) px of the reconstruction's grid
    ycoords: np.ndarray
    N: int
    fine: int
    description: dict  # provenance, for the metadata

    @property
    def truth(self) -> np.ndarray:
        """The object on the reconstruction's grid, (H, W) complex64."""
        shape = tuple(side // self.fine for side in self.object.shape)
        return (
            fourier_crop(self.object, shape, "mean").astype(np.complex64)
            if self.fine > 1
            else (self.object.astype(np.complex64))
        )

    @property
    def coarse_probe(self) -> np.ndarray:
        """The probe on the reconstruction's grid, (modes, N, N) complex64, same scale."""
        if self.fine == 1:
            return self.probe.astype(np.complex64)
        return np.stack(
            [fourier_crop(mode, (self.N, self.N), "power") for mode in self.probe]
        ).astype(np.complex64)


def embedded_experiment(design: StudyDesign) -> Experiment:
    """The twin of fly001: specimen by name, zone-plate probe, snake scan. Needs no file."""
    if design.specimen not in SPECIMENS:
        raise ConfigError(
            f"specimen={design.specimen!r} is not one of {', '.join(sorted(SPECIMENS))}"
        )
    fine = 2 if design.simulation == "fine" else 1
    scale = design.N / _FLY001_N
    side = 2 * round(CANVAS * scale / 2)
    x, y = thinned_snake(scale, design.scan_step)
    if fine == 2:
        probe = zone_plate_probe(design.N, 2)
    else:
        probe = fourier_crop(zone_plate_probe(design.N, 2), (design.N, design.N), "power")
    specimen = SPECIMENS[design.specimen]((2 * side, 2 * side), design.simulation_seed)
    specimen = specimen if fine == 2 else fourier_crop(specimen, (side, side), "mean")
    description = {
        "specimen": design.specimen,
        "simulation": design.simulation,
        "scan": f"fly001 snake, {len(x)} of 10,304 positions",
        "object_pixel_nm": ZonePlate().object_pixel_m(design.N) * 1e9,
    }
    return Experiment(specimen, probe[None], x, y, design.N, fine, description)


def thinned_snake(scale: float, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The snake's positions on every `step`-th row, every `step`-th sample of it."""
    x, y = snake_scan(scale)
    row, sample = np.divmod(np.arange(len(x)), PER_ROW)
    kept = (row % step == 0) & (sample % step == 0)
    return x[kept], y[kept]


def expected_patterns(
    experiment: Experiment, progress: bool = False, imperfections: Imperfections = PERFECT
) -> np.ndarray:
    """Expected counts (n, N, N) float32 at the experiment's own probe scale, detector crop
    included.

    Of the imperfections those of the light: jitter, motion and incoherence. Which pixels work is
    the detector's affair."""
    shape = tuple(side // experiment.fine for side in experiment.object.shape)
    moments = imperfections.true_positions(
        experiment.xcoords, experiment.ycoords, experiment.N, shape
    )
    true = replace(experiment, probe=imperfections.true_probe(experiment.probe))
    expected = np.float32(0)
    for x, y in moments:
        expected = expected + _patterns_at(replace(true, xcoords=x, ycoords=y), progress)
    return expected / np.float32(len(moments))


def _patterns_at(experiment: Experiment, progress: bool) -> np.ndarray:
    size = experiment.N * experiment.fine
    positions = torch.from_numpy(
        np.stack([experiment.ycoords, experiment.xcoords], axis=1) * experiment.fine
    )
    corners, residual = split_positions(positions, size)
    canvas = torch.from_numpy(experiment.object.astype(np.complex64))[None]
    probe = torch.from_numpy(experiment.probe.astype(np.complex64))
    edge = (size - experiment.N) // 2
    kept = slice(edge, edge + experiment.N)
    expected = np.empty((len(positions), experiment.N, experiment.N), dtype=np.float32)
    chunks = torch.arange(len(positions)).split(_CHUNK)
    for chunk in tqdm(
        chunks, desc="diffraction", unit_scale=_CHUNK, unit=" patterns", disable=not progress
    ):
        patches = cut(canvas, on_canvas(corners[chunk]), size)
        counts = optics.expected_counts(patches, optics.shift_probe(probe, residual[chunk]))
        expected[chunk[0] : chunk[-1] + 1] = counts[:, kept, kept].numpy()
    if not np.isfinite(expected).all() or expected.sum() <= 0:
        raise DataContractError(
            "the simulation expects no photons, or not a finite number: check object and probe"
            " for NaN"
        )
    return expected


def draw_amplitudes(
    expected: np.ndarray, factor: float, seed: int
) -> Callable[[np.ndarray], np.ndarray]:
    """A function of image indices that draws Poisson counts of mean `factor` * expected and returns
    sqrt(counts).

    Every image has its own seed, so a pattern does not depend on which others are drawn with it.
    """
    seeds = np.random.SeedSequence(seed).generate_state(len(expected), np.uint64).astype(np.int64)

    def draw(images: np.ndarray) -> np.ndarray:
        amplitudes = np.empty((len(images), *expected.shape[1:]), dtype=np.float32)
        generator = torch.Generator()
        for row, image in enumerate(images):
            generator.manual_seed(int(seeds[image]))
            mean = torch.from_numpy(expected[image].astype(np.float32) * np.float32(factor))
            amplitudes[row] = draw_counts(mean, generator).sqrt().numpy()
        return amplitudes

    return draw
