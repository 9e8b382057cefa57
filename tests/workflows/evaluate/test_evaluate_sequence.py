"""Schedules whose steps learn from different data sets: trained and scored."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from toy import DATASET, LABELS, ORGANS, dataset_json, init_args, toy_volume, train
from toy_sequence import CPU, MOVED, NEW, NEW_LABELS, PGCD, schedule_file

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.training.checkpoints import read_checkpoint
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.evaluate.evaluate import evaluate, evaluated
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan.plan import plan


def predict_in_process(arguments, _environment, _log, _num_cases):
    """nnUNetv2_predict, without a process of its own."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    option = dict(zip(arguments[::2], arguments[1::2], strict=False))
    model = Path(os.environ["nnUNet_results"]) / option["-d"] / f"{option['-tr']}__{option['-p']}__{option['-c']}"
    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(model), (int(option["-f"]),))
    predictor.predict_from_files_sequential(option["-i"], option["-o"], False, True, None)


def test_a_sequence_over_two_data_sets_is_trained_and_scored_end_to_end(
    new, with_pictures, tmp_path, monkeypatch, capsys
):
    """With nnU-Net's own trainer and predictor, in this process. The first data set has test cases, the other has not."""
    schedule = schedule_file(tmp_path)
    for step in plan(17, schedule):
        trainer = train(PGCD, step.plans_name, dataset=step.dataset)
        trainer.perform_actual_validation()
        summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
        assert sorted(summary["mean"]) == [["1", "2"], ["1", "3"]][step.plan.step]
    results = tmp_path / "nnunet" / "results"
    assert sorted(p.name for p in results.glob("*/*/fold_0")) == ["fold_0", "fold_0"]
    state = read_checkpoint(Path(trainer.output_folder) / "checkpoint_final.pth")["cil"]
    assert state["classes"] == ["liver", "spleen", "kidney"]
    assert [r["dataset"] for r in state["lineage"]] == [DATASET, NEW]
    assert state["lineage"][1]["previous_sha256"] is not None
    assert state["prototypes"]["counts"].shape == (4,)
    assert main(["status", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD]) == 0
    assert capsys.readouterr().out.count("| finished |") == 2

    monkeypatch.setattr(predicting, "predict", predict_in_process)
    raw = tmp_path / "nnunet" / "raw" / DATASET
    shutil.copytree(raw / "imagesTr", raw / "imagesTs")
    shutil.copytree(raw / "labelsTr", raw / "labelsTs")
    validation = json.loads((new / "splits_final.json").read_text())[0]["val"]
    found = evaluate(
        Experiment(dataset="17", configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)), CPU
    )
    content = json.loads((found.folder / "results.json").read_text())
    assert content["cases"] == f"{DATASET}: labelsTs, {NEW}: validation"
    with (found.folder / "per_case.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {f"{DATASET}/case_{i}" for i in range(6)}, {f"{NEW}/{case}" for case in validation}
    for step, expected in (
        ("0", {"liver": names[0] | names[1], "spleen": names[0]}),
        ("1", {"liver": names[0] | names[1], "spleen": names[0], "kidney": names[0] | names[1]}),
    ):
        cases = {c: {r["case"] for r in rows if r["class"] == c and r["step"] == step} for c in ORGANS}
        assert {c: found for c, found in cases.items() if found} == expected
    assert f"toy on {DATASET}, {NEW}, 3d_fullres" in (found.folder / "report.html").read_text()


@pytest.fixture
def scored(new, tmp_path, monkeypatch):
    """Models that look trained, two test cases in each data set, and a prediction that loses the liver of the second."""
    schedule = schedule_file(tmp_path)
    root = tmp_path / "nnunet"
    for step in plan(17, schedule):
        model = root / "results" / step.dataset / f"{PGCD}__{step.plans_name}__3d_fullres"
        (model / "fold_0").mkdir(parents=True)
        arguments = init_args({"plans_name": step.plans_name})
        content = {"network_weights": {}, "init_args": arguments, "logging": {"train_losses": [1.0]}}
        torch.save(content, model / "fold_0" / "checkpoint_final.pth")
        (model / "dataset.json").write_text(json.dumps(dataset_json(step.plan.labels)))
    for name, labels in ((DATASET, LABELS), (NEW, NEW_LABELS)):
        numbers = np.array([0, *(labels.get(organ, 0) for organ in ORGANS)], dtype=np.uint8)
        for folder in ("imagesTs", "labelsTs"):
            (root / "raw" / name / folder).mkdir()
        for i in range(2):
            image, segmentation = toy_volume(50 + i)
            sitk.WriteImage(sitk.GetImageFromArray(image), str(root / "raw" / name / "imagesTs" / f"t{i}_0000.nii.gz"))
            truth = sitk.GetImageFromArray(numbers[segmentation])
            sitk.WriteImage(truth, str(root / "raw" / name / "labelsTs" / f"t{i}.nii.gz"))
    calls = []

    def predict(arguments, _environment, log, _num_cases):
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        calls.append((option["-d"], Path(option["-o"]).name, log.name))
        for i in range(2):
            found = toy_volume(50 + i)[1]
            found[found > (3 if "step1" in option["-p"] else 2)] = 0  # organ n is channel n
            if NEW in option["-i"] and "step1" in option["-p"]:
                found[found == 1] = 0
            sitk.WriteImage(sitk.GetImageFromArray(found), str(Path(option["-o"]) / f"t{i}.nii.gz"))

    monkeypatch.setattr(predicting, "predict", predict)
    return Experiment(
        dataset="17", configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)
    ), calls


