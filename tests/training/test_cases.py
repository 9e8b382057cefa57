"""The cases of a step's fold: recorded, and held against the split before training, going on and validating."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from batchgenerators.utilities.file_and_folder_operations import write_pickle
from toy import DATASET, ORGANS, SHORT, checkpoint, make_trainer, plan_toy, set_environment, train

from nnunet_cil.errors import CILError
from nnunet_cil.host.preprocessed import PreprocessedCases
from nnunet_cil.lineage import read_lineage, validation_dice
from nnunet_cil.predicted_from import PredictedFrom, is_validated
from nnunet_cil.training.cases import _refuse_regions_without_locations
from nnunet_cil.training.final_validation import _final_checkpoint, _prepare_folder
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run.options import TrainingOptions
from nnunet_cil.workflows.run.trainings import unfinished_trainings

FINE_TUNE = "nnUNetTrainerFineTune"
STEPS = ["nnUNetPlans_toy_step0", "nnUNetPlans_toy_step1"]
CASES = [f"case_{i}" for i in range(6)]


def write_split(root, validation, training=None):
    split = {"train": training or [c for c in CASES if c not in validation], "val": list(validation)}
    (root / "preprocessed" / DATASET / "splits_final.json").write_text(json.dumps([split]))


@pytest.fixture(scope="module")
def trained(_toy_root, tmp_path_factory):
    """nnU-Net's folders with step 0 trained on cases 0, 2, 3, 5, and validated on 1 and 4."""
    root = tmp_path_factory.mktemp("cases") / "nnunet"
    shutil.copytree(_toy_root, root)
    write_split(root, ["case_1", "case_4"])
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        plan_toy(root.parent, first_trainer=FINE_TUNE, training={**SHORT, "num_epochs": 1})
        train(FINE_TUNE, STEPS[0])
    return root


@pytest.fixture
def root(trained, tmp_path, monkeypatch):
    """A copy of it."""
    shutil.copytree(trained, tmp_path / "nnunet")
    set_environment(monkeypatch, tmp_path / "nnunet")
    return tmp_path / "nnunet"


def final_checkpoint(root):
    return next((root / "results" / DATASET).glob("*step0*/fold_0/checkpoint_final.pth"))


def loaded(step=0, name="final"):
    """A trainer that has loaded its checkpoint, as --c and --val do."""
    trainer = make_trainer(FINE_TUNE, STEPS[step], resume=True)
    trainer.load_checkpoint(f"{trainer.output_folder}/checkpoint_{name}.pth")
    return trainer


def without_record(file):
    """Makes a checkpoint one of an early version."""
    content = torch.load(file, weights_only=False)
    del content["cil"]["lineage"][-1]["case_hashes"]
    torch.save(content, file)


def test_a_checkpoint_records_the_cases_of_its_fold_without_their_names(root):
    stored = torch.load(final_checkpoint(root), weights_only=False)["cil"]["lineage"]
    assert not any(case in json.dumps(stored) for case in CASES)
    hashes = read_lineage(stored)[0].case_hashes
    assert hashes.trained_on(CASES) == ["case_0", "case_2", "case_3", "case_5"]
    assert len(hashes.validation) == 2


def test_a_step_is_not_trained_where_it_would_validate_on_an_earlier_steps_training_cases(root):
    write_split(root, ["case_3", "case_1"])
    trainer = make_trainer(FINE_TUNE, STEPS[1])
    with pytest.raises(
        CILError, match=r"validates on 'case_3', but step 0 .*Restore .*splits_final\.json, or train step 0"
    ):
        trainer.run_training()
    assert not list(Path(trainer.output_folder).glob("checkpoint_*"))
    write_split(root, ["case_1", "case_4"])  # the remedy
    trainer = train(FINE_TUNE, STEPS[1])
    records = read_lineage(checkpoint(trainer)["cil"]["lineage"])
    assert [r.case_hashes.trained_on(CASES) for r in records] == [["case_0", "case_2", "case_3", "case_5"]] * 2
    assert records[0].case_hashes.key != records[1].case_hashes.key


