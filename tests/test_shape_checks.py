"""Shapes are checked where rooms compute, and what passed once is remembered."""

import importlib
import sys
import textwrap
from pathlib import Path
from types import ModuleType

import jaxtyping
import pytest
import shape_checks
import torch

CODE = """
from jaxtyping import Float
from torch import Tensor

def doubled(values: Float[Tensor, "n"], flag: bool = False, **more: Float[Tensor, "n"]
            ) -> Float[Tensor, "n"]:
    calls.append(1)
    return results.pop() if results else 2 * values

def first(of: dict[str, Float[Tensor, "n"]]) -> Float[Tensor, "n"]:
    return next(iter(of.values()))

class Kept:
    def rows(self, pair: tuple[Float[Tensor, "n k"], int]) -> Float[Tensor, "n k"]:
        return pair[0]

calls, results = [], []
"""


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that is checked."""
    (tmp_path / "module_of_shapes.py").write_text(textwrap.dedent(CODE))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    monkeypatch.setattr(jaxtyping, "jaxtyped", jaxtyping.jaxtyped)
    jaxtyping.config.update("jaxtyping_disable", False)
    shape_checks.install(["module_of_shapes"])
    yield importlib.import_module("module_of_shapes")
    del sys.modules["module_of_shapes"]


def refused(function, *arguments, **named) -> None:
    with pytest.raises(jaxtyping.TypeCheckError):
        function(*arguments, **named)


def test_a_wrong_argument_is_refused_before_and_after_right_ones(checked):
    three, pair = torch.ones(3), torch.ones(3, 2)
    for _ in range(2):
        for wrong in (pair, three.double().to(torch.complex64), three.int(), None, [1.0]):
            refused(checked.doubled, wrong)
        refused(checked.doubled, three, flag=None)
        refused(checked.doubled, three, other=torch.ones(4))
        refused(checked.first, {"a": pair})
        refused(checked.first, {1: three})
        refused(checked.Kept().rows, (three, 1))
        refused(checked.Kept().rows, (pair, "1"))
        assert torch.equal(checked.doubled(three, other=three), 2 * three)
        assert checked.first({"a": three}) is three
        assert checked.Kept().rows((pair, 1)) is pair


def test_a_wrong_result_is_refused_at_the_first_call_and_at_a_later_one(checked):
    three = torch.ones(3)
    for right_calls in (0, 1, 1):
        for _ in range(right_calls):
            assert torch.equal(checked.doubled(three), 2 * three)
        for wrong in (torch.ones(4), three.int(), torch.ones(3, 1), None):
            checked.results.append(wrong)
            refused(checked.doubled, three)


def test_a_function_runs_once_a_call_whatever_is_checked(checked):
    for number in (3, 3, 4, 3):
        checked.doubled(torch.ones(number))
    checked.results.append(torch.full((3,), 5.0).double())  # a float as well
    assert checked.doubled(torch.ones(3)).dtype == torch.float64
    assert len(checked.calls) == 5


def test_nothing_is_checked_where_checks_are_off(checked):
    jaxtyping.config.update("jaxtyping_disable", True)
    assert checked.doubled(torch.ones(3, 2)).shape == (3, 2)


def test_checks_are_on_in_the_rooms_that_compute_and_reach_their_modules():
    from ptycho_torch.physics import optics

    jaxtyping.config.update("jaxtyping_disable", False)
    refused(optics.propagate, torch.ones(4, 4))
    assert optics.propagate(torch.ones(4, 4, dtype=torch.complex64)).shape == (4, 4)
