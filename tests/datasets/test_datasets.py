"""Every converter on files in the official layout, odd cases included."""

import json
import os
import shutil
import subprocess
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import SimpleITK as sitk
from downloads import (
    ct,
    label_map,
    mr,
    read,
    save,
    slanted,
    write_abdomenct1k,
    write_acdc,
    write_amos22,
    write_btcv,
    write_chaos,
    write_flare22,
    write_msd,
    write_totalsegmentator,
    write_word,
)

from nnunet_cil.cli import main
from nnunet_cil.datasets import acdc, amos22, btcv, chaos, flare22, word
from nnunet_cil.datasets.catalogue import NAMES, find
from nnunet_cil.datasets.totalsegmentator import GROUPS, STRUCTURES
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.data.convert import convert

REAL = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def source(tmp_path) -> Path:
    return tmp_path / "download"


def converted(name, source, **options):
    """The data set's folder, its dataset.json, and what was told."""
    done = convert(name, source, 40, options=options)
    folder = done.converted.folder
    return folder, json.loads((folder / "dataset.json").read_text()), done.findings.text()


def cases(folder, part="Tr"):
    path = folder / f"labels{part}"
    return sorted(f.name.removesuffix(".nii.gz") for f in path.iterdir()) if path.is_dir() else []


def classes(content):
    return tuple(name for name in content["labels"] if name != "background")


def folds(folder):
    file = folder / "splits_final.json"
    return json.loads(file.read_text()) if file.is_file() else []


def test_btcv(raw, source):
    folder, content, text = converted("btcv", write_btcv(source))
    assert folder.name == "Dataset040_BTCV"
    assert cases(folder) == ["btcv_0001", "btcv_0005", "btcv_0035"]
    assert classes(content) == btcv.CLASSES
    assert "3 of the 30 labelled cases" in text
    assert (folder / "imagesTr/btcv_0005_0000.nii.gz").resolve().name == "img0005.nii.gz"
    assert np.array_equal(read(folder / "labelsTr/btcv_0005.nii.gz"), label_map(*range(1, 14)))


def test_btcv_splits_of_the_field(raw, source, monkeypatch):
    write_btcv(source)
    folder, content, _ = converted("btcv", source, split="transunet")
    assert (cases(folder), cases(folder, "Ts")) == (["btcv_0005"], ["btcv_0001", "btcv_0035"])
    assert (content["numTraining"], content["test"]) == (1, ["btcv_0001", "btcv_0035"])
    shutil.rmtree(folder)
    folder, _, _ = converted("btcv", source, split="swin-unetr")
    expected = [{"train": ["btcv_0001", "btcv_0005"], "val": ["btcv_0035"]}]
    assert folds(folder) == expected
    handed_over = raw.parent / "preprocessed" / folder.name / "splits_final.json"
    assert json.loads(handed_over.read_text()) == expected
    handed_over.write_text("[]")
    with pytest.raises(CILError, match="holds another split"):
        converted("btcv", source, split="swin-unetr")
    with pytest.raises(CILError, match=r"was converted with another split. Remove .*splits_final.json"):
        converted("btcv", source)
    with pytest.raises(CILError, match=r"--split 'swinunetr' is unknown \(did you mean 'swin-unetr'\?\)"):
        converted("btcv", source, split="swinunetr")
    assert len(btcv.TRANSUNET_TEST) == 12


def test_word(raw, source):
    folder, content, text = converted("word", write_word(source))
    assert cases(folder) == ["word_0001", "word_0002", "word_0003"]
    assert cases(folder, "Ts") == ["word_0007"]
    assert folds(folder) == [{"train": ["word_0002", "word_0003"], "val": ["word_0001"]}]
    assert classes(content) == word.CLASSES
    assert "imagesVal: 1 of the 20 labelled cases" in text


def test_word_without_public_test_labels(raw, source):
    shutil.rmtree(write_word(source) / "WORD-V0.1.0/labelsTs")
    folder, _, text = converted("word", source)
    assert cases(folder, "Ts") == []
    assert "word_0007" not in text


