"""nnunet_cil extend: any nnU-Net model learns classes of another data set."""

import json
import logging
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from toy import DATASET, SHORT, base_plans, make_dataset, make_raw, make_trainer, set_environment, train
from toy_commands import fork_commands
from toy_models import own_copy

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.host.preprocess import missing_commands
from nnunet_cil.step_plans import PreviousModel, StepPlan
from nnunet_cil.training.checkpoints import read_checkpoint
from nnunet_cil.training.state import lineage_of
from nnunet_cil.workflows.models import extend as workflow
from nnunet_cil.workflows.models.export import export
from nnunet_cil.workflows.models.extend import ExtendOptions, extend
from nnunet_cil.workflows.models.trained_model import read_model
from nnunet_cil.workflows.plan.step_files import step_plans_file

NEW, PARTIAL = "Dataset018_New", "Dataset019_Partial"
PGCD, MIB = "nnUNetTrainerPGCD", "nnUNetTrainerMiB"
KNOWN = {"background": 0, "liver": 1, "spleen": 2}


def keep_known(labels):
    return np.where(labels <= 2, labels, 0).astype(np.uint8)


@pytest.fixture(scope="module")
def _trained(tmp_path_factory, request):
    """nnU-Net's folders with a model of plain nnUNetTrainer that knows liver and spleen, and two raw data sets."""
    root = tmp_path_factory.mktemp("extend") / "nnunet"
    make_dataset(root, KNOWN, change_labels=keep_known)
    make_raw(root, NEW, {"background": 0, "kidney": 1})
    labelled = {"new_0": ["kidney"], "new_1": ["liver", "cyst"]}
    make_raw(root, PARTIAL, {"background": 0, "cyst": 1, "kidney": 2, "liver": 3}, labelled_classes=labelled)
    for case, hidden in (("new_0", (1, 3)), ("new_1", (2,))):
        file = root / "raw" / PARTIAL / "labelsTr" / f"{case}.nii.gz"
        picture = sitk.ReadImage(str(file))
        array = sitk.GetArrayFromImage(picture)
        array[np.isin(array, hidden)] = 0
        hidden_picture = sitk.GetImageFromArray(array)
        hidden_picture.CopyInformation(picture)
        sitk.WriteImage(hidden_picture, str(file))
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        fork_commands(patch, request)
        trainer = make_trainer("nnUNetTrainer", "nnUNetPlans")
        trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 1, 2, 1
        torch.manual_seed(0)
        trainer.run_training()
        model = Path(trainer.output_folder_base)
        short = {k: v for k, v in SHORT.items() if k != "mirror_axes"}
        extend(model, 18, ExtendOptions(training=short))
        extend(model, 19, ExtendOptions(refine=("liver",), training=short))
    return root, model.relative_to(root)


@pytest.fixture
def model(_trained, tmp_path, monkeypatch):
    """A copy: the plain model's folder."""
    return own_copy(*_trained, tmp_path, monkeypatch)


@pytest.fixture
def unprocessed(model, monkeypatch):
    """The same, and a data set 20 to come; preprocessing is not reached."""
    monkeypatch.setattr(workflow, "preprocess", lambda *_: pytest.fail("the long work began"))
    return model


def root_of(model):
    return model.parents[2]


def plans_of(model, dataset, name):
    return json.loads((root_of(model) / "preprocessed" / dataset / f"{name}.json").read_text())


# --- what is written ----------------------------------------------------------------------------------------


def test_the_models_plans_move_onto_the_data_set(model):
    plans = plans_of(model, NEW, "nnUNetPlansFrom017_kidney_step1")
    own = json.loads((model / "plans.json").read_text())
    assert plans["dataset_name"] == NEW
    assert plans["configurations"]["3d_fullres"]["data_identifier"] == "nnUNetPlansFrom017_3d_fullres"
    for key in ("spacing", "patch_size", "normalization_schemes", "architecture"):
        assert plans["configurations"]["3d_fullres"][key] == own["configurations"]["3d_fullres"][key]
    assert plans["foreground_intensity_properties_per_channel"] == own["foreground_intensity_properties_per_channel"]
    assert plans["cil"]["steps"] == [["liver", "spleen"], ["kidney"]]
    assert plans["cil"]["labels"] == {"background": 0, "liver": 1, "spleen": 2, "kidney": 3}
    assert plans["cil"]["previous"] == {
        "dataset": DATASET,
        "plans": "nnUNetPlans",
        "trainer": "nnUNetTrainer",
        "configuration": "3d_fullres",
    }