def test_a_split_that_leaves_out_more_cases_leaks_nothing(root):
    write_split(root, ["case_4"], training=["case_0", "case_2"])
    trainer = make_trainer(FINE_TUNE, STEPS[1])
    trainer.on_train_start()
    assert trainer.case_hashes.trained_on(CASES) == ["case_0", "case_2"]


def test_a_training_does_not_go_on_under_another_split(root):
    final = final_checkpoint(root)
    began_with = read_lineage(torch.load(final, weights_only=False)["cil"]["lineage"])[0].case_hashes
    write_split(root, ["case_1"])
    resumed = loaded()
    resumed.is_trained = False  # as if interrupted
    with pytest.raises(CILError, match=r"\(training cases: 'case_4' new; validation cases: 1 gone\)\. Restore"):
        resumed.run_training()
    write_split(root, ["case_1", "case_4"])
    resumed = loaded()
    resumed.is_trained = False
    resumed.on_train_start()
    assert resumed.step_record().case_hashes == began_with


def test_a_model_without_a_record_is_used_with_a_remark(root):
    without_record(final_checkpoint(root))
    write_split(root, ["case_0"])
    trainer = make_trainer(FINE_TUNE, STEPS[1])
    trainer.on_train_start()
    assert "It is not recorded which cases of Dataset017_Toy step 0" in Path(trainer.log_file).read_text()
    resumed = loaded()
    resumed.is_trained = False
    resumed.on_train_start()
    assert resumed.step_record().case_hashes is None  # of the epochs before nothing is known


def test_training_cases_are_not_validated_on(root, monkeypatch):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    calls = []
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda *_arguments: calls.append(1))
    write_split(root, ["case_5", "case_4"])
    trainer = loaded()
    with pytest.raises(CILError, match=r"Fold 0 of Dataset017_Toy validates on 'case_5', but step 0"):
        trainer.perform_actual_validation()
    assert calls == []
    assert not (Path(trainer.output_folder) / "validation").exists()


def test_a_validation_holds_no_predictions_of_an_earlier_split(root):
    """Scored by nnU-Net, whose summary counts every prediction in the folder."""
    folder = final_checkpoint(root).parent / "validation"
    folder.mkdir()
    for case in ("case_0", "case_4"):
        shutil.copyfile(
            root / "preprocessed" / DATASET / "gt_segmentations" / f"{case}.nii.gz", folder / f"{case}.nii.gz"
        )
    loaded().perform_actual_validation()
    summary = json.loads((folder / "summary.json").read_text())
    found = sorted(Path(case["prediction_file"]).name for case in summary["metric_per_case"])
    assert found == ["case_1.nii.gz", "case_4.nii.gz"] == sorted(f.name for f in folder.glob("*.nii.gz"))
    assert sorted(PredictedFrom.read(folder).files) == [*found, "summary.json"]
    assert is_validated(folder.parent)


