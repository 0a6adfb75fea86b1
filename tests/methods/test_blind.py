"""No method can see the truth that a file holds, nor find the file: everything that a scan leads to
is searched for both."""

import inspect
import mmap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import other_package
import pytest
import torch
from small_scan import small_scan

from fly64lib.design.registries import METHODS
from fly64lib.design.study import split_file
from fly64lib.methods.base import MethodResult, attribute
from fly64lib.reconstruction import (
    MethodSettings,
    build_reconstruction_jobs,
    run_reconstruction_job,
)
from ptycho_torch.data.contract import write_scan
from ptycho_torch.iteration.thinning import split_photons
from ptycho_torch.memmap_bridge import RawDataTorch, open_scan

SPY = """
from ptycho_torch.fields import config

@config
class Entry:
    pass
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan as phase C's baseline, whose file holds the truth five times and says whence."""
    root = tmp_path_factory.mktemp("secret")
    path, scan = split_file(root / "C", 1e3, "test"), small_scan(1e3, truth=True)
    image = scan.object_guess
    extra = {
        "true_object": image.ravel(),
        "stack": np.stack([image] * scan.n),
    }  # the last is mapped
    said = {"specimen": "siemens_star", "simulation_seed": 42, "made_from": str(path)}
    said["object"] = image.real.tolist()
    path.parent.mkdir(parents=True)
    write_scan(path, replace(scan, extra=extra, metadata=scan.metadata | said))
    return path


def reachable(start: object) -> Iterator[object]:
    """Everything that attributes, items, closures and the memory under arrays lead to. Classes and
    modules are the program, not the scan."""
    waiting, seen = [start], {}
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, type) or inspect.ismodule(thing):
            continue
        seen[id(thing)] = thing  # held, so that no other object takes its identity
        yield thing
        if isinstance(thing, dict):
            waiting += [*thing.keys(), *thing.values()]
        elif isinstance(thing, list | tuple | set | frozenset):
            waiting += thing
        elif inspect.ismethod(thing):
            waiting += [thing.__self__, thing.__func__]
        elif inspect.isfunction(thing):
            waiting += [cell.cell_contents for cell in thing.__closure__ or ()]
            waiting += [thing.__defaults__, thing.__kwdefaults__]
        elif isinstance(thing, np.ndarray):
            waiting.append(thing.base)
        waiting += [getattr(thing, "__dict__", None), getattr(thing, "__self__", None)]


def secrets(start: object, file: Path) -> set[str]:
    """What `start` leads to of the truth, the file, and the recipe by which it could be made
    again."""
    image = small_scan(1e3).object_guess
    row, column = divmod(int(np.abs(np.diff(image)[32:40, 20:50]).argmax()), 30)
    edge = image[32 + row, 20 + column : 24 + column]  # four pixels across an edge of the star
    words = {str(file.parents[2]): "path", "siemens_star": "recipe", "simulation_seed": "recipe"}
    found = set()
    for thing in reachable(start):
        if isinstance(thing, torch.Tensor):
            thing = thing.numpy()
        if isinstance(thing, np.ndarray | mmap.mmap | bytes):
            held = thing[:] if isinstance(thing, mmap.mmap) else bytes(thing)
            found |= {"truth"} if edge.tobytes() in held else set()
        elif isinstance(thing, str | Path):
            found |= {name for word, name in words.items() if word in str(thing)}
        elif isinstance(thing, float) and thing in edge.real.tolist():
            found.add("truth")
    return found


def handed(name: str, file: Path, folder: Path, patch: pytest.MonkeyPatch) -> tuple:
    """The method and the scan that it is handed for a job of phase F."""
    met = []

    def spy(method: object, scan: RawDataTorch) -> MethodResult:
        met.extend([method, scan])
        return MethodResult(scan.scan.object_guess)

    patch.setattr(METHODS[name], "reconstruct", spy, raising=False)
    settings = (
        {"settings": {name: {"bundle": "b.pt"}}} if attribute(METHODS[name], "network") else {}
    )
    grid = {"methods": (name,), "doses": (1e3,), "views": ("baseline",)}
    (job,) = build_reconstruction_jobs(file.parents[1], "no views", folder, **grid)
    run_reconstruction_job(job, MethodSettings(**settings))
    return tuple(met)


BLIND = [name for name in METHODS if not attribute(METHODS[name], "sees_truth")]


@pytest.mark.parametrize("name", BLIND)
def test_what_a_method_is_handed_leads_neither_to_the_truth_nor_to_the_file(
    name, file, tmp_path, monkeypatch
):
    method, scan = handed(name, file, tmp_path, monkeypatch)
    assert scan.n == small_scan(1e3).n and (scan.object_guess == 1).all()
    made = scan.patterns(), scan.subset(np.arange(5)), scan.under(scan.scan.probe)
    assert secrets((method, scan, made, split_photons(scan, 0.5, 0)), file) == set()


def test_nor_does_a_method_of_another_package_see_more(file, tmp_path, monkeypatch):
    with other_package.installed(tmp_path / "package", METHODS, "spy", SPY):
        _, scan = handed("spy", file, tmp_path, monkeypatch)
    assert secrets(scan, file) == set()


@pytest.mark.parametrize("name", [name for name in METHODS if name not in BLIND])
def test_the_truth_as_a_reference_gets_all_and_the_search_finds_it(
    name, file, tmp_path, monkeypatch
):
    _, scan = handed(name, file, tmp_path, monkeypatch)
    assert secrets(scan, file) == {"truth", "path", "recipe"}
    np.testing.assert_array_equal(scan.object_guess, small_scan(1e3).object_guess)


@pytest.mark.parametrize(
    "part",
    [
        lambda scan: scan.object_guess,
        lambda scan: scan.scan.extra["stack"],
        lambda scan: scan.scan.metadata["object"],
        lambda scan: lambda: scan.truth_patches([0]),
    ],
)
def test_the_search_finds_each_place_where_a_file_holds_the_truth(part, file):
    assert "truth" in secrets(part(open_scan(file, with_truth=True)), file)


def test_data_without_truth_are_still_all_there_for_a_method(file):
    whole, blind = open_scan(file), open_scan(file).without_truth()
    assert torch.equal(blind.counts(slice(None)), whole.counts(slice(None)))
    assert torch.equal(blind.positions, whole.positions) and torch.equal(blind.probe, whole.probe)
    assert blind.object_guess.shape == whole.object_guess.shape
    assert isinstance(blind.scan.diffraction, np.memmap)  # a scan of any size fits into memory
