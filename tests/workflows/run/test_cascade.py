"""A cascade's trainings: behind the low-resolution models of all folds, whose predictions it sees."""

import json
from dataclasses import replace

import pytest
import torch
from toy import DATASET, ORGANS, finish_training, init_args, write_checkpoint, write_schedule
from toy_cascade import CASCADE, FOLDS, LOW, make_cascade
from toy_jobs import MIB, PGCD, graph
from toy_records import RECORD

from nnunet_cil.cli import main
from nnunet_cil.content import file_sha256
from nnunet_cil.errors import CILError
from nnunet_cil.next_stage import StageFold
from nnunet_cil.predicted_from import PredictedFrom
from nnunet_cil.training.state import StepState
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.plan.plan import plan
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run import run as workflow
from nnunet_cil.workflows.run.options import TrainingOptions

CPU = EvaluationOptions(device="cpu")

FOLDS_OF = dict(enumerate(FOLDS))
"""Fold -> the cases that its stand-in of a validation predicts."""


@pytest.fixture
def cascade(toy, tmp_path, monkeypatch):
    """A cascade of two steps, and a stand-in for training that leaves what nnU-Net leaves; the calls it got."""
    make_cascade(toy)
    trained = []

    def train(arguments, *_):
        dataset, configuration, fold, *options = arguments
        option = dict(zip(options[::2], options[1::2], strict=False))
        name = f"{option['-tr']}__{option['-p']}__{configuration}"
        folder = tmp_path / "nnunet" / "results" / dataset / name / f"fold_{fold}"
        trained.append((configuration, option["-tr"], int(name.split("step")[1][0]), fold, "--val" in arguments))
        leave(folder)

    monkeypatch.setattr(workflow, "train", train)
    monkeypatch.setattr(workflow, "evaluate", lambda *_, **__: None)
    schedule = write_schedule(tmp_path, (ORGANS[:2], ORGANS[2:]))
    experiment = Experiment(
        dataset=DATASET, configuration=CASCADE, folds=(0,), schedule_name=schedule, trainers=(PGCD, MIB)
    )
    return experiment, trained


def leave(folder):
    """Leaves what nnU-Net leaves of a training: of a low-resolution one the predictions, too."""
    if not (folder / "checkpoint_final.pth").is_file():
        finish_training(folder)
    if folder.parent.name.endswith(CASCADE):
        before = folder.parent.with_name(folder.parent.name.replace(CASCADE, LOW))
        seen = {n: StageFold(folder=before / f"fold_{n}", stage=CASCADE).checkpoint_sha256() for n in "012"}
        first = folder.parents[1] / f"{PGCD}__nnUNetPlans_toy_step0__{CASCADE}" / folder.name / "checkpoint_final.pth"
        earlier = file_sha256(first) if "step1" in folder.parent.name else None
        state = StepState(classes=(), lineage=(replace(RECORD, previous_stage=seen, previous_sha256=earlier),))
        content = {"network_weights": {}, "init_args": init_args({"plans_name": folder.parent.name})}
        torch.save({**content, **state.to_checkpoint()}, folder / "checkpoint_final.pth")
        finish_validation(folder)
        return
    stage = StageFold(folder=folder, stage=CASCADE)
    predictions = folder.parent / "predicted_next_stage" / CASCADE
    predictions.mkdir(parents=True, exist_ok=True)
    cases = FOLDS_OF[int(stage.fold)] if stage.fold != "all" else []
    for case in cases:
        (predictions / f"{case}.b2nd").write_text(f"{folder} {case}")
    stage.write_record(PredictedFrom.by(folder / "checkpoint_final.pth"), cases)


def finish_validation(folder):
    (folder / "validation" / "summary.json").write_text(json.dumps({"mean": {}}))
    PredictedFrom.by(folder / "checkpoint_final.pth").write(
        folder / "validation", [folder / "validation" / "summary.json"]
    )


def run(experiment, **options):
    return workflow.run(experiment, TrainingOptions(device="cpu", **options), CPU)


def test_the_low_resolution_of_all_folds_comes_first(cascade, caplog):
    caplog.set_level("INFO")
    experiment, trained = cascade
    run(experiment)
    low = [t for t in trained if t[0] == LOW]
    models = [(PGCD, 0), (PGCD, 1), (MIB, 1)]
    assert [t[1:] for t in low] == [(*model, str(fold), False) for fold in range(3) for model in models]
    assert trained[len(low) :] == [(CASCADE, *model, "0", False) for model in models]
    assert "sees what 3d_lowres predicts" in caplog.text
    assert "in all 3 folds. So 9 of the 12 trainings train 3d_lowres." in caplog.text
    run(experiment)
    assert len(trained) == 12