def test_plain_training_and_prediction_follow_and_old_weights_are_the_start(model):
    before = read_checkpoint(model / "fold_0/checkpoint_final.pth")["network_weights"]
    (model / "fold_0/validation").mkdir(exist_ok=True)
    means = {"1": {"Dice": 0.5, "n_ref": 210000.0}, "2": {"Dice": 0.5, "n_ref": 190.0}}
    (model / "fold_0/validation/summary.json").write_text(json.dumps({"mean": means}))
    trainer = train(PGCD, "nnUNetPlansFrom017_kidney_step1", dataset=NEW)
    after = read_checkpoint(Path(trainer.output_folder) / "checkpoint_final.pth")
    head = "decoder.seg_layers.1.weight"
    assert before[head].shape[0] == 3
    assert after["network_weights"][head].shape[0] == 4
    state = after["cil"]
    assert state["classes"] == ["liver", "spleen", "kidney"]
    assert [r["classes"] for r in state["lineage"]] == [["liver", "spleen"], ["kidney"]]
    assert [r["trainer"] for r in state["lineage"]] == ["nnUNetTrainer", PGCD]
    assert state["lineage"][0]["num_cases"] is None
    assert state["lineage"][0]["volumes"] == {"liver": 210000, "spleen": 190}
    assert re.search(r"liver counts as absent from 4 of 4 cases.*less than 52.5 ml", Path(trainer.log_file).read_text())
    counts = state["prototypes"]["counts"]
    assert counts[0] > 0  # background
    assert counts[3] > 0  # kidney
    trainer.perform_actual_validation()
    summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    assert list(summary["mean"]) == ["3"]  # liver and spleen are not labelled here
    assert all(list(case["metrics"]) == ["3"] for case in summary["metric_per_case"])
    assert summary["foreground_mean"]["Dice"] == summary["mean"]["3"]["Dice"]
    card = (Path(trainer.output_folder) / "MODEL_CARD.md").read_text()
    assert f"| 1 | liver | 0 | {DATASET} |  | nnUNetTrainer |  |  |" in card
    assert f"| 3 | kidney | 1 | {NEW} | 4 | {PGCD} |" in card


def test_prototypes_of_a_foreign_model_are_the_means_of_its_confident_predictions(model):
    trainer = make_trainer(PGCD, "nnUNetPlansFrom017_kidney_step1", dataset=NEW)
    trainer.prototype_confidence = 0.34  # an untrained teacher is sure of nothing
    trainer.on_train_start()
    teacher, tiles = trainer.teacher, list(trainer.training_pass().tiles())
    sums, counts = torch.zeros(3, 4), torch.zeros(3)
    for tile in tiles:
        out = teacher(tile.images)
        confidence, predicted = out.logits.softmax(1).max(1)
        for c in range(3):
            chosen = tile.valid & (tile.labels == 0) & (predicted == c) & ((confidence > 0.34) | (c == 0))
            sums[c] += out.features.movedim(1, -1)[chosen].sum(0)
            counts[c] += chosen.sum()
    assert counts[0] > 0
    assert torch.allclose(trainer.prototypes.counts.float(), counts)
    for c in range(3):
        if counts[c]:
            assert torch.allclose(trainer.prototypes.prototypes[c], sums[c] / counts[c], atol=1e-4)


def test_an_extended_model_is_extended_again(model, monkeypatch):
    trainer = train(PGCD, "nnUNetPlansFrom017_kidney_step1", dataset=NEW)
    raw = make_raw(root_of(model), "Dataset020_Cyst", {"background": 0, "cyst": 1})
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    monkeypatch.setattr(workflow, "check_preprocessed_labels", lambda *_: None)
    found = extend(Path(trainer.output_folder_base), raw.name, ExtendOptions(name="second"))
    assert found.plans_name == "nnUNetPlansFrom018_second_step2"
    assert found.plan.steps == (("liver", "spleen"), ("kidney",), ("cyst",))
    assert found.plan.old_classes == ("liver", "spleen", "kidney")
    assert found.plan.previous.trainer == PGCD
    assert found.plan.previous.folder is None


def test_a_model_anywhere_is_continued_by_its_folder(model, tmp_path, monkeypatch):
    elsewhere = tmp_path / "unpacked"
    shutil.copytree(model, elsewhere)
    shutil.rmtree(model)
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    found = extend(
        elsewhere, 18, ExtendOptions(name="moved", training={k: v for k, v in SHORT.items() if k != "mirror_axes"})
    )
    assert found.plan.previous.folder == str(elsewhere)
    assert (
        len(
            read_checkpoint(Path(train(MIB, found.plans_name, dataset=NEW).output_folder) / "checkpoint_final.pth")[
                "cil"
            ]["lineage"]
        )
        == 2
    )
    shutil.move(elsewhere, tmp_path / "gone")
    with pytest.raises(CILError, match=r"The model to continue from is missing: .*unpacked.*nnunet_cil extend"):
        make_trainer(MIB, found.plans_name, dataset=NEW).on_train_start()


