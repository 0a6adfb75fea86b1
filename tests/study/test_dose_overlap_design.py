"""The study's design: its published defaults, what it refuses, JSON both ways, seeds of replicates,
and paths."""

import json
from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from fly64lib.design import StudyDesign, dose_folder, held_out_file, split_file, view_file
from ptycho_torch.errors import ConfigError

OTHER = StudyDesign(
    specimen="lines",
    simulation="matched",
    N=32,
    scan_step=3,
    doses=(50.0, 2e3),
    overlaps={"dense": 0.6, "sparse": 0.0},
    gridsizes=(2,),
    neighbor_count=9,
    guard_power=0.95,
    simulation_seed=1,
    grouping_seed=2,
    subsample_seed=3,
    replicate=4,
    ssim_sigma_px=2.0,
    frc_threshold=0.25,
)


def test_the_default_is_the_published_study():
    design = StudyDesign()
    assert (
        design.doses == (1e3, 1e4, 1e5)
        and design.gridsizes == (1, 2)
        and design.neighbor_count == 7
    )
    assert (
        design.overlaps == {"dense": 0.7, "sparse": 0.2}
        and design.split_axis == "y"
        and design.guard_power == 0.98
    )
    assert (design.simulation_seed, design.grouping_seed, design.subsample_seed) == (42, 123, 456)
    assert (design.ms_ssim_scales, design.ssim_sigma_px, design.frc_threshold) == (3, 1.5, 0.5)


@pytest.mark.parametrize("design", [StudyDesign(), OTHER])
def test_a_design_comes_back_from_json_unchanged(design):
    text = json.dumps(design.to_dict())
    again = StudyDesign.from_dict(json.loads(text))
    assert again == design and json.dumps(again.to_dict()) == text
    assert set(json.loads(text)) == {field.name for field in fields(StudyDesign)}


def test_a_dose_written_as_an_int_makes_the_same_design_and_the_same_json():
    assert StudyDesign(doses=(1000,)) == StudyDesign(doses=(1e3,))
    assert json.dumps(StudyDesign(doses=(1000,)).to_dict()) == json.dumps(
        StudyDesign(doses=(1e3,)).to_dict()
    )


def test_an_unknown_key_in_the_json_is_refused_with_the_nearest_name():
    with pytest.raises(
        ConfigError, match="unknown parameter 'neighbour_count'.*did you mean 'neighbor_count'"
    ):
        StudyDesign.from_dict({"neighbour_count": 7})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"doses": ()}, "doses"),
        ({"doses": (1e3, 1e3)}, "doses"),
        ({"doses": (0.0,)}, "dose=0.0 lies outside"),
        ({"doses": (1000.5,)}, "dose=1000.5 is not a whole number"),
        ({"doses": [1e3]}, "doses=.* is a list"),
        ({"doses": ("1000",)}, "doses=.*expected"),
        ({"N": "64"}, "N='64' is a str, expected int"),
        ({"N": 8}, "N=8 lies outside"),
        ({"N": 64.0}, "N=64.0 is a float"),
        ({"scan_step": 0}, "scan_step=0 lies outside"),
        ({"simulation": "coarse"}, "simulation='coarse' is not one of 'fine', 'matched'"),
        ({"split_axis": "x"}, "split_axis='x' is not one of 'y'"),
        ({"gridsizes": (1, 3)}, "gridsize=3 is not one of 1, 2"),
        ({"neighbor_count": 3}, "neighbor_count=3 lies outside"),
        ({"guard_power": 1.0}, "guard_power=1.0 lies outside"),
        ({"overlaps": {"dense": 0.7}}, "views of overlaps"),
        ({"overlaps": {"dense": 1.0, "sparse": 0.2}}, "overlap of dense"),
        ({"overlaps": {"dense": 0.7, "sparse": -0.1}}, "overlap of sparse"),
        ({"replicate": -1}, "replicate=-1 lies outside"),
        ({"ms_ssim_scales": 5}, "ms_ssim_scales=5 is not one of 3"),
        ({"guard_power": float("nan")}, "guard_power=nan"),
        ({"doses": (float("nan"),)}, "dose=nan is not a whole number"),
        ({"doses": (float("inf"),)}, "dose=inf is not a whole"),
    ],
)
def test_a_bad_value_is_refused_by_name(values, message):
    with pytest.raises(ConfigError, match=message):
        StudyDesign(**values)


def test_a_group_of_one_needs_fewer_neighbours_than_a_group_of_four():
    assert StudyDesign(gridsizes=(1,), neighbor_count=2).neighbor_count == 2


def test_a_design_cannot_be_changed_and_its_defaults_are_not_shared():
    design = StudyDesign()
    with pytest.raises(FrozenInstanceError):
        design.N = 32
    assert StudyDesign().overlaps is not design.overlaps


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
    assert view_file("C", "D", 1e4, "sparse", "test") == Path("D/dose_10000/sparse/sparse_test.npz")
    assert view_file("C", "D", 1e4, "dense_spread", "train") == Path(
        "D/dose_10000/dense_spread/dense_spread_train.npz"
    )
    assert dose_folder(1000) == dose_folder(1e3) == "dose_1000"
    with pytest.raises(ConfigError, match="dose=0.5 is not a whole number of photons"):
        dose_folder(0.5)