@pytest.mark.parametrize(
    ("modality", "channel", "train", "val"),
    [
        ("CT", "CT", ["amos_0001", "amos_0004"], ["amos_0008"]),
        ("MR", "MRI", ["amos_0507"], ["amos_0510"]),
        ("both", "CT or MRI", ["amos_0001", "amos_0004", "amos_0507"], ["amos_0008", "amos_0510"]),
    ],
)
def test_amos22(raw, source, modality, channel, train, val):
    folder, content, _ = converted("amos22", write_amos22(source), modality=modality)
    assert folds(folder) == [{"train": train, "val": val}]
    assert content["channel_names"] == {"0": channel}
    assert classes(content) == amos22.CLASSES


def test_amos22_validation_cases_as_a_test_set(raw, source):
    folder, _, _ = converted("amos22", write_amos22(source), split="test")
    assert cases(folder, "Ts") == ["amos_0008"]
    assert folds(folder) == []


def test_options_of_the_command(raw, source, capsys):
    arguments = ["convert", "amos22", str(write_amos22(source)), "40", "--modality", "MR", "--split", "test"]
    assert main(arguments) == 0
    assert "1 training and 1 test cases are in" in capsys.readouterr().out
    assert main([*arguments[:4], "--modality", "PET"]) == 1
    assert "--modality 'PET' is unknown" in capsys.readouterr().err


def test_a_ct_among_the_mr_of_amos_is_found(raw, source):
    write_amos22(source)
    save(ct(7), source / "amos22/imagesTr/amos_0507.nii.gz")
    with pytest.raises(CILError, match=r"amos_0507: values from -1000 to .* look like CT"):
        converted("amos22", source, modality="MR")


def test_flare22(raw, source):
    folder, content, _ = converted("flare22", write_flare22(source))
    assert cases(folder) == ["FLARE22_Tr_0001", "FLARE22_Tr_0002"]
    assert classes(content) == flare22.CLASSES


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


def test_msd_lists_a_file_that_is_not_there(raw, source):
    (write_msd(source) / "Task04_Hippocampus/labelsTr/hippocampus_001.nii.gz").unlink()
    with pytest.raises(CILError, match=r"labelsTr/hippocampus_001.nii.gz is listed in dataset.json but not there"):
        converted("msd", source)
    (source / "Task04_Hippocampus/dataset.json").write_text('{"labels": {"0": "background"}}')
    with pytest.raises(CILError, match=r"dataset.json is not the dataset.json of a Decathlon task: it lacks 'name'"):
        converted("msd", source)


@pytest.mark.skipif(not (REAL / "Dataset904_Hippocampus").is_dir(), reason="needs shared/data beside the project")
def test_real_hippocampus_in_the_layout_of_the_decathlon(raw, source):
    """Twelve real cases under the names that the Decathlon gives them; the first two are stored as floats."""
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


def test_abdomenct1k(raw, source):
    folder, content, text = converted("abdomenct1k", write_abdomenct1k(source))
    assert cases(folder) == ["Case_00001", "Case_00401"]
    assert classes(content) == ("liver", "kidney", "spleen", "pancreas")
    assert "1 images have no mask and are left out" in text


def test_totalsegmentator(raw, source):
    write_totalsegmentator(source, GROUPS["cardiac"])
    folder, content, text = converted("totalsegmentator", source, classes=["cardiac"])
    assert folder.name == "Dataset040_TotalSegmentatorCardiac"
    assert (cases(folder), cases(folder, "Ts")) == (["s0011", "s0013", "s0201"], ["s0029"])
    assert folds(folder) == [{"train": ["s0011", "s0201"], "val": ["s0013"]}]
    assert classes(content) == GROUPS["cardiac"]
    assert np.array_equal(read(folder / "labelsTr/s0011.nii.gz"), label_map(*range(1, 19)))
    assert "s0011: 1 voxels belonged to two classes; the lower label won" in text
    assert "s0201: heart is misplaced (TotalSegmentator issue 245)" in text


