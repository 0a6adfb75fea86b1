"""The classical control's settings; :mod:`~fly64lib.methods.penalised_fit` is what it does."""

from typing import Annotated, Literal

from pydantic import Field

from fly64lib.methods.base import MethodResult, Scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import SEVERAL, Positive, Seed, Threads, Whole, config

UNKNOWNS = ("affine", "positions", "brightness", "background")
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@config
class Classical:
    """Gauss-Newton iteration on the whole canvas under a prior that photons held out choose"""

    steps: Positive = 24  # conjugate gradient steps of the last fit
    # of the image prior, photons per object pixel at 1 rad a pixel; None: weight, slope, amplitude,
    # correlation and spectrum are chosen on photons held out
    weight: Weight | None = None
    slope: Annotated[float, Field(ge=1, le=6)] = 4.0  # of the prior's falling power
    # "rings": a spectrum of the scan's own in place of a power law that was chosen, where photons
    # held out prefer it by more than chance
    spectrum: Literal["law", "rings"] = "rings"
    # how much firmer the prior holds the log amplitude than the phase, and how the two go together
    amplitude: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    correlation: Annotated[float, Field(gt=-1, lt=1)] = 0.0
    keep: Annotated[float, Field(ge=0.05, le=0.99)] = 0.8  # share of the photons it is fitted to
    probe: Literal["known", "refine"] = "known"  # the file's probe is kept, or refined from it
    # incoherent modes of a refined probe, at least; those that the file does not have start faint
    probe_modes: Annotated[Whole, Field(ge=1, le=16)] = 1
    # of the exposures: positions one by one or as a linear map of all, brightness, background
    unknown: Annotated[tuple[Literal[UNKNOWNS], ...], SEVERAL] = ()
    # of the object's: how far the sample went during an exposure, towards the next position in the
    # scan's order, as in a fly scan; taken where photons held out ask for it, the probe known
    motion_px: Annotated[float, Field(ge=0, le=32)] = 0.0
    joint_steps: Positive = 80  # on object, probe and exposures together, where these are sought
    # photons per object pixel, holds the slopes of the object meanwhile
    tikhonov: Weight = 10.0
    # error put on the starting probe, see fly64lib.simulation.probes.defocused
    probe_defocus_rad: float = 0.0
    seed: Seed = 0  # of the thinning
    threads: Threads = 1
    progress: bool = False  # a bar on stderr

    def __post_init__(self) -> None:
        if self.probe_modes > 1 and self.probe == "known":
            text = f"probe_modes={self.probe_modes} asks for modes to be found, which takes"
            raise ConfigError(f"{text} probe='refine'")
        if self.motion_px and self.joint:
            text = f"motion_px={self.motion_px:g} is of a known probe and known exposures"
            raise ConfigError(f"{text}: leave it, or probe='refine' and unknown, out")

    @property
    def joint(self) -> bool:
        """Whether more than the object is to be found."""
        return self.probe == "refine" or bool(self.unknown)

    @property
    def as_filed(self) -> bool:
        """Whether the object is fitted under the file's own probe and exposures."""
        return not (self.joint or self.probe_defocus_rad or self.motion_px)

    def reconstruct(self, scan: Scan) -> MethodResult:
        """The object of a scan; `settings` holds the prior used, and the deviance of each tried.

        The trace holds the mean Poisson deviance per detector pixel, every tenth joint step and
        before each linearisation and after the last."""
        from fly64lib.methods.penalised_fit import reconstruct

        return reconstruct(scan, self)
