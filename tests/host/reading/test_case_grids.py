"""Checks what is refused, and what is told, of image and labels that do not quite show the same voxels."""

import json
import re
import shutil

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from skimage import io

from nnunet_cil.errors import CILError
from nnunet_cil.host.reading.case_grids import CaseFiles, check_grids
from nnunet_cil.host.reading.readers import named_reader

ARRAY = np.zeros((6, 30, 40), np.uint8)


def itk(file, array=ARRAY, spacing=(0.5, 0.5, 4.0), origin=(0, 0, 0), turn=0.0):
    picture = sitk.GetImageFromArray(array)
    picture.SetSpacing(spacing)
    picture.SetOrigin(origin)
    c, s = np.cos(turn), np.sin(turn)
    picture.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    sitk.WriteImage(picture, str(file))
    return file


def checked(folder, reader="SimpleITKIO", num_cases=3, ending=".nii.gz", channels=1, **labels_of_the_last):
    cases = {}
    for i in range(num_cases):
        image = itk(folder / f"c{i}_0000{ending}")
        labels = itk(folder / f"c{i}{ending}", **(labels_of_the_last if i == num_cases - 1 else {}))
        cases[f"c{i}"] = CaseFiles(images=[image], labels=[labels])
    return check_grids(cases, named_reader(reader), channels, for_training=True)


@pytest.mark.parametrize("reader", ["SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize(
    ("labels", "voxels"),
    [
        ({"origin": (0.002, 0, 0)}, 0.004),
        ({"origin": (0, 0.1, 0)}, 0.2),
        ({"origin": (0, 0, -0.1)}, 0.025),
        ({"turn": 4e-4}, 0.016),
        ({"spacing": (0.503, 0.5, 4)}, 0.23),
    ],
)
def test_what_nnunet_takes_with_a_warning_is_told(tmp_path, reader, labels, voxels):
    (note,) = checked(tmp_path, reader, **labels)
    assert note.startswith("The labels of 1 case ('c2') lie up to ")
    assert float(note.split()[9]) == pytest.approx(voxels, rel=0.05)


def test_what_is_equal_but_for_rounding_is_not_told(tmp_path):
    assert checked(tmp_path, origin=(1e-4, 0, 0)) == []


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        ({"array": ARRAY[1:]}, r"c2_0000.nii.gz is 40 x 30 x 6 voxels, but .*c2.nii.gz 40 x 30 x 5"),
        ({"array": ARRAY.transpose(0, 2, 1)}, r"40 x 30 x 6 voxels, but .* 30 x 40 x 6"),
        ({"origin": (0.3, 0, 0)}, r"c2.nii.gz lies 0.6 voxels beside .*c2_0000.nii.gz; at most 0.5 are tolerated"),
        (
            {"spacing": (0.5, 0.5, 5)},
            r"lies 1.25 voxels beside .*c2_0000.nii.gz .spacing 0.5 x 0.5 x 5 mm, not 0.5 x 0.5 x 4.;",
        ),
        ({"turn": np.pi}, "give it the image's header .SimpleITK: CopyInformation."),
    ],
)
def test_what_cannot_be_scored_is_refused_with_a_remedy(tmp_path, labels, text):
    with pytest.raises(CILError, match=f"Case 'c2': .*{text}"):
        checked(tmp_path, **labels)


@pytest.mark.parametrize("for_training", [True, False])
def test_only_what_is_trained_on_is_to_be_preprocessed_again(tmp_path, for_training):
    files = itk(tmp_path / "c0_0000.nii.gz"), itk(tmp_path / "c0.nii.gz", origin=(7, 0, 0))
    cases = {"c0": CaseFiles(images=files[:1], labels=files[1:])}
    with pytest.raises(CILError) as refused:
        check_grids(cases, named_reader("SimpleITKIO"), 1, for_training=for_training)
    assert ("preprocess" in str(refused.value)) == for_training


def test_the_remedy_works(tmp_path):
    with pytest.raises(CILError, match="beside"):
        checked(tmp_path, num_cases=1, origin=(7, 0, 0))
    files = tmp_path / "c0_0000.nii.gz", tmp_path / "c0.nii.gz"
    image, labels = (sitk.ReadImage(str(f)) for f in files)
    labels.CopyInformation(image)
    sitk.WriteImage(labels, str(files[1]))
    assert (
        check_grids(
            {"c0": CaseFiles(images=files[:1], labels=files[1:])}, named_reader("SimpleITKIO"), 1, for_training=True
        )
        == []
    )


def test_all_faulty_cases_are_counted(tmp_path):
    cases = {}
    for i in range(6):
        image, labels = itk(tmp_path / f"c{i}_0000.nii.gz"), itk(tmp_path / f"c{i}.nii.gz", origin=(i, 0, 0))
        cases[f"c{i}"] = CaseFiles(images=[image], labels=[labels])
    with pytest.raises(CILError, match=r"Case 'c1'.*not the only one: 4 cases \('c2', 'c3', 'c4' and 1 more\)"):
        check_grids(cases, named_reader("SimpleITKIO"), 1, for_training=True)


def test_channels_of_another_spacing_are_refused_as_nnunet_does(tmp_path):
    files = [itk(tmp_path / f"c0_000{i}.nii.gz", spacing=(0.5, 0.5 + 0.001 * i, 4)) for i in range(2)]
    with pytest.raises(CILError, match=r"c0_0001.nii.gz has another spacing than .*c0_0000.nii.gz"):
        check_grids({"c0": CaseFiles(images=files, labels=[])}, named_reader("SimpleITKIO"), 2, for_training=True)
    with pytest.raises(RuntimeError):
        named_reader("SimpleITKIO").read_images([str(f) for f in files])


