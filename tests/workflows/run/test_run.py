"""nnunet_cil run: the right commands, in the right order, once."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from toy import DATASET, ORGANS, write_checkpoint, write_schedule
from toy_jobs import MIB, PGCD, STEPS

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.files import write_json
from nnunet_cil.host import preprocess as preprocessing
from nnunet_cil.host.commands import CommandError
from nnunet_cil.locks import Lock
from nnunet_cil.owners import current_owner, start_of
from nnunet_cil.schedule import load_schedule
from nnunet_cil.workflows.evaluate.options import EvaluationOptions
from nnunet_cil.workflows.experiment import Experiment
from nnunet_cil.workflows.planned_experiment import PlannedExperiment
from nnunet_cil.workflows.run import run as workflow
from nnunet_cil.workflows.run.options import TrainingOptions

CPU = EvaluationOptions(device="cpu")


def experiment_of(schedule, *, plan=False):
    experiment = Experiment(
        dataset=DATASET, configuration="3d_fullres", folds=(0,), schedule_name=schedule, trainers=(PGCD, MIB)
    )
    if plan:
        workflow.write_plans(experiment)
    return experiment


def run(schedule, *, evaluation=CPU, **changed):
    return workflow.run(experiment_of(schedule), TrainingOptions(**{"device": "cpu", **changed}), evaluation)


def names(trained):
    return [(a[4].removeprefix("nnUNetTrainer"), int(a[6][-1])) for a in trained]


def test_every_step_of_every_trainer_in_order_with_step_0_once(setting):
    schedule, trained, evaluated, _ = setting
    run(schedule)
    assert names(trained) == [("PGCD", 0), ("PGCD", 1), ("PGCD", 2), ("MiB", 1), ("MiB", 2)]
    assert trained[1] == [DATASET, "3d_fullres", "0", "-tr", PGCD, "-p", "nnUNetPlans_toy_step1", "-device", "cpu"]
    assert len(evaluated) == 1
    run(schedule)
    assert len(trained) == 5


@pytest.mark.parametrize(
    ("trainer", "steps", "expected"),
    [
        (
            "MiB",
            [["core"], ["whole"]],
            "nnUNetTrainerMiB merges classes into the background, but step 1 of toy has regions",
        ),
        ("PLOP", [["whole"], ["core"]], "nnUNetTrainerPLOP fills the background"),
        (
            "LwF",
            [["core"], {"classes": ["whole"], "hyperparameters": {"new_class_start": "apart"}}],
            "step 1 of toy sets new_class_start to 'apart'",
        ),
    ],
)
def test_what_regions_have_no_background_for_is_refused_before_the_preprocessing(
    toy, tmp_path, monkeypatch, trainer, steps, expected
):
    file = tmp_path / "nnunet" / "raw" / DATASET / "dataset.json"
    labels = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "cyst": 4}
    write_json(file, json.loads(file.read_text()) | {"labels": labels, "regions_class_order": [1, 2, 4]})
    shutil.rmtree(toy)
    monkeypatch.setattr(workflow, "preprocess", lambda *_: pytest.fail("the long work has begun"))
    asked = replace(experiment_of(write_schedule(tmp_path, steps)), trainers=(PGCD, f"nnUNetTrainer{trainer}"))
    with pytest.raises(CILError, match=expected):
        workflow.run(asked, TrainingOptions(device="cpu", stop_after=0), CPU)


def test_probabilities_that_are_asked_for_later_are_predicted_by_validating_again(setting, tmp_path, capsys):
    schedule, trained, _, folder = setting
    what = ["run", DATASET, "3d_fullres", "0", str(schedule), "-tr", PGCD, "-device", "cpu"]
    assert main(what) == 0
    for number, arguments in enumerate(trained):
        validation = folder(arguments) / "validation"
        for case in ("case_4", "case_5"):
            (validation / f"{case}.nii.gz").touch()
            if number > 0 or case == "case_4":
                (validation / f"{case}.npz").touch()
    assert main(what) == 0
    assert len(trained) == 3
    capsys.readouterr()
    assert main([*what, "--npz", "--dry-run"]) == 0
    (command,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("nnUNetv2_train")]
    assert command.endswith("_step0 -device cpu --npz --val")
    assert main([*what, "--npz"]) == 0
    assert [arguments[9:] for arguments in trained] == [[], [], [], ["--npz", "--val"]]


@pytest.fixture
def other_process():
    """A process that goes on until the test ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield replace(current_owner(), pid=process.pid, start=start_of(process.pid))
        process.kill()


