"""nnU-Net's plans files: settings, and copies for other data sets."""

import json

import pytest
from toy import base_plans

from nnunet_cil.errors import CILError
from nnunet_cil.host.plans_files import configuration_settings, moved_name, moved_plans, reader_of, unmoved_name
from nnunet_cil.host.preprocessed import preprocessed_configurations, refuse_other_preprocessing


def test_a_moved_name_tells_the_last_data_set_only():
    assert moved_name("nnUNetPlans", "Dataset017_Toy") == "nnUNetPlansFrom017"
    assert moved_name("nnUNetPlansFrom017", "Dataset003_Other") == "nnUNetPlansFrom003"
    assert moved_name("nnUNetPlansFrom2025", "Dataset1234_Other") == "nnUNetPlansFrom1234"
    assert unmoved_name("nnUNetPlansFrom017") == unmoved_name("nnUNetPlans") == "nnUNetPlans"


def test_moved_plans_differ_in_names_and_reader_only():
    base = base_plans() | {"cil": {"step": 0}}
    moved = moved_plans(base, "Dataset018_New", "NibabelIO", "moved")
    assert (moved["dataset_name"], moved["plans_name"], reader_of(moved)) == ("Dataset018_New", "moved", "NibabelIO")
    assert "cil" not in moved
    for name, configuration in base["configurations"].items():
        identifier = {"data_identifier": f"moved_{name}"} if "data_identifier" in configuration else {}
        assert moved["configurations"][name] == configuration | identifier
    again = moved_plans(base, "Dataset017_Toy", "NibabelIO", "moved", same_data=True)
    assert again["configurations"] == base["configurations"]


@pytest.mark.parametrize("name", ["a/b", "a__b", ""])
def test_a_name_that_is_no_part_of_a_folders_name_is_refused(name):
    with pytest.raises(CILError, match=f"The plans' name '{name}' becomes part of a folder's name"):
        moved_plans(base_plans(), "Dataset018_New", "NibabelIO", name)


def test_a_configuration_has_what_it_inherits():
    plans = base_plans()
    plans["configurations"]["large"] = {"inherits_from": "3d_fullres", "batch_size": 7}
    settings = configuration_settings(plans, "large")
    assert settings["batch_size"] == 7
    assert settings["spacing"] == plans["configurations"]["3d_fullres"]["spacing"]


def test_data_that_other_plans_may_have_preprocessed_are_refused(tmp_path):
    plans = base_plans()
    identifier = plans["configurations"]["3d_fullres"]["data_identifier"]
    other = base_plans()
    other["configurations"]["3d_fullres"]["spacing"] = [9.0, 9.0, 9.0]
    (tmp_path / "other.json").write_text(json.dumps(other))
    (tmp_path / "dataset.json").write_text("[]")
    refuse_other_preprocessing(tmp_path, plans, "3d_fullres", "Choose.")
    assert preprocessed_configurations(tmp_path, plans) == []
    (tmp_path / identifier).mkdir()
    with pytest.raises(CILError, match=rf"{identifier} holds data .*\(other.json; other spacing\)\. Choose\.$"):
        refuse_other_preprocessing(tmp_path, plans, "3d_fullres", "Choose.")
    assert preprocessed_configurations(tmp_path, plans) == []
    (tmp_path / identifier / "case.pkl").touch()
    assert "3d_fullres" in preprocessed_configurations(tmp_path, plans)
    other["configurations"]["3d_fullres"]["data_identifier"] = "elsewhere"
    (tmp_path / "other.json").write_text(json.dumps(other))
    refuse_other_preprocessing(tmp_path, plans, "3d_fullres", "Choose.")
