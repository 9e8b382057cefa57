"""Tasks of the Decathlon in their official layout, and real cases of the hippocampus."""

import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from conversions import cases, converted
from downloads import (
    mr,
    read,
    save,
    write_msd,
)

from nnunet_cil.datasets.msd import find
from nnunet_cil.errors import CILError

REAL = Path(__file__).parents[3] / "shared" / "data"


def test_msd(raw, source):
    folder, content, text = converted("msd", write_msd(source))
    assert folder.name == "Dataset040_Hippocampus"
    assert cases(folder) == ["hippocampus_001", "hippocampus_003"]
    assert content["labels"] == {"background": 0, "Anterior": 1, "Posterior": 2}
    assert "hippocampus_003: labels are stored as float32" in text


def test_msd_sets_chosen_cases_aside(raw, source):
    chosen = {"train": ["hippocampus_003"], "test": ["hippocampus_001"]}
    folder, content, _ = converted("msd", write_msd(source), cases=chosen)
    assert cases(folder) == ["hippocampus_003"]
    assert [file.name for file in (folder / "labelsTs").iterdir()] == ["hippocampus_001.nii.gz"]
    assert content["numTraining"] == 1
    with pytest.raises(CILError, match="1 of the wanted cases are not in the source, the first is 'hippocampus_002'"):
        converted("msd", source, cases={"train": ["hippocampus_002"]})
    with pytest.raises(CILError, match="The case 'hippocampus_003' is chosen for training and for test"):
        converted("msd", source, cases={"train": ["hippocampus_003"], "test": ["hippocampus_001", "hippocampus_003"]})


def test_msd_as_the_tar_that_is_downloaded(raw, source, tmp_path):
    write_msd(source)
    archive = shutil.make_archive(str(tmp_path / "Task04_Hippocampus"), "tar", source)
    shutil.rmtree(source)
    folder, _, _ = converted("msd", Path(archive))
    assert folder.name == "Dataset040_Hippocampus"
    assert np.array_equal(read(folder / "imagesTr/hippocampus_003_0000.nii.gz"), mr(1))


def test_msd_with_channels_in_a_fourth_dimension(raw, source):
    folder, content, _ = converted("msd", write_msd(source, channels=2))
    assert content["channel_names"] == {"0": "T2", "1": "ADC"}
    assert np.array_equal(read(folder / "imagesTr/prostate_003_0001.nii.gz"), mr(11))
    image, labels = (
        sitk.ReadImage(str(folder / f)) for f in ("imagesTr/prostate_001_0001.nii.gz", "labelsTr/prostate_001.nii.gz")
    )
    assert image.GetSpacing() == pytest.approx(labels.GetSpacing())
    assert image.GetOrigin() == pytest.approx((-10, 5, 40))


@pytest.mark.parametrize(
    "cases", [{"train": [1]}, {"train": "a"}, {"test": None}, {"train": [["a"]]}, {"val": ["a"]}], ids=str
)
def test_chosen_cases_of_another_form_are_answered_with_the_right_one(raw, source, cases):
    write_msd(source)
    with pytest.raises(CILError, match=r'Chosen cases look like {"train": \["hippocampus_001"\], "test": '):
        converted("msd", source, cases=cases)


