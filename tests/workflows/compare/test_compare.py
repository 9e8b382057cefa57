"""nnunet_cil compare finds what was planted, says which case and class it is, and refuses what cannot be compared."""

import json
import re
import shlex
import shutil

import numpy as np
import pandas as pd
import pytest
from toy_models import write

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.compare.compare import CompareOptions, compare

ORGANS = {"background": 0, "liver": 1, "spleen": 2, "left kidney": 3, "right kidney": 4}
OTHER = {"background": 0, "left kidney": 1, "right kidney": 2, "liver": 3, "spleen": 4, "cyst": 5}
"""The same organs under other numbers, and one more."""

BOXES = {
    "liver": (slice(3, 13), slice(4, 16), slice(4, 16)),
    "spleen": (slice(4, 12), slice(4, 12), slice(26, 34)),
    "left kidney": (slice(18, 26), slice(22, 28), slice(28, 36)),
    "right kidney": (slice(18, 26), slice(22, 28), slice(4, 12)),
}
SHIFTED, WITHOUT_LIVER, SWAPPED, WITH_STRAY = ("case_1", "case_4", "case_8"), "case_5", "case_7", "case_3"
SPACING = (2.0, 1.0, 1.5)  # of columns, rows and slices


def draw(names, shift=None, boxes=BOXES):
    array = np.zeros((32, 34, 40), dtype=np.uint8)
    for name, box in boxes.items():
        moved = box
        if name == shift:
            moved = (box[0], slice(box[1].start + 2, box[1].stop + 2), box[2])
        if name in names:
            array[moved] = names[name]
    return array


def write_folder(folder, labels, arrays, spacing=SPACING, suffix="", **more):
    folder.mkdir(parents=True)
    content = {"channel_names": {"0": "CT"}, "labels": labels, "file_ending": ".nii.gz", **more}
    (folder / "dataset.json").write_text(json.dumps(content))
    for case, array in arrays.items():
        write(array, folder / f"{case}{suffix}.nii.gz", spacing)
    return folder


@pytest.fixture(scope="module")
def _folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("compare")
    cases = [f"case_{i}" for i in range(10)]
    new = {c: draw(OTHER, shift="spleen" if c in SHIFTED else None) for c in cases}
    new[WITHOUT_LIVER] = draw({k: v for k, v in OTHER.items() if k != "liver"})
    new[SWAPPED] = draw({**OTHER, "left kidney": 2, "right kidney": 1})
    new[WITH_STRAY][28:30, 30:32, 36:39] = OTHER["liver"]
    for array in new.values():
        array[1:3, 28:30, 1:4] = OTHER["cyst"]
    truth = {c: draw(ORGANS) for c in cases}
    write_folder(root / "a", ORGANS, truth)
    write_folder(root / "b", OTHER, new)
    write_folder(root / "labels", {"background": 0, "cyst": 1, "spleen": 2}, {c: (truth[c] == 2) * 2 for c in cases})
    (root / "labels" / "dataset.json").replace(root / "dataset.json")  # as labelsTs of a raw data set
    images = {c: np.random.default_rng(3).integers(0, 200, truth[c].shape) for c in cases}
    write_folder(root / "images", ORGANS, images, suffix="_0000")
    return root


@pytest.fixture
def folders(_folders, tmp_path):
    shutil.copytree(_folders, tmp_path / "in")
    return tmp_path / "in"


@pytest.fixture(scope="module")
def found(_folders, tmp_path_factory):
    """The comparison with images and labels, once for all that only look at it."""
    return compared(_folders, tmp_path_factory.mktemp("found") / "out", images=True, labels=True, num_pictures=2)


def compared(folders, output, *, images=False, labels=False, a="a", b="b", **changed):
    given = {"images": folders / "images" if images else None, "labels": folders / "labels" if labels else None}
    return compare(CompareOptions(model_a=folders / a, model_b=folders / b, output=output, **{**given, **changed}))


