"""Validation cases: those of the fold, predicted by the model that is there, and none that it was trained on."""

import csv
import json
import logging
import shutil

import pytest
from toy import DATASET, finish_training, write_scores
from toy_models import PGCD, TRAINED_ON, run, write_records, write_validation

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.run import run as workflow
from nnunet_cil.workflows.run.options import TrainingOptions


def write_split(root, train, val):
    (root / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps([{"train": train, "val": val}]))


@pytest.fixture
def validated(trained):
    """Two steps that look trained and validated, with records and without test cases."""
    root, schedule, _ = trained
    shutil.rmtree(root / "raw" / DATASET / "labelsTs")
    write_records(root)
    fold = write_validation(root)
    return root, schedule, fold


def scored_cases(found):
    with (found.folder / "per_case.csv").open() as file:
        return {row["case"] for row in csv.DictReader(file)}


def test_cases_come_from_the_fold_and_not_from_what_lies_in_the_folder(validated):
    root, schedule, fold = validated
    shutil.copyfile(fold / "validation" / "case_4.nii.gz", fold / "validation" / "case_1.nii.gz")
    assert scored_cases(run(schedule)) == {"case_4", "case_5"}
    write_split(root, TRAINED_ON, ["case_5"])
    assert scored_cases(run(schedule)) == {"case_5"}


def test_a_validation_case_without_a_prediction_is_refused_with_the_command_that_makes_it(validated):
    root, schedule, fold = validated
    (fold / "validation" / "case_5.nii.gz").unlink()
    with pytest.raises(
        CILError, match=r"does not hold .* of 'case_5'\. Run 'nnUNetv2_train .*step1 -device cpu --val'"
    ):
        run(schedule)
    assert not (root / "results" / DATASET / "evaluation").exists()


def test_a_validation_prediction_that_somebody_replaced_is_scored_as_it_is_and_noted(validated, caplog):
    _, schedule, fold = validated
    shutil.copyfile(fold / "validation" / "case_5.nii.gz", fold / "validation" / "case_4.nii.gz")
    with caplog.at_level("INFO", "nnunet_cil"):
        run(schedule)
    where = fold / "validation"
    note = f"Note: 'case_4.nii.gz' in {where} changed after the validation; they are scored as they are."
    assert caplog.messages.count(note) == 1


@pytest.mark.parametrize(
    ("training", "step"),
    [
        ((["case_0", "case_4"], TRAINED_ON), 0),
        ((TRAINED_ON, ["case_0", "case_4"]), 1),
    ],
)
def test_cases_that_any_step_was_trained_on_are_not_scored_as_validation(validated, training, step):
    root, schedule, _ = validated
    write_records(root, training, validation=())
    for fold in (root / "results" / DATASET).glob("*/fold_0"):
        write_scores(fold, {"1": {"Dice": 1.0}})
    with pytest.raises(
        CILError, match=rf"Fold 0 of {DATASET} validates on 'case_4', but step {step} .* was trained on it"
    ):
        run(schedule)
    assert not (root / "results" / DATASET / "evaluation").exists()


def test_a_split_that_has_changed_since_the_training_is_noticed(validated, caplog):
    root, schedule, _ = validated
    write_split(root, ["case_1", "case_2"], ["case_3", "case_5"])
    with pytest.raises(CILError, match="validates on 'case_3', but step 0"):
        run(schedule)
    write_split(root, ["case_1", "case_2"], ["case_4", "case_5"])
    caplog.set_level(logging.INFO, "nnunet_cil")
    run(schedule)
    assert [m for m in caplog.messages if "has changed since step 1" in m and "training cases: 2 gone" in m]


def test_a_missing_split_is_not_replaced_by_another_without_a_word(validated):
    """nnU-Net would make one of its own, in which training cases of the model are validation cases."""
    root, schedule, _ = validated
    (root / "preprocessed" / DATASET / "splits_final.json").unlink()
    with pytest.raises(CILError, match=r"validates on .*, but step 0 .* Restore .*splits_final\.json, or train step 0"):
        run(schedule)


def test_models_without_records_are_scored_with_a_remark(validated, caplog):
    root, schedule, _ = validated
    write_records(root, (None, TRAINED_ON))
    for fold in (root / "results" / DATASET).glob("*/fold_0"):
        write_scores(fold, {"1": {"Dice": 1.0}})
    caplog.set_level(logging.INFO, "nnunet_cil")
    run(schedule)
    assert len([m for m in caplog.messages if "It is not recorded which cases of" in m and "step 0" in m]) == 1


def test_test_cases_may_be_scored_under_any_split(trained):
    root, schedule, _ = trained
    write_records(root)
    write_split(root, ["case_4", "case_5"], TRAINED_ON)
    assert scored_cases(run(schedule)) == {"t0", "t1", "t2"}


def test_test_cases_that_are_called_as_training_cases_are_noted(trained, caplog):
    root, schedule, _ = trained
    caplog.set_level(logging.INFO)
    write_records(root)
    run(schedule)
    assert "no test scores" not in caplog.text
    name = next((root / "raw" / DATASET / "labelsTs").iterdir()).name.removesuffix(".nii.gz")
    write_records(root, (TRAINED_ON, [*TRAINED_ON, name]))
    run(schedule)
    assert f"Training cases of step 1 ({DATASET}) are called as the test cases {name!r}" in caplog.text


@pytest.mark.parametrize("command", ["evaluate", "run", "dry run"])
def test_fold_all_without_test_cases_is_refused_before_anything_is_done(validated, capsys, command, monkeypatch):
    root, schedule, _ = validated
    for model in (root / "results" / DATASET).glob("*/fold_0"):
        finish_training(model.with_name("fold_all"))
    monkeypatch.setattr(workflow, "train", lambda *_: pytest.fail("trained"))
    before = sorted(root.rglob("*"))
    words = ["evaluate" if command == "evaluate" else "run", "17", "3d_fullres", "all", str(schedule), "-tr", PGCD]
    assert main([*words, "-device", "cpu", *(["--dry-run"] if command == "dry run" else [])]) == 1
    error = capsys.readouterr().err
    assert (
        "fold all leaves no validation cases. Add test cases, give some with -i and -l, or train other folds" in error
    )
    assert sorted(root.rglob("*")) == before


def test_fold_all_is_scored_on_test_cases(trained, capsys):
    root, schedule, _ = trained
    for model in (root / "results" / DATASET).glob("*/fold_0"):
        model.rename(model.with_name("fold_all"))
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=("all",), schedule_name=schedule, trainers=(PGCD,)
    )
    found = workflow.evaluate(experiment, EvaluationOptions(device="cpu"))
    assert scored_cases(found) == {"t0", "t1", "t2"}


def test_fold_all_is_trained_without_test_cases_where_nothing_is_scored(validated, monkeypatch):
    _, schedule, _ = validated
    trained = []
    monkeypatch.setattr(workflow, "train", lambda arguments, *_: trained.append(arguments[2]))
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=("all",), schedule_name=schedule, trainers=(PGCD,)
    )
    workflow.run(experiment, TrainingOptions(device="cpu", stop_after=0), EvaluationOptions(device="cpu"))
    assert trained == ["all"]
