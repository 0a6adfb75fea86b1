"""What may be unknown of each exposure: where it was, how bright, and what the detector counts
without light.

    I_j = s_j sum_m |cut_N F(P_m(r - d_j) O_j)|^2 + b

Positions take Gauss-Newton steps: with w_jm the wave and dw its derivative by a shift of the probe,
dI = 2 s Re conj(w) dw, the slope of the likelihood is sum_q (1 - n / I) dI and its expected
curvature sum_q dI dI^T / I, a 2 x 2 matrix an exposure. All exposures together give the same for a
scan that was scaled, turned or sheared as a whole. Single positions are taken from where they were
stated only as far as they vary by more than counting noise would make them. Brightness s and
background b take the expectation-maximisation steps of Poisson mixtures (Shepp and Vardi, IEEE
Trans. Med. Imaging 1, 113 (1982)): both stay positive, and no step lowers the likelihood."""

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from ptycho_torch.iteration.slopes import DARK, excess_of
from ptycho_torch.physics import optics
from ptycho_torch.physics.geometry import Detector, Geometry, Patterns

_FAINT = 1e-3  # of the mean counts of a pixel: a background that is to be found starts there
_FIRMNESS = 1e-3  # of the mean curvature: what an exposure without light is held by

Canvas = Complex[Tensor, "1 H W"]


class PositionSlopes(NamedTuple):
    """Of the negative log-likelihood of each exposure by its position (rows, columns), per px."""

    slope: Float[Tensor, "n 2"]
    curvature: Float[Tensor, "n 2 2"]


def position_slopes(canvas: Canvas, patterns: Patterns) -> PositionSlopes:
    """Slope and expected curvature at the positions that the patterns have."""
    geometry, parts = patterns.geometry, []
    geometry.require_rest("a position")
    forward, _, modulation = geometry.round_trip()
    modulated = canvas * modulation
    for chunk in geometry.chunks():
        patches = geometry.patches(modulated, chunk)[:, None]
        waves = forward(geometry.probes(chunk) * patches)
        changes = optics.probe_slopes(geometry.probe, geometry.residual_px[chunk]) * patches
        expected = geometry.counted(optics.intensity(waves).sum(1), chunk)
        change = 2 * (waves.conj() * forward(changes)).real.sum(2)
        if (sensitivity := geometry.sensitivity(chunk)) is not None:
            change = change * sensitivity
        excess = excess_of(expected, patterns.measured(chunk))
        slope = torch.einsum("nij,anij->na", excess, change)
        weighted = change / (expected + DARK)
        parts.append((slope, torch.einsum("anij,bnij->nab", weighted, change)))
    return PositionSlopes(*(torch.cat(part) for part in zip(*parts, strict=True)))


def position_step(slopes: PositionSlopes, most_px: float) -> Float[Tensor, "n 2"]:
    """The Gauss-Newton step of each exposure, no longer than `most_px`, without their common mean:
    a shift of all of them is one of the object."""
    held = slopes.curvature + _firm(slopes.curvature)
    step = -torch.linalg.solve(held, slopes.slope)
    step = step * (most_px / step.norm(dim=1, keepdim=True).clamp_min(most_px))
    return step - step.mean(0)


def shrunk(
    away_px: Float[Tensor, "n 2"], curvature: Float[Tensor, "n 2 2"]
) -> Float[Tensor, "n 2"]:
    """Displacements from the stated positions, shrunk by their noise (empirical Bayes).

    The inverse curvature is the variance that counting noise gives each estimate; what the
    displacements vary by beyond it is taken for the variance of the true ones. Where the stated
    positions were right nothing is left of the noise."""
    noise = torch.linalg.inv(curvature + _firm(curvature))
    true = (away_px.square().sum(1).mean() - noise.diagonal(dim1=-2, dim2=-1).sum(1).mean()) / 2
    true = true.clamp_min(0) * torch.eye(2).to(noise)
    return torch.einsum("ab,nbc,nc->na", true, torch.linalg.inv(true + noise), away_px)


def affine_step(
    slopes: PositionSlopes, positions_px: Float[Tensor, "n 2"], most_px: float
) -> Float[Tensor, "n 2"]:
    """The Gauss-Newton step of all exposures as one linear map about their middle: scale, rotation
    and shear of the scan; no exposure moves farther than `most_px`."""
    places = (positions_px - positions_px.mean(0)).to(slopes.slope)
    # d_j = A p_j: the four numbers of A move exposure j along `basis[j]`
    basis = torch.einsum("ab,nc->nabc", torch.eye(2).to(places), places).flatten(2)
    slope = torch.einsum("nak,na->k", basis, slopes.slope).double()
    curvature = torch.einsum("nak,nab,nbl->kl", basis, slopes.curvature, basis).double()
    firm = 1e-9 * curvature.diagonal().mean() * torch.eye(4).to(curvature)
    step = torch.einsum("nak,k->na", basis.double(), -torch.linalg.solve(curvature + firm, slope))
    longest = step.norm(dim=1).max()
    return (step * (most_px / longest.clamp_min(most_px))).to(places)


