"""A cascade is scored on what it predicts from the predictions of its fold's low-resolution model."""

import json
from pathlib import Path

import pytest
from toy import DATASET, ORGANS, dataset_json, toy_volume, write_schedule
from toy_cascade import CASCADE, LOW, make_cascade
from toy_models import PGCD, write, write_model

from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.workflows.evaluate import predict as predicting
from nnunet_cil.workflows.evaluate.cases import TestSet
from nnunet_cil.workflows.evaluate.evaluate import evaluate
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.planned_experiment import PlannedExperiment


@pytest.fixture
def planned(toy, tmp_path):
    """A cascade of one step, both of its stages trained in fold 0, and a test case."""
    make_cascade(toy)
    experiment = Experiment(
        dataset=DATASET,
        configuration=CASCADE,
        folds=(0,),
        schedule_name=write_schedule(tmp_path, (ORGANS,)),
        trainers=(PGCD,),
    )
    (step,) = plan(DATASET, experiment.schedule_name)
    for configuration in (LOW, CASCADE):
        model = tmp_path / "nnunet" / "results" / DATASET / f"{PGCD}__{step.plans_name}__{configuration}"
        (model / "fold_0").mkdir(parents=True)
        write_model(model / "fold_0" / "checkpoint_final.pth", configuration)
        (model / "dataset.json").write_text(json.dumps(dataset_json(step.plan.labels)))
    for folder, array in zip(("imagesTs", "labelsTs"), toy_volume(50), strict=True):
        (tmp_path / folder).mkdir()
        write(array, tmp_path / folder / ("t_0000.nii.gz" if folder == "imagesTs" else "t.nii.gz"))
    return PlannedExperiment.read(experiment)


def test_it_predicts_with_both_stages_and_again_where_one_has_changed(planned, tmp_path, monkeypatch):
    calls = []

    def predict(arguments, *_):
        option = dict(zip(arguments[::2], arguments[1::2], strict=False))
        if "-prev_stage_predictions" in option:
            assert (Path(option["-prev_stage_predictions"]) / "t.nii.gz").is_file()
        calls.append((option["-c"], option["-f"], option["-tr"], option.get("-prev_stage_predictions")))
        write(toy_volume(50)[1], Path(option["-o"]) / "t.nii.gz")

    monkeypatch.setattr(predicting, "predict", predict)
    test, output = TestSet(images=tmp_path / "imagesTs", labels=tmp_path / "labelsTs"), tmp_path / "out"
    (model,) = planned.model_folds()
    before = planned.before_in_fold(model)
    own = {"checkpoint_sha256": file_sha256(model.checkpoint), "before": before}
    for _ in range(2):
        found = predicting.predictions_of(model, [test], output, device="cpu", **own)
        assert [p.file for p in found] == [output / "predictions" / f"{PGCD}_step0_fold0" / "t.nii.gz"]
        assert predicting.are_predicted(model, [test], output, **own)
        low = str(output / "predictions" / f"{PGCD}_step0_fold0_{LOW}")
        assert calls == [(LOW, "0", PGCD, None), (CASCADE, "0", PGCD, low)]
    write_model(before.checkpoint, "another")
    assert not predicting.are_predicted(model, [test], output, **own)
    predicting.predictions_of(model, [test], output, device="cpu", **own)
    assert [call[0] for call in calls] == [LOW, CASCADE, LOW, CASCADE]


def test_it_says_which_low_resolution_model_is_missing(planned, tmp_path):
    (model,) = planned.model_folds()
    planned.before_in_fold(model).checkpoint.unlink()
    options = EvaluationOptions(images=tmp_path / "imagesTs", labels=tmp_path / "labelsTs", device="cpu")
    with pytest.raises(CILError, match=rf"Step 0 .* not trained .* Run 'nnUNetv2_train {DATASET} {LOW} 0 "):
        evaluate(planned.experiment, options)
