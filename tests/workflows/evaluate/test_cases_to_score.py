"""Test cases are looked at before anything is trained or predicted."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from toy import DATASET, toy_volume, write_schedule
from toy_models import ORDER, PGCD, run, write

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate import cases_to_score as module
from nnunet_cil.workflows.evaluate.cases_to_score import check_test_files
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan.plan import plan


@pytest.fixture
def cases(toy, tmp_path):
    """The folders of two test cases, p1 and p2."""
    raw = toy.parents[1] / "raw" / DATASET
    for folder in ("imagesTs", "labelsTs"):
        (raw / folder).mkdir()
    for i in (1, 2):
        image, labels = toy_volume(80 + i)
        sitk.WriteImage(sitk.GetImageFromArray(image), str(raw / "imagesTs" / f"p{i}_0000.nii.gz"))
        write(labels, raw / "labelsTs" / f"p{i}.nii.gz")
    return raw / "imagesTs", raw / "labelsTs"


@pytest.fixture
def experiment(cases, tmp_path):
    return Experiment(
        dataset="17",
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=write_schedule(tmp_path, ORDER),
        trainers=(PGCD,),
    )


def moved(file, **geometry):
    image = sitk.ReadImage(str(file))
    for key, value in geometry.items():
        getattr(image, f"Set{key}")(value)
    sitk.WriteImage(image, str(file))


def damage(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


FAULTS = {
    "unlabelled": (
        lambda i, r: (r / "p2.nii.gz").unlink(),
        r"Case 'p2' has no reference labels: .*p2\.nii\.gz is missing\. Add it, or move",
    ),
    "two unlabelled": (
        lambda i, r: [f.rename(f.with_suffix(".bak")) for f in r.iterdir()],
        r"'p1' .* is missing \(so are those of 'p2'\)\.",
    ),
    "labels only": (
        lambda i, r: shutil.copy(r / "p1.nii.gz", r / "q.nii.gz"),
        r"q\.nii\.gz has no image: .*q_0000\.nii\.gz is missing",
    ),
    "no channel": (
        lambda i, r: (i / "p1_0000.nii.gz").rename(i / "p1.nii.gz"),
        r"p1\.nii\.gz does not end in .*Rename it, for a first channel to p1_0000\.nii\.gz",
    ),
    "a year": (
        lambda i, r: (i / "p1_0000.nii.gz").rename(i / "p1_2019.nii.gz"),
        r"Case 'p1' lacks .*p1_0000\.nii\.gz: dataset\.json names 1 channels",
    ),
    "three digits": (
        lambda i, r: (i / "p1_0000.nii.gz").rename(i / "p1_000.nii.gz"),
        r"for a first channel to p1_000_0000\.nii\.gz",
    ),
    "a channel more": (
        lambda i, r: shutil.copy(i / "p1_0000.nii.gz", i / "p1_0001.nii.gz"),
        r"p1_0001\.nii\.gz is one channel more than",
    ),
    "no images": (
        lambda i, r: [f.unlink() for f in i.iterdir()],
        r"holds no images that end in \.nii\.gz\. nnU-Net takes CASE_0000",
    ),
    "unknown value": (
        lambda i, r: write(toy_volume(81)[1] * 3, r / "p1.nii.gz"),
        r"p1\.nii\.gz holds the label 6, which is none of \[0, 1, 2, 3, 4\] in dataset\.json",
    ),
    "half a label": (
        lambda i, r: sitk.WriteImage(sitk.GetImageFromArray(toy_volume(81)[1] * np.float32(0.5)), str(r / "p1.nii.gz")),
        "numbers that are not whole",
    ),
    "other size": (
        lambda i, r: write(toy_volume(82)[1][:, 1:], r / "p2.nii.gz"),
        r"p2_0000\.nii\.gz is 24 x 22 x 20 voxels, but .*p2\.nii\.gz 24 x 21 x 20",
    ),
    "elsewhere": (
        lambda i, r: moved(r / "p1.nii.gz", Origin=(0, 0, 7)),
        r"p1\.nii\.gz lies 7 voxels beside .*; at most 0\.5 are tolerated",
    ),
    "cut off image": (lambda i, r: damage(i / "p2_0000.nii.gz"), r"p2_0000\.nii\.gz is cut off or damaged"),
    "cut off labels": (lambda i, r: damage(r / "p2.nii.gz"), r"p2\.nii\.gz is cut off or damaged"),
    "no image at all": (
        lambda i, r: (i / "p1_0000.nii.gz").write_bytes(gzip.compress(b"text" * 99)),
        r"p1_0000\.nii\.gz (cannot be read|is cut off)",
    ),
    "a dead link": (
        lambda i, r: ((i / "p1_0000.nii.gz").unlink(), (i / "p1_0000.nii.gz").symlink_to("gone.nii.gz")),
        r"p1\.nii\.gz has no image: .*p1_0000\.nii\.gz is missing",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_could_not_be_scored_is_refused_in_the_data_set_and_in_folders_alike(cases, experiment, tmp_path, fault):
    spoil, told = FAULTS[fault]
    spoil(*cases)
    with pytest.raises(CILError, match=told):
        check_test_files(experiment, EvaluationOptions())
    images, labels = (folder.rename(tmp_path / folder.name) for folder in cases)
    with pytest.raises(CILError, match=told):
        check_test_files(experiment, EvaluationOptions(images=images, labels=labels))
    check_test_files(experiment, EvaluationOptions(cases="validation"))


def test_run_and_its_launchers_look_before_the_first_training(cases, experiment, capsys, monkeypatch):
    FAULTS["unknown value"][0](*cases)
    monkeypatch.setattr("nnunet_cil.workflows.run.run.train", lambda *_: pytest.fail("the training began"))
    before = sorted(f for f in cases[0].parents[2].rglob("*") if f.is_file())
    command = ["run", *experiment.arguments[:4], "-tr", PGCD, "-device", "cpu"]
    for more in ([], ["--dry-run"], ["--launcher", "local"], ["--launcher", "slurm", "--slurm", "timeout_min=9"]):
        assert main([*command, *more]) == 1
        assert "holds the label 6" in capsys.readouterr().err
    assert sorted(f for f in cases[0].parents[2].rglob("*") if f.is_file()) == before


def test_evaluate_looks_before_it_predicts(trained):
    root, schedule, calls = trained
    damage(root / "raw" / DATASET / "imagesTs" / "t2_0000.nii.gz")
    with pytest.raises(CILError, match=r"t2_0000\.nii\.gz is cut off"):
        run(schedule)
    assert not calls


def test_the_same_files_are_read_once(cases, experiment, monkeypatch):
    read = []
    monkeypatch.setattr(module, "_check_case", lambda case, **_: read.append(case[0]))
    check_test_files(experiment, EvaluationOptions())
    check_test_files(experiment, EvaluationOptions())
    assert read == ["p1", "p2"]
    write(toy_volume(90)[1], cases[1] / "p2.nii.gz")
    check_test_files(experiment, EvaluationOptions())
    assert len(read) == 4


def set_patterns(toy, patterns):
    for kind in ("raw", "preprocessed"):
        file = toy.parents[1] / kind / DATASET / "dataset.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"labelled_classes": patterns}))


def test_a_pattern_may_fit_test_cases_only(cases, experiment, toy):
    set_patterns(toy, {"p2": ["kidney", "spleen"]})
    plan("17", experiment.schedule_name)
    check_test_files(experiment, EvaluationOptions())
    set_patterns(toy, {"p3": ["kidney"]})
    for check in (
        lambda: plan("17", experiment.schedule_name),
        lambda: check_test_files(experiment, EvaluationOptions()),
    ):
        with pytest.raises(
            CILError, match=r"no case is called 'p3' .*'case_0' and the like, in labelsTr and labelsTs\. Correct"
        ):
            check()


def test_patterns_that_stand_in_nnunet_raw_only_are_refused(cases, experiment, toy):
    raw, copy = (toy.parents[1] / kind / DATASET / "dataset.json" for kind in ("raw", "preprocessed"))
    raw.write_text(json.dumps(json.loads(raw.read_text()) | {"labelled_classes": {"p1": ["liver"]}}))
    for check in (
        lambda: plan("17", experiment.schedule_name),
        lambda: check_test_files(experiment, EvaluationOptions()),
    ):
        with pytest.raises(
            CILError, match=rf"not that of the copy .*Copy the file to nnUNet_preprocessed/{DATASET} again"
        ):
            check()
    Path(shutil.copy(raw, copy))
    plan("17", experiment.schedule_name)
    check_test_files(experiment, EvaluationOptions())
