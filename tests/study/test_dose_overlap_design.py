"""The study's design: its published defaults, what it refuses, JSON both ways, seeds of replicates,
names of views, and paths."""

import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from fly64lib.design.study import (
    ScanDesign,
    StudyDesign,
    ViewDesign,
    check_view,
    controlled_view,
    controls_of,
    dose_folder,
    gridsize_of,
    held_out_file,
    linear_overlap,
    part_of,
    split_file,
    view_file,
)
from ptycho_torch.errors import ConfigError
from ptycho_torch.fields import from_dict, to_dict

OTHER = StudyDesign(
    specimen="lines",
    simulation="matched",
    N=32,
    scan_step=3,
    doses=(50.0, 2e3),
    views=("sparse", "0.5"),
    gridsize=3,
    controls=False,
    s_img=0.5,
    n_groups=3,
    neighbor_count=9,
    probe_diameter_px=20.0,
    guard_power=0.95,
    simulation_seed=1,
    grouping_seed=2,
    rng_seed_subsample=3,
    replicate=4,
)


def test_the_default_is_the_published_study():
    design = StudyDesign()
    assert design.doses == (1e3, 1e4, 1e5) and design.neighbor_count == 7 and design.gridsize == 2
    assert {view: linear_overlap(view) for view in design.views} == {"dense": 0.7, "sparse": 0.2}
    assert design.controls and design.s_img is None and design.guard_power == 0.98
    assert (design.simulation_seed, design.grouping_seed, design.rng_seed_subsample) == (
        42,
        123,
        456,
    )


@pytest.mark.parametrize("design", [StudyDesign(), OTHER])
def test_a_design_comes_back_from_json_unchanged(design):
    text = json.dumps(to_dict(design))
    again = from_dict(StudyDesign, json.loads(text))
    assert again == design and json.dumps(to_dict(again)) == text
    assert set(json.loads(text)) == {field.name for field in fields(StudyDesign)}


def test_a_phases_data_depend_on_its_part_of_the_design():
    assert part_of(ViewDesign, OTHER).views == ("sparse", "0.5")
    assert part_of(ScanDesign, OTHER) == ScanDesign(
        specimen="lines",
        simulation="matched",
        N=32,
        scan_step=3,
        doses=(50.0, 2e3),
        guard_power=0.95,
        simulation_seed=1,
        replicate=4,
    )


def test_numbers_make_the_same_design_and_the_same_json_however_they_are_written():
    design = StudyDesign(doses=(1e3,), views=("0.5",))
    for other in ({"doses": (1000,), "views": [0.5]}, {"doses": 1000, "views": 0.5}):
        assert StudyDesign(**other) == design
        assert json.dumps(to_dict(StudyDesign(**other))) == json.dumps(to_dict(design))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"neighbour_count": 7}, "'neighbour_count'.*did you mean 'neighbor_count'"),
        ({"doses": ()}, "doses: .* different values, at least one"),
        ({"doses": (1e3, 1e3)}, "doses: .* different values"),
        ({"doses": (0.0,)}, "doses.0=0.0: expected greater than or equal to 1"),
        ({"doses": (1000.5,)}, "dose=1000.5 is not a whole number"),
        ({"doses": (float("nan"),)}, "dose=nan is not a whole number"),
        ({"doses": (float("inf"),)}, "dose=inf is not a whole"),
        ({"N": 8}, "N=8: expected greater than or equal to 16"),
        ({"N": 64.5}, "N=64.5: expected a valid integer"),
        ({"scan_step": 0}, "scan_step=0"),
        ({"simulation": "coarse"}, "simulation='coarse': expected 'fine' or 'matched'"),
        ({"specimen": "line"}, "specimen='line' is not known; did you mean 'lines'"),
        ({"probe": "airy"}, "probe='airy' is not known; there are zone_plate"),
        ({"neighbor_count": 0}, "neighbor_count=0"),
        ({"guard_power": 1.0}, "guard_power=1.0"),
        ({"guard_power": float("nan")}, "guard_power=nan"),
        ({"views": ()}, "views: .* at least one"),
        ({"views": ("0.5", 0.5)}, "views: .* different values"),
        ({"views": ("baseline",)}, "'baseline' is no overlap view"),
        ({"views": ("dense_spread",)}, "'dense_spread' is no overlap view"),
        ({"views": ("dens",)}, "view='dens' is not known; did you mean 'dense'"),
        ({"s_img": 1.5}, "s_img=1.5"),
        ({"gridsize": 9}, "gridsize=9"),
        ({"replicate": -1}, "replicate=-1"),
    ],
)
def test_a_bad_value_is_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=message):
        StudyDesign(**values)


def test_a_design_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        StudyDesign().N = 32


def test_a_view_is_the_baseline_an_overlap_or_a_control_of_one():
    assert [linear_overlap(view) for view in ("dense", "0.5", "0", "0.05")] == [0.7, 0.5, 0, 0.05]
    assert controls_of("0.5") == ("0.5_spread", "0.5_fluence")
    for view in ("baseline", "custom", *controls_of("0.5"), *controls_of("sparse")):
        assert linear_overlap(view) is None and gridsize_of(view) == 1 and not controls_of(view)
    assert gridsize_of("dense") == gridsize_of("0.5") == 2
    assert controlled_view("0.5_spread") == controlled_view("0.5") == "0.5"
    assert check_view(0.25) == "0.25" and check_view(0.0) == check_view(0) == "0"


@pytest.mark.parametrize(
    "view",
    [
        "0.50",
        ".5",
        "-0",
        "0.0",
        "1",
        "1e-05",
        "-0.1",
        "nan",
        "",
        "_spread",
        "dense_spread_spread",
        "base_spread",
    ]
    + ["baseline_spread", None, True, 1.5],
)
def test_what_names_no_view_or_names_one_otherwise_is_refused(view):
    with pytest.raises(ConfigError, match="view="):
        check_view(view)


def test_replicates_move_every_seed_and_no_two_seeds_ever_meet():
    seeds = [
        StudyDesign(replicate=replicate).seed(base)
        for replicate in range(50)
        for base in (42, 123, 456)
    ]
    assert seeds[:3] == [42, 123, 456] and seeds[3:6] == [1042, 1123, 1456]
    assert len(set(seeds)) == len(seeds)


def test_files_stand_where_the_contract_says():
    assert split_file("C", 1e3, "train") == Path("C/dose_1000/patched_train.npz")
    assert held_out_file("C", 1e5) == Path("C/dose_100000/held_out_test.npz")
    assert view_file("C", "D", 1e4, "baseline", "test") == Path("C/dose_10000/patched_test.npz")
    for view in ("sparse", "dense_spread", "0.5", "0.5_fluence"):
        path = Path(f"D/dose_10000/{view}/{view}_train.npz")
        assert view_file("C", "D", 1e4, view, "train") == path
    assert dose_folder(1000) == dose_folder(1e3) == "dose_1000"
    with pytest.raises(ConfigError, match="dose=0.5 is not a whole number of photons"):
        dose_folder(0.5)