def test_a_class_is_scored_on_the_cases_of_every_data_set_that_labels_it(scored, with_pictures):
    experiment, calls = scored
    found = evaluate(experiment, CPU)
    name = f"{PGCD}_step{{}}_fold0_{{}}.txt"
    assert calls == [
        (DATASET, DATASET, name.format(0, DATASET)),
        (DATASET, NEW, name.format(0, NEW)),
        (NEW, DATASET, name.format(1, DATASET)),
        (NEW, NEW, name.format(1, NEW)),
    ]
    content = json.loads((found.folder / "results.json").read_text())
    (dice,) = content["trainers"][PGCD]["dice"]
    assert dice["classes"] == [{"liver": 1, "spleen": 1}, {"liver": 0.5, "spleen": 1, "kidney": 1}]
    assert dice["forgetting"] == pytest.approx(0.25)
    assert (content["dataset"], content["cases"]) == (f"{DATASET}, {NEW}", f"{DATASET}: labelsTs, {NEW}: labelsTs")
    page = (found.folder / "report.html").read_text()
    assert [c.split()[:2] for c in content["commands"][:4]] == [
        ["nnunet_cil", "plan"],
        ["nnUNetv2_extract_fingerprint", "-d"],
        ["nnUNetv2_preprocess", "-d"],
        ["nnunet_cil", "plan"],
    ]
    assert f"nnUNetv2_train {NEW} 3d_fullres 0 -tr {PGCD} -p {MOVED}_toy_step1 -device cpu" in page
    assert f"The worst case of PGCD: {NEW}/t0" in page
    assert evaluated(experiment, CPU) == found
    assert evaluate(experiment, CPU) == found
    assert len(calls) == 4


def test_where_there_are_no_test_cases_the_validation_cases_are_predicted(scored, new, tmp_path, monkeypatch):
    experiment, _ = scored
    shutil.rmtree(tmp_path / "nnunet" / "raw" / NEW / "labelsTs")
    with pytest.raises(CILError, match=rf"{NEW} has no cases to score on: neither imagesTs .* of fold 0 in"):
        evaluate(experiment, CPU)
    (new / "splits_final.json").write_text(json.dumps([{"train": ["new_0", "new_2"], "val": ["new_1", "new_4"]}]))
    images = []

    def predict(arguments, *_):
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        images.append(sorted(f.name for f in Path(option["-i"]).iterdir()))
        for name in images[-1]:
            found = sitk.GetImageFromArray(np.zeros((20, 22, 24), np.uint8))
            sitk.WriteImage(found, str(Path(option["-o"]) / name.replace("_0000", "")))

    monkeypatch.setattr(predicting, "predict", predict)
    found = evaluate(experiment, CPU)
    assert images[1] == images[3] == ["new_1_0000.nii.gz", "new_4_0000.nii.gz"]
    assert f"{NEW}/new_4,kidney" in (found.folder / "per_case.csv").read_text()


def test_validation_cases_of_every_data_set_are_predicted_where_they_are_asked_for(scored, new, monkeypatch):
    experiment, _ = scored
    (new / "splits_final.json").write_text(json.dumps([{"train": ["new_0", "new_2"], "val": ["new_1", "new_4"]}]))
    images = []

    def predict(arguments, *_):
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        images.append(sorted(f.name for f in Path(option["-i"]).iterdir()))
        for name in images[-1]:
            found = sitk.GetImageFromArray(np.zeros((20, 22, 24), np.uint8))
            sitk.WriteImage(found, str(Path(option["-o"]) / name.replace("_0000", "")))

    monkeypatch.setattr(predicting, "predict", predict)
    found = evaluate(experiment, EvaluationOptions(device="cpu", cases="validation"))
    assert images == [["case_4_0000.nii.gz", "case_5_0000.nii.gz"], ["new_1_0000.nii.gz", "new_4_0000.nii.gz"]] * 2
    assert found.folder.name.endswith("_validation")
    content = json.loads((found.folder / "results.json").read_text())
    assert content["cases"] == f"{DATASET}: validation, {NEW}: validation"


def test_cases_of_the_users_own_are_refused(scored, tmp_path):
    with pytest.raises(CILError, match=f"-i and -l are for one data set, but the schedule has {DATASET}, {NEW}"):
        evaluate(scored[0], EvaluationOptions(images=tmp_path, labels=tmp_path))