def hold(lock, owner):
    """Lets another process hold a lock; it is named as the holder, and may be said to have let go by removing the file."""
    content = {"process": owner.token, "host": "here", "since": "today", "command": "nnunet_cil run", "job": ""}
    write_json(lock.file, content)


def test_another_run_of_the_same_trainers_and_folds_is_refused_at_once(setting, other_process):
    schedule, trained, *_ = setting
    logs = experiment_of(schedule).logs
    for trainer in (PGCD, MIB):
        file = logs / f".run_{trainer}__nnUNetPlans_toy__3d_fullres_fold0.json"
        hold(Lock(file, ""), other_process)
        with pytest.raises(
            CILError, match=rf"^{trainer} in fold 0 of toy is in use by process {other_process.pid} on here since"
        ):
            run(schedule)
        assert not trained
        file.unlink()
        assert not list(logs.glob(".run_*"))
    run(schedule)
    assert not list(logs.glob(".run_*"))


def test_a_step_0_that_another_run_is_training_is_waited_for_and_not_trained_again(
    setting, other_process, monkeypatch, caplog
):
    """Covers another one that is at it when this one comes to it, and one that is faster by a moment."""
    schedule, trained, *_ = setting
    caplog.set_level(logging.INFO, "nnunet_cil")
    model = PlannedExperiment.read(experiment_of(schedule, plan=True)).models()[0].fold(0)
    train = workflow.train

    def beaten(arguments, *rest):
        monkeypatch.setattr(workflow, "train", train)
        hold(model.lock, other_process)
        threading.Timer(1, finished_by_the_other, [arguments, *rest]).start()
        raise CommandError("the trainer refuses")

    def finished_by_the_other(arguments, *rest):
        train(arguments, *rest)
        trained.pop()
        model.lock.file.unlink()

    monkeypatch.setattr(workflow, "train", beaten)
    run(schedule, stop_after=0)
    assert not trained
    assert model.is_finished
    (said,) = [m for m in caplog.messages if "waiting" in m]
    assert said.startswith(f"{model.folder} is in use by process {other_process.pid} on here")
    run(schedule)
    assert names(trained) == [("PGCD", 1), ("PGCD", 2), ("MiB", 1), ("MiB", 2)]


def test_a_training_that_fails_for_another_reason_is_not_tried_again(setting, monkeypatch):
    calls = []

    def fail(*arguments):
        calls.append(arguments)
        raise CommandError("out of memory")

    monkeypatch.setattr(workflow, "train", fail)
    with pytest.raises(CommandError, match="out of memory"):
        run(setting[0])
    assert len(calls) == 1