def by_class(found):
    return {row["class"]: row for row in found.content["classes"]}


def test_the_command_of_the_page_repeats_every_choice(tmp_path):
    from nnunet_cil.cli.main import _parser

    asked = CompareOptions(
        model_a=tmp_path / "a b",
        model_b=tmp_path / "b",
        output=tmp_path / "out",
        images=tmp_path / "images",
        labels=tmp_path / "labels",
        folds=("0", "all"),
        fail_below=0.0,
        device="mps",
        num_pictures=0,
        trusted=("mine",),
    )
    args = _parser().parse_args(shlex.split(asked.command)[1:])
    found = [args.model_a, args.output, args.images, args.labels, tuple(args.folds), args.fail_below, args.device]
    assert found == [asked.model_a, asked.output, asked.images, asked.labels, asked.folds, 0.0, "mps"]
    assert (args.pictures, args.trusted) == (0, ["mine"])


def test_predictions_without_an_image_are_told_of(folders, tmp_path, caplog):
    (folders / "images" / "case_2_0000.nii.gz").unlink()
    with caplog.at_level("INFO", logger="nnunet_cil"):
        found = compared(folders, tmp_path / "out", images=True, num_pictures=0)
    assert found.content["num_cases"] == 9
    for name in "ab":
        assert f"{folders / name} has predictions without an image, which are not compared: 'case_2'" in caplog.text


# --- what it finds --------------------------------------------------------------------------------------------


def test_a_shifted_organ_is_found_with_its_dice_and_distance(found):
    row = by_class(found)["spleen"]
    shifted = 2 * 6 * 64 / (2 * 8 * 64)  # 2 of 8 rows
    assert row["dice"] == pytest.approx((7 + 3 * shifted) / 10)
    assert row["lowest_dice"] == pytest.approx(shifted)
    assert row["lowest_case"] in SHIFTED
    table = pd.read_csv(found.page.parent / "per_case.csv").set_index(["class", "case"])
    distances = table.loc["spleen"]["hd95_mm"]
    assert {case: d for case, d in distances.items() if d} == dict.fromkeys(SHIFTED, 2.0)  # rows of 1 mm


def test_volumes_are_in_millilitres(found):
    assert by_class(found)["spleen"]["volume_a_ml"] == pytest.approx(8 * 8 * 8 * 3 / 1000)
    assert by_class(found)["liver"]["volume_b_ml"] < by_class(found)["liver"]["volume_a_ml"]


def test_a_missing_organ_counts_as_vanished_and_as_a_dice_of_zero(found):
    row = by_class(found)["liver"]
    assert (row["num_vanished"], row["num_appeared"], row["lowest_case"], row["lowest_dice"]) == (
        1,
        0,
        WITHOUT_LIVER,
        0.0,
    )


def test_what_a_person_should_look_at_is_named(found):
    named = [(f["kind"], f["case"], f["class"]) for f in found.content["findings"]]
    assert named == [
        ("swapped", SWAPPED, "left kidney and right kidney"),
        ("vanished", WITHOUT_LIVER, "liver"),
        ("far", WITH_STRAY, "liver"),
    ]
    assert "left kidney and right kidney have changed places" in found.text
    assert found.content["findings"][-1]["volume_ml"] == pytest.approx(2 * 2 * 3 * 3 / 1000)


def test_the_voxels_that_changed_class_are_counted_by_both_names(found):
    moved = {(m["a"], m["b"]): m["num_voxels"] for m in found.content["moved"]}
    kidney = 8 * 6 * 8
    assert moved["left kidney", "right kidney"] == moved["right kidney", "left kidney"] == kidney
    assert moved["liver", "background"] == 10 * 12 * 12
    assert moved["spleen", "background"] == moved["background", "spleen"] == 3 * 2 * 64
    assert moved["background", "cyst"] == 10 * 12
    assert moved["background", "liver"] == 12
    table = pd.read_csv(found.page.parent / "moved.csv")
    assert table.groupby(["a", "b"])["num_voxels"].sum().to_dict() == moved


