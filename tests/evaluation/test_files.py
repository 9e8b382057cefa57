"""Scores of files."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from skimage import io
from toy import LABELS, toy_volume
from toy_models import write

from nnunet_cil.errors import CILError
from nnunet_cil.evaluation.files import score_files
from nnunet_cil.host.reading.readers import named_reader

BOX = np.zeros((9, 10, 11), np.uint8)
BOX[3:6, 2:6, 3:8] = 1
SHIFTED = np.roll(BOX, 1, axis=0)


def scored(prediction, reference, reader="SimpleITKIO", **options):
    settings = {
        "classes": {"a": (1, 1)},
        "prediction_labels": frozenset({0, 1}),
        "reference_labels": frozenset({0, 1}),
        "ignore_label": None,
        "tolerance_mm": 2.0,
    }
    return score_files(prediction, reference, reader=named_reader(reader), **{**settings, **options})


def test_ignored_voxels_count_nowhere(tmp_path):
    labels = toy_volume(0)[1]
    truth = labels.copy()
    truth[:, :, :7] = 9
    write(truth, tmp_path / "truth.nii.gz")
    broken = labels.copy()
    broken[:, :, :7] = 2
    write(broken, tmp_path / "found.nii.gz")
    scores = scored(
        tmp_path / "found.nii.gz",
        tmp_path / "truth.nii.gz",
        classes={o: (n, n) for o, n in LABELS.items() if n},
        prediction_labels=frozenset(LABELS.values()),
        reference_labels=frozenset([*LABELS.values(), 9]),
        ignore_label=9,
        tolerance_mm=1,
    )
    assert {s.dice for s in scores.by_class.values() if s.num_voxels_reference} == {1}


def tiffs(folder, **spacings):
    """Writes prediction and reference, a slice apart; ``spacings``: image, reference, prediction -> the spacing beside it."""
    files = {part: folder / part / ("case_0000.tif" if part == "image" else "case.tif") for part in PARTS}
    for part, file in files.items():
        file.parent.mkdir()
        if part != "image":
            tifffile.imwrite(file, SHIFTED if part == "prediction" else BOX)
        if part in spacings:
            (file.parent / "case.json").write_text(json.dumps({"spacing": spacings[part]}))
    return files


PARTS = ("image", "reference", "prediction")


@pytest.mark.parametrize(
    ("spacings", "hd95", "unit"),
    [
        ({"image": [3.5, 1, 1]}, 3.5, "mm"),
        ({"reference": [4, 2, 2]}, 4, "mm"),
        ({"prediction": [2.5, 1, 1]}, 2.5, "mm"),
        ({"image": [3.5, 1, 1], "prediction": [1, 1, 1]}, 3.5, "mm"),
        ({"image": [1, 1, 1], "prediction": [1, 1, 1]}, 1, "mm"),
        ({"prediction": [1, 1, 1]}, 1, "voxels"),  # which nnU-Net writes where it knows none
        ({}, 1, "voxels"),
    ],
)
def test_distances_of_tiffs_are_in_the_unit_of_the_file_beside_them(tmp_path, spacings, hd95, unit):
    files = tiffs(tmp_path, **spacings)
    found = scored(files["prediction"], files["reference"], "Tiff3DIO", image_file=files["image"])
    assert (found.by_class["a"].hd95_mm, found.unit) == (hd95, unit)
    assert (found.by_class["a"].nsd == 1) == (hd95 <= 2)


def test_two_spacings_for_one_case_are_refused(tmp_path):
    files = tiffs(tmp_path, image=[3, 1, 1], reference=[5, 1, 1])
    with pytest.raises(CILError, match=r"case.json says 3 x 1 x 1 mm, but .*case.json says 5 x 1 x 1 mm"):
        scored(files["prediction"], files["reference"], "Tiff3DIO", image_file=files["image"])


@pytest.mark.parametrize("kind", ["png", "plane", "slice"])
def test_the_surface_of_a_plane_is_its_outline(tmp_path, kind):
    """A square of 7, and the same with a hole of 1: the pixels around the hole are 3 pixels from the outline."""
    square = np.zeros((1, 12, 12), np.uint8)
    square[0, 2:9, 2:9] = 1
    holed = square.copy()
    holed[0, 5, 5] = 0
    names = [f"{name}.{'png' if kind == 'png' else 'nii.gz'}" for name in ("prediction", "reference")]
    for array, name in zip((square, holed), names, strict=True):
        if kind == "png":
            io.imsave(tmp_path / name, array[0], check_contrast=False)
        else:
            picture = sitk.GetImageFromArray(array[0] if kind == "plane" else array)
            picture.SetSpacing([0.5] * picture.GetDimension())
            sitk.WriteImage(picture, str(tmp_path / name))
    found = scored(*(tmp_path / name for name in names), "NaturalImage2DIO" if kind == "png" else "SimpleITKIO")
    scale = 1 if kind == "png" else 0.5
    assert found.by_class["a"].asd_mm == pytest.approx(scale * 4 * 2 / (24 + 24 + 4))
    assert found.unit == ("voxels" if kind == "png" else "mm")


def nifti(file, array, affine=None):
    nibabel.save(nibabel.Nifti1Image(array.T, np.diag([1.0, 1.0, 3.0, 1.0]) if affine is None else affine), file)
    return file


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
@pytest.mark.parametrize(("origin", "voxels"), [(0, 0), (2e-4, 0), (0.004, 0.004), (0.1, 0.1), (0.4, 0.4)])
def test_references_that_lie_a_little_apart_are_scored_and_it_is_told(tmp_path, reader, origin, voxels):
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[0, 3] = origin
    found = scored(nifti(tmp_path / "a.nii.gz", SHIFTED), nifti(tmp_path / "b.nii.gz", BOX, affine), reader)
    assert found.by_class["a"].hd95_mm == 3
    assert found.voxels_apart == pytest.approx(voxels, abs=1e-6)


def test_references_that_lie_farther_apart_or_have_another_size_are_refused(tmp_path):
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[2, 3] = 1.8
    prediction = nifti(tmp_path / "a.nii.gz", BOX)
    with pytest.raises(CILError, match=r"b.nii.gz lie 0.6 voxels apart; at most 0.5 are tolerated"):
        scored(prediction, nifti(tmp_path / "b.nii.gz", BOX, affine))
    with pytest.raises(CILError, match=r"a.nii.gz is 11 x 10 x 9, but that of .*c.nii.gz 11 x 10 x 8"):
        scored(prediction, nifti(tmp_path / "c.nii.gz", BOX[:-1]))


def test_sheared_volumes_are_scored_as_nnunet_reads_them(tmp_path):
    affine = np.diag([2.0, 2.0, 4.0, 1.0])
    affine[1, 2] = 0.4
    files = [nifti(tmp_path / f"{name}.nii.gz", a, affine) for name, a in (("a", BOX), ("b", np.roll(BOX, 1, axis=2)))]
    found = scored(*files, "NibabelIO")
    assert (found.by_class["a"].hd95_mm, found.unit) == (2, "mm")
    with pytest.raises(CILError, match=r'"NibabelIO" into dataset.json'):
        scored(*files)