def test_what_was_interrupted_goes_on_and_what_is_broken_is_not_taken_for_finished(setting, monkeypatch):
    schedule, trained, _, folder = setting
    train = workflow.train

    def killed(arguments, *rest):
        if arguments[6].endswith("step1"):
            write_checkpoint(folder(arguments) / "checkpoint_latest.pth", "x")
            raise KeyboardInterrupt
        train(arguments, *rest)

    monkeypatch.setattr(workflow, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        run(schedule)
    monkeypatch.setattr(workflow, "train", train)
    run(schedule, stop_after=1)
    assert trained[1][-1] == "--c"
    final = folder(trained[1]) / "checkpoint_final.pth"
    final.write_bytes(final.read_bytes()[:20])
    seen = []

    def watched(arguments, *rest):  # nnU-Net would read the broken one
        seen.append(sorted(f.name for f in folder(arguments).glob("checkpoint_*")))
        train(arguments, *rest)

    monkeypatch.setattr(workflow, "train", watched)
    run(schedule, stop_after=1)
    assert names(trained[-1:]) == [("PGCD", 1)]
    assert trained[-1][-1] == "--c"
    assert seen == [["checkpoint_final.broken", "checkpoint_latest.pth"]]
    summary = folder(trained[1]) / "validation" / "summary.json"
    write_checkpoint(summary.parents[1] / "checkpoint_final.pth", "trained again")
    run(schedule, stop_after=1)
    assert trained[-1][-1] == "--val"
    for half in ("{", "{}"):
        summary.write_text(half)
        before = len(trained)
        run(schedule, stop_after=1)
        assert [arguments[-1] for arguments in trained[before:]] == ["--val"]


def test_a_part_of_the_schedule_is_not_evaluated(setting):
    schedule, trained, evaluated, _ = setting
    assert run(schedule, stop_after=1) is None
    assert names(trained) == [("PGCD", 0), ("PGCD", 1), ("MiB", 1)]
    assert not evaluated
    run(schedule, start_from=2)
    assert names(trained[3:]) == [("PGCD", 2), ("MiB", 2)]
    with pytest.raises(CILError, match="toy has the steps 0 to 2"):
        run(schedule, start_from=3)


def test_plans_that_are_there_keep_their_step_0(setting, capsys):
    schedule, trained, _, _ = setting
    assert main(["plan", "17", str(schedule)]) == 0
    run(schedule)
    assert names(trained)[:2] == [("PGCD", 0), ("MiB", 0)]


def test_dry_run_prints_the_commands_that_are_left(setting, capsys):
    schedule, trained, _, _ = setting
    run(schedule, stop_after=0)
    capsys.readouterr()
    options = ["-tr", PGCD, "--dry-run", "-num_gpus", "2", "-o", "out"]
    assert main(["run", "17", "3d_fullres", "0", "1", str(schedule), *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(trained) == 1
    assert lines[0] == (
        f"nnUNetv2_train {DATASET} 3d_fullres 0 -tr {PGCD} -p nnUNetPlans_toy_step1 -device cuda -num_gpus 2"
    )
    assert [line.split()[3] for line in lines[:-1]] == ["0", "0", "1", "1", "1"]
    assert lines[-1].startswith(f"nnunet_cil evaluate {DATASET} 3d_fullres 0 1 ")
    assert lines[-1].endswith(f" -tr {PGCD} -p nnUNetPlans -device cuda -o out")


def test_run_passes_on_which_cases_are_scored(setting, capsys):
    schedule, trained, evaluated, _ = setting
    options = ["17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "-device", "cpu", "--cases"]
    assert main(["run", *options, "test"]) == 1
    assert f"--cases test: {DATASET} has no imagesTs" in capsys.readouterr().err
    assert not trained
    assert main(["run", *options, "validation", "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(" --cases validation")
    run(schedule, evaluation=EvaluationOptions(cases="validation"))
    ((_, options), _), *_ = evaluated
    assert options.cases == "validation"


def test_what_is_not_preprocessed_is_preprocessed_first(setting, monkeypatch):
    schedule, _, _, _ = setting
    calls = []
    monkeypatch.setattr(preprocessing, "call", lambda command, arguments, *_: calls.append([command, *arguments]))
    run(schedule)
    assert not calls
    folder = Path(os.environ["nnUNet_preprocessed"]) / DATASET
    (folder / "nnUNetPlans_3d_fullres").rename(folder / "elsewhere")
    run(schedule)
    assert calls.pop()[:5] == ["nnUNetv2_preprocess", "-d", "17", "-c", "3d_fullres"]
    new = Path(os.environ["nnUNet_raw"]) / "Dataset018_New"
    shutil.copytree(new.parent / DATASET, new)
    with pytest.raises(CILError, match="Run 'nnUNetv2_plan_and_preprocess"):  # since the stand-in has made nothing
        workflow.run(
            Experiment(
                dataset="18",
                configuration="2d",
                folds=(0,),
                schedule_name=schedule,
                trainers=(PGCD,),
                base_plans="nnUNetResEncUNetLPlans",
            ),
            TrainingOptions(),
            CPU,
        )
    assert calls.pop()[:5] == ["nnUNetv2_plan_and_preprocess", "-d", "18", "-c", "2d"]
    with pytest.raises(CILError, match=r"MyPlans.json is missing, and only nnUNetPlans, .* can be made here"):
        workflow.run(
            Experiment(
                dataset="18",
                configuration="2d",
                folds=(0,),
                schedule_name=schedule,
                trainers=(PGCD,),
                base_plans="MyPlans",
            ),
            TrainingOptions(),
            CPU,
        )
    with pytest.raises(CILError, match=r"nnU-Net plans no configuration '3d_fulres' \(did you mean '3d_fullres'"):
        workflow.run(
            Experiment(dataset="18", configuration="3d_fulres", folds=(0,), schedule_name=schedule, trainers=(PGCD,)),
            TrainingOptions(),
            CPU,
        )
    with pytest.raises(CILError, match=r"There is no data set '19' in .*nnunet_cil convert"):
        workflow.run(
            Experiment(dataset="19", configuration="2d", folds=(0,), schedule_name=schedule, trainers=(PGCD,)),
            TrainingOptions(),
            CPU,
        )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["3d_fulres", "0"], "have no configuration '3d_fulres' (did you mean '3d_fullres'?)"),
        (["3d_fullres", "0", "-i", "nowhere", "-l", "nowhere"], "nowhere is not a folder"),
        (["3d_fullres", "0", "-i", "nowhere"], "Give -i IMAGES and -l LABELS together"),
        (["3d_fullres", "0", "-tr", "PGCD"], "the trainer 'PGCD' (did you mean 'nnUNetTrainerPGCD'?)"),
        (["3d_fullres", "0", "-tr", "nnUNetTrainerPGDC"], "'nnUNetTrainerPGDC' (did you mean 'nnUNetTrainerPGCD'?)"),
        (["3d_fullres", "toy"], "'toy' is not a fold (0 to 4, or all). The order is DATASET CONFIG FOLD SCHEDULE"),
    ],
)
@pytest.mark.parametrize("how", [[], ["--dry-run"], ["--launcher", "local"]])
def test_what_cannot_work_is_said_before_anything_is_trained(setting, capsys, arguments, message, how):
    schedule, trained, _, _ = setting
    where = 3 if "toy" in arguments else 2
    trainer = [] if "-tr" in arguments else ["-tr", PGCD]
    try:
        status = main(["run", "17", *arguments[:where], str(schedule), *arguments[where:], *trainer, *how])
    except SystemExit as stopped:  # argparse's
        status = stopped.code
    assert status in (1, 2)
    assert message in capsys.readouterr().err
    assert not trained
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL  # else nnU-Net's pools of processes never end


def test_a_configuration_that_is_not_preprocessed(setting, capsys):
    schedule, trained, _, _ = setting
    folder = Path(os.environ["nnUNet_preprocessed"]) / DATASET
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["configurations"]["lean"] = {**plans["configurations"]["3d_fullres"], "data_identifier": "nnUNetPlans_lean"}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    command = ["run", "17", "lean", "0", str(schedule), "-tr", PGCD, "-device", "cpu"]
    assert main([*command, "--dry-run"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first == "nnUNetv2_preprocess -d 17 -c lean -plans_name nnUNetPlans"
    assert second.startswith(f"nnUNetv2_train {DATASET} lean 0 ")
    assert main([*command, "--launcher", "local"]) == 1
    assert f"lean is not preprocessed yet. Run\n  {first}\nand then this again." in capsys.readouterr().err
    assert not trained


@pytest.mark.parametrize(
    ("step", "values", "message"),
    [
        (2, {"pgcd_wieght": 2}, r"'pgcd_wieght', which nnUNetTrainerPGCD does not have \(did you mean 'pgcd_weight'"),
        (1, {"mib_weight": -1}, "'mib_weight', which nnUNetTrainerPGCD does not have"),
        (0, {"mib_weight": 5}, "'mib_weight', which nnUNetTrainerPGCD does not have.*belong in the later steps"),
    ],
)
def test_hyperparameters_of_any_step_are_checked_before_anything_is_done(
    setting, tmp_path, monkeypatch, step, values, message
):
    _, trained, _, _ = setting
    monkeypatch.setattr(workflow, "preprocess", lambda *_: pytest.fail("the long work has begun"))
    steps = [{"classes": list(s)} for s in STEPS]
    steps[step]["hyperparameters"] = values
    with pytest.raises(CILError, match=message):
        run(write_schedule(tmp_path, steps))
    assert not trained


@pytest.mark.parametrize(
    ("others", "values", "belongs_later"),
    [
        ([], {"mib_weight": 5}, False),
        (["nnUNetTrainerLwF"], {"mib_weight": 5}, False),
        (["nnUNetTrainerLwF", MIB], {"mib_weight": 5}, True),
        (["nnUNetTrainerLwF"], {"lwf_weight": "many"}, True),
        (["nnUNetTrainerPGCDPaper"], {"drop_strays": False}, True),
        (["nnUNetTrainerPGCDPaper"], {"pgcd_beta": 2}, False),
        ([MIB], {"pgcd_weigth": 2}, False),
        ([MIB], {"old_dice_weight": float("nan")}, False),
        ([MIB], {"mib_weight": 5, "pgcd_weight": "two"}, False),
        ([MIB], {"pgcd_weight": 0, "pgcd_weighting": "teacher"}, False),
    ],
)
def test_only_what_another_trainer_knows_belongs_in_the_later_steps(
    setting, tmp_path, capsys, others, values, belongs_later
):
    steps = [{"classes": list(STEPS[0]), "hyperparameters": values}, *STEPS[1:]]
    schedule = write_schedule(tmp_path, steps)
    assert main(["run", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, *others, "--dry-run"]) == 1
    said = capsys.readouterr().err
    assert next(reversed(values)) in said
    assert ("It trains step 0 for all trainers; another" in said) == belongs_later


def test_steps_that_have_begun_in_every_fold_keep_their_hyperparameters(setting, tmp_path, capsys):
    """A value that no trainer takes is refused where a training would begin with it, in any fold."""
    _, _, _, folder = setting
    steps = [{"classes": list(s), "hyperparameters": {"min_voxels": 4 + i}} for i, s in enumerate(STEPS[:2])]
    schedule = write_schedule(tmp_path, [*steps, *STEPS[2:]])
    workflow.write_step_plans(DATASET, load_schedule(schedule), first_trainer=PGCD)
    words = ["run", "17", "3d_fullres", str(schedule), "-tr", PGCD, "--dry-run", "-device", "cpu"]
    arguments = [DATASET, "3d_fullres", "0", "-tr", PGCD, "-p"]
    for step, name in ((0, "final"), (1, "latest")):
        assert main([*words[:3], "0", *words[3:]]) == 1
        assert f"'min_voxels', which {PGCD} fixes at 10" in capsys.readouterr().err
        write_checkpoint(folder([*arguments, f"nnUNetPlans_toy_step{step}"]) / f"checkpoint_{name}.pth", "x")
    assert main([*words[:3], "0", *words[3:]]) == 0
    assert "nnUNetPlans_toy_step1 -device cpu --c" in capsys.readouterr().out
    assert main([*words[:3], "0", "1", *words[3:]]) == 1
    assert "fixes at 10" in capsys.readouterr().err


def test_a_trainer_that_nnunet_does_not_find_is_no_question_of_hyperparameters(setting, monkeypatch, capsys):
    schedule, _, _, _ = setting
    monkeypatch.delenv("nnUNet_extTrainer")
    assert main(["run", "17", "3d_fullres", "0", str(schedule), "-tr", PGCD, MIB, "--dry-run"]) == 1
    error = capsys.readouterr().err
    assert "nnunet_cil trainers" in error
    assert "later steps" not in error


def test_each_trainer_may_train_its_own_step_0(setting, tmp_path, capsys):
    _, trained, _, _ = setting
    schedule = write_schedule(tmp_path, STEPS, hyperparameters={"mib_weight": 5})
    assert main(["plan", "17", str(schedule)]) == 0
    options = ["-tr", MIB, "-device", "cpu"]
    assert main(["run", "17", "3d_fullres", "0", str(schedule), *options]) == 0
    assert names(trained) == [("MiB", 0), ("MiB", 1), ("MiB", 2)]


def test_run_says_when_methods_do_not_start_alike(setting, capsys):
    schedule, _, _, _ = setting
    arguments = ["17", "3d_fullres", "0", str(schedule), "-tr", PGCD, "-tr", MIB, "--stop-after", "0"]
    said = "Each trainer trains a step 0 of its own, as it was planned"
    assert main(["plan", "17", str(schedule)]) == 0
    assert main(["run", *arguments]) == 0
    assert said in capsys.readouterr().out
    assert main(["plan", "17", str(schedule), "--step0-trainer", PGCD]) == 0
    assert main(["run", *arguments]) == 0
    assert said not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["status", "evaluate"])
def test_a_trainer_that_does_not_exist_is_not_missing_but_misspelt(setting, capsys, command):
    schedule, _, _, _ = setting
    assert main(["plan", "17", str(schedule)]) == 0
    for given in ("PGCD", "nnUNetTrainerPGDC"):
        assert main([command, "17", "3d_fullres", "0", str(schedule), "-tr", given]) == 1
        message = f"nnunet_cil: nnU-Net does not find the trainer {given!r} (did you mean 'nnUNetTrainerPGCD'?)"
        assert message in capsys.readouterr().err


@pytest.mark.slow
def test_run_with_nnunets_own_commands(toy, forked_commands, tmp_path, capsys):
    """From preprocessed data to tables, two epochs a step; a second call trains nothing."""
    schedule = write_schedule(tmp_path, STEPS[:2])
    command = [
        "run",
        "17",
        "3d_fullres",
        "0",
        str(schedule),
        "-tr",
        PGCD,
        "-device",
        "cpu",
        "-o",
        str(tmp_path / "out"),
    ]
    assert main(command) == 0
    assert "2 trainings, 2 to do" in capsys.readouterr().out
    assert main(command) == 0
    assert "2 trainings, 0 to do" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "results.json").read_text())["cases"] == "validation"


def test_a_schedule_of_one_step_is_trained_by_each_trainer_itself(toy, tmp_path, capsys):
    def dry_run(*trainers, **values):
        steps = [{"classes": list(ORGANS), "hyperparameters": values}]
        schedule = write_schedule(tmp_path, steps, name="-".join(["one", *values, *trainers]))
        status = main(["run", "17", "3d_fullres", "0", str(schedule), "-tr", *trainers, "--dry-run"])
        return status, capsys.readouterr()

    status, said = dry_run(MIB, "nnUNetTrainerFineTune")
    assert (status, said.out.count("nnUNetv2_train")) == (0, 2)
    assert dry_run(MIB, mib_weight=3)[0] == 0
    status, said = dry_run(MIB, pgcd_weight=3)
    assert status == 1
    assert "'pgcd_weight', which nnUNetTrainerMiB does not have" in said.err
