"""nnunet_cil extend on a data set that labels only what the model knows: a step without a new class."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import DATASET, LABELS, ORGANS, SHORT, make_raw, make_trainer, preprocess, set_environment, toy_volume, train

from nnunet_cil.errors import CILError
from nnunet_cil.training.checkpoints import read_checkpoint
from nnunet_cil.workflows.models import extend as workflow
from nnunet_cil.workflows.models.export import export
from nnunet_cil.workflows.models.extend import ExtendOptions, extend
from nnunet_cil.workflows.models.info import describe
from nnunet_cil.workflows.models.trained_model import read_model

AGAIN, PLANS = "Dataset031_Again", "nnUNetPlansFrom017_refined-liver-kidney_step1"
AGAIN_LABELS = {"background": 0, "kidney": 1, "liver": 2}
SETTINGS = {key: value for key, value in SHORT.items() if key != "mirror_axes"}
REFINING = ["nnUNetTrainerPGCD", "nnUNetTrainerMiB", "nnUNetTrainerPseudoLabel", "nnUNetTrainerFineTune"]


@pytest.fixture(scope="module")
def _planned(_toy_root, tmp_path_factory):
    """A plain model of all organs, as nnU-Net saves it, and a data set that labels two of them, preprocessed for the step."""
    root = tmp_path_factory.mktemp("again") / "nnunet"
    shutil.copytree(_toy_root, root)
    make_raw(root, AGAIN, AGAIN_LABELS)
    (root / "preprocessed" / AGAIN).mkdir()
    (root / "preprocessed" / AGAIN / "dataset_fingerprint.json").write_text("{}")
    with pytest.MonkeyPatch.context() as patch:
        set_environment(patch, root)
        trainer = make_trainer("nnUNetTrainer", "nnUNetPlans")
        torch.manual_seed(0)
        trainer.on_train_start()
        trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_final.pth")
        patch.setattr(
            workflow, "preprocess", lambda name, _c, plans, _l: preprocess(root / "preprocessed" / name, plans)
        )
        found = extend(
            Path(trainer.output_folder_base), 31, ExtendOptions(refine=("kidney", "liver"), training=SETTINGS)
        )
    assert (found.plans_name, found.plan.new_classes) == (PLANS, ())
    return root, Path(trainer.output_folder_base).relative_to(root)


@pytest.fixture
def model(_planned, tmp_path, monkeypatch):
    """A copy: the plain model's folder; preprocessing is not reached."""
    root, folder = _planned
    shutil.copytree(root, tmp_path / "nnunet")
    set_environment(monkeypatch, tmp_path / "nnunet")
    monkeypatch.setattr(workflow, "preprocess", lambda *_: pytest.fail("the long work began"))
    return tmp_path / "nnunet" / folder


@pytest.mark.parametrize("name", REFINING)
def test_a_step_without_a_new_class_trains_and_keeps_the_models_classes(model, name):
    trainer = train(name, PLANS, dataset=AGAIN)
    content = read_checkpoint(Path(trainer.output_folder) / "checkpoint_final.pth")
    losses = content["logging"]["train_losses"]
    assert len(losses) == SHORT["num_epochs"]
    assert np.isfinite(losses).all()
    before = read_checkpoint(model / "fold_0/checkpoint_final.pth")["network_weights"]
    assert {n: w.shape for n, w in content["network_weights"].items()} == {n: w.shape for n, w in before.items()}
    assert any(not torch.equal(weight, before[n]) for n, weight in content["network_weights"].items())
    state = content["cil"]
    assert state["classes"] == list(ORGANS)
    assert state["is_final"]
    assert len(state["prototypes"]["counts"]) == 1 + len(ORGANS)
    assert [(r["classes"], r["refined"]) for r in state["lineage"]] == [(list(ORGANS), []), ([], ["liver", "kidney"])]
    card = (Path(trainer.output_folder) / "MODEL_CARD.md").read_text()
    assert f"- step 1 refined liver, kidney with labels of {AGAIN} ({name})" in card
    assert "liver, kidney" in describe(Path(trainer.output_folder_base))


