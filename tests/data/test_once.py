"""What is made of a scan once: each thing at the first call, and its time for all who ask."""

import time

import pytest
from small_scan import small_raw

from ptycho_torch.data.once import Once
from ptycho_torch.iteration.thinning import split_photons


def test_a_thing_is_made_at_the_first_call_and_a_failure_is_not_kept():
    once, made = Once(), []

    def make() -> int:
        made.append(1)
        return len(made)

    def fail() -> None:
        raise ValueError("not now")

    with pytest.raises(ValueError, match="not now"):
        once("a", fail)
    assert [once("a", make), once("a", make), once("b", make)] == [1, 1, 2]


def test_the_time_of_a_thing_counts_for_each_that_has_it_again():
    once = Once()
    inner = Once(within=once)

    def sleep() -> None:
        time.sleep(0.02)

    def outer() -> None:
        inner("inner", sleep)  # had already: what it took belongs to the outer thing too
        time.sleep(0.01)

    inner("inner", sleep)
    assert once.spared == (0, 0)
    once("outer", outer)
    first = once.spared[0]
    assert 0.02 <= first < 0.2
    once("outer", outer)
    assert once.spared[0] - first >= 0.03
    assert inner.spared == once.spared


def test_the_photons_of_a_scan_are_split_once_for_a_share_and_a_seed():
    raw = small_raw(1e3)
    one, again, other = (split_photons(raw, *how) for how in ((0.8, 0), (0.8, 0), (0.8, 1)))
    assert one[0] is again[0] and one[0] is not other[0]
    afresh = split_photons(small_raw(1e3), 0.8, 0)
    for mine, theirs in zip(one, afresh, strict=True):
        assert mine.counts(slice(None)).equal(theirs.counts(slice(None)))
