"""nnU-Net's plans files: settings, and copies for other data sets."""

import json

import pytest
from toy import base_plans

from nnunet_cil.errors import CILError
from nnunet_cil.host.plans_files import (
    configuration_settings,
    moved_name,
    moved_plans,
    read_plans,
    reader_of,
    unmoved_name,
)
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


def damaged(plans, key, value):
    """Returns plans with another value at ``a.b.c``; without it where the value is ``...``."""
    plans = json.loads(json.dumps(plans))
    *path, last = key.split(".")
    inside = plans
    for part in path:
        inside = inside[part]
    inside[last] = value
    if value is ...:
        del inside[last]
    return plans


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("configurations", ..., "lacks 'configurations'"),
        ("configurations", None, "has null for 'configurations'"),
        ("configurations", [], r"has \[\] for 'configurations'"),
        ("configurations", {}, "has no configuration"),
        ("configurations", {"2d": None}, "has null for 'configurations.2d'"),
        ("configurations", {"2d": "x"}, "has 'x' for 'configurations.2d'"),
        ("dataset_name", ..., "lacks 'dataset_name'"),
        ("dataset_name", 17, "has 17 for 'dataset_name'"),
        ("plans_name", None, "has null for 'plans_name'"),
        ("transpose_forward", "xyz", "has 'xyz' for 'transpose_forward'"),
        ("transpose_forward", [0, 1.5, 2], r"has 1.5 for 'transpose_forward\[1\]'"),
        ("image_reader_writer", None, "has null for 'image_reader_writer'"),
        (
            "foreground_intensity_properties_per_channel",
            {"0": None},
            "has null for 'foreground_intensity_properties_per_ch",
        ),
    ],
)
def test_damaged_plans_are_one_sentence(tmp_path, key, value, message):
    file = tmp_path / "nnUNetPlans.json"
    file.write_text(json.dumps(damaged(base_plans(), key, value)))
    with pytest.raises(
        CILError, match=rf"nnUNetPlans.json {message}.*Restore the file, or remove it and plan and preprocess"
    ):
        read_plans(file, "")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data_identifier", ..., "lacks 'data_identifier'"),
        ("data_identifier", None, "has null for 'data_identifier'"),
        ("patch_size", "big", "has 'big' for 'patch_size'"),
        ("patch_size", [16, None, 16], r"has null for 'patch_size\[1\]'"),
        ("spacing", {}, "has {} for 'spacing'"),
        ("batch_size", "2", "has '2' for 'batch_size'"),
        ("normalization_schemes", [None], r"has null for 'normalization_schemes\[0\]'"),
        ("architecture", [], r"has \[\] for 'architecture'"),
        ("architecture", ..., "cannot be read by nnU-Net .KeyError"),
        ("inherits_from", "none", "cannot be read by nnU-Net"),
        ("inherits_from", ["2d"], "cannot be read by nnU-Net"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected old nnU-Net plans")
def test_a_damaged_configuration_is_one_sentence(key, value, message):
    plans = damaged(base_plans(), f"configurations.3d_fullres.{key}", value)
    with pytest.raises(CILError, match=rf"configuration '3d_fullres' of the plans 'nnUNetPlans' {message}") as error:
        configuration_settings(plans, "3d_fullres")
    assert "\n" not in str(error.value)


def test_a_configuration_that_is_not_there_is_answered_with_the_nearest():
    with pytest.raises(CILError, match=r"no configuration '3d_fulres' \(did you mean '3d_fullres'\?\)"):
        configuration_settings(base_plans(), "3d_fulres")


@pytest.mark.parametrize(
    "content", ["[]", "[{}]", "null", "{", "{}", '{"configurations": 3}', '{"configurations": {"3d_fullres": 1}}']
)
def test_other_files_beside_plans_are_passed_over(tmp_path, content):
    plans = base_plans()
    (tmp_path / plans["configurations"]["3d_fullres"]["data_identifier"]).mkdir()
    (tmp_path / "splits_final.json").write_text(content)
    refuse_other_preprocessing(tmp_path, plans, "3d_fullres", "")