def test_an_interrupted_refinement_is_not_taken_for_a_trained_one(model):
    """The prototypes that PGCD inherits are those of all classes from the start."""
    trainer = make_trainer("nnUNetTrainerPGCD", PLANS, dataset=AGAIN)
    trainer.on_train_start()
    trainer.save_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    trainer._lock.release()
    resumed = make_trainer("nnUNetTrainerPGCD", PLANS, dataset=AGAIN, resume=True)
    assert not resumed.is_trained
    resumed.run_training()
    assert resumed.is_trained
    assert resumed.current_epoch == SHORT["num_epochs"]


def test_a_refined_model_is_exported_predicts_and_learns_on(model, tmp_path, monkeypatch):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    refined = Path(train("nnUNetTrainerPGCD", PLANS, dataset=AGAIN).output_folder_base)
    exported = export(refined, tmp_path / "plain")
    predictor = nnUNetPredictor(device=torch.device("cpu"), use_mirroring=False, perform_everything_on_device=False)
    predictor.initialize_from_trained_model_folder(str(exported), ("0",))
    prediction = predictor.predict_single_npy_array(toy_volume(70)[0][None], {"spacing": [1.0, 1.0, 1.0]})
    assert prediction.shape == toy_volume(70)[0].shape
    assert set(np.unique(prediction)) <= set(range(1 + len(ORGANS)))
    monkeypatch.setattr(workflow, "preprocess", lambda *_: None)
    monkeypatch.setattr(workflow, "check_preprocessed_labels", lambda *_: None)
    make_raw(model.parents[2], "Dataset033_More", {"background": 0, "cyst": 1})
    for of in (refined, exported):
        assert read_model(of).steps == (ORGANS, ())
        again = extend(of, 33, ExtendOptions(refine=("cyst",), name="third"))
        assert again.plan.steps == (ORGANS, (), ())
        assert again.plan.old_classes == again.plan.seen_classes == ORGANS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"has no class that the model does not know.*with '--refine kidney liver'"),
        ({"classes": ("kidney",)}, r"has no class that the model does not know.*with '--refine kidney'"),
        ({"refine": ("liver",), "trainer": "nnUNetTrainerEWF"}, "nnUNetTrainerEWF would keep nothing of step 1"),
        ({"refine": ("liver",), "trainer": "nnUNetTrainerLwF"}, "nnUNetTrainerLwF does not learn from labels of old"),
        ({"refine": ("liver",), "trainer": "nnUNetTrainerPLOP"}, "nnUNetTrainerPLOP does not learn from labels of old"),
        (
            {"refine": ("liver",), "trainer": "nnUNetTrainerEWC"},
            "does not learn from labels of old.* refines liver. Use",
        ),
        ({"refine": ("liver",), "trainer": "nnUNetTrainerReplay"}, "nnUNetTrainerReplay does not learn from labels of"),
    ],
)
def test_what_cannot_refine_alone_says_what_can(model, options, message):
    with pytest.raises(CILError, match=message):
        extend(model, 31, ExtendOptions(name="other", **options))


def test_labels_that_are_not_refined_are_left_out(model):
    found = read_model(model)
    assert workflow.new_classes(found, AGAIN, AGAIN_LABELS, classes=(), refine=("liver",)) == ()
    plan = workflow._step_plan(
        found, workflow._read_data(found, 31, ExtendOptions(refine=("liver",)))[0], (), ExtendOptions(refine=("liver",))
    )
    assert plan.target_labels(plan.target_classes) == {2: 1}
    assert plan.task == "refining liver"


def test_the_advice_names_the_whole_options(model):
    found = read_model(model)
    labels = {**LABELS, "aorta": 5, "left lung": 6}
    for options, advice in (
        ({"refine": ("liver",)}, r"with '--refine liver spleen kidney cyst', or leave it out with "),
        ({"refine": ("liver",)}, r"leave it out with '--classes aorta 'left lung' --refine liver'\. If"),
        (
            {"classes": ("spleen", "aorta")},
            r"'--classes aorta --refine spleen', or leave it out with '--classes aorta'",
        ),
        ({"classes": ("spleen",)}, r"with '--classes aorta 'left lung' --refine spleen', or"),
    ):
        with pytest.raises(CILError, match=advice):
            workflow.new_classes(found, DATASET, labels, **{"classes": (), "refine": (), **options})