def test_totalsegmentator_takes_chosen_structures_in_their_order(raw, source):
    write_totalsegmentator(source, ("liver", "spleen", "aorta"))
    folder, content, _ = converted("totalsegmentator", source, classes=["aorta", "liver"])
    assert classes(content) == ("aorta", "liver")
    assert np.array_equal(read(folder / "labelsTr/s0011.nii.gz"), label_map(2, 0, 1))
    with pytest.raises(CILError, match=r"no structure 'livr' \(did you mean 'liver'\?\)"):
        converted("totalsegmentator", source, classes=["livr"])
    shutil.rmtree(folder)
    (source / "s0011/segmentations/aorta.nii.gz").unlink()
    (source / "s0013/ct.nii.gz").unlink()
    with pytest.raises(CILError) as error:
        converted("totalsegmentator", source, classes=["aorta", "liver"])
    assert "s0013: is listed in meta.csv, but has no ct.nii.gz" in str(error.value)
    assert "s0011/segmentations/aorta.nii.gz is missing" in str(error.value)
    (source / "meta.csv").write_text("a,b\n1,2\n")
    with pytest.raises(CILError, match=r"meta.csv is not TotalSegmentator's"):
        converted("totalsegmentator", source)


def test_totalsegmentators_groups_are_its_117_structures():
    assert [len(group) for group in GROUPS.values()] == [24, 26, 18, 23, 26]
    assert len(set(STRUCTURES)) == 117


@pytest.mark.parametrize(("case", "seed"), [("chaos_ct_01", 0), ("chaos_ct_10", 1)])
def test_chaos_ct_in_either_order_of_slices(raw, source, case, seed):
    folder, content, _ = converted("chaos", write_chaos(source))
    assert content["labels"] == {"background": 0, "liver": 1}
    assert np.array_equal(read(folder / f"imagesTr/{case}_0000.nii.gz"), ct(seed))
    assert np.array_equal(read(folder / f"labelsTr/{case}.nii.gz"), slanted(1))
    image = sitk.ReadImage(str(folder / f"imagesTr/{case}_0000.nii.gz"))
    assert image.GetSpacing() == pytest.approx((0.8, 0.8, 3.0))
    assert image.GetOrigin() == pytest.approx((-10, 5, 40))


@pytest.mark.parametrize(("modality", "channels"), [("T1DUAL", ["T1 InPhase", "T1 OutPhase"]), ("T2SPIR", ["MRI"])])
def test_chaos_mr(raw, source, modality, channels):
    folder, content, _ = converted("chaos", write_chaos(source), modality=modality)
    assert classes(content) == chaos.MR_CLASSES
    assert list(content["channel_names"].values()) == channels
    case = f"chaos_{modality.lower()}_02"
    assert np.array_equal(read(folder / f"labelsTr/{case}.nii.gz"), slanted(4))
    for i in range(len(channels)):
        assert np.array_equal(read(folder / f"imagesTr/{case}_{i:04d}.nii.gz"), mr(5 + i))


def test_chaos_with_a_png_too_few_or_of_a_strange_grey(raw, source):
    write_chaos(source)
    ground = source / "CHAOS_Train_Sets/Train_Sets/MR/2/T2SPIR/Ground"
    file = sorted(ground.iterdir())[0]
    sitk.WriteImage(sitk.GetImageFromArray(np.full((10, 12), 90, np.uint8)), str(file))
    with pytest.raises(CILError, match="Ground holds the grey value 90, which stands for no organ"):
        converted("chaos", source, modality="T2SPIR")
    file.unlink()
    with pytest.raises(CILError, match="Ground holds 5 PNG files for 6 DICOM slices"):
        converted("chaos", source, modality="T2SPIR")


def test_a_damaged_slice_of_chaos_is_a_problem_of_its_case(raw, source):
    write_chaos(source)
    (source / "CHAOS_Train_Sets/Train_Sets/CT/1/Ground/liver_GT_003.png").write_bytes(b"half a file")
    with pytest.raises(CILError, match=r"chaos_ct_01: .*Ground cannot be read: ") as error:
        converted("chaos", source)
    assert "chaos_ct_10:" not in str(error.value)