def test_cases_are_in_the_order_of_their_change(found):
    order = [c["case"] for c in found.content["cases"]]
    assert order[0] == SWAPPED  # two classes at 0
    assert order[1] == WITHOUT_LIVER
    assert set(order[2:5]) == set(SHIFTED)
    assert order[5] == WITH_STRAY


def test_a_class_of_one_model_is_told_of_but_not_compared(found):
    row = by_class(found)["cyst"]
    assert not row["is_shared"]
    assert np.isnan(row["dice"])
    assert row["volume_b_ml"] == pytest.approx(12 * 3 / 1000)
    assert found.content["mean_dice"] == pytest.approx(
        np.mean([r["dice"] for r in found.content["classes"] if r["is_shared"]])
    )


def test_with_labels_both_are_scored_and_the_difference_has_an_interval(found):
    rows = {row["class"]: row for row in found.content["reference"]}
    assert set(rows) == {"spleen", "cyst"}
    assert (rows["spleen"]["dice_a"], rows["spleen"]["dice_b"]) == pytest.approx((1.0, 1 - 0.3 / 4))
    assert rows["spleen"]["low"] < rows["spleen"]["difference"] < rows["spleen"]["high"] <= 0
    assert np.isnan(rows["cyst"]["dice_a"])
    assert np.isnan(rows["cyst"]["difference"])


def test_the_page_answers_first_and_holds_its_pictures(found):
    text = found.page.read_text(encoding="utf-8")
    begin = text.index("Mean Dice of the two")
    assert begin < text.index("<h3>")
    assert text.count("data:image/png;base64") == 4  # each for a narrow screen, too
    assert [f.name for f in sorted((found.page.parent / "figures").iterdir())] == ["case_1.png", "case_2.png"]
    assert "http://" not in text
    json.loads((found.page.parent / "comparison.json").read_text(), parse_constant=lambda c: pytest.fail(c))


def test_a_model_agrees_with_itself(folders, tmp_path):
    same = compared(folders, tmp_path / "out", b="a", fail_below=1.0, num_pictures=0)
    assert same.content["mean_dice"] == 1.0
    assert same.content["findings"] == same.content["moved"] == []
    assert not same.is_below
    assert "no class appears, vanishes or changes places" in same.text


def test_a_class_that_only_the_old_model_knows_is_told_of_and_fails_the_threshold(folders, tmp_path):
    found = compared(folders, tmp_path / "out", a="b", b="a", num_pictures=0)
    assert (found.content["unknown_to_b"], found.is_below) == (["cyst"], False)
    assert "B does not know cyst." in found.text
    asked = compared(folders, tmp_path / "out", a="b", b="a", num_pictures=0, fail_below=0.1)
    assert asked.content["below"] == ["cyst"]
    assert not compared(folders, tmp_path / "out", fail_below=0.1, num_pictures=0).is_below  # one that is new is none


# --- regions --------------------------------------------------------------------------------------------------

REGIONS = {"background": 0, "trunk": [1, 2, 3], "liver": [2, 3], "lesion": 3}
OTHER_REGIONS = {"background": 0, "trunk": [5, 6, 7, 8], "vessel": [8, 8], "liver": [6, 7, 8], "lesion": [7, 7]}
INNER = {"trunk": np.s_[2:30, 2:30, 2:36], "liver": np.s_[4:20, 4:20, 4:20], "lesion": np.s_[6:10, 6:11, 6:8]}


