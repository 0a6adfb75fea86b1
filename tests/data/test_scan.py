"""A scan in memory: its parts, and the table of the contract."""

import re
from pathlib import Path

import numpy as np
import pytest
from contract_file import N, arrays, save, whole_scan

from ptycho_torch.data.contract import KEYS, check_scan, read_scan
from ptycho_torch.errors import DataContractError


def test_a_subset_takes_everything_that_belongs_to_its_patterns_and_keeps_the_rest(tmp_path):
    scan = whole_scan()
    scan.extra["probeInitial"] = scan.probe[0]
    part = scan.subset(np.array([4, 0, 4]))
    for name in ("diffraction", "xcoords", "ycoords", "truth_patches", "scan_index"):
        np.testing.assert_array_equal(getattr(part, name), getattr(scan, name)[[4, 0, 4]])
    np.testing.assert_array_equal(part.extra["temperature_K"], [4, 0, 4])
    assert (
        part.extra["weather"] is scan.extra["weather"]
        and part.extra["probeInitial"] is scan.extra["probeInitial"]
    )
    assert part.groups is None and part.metadata == scan.metadata and part.probe is scan.probe
    check_scan(part, "part")
    np.testing.assert_array_equal(
        scan.subset(scan.xcoords > 12).xcoords, scan.xcoords[scan.xcoords > 12]
    )
    for wrong in ([6], [-1], [0.5], [[0]], [True, False]):
        with pytest.raises(DataContractError, match=r"expected a list of integers in \[0, 6\)"):
            scan.subset(np.array(wrong))
    mapped = read_scan(save(tmp_path / "a.npz", arrays()))
    assert np.shares_memory(mapped.subset(np.arange(2, 5)).diffraction, mapped.diffraction)


def test_an_extra_of_as_many_rows_as_patterns_but_shaped_like_the_probe_is_not_cut():
    scan, twice = whole_scan(), {}
    for name in ("diffraction", "xcoords", "ycoords", "truth_patches", "scan_index"):
        twice[name] = np.concatenate([getattr(scan, name), getattr(scan, name)[:3]])
    assert twice["diffraction"].shape == (N, N, N)
    extra = {"probeInitial": np.ones((N, N), np.complex64)}
    part = whole_scan(**twice, groups=None, extra=extra).subset(np.arange(4))
    assert part.extra["probeInitial"].shape == (N, N)


def test_the_table_in_the_documentation_is_the_table_in_the_code():
    page = (Path(__file__).parents[2] / "docs" / "data_contract.md").read_text(encoding="utf-8")
    table = page.split("| key | required |")[1].split("\n\n")[0].splitlines()[2:]
    rows = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table
    ]
    assert rows == [
        [f"`{key.name}`", "yes" if key.required else "no", key.dtype, key.shape, key.meaning]
        for key in KEYS
    ]