def test_a_case_that_two_folds_validate_is_predicted_by_either(cascade, tmp_path, monkeypatch):
    """The fold that is validated later replaces the prediction of the earlier one."""
    experiment, trained = cascade
    monkeypatch.setitem(FOLDS_OF, 2, [*FOLDS[2], FOLDS[0][0]])
    run(replace(experiment, trainers=(PGCD,)), stop_after=0)
    assert [t[3] for t in trained if t[0] == LOW] == ["0", "1", "2"]
    del trained[:]
    run(replace(experiment, trainers=(PGCD,)), stop_after=0)
    assert trained == []
    folder = next((tmp_path / "nnunet" / "results" / DATASET).glob(f"*step0__{LOW}"))
    (folder / "predicted_next_stage" / CASCADE / f"{FOLDS[0][0]}.b2nd").write_text("of neither")
    run(replace(experiment, trainers=(PGCD,)), stop_after=0)
    assert [t[3] for t in trained if t[0] == LOW] == ["0"]


def test_a_low_resolution_model_without_predictions_is_validated_again_and_trained_once(cascade, tmp_path):
    experiment, trained = cascade
    run(replace(experiment, trainers=(PGCD,)), stop_after=0)
    folder = next((tmp_path / "nnunet" / "results" / DATASET).glob(f"*step0__{LOW}")) / "fold_1"
    (folder.parent / "predicted_next_stage" / CASCADE / "case_2.b2nd").unlink()
    alone = PlannedExperiment.read(replace(experiment, configuration=LOW, folds=(1,)))
    assert alone.model_folds()[0].is_finished  # nothing is behind it
    del trained[:]
    run(replace(experiment, trainers=(PGCD,)), stop_after=0)
    assert trained == [(LOW, PGCD, 0, "1", True)]


def test_fold_all_of_a_cascade_needs_the_folds_and_fold_all_before(cascade):
    experiment, trained = cascade
    run(replace(experiment, trainers=(PGCD,), folds=("all",)), stop_after=0)
    assert [(t[0], t[3]) for t in trained] == [(LOW, fold) for fold in ("0", "1", "2", "all")] + [(CASCADE, "all")]


def test_a_job_waits_for_the_step_before_and_the_low_resolution_of_its_step(cascade):
    experiment, _ = cascade
    jobs = {job.name: job.after for job in graph(replace(experiment, trainers=(PGCD,), folds=(0, 2)))}

    def name(configuration, step, fold):
        return f"{PGCD}__nnUNetPlans_toy_step{step}__{configuration}_fold{fold}"

    assert len(jobs) == 6 + 4 + 1
    assert jobs[name(LOW, 1, 2)] == (name(LOW, 0, 2),)
    assert jobs[name(CASCADE, 0, 2)] == tuple(name(LOW, 0, fold) for fold in range(3))
    assert jobs[name(CASCADE, 1, 2)] == (name(CASCADE, 0, 2), *(name(LOW, 1, fold) for fold in range(3)))


def test_the_dry_run_and_the_status_tell_of_both_stages(cascade, capsys):
    experiment, _ = cascade
    what = [DATASET, CASCADE, "1", str(experiment.schedule_name), "-tr", PGCD]
    assert main(["run", *what, "-device", "cpu", "--dry-run"]) == 0
    found = capsys.readouterr()
    lines = [line for line in found.out.splitlines() if line.startswith("nnUNetv2_train")]
    assert [line.split()[2:4] for line in lines] == [[LOW, str(f)] for f in (0, 0, 1, 1, 2, 2)] + [[CASCADE, "1"]] * 2
    assert "So 6 of the 8 trainings train 3d_lowres." in found.out + found.err
    assert main(["status", *what]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].replace(" ", "").startswith("|fold|step|configuration|trainer|state|")
    assert len(rows) == 2 + 8


def test_a_cascade_that_saw_another_model_is_told_of_and_not_continued(cascade, capsys, tmp_path):
    experiment, _ = cascade
    own = replace(experiment, trainers=(PGCD,))
    run(own, stop_after=0)
    folder = next((tmp_path / "nnunet" / "results" / DATASET).glob(f"*step0__{LOW}")) / "fold_2"
    write_checkpoint(folder / "checkpoint_final.pth", "another")
    finish_validation(folder)
    leave(folder)
    assert main(["status", DATASET, CASCADE, "0", str(experiment.schedule_name), "-tr", PGCD]) == 0
    row = next(r for r in capsys.readouterr().out.splitlines() if CASCADE in r)
    assert "finished, but 3d_lowres was trained again since" in row
    with pytest.raises(
        CILError, match=r"trained on predictions of other models of step 0 than are in .*remove .*fold_0"
    ):
        run(own)


