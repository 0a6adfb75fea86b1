"""The classical control: accelerated Poisson steps, smoothed as much as the data themselves ask.

Minimises over the object O, and over the probe P where it is to be refined,

    f(O, P) = sum_j sum_q [ I_jq - n_jq log I_jq ] + tikhonov * sum |grad O|^2,
    I_j = sum_m |F(P_mj cut_j O)|^2

grad being the differences of neighbouring pixels: Tikhonov's penalty with the prior that fits
images, whose spectra fall with frequency. (A pull of each pixel towards 1 takes away signal and
noise alike: 17.6 dB against 22.0 on a dense view at 1e3 photons, 16.7 without.) This form was
picked among the two by the truth of fly001's recovered object; only the weight is chosen without
it. The weight means a variance of the object, not of the data, so one found on a part of the
photons is used unchanged on all of them. The steps are those of :mod:`ptycho_torch.iteration`.

The weight is set without truth, from a list of weights, largest first: thinning splits the photons
into two independent parts; each weight is fitted to one part and scored on the other until the
score gets worse, and the best is fitted to all photons.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Complex
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from fly64lib.methods.base import (
    MethodResult,
    measured,
    orthogonal_modes,
    starting_probe,
    with_modes,
)
from ptycho_torch.errors import ConfigError, PtychoError
from ptycho_torch.fields import Positive, Seed, Threads, Whole, config
from ptycho_torch.iteration.canvas import canvas_steps, empty, joint_steps
from ptycho_torch.iteration.slopes import gradient
from ptycho_torch.iteration.thinning import ThinnedCounts, past_the_valley
from ptycho_torch.memmap_bridge import RawDataTorch
from ptycho_torch.physics.geometry import Patterns

_ALONE = 20  # steps on the object before a probe joins
_TRACED = 10  # steps between two entries of the trace: a deviance costs as much as half a step

Canvas = Complex[Tensor, "1 H W"]
Observer = Callable[[int, Canvas, Patterns], None] | None
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
    # error put on the starting probe, see fly64lib.simulation.probes.defocused
    probe_defocus_rad: float = 0.0
    seed: Seed = 0  # of the thinning
    threads: Threads = 1
    progress: bool = False  # a bar on stderr

    def __post_init__(self) -> None:
        if self.probe_modes > 1 and self.probe == "known":
            text = f"probe_modes={self.probe_modes} asks for modes to be found, which takes"
            raise ConfigError(f"{text} probe='refine'")

    def reconstruct(self, scan: RawDataTorch) -> MethodResult:
        """The object of a scan; `settings` holds the weight used, and each one's deviance.

        The trace holds the mean Poisson deviance per detector pixel after the first, every tenth
        and the last step of the last fit."""
        torch.set_num_threads(self.threads)
        probe = with_modes(starting_probe(scan, self.probe_defocus_rad), self.probe_modes)
        searching = 0 if self.tikhonov is not None else self.search_steps * len(self.weights)
        trace: list[dict[str, float]] = []
        bar = tqdm(total=self.steps + searching, desc="classical", disable=not self.progress)
        with measured() as cost, bar:
            patterns = Patterns(scan.geometry().under(probe), scan.counts(slice(None)).__getitem__)
            scores = self._search(scan, patterns, bar) if searching else {}
            weight = min(scores, key=scores.get) if searching else self.tikhonov

            def observe(step: int, canvas: Canvas, fitted: Patterns) -> None:
                if step + 1 in (1, self.steps) or (step + 1) % _TRACED == 0:
                    trace.append({"step": step + 1, "deviance": _deviance(canvas, fitted)})
                bar.update()

            start = self._start(patterns, weight)
            canvas, patterns = self._fit(patterns, start, weight, self.steps, observe)
        if not torch.isfinite(torch.view_as_real(canvas)).all():
            text = f"{scan.source}: the object is not finite after {self.steps} steps"
            raise PtychoError(f"{text}: the probe does not fit the data")
        note = "given" if not searching else "chosen on photons held out"
        note += ", the largest tried" if scores and weight == max(scores) else ""
        modes, weights = patterns.geometry.probe, list(self.weights)
        found = {"tikhonov": weight, "weights": weights}
        found["searched_deviance"] = [scores.get(tried) for tried in weights]
        return MethodResult(
            object=patterns.geometry.embed(canvas).numpy(),
            probe=orthogonal_modes(modes).numpy() if self.probe == "refine" else None,
            cost=cost,
            settings=asdict(self) | found,  # type: ignore[call-overload]
            note=f"tikhonov {weight:g} photons per pixel, {note}",
            trace=trace,
        )

    def _fit(
        self, patterns: Patterns, start: Canvas, weight: float, steps: int, observe: Observer = None
    ) -> tuple[Canvas, Patterns]:
        """Accelerated steps on f from `start`; the patterns come back with their last probe."""
        if self.probe == "refine":
            return joint_steps(patterns, start, steps, weight, observe)
        seen = observe and (lambda step, canvas: observe(step, canvas, patterns))
        return canvas_steps(patterns, start, steps, smoothness=weight, observe=seen), patterns

    def _start(self, patterns: Patterns, weight: float) -> Canvas:
        """An empty object; to refine the probe, stepped under the file's, lest both part ways."""
        start = empty(patterns.geometry)
        alone = _ALONE if self.probe == "refine" else 0
        return canvas_steps(patterns, start, alone, smoothness=weight)

    def _search(self, scan: RawDataTorch, whole: Patterns, bar: tqdm) -> dict[float, float]:
        """The deviance per detector pixel of the photons held out, of each weight tried."""
        photons = ThinnedCounts(scan, torch.arange(scan.n), self.keep, self.seed)
        geometry, exposed = whole.geometry, (1 / self.keep - 1) ** 0.5
        patterns = Patterns(geometry.under(geometry.probe * self.keep**0.5), photons.kept)
        middle = float(np.median(self.weights))
        canvas = self._start(patterns, middle)
        if self.probe == "refine":  # all weights are to meet the same, already corrected probe
            canvas, patterns = self._fit(patterns, canvas, middle, self.steps)
        scores: dict[float, float] = {}
        for weight in sorted(self.weights, reverse=True):
            canvas, patterns = self._fit(patterns, canvas, weight, self.search_steps)
            bar.update(self.search_steps)
            held_out = patterns.geometry.under(patterns.geometry.probe * exposed)
            scores[weight] = _deviance(canvas, Patterns(held_out, photons.rest))
            if past_the_valley(scores):
                bar.update(self.search_steps * (len(self.weights) - len(scores)))
                break
        return scores


def _deviance(canvas: Canvas, patterns: Patterns) -> float:
    """Mean Poisson deviance per detector pixel."""
    return float(gradient(canvas, patterns)[1]) / (len(patterns) * patterns.geometry.N**2)
