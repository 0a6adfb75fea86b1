"""A wrong beam is told from the right one by the patterns alone, at any dose."""

from dataclasses import replace

import numpy as np
import pytest
from small_scan import small_scan

from fly64lib.evaluation.beam import WRONG, misfit
from fly64lib.methods.starting_probes import starting_probe
from ptycho_torch.memmap_bridge import RawDataTorch


def excess(scan) -> float:
    found, allowed = misfit(RawDataTorch(scan, "scan.npz"))
    return max(found**2 - allowed**2, 0) ** 0.5


@pytest.mark.parametrize("dose", [1e3, 1e4, 1e5])
def test_two_radians_of_wrong_defocus_are_seen_and_the_true_beam_is_not_suspected(dose):
    scan = small_scan(dose, N=32, across=13)
    wrong = starting_probe(RawDataTorch(scan, "scan.npz"), 2.0).numpy()
    assert excess(scan) < WRONG / 2
    assert excess(replace(scan, probe=wrong)) > WRONG


def test_the_file_s_object_does_not_help_a_wrong_beam():
    scan = small_scan(1e4, N=32, across=9)
    other = replace(scan, object_guess=np.ones_like(scan.object_guess))
    assert misfit(RawDataTorch(scan, "a")) == misfit(RawDataTorch(other, "b"))