def draw_regions(numbers, boxes=INNER):
    array = np.zeros((32, 34, 40), dtype=np.uint8)
    for number, box in zip(numbers, boxes.values(), strict=True):
        array[box] = number
    return array


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """Three cases: one of which half a lesion is liver with B, and one of which the lesion is a vessel, which A does not know."""
    root = tmp_path_factory.mktemp("regions")
    new = {f"case_{i}": draw_regions((5, 6, 7)) for i in range(3)}
    new["case_1"][6:8, 6:11, 6:8] = 6
    new["case_2"][new["case_2"] == 7] = 8
    truth = {case: draw_regions((1, 2, 3)) for case in new}
    write_folder(root / "a", REGIONS, truth, regions_class_order=[1, 2, 3])
    write_folder(root / "b", OTHER_REGIONS, new, regions_class_order=[5, 8, 6, 7])
    write_folder(root / "labels", REGIONS, truth, regions_class_order=[1, 2, 3])
    return compared(root, root / "out", labels=True, num_pictures=1)


def test_regions_are_compared_though_they_overlap(regions):
    rows = by_class(regions)
    assert [rows[c]["dice"] for c in ("trunk", "liver")] == [1.0, 1.0]
    assert rows["lesion"]["dice"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert (rows["lesion"]["num_vanished"], rows["lesion"]["lowest_case"]) == (1, "case_2")
    assert rows["lesion"]["volume_a_ml"] == pytest.approx(4 * 5 * 2 * 3 / 1000)
    assert not rows["vessel"]["is_shared"]
    assert {r["class"]: (r["dice_a"], r["dice_b"]) for r in regions.content["reference"]}["lesion"] == pytest.approx(
        (1.0, 5 / 9)
    )


def test_what_changed_class_between_regions_is_told_by_all_that_a_voxel_belongs_to(regions):
    moved = {(m["a"], m["b"]): m["num_voxels"] for m in regions.content["moved"]}
    lesion = "trunk + liver + lesion"
    assert moved == {(lesion, "trunk + liver"): 20, (lesion, "trunk + liver + vessel"): 40}
    assert "joined by +" in regions.page.read_text(encoding="utf-8")
    assert [f.name for f in (regions.page.parent / "figures").iterdir()] == ["case_1.png"]


# --- in a pipeline --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "status"), [("0.91", 3), ("0.5", 0), (None, 0)])
def test_the_exit_status_tells_whether_a_class_is_below_the_threshold(folders, tmp_path, capsys, threshold, status):
    asked = [] if threshold is None else ["--fail-below", threshold]
    command = ["compare", str(folders / "a"), str(folders / "b"), "-o", str(tmp_path / "out"), "--pictures", "0"]
    assert main([*command, *asked]) == status
    printed = capsys.readouterr().out
    assert ("No: liver, left kidney, right kidney." in printed) == (threshold == "0.91")


def test_a_case_that_was_compared_is_not_compared_again(folders, tmp_path, monkeypatch):
    from nnunet_cil.workflows.compare import compare as workflow

    compared(folders, tmp_path / "out", num_pictures=0)
    (tmp_path / "out" / "cases" / "case_6.json").unlink()
    write(draw(OTHER), folders / "b" / f"{SWAPPED}.nii.gz", SPACING)
    done, one = [], workflow.compare_case
    monkeypatch.setattr(workflow, "compare_case", lambda case, **how: done.append(case.name) or one(case, **how))
    again = compared(folders, tmp_path / "out", num_pictures=0)
    assert done == ["case_6", SWAPPED]
    assert by_class(again)["left kidney"]["dice"] == 1.0


# --- what it refuses ------------------------------------------------------------------------------------------


def edit(folder, **changed):
    file = folder / "dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


REFUSALS = {
    "a missing case": (
        lambda root: (root / "b" / "case_2.nii.gz").unlink(),
        {},
        r"Case 'case_2' is not in .*b, though the other folder has it\. Predict it, or remove it",
    ),
    "a case without predictions": (
        lambda root: [(root / side / "case_2.nii.gz").unlink() for side in "ab"],
        {"images": True},
        r"Case 'case_2' is not in .*a, though the images are in",
    ),
    "no shared class": (
        lambda root: edit(root / "b", labels={"background": 0, "Liver": 2, "heart": 1}),
        {},
        r"no class in common: A has liver, .*; B has (Liver, heart|heart, Liver) \(did you mean 'Liver' for 'liver'\?\)",
    ),
    "unreadable predictions": (
        lambda root: (root / "b" / "case_2.nii.gz").write_bytes(b"x"),
        {},
        r"case_2\.nii\.gz is cut off or damaged\. Restore it",
    ),
    "unreadable labels": (
        lambda root: (root / "labels" / "case_2.nii.gz").write_bytes(b"x"),
        {"images": True, "labels": True},
        r"labels.*case_2\.nii\.gz",
    ),
    "a case without labels": (
        lambda root: (root / "labels" / "case_9.nii.gz").unlink(),
        {"labels": True},
        r"Case 'case_9' has no reference labels: .* Add them, or leave -l out",
    ),
    "labels without names": (
        lambda root: (root / "dataset.json").unlink(),
        {"labels": True},
        r"does not tell what its labels mean\. Copy the dataset\.json",
    ),
    "labels of other organs": (
        lambda root: (root / "dataset.json").write_text(
            (root / "a" / "dataset.json")
            .read_text()
            .replace("kidney", "lung")
            .replace("liver", "aorta")
            .replace("spleen", "x")
        ),
        {"labels": True},
        r"which neither model segments\. Classes are matched by name",
    ),
    "another grid": (
        lambda root: write(draw(OTHER)[:-1], root / "b" / "case_2.nii.gz", SPACING),
        {},
        r"The size of .*a/case_2.* is 40 x 34 x 32, but that of .*b/case_2.* 40 x 34 x 31\. Predict both from the same images",
    ),
    "another number of channels": (
        lambda root: shutil.copy(root / "images" / "case_0_0000.nii.gz", root / "images" / "case_0_0001.nii.gz"),
        {"images": True},
        r"case_0_0001\.nii\.gz is one channel more than dataset\.json names \(1\)",
    ),
    "other endings": (
        lambda root: (edit(root / "b", file_ending=".nrrd"), shutil.copy(root / "b/dataset.json", root / "b/x.nrrd")),
        {},
        r"A has files that end in \.nii\.gz, B in \.nrrd",
    ),
    "a label without a name": (
        lambda root: edit(root / "b", labels={k: v for k, v in OTHER.items() if k != "cyst"}),
        {},
        r"holds the label 5, which is none of \[0, 1, 2, 3, 4\]",
    ),
    "neither model nor predictions": (
        lambda root: (root / "b" / "dataset.json").unlink(),
        {},
        r"MODEL_B, .*b, is neither a model nor tells what its labels mean\. Give a model folder",
    ),
}


@pytest.mark.parametrize(("change", "given", "message"), REFUSALS.values(), ids=REFUSALS)
def test_what_cannot_be_compared_is_refused_with_its_name(folders, tmp_path, change, given, message):
    change(folders)
    with pytest.raises(CILError, match=message):
        compared(folders, tmp_path / "out", **given)
    assert not (tmp_path / "out" / "comparison.html").exists()


def test_a_threshold_beyond_a_dice_is_refused(folders, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["compare", str(folders / "a"), str(folders / "b"), "-o", str(tmp_path), "--fail-below", "95"])
    assert "95' is not a Dice: a number from 0 to 1" in capsys.readouterr().err
    with pytest.raises(CILError, match="must be a Dice"):
        compared(folders, tmp_path / "out", fail_below=95)


def test_names_that_may_be_one_organ_are_told_of(folders, tmp_path, caplog):
    edit(folders / "b", labels={("Spleen" if k == "spleen" else k): v for k, v in OTHER.items()})
    caplog.set_level("INFO", logger="nnunet_cil")
    assert "spleen" not in {
        r["class"] for r in compared(folders, tmp_path / "out", num_pictures=0).content["classes"] if r["is_shared"]
    }
    assert re.search("A's 'spleen' and B's 'Spleen' may be the same organ", caplog.text)