def test_on_its_own_data_set_nothing_is_preprocessed_again(model, caplog):
    raw = root_of(model) / "raw" / DATASET / "dataset.json"
    content = json.loads(raw.read_text())
    content["labels"]["kidney"] = 3
    raw.write_text(json.dumps(content))
    with pytest.raises(CILError, match=r"No case of Dataset017_Toy has 'kidney' \(label 3\)"):
        extend(model, 17, ExtendOptions(classes=("kidney",)))
    file = root_of(model) / "raw" / DATASET / "labelsTr" / "case_0.nii.gz"
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
    array[-3:, -3:, -3:] = 3
    sitk.WriteImage(sitk.GetImageFromArray(array), str(file))
    with pytest.raises(CILError, match=r"label file of case 'case_0' has changed since .*3d_fullres was made. Remove"):
        extend(model, 17, ExtendOptions(classes=("kidney",)))
    copy = root_of(model) / "preprocessed" / DATASET / "gt_segmentations" / file.name
    shutil.copyfile(file, copy)  # as nnU-Net does when another configuration is preprocessed
    with pytest.raises(
        CILError,
        match=r"'kidney' \(label 3\) is in the label files .* but in none of the preprocessed cases.*3d_fullres",
    ):
        extend(model, 17, ExtendOptions(classes=("kidney",)))
    preprocess_again("case_0")
    caplog.set_level(logging.INFO, "nnunet_cil")
    found = extend(model, 17, ExtendOptions(classes=("kidney",)))
    assert any(message.startswith("Length: 1000 epochs, as many as") for message in caplog.messages)
    assert not any("nnUNetv2" in message for message in caplog.messages)
    assert found.plans_name == "nnUNetPlans_kidney_step1"
    caplog.clear()
    extend(model, 17, ExtendOptions(classes=("kidney",), training={"num_epochs": 4}, name="short"))
    assert not any(message.startswith("Length") for message in caplog.messages)
    for removed in file.parents[1].glob("*Tr/case_1[._]*"):
        removed.unlink()
    split = copy.parents[1] / "splits_final.json"
    with pytest.raises(CILError, match=r"splits_final.json: fold 0 names 'case_1', which Dataset017_Toy does not have"):
        extend(model, 17, ExtendOptions(classes=("kidney",)))
    split.write_text(json.dumps([{"train": ["case_0", "case_2"], "val": ["case_3", "case_4", "case_5"]}]))
    with pytest.raises(
        CILError, match=r"nnUNetPlans_3d_fullres has the case 'case_1', which is not in .*raw.* any more"
    ):
        extend(model, 17, ExtendOptions(classes=("kidney",)))


def preprocess_again(case):
    """One case of the toy data set, with nnU-Net's preprocessor."""
    raw, pre = (Path(os.environ[f"nnUNet_{kind}"]) / DATASET for kind in ("raw", "preprocessed"))
    manager = PlansManager(str(pre / "nnUNetPlans.json"))
    for name in ("2d", "3d_fullres"):
        configuration = manager.get_configuration(name)
        stem = pre / configuration.data_identifier / case
        for file in stem.parent.glob(f"{case}*"):
            file.unlink()  # blosc2 does not write over files
        DefaultPreprocessor(verbose=False).run_case_save(
            str(stem),
            [str(raw / "imagesTr" / f"{case}_0000.nii.gz")],
            str(raw / "labelsTr" / f"{case}.nii.gz"),
            manager,
            configuration,
            json.loads((raw / "dataset.json").read_text()),
        )


def test_label_numbers_that_changed_since_the_preprocessing_are_refused(unprocessed):
    raw = root_of(unprocessed) / "raw" / NEW / "dataset.json"
    content = json.loads(raw.read_text())
    content["labels"] = {"background": 0, "other": 1, "kidney": 2}
    raw.write_text(json.dumps(content))
    labels = next((raw.parent / "labelsTr").iterdir())
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(labels)))
    sitk.WriteImage(sitk.GetImageFromArray(array * 2), str(labels))
    with pytest.raises(CILError, match=r"was preprocessed when 'kidney' was label 1, but dataset.json .* says 2"):
        extend(unprocessed, 18, ExtendOptions(classes=("kidney",)))


@pytest.mark.parametrize("asked", ["018", NEW])
def test_a_copied_model_whose_data_set_has_the_id_of_the_users_own_is_refused(unprocessed, asked):
    foreign = root_of(unprocessed) / "results" / "Dataset018_Foreign" / unprocessed.name
    shutil.copytree(unprocessed, foreign)
    before = sorted(root_of(unprocessed).rglob("*"))
    with pytest.raises(CILError, match=rf"by the ID 18: {NEW} .*, Dataset018_Foreign \(nnUNet_results\)\. .*move them"):
        extend(foreign, asked, ExtendOptions(name="again"))
    assert sorted(root_of(unprocessed).rglob("*")) == before


# --- partial labels and refinement --------------------------------------------------------------------------


def test_each_case_says_what_it_labels(model):
    block = plans_of(model, PARTIAL, "nnUNetPlansFrom017_cyst-kidney_step1")["cil"]
    assert block["refined"] == ["liver"]
    assert block["labelled"] == {"new_0": ["kidney"], "new_1": ["liver", "cyst"]}
    trainer = make_trainer(PGCD, "nnUNetPlansFrom017_cyst-kidney_step1", dataset=PARTIAL)
    assert trainer.target_label_map == {3: 1, 1: 3, 2: 4}
    assert trainer.labelled_channels(["new_0", "new_1", "new_2"]) == [(4,), (1, 3), (1, 3, 4)]


@pytest.mark.parametrize("name", [PGCD, MIB])
def test_training_with_partial_labels_tells_the_loss_what_each_sample_shows(model, name):
    trainer = make_trainer(name, "nnUNetPlansFrom017_cyst-kidney_step1", dataset=PARTIAL)
    trainer.on_train_start()
    seen = []
    original = trainer.loss.terms

    def terms(logits, targets, batch):
        seen.append((batch.labelled.clone(), [t.clone() for t in targets]))
        return original(logits, targets, batch)

    trainer.loss.terms = terms
    batch = next(trainer.dataloader_train)
    batch["keys"] = ["new_0", "new_1"]
    batch["target"] = [t.clone() for t in batch["target"]]
    batch["target"][0][:, 0, :2, 0, 0] = torch.tensor([1, 4]).to(batch["target"][0])
    trainer.train_step(batch)
    labelled, targets = seen[0]
    assert labelled.tolist() == [[False, False, False, True], [True, False, True, False]]
    assert targets[0][0, 0, :2, 0, 0].tolist() == [0, 4]
    assert targets[0][1, 0, :2, 0, 0].tolist() == [1, 0]
    trainer.validation_step({**batch, "target": [t.clone() for t in batch["target"]]})
    trainer.on_train_end()


