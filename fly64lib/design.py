"""The study's design: which doses, views, seeds and settings, in one frozen, JSON-ready object."""

import argparse
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ptycho_torch.commands import add_option
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import check_choice, check_range, check_types, from_dict

VIEWS = ("baseline", "dense", "sparse")
VIEW_GRIDSIZE = {"baseline": 1, "dense": 2, "sparse": 2}
CONTROL_VIEWS = (
    "dense_spread",
    "sparse_spread",
    "dense_fluence",
    "sparse_fluence",
)  # single images
SPECIMEN_NAMES = (
    "siemens_star",
    "dead_leaves",
    "lines",
)  # fly64lib.simulation.specimens.SPECIMENS, named without importing numpy
SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class StudyDesign:
    """Everything that decides the data of the study; the methods' settings are their own."""

    specimen: str = "siemens_star"  # a name of fly64lib.simulation.specimens.SPECIMENS
    simulation: str = (
        "fine"  # "fine": on a grid twice as fine, cropped; "matched": the reconstruction's own grid
    )
    N: int = 64  # detector side, pixels
    # keep every scan_step-th row and sample of the scan: a smaller study, not compared with others
    scan_step: int = 1
    doses: tuple[float, ...] = (1e3, 1e4, 1e5)  # expected detected photons per exposure
    overlaps: dict[str, float] = field(
        default_factory=lambda: {"dense": 0.7, "sparse": 0.2}
    )  # linear overlap f
    gridsizes: tuple[int, ...] = (1, 2)
    neighbor_count: int = 7  # K
    split_axis: str = "y"
    guard_power: float = (
        0.98  # the guard band is twice the radius that holds this share of the probe's power
    )
    simulation_seed: int = 42
    grouping_seed: int = 123
    subsample_seed: int = 456
    replicate: int = 0  # moves noise draw, view selection and initial weights together
    ms_ssim_scales: int = 3
    ssim_sigma_px: float = 1.5
    frc_threshold: float = 0.5

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(
            self, "doses", tuple(map(float, self.doses))
        )  # equal designs, equal JSON
        check_choice("specimen", self.specimen, SPECIMEN_NAMES)
        check_choice("simulation", self.simulation, ("fine", "matched"))
        check_choice("split_axis", self.split_axis, ("y",))
        check_range("N", self.N, 16, 1024)
        check_range("scan_step", self.scan_step, 1, 16)
        check_range("guard_power", self.guard_power, 0.5, 0.999)
        check_range("replicate", self.replicate, 0, 9999)
        if not self.doses or len(set(map(dose_folder, self.doses))) < len(self.doses):
            raise ConfigError(
                f"doses={self.doses} must be different whole numbers of photons, at least one"
            )
        for dose in self.doses:
            check_range("dose", dose, 1)
        for gridsize in self.gridsizes:
            check_choice("gridsize", gridsize, (1, 2))
        check_range("neighbor_count", self.neighbor_count, max(self.gridsizes) ** 2, 64)
        check_choice("views of overlaps", tuple(sorted(self.overlaps)), [("dense", "sparse")])
        for view, overlap in self.overlaps.items():
            check_range(f"overlap of {view}", overlap, 0, 0.99)
        check_choice("ms_ssim_scales", self.ms_ssim_scales, (3,))

    def seed(self, base: int) -> int:
        """The seed `base` of this replicate."""
        return base + 1000 * self.replicate

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values; :meth:`from_dict` is the way back."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "StudyDesign":
        """The inverse of :meth:`to_dict`; unknown keys fail."""
        return from_dict(cls, values)


def dose_folder(dose: float) -> str:
    """`dose_1000`: the folder of a dose in photons per exposure."""
    if not float(dose).is_integer():  # NaN and infinity are none either
        raise ConfigError(f"dose={dose!r} is not a whole number of photons per exposure")
    return f"dose_{int(dose)}"


def split_file(phase_c_root: str | Path, dose: float, split: str) -> Path:
    """Phase C's file of a dose and split."""
    return Path(phase_c_root) / dose_folder(dose) / f"patched_{split}.npz"


def held_out_file(phase_c_root: str | Path, dose: float) -> Path:
    """Phase C's patterns of the test half that no method gets: every method's object is scored on
    the same ones."""
    return Path(phase_c_root) / dose_folder(dose) / "held_out_test.npz"


def view_file(
    phase_c_root: str | Path, phase_d_root: str | Path, dose: float, view: str, split: str
) -> Path:
    """The file that holds a view of a split: phase C's for the baseline, phase D's for all
    others."""
    if view == "baseline":
        return split_file(phase_c_root, dose, split)
    return Path(phase_d_root) / dose_folder(dose) / view / f"{view}_{split}.npz"


# TRANSITION to options made from configurations
def add_design_options(parser: argparse.ArgumentParser) -> None:
    """Options that choose data: dose, specimen, simulation, N, replicate."""
    default = StudyDesign()
    parser.add_argument(
        "--dose",
        type=float,
        action="append",
        metavar="PHOTONS",
        help="photons per exposure, may be repeated (default:"
        f" {', '.join(f'{d:g}' for d in default.doses)})",
    )
    parser.add_argument(
        "--specimen", default=default.specimen, help="embedded specimen (default: %(default)s)"
    )
    parser.add_argument(
        "--simulation",
        default=default.simulation,
        choices=("fine", "matched"),
        help="grid of the simulation (default: %(default)s)",
    )
    parser.add_argument(
        "--N", type=int, default=default.N, help="detector side in pixels (default: %(default)s)"
    )
    add_option(
        parser,
        "--scan-step",
        type=int,
        default=1,
        help="keep every n-th row and sample (default: 1, all)",
    )
    parser.add_argument(
        "--replicate", type=int, default=0, help="moves noise, view and initial weights together"
    )


def design_from(options: argparse.Namespace) -> StudyDesign:
    """The design that the options of :func:`add_design_options` describe."""
    doses = tuple(options.dose) if options.dose else StudyDesign().doses
    return StudyDesign(
        doses=doses,
        specimen=options.specimen,
        simulation=options.simulation,
        N=options.N,
        scan_step=options.scan_step,
        replicate=options.replicate,
    )
