"""Names that become parts of folders' names."""

import pytest

from nnunet_cil.datasets.totalsegmentator import STRUCTURES
from nnunet_cil.errors import CILError
from nnunet_cil.names import is_dataset_id, is_dataset_name, is_path_component, spelled_alike, valid_name
from nnunet_cil.schedule import load_schedule, shipped_schedules


@pytest.mark.parametrize("name", ["a", "btcv_8-5", "left.kidney", "7"])
def test_letters_digits_and_single_separators_are_valid(name):
    assert valid_name(name, "The name") == name


@pytest.mark.parametrize("name", ["", "a/b", "a__b", "_a", "a-", ".", "..", "liver\n", "肝臓", None, 7])
def test_names_that_are_no_part_of_a_folders_name_are_refused_with_the_callers_words(name):
    with pytest.raises(
        CILError, match=r"^--name is bad: it becomes part of a folder's name: use letters, digits, '\.'"
    ):
        valid_name(name, "--name is bad: it")


def test_data_sets_are_known_by_name_or_id():
    assert all(map(is_dataset_name, ("Dataset017_BTCV", "Dataset001_A b", "Dataset2025_CT")))
    others = (
        "Dataset17_BTCV",
        "Dataset0017_BTCV",
        "BTCV",
        "Dataset017_",
        "17",
        "Dataset017_A/..",
        "Dataset\u0660\u0661\u0667_A",
    )
    assert not any(map(is_dataset_name, others))
    assert all(map(is_dataset_id, ("1", "017", "999", "1000", "02025")))
    assert not any(map(is_dataset_id, ("0", "-1", "x", "", "1.0", " 1", "\u0667", "9" * 5000)))


@pytest.mark.parametrize(
    "name", ["Dataset017_Toy", "nnUNetPlans_toy_step0", "3d_fullres", "Über.uns", "a b", "console", "a-~b", "COM10"]
)
def test_a_name_of_one_file_is_a_path_component(name):
    assert is_path_component(name)


@pytest.mark.parametrize(
    "name",
    [
        *[
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "a\\b",
            "C:",
            "C:x",
            "a\0b",
            "a\nb",
            " a",
            "a ",
            "a.",
            "a|b",
            "*",
            None,
            1,
            b"a",
            ["a"],
        ],
        *[
            ".ssh",
            "~",
            "~root",
            "-rf",
            "--help",
            "CON",
            "nul.txt",
            "Com1",
            "a\u2215b",
            "a\u2044b",
            "a\uff0fb",
            "\uff0e\uff0e",
        ],
        *["a\u202eb", "a\u200bb", "\x1b[2J", "n" * 300, "\u00fc" * 150],
    ],
)
def test_what_leads_elsewhere_is_no_path_component(name):
    assert not is_path_component(name)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("Liver", "liver"),
        ("gall bladder", "gallbladder"),
        ("GallBladder", "gall-bladder"),
        ("right_kidney", "right kidney"),
        ("RightKidney", "kidney_right"),
        ("kidney_r", "right kidney"),
        ("Kidney (L)", "left_kidney"),
        ("lungs", "lung"),
        ("oesophagus", "Esophagus"),
        ("portal_vein_and_splenic_vein", "Portal vein and splenic vein"),
        ("肝臓", "肝臓"),
        ("leftkidney", "kidney_l"),
        ("kidneyRight", "rightkidney"),
        ("gall_bladder_left", "left gallbladder"),
        ("L. adrenal gland", "AdrenalGlands left"),
        ("vertebrae_L1", "Vertebra L1"),
        ("arteries", "artery"),
        ("metastases", "metastasis"),
        ("eyes", "eye"),
        ("masses", "mass"),
        ("liver tumours", "LiverTumor"),
        ("grey_matter", "gray matter"),
        ("\ufb01bula", "fibula"),
        ("O\u0308sophagus", "\u00d6sophagus"),
        ("liver1", "liver_1"),
        ("lkidney", "left kidney"),
        ("lkidney", "l_kidney"),
        ("lkidney", "kidney_l"),
        ("Rkidney", "kidney right"),
        ("llung", "left lung"),
        ("rrib_3", "right rib 3"),
        ("ladrenal", "adrenal_left"),
        ("rkidneyTumour", "tumor right kidney"),
    ],
)
def test_other_spellings_of_an_organ_are_alike(name, other):
    assert spelled_alike(name, ["x", other]) == [other]
    assert spelled_alike(other, [name]) == [name]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("left_kidney", "right_kidney"),
        ("kidney", "left_kidney"),
        ("vertebrae_L1", "vertebrae_L2"),
        ("vertebrae_L1", "vertebrae_T1"),
        ("lung_upper_lobe_left", "lung_lower_lobe_left"),
        ("iliac_artery", "iliac_vein"),
        ("liver", "liver_tumor"),
        ("1", "2"),
        ("?", "!"),
        ("肝臓", "脾臓"),
        ("leftkidney", "rightkidney"),
        ("kidney_r", "kidney_l"),
        ("rib 11", "rib 1 1"),
        ("rib_left_1", "rib_right_1"),
        ("tumour", "tremor"),
        ("\u304b\u3099", "\u304b"),
        ("tibia", "fibula"),
        ("liver_tumours", "liver"),
        ("liver", "l iver"),
        ("liver", "left iver"),
        ("lung", "left ung"),
        ("rib", "right ib"),
        ("lkidney", "rkidney"),
        ("lkidney", "kidney"),
        ("lkidney", "right kidney"),
        ("rhomboid", "right homboid"),
        ("lymph node", "left ymph node"),
        ("rectum", "left ectum"),
    ],
)
def test_other_organs_are_not_alike(name, other):
    assert spelled_alike(name, [other]) == []


def test_no_two_classes_of_a_shipped_schedule_are_alike():
    for file in shipped_schedules().values():
        classes = load_schedule(file).classes_until(99)
        assert all(spelled_alike(name, [other for other in classes if other != name]) == [] for name in classes)


def test_no_two_structures_of_the_whole_body_are_alike():
    assert all(spelled_alike(name, [n for n in STRUCTURES if n != name]) == [] for name in STRUCTURES)