def test_the_summary_of_a_partly_labelled_case_leaves_out_what_it_does_not_show(model):
    trainer = train(PGCD, "nnUNetPlansFrom017_cyst-kidney_step1", dataset=PARTIAL)
    validation = trainer.do_split()[1]
    block = dict(trainer.step_plan.labelled)
    block[validation[0]] = ("kidney",)
    trainer.step_plan.labelled.clear()
    trainer.step_plan.labelled.update(block)
    trainer.perform_actual_validation()
    summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    metrics = {Path(c["prediction_file"]).name.split(".")[0]: sorted(c["metrics"]) for c in summary["metric_per_case"]}
    expected = {"kidney": "4", "cyst": "3", "liver": "1"}
    for case, labels in metrics.items():
        assert labels == sorted(expected[name] for name in block.get(case, ("liver", "cyst", "kidney")))
    for label, mean in summary["mean"].items():
        values = [c["metrics"][label]["Dice"] for c in summary["metric_per_case"] if label in c["metrics"]]
        values = [v for v in values if not np.isnan(v)]
        assert mean["Dice"] == pytest.approx(np.mean(values)) if values else np.isnan(mean["Dice"])
    trainer.step_plan.labelled.update(dict.fromkeys(validation, ("kidney",)))
    trainer.perform_actual_validation()  # no validation case shows the cyst, nor the liver
    assert list(json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())["mean"]) == ["4"]
    card = (Path(trainer.output_folder) / "MODEL_CARD.md").read_text()
    dice = {line.split("|")[2].strip(): line.split("|")[-2].strip() for line in card.splitlines() if line[:2] == "| "}
    assert dice["liver"] == dice["cyst"] == ""
    assert dice["kidney"]


def test_a_hidden_old_class_is_not_scored_where_the_labels_lack_it(model, monkeypatch):
    raw = root_of(model) / "raw" / PARTIAL / "dataset.json"
    raw.write_text(json.dumps(json.loads(raw.read_text()) | {"labelled_classes": {"new_0": ["kidney"]}}))
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    short = {k: v for k, v in SHORT.items() if k != "mirror_axes"}
    plan = extend(model, 19, ExtendOptions(classes=("kidney",), name="hidden", training=short)).plan
    assert plan.labelled == {"new_0": ("kidney",)}
    assert not plan.differs_by_case
    split = [{"train": ["new_2", "new_3"], "val": ["new_0", "new_1"]}]
    (root_of(model) / "preprocessed" / PARTIAL / "splits_final.json").write_text(json.dumps(split))
    trainer = train("nnUNetTrainerFineTune", "nnUNetPlansFrom017_hidden_step1", dataset=PARTIAL)
    trainer.perform_actual_validation()
    summary = json.loads((Path(trainer.output_folder) / "validation" / "summary.json").read_text())
    assert [sorted(case["metrics"]) for case in summary["metric_per_case"]] == [["3"], ["1", "3"]]


@pytest.mark.parametrize("name", ["nnUNetTrainerFineTune", "nnUNetTrainerPLOP", "nnUNetTrainerJoint"])
def test_methods_that_take_0_for_background_are_refused_on_partial_labels(model, name):
    with pytest.raises(CILError, match=f"{name} takes label 0 for background.*nnUNetTrainerPGCD"):
        make_trainer(name, "nnUNetPlansFrom017_cyst-kidney_step1", dataset=PARTIAL)


@pytest.mark.parametrize("name", ["nnUNetTrainerReplay", "nnUNetTrainerJoint"])
def test_methods_that_need_old_data_are_refused_without(model, name):
    with pytest.raises(CILError, match=f"{name} needs the data of the earlier steps.*Dataset018_New alone"):
        make_trainer(name, "nnUNetPlansFrom017_kidney_step1", dataset=NEW)


@pytest.mark.parametrize("name", ["nnUNetTrainerReplay", "nnUNetTrainerJoint"])
def test_methods_that_need_old_labels_are_refused_where_the_data_set_has_none(model, name):
    target = root_of(model) / "preprocessed" / DATASET
    content = step_plans_file(
        base_plans(),
        "nnUNetPlans_new_step1",
        StepPlan(
            schedule="new",
            step=1,
            steps=(("liver", "spleen"), ("kidney",)),
            dataset_labels={"background": 0, "kidney": 1},
            labels={"background": 0, "liver": 1, "spleen": 2, "kidney": 3},
            previous=PreviousModel(dataset=DATASET, plans="nnUNetPlans"),
        ),
    )
    (target / "nnUNetPlans_new_step1.json").write_text(json.dumps(content))
    (target / "dataset.json").write_text(
        json.dumps({"channel_names": {"0": "MR"}, "labels": {"background": 0, "kidney": 1}, "file_ending": ".nii.gz"})
    )
    with pytest.raises(CILError, match=f"{name} needs the data of the earlier steps"):
        make_trainer(name, "nnUNetPlans_new_step1")


