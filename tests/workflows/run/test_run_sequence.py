"""Schedules whose steps learn from different data sets: run."""

import os
from pathlib import Path

import pytest
from toy import (
    DATASET,
    finish_training,
    preprocess,
)
from toy_sequence import BACK, CPU, MIB, MOVED, NEW, PGCD, schedule_file

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.host import preprocess as preprocessing
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.run import run as running
from nnunet_cil.workflows.run.job_graph import job_graph
from nnunet_cil.workflows.run.options import TrainingOptions


@pytest.fixture
def commands(raw_new, tmp_path, monkeypatch):
    """A schedule over two data sets, and the list of commands that are called, on stand-ins that leave what is looked for."""
    called = []

    def call(command, arguments, *_):
        called.append([command, *arguments])
        if command == "nnUNetv2_extract_fingerprint":
            (raw_new / "dataset_fingerprint.json").write_text("{}")
        elif command == "nnUNetv2_preprocess":
            preprocess(raw_new, MOVED)

    def run_training(arguments, *_):
        called.append(["nnUNetv2_train", *arguments])
        option = dict(zip(arguments[3:-1:2], arguments[4::2], strict=False))
        name = f"{option['-tr']}__{option['-p']}__{arguments[1]}"
        finish_training(Path(os.environ["nnUNet_results"]) / arguments[0] / name / f"fold_{arguments[2]}")

    monkeypatch.setattr(preprocessing, "call", call)
    monkeypatch.setattr(running, "train", run_training)
    monkeypatch.setattr(running, "evaluate", lambda *_, **__: called.append(["evaluate"]))
    return Experiment(
        dataset="17",
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=schedule_file(tmp_path, BACK),
        trainers=(PGCD, MIB),
    ), called


def test_run_preprocesses_each_data_set_and_trains_each_step_on_its_own(commands):
    experiment, called = commands
    running.run(experiment, TrainingOptions(device="cpu"), CPU)
    short = [(c[0].removeprefix("nnUNetv2_"), *c[1:2], *c[4:8:2]) for c in called]
    assert [c[0] for c in short[:2]] == ["extract_fingerprint", "preprocess"]
    assert called[1][1:7] == ["-d", "18", "-c", "3d_fullres", "-plans_name", MOVED]
    assert [(c[1], c[5], c[7]) for c in called[2:-1]] == [
        (DATASET, PGCD, "nnUNetPlans_toy_step0"),
        (NEW, PGCD, f"{MOVED}_toy_step1"),
        (DATASET, PGCD, "nnUNetPlans_toy_step2"),
        (NEW, MIB, f"{MOVED}_toy_step1"),
        (DATASET, MIB, "nnUNetPlans_toy_step2"),
    ]
    assert called[-1] == ["evaluate"]
    called.clear()
    running.run(experiment, TrainingOptions(device="cpu"), CPU)
    assert called == [["evaluate"]]


def test_dry_run_and_jobs_know_each_steps_data_set(commands, capsys):
    experiment, _ = commands
    running.run(experiment, TrainingOptions(device="cpu", stop_after=0), CPU)
    capsys.readouterr()
    arguments = ["17", "3d_fullres", "0", str(experiment.schedule_name), "-tr", PGCD]
    assert main(["status", *arguments]) == 0
    table = [[cell.strip() for cell in line.split("|")[1:6]] for line in capsys.readouterr().out.splitlines()]
    assert table[0] == ["fold", "step", "data set", "trainer", "state"]
    assert [row[1:3] + row[4:] for row in table[2:]] == [
        ["0", DATASET, "finished"],
        ["1", NEW, "missing"],
        ["2", DATASET, "missing"],
    ]
    assert main(["run", *arguments, "--dry-run"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines[:-1]] == [NEW, DATASET]
    jobs = job_graph(experiment, TrainingOptions(device="cpu"), CPU)
    assert [job.after for job in jobs[:2]] == [(), (jobs[0].name,)]
    assert jobs[0].name == f"{PGCD}__{MOVED}_toy_step1__3d_fullres_fold0"


def test_methods_that_need_old_data_are_refused_before_anything_is_done(commands, raw_new):
    experiment, called = commands
    joint = Experiment(
        dataset="17",
        configuration="3d_fullres",
        folds=(0,),
        schedule_name=experiment.schedule_name,
        trainers=(PGCD, "nnUNetTrainerJoint"),
    )
    for start in (running.run, job_graph):
        with pytest.raises(CILError, match=f"nnUNetTrainerJoint needs the data .* toy learns from {DATASET}, {NEW}"):
            start(joint, TrainingOptions(device="cpu"), CPU)
    assert not called
    assert not raw_new.exists()


@pytest.mark.slow
def test_run_over_two_data_sets_with_nnunets_own_commands(raw_new, forked_commands, tmp_path, monkeypatch, capsys):
    """From a raw second data set to models; a second call trains nothing. Their evaluation has its own test."""
    scored = []
    monkeypatch.setattr(running, "evaluate", lambda *arguments, **_: scored.append(arguments))
    schedule = schedule_file(tmp_path)
    command = ["run", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "-device", "cpu"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "nnUNetv2_extract_fingerprint -d 18" in said
    assert "2 trainings, 2 to do" in said
    models = (tmp_path / "nnunet" / "results").glob("*/*/fold_0/checkpoint_final.pth")
    assert sorted(file.parents[2].name for file in models) == [DATASET, NEW]
    assert main(command) == 0
    assert "2 trainings, 0 to do" in capsys.readouterr().out
    assert len(scored) == 2


def test_what_could_not_be_scored_is_not_trained(commands, tmp_path):
    experiment, called = commands
    folds = Experiment(
        dataset="17",
        configuration="3d_fullres",
        folds=("all",),
        schedule_name=experiment.schedule_name,
        trainers=(PGCD,),
    )
    for start in (running.run, running.remaining_commands, job_graph):
        with pytest.raises(CILError, match="-i and -l are for one data set"):
            start(experiment, TrainingOptions(), EvaluationOptions(images=tmp_path, labels=tmp_path))
        with pytest.raises(CILError, match=f"{DATASET} has no cases to score on: .* fold all leaves no"):
            start(folds, TrainingOptions(), CPU)
    assert not called