def test_msd_lists_a_file_that_is_not_there(raw, source):
    (write_msd(source) / "Task04_Hippocampus/labelsTr/hippocampus_001.nii.gz").unlink()
    with pytest.raises(CILError, match=r"labelsTr/hippocampus_001.nii.gz is listed in dataset.json but not there"):
        converted("msd", source)
    (source / "Task04_Hippocampus/dataset.json").write_text('{"labels": {"0": "background"}}')
    with pytest.raises(CILError, match=r"dataset.json is not the dataset.json of a Decathlon task: it lacks 'name'"):
        converted("msd", source)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"labels": []}, "has [] for 'labels', but it must be an object"),
        ({"labels": {"0": 0, "1": 1}}, "has 0 for 'labels.0', but it must be a text"),
        ({"labels": {"background": "0", "liver": "1"}}, "has ['background', 'liver'] as numbers in 'labels'"),
        ({"labels": {"0": "background", "2": "liver"}}, "as numbers in 'labels', not 0, 1, 2"),
        ({"modality": ["MRI"]}, "for 'modality', but it must be an object"),
        ({"modality": {"1": "MRI"}}, "has ['1'] as numbers in 'modality'"),
        ({"modality": {}}, "lists no training cases, or lacks"),
        ({"training": []}, "lists no training cases, or lacks"),
        (
            {"training": ["./imagesTr/a.nii.gz"]},
            "has './imagesTr/a.nii.gz' for 'training[0]', but it must be an object",
        ),
        ({"training": [{"image": "a.nii.gz"}]}, "lacks 'training[0].label'"),
        ({"training": {"image": "a", "label": "b"}}, "for 'training', but it must be a list"),
        ({"name": None}, "has null for 'name'"),
        ({"name": ""}, "lacks a name"),
        ({"labels": {"0": "liver", "1": "background"}}, "not the background as 0 and classes"),
        ({"labels": {"0": "background"}}, "not the background as 0 and classes"),
        ({"labels": {"0": "background", "1": "Background"}}, "has 'Background' as the name of a class"),
        ({"labels": {"0": "background", "1": "liver", "2": "liver"}}, "has 'liver' as the name of two labels"),
        ({"labels": {"0": "background", "1": "a\nb"}}, "as the name of a class or channel"),
        ({"labels": {"0": "background", "1": " "}}, "has ' ' as the name of a class or channel"),
        ({"modality": {"0": "\x1b[2J"}}, "as the name of a class or channel"),
        (
            {"training": [{"image": f"./{i}/a.nii.gz", "label": f"./{i}/b.nii.gz"} for i in range(2)]},
            "lists the image 'a.nii.gz' twice",
        ),
    ],
    ids=str,
)
def test_an_edited_dataset_json_of_a_task_is_one_sentence(raw, source, changed, message):
    file = write_msd(source) / "Task04_Hippocampus/dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
    with pytest.raises(CILError, match=re.escape(message)):
        converted("msd", source)
    assert not any(raw.iterdir())


@pytest.mark.parametrize(("name", "becomes"), [("../Liver", "Liver"), ("肝", "Decathlon"), ("x" * 300, "x" * 60)])
def test_a_name_of_a_task_becomes_part_of_a_folders_name(raw, source, name, becomes):
    file = write_msd(source) / "Task04_Hippocampus/dataset.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "name": name}))
    assert find(file.parent.rename(source / "task")).name == becomes


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("key", ["image", "label"])
@pytest.mark.parametrize("is_absolute", [False, True])
def test_msd_lists_a_file_of_another_data_set(raw, source, tmp_path, packed, key, is_absolute):
    """It would be moved away from there."""
    write_msd(source)
    stolen = save(mr(), raw / "Dataset001_Other" / f"{key}.nii.gz")
    file = next(source.rglob("dataset.json"))
    content = json.loads(file.read_text())
    unpacked = raw / ".unpacked" / "Task04_Hippocampus"
    content["training"][0][key] = str(
        stolen if is_absolute else os.path.relpath(stolen, unpacked if packed else file.parent)
    )
    file.write_text(json.dumps(content))
    download = Path(shutil.make_archive(str(tmp_path / "task"), "tar", source)) if packed else source
    with pytest.raises(CILError, match=rf"names \S+{key}.nii.gz, which is not in the download"):
        converted("msd", download)
    assert [f.name for f in raw.rglob("*")] == ["Dataset001_Other", f"{key}.nii.gz"]


@pytest.mark.skipif(not (REAL / "Dataset904_Hippocampus").is_dir(), reason="needs shared/data beside the project")
def test_real_hippocampus_in_the_layout_of_the_decathlon(raw, source):
    """Converts twelve real cases, and those whose labels are stored as floats, under the Decathlon's names."""
    real = REAL / "Dataset904_Hippocampus"
    task = source / "Task04_Hippocampus"
    names = sorted(f.name for f in (real / "labelsTr").iterdir())
    floats = [n for n in names if sitk.ReadImage(str(real / "labelsTr" / n)).GetPixelID() == sitk.sitkFloat32]
    chosen = sorted({*names[:12], *floats})
    for kind in ("images", "labels"):
        (task / f"{kind}Tr").mkdir(parents=True)
    for name in chosen:
        (task / "imagesTr" / name).symlink_to(real / "imagesTr" / name.replace(".nii.gz", "_0000.nii.gz"))
        (task / "labelsTr" / name).symlink_to(real / "labelsTr" / name)
    content = {"name": "Hippocampus", "modality": {"0": "MRI"}}
    content["labels"] = {"0": "background", "1": "Anterior", "2": "Posterior"}
    content["training"] = [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in chosen]
    (task / "dataset.json").write_text(json.dumps(content))
    folder, _, text = converted("msd", source)
    assert "Must be mended" not in text
    assert len(cases(folder)) == len(chosen)
    for name in chosen:
        ours = sitk.ReadImage(str(folder / "labelsTr" / name))
        assert ours.GetPixelID() != sitk.sitkFloat32
        assert np.array_equal(sitk.GetArrayFromImage(ours), read(real / "labelsTr" / name))