def test_a_fourth_dimension_is_refused(tmp_path):
    sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkUInt8), str(tmp_path / "c0_0000.nii.gz"))
    with pytest.raises(CILError, match="4 dimensions, which nnU-Net cannot predict"):
        check_grids(
            {"c0": CaseFiles(images=[tmp_path / "c0_0000.nii.gz"], labels=[])},
            named_reader("SimpleITKIO"),
            1,
            for_training=True,
        )


def test_skewed_axes_are_told(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.05
    files = tmp_path / "c_0000.nii.gz", tmp_path / "c.nii.gz"
    for file in files:
        nibabel.save(nibabel.Nifti1Image(ARRAY, affine), file)
    (note,) = check_grids(
        {"c": CaseFiles(images=files[:1], labels=files[1:])}, named_reader("NibabelIO"), 1, for_training=True
    )
    assert "up to 2.9 degrees from right angles" in note


def colours(folder, array):
    files = folder / "c_0000.png", folder / "c.png"
    io.imsave(files[0], array, check_contrast=False)
    io.imsave(files[1], np.zeros((8, 9), np.uint8), check_contrast=False)
    return {"c": CaseFiles(images=files[:1], labels=files[1:])}


def test_planes_need_a_channel_for_each_colour(tmp_path):
    reader = named_reader("NaturalImage2DIO")
    cases = colours(tmp_path, np.zeros((8, 9, 3), np.uint8))
    (note,) = check_grids(cases, reader, 3, for_training=True)
    assert "distances will be in voxels" in note
    with pytest.raises(CILError, match=r"has 3 colours, but dataset.json has 1 channel"):
        check_grids(cases, reader, 1, for_training=True)
    volume = tmp_path / "v_0000.tif"  # nnU-Net takes three slices for colours
    tifffile.imwrite(volume, np.zeros((3, 8, 9), np.uint8), photometric="minisblack")
    with pytest.raises(CILError, match=r'If it is a volume, write "overwrite_image_reader_writer": "Tiff3DIO"'):
        check_grids({"v": CaseFiles(images=[volume], labels=[])}, reader, 1, for_training=True)
    with pytest.raises(CILError, match=r"c_0000.png is 9 x 7 voxels, but .*c.png 9 x 8"):
        check_grids(colours(tmp_path, np.zeros((7, 9), np.uint8)), reader, 1, for_training=True)


@pytest.mark.parametrize(
    ("spacings", "expected"),
    [
        ([[3, 1, 1]] * 3, []),
        ([None] * 3, ["stands in case.json beside case_0000.tif"]),
        ([[3, 1, 1], None, [2, 1, 1]], r"No file says how large a voxel is of 1 case \('c1'\)"),
    ],
)
def test_tiffs_say_their_spacing_all_or_none(tmp_path, spacings, expected):
    cases = {}
    for i, spacing in enumerate(spacings):
        files = tmp_path / f"c{i}_0000.tif", tmp_path / f"c{i}.tif"
        for file in files:
            tifffile.imwrite(file, ARRAY)
        if spacing:
            (tmp_path / f"c{i}.json").write_text(json.dumps({"spacing": spacing}))
        cases[f"c{i}"] = CaseFiles(images=files[:1], labels=files[1:])
    if isinstance(expected, str):
        with pytest.raises(CILError, match=expected):
            check_grids(cases, named_reader("Tiff3DIO"), 1, for_training=True)
    else:
        notes = check_grids(cases, named_reader("Tiff3DIO"), 1, for_training=True)
        assert len(notes) == len(expected)
        assert all(text in note for text, note in zip(expected, notes, strict=True))


def tiff(folder, name, spacing):
    folder.mkdir(exist_ok=True)
    tifffile.imwrite(folder / f"{name}.tif", ARRAY)
    if spacing:
        (folder / f"{name.removesuffix('_0000')}.json").write_text(json.dumps({"spacing": spacing}))
    return folder / f"{name}.tif"


@pytest.mark.parametrize("spacing", [[3, 1, 1], [1, 1, 0.5]])
@pytest.mark.parametrize("of_others", [[3, 1, 1], None])
def test_a_spacing_beside_the_labels_alone_is_refused_and_the_remedy_works(tmp_path, spacing, of_others):
    cases = {}
    for name, beside in (("a", of_others), ("b", None)):
        image, labels = (
            tiff(tmp_path / "images", f"{name}_0000", beside),
            tiff(tmp_path / "labels", name, beside or spacing),
        )
        cases[name] = CaseFiles(images=[image], labels=[labels])
    reader = named_reader("Tiff3DIO")
    text = r"labels.*\.json says the spacing of the labels, but no file says the image's: nnU-Net would take 1 mm\. Copy it to"
    for name in ("b",) if of_others else ("a", "b"):
        with pytest.raises(CILError, match=f"Case '{name}': .*{text}") as refused:
            check_grids(cases, reader, 1, for_training=False)
        shutil.copy(tmp_path / "labels" / f"{name}.json", re.search(r"Copy it to (\S+)\.", str(refused.value))[1])
    assert check_grids(cases, reader, 1, for_training=False) == []


def test_labels_of_one_millimetre_are_as_nnunet_takes_an_image_without_spacing(tmp_path):
    image, labels = tiff(tmp_path / "images", "a_0000", None), tiff(tmp_path / "labels", "a", [1, 1, 1])
    cases = {"a": CaseFiles(images=[image], labels=[labels])}
    (note,) = check_grids(cases, named_reader("Tiff3DIO"), 1, for_training=True)
    assert "nnU-Net takes 1" in note
