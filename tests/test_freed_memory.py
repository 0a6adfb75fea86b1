"""Freed memory is used again."""

import subprocess
import sys

FAULTS = """
import resource, sys
import numpy as np
from ptycho_torch.commands import keep_freed
if sys.argv[1] == "kept":
    keep_freed()
np.ones(2**21)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for size in 30 * [2**21, 2**20]:
    np.ones(size), np.ones(size)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True)
    return int(done.stdout)


def test_arrays_of_some_megabytes_are_made_again_without_new_pages():
    assert 10 * faults("kept") < faults("given back")
