"""Checks what ``inspect`` says of images that are no NIfTI volumes, and of what it cannot know of them."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from skimage import io

from nnunet_cil.errors import CILError
from nnunet_cil.workflows.data.inspect import inspect
from nnunet_cil.workflows.data.schedules import new

LABELS = {"background": 0, "left lung": 1, "right lung": 2, "heart": 3}


def label_map():
    """Voxels: 2 x 4 x 3 of the left lung, 2 x 4 x 5 of the right one, 1 x 2 x 2 of the heart."""
    labels = np.zeros((4, 12, 14), np.uint8)
    labels[1:3, 2:6, 9:12] = 1
    labels[1:3, 2:6, 1:6] = 2
    labels[1:2, 8:10, 6:8] = 3
    return labels


def png(folder, array, is_image):
    io.imsave(
        folder.with_suffix(".png"), np.stack([array[1]] * 3, axis=-1) if is_image else array[1], check_contrast=False
    )


def tiff(spacing, ending=".tif"):
    def write(file, array, is_image):
        tifffile.imwrite(file.with_suffix(ending), array, photometric="minisblack")
        if spacing is not None:
            file.with_name(f"{file.name[:-5] if is_image else file.name}.json").write_text(
                json.dumps({"spacing": spacing})
            )

    return write


def sheared(file, array, is_image):
    affine = np.diag([-2.0, -2.0, 5.0, 1.0])
    affine[0, 1] = 0.02
    nibabel.save(nibabel.Nifti1Image(array.T, affine), f"{file}.nii.gz")


def itk(ending, spacing, plane=False):
    def write(file, array, is_image):
        picture = sitk.GetImageFromArray(array[1] if plane else array)
        picture.SetSpacing(spacing)
        sitk.WriteImage(picture, f"{file}{ending}")

    return write


FORMATS = {
    "png": (".png", png, "", "14 x 12. Spacing in mm: not known", "Sizes in voxels", "12.000"),
    "tif": (".tif", tiff([2.5, 1, 1]), "Tiff3DIO", "14 x 12 x 4. Spacing in mm: 1 x 1 x 2.5", "Volumes in ml", "0.060"),
    "bare tiff": (".tiff", tiff(None, ".tiff"), "", "14 x 12 x 4. Spacing in mm: not known", "Sizes in voxels", "24.000"),
    "sheared": (".nii.gz", sheared, "", "14 x 12 x 4. Spacing in mm: 2 x 2 x 5", "Volumes in ml", "0.480"),
    "plane": (".nii.gz", itk(".nii.gz", (0.5, 2), plane=True), "", "14 x 12. Spacing in mm: 0.5 x 2", "Areas in mm2", "12.000"),
    "mha": (".mha", itk(".mha", (1, 1, 3)), "", "14 x 12 x 4. Spacing in mm: 1 x 1 x 3", "Volumes in ml", "0.072"),
}  # fmt: skip
ORIENTED = ("sheared", "mha")


def make(raw, ending, write, reader="", *, change=lambda labels: labels, **content):
    folder = raw / "Dataset040_Chest"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for i in range(3):
        write(folder / "imagesTr" / f"c{i}_0000", 20 * label_map(), True)
        write(folder / "labelsTr" / f"c{i}", change(label_map()), False)
    named = {"overwrite_image_reader_writer": reader} if reader else {}
    channels = {str(i): f"channel {i}" for i in range(3 if ending == ".png" else 1)}
    everything = {
        "channel_names": channels,
        "labels": LABELS,
        "numTraining": 3,
        "file_ending": ending,
        **named,
        **content,
    }
    (folder / "dataset.json").write_text(json.dumps(everything))
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_sizes_are_in_the_unit_that_the_files_say(raw, tmp_path, name):
    ending, write, reader, grid, extents, left_lung = FORMATS[name]
    make(raw, ending, write, reader)
    found = inspect(40, output=tmp_path / "page.html", num_pictures=1)
    assert f"Size in voxels: {grid}." in found.summary
    assert f"| left lung  | 1     | 3 / 3 | {left_lung}" in found.summary
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert extents in text
    sides = "Left lies left of right in every case, for 1 pairs of classes." in text
    assert sides == ("the patient&#39;s right, L the left" in text) == (name in ORIENTED)
    assert ("The files do not say which side is left" in text) == ("Axes: not known" in text) == (name not in ORIENTED)
    schedule = json.loads(new(40, [2, 1], order="size", output=tmp_path / "s.json").read_text())
    assert schedule["steps"] == [{"classes": ["right lung", "left lung"]}, {"classes": ["heart"]}]


def four(file, array, is_image):
    picture = sitk.GetImageFromArray(array)
    sitk.WriteImage(sitk.JoinSeries([picture, picture]) if is_image else picture, f"{file}.nii.gz")


def first_straight(file, array, is_image):
    (itk(".nii.gz", (1, 1, 1)) if file.name.startswith("c0") else sheared)(file, array, is_image)


@pytest.mark.parametrize(
    ("ending", "write", "change", "text"),
    [
        (
            ".nii.gz",
            four,
            label_map,
            r"c\d_0000.nii.gz has 4 dimensions.* Write each of its volumes to a file of its own",
        ),
        (".nii.gz", first_straight, label_map, r'c1.nii.gz has axes that are not at right angles.*"NibabelIO"'),
        (".tif", tiff([2, 1, 1]), lambda: label_map()[:3], r'3 colours a pixel.*"Tiff3DIO"'),
        (".tiff", tiff([2, 1], ".tiff"), label_map, "does not say the spacing"),
        (
            ".nii.gz",
            itk(".nii.gz", (1, 1, 1)),
            lambda: label_map()[:3],
            "is 14 x 12 x 4 voxels, its labels are 14 x 12 x 3",
        ),
    ],
)
def test_what_nnunet_cannot_take_is_one_sentence(raw, tmp_path, ending, write, change, text):
    folder = make(raw, ending, write, change=lambda _labels: change())
    if ending == ".tif" and "colours" in text:  # three slices, as the images have
        for file in (folder / "imagesTr").glob("*.tif"):
            tifffile.imwrite(file, label_map()[:3], photometric="minisblack")
    with pytest.raises(CILError, match=text):
        inspect(40, output=tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
