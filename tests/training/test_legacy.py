"""Models of an early development version, whose state has no version: they resume, predict, extend and export as ever."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import DATASET, SHORT, checkpoint, make_raw, make_trainer, seed_epochs, train

from nnunet_cil.errors import CILError
from nnunet_cil.files import json_sha256
from nnunet_cil.training import base
from nnunet_cil.training.class_choices import confident_classes
from nnunet_cil.training.locations import OldClassLocations
from nnunet_cil.workflows.models.export import export
from nnunet_cil.workflows.models.extend import ExtendOptions, extend
from nnunet_cil.workflows.models.info import describe

LEGACY = Path(__file__).parent / "legacy" / DATASET
PGCD = "nnUNetTrainerPGCD"
STEPS = ["nnUNetPlans_toy_step0", "nnUNetPlans_toy_step1"]


@pytest.fixture
def models(toy) -> Path:
    """Copies the toy data set with plans and models of version 0.1.0; returns nnUNet_results/DATASET."""
    results = toy.parents[1] / "results" / DATASET
    shutil.copytree(LEGACY, results)
    for plans in STEPS:
        shutil.copyfile(results / f"{PGCD}__{plans}__3d_fullres" / "plans.json", toy / f"{plans}.json")
    return results


GONE = {"min_voxels": 25, "drop_strays": 0, "prototype_refresh": 0.25, "volume_trust": 1, "similarity_temperature": 0.2}
GONE |= {"new_class_noise": 0, "pgcd_beta": 1.5}
"""Lists what a schedule could set once, and every trainer fixes today."""


def set_what_is_gone(models: Path, preprocessed: Path) -> None:
    """Writes the hyper-parameters into all plans, also those in checkpoints."""

    def changed(plans: dict) -> dict:
        block = {k: v for k, v in plans["cil"].items() if k != "digest"} | {"hyperparameters": GONE}
        return {**plans, "cil": block | {"digest": json_sha256(block)}}

    for file in [*models.glob(f"{PGCD}*/plans.json"), *(preprocessed / f"{plans}.json" for plans in STEPS)]:
        file.write_text(json.dumps(changed(json.loads(file.read_text()))))
    for file in models.glob(f"{PGCD}*/fold_0/checkpoint_final.pth"):
        content = load(file)
        content["init_args"]["plans"] = changed(content["init_args"]["plans"])
        torch.save(content, file)


def load(file: Path) -> dict:
    return torch.load(file, weights_only=False)


def locations_of_confident_voxels(trainer):
    """Locates the old classes as the old code did, which looked at patches, and where the teacher was confident alone."""
    locations = OldClassLocations(trainer.step_plan.num_old_channels)
    confident = confident_classes(locations.num_old, 0.9)
    for tile, logits, _ in trainer.training_pass().outputs(trainer.teacher):
        locations.add(tile, confident(logits, tile))
    return locations.per_case()


BEGAN_WITH = {
    PGCD: "new_class_start apart, absent_size 0.0, pgcd_weight 30.0, pgcd_merge True, pgcd_weighting prototypes",
    "nnUNetTrainerEWC": "new_class_start balanced, absent_size 0.0",
}


@pytest.mark.parametrize("name", BEGAN_WITH)
def test_an_interrupted_training_goes_on(models, name, monkeypatch):
    """PGCD ends where the old code ended, but for rounding, if it is shown the same patches; EWC keeps its anchor."""
    monkeypatch.setattr(base, "old_class_locations", locations_of_confident_voxels)
    fold = models / f"{name}__{STEPS[1]}__3d_fullres" / "fold_0"
    final = load(fold / "checkpoint_final.pth") if name == PGCD else None
    (fold / "checkpoint_final.pth").unlink(missing_ok=True)
    before = load(fold / "checkpoint_latest.pth")
    trainer = make_trainer(name, STEPS[1], resume=True)
    trainer.load_checkpoint(str(fold / "checkpoint_latest.pth"))
    assert trainer.current_epoch == 1
    assert f"goes on with them: {BEGAN_WITH[name]}\n" in Path(trainer.log_file).read_text().replace(" \n", "\n")
    seed_epochs(trainer)
    trainer.run_training()
    found = checkpoint(trainer)
    assert found["current_epoch"] == 2
    assert len(found["cil"]["lineage"]) == 2
    assert found["cil"]["lineage"][1]["previous_sha256"] == before["cil"]["lineage"][1]["previous_sha256"]
    if final is None:
        own, inherited = (c["cil"]["method_state"]["importances"] for c in (found, before))
        assert all((own[n][: len(t)] >= t).all() for n, t in inherited.items())
        layer = "decoder.seg_layers.0.bias"
        shift = trainer.loss._anchors[layer] - trainer.teacher.network.state_dict()[layer]
        assert shift.tolist() == pytest.approx([-math.log(1 + 2), 0, 0])  # two new classes, copies of the background
        return
    for key, tensor in final["network_weights"].items():
        assert torch.allclose(tensor, found["network_weights"][key], atol=1e-4), key
    prototypes = [c["cil"]["prototypes"]["prototypes"] for c in (final, found)]
    assert torch.allclose(*prototypes, atol=1e-3)
    assert final["cil"]["stray_free"] == found["cil"]["stray_free"]


def test_plain_prediction(models, tmp_path):
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = models / f"{PGCD}__{STEPS[1]}__3d_fullres"
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,))
    logits = predictor.predict_logits_from_preprocessed_data(torch.zeros(1, 16, 16, 16))
    assert logits.shape == (5, 16, 16, 16)


def test_the_next_step_takes_over_weights_prototypes_and_lineage(models, forked_commands):
    raw = make_raw(models.parents[1], "Dataset021_New", {"background": 0, "kidney": 1})
    content = json.loads((raw / "dataset.json").read_text())
    (raw / "dataset.json").write_text(json.dumps(content | {"labels": {"background": 0, "vessel": 1}}))
    folder = models / f"{PGCD}__{STEPS[1]}__3d_fullres"
    short = {k: v for k, v in SHORT.items() if k != "mirror_axes"}
    extension = extend(folder, 21, ExtendOptions(training=short))
    trainer = train(PGCD, extension.plans_name, dataset="Dataset021_New")
    state = checkpoint(trainer)["cil"]
    old = load(folder / "fold_0" / "checkpoint_final.pth")["cil"]
    assert state["classes"] == ["liver", "spleen", "kidney", "cyst", "vessel"]
    assert [r["step"] for r in state["lineage"]] == [0, 1, 2]
    later = {"refined": [], "dice": state["lineage"][1]["dice"]}  # what records have had since
    assert state["lineage"][1] == {**old["lineage"][1], **later}
    assert np.array_equal(state["prototypes"]["counts"][1:5], old["prototypes"]["counts"][1:])


def test_export_and_info(models, tmp_path):
    model = models / f"{PGCD}__{STEPS[1]}__3d_fullres"
    exported = export(model, tmp_path / "plain")
    found = load(exported / "fold_0" / "checkpoint_final.pth")
    assert found["trainer_name"] == "nnUNetTrainer"
    weights = load(model / "fold_0" / "checkpoint_final.pth")["network_weights"]
    assert all(torch.equal(t, found["network_weights"][k]) for k, t in weights.items())
    for text in (describe(model), describe(exported)):
        assert "liver" in text
        assert "cyst" in text
    assert "prototype" in describe(model)


def test_models_whose_plans_set_what_is_fixed_today_are_used_and_not_trained_anew(
    models, toy, forked_commands, tmp_path
):
    set_what_is_gone(models, toy)
    test_plain_prediction(models, tmp_path)
    test_export_and_info(models, tmp_path)
    test_the_next_step_takes_over_weights_prototypes_and_lineage(models, forked_commands)
    with pytest.raises(CILError, match="sets the hyper-parameter 'min_voxels', which nnUNetTrainerPGCD fixes at 10"):
        make_trainer(PGCD, STEPS[1]).run_training()