# --- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labelled", "message"),
    [
        ({"New_*": ["kidney"]}, r"no case is called 'New_\*' \(upper and lower case differ\); they are called 'new_0'"),
        ({"new_0": "kidney"}, "must be a list of classes for every pattern"),
        (["kidney"], "must be a list of classes for every pattern"),
        ({"*": []}, "says that no case labels 'kidney': there is nothing to learn it from"),
    ],
)
def test_labelled_classes_that_cannot_be_meant(unprocessed, labelled, message):
    change_raw(unprocessed, labelled_classes=labelled)
    with pytest.raises(CILError, match=message):
        extend(unprocessed, 18, ExtendOptions())


def change_raw(model, *, without=(), **changed):
    """Edits dataset.json of the new raw data set."""
    file = root_of(model) / "raw" / NEW / "dataset.json"
    content = json.loads(file.read_text()) | changed
    file.write_text(json.dumps({k: v for k, v in content.items() if k not in without}))


def test_a_dataset_json_that_nnunet_would_not_take(unprocessed, monkeypatch):
    change_raw(unprocessed, labels={"0": "background", "1": "kidney"})
    with pytest.raises(CILError, match=r'labels as nnU-Net v1 wanted them .*"background": 0'):
        extend(unprocessed, 18, ExtendOptions())
    change_raw(unprocessed, labels={"background": 0, "kidney": 1}, without=("file_ending",))
    with pytest.raises(CILError, match="lacks 'file_ending'"):
        extend(unprocessed, 18, ExtendOptions())
    change_raw(unprocessed, file_ending=".nii.gz", modality={"0": "MR"}, without=("channel_names",))
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    assert extend(unprocessed, 18, ExtendOptions(name="old-key")).plan.new_classes == ("kidney",)


def test_files_that_cannot_be_read_are_named(unprocessed):
    raw = root_of(unprocessed) / "raw" / NEW
    for file, message in (
        (raw / "imagesTr" / "new_0_0000.nii.gz", r"imagesTr/new_0_0000\.nii\.gz cannot be read\. Restore it"),
        (raw / "labelsTr" / "new_0.nii.gz", r"labelsTr/new_0\.nii\.gz cannot be read\. Restore it"),
    ):
        whole = file.read_bytes()
        file.write_bytes(whole[:100])
        with pytest.raises(CILError, match=message):
            extend(unprocessed, 18, ExtendOptions())
        file.write_bytes(whole)


def test_too_few_cases_for_nnunets_split(unprocessed, monkeypatch):
    make_raw(root_of(unprocessed), "Dataset020_Few", {"background": 0, "kidney": 1}, num_cases=4)
    with pytest.raises(CILError, match=r"has 4 training cases, but nnU-Net's split into 5 folds.*splits_final.json"):
        extend(unprocessed, 20, ExtendOptions())
    split = root_of(unprocessed) / "preprocessed" / "Dataset020_Few" / "splits_final.json"
    split.parent.mkdir()
    split.write_text(json.dumps([{"train": ["new_0", "new_1", "new_2"], "val": ["new_3"]}]))
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    monkeypatch.setattr(workflow, "check_preprocessed_labels", lambda *_: None)
    assert extend(unprocessed, 20, ExtendOptions()).folds == ("0",)
    split.write_text(json.dumps([{"train": ["new_0", "new_1", "new_2"], "val": ["new_3", "new_4"]}]))
    with pytest.raises(CILError, match=r"fold 0 names 'new_4', which Dataset020_Few does not have"):
        extend(unprocessed, 20, ExtendOptions())


def test_a_class_that_no_training_case_of_the_fold_shows(unprocessed, monkeypatch, caplog):
    """The kidney is in the label files of new_3 and new_5 alone."""
    raw = make_raw(root_of(unprocessed), "Dataset020_Rare", {"background": 0, "kidney": 1})
    for case in ("new_0", "new_1", "new_2", "new_4"):
        file = raw / "labelsTr" / f"{case}.nii.gz"
        sitk.WriteImage(sitk.ReadImage(str(file)) * 0, str(file))
    split = root_of(unprocessed) / "preprocessed" / raw.name / "splits_final.json"
    split.parent.mkdir()
    message = r"Step 1 of kidney learns 'kidney' .* no training case of fold 0 of Dataset020_Rare shows it, only "
    for folds, where in (
        ([{"train": ["new_0", "new_1"], "val": ["new_2", "new_3", "new_5"]}], r"validation cases \('new_3', 'new_5'\)"),
        (
            [{"train": ["new_0", "new_1"], "val": ["new_2"]}, {"train": ["new_5"], "val": ["new_0"]}],
            r"cases that splits_final.json does not list \('new_3'\) and cases that the fold leaves out \('new_5'\)",
        ),
        ([{"train": ["new_0"], "val": ["new_1"]}], r"cases that .* does not list \('new_3', 'new_5'\)\. Add them"),
    ):
        split.write_text(json.dumps(folds))
        with pytest.raises(CILError, match=message + where):
            extend(unprocessed, 20, ExtendOptions())
    assert [f.name for f in split.parent.iterdir()] == ["splits_final.json"]
    split.write_text(json.dumps([{"train": ["new_0", "new_3"], "val": ["new_1"]}]))
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    monkeypatch.setattr(workflow, "check_preprocessed_labels", lambda *_: None)
    caplog.set_level(logging.INFO, "nnunet_cil")
    assert extend(unprocessed, 20, ExtendOptions()).folds == ("0",)
    assert any("does not list 3 of the 6 cases ('new_2', 'new_4', 'new_5')" in m for m in caplog.messages)


