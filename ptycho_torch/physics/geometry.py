"""Where exposures lie on an object and under which probe, and the counts measured there.

A *canvas* is the rectangle of the object that an iteration or a network works on. A geometry is an
experiment without its counts: expected counts, fluence, and the way between canvas and object need
nothing else. With counts it is the patterns of a scan."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int, Num
from torch import Tensor

from ptycho_torch.errors import ConfigError
from ptycho_torch.physics import optics
from ptycho_torch.physics.patches import cut, on_canvas, paste, split_positions

CHUNK = 64  # patterns held at once: few enough for a CPU's cache; results change by rounding only
# Of up to this many 64 px patterns the shifted probes are kept; beyond it they are made again.
_CACHED_PATTERNS = 2048
MOST_SUBSETS = 16
# of the way that an exposure is averaged over; four as many change the patterns by under 1e-3
MOMENTS_PER_PX = 2


class Detector(NamedTuple):
    """What is measured of the far field: the central N x N pixels of it, those of a mask, and what
    they count without the probe's light."""

    N: int
    mask: Bool[Tensor, "N N"] | None = None  # True where a pixel was measured; None: everywhere
    background: Float[Tensor, "N N"] | None = None  # expected counts of an exposure

    @property
    def measured_px(self) -> int:
        """How many pixels of a pattern were measured."""
        return self.N**2 if self.mask is None else int(self.mask.sum())

    def fainter(self, share: float) -> "Detector":
        """As a share of the photons would have been measured."""
        background = None if self.background is None else self.background * share
        return self._replace(background=background)


