"""The classical control's settings; :mod:`~fly64lib.methods.penalised_fit` is what it does."""

from typing import Annotated, Literal

from pydantic import Field

from fly64lib.methods.base import MethodResult, Scan
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import SEVERAL, Positive, Seed, Threads, Whole, config

UNKNOWNS = ("affine", "positions", "brightness", "background")
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Weights = Annotated[tuple[Weight, ...], Field(min_length=1)]


@config
class Classical:
    """accelerated gradient iteration on the whole canvas, its smoothness tuned on held-out
    photons"""

    steps: Positive = 80  # of the last fit
    tikhonov: Weight | None = None  # photons per object pixel; None: chosen on photons held out
    weights: Weights = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)  # that the choice tries
    search_steps: Positive = 12  # a weight, each starting from the object of the next larger one
    keep: Annotated[float, Field(ge=0.05, le=0.99)] = 0.8  # share of the photons it is fitted to
    probe: Literal["known", "refine"] = "known"  # the file's probe is kept, or refined from it
    # incoherent modes of a refined probe, at least; those that the file does not have start faint
    probe_modes: Annotated[Whole, Field(ge=1, le=16)] = 1
    # of the exposures: positions one by one or as a linear map of all, brightness, background
    unknown: Annotated[tuple[Literal[UNKNOWNS], ...], SEVERAL] = ()
    # error put on the starting probe, see fly64lib.simulation.probes.defocused
    probe_defocus_rad: float = 0.0
    seed: Seed = 0  # of the thinning
    threads: Threads = 1
    progress: bool = False  # a bar on stderr

    def __post_init__(self) -> None:
        if self.probe_modes > 1 and self.probe == "known":
            text = f"probe_modes={self.probe_modes} asks for modes to be found, which takes"
            raise ConfigError(f"{text} probe='refine'")

    def reconstruct(self, scan: Scan) -> MethodResult:
        """The object of a scan; `settings` holds the weight used, and each one's deviance.

        The trace holds the mean Poisson deviance per detector pixel after the first, every tenth
        and the last step of the last fit."""
        from fly64lib.methods.penalised_fit import reconstruct

        return reconstruct(scan, self)
