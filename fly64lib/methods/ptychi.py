"""pty-chi's LSQML, rPIE and DM as methods: the peer that a user would pick instead (`pip install
'fly64[lsqml]'`).

LSQML: Odstrcil, Menzel, Guizar-Sicairos, Opt. Express 26, 3108 (2018); rPIE: Maiden, Johnson, Li,
Optica 4, 736 (2017); DM: Thibault et al., Ultramicroscopy 109, 338 (2009); here as pty-chi 2.x
implements them, run in a process of its own (:mod:`~fly64lib.methods.ptychi_worker`). This side
checks what goes in, shows progress, and checks what comes back: pty-chi itself answers bad counts
or positions off the canvas with a NaN object and no error."""

import importlib.util
import json
import os
import subprocess
import tempfile
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field
from tqdm import tqdm

from fly64lib.methods.base import Cost, MethodResult, Scan
from fly64lib.methods.forked import python
from ptycho_torch.data.contract import write_scan
from ptycho_torch.errors import (
    ConfigError,
    DataContractError,
    MissingDependencyError,
    PtychoError,
)
from ptycho_torch.fields import Positive, Seed, Threads, config, to_dict
from ptycho_torch.files import write_json

Arrays = dict[str, np.ndarray]
_OTHERS = ("MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LAST_LINES = 15  # of the worker's messages, in an error
_FLAT = 1e-6  # relative spread of |object - 1| under which nothing was reconstructed


@config
class PtyChi:
    """A method of pty-chi's, from an empty object."""

    epochs: Positive = 60
    batch_size: Positive = 200  # patterns a step
    probe: Literal["known", "refine"] = "known"  # the file's probe is kept, or refined from it
    # the detector's N pixels, as pty-chi has it, or the object's M with a border not measured
    grid: Literal["detector", "object"] = "detector"
    # error put on the starting probe, see fly64lib.simulation.probes.defocused
    probe_defocus_rad: float = 0.0
    device: Literal["cpu", "gpu"] = "cpu"
    threads: Threads = 1
    seed: Seed = 0  # pty-chi's step sizes carry a little noise
    timeout_s: Annotated[float, Field(ge=1)] = 3600.0
    progress: bool = False  # a bar on stderr

    own_notebook: ClassVar[bool] = True
    method: ClassVar[str]  # of ptychi_worker.OPTIONS
    loss: ClassVar[str] = "mean squared difference of amplitudes"

    def reconstruct(self, scan: Scan) -> MethodResult:
        """The object of a scan; the trace holds pty-chi's loss per epoch.

        Raises :class:`MissingDependencyError` without pty-chi, :class:`ConfigError` without the GPU
        asked for, :class:`DataContractError` for an odd N or M, and :class:`PtychoError` with the
        worker's last lines if it fails, runs out of time, or gives an object that is not finite or
        still empty."""
        if importlib.util.find_spec("ptychi") is None:
            text = f"{self.method} is pty-chi's, which is not installed"
            raise MissingDependencyError(f"{text}: pip install 'fly64[lsqml]'")
        if self.device == "gpu":
            import torch  # here: a study is planned from this module's settings, without torch

            if not torch.cuda.is_available():
                text = "device='gpu' was asked for, and torch finds no GPU here"
                raise ConfigError(f"{text}; use device='cpu'")
        if side := next((side for side in (scan.N, scan.M) if side % 2), None):
            text = f"{scan.source}: patterns or probe of {side} px; pty-chi needs an even number"
            raise DataContractError(f"{text}: crop or pad them")
        settings = to_dict(self) | {"method": self.method}
        with tempfile.TemporaryDirectory(prefix="ptychi-") as folder:
            trace, arrays = self._run(scan, Path(folder), settings)
        _check(arrays["object"], scan, trace)
        peak = float(arrays["peak_memory_mb"])
        seconds = float(arrays["seconds"]), float(arrays["cpu_seconds"])
        return MethodResult(
            object=arrays["object"],
            probe=arrays["probe"] if self.probe == "refine" else None,
            cost=Cost(*seconds, None if np.isnan(peak) else peak),
            settings=settings,
            note=f"pty-chi {version('ptychi')}; loss: {self.loss}",
            trace=trace,
        )

    def _run(self, scan: Scan, folder: Path, settings: dict) -> tuple[list[dict], Arrays]:
        """Trace and result arrays of one worker process."""
        files = {name: folder / f"{name}.npz" for name in ("dataset", "result")}
        write_scan(files["dataset"], scan.scan)
        job, log = folder / "job.json", folder / "worker.log"
        write_json(job, files | {"settings": settings})
        # all libraries read the first; where another is set, it would overrule it. Not one more is
        # set: a server forks only what has its own environment
        limits = ["OMP_NUM_THREADS", *(name for name in _OTHERS if name in os.environ)]
        environment = os.environ | dict.fromkeys(limits, str(self.threads))
        trace, late = [], threading.Event()
        with (
            log.open("w") as messages,
            subprocess.Popen(
                [*python(), "-m", "fly64lib.methods.ptychi_worker", str(job)],
                stdout=subprocess.PIPE,
                stderr=messages,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd=Path(__file__).parents[2],
                env=environment,
            ) as worker,
        ):
            clock = threading.Timer(self.timeout_s, lambda: (late.set(), worker.kill()))
            clock.start()
            try:
                with tqdm(total=self.epochs, desc=self.method, disable=not self.progress) as bar:
                    for line in worker.stdout:
                        trace.append(json.loads(line))
                        bar.set_postfix(loss=trace[-1]["loss"], refresh=False)
                        bar.update()
            except BaseException:  # an interrupted parent must not wait for its worker
                worker.kill()
                raise
            finally:
                clock.cancel()
        if worker.returncode:
            last = "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
            why = f"ended with status {worker.returncode}"
            if late.is_set():
                why = f"took longer than timeout_s={self.timeout_s:g} and was stopped after"
                why += f" {len(trace)} of {self.epochs} epochs"
            text = f"{self.method} on {scan.source}: pty-chi's process {why}. Its last lines"
            raise PtychoError(f"{text}:\n{last}")
        with np.load(files["result"]) as arrays:
            return trace, dict(arrays)


@config
class LSQML(PtyChi):
    """pty-chi's iterative least-squares maximum likelihood, from an empty object

    Gaussian noise at 1e3 photons gets worse with epochs, and sparse views at 1e3 overfit after a
    few: an earlier stop would be chosen by the truth, so the stated number of epochs is run."""

    noise_model: Literal["poisson", "gaussian"] = "poisson"
    momentum: Annotated[float, Field(ge=0)] = 1.0  # gain of the object's momentum

    method: ClassVar[str] = "lsqml"


@config
class LSQMLFine(LSQML):
    """the same on the object's finer grid, the light beside the detector as unmeasured pixels"""

    grid: Literal["detector", "object"] = "object"


@config
class RPIE(PtyChi):
    """pty-chi's regularised ptychographic iterative engine"""

    # patterns a step: it adds up the steps of a batch, so that many that overlap diverge
    batch_size: Positive = 1

    method: ClassVar[str] = "rpie"


@config
class DM(PtyChi):
    """pty-chi's difference map

    It steps on all patterns at once: a batch is what is held in memory."""

    # share of each step. Picked by the truth at 1e4 and 1e5 among 1 (pty-chi's), 0.8 .. 0.05
    relaxation: Annotated[float, Field(ge=0, le=1)] = 0.05

    method: ClassVar[str] = "dm"
    loss: ClassVar[str] = "root of the summed squared step"


def _check(canvas: np.ndarray, scan: Scan, trace: list[dict]) -> None:
    """Refuse an object that pty-chi spoilt or never touched."""
    lost, shape = np.count_nonzero(~np.isfinite(canvas)), scan.scan.canvas_shape
    if lost:
        first = next((row["epoch"] for row in trace if row["loss"] is None), "none")
        text = f"{scan.source}: pty-chi's object has {lost} pixels that are not finite (first epoch"
        text += f" with such a loss: {first}); a smaller momentum or batch_size may hold, or the"
        raise PtychoError(f"{text} probe does not fit the data")
    if canvas.shape != shape:
        raise PtychoError(f"{scan.source}: pty-chi's object is {canvas.shape} px, not {shape}")
    if np.abs(canvas - canvas.mean()).max() <= _FLAT * np.abs(canvas).max():
        text = f"{scan.source}: pty-chi's object is the same everywhere after {len(trace)} epochs:"
        text += " nothing was reconstructed. Check probe and positions, or run more epochs"
        raise PtychoError(text)
