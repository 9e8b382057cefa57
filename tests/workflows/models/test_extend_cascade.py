"""nnunet_cil extend on a cascade: it and the low resolution before it learn the new class together."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from toy import DATASET, make_dataset, make_raw, make_trainer, preprocess, set_environment, toy_volume
from toy_cascade import CASCADE, LOW, make_cascade
from toy_commands import train
from toy_models import write

from nnunet_cil.cli import main
from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.training.previous_step import previous_checkpoint
from nnunet_cil.workflows.compare import compare as comparing
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.models import extend as planning
from nnunet_cil.workflows.models import train_extension
from nnunet_cil.workflows.models.extend import ExtendOptions, plan_extension
from nnunet_cil.workflows.models.train_extension import TrainedExtension, extension_jobs
from nnunet_cil.workflows.run import run as running
from nnunet_cil.workflows.run.options import TrainingOptions

PGCD = "nnUNetTrainerPGCD"
NEW, PLANS = "Dataset018_New", "nnUNetPlansFrom017_kidney_step1"
KNOWN = {"background": 0, "liver": 1, "spleen": 2}
SHORT = ["--training", "num_epochs=1", "num_iterations_per_epoch=1", "num_val_iterations_per_epoch=1"]
CASES = [f"new_{i}" for i in range(6)]


@pytest.fixture(scope="module")
def _plain(tmp_path_factory):
    """A cascade of plain nnU-Net in fold 0, the low resolution before it in two folds, and a raw data set with a kidney."""
    root = tmp_path_factory.mktemp("cascade") / "nnunet"
    toy = make_dataset(root, KNOWN, change_labels=lambda labels: np.where(labels <= 2, labels, 0).astype(np.uint8))
    make_cascade(toy)
    make_raw(root, NEW, {"background": 0, "kidney": 1})
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        for configuration, fold in ((LOW, 0), (LOW, 1), (CASCADE, 0)):
            torch.manual_seed(fold)
            trainer = make_trainer("nnUNetTrainer", "nnUNetPlans", configuration=configuration, fold=fold)
            trainer.initialize()
            trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
            for name in ("nnUNetPlans.json", "dataset.json"):
                copy = Path(trainer.output_folder_base) / name.replace("nnUNetPlans", "plans")
                shutil.copy(root / "preprocessed" / DATASET / name, copy)
    folder = root / "preprocessed" / NEW
    folder.mkdir()
    folds = [{"train": CASES[3:], "val": CASES[:3]}, {"train": CASES[:3], "val": CASES[3:]}]
    (folder / "splits_final.json").write_text(json.dumps(folds))
    return root, Path(trainer.output_folder_base).relative_to(root)


@pytest.fixture
def model(_plain, tmp_path, monkeypatch):
    """A copy: the cascade's folder."""
    root, folder = _plain
    shutil.copytree(root, tmp_path / "nnunet")
    set_environment(monkeypatch, tmp_path / "nnunet")
    return tmp_path / "nnunet" / folder


@pytest.fixture
def commands(monkeypatch):
    """Runs nnU-Net's commands in this process, but for predictions; the trainings and predictions that it got."""
    done = []

    def preprocess_both(dataset, _configuration, plans_name, _logs):
        folder = planning.nnunet_folder("nnUNet_preprocessed") / dataset
        if not (folder / "gt_segmentations").is_dir():
            preprocess(folder, plans_name, (LOW, "3d_fullres"))
            (folder / "dataset_fingerprint.json").write_text("{}")

    def train_here(arguments, *_):
        done.append(f"train {arguments[1]} {arguments[2]}")
        train(arguments)

    def predict_toy(arguments, *_):
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        configuration = option["-m"].split("__")[-1]
        done.append(f"predict {configuration} {option['-f']}")
        if configuration == CASCADE:
            assert {file.name for file in Path(option["-prev_stage_predictions"]).glob("*.nii.gz")} == {
                f"{case}.nii.gz" for case in CASES[:3]
            }
        for case in CASES[:3]:
            labels = toy_volume(50 + int(case.removeprefix("new_")))[1]
            write(np.where(labels <= 2, labels, 0), Path(option["-o"]) / f"{case}.nii.gz")

    monkeypatch.setattr(planning, "preprocess", preprocess_both)
    monkeypatch.setattr(running, "train", train_here)
    monkeypatch.setattr(predicting, "predict", predict_toy)
    monkeypatch.setattr(comparing, "draw_cases", lambda *_: [])  # slow
    return done