def test_acdc(raw, source):
    folder, content, text = converted("acdc", write_acdc(source))
    assert cases(folder) == [f"patient{p}" for p in ("001_frame01", "001_frame03", "002_frame01", "002_frame02")]
    assert cases(folder, "Ts") == ["patient101_frame01", "patient101_frame02"]
    assert classes(content) == acdc.CLASSES
    assert np.array_equal(read(folder / "imagesTr/patient002_frame02_0000.nii.gz"), mr(11))
    assert np.array_equal(read(folder / "imagesTs/patient101_frame01_0000.nii.gz"), mr(20))
    assert "training: 4 of the 200 labelled cases" in text


def test_frames_of_a_patient_belong_together(source):
    found = find("acdc", write_acdc(source), {}).cases
    assert [case.patient for case in found] == [case.name[:10] for case in found]


def test_acdc_without_test_labels_and_with_a_missing_frame(raw, source):
    write_acdc(source)
    for file in source.glob("database/testing/*/*_gt.nii"):
        file.unlink()
    (source / "database/training/patient001/patient001_frame03_gt.nii.gz").unlink()
    with pytest.raises(CILError, match=r"patient001_frame03: Info\.cfg names it as ES") as error:
        converted("acdc", source)
    assert "patient101" not in str(error.value)


def test_every_data_set_says_what_it_expects(raw, tmp_path):
    for name in NAMES:
        options = {"names": tmp_path / "names.json"} if name == "generic" else {}
        (tmp_path / "names.json").write_text('{"name": "A", "labels": {"liver": 1}}')
        with pytest.raises(CILError, match=r"expected|holds no"):
            convert(name, tmp_path / "nnunet", 41, options=options)


def two_channels(folder):
    return write_msd(folder, channels=2)


def organs(folder):
    return write_totalsegmentator(folder, GROUPS["organs"])


OFFICIAL = {
    "btcv": ("btcv", write_btcv, {}),
    "word": ("word", write_word, {}),
    "amos22": ("amos22", write_amos22, {"modality": "MR"}),
    "flare22": ("flare22", write_flare22, {}),
    "msd": ("msd", write_msd, {}),
    "msd with channels": ("msd", two_channels, {}),
    "abdomenct1k": ("abdomenct1k", write_abdomenct1k, {}),
    "totalsegmentator": ("totalsegmentator", organs, {}),
    "chaos ct": ("chaos", write_chaos, {}),
    "chaos mr": ("chaos", write_chaos, {"modality": "T1DUAL"}),
    "acdc": ("acdc", write_acdc, {}),
}


@pytest.mark.parametrize("what", OFFICIAL)
def test_nnunets_own_check_is_content_with_every_converter(raw, source, what, monkeypatch, capsys):
    from nnunetv2.experiment_planning import verify_dataset_integrity as check

    name, write, options = OFFICIAL[what]
    folder, _, _ = converted(name, write(source), **options)
    threads = SimpleNamespace(get_context=lambda _: SimpleNamespace(Pool=ThreadPool))  # not processes: a second each
    monkeypatch.setattr(check, "multiprocessing", threads)
    check.verify_dataset_integrity(str(folder), num_processes=1)
    out = capsys.readouterr().out
    assert "verify_dataset_integrity Done" in out
    assert "Warning" not in out


def test_every_converter_is_tested():
    assert {name for name, _, _ in OFFICIAL.values()} | {"openkbp", "generic"} == set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["amos22", "acdc"])
def test_nnunet_finds_the_converted_data_set_in_order(raw, source, name):
    write = {"amos22": write_amos22, "acdc": write_acdc}[name]
    converted(name, write(source))
    code = (
        "from nnunetv2.experiment_planning.plan_and_preprocess_entrypoints import plan_and_preprocess_entry as f; f()"
    )
    arguments = ["-d", "40", "-c", "3d_fullres", "--verify_dataset_integrity", "-np", "1", "-npfp", "1"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "nnUNet_n_proc_DA": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        timeout=500,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "verify_dataset_integrity Done" in done.stdout
    assert "Warning" not in done.stdout
    assert "Error" not in done.stdout