@pytest.mark.parametrize("part", ["_prepare_folder", "drop_unlabelled_scores", "summary.json"])
def test_a_validation_that_was_killed_is_made_again(trained, root, monkeypatch, part):
    """After nnU-Net's summary, too, which scores classes that the labels do not show until these are dropped."""
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    fold, folder = final_checkpoint(root).parent, final_checkpoint(root).parent / "validation"
    summary = {"mean": {"1": {"Dice": 0.87}}, "metric_per_case": [], "foreground_mean": {}}

    def scored(*_arguments):
        (folder / "summary.json").write_text(json.dumps(summary))
        if part == "summary.json" and is_second:
            raise KeyboardInterrupt

    def killed(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", scored)
    is_second = False
    loaded().perform_actual_validation()
    assert is_validated(fold)
    is_second = True
    if part != "summary.json":
        monkeypatch.setattr(f"nnunet_cil.training.final_validation.{part}", killed)
    with pytest.raises(KeyboardInterrupt):
        loaded().perform_actual_validation()
    assert (folder / "summary.json").is_file()
    assert is_validated(fold) == (part == "_prepare_folder")  # nothing has been done yet
    experiment = Experiment(
        dataset=DATASET,
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=trained.parent / "toy.json",
        trainers=(FINE_TUNE,),
    )
    left = unfinished_trainings(PlannedExperiment.read(experiment), TrainingOptions(stop_after=0, device="cpu"))
    assert [one.arguments[-1] for one in left] == ([] if part == "_prepare_folder" else ["--val"])


def test_only_the_weights_of_the_final_checkpoint_are_recorded_as_validated(root):
    """A training without checkpoints leaves the file of an earlier one."""
    trainer = loaded()
    assert _final_checkpoint(trainer) == PredictedFrom.by(final_checkpoint(root))
    next(trainer.bare_network.parameters()).data[0] += 1
    assert _final_checkpoint(trainer) is None


def test_other_cases_and_earlier_probabilities_go_and_the_users_own_files_stay(tmp_path):
    names = ["a.b.tif", "a.b.npz", "a.b.pkl", "a.tif", "c.tif", "c.npz", "summary.json", "notes.txt", "postprocessing"]
    for name in names:
        (tmp_path / name).write_text("")
    _prepare_folder(tmp_path, ["a.b"], ".tif")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.b.tif", "notes.txt", "postprocessing"]


def test_fold_all_has_no_validation_scores(root, monkeypatch):
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    def scores_of_training_cases(trainer, *_arguments):
        summary = {"mean": {"1": {"Dice": 0.87}, "2": {"Dice": 0.86}}, "metric_per_case": [], "foreground_mean": {}}
        (Path(trainer.output_folder) / "validation" / "summary.json").write_text(json.dumps(summary))

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", scores_of_training_cases)
    trainer = train(FINE_TUNE, STEPS[0], fold="all")
    hashes = read_lineage(checkpoint(trainer)["cil"]["lineage"])[0].case_hashes
    assert (len(hashes.training), hashes.validation) == (6, ())
    trainer.perform_actual_validation()
    fold = Path(trainer.output_folder)
    assert validation_dice(fold, trainer.step_plan.labels) == {}
    card = (fold / "MODEL_CARD.md").read_text()
    assert f"| 1 | {ORGANS[0]} | 0 | {DATASET} | 6 | {FINE_TUNE} |" in card
    assert "0.8" not in card
    assert "Dice: not measured, since fold all has no validation cases" in card
    assert "what nnU-Net scores here are training cases" in Path(trainer.log_file).read_text()


def test_a_region_that_was_named_after_the_preprocessing_is_refused(raw):
    step = SimpleNamespace(has_regions=True, dataset_labels={"cyst": 4, "whole": (1, 2, 3)})
    trainer = SimpleNamespace(step_plan=step, target_classes=("cyst", "whole"))
    folder = raw / "preprocessed" / DATASET / "data"
    cases = PreprocessedCases(folder=folder, configuration="2d", plans_name="nnUNetPlans")
    folder.mkdir(parents=True)
    write_pickle({"class_locations": {(3, 1, 2): [], 4: []}}, str(folder / "case_0.pkl"))
    _refuse_regions_without_locations(
        trainer, cases, "case_0"
    )  # none of its voxels are there, but nnU-Net looked for them
    write_pickle({"class_locations": {1: [], 2: [], 3: [], 4: []}}, str(folder / "case_0.pkl"))
    with pytest.raises(
        CILError,
        match=r"before dataset\.json named 'whole' \(labels 1, 2, 3\), .* again: 'nnUNetv2_preprocess -d 17 -c 2d",
    ):
        _refuse_regions_without_locations(trainer, cases, "case_0")
