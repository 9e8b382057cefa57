"""nnunet_cil status: what is finished, running, interrupted or missing."""

import json
from dataclasses import replace

from toy import DATASET
from toy_jobs import PGCD

from nnunet_cil.cli import main
from nnunet_cil.locks import fold_lock
from nnunet_cil.owners import current_owner
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.run import run as workflow
from nnunet_cil.workflows.run.options import TrainingOptions


def test_status_tells_finished_running_and_missing(setting, capsys):
    schedule, _, _, folder = setting
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)
    )
    workflow.run(experiment, TrainingOptions(device="cpu", stop_after=1), EvaluationOptions())
    running = folder([DATASET, "3d_fullres", "0", "-tr", PGCD, "-p", "nnUNetPlans_toy_step2"])
    running.mkdir(parents=True)
    (running / "training_log_2026.txt").write_text("2026: Epoch 0 \n2026: Epoch 1 \n")
    assert main(["status", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD]) == 0
    lines = [[c.strip() for c in line.strip("|").split("|")] for line in capsys.readouterr().out.splitlines()]
    assert lines[2] == ["0", "0", PGCD, "finished", "", "0.150", "0.150"]
    assert lines[3] == ["0", "1", PGCD, "finished", "0.150", "0.300", "0.200"]
    assert lines[4] == ["0", "2", PGCD, "epoch 1 of 2", "", "", ""]
    for owner, state in (
        (replace(current_owner(), host="0" * 8), "running on node7 since 2026-01-02 03:04 UTC, epoch 1 of 2"),
        (replace(current_owner(), start=current_owner().start + 10_000), "interrupted on node7, epoch 1 of 2"),
    ):
        held = {"process": owner.token, "host": "node7", "since": "2026-01-02 03:04 UTC", "command": "nnUNetv2_train"}
        fold_lock(running).file.write_text(json.dumps(held))
        assert main(["status", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD]) == 0
        assert f"| {state} |" in capsys.readouterr().out.splitlines()[4]
    (running / "training_log_2026.txt").unlink()
    assert main(["status", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD]) == 0
    assert "| interrupted on node7, before its first epoch |" in capsys.readouterr().out


def test_fold_all_has_no_scores(setting, capsys):
    schedule, _, _, folder = setting
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=("all",), schedule_name=schedule, trainers=(PGCD,)
    )
    workflow.run(experiment, TrainingOptions(device="cpu", stop_after=0), EvaluationOptions())
    assert (folder([DATASET, "3d_fullres", "all", "-tr", PGCD, "-p", "nnUNetPlans_toy_step0"]) / "validation").is_dir()
    assert main(["status", "17", "3d_fullres", "all", str(schedule), "-tr", PGCD]) == 0
    row = capsys.readouterr().out.splitlines()[2]
    assert [c.strip() for c in row.strip("|").split("|")] == ["all", "0", PGCD, "finished", "", "", ""]