def brightness_step(canvas: Canvas, patterns: Patterns) -> Patterns:
    """The patterns with a better brightness of each exposure."""
    geometry = patterns.geometry
    before = torch.ones(len(geometry)).to(geometry.residual_px)
    before = before if geometry.brightness is None else geometry.brightness
    found = torch.empty_like(before)
    for chunk in geometry.chunks():
        ratio, lit = _shares(canvas, patterns, chunk)
        found[chunk] = before[chunk] * (ratio * lit).sum((1, 2)) / lit.sum((1, 2))
    return replace(patterns, geometry=replace(geometry, brightness=found))


def balanced(patterns: Patterns, probe_known: bool) -> Patterns:
    """The patterns with a brightness of mean 1; the probe takes the mean, unless it is known."""
    geometry = patterns.geometry
    mean = geometry.brightness.mean()
    probe = geometry.probe if probe_known else geometry.probe * mean.sqrt()
    found = replace(geometry, brightness=geometry.brightness / mean, probe=probe)
    return replace(patterns, geometry=found)


def background_step(canvas: Canvas, patterns: Patterns) -> Patterns:
    """The patterns with a better background: of each measured pixel, the same in all exposures."""
    geometry, every = patterns.geometry, torch.arange(len(patterns))
    detector = geometry.detector or Detector(geometry.N)
    if detector.background is None:
        mean = sum(patterns.measured(chunk).sum(0) for chunk in geometry.chunks()) / len(every)
        faint = torch.full_like(mean, _FAINT * float(mean.mean()))
        detector = detector._replace(background=faint)
        geometry = replace(geometry, detector=detector)
        patterns = replace(patterns, geometry=geometry)
    ratios = (_shares(canvas, patterns, chunk)[0].sum(0) for chunk in geometry.chunks())
    background = detector.background * sum(ratios) / len(every)
    moved = replace(geometry, detector=detector._replace(background=background))
    return replace(patterns, geometry=moved)


def moved(geometry: Geometry, step_px: Float[Tensor, "n 2"]) -> Geometry:
    """The exposures a step farther (rows, columns); a patch stays on the canvas."""
    residual = geometry.residual_px + step_px
    whole = residual.round()
    _, height, width = geometry.shape
    most = torch.tensor([height - geometry.M, width - geometry.M]).to(geometry.address)
    corners = geometry.address[:, 1:] + whole.long()
    corners = torch.minimum(corners.clamp_min(0), most)
    taken = (corners - geometry.address[:, 1:]).to(residual)
    address = torch.cat([geometry.address[:, :1], corners], 1)
    return replace(geometry, address=address, residual_px=residual - taken)


def positions_of(geometry: Geometry) -> Float[Tensor, "n 2"]:
    """Patch centres (y, x), px of the object."""
    origin = torch.tensor(geometry.origin).to(geometry.address)
    corners = (geometry.address[:, 1:] + origin).double()
    return corners + geometry.residual_px.double() + geometry.M / 2


class Unknown:
    """Finds what is unknown of the exposures on the way: called with a canvas and patterns it gives
    better ones, and keeps them as `patterns`. No position moves farther than `most_px` a step."""

    def __init__(
        self, patterns: Patterns, unknown: tuple[str, ...], most_px: float, probe_known: bool
    ) -> None:
        self.patterns, self.unknown, self.most_px = patterns, unknown, most_px
        self.probe_known = probe_known
        self.stated = positions_of(patterns.geometry)

    def __call__(self, canvas: Canvas, patterns: Patterns) -> Patterns:
        """One step of each unknown."""
        if "brightness" in self.unknown:
            patterns = balanced(brightness_step(canvas, patterns), self.probe_known)
        if "background" in self.unknown:
            patterns = background_step(canvas, patterns)
        if "affine" in self.unknown:
            slopes, places = position_slopes(canvas, patterns), positions_of(patterns.geometry)
            step = affine_step(slopes, places, self.most_px)
            self.stated = self.stated + step
            patterns = replace(patterns, geometry=moved(patterns.geometry, step))
        if "positions" in self.unknown:
            slopes, places = position_slopes(canvas, patterns), positions_of(patterns.geometry)
            away = places + position_step(slopes, self.most_px) - self.stated
            goal = self.stated + shrunk(away, slopes.curvature.to(away))
            step = (goal - places).to(slopes.slope)
            patterns = replace(patterns, geometry=moved(patterns.geometry, step))
        self.patterns = patterns
        return patterns


def _firm(curvature: Float[Tensor, "n 2 2"]) -> Float[Tensor, "2 2"]:
    """What keeps the curvature of an exposure without light from being 0."""
    mean = curvature.diagonal(dim1=-2, dim2=-1).mean()
    return _FIRMNESS * mean * torch.eye(2).to(curvature)


def _shares(canvas: Canvas, patterns: Patterns, chunk: Tensor) -> tuple[Tensor, Tensor]:
    """Of some exposures: counts over expected ones, 1 where nothing was measured, and the intensity
    at a brightness of 1 where something was."""
    geometry = patterns.geometry
    patches, probes = geometry.patches(canvas, chunk), geometry.probes(chunk)
    intensity = optics.expected_counts(patches, probes, geometry.N)
    expected = geometry.counted(intensity, chunk)
    mask = geometry.detector and geometry.detector.mask
    lit = intensity if mask is None else intensity * mask
    return (patterns.measured(chunk) + DARK) / (expected + DARK), lit