def test_a_model_with_another_network_than_its_plans_is_refused_first(unprocessed):
    file = unprocessed / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    content["network_weights"]["norm.num_batches_tracked"] = torch.zeros(1)
    torch.save({**content, "trainer_name": "nnUNetTrainerBN"}, file)
    with pytest.raises(
        CILError, match=r"cannot be extended: plain nnU-Net builds another network .* nnUNetTrainerBN did"
    ):
        extend(unprocessed, 18, ExtendOptions())


def test_names_stay_short_enough_for_a_folder(unprocessed):
    assert workflow._default_name(("left kidney", "rib_1"), 1) == "left-kidney-rib-1"
    assert workflow._default_name([f"organ number {i}" for i in range(12)], 1) == "organ-number-0-and-11-more"
    assert workflow._default_name(("肝臓",), 2) == "step-2"
    with pytest.raises(CILError, match=r"too long for a folder's. Choose a shorter one with --name or -p"):
        extend(unprocessed, 18, ExtendOptions(name="a" * 240))


def test_plans_that_continue_another_model_are_kept(model, tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    other = model.parent / "nnUNetTrainer_250epochs__nnUNetPlans__3d_fullres"
    shutil.copytree(model, other)
    file = other / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(file, weights_only=False), "trainer_name": "nnUNetTrainer_250epochs"}, file)
    with pytest.raises(
        CILError, match=r"continues another model, .*nnUNetTrainer__nnUNetPlans.*name of its own with --name"
    ):
        extend(other, 18, ExtendOptions())
    short = {k: v for k, v in SHORT.items() if k != "mirror_axes"}
    elsewhere = Path(shutil.copytree(model, tmp_path / "unpacked"))
    found = extend(elsewhere, 18, ExtendOptions(name="moved", training=short))
    train(MIB, found.plans_name, dataset=NEW)
    shutil.move(elsewhere, tmp_path / "there")
    assert extend(tmp_path / "there", 18, ExtendOptions(name="moved", training=short)).plan.previous.folder == str(
        tmp_path / "there"
    )
    resumed = make_trainer(MIB, found.plans_name, dataset=NEW)
    resumed.load_checkpoint(str(Path(resumed.output_folder) / "checkpoint_final.pth"))
    with pytest.raises(CILError, match=r"would change, but .* was trained with them"):
        extend(tmp_path / "there", 18, ExtendOptions(name="moved", training={**short, "num_epochs": 3}))


def test_a_configuration_that_inherits_is_preprocessed_as_nnunet_would(model):
    file = root_of(model) / "preprocessed" / NEW / "nnUNetPlansFrom017_kidney_step1.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_large_batch"] = {"inherits_from": "3d_fullres", "batch_size": 4}
    plans["configurations"]["3d_fullres"]["data_identifier"] = "not_there"
    file.write_text(json.dumps(plans))
    commands = missing_commands(NEW, "3d_large_batch", file.stem)
    assert commands[-1] == ["nnUNetv2_preprocess", "-d", "18", "-c", "3d_large_batch", "-plans_name", file.stem]


def test_what_an_exported_model_remembers_is_carried_on(model, tmp_path, monkeypatch):
    extended = Path(train(PGCD, "nnUNetPlansFrom017_kidney_step1", dataset=NEW).output_folder_base)
    exported = export(extended, tmp_path / "plain")
    shutil.rmtree(extended)
    raw = make_raw(root_of(model), "Dataset020_Cyst", {"background": 0, "cyst": 1})
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    monkeypatch.setattr(workflow, "check_preprocessed_labels", lambda *_: None)
    found = extend(exported, raw.name, ExtendOptions())
    assert found.plan.steps == (("liver", "spleen"), ("kidney",), ("cyst",))
    stored = read_checkpoint(exported / "fold_0" / "checkpoint_final.pth")
    assert [(r.dataset, r.trainer) for r in lineage_of(stored)] == [(DATASET, "nnUNetTrainer"), (NEW, PGCD)]


