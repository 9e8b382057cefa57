"""Images and label maps, as nnU-Net's readers read them."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from skimage import io

from nnunet_cil.errors import CILError
from nnunet_cil.host.reading.images import as_seen, read_grid, read_images, read_labels, whole_numbers
from nnunet_cil.host.reading.readers import named_reader

TURNED = (0.0, 0.0, 1.0, -1.0, 0.0, 0.0, 0.0, -1.0, 0.0)
"""Columns run to the front, rows to the feet, slices to the left."""

VOLUME = np.random.default_rng(0).integers(0, 9, (3, 5, 7)).astype(np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 255, (6, 8, 3)).astype(np.uint8)


def write_itk(file, array, spacing=(1.5, 2.0, 4.0), direction=None, **how):
    picture = sitk.GetImageFromArray(array, **how)
    if picture.GetDimension() < 4:
        picture.SetSpacing(spacing[: picture.GetDimension()])
        picture.SetOrigin((10.0, -20.0, 30.0)[: picture.GetDimension()])
    if direction is not None:
        picture.SetDirection(direction)
    sitk.WriteImage(picture, str(file))


def write_sheared(file, array, shear=0.02):
    affine = np.diag([2.0, 3.0, 5.0, 1.0])
    affine[0, 1] = shear
    nibabel.save(nibabel.Nifti1Image(array.T, affine), file)


def write_tiff(file, array, spacing=None):
    tifffile.imwrite(file, array, photometric="minisblack")
    if spacing is not None:
        file.with_name(f"{file.stem[:-5]}.json").write_text(json.dumps({"spacing": spacing}))


def write_png(file, array):
    io.imsave(file, array, check_contrast=False)


FORMATS = {
    "nii.gz": ("SimpleITKIO", ".nii.gz", lambda f: write_itk(f, VOLUME), "LPS", True),
    "floats": ("SimpleITKIO", ".nii.gz", lambda f: write_itk(f, VOLUME.astype(np.float32) / 3), "LPS", True),
    "turned": ("SimpleITKIO", ".nii.gz", lambda f: write_itk(f, VOLUME, direction=TURNED), "AIL", True),
    "turned back": (
        "SimpleITKIOWithReorient",
        ".nii.gz",
        lambda f: write_itk(f, VOLUME, direction=TURNED),
        "RAS",
        True,
    ),
    "nrrd": ("SimpleITKIO", ".nrrd", lambda f: write_itk(f, VOLUME), "LPS", True),
    "mha": ("SimpleITKIO", ".mha", lambda f: write_itk(f, VOLUME.astype(np.int16) - 4), "LPS", True),
    "plane in NIfTI": ("SimpleITKIO", ".nii.gz", lambda f: write_itk(f, VOLUME[0]), "", True),
    "nibabel": ("NibabelIO", ".nii.gz", lambda f: write_itk(f, VOLUME, direction=TURNED), "AIL", True),
    "nibabel back": ("NibabelIOWithReorient", ".nii.gz", lambda f: write_itk(f, VOLUME, direction=TURNED), "RAS", True),
    "sheared": ("NibabelIO", ".nii.gz", lambda f: write_sheared(f, VOLUME), "RAS", True),
    "tiff": ("Tiff3DIO", ".tif", lambda f: write_tiff(f, VOLUME, [6, 0.5, 0.7]), "", True),
    "tiff without spacing": ("Tiff3DIO", ".tiff", lambda f: write_tiff(f, VOLUME), "", False),
    "grey": ("NaturalImage2DIO", ".png", lambda f: write_png(f, VOLUME[0]), "", False),
    "colours": ("NaturalImage2DIO", ".png", lambda f: write_png(f, COLOURS), "", False),
    "bmp": ("NaturalImage2DIO", ".bmp", lambda f: write_png(f, VOLUME[1]), "", False),
    "plane in TIFF": ("NaturalImage2DIO", ".tif", lambda f: write_tiff(f, VOLUME[1]), "", False),
}


@pytest.mark.parametrize(("reader", "ending", "write", "orientation", "in_mm"), FORMATS.values(), ids=FORMATS)
def test_arrays_and_grids_are_those_of_nnunets_reader(tmp_path, reader, ending, write, orientation, in_mm):
    file = tmp_path / f"case_0000{ending}"
    write(file)
    reader = named_reader(reader)
    image, (array, properties) = read_images([file], reader), reader.read_images([str(file)])
    assert np.array_equal(image.array.astype(np.float32), array)
    assert image.grid.spacing == pytest.approx(tuple(properties["spacing"]))
    assert (image.grid.orientation, image.grid.in_mm) == (orientation, in_mm)
    header = read_grid(file, reader, is_image=True)
    assert (header.shape, header.spacing, header.in_mm) == (array.shape[1:], image.grid.spacing, in_mm)
    assert (header.affine is None) == (image.grid.affine is None)
    if header.affine is not None:
        assert np.allclose(header.affine, image.grid.affine)


def test_the_type_of_labels_is_kept_in_the_formats_of_large_volumes(tmp_path):
    write_itk(tmp_path / "a.nii.gz", VOLUME)
    for reader in ("SimpleITKIO", "NibabelIO"):
        assert read_labels(tmp_path / "a.nii.gz", named_reader(reader)).array.dtype == np.uint8


@pytest.mark.parametrize(
    "direction", [None, TURNED, (-1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0), (0, 1.0, 0, 1.0, 0, 0, 0, 0, -1.0)]
)
def test_slices_are_turned_to_how_a_radiologist_sees_them(tmp_path, direction):
    write_itk(tmp_path / "a.nii.gz", VOLUME, direction=direction)
    expected = sitk.DICOMOrient(sitk.ReadImage(str(tmp_path / "a.nii.gz")), "LPS")
    slices, aspect = as_seen(read_images([tmp_path / "a.nii.gz"], named_reader("SimpleITKIO")))
    assert np.array_equal(slices, sitk.GetArrayFromImage(expected))
    assert aspect == expected.GetSpacing()[1] / expected.GetSpacing()[0]


@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient"])
def test_a_nifti_file_without_an_orientation_has_none(tmp_path, reader):
    """Readers guess one, each another."""
    nibabel.save(nibabel.Nifti1Image(VOLUME.T, None), tmp_path / "a_0000.nii.gz")
    reader = named_reader(reader)
    image = read_images([tmp_path / "a_0000.nii.gz"], reader)
    header = read_grid(tmp_path / "a_0000.nii.gz", reader, is_image=True)
    assert image.grid.orientation == header.orientation == ""
    assert np.allclose(image.grid.affine, header.affine)
    assert np.array_equal(as_seen(image)[0], image.array[0])


def test_a_plane_of_colours_is_one_grey_slice_and_three_slices_are_three(tmp_path):
    write_png(tmp_path / "a_0000.png", COLOURS)
    slices, aspect = as_seen(read_images([tmp_path / "a_0000.png"], named_reader("NaturalImage2DIO")))
    assert np.allclose(slices, COLOURS.mean(axis=-1)[None])
    assert aspect == 1
    write_tiff(tmp_path / "b_0000.tif", VOLUME, [4, 3, 2])
    slices, aspect = as_seen(read_images([tmp_path / "b_0000.tif"], named_reader("Tiff3DIO")))
    assert np.array_equal(slices, VOLUME)
    assert aspect == 1.5


def test_channels_are_read_together(tmp_path):
    files = [tmp_path / f"a_000{i}.nii.gz" for i in range(2)]
    for i, file in enumerate(files):
        write_itk(file, VOLUME + i)
    assert np.array_equal(read_images(files, named_reader("SimpleITKIO")).array, [VOLUME, VOLUME + 1])


FOUR = np.zeros((2, *VOLUME.shape), np.uint8)
DEEP = np.zeros((5, 6, 7), np.uint8)


def write_half(file):
    write_png(file, COLOURS)
    file.write_bytes(file.read_bytes()[:60])


UNREADABLE = {
    "four dimensions": (
        *("SimpleITKIO", ".nii.gz", lambda f: write_itk(f, FOUR, isVector=False)),
        "has 4 dimensions.* a file of its own",
    ),
    "four for nibabel": (
        *("NibabelIO", ".nii.gz", lambda f: nibabel.save(nibabel.Nifti1Image(FOUR, np.eye(4)), f)),
        "has 4 dimensions",
    ),
    "vectors": (
        *("SimpleITKIO", ".nrrd", lambda f: write_itk(f, FOUR.transpose(1, 2, 3, 0), isVector=True)),
        "2 numbers a voxel",
    ),
    "colours": ("SimpleITKIO", ".mha", lambda f: write_itk(f, COLOURS, isVector=True), "3 numbers a voxel"),
    "shear": ("SimpleITKIO", ".nii.gz", lambda f: write_sheared(f, VOLUME), 'not at right angles.*"NibabelIO"'),
    "plane": ("NibabelIO", ".nii.gz", lambda f: write_itk(f, VOLUME[0]), 'is a plane.*"SimpleITKIO"'),
    "flat": ("Tiff3DIO", ".tif", lambda f: write_tiff(f, VOLUME[0]), "Tiff3DIO, which reads volumes"),
    "deep": ("NaturalImage2DIO", ".tif", lambda f: write_tiff(f, DEEP), "which reads planes"),
    "no PNG": ("NaturalImage2DIO", ".png", lambda f: f.write_bytes(b"no picture"), "cannot be read. Restore it"),
    "no TIFF": ("Tiff3DIO", ".tif", lambda f: f.write_bytes(b"II*\0"), "cannot be read. Restore it"),
    "no NRRD": ("SimpleITKIO", ".nrrd", lambda f: f.write_bytes(b"NRRD0004\n"), "cannot be read. Restore it"),
    "no NIfTI": ("SimpleITKIO", ".nii.gz", lambda f: f.write_bytes(b"no image"), "cut off or damaged"),
    "half a PNG": ("NaturalImage2DIO", ".png", write_half, "cannot be read"),
    "missing": ("SimpleITKIO", ".nii.gz", lambda f: None, "is missing"),
}


@pytest.mark.parametrize(("reader", "ending", "write", "text"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_one_sentence(tmp_path, capfd, reader, ending, write, text):
    file = tmp_path / f"case_0000{ending}"
    write(file)
    capfd.readouterr()
    reader = named_reader(reader)
    for read in (lambda: read_images([file], reader), lambda: read_labels(file, reader)):
        with pytest.raises(CILError, match=text):
            read()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(("ending", "remedy"), [(".png", "in grey"), (".tif", '"Tiff3DIO"')])
def test_a_label_map_of_colours_or_of_three_slices_taken_for_colours_is_refused(tmp_path, ending, remedy):
    file = tmp_path / f"case{ending}"
    if ending == ".png":
        write_png(file, COLOURS)
    else:
        tifffile.imwrite(file, VOLUME, photometric="minisblack")
    with pytest.raises(CILError, match=f"3 colours a pixel.*{remedy}"):
        read_labels(file, named_reader("NaturalImage2DIO"))


@pytest.mark.parametrize(
    "spacing", ["x", [1, 2], [1, 2, 0], [1, 2, "3"], [1, 2, float("inf")], [True, 1, 1], {"x": 1}, None]
)
def test_a_file_of_spacings_that_says_something_else_is_refused(tmp_path, spacing):
    write_tiff(tmp_path / "a_0000.tif", VOLUME)
    (tmp_path / "a.json").write_text(json.dumps({"spacing": spacing}))
    with pytest.raises(CILError, match=r"a.json does not say the spacing of a_0000.tif"):
        read_images([tmp_path / "a_0000.tif"], named_reader("Tiff3DIO"))


def test_numbers_that_are_not_whole_are_no_labels(tmp_path):
    labels = np.array([0.0, 2.0, 1.0], dtype=np.float32)
    assert whole_numbers(labels, tmp_path).dtype == np.int32
    for wrong in (0.5, np.nan, np.inf):
        labels[0] = wrong
        with pytest.raises(CILError, match="not whole"):
            whole_numbers(labels, tmp_path)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (2**32 + 1, "int64"),
        (2**32 + 1, "float64"),
        (2**40, "int64"),
        (2**63 + 5, "uint64"),
        (3e9, "float32"),
        (-70000, "int32"),
    ],
)
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
def test_a_label_that_would_become_another_one_is_refused(tmp_path, number, kind, reader):
    file, labels = tmp_path / "a.nii.gz", np.ones((4, 4, 4), kind)
    labels[1, 2, 3] = number
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(file))
    with pytest.raises(CILError, match=r"a.nii.gz holds the label -?\d.*, but nnU-Net keeps labels up to 32767 only"):
        whole_numbers(read_labels(file, named_reader(reader)).array, file)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("reader", ["SimpleITKIO", "NibabelIO", "NibabelIOWithReorient"])
def test_a_label_map_with_numbers_that_are_not_finite_is_refused(tmp_path, number, reader):
    file, labels = tmp_path / "a.nii.gz", np.ones((4, 4, 4), np.float32)
    labels[1, 2, 3] = number
    sitk.WriteImage(sitk.GetImageFromArray(labels), str(file))
    with pytest.raises(CILError, match=r"a.nii.gz holds NaN or infinite numbers"):
        whole_numbers(read_labels(file, named_reader(reader)).array, file)
