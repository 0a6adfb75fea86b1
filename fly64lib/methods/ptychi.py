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
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from fly64lib.methods.base import PROBES, MethodResult
from ptycho_torch.data.contract import ScanData, read_scan
from ptycho_torch.errors import DataContractError, MissingDependencyError, PtychoError
from ptycho_torch.fields import check_choice, check_range, check_types
from ptycho_torch.files import write_json

BATCH_SIZES = {"lsqml": 200, "rpie": 1, "dm": 200}  # by method, where none is given
_TOLD_LINES = 15  # of the worker's messages, in an error
_FLAT = 1e-6  # relative spread of |object - 1| under which nothing was reconstructed


@dataclass(frozen=True, kw_only=True)
class LSQML:
    """pty-chi's LSQML (or another method of its, by name) from an empty object.

    Gaussian noise at 1e3 photons gets worse with epochs, and sparse views at 1e3 overfit after a
    few: an earlier stop would have to be chosen by the truth, so the stated number of epochs is
    run."""

    method: str = "lsqml"  # "lsqml", "rpie" or "dm"
    noise_model: str = "poisson"  # or "gaussian"; LSQML only
    epochs: int = 60
    # patterns a step. rPIE adds up the steps of a batch: many that overlap diverge. DM steps on
    batch_size: int | None = None
    # all patterns at once and only holds this many in memory. None: BATCH_SIZES
    momentum: float = 1.0  # gain of the object's momentum; LSQML only
    # share of each step; DM only. Picked by the truth at 1e4 and 1e5 among 1 (pty-chi's), 0.8 ..
    # 0.05
    relaxation: float = 0.05
    probe: str = "known"  # the file's probe is kept, or "refine"d from it
    probe_defocus_rad: float = (
        0.0  # error put on the starting probe, see fly64lib.simulation.probes.defocused
    )
    device: str = "cpu"  # or "gpu"
    threads: int = 1
    seed: int = 0  # pty-chi's step sizes carry a little noise
    timeout_s: float = 3600.0
    progress: bool = False  # a bar on stderr

    def __post_init__(self) -> None:
        check_types(self)
        check_choice("method", self.method, BATCH_SIZES)
        check_choice("noise_model", self.noise_model, ("poisson", "gaussian"))
        check_choice("probe", self.probe, PROBES)
        check_choice("device", self.device, ("cpu", "gpu"))
        check_range("epochs", self.epochs, 1)
        check_range("batch_size", self.batch_size, 1)
        check_range("momentum", self.momentum, 0)
        check_range("relaxation", self.relaxation, 0, 1)
        check_range("threads", self.threads, 1, 1024)
        check_range("timeout_s", self.timeout_s, 1)

    @property
    def name(self) -> str:
        return self.method

    def reconstruct(self, dataset: Path) -> MethodResult:
        """The object of a DATA-001 file, as :class:`MethodResult`; the trace holds pty-chi's loss
        per epoch.

        Raises :class:`MissingDependencyError` without pty-chi, :class:`DataContractError` for data
        that break the contract, and :class:`PtychoError` with the worker's last lines if it fails,
        runs out of time, or gives an object that is not finite or still empty."""
        if importlib.util.find_spec("ptychi") is None:
            raise MissingDependencyError(
                f"{self.method} is pty-chi's, which is not installed: pip install 'fly64[lsqml]'"
            )
        scan = read_scan(dataset)
        if scan.N % 2:
            raise DataContractError(
                f"{dataset}: patterns of {scan.N} px; pty-chi needs an even number: crop or pad"
                " them"
            )
        settings = asdict(self) | {"batch_size": self.batch_size or BATCH_SIZES[self.method]}
        with tempfile.TemporaryDirectory(prefix="ptychi-") as folder:
            trace, arrays = self._run(Path(dataset), Path(folder), settings)
        _check(arrays["object"], scan, dataset, trace)
        peak = float(arrays["peak_memory_mb"])
        return MethodResult(
            object=arrays["object"],
            probe=arrays["probe"] if self.probe == "refine" else None,
            trace=trace,
            seconds=float(arrays["seconds"]),
            cpu_seconds=float(arrays["cpu_seconds"]),
            peak_memory_mb=None if np.isnan(peak) else peak,
            settings=settings,
            note=f"pty-chi {version('ptychi')}; loss: "
            + (
                "root of the summed squared step"
                if self.method == "dm"
                else "mean squared difference of amplitudes"
            ),
        )

    def _run(
        self, dataset: Path, folder: Path, settings: dict
    ) -> tuple[list[dict], dict[str, np.ndarray]]:
        """Trace and result arrays of one worker process."""
        job, result, log = folder / "job.json", folder / "result.npz", folder / "worker.log"
        write_json(
            job, {"dataset": str(dataset.resolve()), "settings": settings, "result": str(result)}
        )
        threads = dict.fromkeys(
            ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self.threads)
        )
        trace, late = [], threading.Event()
        with (
            log.open("w") as messages,
            subprocess.Popen(
                [sys.executable, "-m", "fly64lib.methods.ptychi_worker", str(job)],
                stdout=subprocess.PIPE,
                stderr=messages,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd=Path(__file__).parents[2],
                env=os.environ | threads,
            ) as worker,
        ):
            clock = threading.Timer(self.timeout_s, lambda: (late.set(), worker.kill()))
            clock.start()
            try:
                with tqdm(
                    total=self.epochs, desc=self.method, file=sys.stderr, disable=not self.progress
                ) as bar:
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
            said = "\n".join(log.read_text(errors="replace").splitlines()[-_TOLD_LINES:])
            why = (
                f"took longer than timeout_s={self.timeout_s:g} and was stopped after {len(trace)}"
                f" of {self.epochs} epochs"
                if late.is_set()
                else f"ended with status {worker.returncode}"
            )
            raise PtychoError(
                f"{self.method} on {dataset}: pty-chi's process {why}. It last said:\n{said}"
            )
        with np.load(result) as arrays:
            return trace, dict(arrays)


def _check(canvas: np.ndarray, scan: ScanData, dataset: Path, trace: list[dict]) -> None:
    """Refuse an object that pty-chi spoilt or never touched."""
    lost = np.count_nonzero(~np.isfinite(canvas))
    if lost:
        first = next((row["epoch"] for row in trace if row["loss"] is None), "none")
        raise PtychoError(
            f"{dataset}: pty-chi's object has {lost} pixels that are not finite (first epoch with"
            f" such a loss: {first}); a smaller momentum or batch_size may hold, or the probe does"
            " not fit the data"
        )
    if canvas.shape != scan.canvas_shape:
        raise PtychoError(
            f"{dataset}: pty-chi's object is {canvas.shape} px, the canvas {scan.canvas_shape}"
        )
    if np.abs(canvas - canvas.mean()).max() <= _FLAT * np.abs(canvas).max():
        raise PtychoError(
            f"{dataset}: pty-chi's object is the same everywhere after {len(trace)} epochs: nothing"
            " was reconstructed. Check probe and positions, or run more epochs"
        )