def test_classes_that_both_have_are_refined_left_out_or_refused(unprocessed, monkeypatch):
    with pytest.raises(
        CILError, match=r"Model and Dataset019_Partial both have liver.*--refine liver.*--classes.*rename"
    ):
        extend(unprocessed, 19, ExtendOptions())
    with pytest.raises(CILError, match="both have liver"):
        extend(unprocessed, 19, ExtendOptions(classes=("liver", "cyst")))
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    found = extend(unprocessed, 19, ExtendOptions(classes=("cyst",), name="one"))
    assert found.plan.target_classes == ("cyst",)
    assert found.plan.labelled == {"new_0": ()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"classes": ("kidny",)},
            "--classes names 'kidny', which is not a label of Dataset018_New.*did you mean 'kidney'",
        ),
        ({"refine": ("kidney",)}, "--refine names 'kidney', which the model does not know yet"),
        ({"classes": ("kidney", "kidney")}, "'kidney' is named twice"),
        ({"classes": ("kidney",), "refine": ("kidney",)}, "'kidney' is named twice"),
        ({"folds": ("3",)}, "has no trained fold 3, only 0"),
        ({"configuration": "2d"}, "is a 3d_fullres model, not 2d"),
        ({"training": {"num_epoch": 3}}, "--training: unknown training setting 'num_epoch'.*did you mean 'num_epochs'"),
        (
            {"hyperparameters": {"pgcd_wieght": 3}},
            "--hyperparameters sets the hyper-parameter 'pgcd_wieght', which nnUNetTrainerPGCD does not have.*'pgcd_weight'",
        ),
        (
            {"trainer": MIB, "hyperparameters": {"pgcd_weight": 3}},
            "'pgcd_weight', which nnUNetTrainerMiB does not have",
        ),
        ({"trainer": "nnUNetTrainer"}, "nnUNetTrainer knows nothing of steps"),
        ({"trainer": "nnUNetTrainerReplay"}, "nnUNetTrainerReplay needs the data of the earlier steps"),
        ({"name": "a/b"}, "--name 'a/b' becomes part of a folder's name"),
        ({"plans_name": "a__b"}, "plans' name, 'a__b' becomes part of a folder's name"),
    ],
)
def test_options_that_cannot_work(unprocessed, options, message):
    with pytest.raises(CILError, match=message):
        extend(unprocessed, 18, ExtendOptions(**options))


def test_a_trainer_that_cannot_read_the_labels_is_refused(unprocessed):
    with pytest.raises(CILError, match=r"nnUNetTrainerLwF takes label 0 for background.*Use nnUNetTrainerPGCD or"):
        extend(unprocessed, 19, ExtendOptions(trainer="nnUNetTrainerLwF", refine=("liver",), name="lwf"))


@pytest.mark.parametrize("name", ["Liver", "LIVER", "livers", "Spleen_", "spleen"])
@pytest.mark.parametrize("asked", [False, True])
def test_another_spelling_of_an_old_class_is_asked_about(unprocessed, name, asked):
    make_raw(root_of(unprocessed), "Dataset020_Old", {"background": 0, name: 1, "cyst": 2})
    options = ExtendOptions(classes=(name, "cyst") if asked else ())
    message = (
        r"both have spleen"
        if name == "spleen"
        else rf"'{name}' of Dataset020_Old looks like another spelling of the model's"
    )
    with pytest.raises(CILError, match=message):
        extend(unprocessed, 20, options)


def test_folders_that_are_no_model(unprocessed, tmp_path):
    for folder, message in (
        (tmp_path / "nowhere", "is not a folder"),
        (tmp_path, "is not the folder of a trained nnU-Net v2 model"),
        (unprocessed / "fold_0", "is one fold. Give the folder above it"),
    ):
        with pytest.raises(CILError, match=message):
            extend(folder, 18, ExtendOptions())
    (tmp_path / "v1").mkdir()
    (tmp_path / "v1" / "plans.pkl").write_bytes(b"")
    with pytest.raises(CILError, match=r"is a model of nnU-Net v1"):
        extend(tmp_path / "v1", 18, ExtendOptions())
    file = unprocessed / "dataset.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"labels": {"background": 0, "whole": [1, 2]}}))
    with pytest.raises(CILError, match="has regions, but no 'regions_class_order'"):
        extend(unprocessed, 18, ExtendOptions())


def test_a_model_of_plain_labels_is_not_extended_with_regions(unprocessed):
    file = root_of(unprocessed) / "raw" / NEW / "dataset.json"
    regions = {"labels": {"background": 0, "rim": [1, 2], "kidney": 1}, "regions_class_order": [2, 1]}
    file.write_text(json.dumps(json.loads(file.read_text()) | regions))
    with pytest.raises(
        CILError, match=r"tells plain labels apart, of which a voxel has one\. Give the labels one number"
    ):
        extend(unprocessed, 18, ExtendOptions())


def test_a_checkpoint_that_would_run_code_is_refused(unprocessed):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch ran",)

    torch.save({"network_weights": {}, "init_args": Evil()}, unprocessed / "fold_0/checkpoint_final.pth")
    with pytest.raises(CILError, match="loading it would run code"):
        extend(unprocessed, 18, ExtendOptions())
    assert not Path("ran").exists()


def test_a_missing_image_is_named(unprocessed):
    (root_of(unprocessed) / "raw" / NEW / "labelsTr" / "new_3.nii.gz").unlink()
    with pytest.raises(CILError, match=r"Case 'new_3' of Dataset018_New lacks .*labelsTr/new_3.nii.gz"):
        extend(unprocessed, 18, ExtendOptions())


