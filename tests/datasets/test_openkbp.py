"""The OpenKBP converter, on a written patient and on four real ones."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cil.datasets.checks import check
from nnunet_cil.datasets.convert import write
from nnunet_cil.datasets.openkbp import find, find_patients
from nnunet_cil.errors import CILError

REAL = Path(__file__).parents[3] / "shared" / "data"


def write_patient(folder, *, spacing=(2.0, 3.0, 4.0), organs=None, bright=0):
    """Writes a body from (30, 20, 10) to (60, 70, 50) in (row, column, slice); CT 1000 + slice, one voxel brighter."""
    folder.mkdir(parents=True)
    grid = np.zeros((128, 128, 128))
    grid[30:60, 20:70, 10:50] = 1000 + np.arange(10, 50)
    grid[59, 69, 49] += bright
    flat = grid.ravel()
    lines = [f"{i},{flat[i]:.1f}" for i in np.flatnonzero(flat)]
    (folder / "ct.csv").write_text("\n".join([",data", *lines]) + "\n")
    for name, box in (organs or {"Brainstem": (35, 30, 20), "SpinalCord": (35, 30, 22)}).items():
        mask = np.zeros(grid.shape, dtype=bool)
        mask[box[0] : box[0] + 5, box[1] : box[1] + 6, box[2] : box[2] + 4] = True
        (folder / f"{name}.csv").write_text("\n".join([",data", *(f"{i}," for i in np.flatnonzero(mask))]) + "\n")
    (folder / "voxel_dimensions.csv").write_text("\n".join(f"{s:.18e}" for s in spacing) + "\n")


@pytest.fixture
def clone(tmp_path):
    """Returns a clone with a training, a validation, a test patient, and one without a spinal cord."""
    provided = tmp_path / "open-kbp" / "provided-data"
    for i, patient in enumerate(("train-pats/pt_1", "validation-pats/pt_201", "test-pats/pt_241")):
        write_patient(provided / patient, bright=i)
    write_patient(provided / "train-pats" / "pt_2", organs={"Brainstem": (35, 30, 20)}, bright=9)
    return tmp_path / "open-kbp"


def convert(source, target, **options):
    """Converts, and returns case -> text of its problem."""
    findings = check(find(source, **options))
    assert findings.is_usable, findings.text()
    write(findings, target)
    return {p.case: p.text for p in findings.problems}


def labels_of(folder):
    return sorted(f.name.removesuffix(".nii.gz") for f in folder.iterdir())


def read(file):
    picture = sitk.ReadImage(str(file))
    return sitk.GetArrayFromImage(picture), picture


def test_a_written_patient_lands_where_its_geometry_says(clone, tmp_path):
    notes = convert(clone, tmp_path / "out", classes=("Brainstem", "SpinalCord"))
    assert labels_of(tmp_path / "out/labelsTr") == ["openkbp_001", "openkbp_201"]
    assert notes["openkbp_002"] == "left out, has no contour of SpinalCord"
    assert notes["openkbp_241"] == "60 voxels belonged to two classes; the lower label won"
    image, picture = read(tmp_path / "out/imagesTr/openkbp_001_0000.nii.gz")
    labels, _ = read(tmp_path / "out/labelsTr/openkbp_001.nii.gz")
    assert image.shape == labels.shape == (44, 34, 54)  # the body and a margin of 2
    assert picture.GetSpacing() == (3.0, 2.0, 4.0)
    assert picture.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    # the voxel at row 35, column 30, slice 21 is a brainstem voxel
    point = (30 * 3.0, 35 * 2.0, -21 * 4.0)
    index = picture.TransformPhysicalPointToIndex(point)
    assert picture[index] == 1021
    assert labels[index[::-1]] == 1
    cord = picture.TransformPhysicalPointToIndex((30 * 3.0, 35 * 2.0, -25 * 4.0))
    assert labels[cord[::-1]] == 2
    assert (labels == 1).sum() == 5 * 6 * 4
    assert (labels == 2).sum() == 5 * 6 * 2
    assert (tmp_path / "out/imagesTs/openkbp_241_0000.nii.gz").is_file()
    dataset = json.loads((tmp_path / "out/dataset.json").read_text())
    assert dataset["labels"] == {"background": 0, "Brainstem": 1, "SpinalCord": 2}
    assert dataset["numTraining"] == 2


def test_incomplete_patients_are_kept_on_request(clone, tmp_path):
    convert(clone, tmp_path / "out", classes=("Brainstem", "SpinalCord"), keep_incomplete=True)
    assert "openkbp_002" in labels_of(tmp_path / "out/labelsTr")


def test_chosen_cases_only(clone, tmp_path):
    cases = {"train": ["openkbp_201"], "test": ["openkbp_001"]}
    convert(clone / "provided-data", tmp_path / "out", classes=("Brainstem",), cases=cases)
    assert [f.name for f in (tmp_path / "out/labelsTr").iterdir()] == ["openkbp_201.nii.gz"]
    assert [f.name for f in (tmp_path / "out/labelsTs").iterdir()] == ["openkbp_001.nii.gz"]
    with pytest.raises(CILError, match="Chosen cases look like"):
        convert(clone, tmp_path / "out", cases={"training": ["openkbp_001"]})
    with pytest.raises(CILError, match="1 of the wanted cases are not in the source, the first is 'openkbp_009'"):
        convert(clone, tmp_path / "out", cases={"train": ["openkbp_009"]})


def test_a_second_call_leaves_finished_cases_alone(clone, tmp_path):
    convert(clone, tmp_path / "out", classes=("Brainstem",))
    image, label = tmp_path / "out/imagesTr/openkbp_001_0000.nii.gz", tmp_path / "out/labelsTr/openkbp_001.nii.gz"
    before = image.stat().st_mtime_ns
    (tmp_path / "out/labelsTr/openkbp_201.nii.gz").unlink()
    convert(clone, tmp_path / "out", classes=("Brainstem",))
    assert image.stat().st_mtime_ns == before
    assert label.is_file()
    assert (tmp_path / "out/labelsTr/openkbp_201.nii.gz").is_file()


def test_a_folder_of_another_conversion_is_refused_and_left_alone(clone, tmp_path):
    convert(clone, tmp_path / "out", classes=("Brainstem", "SpinalCord"))
    before = (tmp_path / "out/dataset.json").read_text()
    with pytest.raises(CILError, match="holds other labels from another conversion"):
        convert(clone, tmp_path / "out", classes=("SpinalCord", "Brainstem"))
    with pytest.raises(CILError, match="holds the case 'openkbp_201' from another conversion"):
        convert(clone, tmp_path / "out", classes=("Brainstem", "SpinalCord"), cases={"train": ["openkbp_001"]})
    assert (tmp_path / "out/dataset.json").read_text() == before


def test_bad_sources_are_refused(clone, tmp_path):
    with pytest.raises(CILError, match="holds no patients: expected provided-data/train-pats/pt_1"):
        convert(tmp_path, tmp_path / "out")
    with pytest.raises(CILError, match=r"no organ 'Brainstm' \(did you mean 'Brainstem'"):
        convert(clone, tmp_path / "out", classes=("Brainstm",))
    with pytest.raises(CILError, match=r"No training patient of .* has all of Larynx\. .* --keep-incomplete") as error:
        convert(clone, tmp_path / "out", classes=("Larynx",))
    without = [line for line in str(error.value).splitlines() if line.endswith("has no contour of Larynx")]
    assert len(without) == len(list(clone.rglob("pt_*")))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("Brainstem.csv", ",data\n9999999,\n", "Brainstem.csv holds an index outside"),
        ("Brainstem.csv", ",data\nhello,\n", "Brainstem.csv cannot be read as open-kbp's sparse CSV"),
        ("voxel_dimensions.csv", "3.0\n", "voxel_dimensions.csv does not hold three voxel dimensions"),
        ("ct.csv", ",data\n5,0\n", "ct.csv has no voxel above 0"),
    ],
)
def test_a_damaged_file_is_found_before_anything_is_written(clone, name, content, message):
    (clone / "provided-data/train-pats/pt_1" / name).write_text(content)
    findings = check(find(clone, classes=("Brainstem",)))
    assert findings.faulty == {"openkbp_001"}
    assert message in findings.text()


@pytest.mark.skipif(not (REAL / "openkbp_raw").is_dir(), reason="needs shared/data/openkbp_raw beside the project")
def test_real_patients_equal_the_published_conversion(tmp_path):
    source, published = REAL / "openkbp_raw", REAL / "Dataset900_OpenKBP"
    convert(source, tmp_path)
    cases = labels_of(tmp_path / "labelsTr")
    assert cases == sorted(find_patients(source))
    assert len(cases) == 4
    for case in cases:
        for kind, name in (("images", f"{case}_0000.nii.gz"), ("labels", f"{case}.nii.gz")):
            ours, theirs = read(tmp_path / f"{kind}Tr" / name), read(published / f"{kind}Tr" / name)
            assert np.array_equal(ours[0], theirs[0]), name
            for get in ("GetSpacing", "GetOrigin", "GetDirection"):
                assert getattr(ours[1], get)() == pytest.approx(getattr(theirs[1], get)(), abs=1e-4), (name, get)
