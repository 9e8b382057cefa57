"""Numbers out of their range are refused in a sentence, from Python as from the command line."""

from pathlib import Path

import numpy as np
import pytest
from toy import ORGANS, set_environment, write_schedule

from nnunet_cil.errors import CILError
from nnunet_cil.host.folders import new_dataset_folder
from nnunet_cil.limits import is_fold, is_number, is_whole_number
from nnunet_cil.schedule import check_training_settings
from nnunet_cil.workflows.data.inspect import inspect
from nnunet_cil.workflows.data.schedules import new
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.run.options import TrainingOptions

NAN, INF = float("nan"), float("inf")
HUGE = 10**400
NO_WHOLE_NUMBERS = [-1, 1.5, 2.0, "2", True, None, NAN, INF, HUGE, [1]]


def test_whole_numbers_and_numbers_are_told_from_what_python_takes_for_them():
    assert [is_whole_number(x, 0, 5) for x in (0, 5, np.int64(3), 6, -1, True, 2.0, "2", None)] == [True] * 3 + [
        False
    ] * 6
    assert [is_number(x, 0, 5) for x in (0, 2.5, 5, NAN, INF, HUGE, True, "2")] == [True] * 3 + [False] * 5
    assert [is_fold(x) for x in (0, 4, "all", -1, "0", 1.0, True, None, HUGE)] == [True] * 3 + [False] * 6


@pytest.mark.parametrize("value", [x for x in NO_WHOLE_NUMBERS if x is not None])
@pytest.mark.parametrize("option", ["start_from", "stop_after", "num_gpus"])
def test_training_options_take_whole_numbers_within_their_range(option, value):
    name = {"start_from": "--start-from", "stop_after": "--stop-after", "num_gpus": "-num_gpus"}[option]
    with pytest.raises(CILError, match=f"^{name} is .{{1,60}}, but must be a whole number from [01] to [0-9]+\\.$"):
        TrainingOptions(**{option: value})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_gpus": 0}, "-num_gpus is 0"),
        ({"num_gpus": 65}, "from 1 to 64"),
        ({"num_gpus": 2, "device": "cpu"}, "-num_gpus 2 needs -device cuda, not cpu"),
        ({"device": "gpu"}, "-device is 'gpu', but must be one of cpu, cuda, mps"),
        ({"start_from": 2, "stop_after": 1}, "--stop-after 1 comes before --start-from 2"),
    ],
)
def test_training_options_that_cannot_work_are_refused(changed, message):
    with pytest.raises(CILError, match=message):
        TrainingOptions(**changed)


@pytest.mark.parametrize("value", [-1, -0.001, 1000.5, NAN, INF, -INF, "2", None, True, HUGE])
def test_a_tolerance_is_a_distance(value):
    with pytest.raises(
        CILError, match=r"^--tolerance is .{1,60}, but must be a distance in mm: a number from 0 to 1000\.$"
    ):
        EvaluationOptions(tolerance_mm=value)


def test_an_evaluation_refuses_unknown_cases_and_devices():
    with pytest.raises(CILError, match="--cases is 'train', but must be test or validation"):
        EvaluationOptions(cases="train")
    with pytest.raises(CILError, match="-device is None, but must be one of"):
        EvaluationOptions(device=None)


def experiment(**changed):
    given = {
        "dataset": "17",
        "configuration": "2d",
        "folds": (0,),
        "schedule_name": "openkbp_2-2-1",
        "trainers": ("A",),
    }
    return Experiment(**{**given, **changed})


@pytest.mark.parametrize("fold", [-1, 1.5, "x", "0", True, None, NAN, HUGE, "All", 1000])
def test_an_experiment_refuses_what_is_no_fold(fold):
    with pytest.raises(CILError, match=r"^.{1,60} is not a fold\. nnU-Net's folds are numbers from 0 on, and 'all'\.$"):
        experiment(folds=(0, fold))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"folds": ()}, "Name a fold"),
        ({"folds": (0, 1, 0)}, "The fold 0 is named twice"),
        ({"folds": ("all", "all")}, "The fold all is named twice"),
        ({"trainers": ()}, "Name a trainer"),
        ({"trainers": ("A", "B", "A")}, "The trainer A is named twice"),
    ],
)
def test_an_experiment_names_each_fold_and_trainer_once(changed, message):
    with pytest.raises(CILError, match=message):
        experiment(**changed)


def test_a_first_step_that_the_schedule_does_not_have_is_refused(tmp_path):
    mine = experiment(schedule_name=write_schedule(tmp_path, [[c] for c in ORGANS]))
    TrainingOptions(start_from=3).check_steps(mine)
    with pytest.raises(CILError, match=r"--start-from is 4, but toy has the steps 0 to 3\."):
        TrainingOptions(start_from=4).check_steps(mine)


@pytest.mark.parametrize("value", [*NO_WHOLE_NUMBERS, 10_000])
def test_a_number_of_pictures_is_checked_before_anything_is_read(value):
    with pytest.raises(CILError, match=r"^--pictures is .*must be a whole number from 0 to 9999"):
        inspect("17", num_pictures=value)


@pytest.mark.parametrize("value", [*NO_WHOLE_NUMBERS, 2**32])
def test_a_seed_is_checked_before_anything_is_read(value):
    with pytest.raises(CILError, match=r"^--seed is .*must be a whole number from 0 to 4294967295"):
        new("17", [1], order="random", seed=value)


@pytest.mark.parametrize("value", [0, 1000, -3, 1.0, "17", True, HUGE])
def test_an_id_has_three_digits(tmp_path, monkeypatch, value):
    (tmp_path / "raw").mkdir()
    set_environment(monkeypatch, tmp_path)
    with pytest.raises(CILError, match=r"^A data set ID is a number from 1 to 999, not "):
        new_dataset_folder(value, "Mine")
    assert list(Path(tmp_path / "raw").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mirror_axes", [[True], [1.0], ["0"], [0, 1, 0], [3], [-1], [None], [[0]], [{}], 0, "01", None, {"0": 1}]),
        ("num_epochs", [0, -5, 1.5, 5.0, "5", True, None, 10**7, HUGE, [5]]),
        ("num_iterations_per_epoch", [0, 2.5, "250", False, 1e3]),
        ("initial_lr", [-1e-9, NAN, INF, 101, "0.01", True, None, HUGE, [0.01]]),
        ("weight_decay", [-1, NAN, 1e300, "0"]),
        ("oversample_foreground_percent", [-0.1, 1.01, 33, NAN, "0.5", True]),
        ("enable_deep_supervision", [0, 1, "true", None]),
        ("optimizer", ["adamw", "", None, 1, ["SGD"]]),
    ],
)
def test_training_settings_of_the_wrong_type_or_range_are_refused(name, values):
    for value in values:
        with pytest.raises(CILError, match=f"^there: training setting '{name}' is .{{1,60}}, but must be "):
            check_training_settings({name: value}, "there")


def test_training_settings_within_their_range_are_taken():
    check_training_settings(
        {"mirror_axes": [2, 0], "num_epochs": 1, "initial_lr": 0.01, "weight_decay": 0, "optimizer": "AdamW"}, "there"
    )
    check_training_settings({"mirror_axes": [], "oversample_foreground_percent": 1}, "there")
