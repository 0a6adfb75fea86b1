"""What every test may ask for: the public real scan, and an untouched `params.cfg`.

The real scan is a public file that is not part of the repository. Where it is absent, the tests
that need it do not run, and the last lines of the report say so by name."""

import copy
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jaxtyping
import pytest
import shape_checks

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # before torch is imported: the tests' arrays are too small for threads
# Else each worker compiles every test, and each of some hundred processes the project, anew.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
REAL_SCAN = "fly001_real_N64_every20th.npz"
REAL_STAR = "siemens-star-small.npz.bz2"  # the public file that it was made from
SHAPED = (
    "physics.optics",
    "physics.patches",
    "physics.noise",
    "physics.geometry",
    "iteration.canvas",
    "iteration.slopes",
    "iteration.subsets",
    "iteration.nesterov",
    "iteration.thinning",
    "iteration.image_prior",
    "iteration.newton",
    "iteration.posterior",
    "iteration.prior_search",
    "iteration.ring_prior",
    "network.features",
    "network.unet",
    "network.model",
    "network.poisson_loss",
    "inference.apply",
    "inference.refinement",
)
# Shapes and dtypes in these modules' signatures are checked in the tests of rooms that compute.
# Elsewhere the checks would only be paid for.
SHAPED_STUDY = (
    *("experiment", "imperfections", "overlap_measures"),
    *("families", "pretraining", "split", "views"),
)
shape_checks.install(
    [f"ptycho_torch.{name}" for name in SHAPED]
    + [f"fly64lib.simulation.{name}" for name in SHAPED_STUDY]
)
sys.modules.setdefault("rfc3987_syntax", None)  # as fly64lib.notebook.paths says
CHECKED = {"data", "evaluation", "inference", "iteration", "methods", "network", "physics"}
CHECKED |= {"simulation", "training"}
_not_run: list[str] = []
# Whole studies and kernels, the longest first: one that starts last leaves the other workers idle.
# What shares a study or a fork server stands together, for a worker makes its own.
LONG = ("test_faults", "test_sweep", "test_tutorial", "test_notebooks", "test_forked")
LONG += ("test_cut_scan", "test_plan", "test_infer", "test_importing", "test_extending")
LONG += ("test_own_scan", "test_training", "test_packaging", "test_ptychi", "test_site")
LONG += ("test_one_setting", "test_interrupts")


@pytest.hookimpl(tryfirst=True)  # before fixtures are made
def pytest_runtest_setup(item: pytest.Item) -> None:
    jaxtyping.config.update("jaxtyping_disable", item.path.parent.name not in CHECKED)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(name) if (name := item.path.stem) in LONG else len(LONG))


FOREIGN_METRIC = """
from fly64lib.evaluation.metrics import metric

@metric("phase bias", "rad", higher_is_better=False, curve=True, format=".4f")
def phase_bias(pair):
    return float(abs(pair.phase_error.mean()))

Entry = phase_bias
"""


@pytest.fixture
def foreign_metric(tmp_path: Path) -> Iterator[str]:
    """The name of a metric of another installed package: the mean wrapped phase error."""
    from other_package import installed

    from fly64lib.design.registries import METRICS

    with installed(tmp_path / "installed", METRICS, "phase_bias", FOREIGN_METRIC):
        yield "phase_bias"


@pytest.fixture
def real_scan_path(request: pytest.FixtureRequest) -> Path:
    """The public twentieth of the measured scan fly001, in $FLY64_DATA, else in ../shared/data
    beside the project."""
    return _real_file(request, REAL_SCAN)


@pytest.fixture
def real_star_path(request: pytest.FixtureRequest) -> Path:
    """The public archive of the same patterns, 128 x 128 px, in the same folder."""
    return _real_file(request, REAL_STAR)


def _real_file(request: pytest.FixtureRequest, name: str) -> Path:
    asked = os.environ.get("FLY64_DATA")
    path = Path(asked or Path(__file__).resolve().parents[2] / "shared" / "data") / name
    if not path.is_file():
        if asked:
            pytest.fail(f"FLY64_DATA is set to {asked}, but {name} is not there")
        _not_run.append(f"{request.node.nodeid}: {name}")
        pytest.skip(f"NOT RUN: the real scan {name} is not at {path}; set FLY64_DATA to its folder")
    return path


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say plainly which tests of the real data did not run."""
    if _not_run:
        terminalreporter.section("NOT RUN: tests on the real measured scan")
        terminalreporter.write_line(
            "a real file was not found; set FLY64_DATA to its folder to run these:"
        )
        for name in _not_run:
            terminalreporter.write_line(f"  {name}")


@pytest.fixture(autouse=True)
def _legacy_parameters_restored():
    """`params.cfg` is the one global that upstream's tools read; a test that writes it must not
    reach the next one."""
    from ptycho_torch import params

    before = copy.deepcopy(params.cfg)
    yield
    params.cfg.clear()
    params.cfg.update(before)


@pytest.fixture(autouse=True)
def _one_thread_again():
    """Two threads on arrays this small wait for each other longer than they work."""
    yield
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def served() -> Iterator[dict[str, str]]:
    """The environment of a fork server, as a study's notebooks have it: papermill and kernels start
    without the seconds of their imports."""
    from run_notebook import fork_servers_environment

    with fork_servers_environment() as environment:
        yield environment


@pytest.fixture(scope="session")
def small_scan() -> Callable[..., object]:
    """`small_scan(dose=1e5, seed=0)`: 20 patterns of 64 x 64 px with truth, as `ScanData`; `kinds`
    as in that module."""
    from small_scan import small_scan as simulated

    def scan(dose: float = 1e5, seed: int = 0, **kinds: object) -> object:
        return simulated(dose, seed, **{"N": 64, "across": 4, "truth": True} | kinds)

    return scan
