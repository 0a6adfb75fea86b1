"""A study's folder is read as rows: in order, once each, of one size, settings apart."""

import pytest
from made_up_study import write_study

from fly64lib.report.rows import collect, view_order
from ptycho_torch.errors import DataContractError
from ptycho_torch.files import write_json


def test_views_are_ordered_from_the_densest_and_controls_come_last():
    views = ["sparse_spread", "0.5", "dense_fluence", "sparse", "baseline", "dense"]
    assert sorted(views, key=view_order) == [
        *("baseline", "dense", "0.5", "sparse", "sparse_spread", "dense_fluence")
    ]


def test_the_views_to_expect_are_the_profiles(tmp_path):
    study = write_study(tmp_path, views=("baseline", "dense"))
    assert collect(study).named_views == ["baseline", "dense", "sparse"]
    write_json(study / "study.json", {"profile": "mine", "settings": {"views": ["baseline"]}})
    assert collect(study).named_views == ["baseline"]


def test_the_measured_overlap_of_each_view_stands_in_its_rows(tmp_path):
    study = write_study(tmp_path, views=("baseline", "dense"), methods=("flat",))
    figures = {"dose_1000": {"dense": {"test": {"between_images": {"mean_disc_overlap": 0.7}}}}}
    write_json(study / "replicate_0/phase_d/overlap_figures.json", figures)
    table = collect(study).table
    known = table[table.overlap.notna()]
    assert known[["dose", "view", "overlap"]].to_numpy().tolist() == [[1000.0, "dense", 0.7]]


def test_scans_of_different_size_are_refused_and_so_is_a_row_that_is_there_twice(tmp_path):
    write_study(tmp_path / "quick")
    write_study(tmp_path / "full", first=7, images=10304)
    with pytest.raises(DataContractError, match="quick, full.*never compared"):
        collect(tmp_path)
    write_study(tmp_path / "twice/a")
    write_study(tmp_path / "twice/b")
    with pytest.raises(DataContractError, match="twice"):
        collect(tmp_path / "twice")
    with pytest.raises(DataContractError, match="comparison.json"):
        collect(tmp_path / "nowhere")
