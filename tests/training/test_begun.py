"""Trainings that have begun keep their hyper-parameters, whatever becomes of the defaults, and stay usable."""

import json
import re
from pathlib import Path

import pytest
from toy import ORGANS, SHORT, checkpoint, make_trainer, plan_toy, seed_epochs, train, write_schedule

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.training.hyperparameters import choice, number
from nnunet_cil.training.methods.mib import nnUNetTrainerMiB
from nnunet_cil.training.methods.pgcd import nnUNetTrainerPGCD

PGCD, MIB = "nnUNetTrainerPGCD", "nnUNetTrainerMiB"
STEPS = [ORGANS[:2], ORGANS[2:3], ORGANS[3:]]
EVERY = {**SHORT, "save_every": 1}


def interrupted(name, plans_name):
    """Trains for one epoch of two; returns the trainer."""
    trainer = make_trainer(name, plans_name)
    seed_epochs(trainer)
    end = trainer.on_epoch_end

    def stop():
        end()
        raise KeyboardInterrupt

    trainer.on_epoch_end = stop
    with pytest.raises(KeyboardInterrupt):
        trainer.run_training()
    return trainer


def resumed(name, plans_name):
    """Returns the trainer as nnUNetv2_train --c makes it."""
    trainer = make_trainer(name, plans_name, resume=True)
    trainer.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    return trainer


def told(capsys, *command):
    """Runs a command that fails; returns what it says."""
    assert main(list(command)) == 1
    return capsys.readouterr().err


def test_models_that_set_what_is_fixed_since_are_gone_on_with_validated_and_continued(
    toy, tmp_path, monkeypatch, capsys
):
    """Does what each message says, and then what was refused."""
    chosen = {"similarity_temperature": 0.2, "dapd_weight": 0.5}
    with monkeypatch.context() as then:
        for name in chosen:
            then.setattr(nnUNetTrainerPGCD, name, number(0.1, "A number."))
        names = plan_toy(tmp_path, STEPS, first_trainer=PGCD, hyperparameters=chosen, training=EVERY)
        train(PGCD, names[0])
        interrupted(PGCD, names[1])
    schedule, command = tmp_path / "toy.json", ["17", "3d_fullres", "0", str(tmp_path / "toy.json"), "-tr", PGCD]

    with pytest.raises(CILError, match=r"which nnUNetTrainerPGCD fixes at .* A step that has begun to train keeps it"):
        make_trainer(PGCD, names[1]).run_training()  # from the beginning
    with pytest.raises(CILError, match="which nnUNetTrainerPGCD fixes at"):
        make_trainer(PGCD, names[1], fold=1)
    trainer = resumed(PGCD, names[1])
    assert {name: getattr(trainer, name) for name in chosen} == chosen
    trainer.run_training()
    assert "goes on with them: dapd_weight 0.5, similarity_temperature 0.2" in Path(trainer.log_file).read_text()
    assert chosen.items() <= checkpoint(trainer)["cil"]["lineage"][1]["hyperparameters"].items()

    finished = make_trainer(PGCD, names[1])
    finished.load_checkpoint(f"{finished.output_folder}/checkpoint_final.pth")
    finished.perform_actual_validation()
    finished.on_train_start()

    said = told(capsys, "run", *command, "--dry-run")
    assert "sets the hyper-parameter 'similarity_temperature', which nnUNetTrainerPGCD fixes at 0.1: " in said
    assert "Remove it. A step that has begun to train keeps it." in said
    with pytest.raises(CILError, match="similarity_temperature"):
        make_trainer(PGCD, names[2])
    content = json.loads(schedule.read_text())
    del content["hyperparameters"]
    for step in (0, 1):
        schedule.write_text(json.dumps(content))
        found = re.search(rf'Step {step} keeps ("hyperparameters": {{.*}});', told(capsys, "plan", "17", str(schedule)))
        content["steps"][step] |= json.loads(f"{{{found[1]}}}")
    schedule.write_text(json.dumps(content))
    assert main(["plan", "17", str(schedule)]) == 0
    capsys.readouterr()
    assert main(["run", *command, "--dry-run"]) == 0
    trainings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("nnUNetv2_train")]
    assert [(names[0] in line, names[2] in line) for line in trainings if "--val" not in line] == [(False, True)]
    assert make_trainer(PGCD, names[2]).similarity_temperature == 0.1


@pytest.mark.parametrize("kind", ["gone", "narrower"])
def test_what_a_training_began_with_is_taken_over_or_refused_with_what_to_do(toy, tmp_path, monkeypatch, kind):
    """A larger range than today's is kept; a setting or a choice that is gone is not to be had."""
    name, value = ("mib_tone", "loud") if kind == "gone" else ("mib_weight", 7.5)
    with monkeypatch.context() as then:
        then.setattr(nnUNetTrainerMiB, "mib_tone", choice("quiet", ("quiet", "loud"), "A choice."), raising=False)
        names = plan_toy(tmp_path, first_trainer=MIB, hyperparameters={name: value}, training=EVERY)
        train(MIB, names[0])
        folder = interrupted(MIB, names[1]).output_folder
    monkeypatch.setattr(nnUNetTrainerMiB, "mib_weight", number(1.0, "A weight.", high=5))
    trainer = resumed(MIB, names[1])
    if kind == "narrower":
        trainer.on_train_start()
        assert trainer.loss.settings.mib_weight == 7.5
        return
    with pytest.raises(CILError, match=f"in {folder} began with mib_tone 'loud', which .* Remove that folder"):
        trainer.on_train_start()


def test_a_step_that_is_planned_anew_below_a_model_is_told_apart_from_one_with_other_settings(toy, tmp_path):
    names = plan_toy(tmp_path, first_trainer=MIB, training=EVERY)
    train(MIB, names[0])
    with pytest.raises(CILError, match=r'Step 0 keeps "hyperparameters": {}; other steps may have others\.$'):
        plan_toy(tmp_path, first_trainer=MIB, training=EVERY, hyperparameters={"mib_weight": 4})
    with pytest.raises(CILError, match=r"or remove that training\.$"):
        plan_toy(tmp_path, first_trainer=MIB)
    steps = [{"classes": list(ORGANS[:2])}, {"classes": list(ORGANS[2:]), "hyperparameters": {"mib_weight": 4}}]
    assert plan_toy(tmp_path, steps, first_trainer=MIB, training=EVERY) == names
    assert write_schedule(tmp_path, steps).is_file()
