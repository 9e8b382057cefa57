"""The spacing of TIFFs, in a file beside them."""

import json
from pathlib import Path

import pytest

from nnunet_cil.errors import CILError
from nnunet_cil.host.reading.spacings import agreed_spacing, case_spacing, spacing_file, with_spacing_files


def write(folder, name, spacing):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"spacing": spacing}))


@pytest.mark.parametrize(
    ("file", "is_image", "name"),
    [("a_0000.tif", True, "a.json"), ("a_b_0003.tiff", True, "a_b.json"), ("a.1.tif", False, "a.1.json")],
)
def test_the_file_has_the_cases_name(file, is_image, name):
    assert spacing_file(Path("x") / file, is_image=is_image) == Path("x") / name


def test_the_file_goes_along_under_the_images_new_name(tmp_path):
    write(tmp_path, "old.json", [3, 1, 1])
    images = {"new_0000.tif": tmp_path / "old_0000.tif", "other_0000.tif": tmp_path / "none_0000.tif"}
    assert with_spacing_files(images) == {**images, "new.json": tmp_path / "old.json"}
    (tmp_path / "a.json").write_text("{}")
    planes = {"a_0000.png": tmp_path / "a_0000.png"}
    assert with_spacing_files(planes) == planes


def test_the_images_spacing_comes_first_and_ones_beside_a_prediction_say_nothing(tmp_path):
    image, reference, prediction = tmp_path / "i/a_0000.tif", tmp_path / "r/a.tif", tmp_path / "p/a.tif"
    assert case_spacing(image, reference, prediction) is None
    write(prediction.parent, "a.json", [1, 1, 1])
    assert case_spacing(image, reference, prediction) is None
    write(prediction.parent, "a.json", [2, 1, 1])
    assert case_spacing(None, reference, prediction) == (2, 1, 1)
    write(image.parent, "a.json", [1, 1, 1])
    assert case_spacing(image, reference, prediction) == (1, 1, 1)
    write(reference.parent, "a.json", [1, 1, 1.5])
    with pytest.raises(CILError, match=r"i/a.json says 1 x 1 x 1 mm, but .*r/a.json says 1 x 1 x 1.5 mm"):
        agreed_spacing(image, reference)