def test_cases_that_no_fold_validates_are_named_before_any_training(cascade, toy):
    experiment, trained = cascade
    file = toy / "splits_final.json"
    file.write_text(file.read_text().replace('"val": ["case_2", "case_3"]', '"val": ["case_3"]'))
    with pytest.raises(CILError, match=r"No fold of splits_final.json validates 'case_2', .* the cascade"):
        run(experiment)
    assert trained == []


@pytest.mark.parametrize(
    ("before", "following", "expected"),
    [
        (LOW, None, r"3d_lowres of .* does not have '3d_cascade_fullres' as its 'next_stage'"),
        (CASCADE, CASCADE, "the stage before 3d_cascade_fullres, is a cascade itself"),
        ("3d_low", CASCADE, r"no configuration '3d_low' \(did you mean '3d_lowres'"),
    ],
)
def test_stages_that_do_not_fit_are_refused(cascade, toy, before, following, expected):
    file = toy / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"][LOW]["next_stage"] = following
    plans["configurations"][CASCADE]["previous_stage"] = before
    file.write_text(json.dumps(plans))
    with pytest.raises(CILError, match=expected):
        run(cascade[0])


def test_replay_of_disjoint_cases_is_refused_before_the_preprocessing(cascade, tmp_path, monkeypatch, caplog):
    experiment, trained = cascade
    schedule = write_schedule(tmp_path, (ORGANS[:2], ORGANS[2:]), "disjoint", cases="disjoint")
    with caplog.at_level("INFO", logger="nnunet_cil"):
        plan(DATASET, schedule)
    (note,) = [message for message in caplog.messages if message.startswith(f"Note on {CASCADE}: ")]
    assert "nnUNetTrainerReplay keeps cases of earlier steps" in note
    monkeypatch.setattr(workflow, "preprocess", lambda *_: pytest.fail("the long work began"))
    with pytest.raises(CILError, match=r"nnUNetTrainerReplay keeps cases of earlier steps, .* Let the steps share"):
        run(replace(experiment, schedule_name=schedule, trainers=("nnUNetTrainerReplay",)))
    assert trained == []


REGIONS = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "cyst": 4}


@pytest.mark.parametrize(
    ("trainer", "steps", "refused"),
    [
        (
            "nnUNetTrainerEWC",
            [["whole"], ["core", "cyst"]],
            True,
        ),  # what shows the whole at first, shows the core later
        ("nnUNetTrainerEWF", [["core"], ["whole"]], True),  # the whole's 1 comes before the core's 2
        ("nnUNetTrainerEWC", [["whole", "core"], ["cyst"]], False),  # though no model paints the core's 3
    ],
)
def test_weights_that_are_compared_by_place_need_the_inputs_of_regions_in_place(
    cascade, toy, tmp_path, caplog, trainer, steps, refused
):
    experiment, trained = cascade
    for folder in (toy, tmp_path / "nnunet" / "raw" / DATASET):
        content = json.loads((folder / "dataset.json").read_text())
        (folder / "dataset.json").write_text(
            json.dumps(content | {"labels": REGIONS, "regions_class_order": [1, 2, 4]})
        )
    schedule = write_schedule(tmp_path, steps, "regions")
    asked = replace(experiment, schedule_name=schedule, trainers=(trainer,))
    if refused:
        with pytest.raises(
            CILError, match=rf"{trainer} compares weights .* Use nnUNetTrainerPGCD, or train 3d_fullres"
        ):
            run(asked)
        assert trained == []
        assert not list(toy.glob("*_regions_step*.json"))
    with caplog.at_level("INFO", logger="nnunet_cil"):
        plan(DATASET, schedule)
    notes = [message for message in caplog.messages if message.startswith(f"Note on {CASCADE}: {trainer} ")]
    assert len(notes) == refused
    assert PlannedExperiment.read(replace(asked, trainers=(PGCD,))).before is not None


def test_both_stages_are_preprocessed(cascade, toy):
    from nnunet_cil.host.preprocess import missing_commands

    for file in (toy / f"nnUNetPlans_{LOW}").iterdir():
        file.unlink()
    (command,) = missing_commands(DATASET, CASCADE, "nnUNetPlans")
    assert command == ["nnUNetv2_preprocess", "-d", "17", "-c", LOW, "-plans_name", "nnUNetPlans"]
    for name in ("nnUNetPlans.json", f"nnUNetPlans_{LOW}"):
        (toy / name).replace(toy / f"{name}.away")
    (command,) = missing_commands(DATASET, CASCADE, "nnUNetPlans")
    assert command[:6] == ["nnUNetv2_plan_and_preprocess", "-d", "17", "-c", LOW, "3d_fullres"]