def test_a_case_that_labels_what_it_should_not_is_named(model):
    raw = root_of(model) / "raw" / PARTIAL / "dataset.json"
    content = json.loads(raw.read_text())
    content["labelled_classes"]["new_2"] = ["kidney", "liver"]
    raw.write_text(json.dumps(content))
    with pytest.raises(
        CILError, match=r"Case 'new_2' holds 'cyst' \(label 1\), but 'labelled_classes'.*not labelled there"
    ):
        extend(model, 19, ExtendOptions(refine=("liver",), name="wrong"))
    content["labelled_classes"]["new_2"] = ["cist"]
    raw.write_text(json.dumps(content))
    with pytest.raises(CILError, match=r"names 'cist' for 'new_2'.*did you mean 'cyst'"):
        extend(model, 19, ExtendOptions(refine=("liver",), name="wrong"))


def test_data_that_other_plans_have_preprocessed_are_not_taken(model):
    target = root_of(model) / "preprocessed" / NEW
    other = json.loads((target / "nnUNetPlansFrom017_kidney_step1.json").read_text())
    other["configurations"]["3d_fullres"]["spacing"] = [2.0, 1.0, 1.0]
    (target / "other.json").write_text(json.dumps(other))
    with pytest.raises(CILError, match=r"nnUNetPlansFrom017_3d_fullres holds data .*other.json; other spacing.*-p"):
        extend(model, 18, ExtendOptions(name="again"))


def test_a_full_disk_is_said_before_the_long_work(unprocessed, monkeypatch):
    make_raw(root_of(unprocessed), "Dataset020_Big", {"background": 0, "cyst": 1})
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(CILError, match=r"0\.0 GB free.*set nnUNet_preprocessed to another disk"):
        extend(unprocessed, 20, ExtendOptions())


# --- compatibility -----------------------------------------------------------------------------------------


def test_what_blocks_is_refused_unless_forced(unprocessed, monkeypatch):
    make_raw(root_of(unprocessed), "Dataset020_Ct", {"background": 0, "cyst": 1}, channel="CT")
    with pytest.raises(
        CILError, match=r"does not look like what the model .*channels: CT, but the model knows MR.*--force"
    ):
        extend(unprocessed, 20, ExtendOptions())
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    monkeypatch.setattr(workflow, "check_preprocessed_labels", lambda *_: None)
    assert extend(unprocessed, 20, ExtendOptions(force=True)).plan.new_classes == ("cyst",)


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_prints_what_to_call_next(model, capsys):
    assert main(["extend", str(model), "18", "--training", "num_epochs=2", "--name", "told"]) == 0
    printed = capsys.readouterr().out
    assert "   spacing: 1 x 1 x 1 mm" in printed
    assert "Old classes: liver, spleen; new classes: kidney" in printed
    assert f"nnUNetv2_train {NEW} 3d_fullres 0 -tr {PGCD} -p nnUNetPlansFrom017_told_step1" in printed
    assert f"nnUNetv2_predict -d {NEW} -c 3d_fullres -f 0 -tr {PGCD} -p nnUNetPlansFrom017_told_step1" in printed
    options = ["-tr", MIB, "--hyperparameters", "mib_weight=5", "--training", "num_epochs=2", "--name", "mib"]
    assert main(["extend", str(model), "18", *options]) == 0
    assert f"nnUNetv2_train {NEW} 3d_fullres 0 -tr {MIB} -p nnUNetPlansFrom017_mib_step1" in capsys.readouterr().out
    assert main(["extend", str(model), "18", "--training", "num_epochs"]) == 1
    assert "--training takes KEY=VALUE, not 'num_epochs'" in capsys.readouterr().err


def test_a_model_that_does_not_mirror_is_continued_without(model):
    file = model / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    for axes, expected in (((0, 1, 2), {}), (None, {"mirror_axes": []}), ((1, 2), {"mirror_axes": [1, 2]})):
        torch.save({**content, "inference_allowed_mirroring_axes": axes}, file)
        assert workflow._mirroring(read_model(model)) == expected


def test_the_models_reader_is_kept_since_another_may_flip_the_images(unprocessed, monkeypatch):
    for file in (unprocessed / "plans.json", root_of(unprocessed) / "raw" / NEW / "dataset.json"):
        assert "Reorient" not in file.read_text()
    file = unprocessed / "plans.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"image_reader_writer": "NibabelIOWithReorient"}))
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    monkeypatch.setattr(workflow, "check_preprocessed_labels", lambda *_: None)
    found = extend(unprocessed, 18, ExtendOptions(plans_name="kept"))
    assert json.loads(found.file.read_text())["image_reader_writer"] == "NibabelIOWithReorient"
    raw = root_of(unprocessed) / "raw" / NEW / "dataset.json"
    raw.write_text(json.dumps(json.loads(raw.read_text()) | {"overwrite_image_reader_writer": "SimpleITKIO"}))
    with pytest.raises(CILError, match=r"reader: SimpleITKIO, the model's NibabelIOWithReorient.*--force"):
        extend(unprocessed, 18, ExtendOptions(plans_name="other"))


def test_what_earlier_plans_of_the_same_name_have_preprocessed_is_not_taken(model, monkeypatch):
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    file = model / "plans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["3d_fullres"]["spacing"] = [2.0, 2.0, 2.0]
    file.write_text(json.dumps(plans))
    with pytest.raises(
        CILError, match=r"preprocessed with other plans \(nnUNetPlansFrom017_kidney_step1.json; other spacing"
    ):
        extend(model, 18, ExtendOptions())
