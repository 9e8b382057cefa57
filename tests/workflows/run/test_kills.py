"""A run that is killed between two changes of files, and called again, trains nothing twice and leaves nothing over."""

import shutil
import sys

import pytest
from kills_checks import differences
from kills_points import killed_before, num_changes
from nnunetv2.utilities import find_objects
from toy import DATASET, finish_training, set_environment
from toy_jobs import PGCD

from nnunet_cil.training.catalogue import trainer_class
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.run import run as workflow
from nnunet_cil.workflows.run.options import TrainingOptions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


def test_a_schedule_that_is_killed_at_many_points_is_trained_once(setting, toy, tmp_path, monkeypatch):
    schedule, _, _, folder = setting
    trained = tmp_path / "trained.txt"

    def train(arguments, _environment, log, *_):
        for file in trained, log:
            file.parent.mkdir(exist_ok=True)
            with file.open("a") as stream:
                stream.write(f"{arguments}\n")
        finish_training(folder(arguments))

    monkeypatch.setattr(workflow, "train", train)
    trainer = trainer_class(PGCD)  # nnU-Net looks through all of its modules each time
    monkeypatch.setattr(find_objects, "recursive_find_trainer_class_by_name", lambda _name: trainer)
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)
    )

    def function():
        workflow.run(experiment, TrainingOptions(device="cpu"), EvaluationOptions(device="cpu"))

    def fresh(name):
        shutil.copytree(toy.parents[1], tmp_path / name)
        set_environment(monkeypatch, tmp_path / name)
        trained.unlink(missing_ok=True)
        return tmp_path / name

    reference = fresh("reference")
    total = num_changes(function, reference)
    expected = trained.read_text().splitlines()
    assert len(expected) == 3
    life, kills = fresh("life"), (total // 3, total // 2, total - 1)
    assert [killed_before(change, function, life) for change in kills[:2]] == [True, True]
    killed_before(kills[2], function, life)
    num_changes(function, life)
    assert differences(life, reference) == []
    again = [line for line in trained.read_text().splitlines() if "--val" not in line]
    assert sorted(set(again)) == sorted(expected)
    assert len(again) <= len(expected) + len(kills)
