"""Checks what ``inspect`` says of a data set, on volumes whose answer is known, and on real ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from downloads import ct, label_map, save, write_amos22, write_generic

from nnunet_cil.cli import main
from nnunet_cil.datasets.statistics import case_statistics, class_statistics, swapped_sides, twins
from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.figures import comparison
from nnunet_cil.host.reading.readers import named_reader
from nnunet_cil.workflows.data import inspect as inspect_module
from nnunet_cil.workflows.data.convert import convert
from nnunet_cil.workflows.data.inspect import inspect

REAL = Path(__file__).parents[4] / "shared" / "data"


NUMBERS = {"left kidney": 1, "right kidney": 2, "cyst": 3}


def kidneys(file, *, left_column, right_column, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    """A box of 2 x 2 x 2 voxels of 0.8 x 0.8 x 3 mm for each kidney."""
    labels = np.zeros((6, 10, 12), dtype=np.uint8)
    labels[2:4, 3:5, left_column : left_column + 2] = 1
    labels[2:4, 3:5, right_column : right_column + 2] = 2
    save(labels, file)
    picture = sitk.ReadImage(str(file))
    picture.SetDirection(direction)
    sitk.WriteImage(picture, str(file))
    return case_statistics(file.name[0], file, "Tr", NUMBERS, named_reader("SimpleITKIO"))


def test_volumes_are_in_millilitres_and_absent_classes_are_missing(tmp_path):
    case = kidneys(tmp_path / "a.nii.gz", left_column=8, right_column=2)
    assert case.unit == "ml"
    assert case.extents("ml") == pytest.approx({"left kidney": 8 * 0.8 * 0.8 * 3 / 1000, "right kidney": 8 * 1.92e-3})
    assert (case.size, case.axes) == ((12, 10, 6), "LPS")
    rows = class_statistics([case], list(NUMBERS))
    assert [row.num_cases for row in rows] == [1, 1, 0]
    assert np.isnan(rows[2].median)


def test_left_is_where_the_geometry_says_not_where_the_columns_are(tmp_path):
    mirrored = (-1, 0, 0, 0, 1, 0, 0, 0, 1)
    cases = [
        kidneys(tmp_path / "a.nii.gz", left_column=8, right_column=2),
        kidneys(tmp_path / "b.nii.gz", left_column=2, right_column=8),
        kidneys(tmp_path / "c.nii.gz", left_column=2, right_column=8, direction=mirrored),
    ]
    assert swapped_sides(cases, list(NUMBERS)) == [("b", "left kidney")]


def test_twins_are_found_in_every_spelling_of_the_field():
    names = [
        "LeftParotid",
        "RightParotid",
        "kidney_left",
        "kidney_right",
        "Head_of_femur_L",
        "Head_of_femur_R",
        "liver",
    ]
    assert twins(names) == [(names[0], names[1]), (names[2], names[3]), (names[4], names[5])]
    assert twins(["left lung", "LV", "RV", "Liver"]) == []


def test_the_page_opens_offline_and_shows_everything(raw, tmp_path, capsys):
    convert("amos22", write_amos22(tmp_path / "download"), 40)
    assert main(["inspect", "40", "--pictures", "2"]) == 0
    out = capsys.readouterr().out
    assert "Dataset040_AMOS22CT: 3 cases" in out
    assert "| spleen " in out
    text = (raw / "Dataset040_AMOS22CT/inspection.html").read_text()
    assert text.count("data:image/png;base64,") == 2
    assert "http" not in text
    for word in ("amos_0008", "prostate/uterus", "3 / 3", "12 x 10 x 6", "in every case, for 2 pairs"):
        assert word in text
    assert main(["inspect", "Dataset040_AMOS22CT"]) == 0  # its own page is written anew


def test_images_without_labels_are_told(raw, tmp_path):
    source = write_generic(tmp_path / "mine")
    convert("generic", source, 40, options={"names": source / "names.json"})
    folder = raw / "Dataset040_Mine"
    assert "without" not in inspect(40).summary
    (folder / "imagesTr/case0_0000.nii.gz").unlink()
    (folder / "labelsTr/case2.nii.gz").unlink()
    found = inspect(40)
    for line in ("Training images without labels: 1, case2.", "Labels without an image: 1, case0."):
        assert line in found.summary
        assert line in found.page.read_text()


def test_labels_that_dataset_json_does_not_list_are_told(raw, tmp_path):
    source = write_generic(tmp_path / "mine")
    convert("generic", source, 40, options={"names": source / "names.json"})
    file = raw / "Dataset040_Mine" / "labelsTr" / "case1.nii.gz"
    assert "does not list" not in inspect(40).summary
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(file))).astype(np.int32)
    for number in (300, -1):
        labels[0, 0, 0] = number
        file.unlink()
        save(labels, file)
        line = f"Labels that dataset.json does not list: in case1 ({number}). Correct these label files."
        assert line in inspect(40).summary.splitlines()
    labels[0, 0, 0] = 2**20
    save(labels, file)
    with pytest.raises(CILError, match=r"case1.nii.gz holds the label 1048576, but nnU-Net keeps labels up to 32767"):
        inspect(40)


def test_what_cannot_be_inspected_is_refused(raw, tmp_path):
    with pytest.raises(CILError, match="no data set '40'"):
        inspect("40")
    source = write_generic(tmp_path / "mine")
    convert("generic", source, 40, options={"names": source / "names.json"})
    there = tmp_path / "page.html"
    there.write_text("mine")
    with pytest.raises(CILError, match="exists already"):
        inspect(40, output=there)
    for file in (raw / "Dataset040_Mine/imagesTr").iterdir():
        file.unlink()
    assert "<p>None.</p>" in inspect(40).page.read_text()
    (raw / "Dataset040_Mine/labelsTr/case0.nii.gz").unlink()
    (raw / "Dataset040_Mine/labelsTr/case0.nii.gz").write_text("no image")
    with pytest.raises(CILError, match=r"case0.nii.gz is cut off or damaged"):
        inspect(40)
    for file in (raw / "Dataset040_Mine/labelsTr").iterdir():
        file.unlink()
    with pytest.raises(CILError, match="holds no label file"):
        inspect(40)


@pytest.mark.skipif(not (REAL / "openkbp_raw").is_dir(), reason="needs shared/data/openkbp_raw beside the project")
def test_in_four_real_patients_left_is_left(raw):
    convert("openkbp", REAL / "openkbp_raw", 41)
    found = inspect(41, num_pictures=1)
    assert "Left lies left of right in every case, for 1 pairs of classes." in found.summary
    assert "Axes: LPS" in found.summary


def test_an_image_without_labels_is_not_shown(raw, tmp_path):
    source = write_generic(tmp_path / "mine")
    convert("generic", source, 40, options={"names": source / "names.json"})
    save(ct(5), raw / "Dataset040_Mine/imagesTr/other_0000.nii.gz")
    text = inspect(40).page.read_text()
    assert text.count("data:image/png;base64,") == 3
    assert text.count("other") == 1  # where images without labels are told


def test_pictures_have_the_classes_in_the_order_of_their_names(raw, tmp_path, monkeypatch):
    source = write_generic(tmp_path / "mine", cases=1)
    convert("generic", source, 40, options={"names": source / "names.json"})
    file = raw / "Dataset040_Mine/dataset.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "labels": {"background": 0, "spleen": 2, "liver": 1, "ignore": 3}}))
    shown = []

    def watched(image, labels, classes, **keywords):
        shown.append((labels["labels"], classes))
        return comparison(image, labels, classes, **keywords)

    monkeypatch.setattr(inspect_module, "comparison", watched)
    inspect(40)
    assert shown[0][1] == ["spleen", "liver"]
    assert np.array_equal(shown[0][0], label_map(2, 1))


@pytest.mark.parametrize("numbers", [(1, 2), ("2", "1"), (2.0, [1])], ids=str)
def test_listed_files_and_labels_in_every_form_are_measured_and_shown(raw, tmp_path, numbers):
    """With nnU-Net's key ``dataset`` the files lie anywhere; test cases stay in their folders."""
    source = write_generic(tmp_path / "mine")
    convert("generic", source, 40, options={"names": source / "names.json"}, copy=True)
    folder = raw / "Dataset040_Mine"
    before = inspect(40)
    files = {}
    for case in ("case0", "case1", "case2"):
        own = tmp_path / "hospital" / case
        own.mkdir(parents=True)
        (folder / f"imagesTr/{case}_0000.nii.gz").rename(own / "ct.nii.gz")
        (folder / f"labelsTr/{case}.nii.gz").rename(own / "organs.nii.gz")
        files[case] = {"images": [f"../../../hospital/{case}/ct.nii.gz"], "label": str(own / "organs.nii.gz")}
    content = json.loads((folder / "dataset.json").read_text())
    labels = {"background": 0, "liver": numbers[0], "spleen": numbers[1]}
    (folder / "dataset.json").write_text(json.dumps({**content, "dataset": files, "labels": labels}))
    found = inspect(40, output=tmp_path / "listed.html")
    assert found.summary.splitlines()[:4] == before.summary.splitlines()[:4]
    assert found.page.read_text().count("data:image/png;base64,") == 3
    rows = [line.split("|")[1:3] for line in found.summary.splitlines() if line.startswith(("| liver", "| spleen"))]
    assert {name.strip(): int(number) for name, number in rows} == (
        {"liver": 1, "spleen": 2} if numbers == (1, 2) else {"liver": 2, "spleen": 1}
    )