@dataclass(frozen=True)
class Geometry:
    """Exposures on one or more canvases of one size.

    `address` is (canvas, row, column) of each exposure's patch of M x M pixels, `residual_px` the
    sub-pixel rest of its position, `shape` (canvases, height, width), and `window` the rows and
    columns of the object that a single canvas covers. Without a `detector` it has the patches' M
    pixels; `brightness` is how bright each exposure was beside the others; `way_px` how far the
    sample went during each, about its position."""

    address: Int[Tensor, "n 3"]
    residual_px: Float[Tensor, "n 2"]
    probe: Complex[Tensor, "modes M M"]
    shape: tuple[int, int, int]
    object_shape: tuple[int, int] | None = None
    origin: tuple[int, int] = (0, 0)
    detector: Detector | None = None
    brightness: Float[Tensor, " n"] | None = None
    way_px: Float[Tensor, "n 2"] | None = None
    passes: bool = True  # several will be made: shifted probes and counts are worth keeping
    _kept: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        positions_px: Float[Tensor, "n 2"],
        probe: Complex[Tensor, "modes M M"],
        object_shape: tuple[int, int] | None = None,
        *,
        whole: bool = False,
        detector: Detector | None = None,
        brightness: Float[Tensor, " n"] | None = None,
    ) -> "Geometry":
        """Exposures at patch centres (y, x), px of an object of `object_shape`.

        The canvas is the bounding box of their patches; `whole`: all of the object."""
        M = probe.shape[-1]
        corners, residual = split_positions(positions_px, M)
        origin = torch.zeros(2, dtype=torch.long) if whole else corners.amin(0)
        size = object_shape if whole else (corners.amax(0) - origin + M).tolist()
        place = (1, *size), object_shape, tuple(origin.tolist())
        address = on_canvas(corners - origin)
        return cls(address, residual, probe, *place, detector, brightness)

    def __len__(self) -> int:
        return len(self.address)

    @property
    def M(self) -> int:
        """Edge of a patch, and of the probe, px of the object."""
        return self.probe.shape[-1]

    @property
    def N(self) -> int:
        """Edge of a pattern, px of the detector."""
        return self.M if self.detector is None else self.detector.N

    @property
    def measured_px(self) -> int:
        """How many pixels of a pattern were measured."""
        return self.M**2 if self.detector is None else self.detector.measured_px

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the object under the canvas."""
        (row, column), (_, height, width) = self.origin, self.shape
        return slice(row, row + height), slice(column, column + width)

    def crop(self, whole: Complex[Tensor, "H W"]) -> Complex[Tensor, "1 h w"]:
        """The canvas of an object."""
        return whole[self.window][None]

    def embed(self, canvas: Tensor, outside: Tensor | float = 1.0) -> Tensor:
        """An object (H, W) with the canvas (1, h, w) in its place and `outside` beside it."""
        whole = torch.ones(self.object_shape, dtype=canvas.dtype, device=canvas.device) * outside
        whole[self.window] = canvas[0]
        return whole

    def under(self, probe: Complex[Tensor, "modes M M"]) -> "Geometry":
        """The same exposures under another probe."""
        return replace(self, probe=probe)

    def fainter(self, share: float) -> "Geometry":
        """The same exposures with a share of their photons."""
        detector = self.detector and self.detector.fainter(share)
        return replace(self, probe=self.probe * share**0.5, detector=detector)

    def at(self, indices: Int[Tensor, " m"]) -> "Geometry":
        """Some of the exposures, on the same canvas."""
        names = ("address", "residual_px", "brightness", "way_px")
        of_each = {name: getattr(self, name) for name in names}
        return replace(self, **{k: v if v is None else v[indices] for k, v in of_each.items()})

    def chunks(self, indices: Int[Tensor, " m"] | None = None) -> Iterator[Int[Tensor, " chunk"]]:
        """Indices of all exposures, or of the given ones, CHUNK at a time."""
        every = torch.arange(len(self), device=self.address.device)
        return iter((every if indices is None else indices).split(CHUNK))

    def probes(self, indices: Int[Tensor, " n"]) -> Complex[Tensor, "n modes M M"]:
        """The probe at the sub-pixel part of each position; of a sample that moves, at moments of
        its way, as so many more modes."""
        return _kept(self, self._kept, self._shifted, indices)

    def require_rest(self, sought: str) -> None:
        """ConfigError where the sample moves, while what is sought has slopes that know no way."""
        if self.way_px is not None:
            raise ConfigError(f"the sample moves; expected one at rest while {sought} is sought")

    def _shifted(self, indices: Int[Tensor, " n"]) -> Complex[Tensor, "n modes M M"]:
        at = self.residual_px[indices]
        if self.way_px is None:
            return optics.shift_probe(self.probe, at)
        shares = moments(float(self.way_px.norm(dim=1).max()))
        parts = [optics.shift_probe(self.probe, at + t * self.way_px[indices]) for t in shares]
        return torch.cat(parts, 1) / len(shares) ** 0.5

    def round_trip(self) -> tuple[optics.Transform, optics.Transform, Tensor]:
        """Transforms to the detector and back, and what a canvas is multiplied by before:
        :func:`~ptycho_torch.physics.optics.round_trip`."""
        return optics.round_trip(self.M, self.N, self.shape[1:], self.probe.device)

    def patches(
        self, canvas: Num[Tensor, "canvases H W"], indices: Int[Tensor, " n"]
    ) -> Num[Tensor, "n M M"]:
        """What the exposures see of the canvas, before the probe."""
        return cut(canvas, self.address[indices], self.M)

    def expected(
        self, canvas: Complex[Tensor, "canvases H W"], indices: Int[Tensor, " n"]
    ) -> Float[Tensor, "n N N"]:
        """Expected counts of some exposures, from a canvas; 0 where nothing was measured."""
        patches, probes = self.patches(canvas, indices), self.probes(indices)
        return self.counted(optics.expected_counts(patches, probes, self.N), indices)

    def counted(
        self, intensity: Float[Tensor, "n N N"], indices: Int[Tensor, " n"]
    ) -> Float[Tensor, "n N N"]:
        """Expected counts from the intensity on the detector at a brightness of 1."""
        sensitivity = self.sensitivity(indices)
        counts = intensity if sensitivity is None else intensity * sensitivity
        if self.detector is None or self.detector.background is None:
            return counts
        background, mask = self.detector.background, self.detector.mask
        return counts + (background if mask is None else background * mask)

    def sensitivity(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n_or_1 *N_N"] | None:
        """Counts for a photon of :meth:`counted`'s intensity: each exposure's brightness where a
        pixel was measured, else 0. None: 1 everywhere."""
        mask = self.detector and self.detector.mask
        if self.brightness is None:
            return None if mask is None else mask.to(self.residual_px)[None]
        bright = self.brightness[indices, None, None]
        return bright if mask is None else bright * mask

    def fluence(self) -> Float[Tensor, "canvases H W"]:
        """Photons per object pixel, sum over positions and modes of |P|^2."""
        return self.subset_fluence(1)[0]

    def places(self) -> Int[Tensor, " n"]:
        """A number 0 .. MOST_SUBSETS - 1 for each exposure; neighbours have different ones."""
        if "places" not in self._kept:
            places = torch.zeros(len(self), dtype=torch.long)
            leaves = _neighbourhoods(self.address.cpu().numpy(), MOST_SUBSETS)
            for turn, leaf in enumerate(leaves):
                first = turn if len(leaf) < MOST_SUBSETS else 0
                places[leaf] = (torch.arange(len(leaf)) + first) % MOST_SUBSETS
            self._kept["places"] = places.to(self.address.device)
        return self._kept["places"]

    def subset_fluence(self, count: int) -> Float[Tensor, "count canvases H W"]:
        """Fluence of each of `count` subsets (a power of two): the exposures whose places are equal
        modulo `count`."""
        if "fluence" not in self._kept:
            # several canvases are small and stepped whole
            several = MOST_SUBSETS if self.shape[0] == 1 else 1
            fluence = torch.zeros(several, *self.shape, device=self.address.device)
            address = self.address.clone()
            address[:, 0] += self.places() % several if several > 1 else 0
            for chunk in self.chunks():
                power = optics.intensity(self.probes(chunk)).sum(1)
                if self.brightness is not None:
                    power *= self.brightness[chunk, None, None]
                flat = fluence.flatten(0, 1).shape
                fluence += paste(power, address[chunk], flat).view(fluence.shape)
            self._kept["fluence"] = fluence
        return self._kept["fluence"].view(-1, count, *self.shape).sum(0)

    def worth_keeping(self) -> bool:
        """Whether what several passes need again is kept: of a scan that is small enough."""
        return self.passes and len(self) * self.M**2 <= _CACHED_PATTERNS * 64**2


def moments(longest_px: float) -> np.ndarray:
    """The moments of an exposure, as shares of its way from -1/2 to 1/2: MOMENTS_PER_PX of the
    `longest_px` of a scan, and three at least."""
    count = max(3, math.ceil(longest_px * MOMENTS_PER_PX))
    return (np.arange(count) + 0.5) / count - 0.5


def ways(positions: Float[np.ndarray, "n 2"], length_px: float) -> Float[np.ndarray, "n 2"]:
    """How a sample that moves goes during each exposure, (rows, columns) in px, of a scan in the
    order it was taken: from the position before towards the one after. A stage that stands does not
    move either."""
    way = np.gradient(positions, axis=0)
    return length_px * way / np.maximum(np.hypot(*way.T), 1e-12)[:, None]


@dataclass(frozen=True)
class Patterns:
    """Measured patterns and where they lie; `counts` serves any indices, from memory or a file."""

    geometry: Geometry
    counts: Callable[[Tensor], Float[Tensor, "n N N"]]
    _kept: dict = field(default_factory=dict, init=False, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.geometry)

    def measured(self, indices: Int[Tensor, " n"]) -> Float[Tensor, "n N N"]:
        """The counts, kept for all of a scan that is small enough."""
        return _kept(self.geometry, self._kept, self.counts, indices)

    def under(self, probe: Complex[Tensor, "modes M M"]) -> "Patterns":
        """The same patterns under another probe."""
        same = replace(self, geometry=self.geometry.under(probe))
        same._kept.update(self._kept)  # counts know nothing of the probe
        return same


def _kept(
    geometry: Geometry, store: dict, make: Callable[[Tensor], Tensor], indices: Tensor
) -> Tensor:
    """What `make` gives for indices; made once for all exposures where that is worth keeping. Not
    to be written to: of exposures in a row it is what is kept itself, since a copy of many modes
    costs as much as their product with a patch."""
    if not geometry.worth_keeping():
        return make(indices)
    if "made" not in store:
        store["made"] = torch.cat([make(chunk) for chunk in geometry.chunks()])
    in_a_row = len(indices) > 0 and bool((indices.diff() == 1).all())
    return store["made"][int(indices[0]) :][: len(indices)] if in_a_row else store["made"][indices]


def _neighbourhoods(address: np.ndarray, size: int) -> list[np.ndarray]:
    """Indices of the patches in groups of `size` neighbours, by halving along the longer side (a
    k-d tree's leaves)."""
    waiting, leaves = [np.arange(len(address))], []
    while waiting:
        members = waiting.pop()
        if len(members) <= size:
            leaves.append(members)
            continue
        places = address[members]
        longer = np.ptp(places, axis=0).argmax()
        members = members[np.argsort(places[:, longer], kind="stable")]
        middle = min(max(size, round(len(members) / 2 / size) * size), len(members) - 1)
        waiting += [members[middle:], members[:middle]]
    return leaves
