"""The grids of training and test cases, looked at before anything is planned, preprocessed or trained."""

import json
import logging

import numpy as np
import pytest
import SimpleITK as sitk
from toy import DATASET, LABELS, ORGANS, make_raw, plan_toy, write_schedule

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError


@pytest.fixture
def labels_of(toy):
    """Changes the header of a label file in the raw data set, and of its copy in the preprocessed one."""

    def change(case, origin):
        for folder in (f"raw/{DATASET}/labelsTr", f"preprocessed/{DATASET}/gt_segmentations"):
            file = toy.parents[1] / folder / f"{case}.nii.gz"
            picture = sitk.ReadImage(str(file))
            picture.SetOrigin(origin)
            sitk.WriteImage(picture, str(file))

    return change


def test_plan_refuses_labels_that_could_not_be_scored_later(labels_of, toy, tmp_path):
    labels_of("case_3", (0, 4, 0))
    with pytest.raises(CILError, match=r"Case 'case_3': .*/case_3.nii.gz lies 4 voxels beside"):
        plan_toy(tmp_path)
    assert not list(toy.glob("*step*"))


def test_plan_tells_of_labels_that_lie_a_little_beside(labels_of, tmp_path, caplog):
    labels_of("case_1", (0.02, 0, 0))
    with caplog.at_level(logging.INFO):
        plan_toy(tmp_path)
    assert f"Note on {DATASET}: The labels of 1 case ('case_1') lie up to 0.02 voxels beside their image" in caplog.text


def test_plan_needs_no_raw_files(labels_of, toy, tmp_path, monkeypatch):
    labels_of("case_3", (0, 4, 0))
    (toy.parents[1] / "raw" / DATASET / "labelsTr" / "case_3.nii.gz").unlink()
    assert plan_toy(tmp_path)
    monkeypatch.delenv("nnUNet_raw")
    assert plan_toy(tmp_path, name="again")


RUN = ("run", DATASET, "3d_fullres", "0")


def test_run_refuses_test_cases_of_another_size_before_any_training(toy, tmp_path, capsys):
    raw = toy.parents[1] / "raw" / DATASET
    for part, shape in (("imagesTs/t_0000", [24, 22, 20]), ("labelsTs/t", [24, 22, 19])):
        (raw / part).parent.mkdir()
        sitk.WriteImage(sitk.Image(shape, sitk.sitkUInt8), str(raw / f"{part}.nii.gz"))
    assert main([*RUN, str(write_schedule(tmp_path, (ORGANS,))), "-tr", "nnUNetTrainerPGCD", "-device", "cpu"]) == 1
    assert "is 24 x 22 x 20 voxels, but" in capsys.readouterr().err
    assert not list((toy.parents[1] / "results").iterdir())


def test_run_refuses_four_dimensions_before_it_preprocesses(raw, tmp_path, capsys):
    folder = make_raw(tmp_path / "nnunet", DATASET, LABELS, num_cases=5)
    sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkUInt8), str(folder / "imagesTr/new_2_0000.nii.gz"))
    assert main([*RUN, str(write_schedule(tmp_path, (ORGANS,))), "-tr", "nnUNetTrainerPGCD", "-device", "cpu"]) == 1
    assert "new_2_0000.nii.gz has 4 dimensions, which nnU-Net cannot predict" in capsys.readouterr().err
    assert not list((tmp_path / "nnunet/preprocessed").iterdir())


def test_run_refuses_grey_images_where_colours_are_named(raw, tmp_path, capsys):
    from skimage import io

    folder = raw / DATASET
    for i in range(5):
        for part, name in (("imagesTr", f"c{i}_0000.png"), ("labelsTr", f"c{i}.png")):
            (folder / part).mkdir(parents=True, exist_ok=True)
            io.imsave(folder / part / name, np.zeros((8, 9), np.uint8), check_contrast=False)
    content = {"channel_names": {"0": "red", "1": "green", "2": "blue"}, "labels": LABELS, "file_ending": ".png"}
    (folder / "dataset.json").write_text(json.dumps({**content, "numTraining": 5}))
    assert main([*RUN, str(write_schedule(tmp_path, (ORGANS,))), "-tr", "nnUNetTrainerPGCD", "-device", "cpu"]) == 1
    assert "has 1 colour, but dataset.json has 3 channels" in capsys.readouterr().err
