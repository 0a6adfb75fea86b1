"""What an import and an export are asked to do: the options of their command lines."""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from fly64lib.formats.base import Above0, Optics, formats_that
from ptycho_torch.fields import Positive, Whole, config

Orientation = Literal[
    "as-given", "flip-y", "flip-x", "flip-yx", "swap", "swap-flip-y", "swap-flip-x", "swap-flip-yx"
]
Kind = Literal["truth", "reconstruction", "initial"]


def _listed(way: Literal["read", "write"], default: str) -> object:
    """Help of --format, with the names that the registry has when it is asked."""
    return tyro.conf.arg(
        metavar="NAME",
        help_behavior_hint=lambda _: f"({', '.join(formats_that(way))}; default: {default})",
    )


@config
class Keys:
    """Names of the data sets of an HDF5 or npz file of no known format. With `patterns_key`,
    nothing else of the file is read."""

    patterns_key: str | None = None  # (n, N, N) counts
    positions_key: str | None = None  # (n, 2), y then x, in --position-unit
    y_key: str | None = None  # (n,), in place of positions, with x
    x_key: str | None = None  # (n,)
    numbers_key: str | None = None  # (n,) number of the pattern that each position belongs to
    mask_key: str | None = None  # (N, N), other than 0 where a pixel is bad
    probe_key: str | None = None  # (modes, N, N) complex


@config
class ImportOptions:
    """Another program's scan as DATA-001, checked by the forward model and shown in a picture.

    What the file does not say is found in the data, or asked for by an option; nothing is guessed
    silently."""

    source: tyro.conf.Positional[Path]  # a scan, perhaps packed as .bz2
    target: tyro.conf.Positional[Path]  # DST.npz
    format: Annotated[str | None, _listed("read", "found by the file's keys")] = None  # of SRC
    parameters: Path | None = None  # pty-chi's second file, if it has another name
    follow_links: bool = False  # HDF5: also open files beside SRC that it links to
    keys: Keys = Keys()
    first: Positive | None = None  # take the first patterns and positions only
    # leave these patterns out, and their positions: 110,3-5, counted from 0
    drop_patterns: str | None = None
    # number of the first pattern where positions have numbers; without any they count 0, 1, 2, so
    # that 1 leaves out the first position, and -1 the first pattern
    first_number: int | None = None
    probe: Path | None = None  # take probeGuess from this npz
    # where nothing gives a probe: one made from the mean pattern, out of focus as fits best
    first_probe: bool = False
    crop: Annotated[Whole, Field(ge=2)] | None = None  # keep the central N x N detector pixels
    bin: Positive = 1  # sum K x K detector pixels, after the crop
    centre: tuple[int, int] | None = None  # row and column of zero frequency, for the crop
    # of the frames; else found in the mean pattern
    zero_frequency: Literal["centre", "corner"] | None = None
    values: Literal["intensity", "amplitude"] | None = None  # else found in the values
    photons_per_unit: Above0 | None = None  # photons that an intensity of 1 stands for
    round: bool = False  # round to whole photons, which training asks for
    # mask: leave them out, as detector_mask; zero: as if no photon had come there
    bad_pixels: Literal["refuse", "mask", "zero"] = "refuse"
    # single values that are no counts, in pixels that are good otherwise: at most 0.1 % of all
    bad_values: Literal["refuse", "zero"] = "refuse"
    position_unit: Literal["px", "m", "um", "nm"] | None = None  # else the format's
    pixel_size_nm: Above0 | None = None  # object pixel of the frames before --crop
    energy_kev: Above0 | None = None  # in place of the file's
    distance_m: Above0 | None = None  # specimen to detector, in place of the file's
    detector_pixel_um: Above0 | None = None  # in place of the file's
    # of the positions: first swap y and x, then flip; auto: the forward model decides
    orientation: Literal["auto"] | Orientation = "auto"
    no_object: bool = False  # leave the file's object out, and start from ones
    object_kind: Kind | None = None  # else the file's word
    probe_kind: Kind | None = None  # else the file's word
    picture: str | None = None  # PNG, else beside the result; none: no picture
    overwrite: bool = False  # replace DST.npz


@config
class ExportOptions:
    """A DATA-001 scan in another program's format, its object as an image, or with a result in it.

    A name .cxi, .tif, .png or .npz says the format; PREFIX --format ptychi makes the pair
    PREFIX_dp.hdf5, PREFIX_para.hdf5. With --object, .npz is a reconstruction as DATA-001."""

    source: tyro.conf.Positional[Path]  # SRC.npz, a DATA-001 scan
    target: tyro.conf.Positional[Path]  # DST
    format: Annotated[str | None, _listed("write", "by the ending of DST")] = None  # of DST
    object: Path | None = None  # a reconstruction's object.npz, in place of objectGuess
    optics: Optics = Optics()
