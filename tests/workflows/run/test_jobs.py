"""nnunet_cil run --launcher: the graph of jobs."""

import os
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from toy import DATASET, finish_training, toy_volume, write_checkpoint, write_scores
from toy_jobs import PGCD, after, finish, graph
from toy_models import write

from nnunet_cil.host.commands import CommandError
from nnunet_cil.workflows.evaluate import evaluate, score
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run import job_graph, jobs
from nnunet_cil.workflows.run.jobs import Job


def test_a_step_comes_after_the_step_before_it_and_the_scores_after_all(experiment):
    steps = ["PGCD 0 0", "PGCD 1 0", "PGCD 2 0", "MiB 1 0", "MiB 2 0"]
    expected = [[], ["PGCD 0 0"], ["PGCD 1 0"], ["PGCD 0 0"], ["MiB 1 0"], steps]
    jobs = graph(experiment)
    assert after(jobs) == dict(zip([*steps, "evaluate"], expected, strict=True))
    assert list(after(jobs)) == [*steps, "evaluate"]
    assert jobs[0].command == f"nnUNetv2_train {DATASET} 3d_fullres 0 -tr {PGCD} -p nnUNetPlans_toy_step0 -device cpu"
    assert jobs[-1].command.startswith(f"nnunet_cil evaluate {DATASET} 3d_fullres 0 ")
    assert "evaluate" not in after(graph(experiment, stop_after=1))


def test_folds_do_not_wait_for_each_other(experiment):
    folds = graph(replace(experiment, folds=(0, 1), trainers=(PGCD,)), stop_after=1)
    assert after(folds) == {"PGCD 0 0": [], "PGCD 1 0": ["PGCD 0 0"], "PGCD 0 1": [], "PGCD 1 1": ["PGCD 0 1"]}


def test_only_what_is_missing_is_in_the_graph_and_waits_for_nothing_that_is_there(experiment):
    graph(experiment)
    finish(experiment, "PGCD 0 0", "PGCD 1 0", "MiB 1 0", "MiB 2 0")
    assert after(graph(experiment)) == {"PGCD 2 0": [], "evaluate": ["PGCD 2 0"]}
    finish(experiment, "PGCD 2 0")
    assert after(graph(experiment)) == {"evaluate": []}


def test_what_is_scored_is_not_scored_again_until_a_model_is_trained_again(experiment, monkeypatch):
    graph(experiment)
    finish(experiment, "PGCD 0 0", "PGCD 1 0", "PGCD 2 0", "MiB 1 0", "MiB 2 0")
    for name in ("predictions_of", "expected_predictions", "check_predicted"):
        monkeypatch.setattr(evaluate, name, lambda *_, **__: [])
    monkeypatch.setattr(score, "score_cases", lambda *_: [])
    for name in ("latex", "evaluated_differences", "differences_to_best", "costs"):
        monkeypatch.setattr(evaluate, name, lambda *_: "")
    monkeypatch.setattr(evaluate, "results", lambda *_: dict.fromkeys(experiment.trainers, ""))
    monkeypatch.setattr(evaluate, "ranked", lambda _: [PGCD])
    monkeypatch.setattr(evaluate, "summary", lambda _: "a table")
    found = evaluate.evaluate(experiment, EvaluationOptions())
    assert evaluate.evaluated(experiment, EvaluationOptions()) == found
    assert graph(experiment) == []
    assert after(graph(replace(experiment, trainers=(PGCD,)))) == {"evaluate": []}
    checkpoint = PlannedExperiment.read(experiment).model_folds()[1].checkpoint
    write_checkpoint(checkpoint, "another")
    write_scores(checkpoint.parent, {"1": {"Dice": 0.1}})
    assert after(graph(experiment)) == {"evaluate": []}


def test_another_test_set_is_another_job_behind_the_same_trainings(experiment, tmp_path):
    graph(experiment)
    finish(experiment, "PGCD 0 0", "PGCD 1 0", "MiB 1 0", "MiB 2 0")
    own, other = (graph(experiment, output=output) for output in (None, tmp_path / "other"))
    assert [job.name for job in own[:-1]] == [job.name for job in other[:-1]] == list(own[-1].after)
    assert own[-1].name != other[-1].name
    assert {job.log.parent for job in [*own, *other]} == {experiment.logs}


def test_validation_cases_beside_test_cases_are_a_job_of_their_own(experiment):
    def evaluation(cases):
        return graph(experiment, cases=cases)[-1]

    raw = Path(os.environ["nnUNet_raw"]) / DATASET
    assert evaluation("validation").name == evaluation(None).name
    for folder, array, name in zip(("imagesTs", "labelsTs"), toy_volume(7), ("t0_0000", "t0"), strict=True):
        (raw / folder).mkdir()
        write(array, raw / folder / f"{name}.nii.gz")
    assert evaluation("validation").name == f"{evaluation(None).name}-validation"
    assert evaluation("test").name == evaluation(None).name
    assert evaluation("validation").command.endswith(" --cases validation")


def test_how_to_go_on_is_seen_when_the_job_starts(experiment, monkeypatch):
    calls = []
    monkeypatch.setattr(jobs, "call", lambda command, arguments, *_: calls.append((command, arguments[-1])))
    job = pickle.loads(pickle.dumps(graph(experiment)[0]))
    fold = PlannedExperiment.read(experiment).model_folds()[0].folder
    job()
    write_checkpoint(fold / "checkpoint_latest.pth", "x")
    job()
    write_checkpoint(fold / "checkpoint_final.pth", "x")
    job()
    finish_training(fold)
    job()
    assert calls == [("nnUNetv2_train", flag) for flag in ("cpu", "--c", "--val")]


def test_whatever_goes_wrong_is_in_the_log_once(tmp_path):
    def fails(error):
        def function():
            raise error

        return Job(name="a job", command="do it", function=function, log=tmp_path / "logs" / "job.txt")

    with pytest.raises(CommandError):
        fails(CommandError("its output is there already"))()
    assert not (tmp_path / "logs").exists()
    with pytest.raises(ValueError, match="a reason"):
        fails(ValueError("a reason"))()
    assert (tmp_path / "logs" / "job.txt").read_text().endswith("ValueError: a reason\n")


def test_the_log_of_the_evaluation_has_a_name_that_files_can_have(experiment):
    (job,) = (job for job in graph(experiment) if job.name.startswith("evaluate"))
    assert "PGCD-MiB" in job.name
    many = [f"nnUNetTrainerPGCDWeight{i}Beta3Momentum09" for i in range(12)]
    others = [*many[:-1], "nnUNetTrainerMiB"]
    names = {
        job_graph._evaluation_job(replace(experiment, trainers=tuple(t)), EvaluationOptions(), after=()).name
        for t in (many, others)
    }
    assert len(names) == 2
    assert all(len(name) < 150 for name in names)


@pytest.mark.parametrize("launcher", ["local", "slurm"])
def test_a_job_begins_without_heavy_imports(launcher):
    """It only starts a command, which imports them itself."""
    heavy = {"torch", "pandas", "nnunetv2", "matplotlib", "scipy"}
    code = f"import sys; import nnunet_cil.workflows.run.{launcher}; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "set()\n"