def predicted(model, images, output, before=None):
    """Predicts with plain nnU-Net; returns the label map of the only case."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    reader = predictor.plans_manager.image_reader_writer_class()
    array, properties = reader.read_images([str(images / "t_0000.nii.gz")])
    output.mkdir()
    stage = None if before is None else reader.read_seg(str(before / "t.nii.gz"))[0]
    predictor.predict_single_npy_array(array, properties, stage, str(output / "t"))
    return sitk.GetArrayFromImage(sitk.ReadImage(str(output / "t.nii.gz")))


def test_both_stages_learn_the_class_and_plain_nnunet_predicts_with_both(
    model, commands, tmp_path, monkeypatch, capsys
):
    what = ["extend", str(model), "18", *SHORT, "--train", "-device", "cpu", "--export", str(tmp_path / "out")]
    assert main(what) == 0
    done = [f"train {LOW} 0", f"train {LOW} 1", f"train {CASCADE} 0", f"predict {LOW} 0", f"predict {CASCADE} 0"]
    assert commands == done
    results = tmp_path / "nnunet" / "results" / NEW
    compared = json.loads((results / "evaluation" / f"{PGCD}__{PLANS}__{CASCADE}" / "comparison.json").read_text())
    assert {row["class"] for row in compared["classes"] if row["is_shared"]} == {"liver", "spleen"}
    report = (results / "evaluation" / f"{PGCD}__{PLANS}__{CASCADE}" / "report.html").read_text()
    assert all(f"{fold} of {name}" in report for fold, name in (("0", LOW), ("1", LOW), ("0", CASCADE)))
    low, own = (results / f"{PGCD}__{PLANS}__{name}" for name in (LOW, CASCADE))
    new, old = (torch.load(f / "fold_0" / "checkpoint_final.pth", weights_only=False) for f in (own, model))
    assert new["cil"]["classes"] == ["liver", "spleen", "kidney"]
    first = "encoder.stages.0.0.convs.0.conv.weight"
    assert [content["network_weights"][first].shape[1] for content in (old, new)] == [1 + 2, 1 + 3]
    seen = new["cil"]["lineage"][-1]["previous_stage"]
    assert seen == {fold: file_sha256(low / f"fold_{fold}" / "checkpoint_final.pth") for fold in "01"}

    capsys.readouterr()
    assert main(what) == 0  # nothing is left
    assert commands == done
    exported = [tmp_path / "out" / NEW / f"nnUNetTrainer__{PLANS}__{name}" for name in (LOW, CASCADE)]
    assert f"Exported: {exported[1]}" in capsys.readouterr().out
    (tmp_path / "images").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(toy_volume(77)[0]), str(tmp_path / "images" / "t_0000.nii.gz"))
    ours = predicted(own, tmp_path / "images", tmp_path / "ours", before=predicted_in(low, tmp_path, "low"))
    with monkeypatch.context() as elsewhere:
        for name in ("nnUNet_extTrainer", "nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            elsewhere.delenv(name)
        before = predicted_in(exported[0], tmp_path, "before")
        plain = predicted(exported[1], tmp_path / "images", tmp_path / "plain", before=before)
    assert np.array_equal(ours, plain)
    assert set(np.unique(ours)) <= {0, 1, 2, 3}

    changed = torch.load(low / "fold_1" / "checkpoint_final.pth", weights_only=False)
    torch.save({**changed, "current_epoch": 7}, low / "fold_1" / "checkpoint_final.pth")
    assert main(what) == 1
    assert "was trained on predictions of other models of step 1" in capsys.readouterr().err


def predicted_in(model, folder, name):
    predicted(model, folder / "images", folder / name)
    return folder / name


def asked(model, **options):
    return TrainedExtension(
        model_folder=model, dataset="18", options=ExtendOptions(), training=TrainingOptions(device="cpu"), **options
    )


def test_the_plans_name_no_configuration_and_each_stage_continues_from_its_own(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(planning, "preprocess", lambda *_: None)
    monkeypatch.setattr(planning, "check_preprocessed_labels", lambda *_: None)
    assert main(["extend", str(model), "18"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("  nnUNetv2")]
    assert [line[2:4] for line in lines[:3]] == [[LOW, "0"], [LOW, "1"], [CASCADE, "0"]]
    assert [line[4] for line in lines[3:]] == [LOW, CASCADE]
    assert lines[4][-4:] == ["-prev_stage_predictions", "BEFORE", "-o", "OUT"]
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(model.parent, elsewhere)
    for folder, options in ((model, {}), (elsewhere / model.name, {"name": "two"})):
        previous = plan_extension(folder, 18, ExtendOptions(**options)).plan.previous
        assert previous.configuration is None
        for name in (CASCADE, LOW):
            expected = folder.with_name(folder.name.replace(CASCADE, name)) / "fold_0" / "checkpoint_final.pth"
            assert previous_checkpoint(previous, PGCD, name, 0) == expected


def test_the_cascade_waits_for_all_folds_before_it(model, monkeypatch):
    monkeypatch.setattr(train_extension, "missing_commands", lambda *_: [])  # as if it were preprocessed
    jobs = extension_jobs(asked(model), finishes=True)
    names = [job.name for job in jobs]
    assert [job.after for job in jobs] == [(), (), tuple(names[:2]), tuple(names[:3])]


def test_advice_counts_the_trainings_of_all_folds_that_come_before_a_cascade(model, capsys):
    assert main(["extend", str(model), "18", "--advise"]) == 0
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]
    assert ["trainings", *[f"2 of {LOW}, then 1 of {CASCADE}"] * 3] in rows
    assert ["networks at prediction", "2", "4", "2"] in rows


def change_json(file, **changed):
    file.write_text(json.dumps(json.loads(file.read_text()) | changed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda low, _: shutil.rmtree(low),
            rf"sees what {LOW} predicts, but .*__{LOW} is not there\. Put that model there, or",
        ),
        (
            lambda low, _: shutil.rmtree(low / "fold_1"),
            r"all 2 folds of Dataset018_New predict, but .* has no trained fold 1\. Train it",
        ),
        (
            lambda low, _: change_json(low / "plans.json", more=1),
            rf"__{LOW} has another plans\.json.* or take a model of 3d_f",
        ),
        (
            lambda _, splits: splits.write_text(json.dumps([{"train": CASES[2:], "val": CASES[:2]}] * 2)),
            r"No fold of splits_final.json validates 'new_2', 'new_3'.* Add them to a fold's 'val'",
        ),
    ],
)
def test_a_stage_that_cannot_show_the_cascade_its_cases_is_refused(model, tmp_path, change, message):
    low = model.with_name(model.name.replace(CASCADE, LOW))
    change(low, tmp_path / "nnunet" / "preprocessed" / NEW / "splits_final.json")
    with pytest.raises(CILError, match=message):
        plan_extension(model, 18, ExtendOptions())


def test_a_folder_of_another_name_and_an_archive_of_two_models_are_refused(model, tmp_path):
    with pytest.raises(CILError, match=r"takes one model, .* Export both into a folder: leave the ending \.zip out"):
        asked(model, export_to=tmp_path / "out.zip").unfinished()
    with pytest.raises(CILError, match=rf"call the folder {model.name} and the other one .*__{LOW}, or take"):
        plan_extension(model.rename(model.with_name("mine")), 18, ExtendOptions())
