"""The states of a model's fold; one that is not trained, or not on top of the model that is there, is refused."""

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy import DATASET, finish_training, init_args, write_checkpoint, write_scores
from toy_models import PGCD, run, write_model

from nnunet_cil.cli import main
from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.lineage import StepRecord
from nnunet_cil.training.state import StepState
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.fold_records import current_cases, num_folds
from nnunet_cil.workflows.model_fold import ModelFold
from nnunet_cil.workflows.planned_experiment import PlannedExperiment


def experiment_of(schedule, fold=0):
    return Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(fold,), schedule_name=schedule, trainers=(PGCD,)
    )


def test_an_untrained_step_names_its_command(trained):
    root, schedule, calls = trained
    next((root / "results" / DATASET).glob("*step1*/fold_0/checkpoint_final.pth")).unlink()
    with pytest.raises(
        CILError, match=r"Step 1 of toy is not trained .*'nnUNetv2_train .* nnUNetPlans_toy_step1 -device cpu'"
    ):
        run(schedule)
    assert not calls


def test_a_training_that_is_not_finished_is_not_begun_anew(trained):
    root, schedule, calls = trained
    final = next((root / "results" / DATASET).glob("*step1*/fold_0/checkpoint_final.pth"))
    shutil.copy(final, final.with_name("checkpoint_best.pth"))
    final.write_bytes(final.read_bytes()[:100])
    with pytest.raises(
        CILError, match=r"fold_0/checkpoint_final.pth is truncated .*remove it and .*step1 -device cpu --c'"
    ):
        run(schedule)
    final.unlink()
    with pytest.raises(
        CILError, match=r"Step 1 of toy is not trained to its end .*'nnUNetv2_train .*step1 -device cpu --c'"
    ):
        run(schedule)
    assert not calls


def test_a_step_on_top_of_another_model_than_is_there_is_refused(trained):
    root, schedule, calls = trained
    first, second = (
        next((root / "results" / DATASET).glob(f"*step{i}*")) / "fold_0" / "checkpoint_final.pth" for i in range(2)
    )
    record = StepRecord(
        **{"step": 1, "classes": (), "num_cases": None, "versions": {}, "previous_sha256": file_sha256(first)},
        **dict.fromkeys(("schedule", "dataset", "licence", "trainer", "plans", "configuration", "fold", "date"), ""),
    )
    state = StepState(classes=(), lineage=(record,), prototypes=None, stray_free=(), method_state={})
    torch.save({"network_weights": {}, "init_args": init_args({}), **state.to_checkpoint()}, second)
    run(schedule)
    calls.clear()
    write_model(first, "trained again")
    with pytest.raises(CILError, match=r"The model of step 0, .* has changed since step 1 was trained on top of it"):
        run(schedule)
    assert not calls


def test_a_model_of_other_plans_of_that_name_is_refused_and_seen(trained, capsys):
    root, schedule, calls = trained
    file = next((root / "results" / DATASET).glob("*step1*")) / "fold_0" / "checkpoint_final.pth"
    plans = json.loads((root / "preprocessed" / DATASET / "nnUNetPlans_toy_step1.json").read_text())
    write_model(file, plans)
    model = PlannedExperiment.read(experiment_of(schedule)).model_folds()[1]
    model.check_planned()
    later = copy.deepcopy(plans)
    later["cil"]["steps"].append(["cyst"])  # a step more changes nothing of this one
    write_model(file, later)
    model.check_planned()
    for key, value, told in (
        ("steps", [["spleen"], ["liver"]], "it learnt spleen in a step in which they name kidney"),
        ("steps", [["kidney"], ["liver", "cyst"]], "it learnt liver, cyst in a step in which they name liver"),
        ("cases", ["case_1"], "it learnt from other cases"),
    ):
        other = copy.deepcopy(plans)
        other["cil"][key] = value
        write_model(file, other)
        with pytest.raises(
            CILError, match=rf"{told}\. Restore the schedule .*, or remove .*fold_0 and train that step again"
        ):
            run(schedule)
    arguments = ["17", "3d_fullres", "0", str(schedule), "-tr", PGCD]
    assert main(["status", *arguments]) == 0
    assert "trained with other plans" in capsys.readouterr().out
    assert main(["run", *arguments, "--dry-run"]) == 1
    assert not calls


def test_a_fold_is_begun_broken_trained_and_finished(trained):
    model = PlannedExperiment.read(experiment_of(trained[1], fold=1)).model_folds()[0]
    assert model.name == f"{PGCD}__nnUNetPlans_toy_step0__3d_fullres_fold1"

    def states():
        return [s for s in ("begun", "broken", "trained", "finished") if getattr(model, f"is_{s}")]

    assert states() == []
    write_checkpoint(model.folder / "checkpoint_latest.pth", "x")
    assert states() == ["begun"]
    model.checkpoint.write_bytes(b"half a checkpoint")
    assert states() == ["begun", "broken"]
    model.put_broken_aside()
    assert states() == ["begun"]
    assert model.checkpoint.with_suffix(".broken").is_file()
    write_checkpoint(model.checkpoint, "x")
    model.put_broken_aside()
    assert states() == ["begun", "trained"]
    finish_training(model.folder)
    assert states() == ["begun", "trained", "finished"]


def test_a_validation_that_could_score_nothing_is_a_validation(tmp_path):
    """Else each call would ask for another one: the labels of its cases may show none of the model's classes."""
    fold = ModelFold(SimpleNamespace(folder=tmp_path, next_stage=""), 0)
    write_checkpoint(fold.checkpoint, "x")
    assert not fold.is_finished
    write_scores(fold.folder, {})
    assert fold.is_finished


@pytest.mark.parametrize("fold", [0, "all"])
def test_hidden_files_are_no_cases(toy, fold):
    """A copy by macOS leaves ``._case.nii.gz``, and a training that has begun must not be refused for it."""
    known = current_cases(DATASET, fold).hashes
    (toy / "gt_segmentations" / "._case_0.nii.gz").write_bytes(b"resource fork")
    now = current_cases(DATASET, fold)
    now.check_resumed(known, Path("fold"))
    assert not any(case.startswith(".") for case in (*now.training, *now.validation))
    assert num_folds([DATASET]) == 2
