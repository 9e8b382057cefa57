"""Trainings that have begun keep their hyper-parameters, whatever becomes of the defaults, and stay usable."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from toy import ORGANS, SHORT, checkpoint, make_trainer, plan_toy, seed_epochs, train, write_schedule

from nnunet_cil.cli import main
from nnunet_cil.errors import CILError
from nnunet_cil.training.begun import EARLY_SINCE, take_recorded
from nnunet_cil.training.hyperparameters import choice, number, set_values, settings, taken
from nnunet_cil.training.methods.ewc import nnUNetTrainerEWC
from nnunet_cil.training.methods.mib import nnUNetTrainerMiB
from nnunet_cil.training.methods.pgcd import nnUNetTrainerDAPDOnly, nnUNetTrainerPGCD, nnUNetTrainerPGCDOnly
from nnunet_cil.training.methods.plop import nnUNetTrainerPLOP
from nnunet_cil.training.methods.pseudo_label import nnUNetTrainerPseudoLabel

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
        if kind == "gone":
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
    with pytest.raises(CILError, match=r"Step 0 keeps \"hyperparameters\": {}, not {'mib_weight': 4}; other steps"):
        plan_toy(tmp_path, first_trainer=MIB, training=EVERY, hyperparameters={"mib_weight": 4})
    with pytest.raises(CILError, match=r"or remove that training\.$"):
        plan_toy(tmp_path, first_trainer=MIB)
    steps = [{"classes": list(ORGANS[:2])}, {"classes": list(ORGANS[2:]), "hyperparameters": {"mib_weight": 4}}]
    assert plan_toy(tmp_path, steps, first_trainer=MIB, training=EVERY) == names
    assert write_schedule(tmp_path, steps).is_file()


EARLIER, LATER = "2026-11-27T12:00:00+00:00", "2026-11-29T12:00:00+00:00"
assert EARLIER < EARLY_SINCE < LATER


def without_record(trainer, *, version=None, date=LATER):
    """Makes the checkpoint one of a version that recorded no hyper-parameters; an early development version has no number."""
    file = Path(trainer.output_folder) / "checkpoint_latest.pth"
    content = torch.load(file, weights_only=False)
    own = content["cil"]["lineage"][-1]
    del own["hyperparameters"], content["cil"]["schema_version"]
    own["date"] = date
    content["cil"] |= {} if version is None else {"schema_version": version}
    torch.save(content, file)


def bare(kind, planned=None, previous="a model"):
    """Returns a trainer with hyper-parameters alone."""
    trainer = object.__new__(kind)
    trainer.step_plan = SimpleNamespace(hyperparameters=planned or {}, previous=previous)
    trainer.output_folder, trainer.print_to_log_file = "FOLDER", lambda _text: None
    set_values(trainer, taken(kind, trainer.step_plan.hyperparameters))
    return trainer


def state_of(recorded, *, version=0, date=LATER):
    return SimpleNamespace(schema_version=version, lineage=[SimpleNamespace(hyperparameters=recorded, date=date)])


class Quick(nnUNetTrainerEWC):
    """A trainer of one's own."""

    ewc_weight = 20.0


class Fixed(nnUNetTrainerPGCD):
    """One that sets what has become another default."""

    pgcd_weight = 4.0


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (nnUNetTrainerMiB, {"new_class_start": "balanced", "mib_weight": 10}),
        (Quick, {"new_class_start": "balanced", "ewc_weight": 20}),
        (Fixed, {"new_class_start": "apart", "pgcd_weight": 4, "pgcd_weighting": "prototypes", "pgcd_merge": True}),
        (nnUNetTrainerPGCDOnly, {"pgcd_weight": 30, "dapd_weight": 0, "old_dice_weight": 0.25}),
        (nnUNetTrainerDAPDOnly, {"pgcd_weight": 0, "dapd_weight": 0.1, "new_class_start": "apart"}),
        (nnUNetTrainerPseudoLabel, {"drop_strays": True, "new_class_start": "balanced"}),
    ],
)
@pytest.mark.parametrize(("version", "date"), [(None, LATER), (None, EARLIER), (1, LATER)])
def test_early_trainings_begin_with_the_defaults_of_their_time_where_these_are_known(kind, expected, version, date):
    """Where they are not known, only trainers go on whose defaults have never changed."""
    held = {name: getattr(kind, name) for name in expected}
    trainer, state = bare(kind), state_of({}, version=version or 0, date=date)
    refusal = take_recorded(trainer, state)
    if kind is nnUNetTrainerMiB or (version is None and date == LATER):
        assert refusal is None
        assert {name: getattr(trainer, name) for name in expected} == expected
    else:
        assert f"today's {kind.__name__} cannot go on" in str(refusal)
        assert {name: getattr(trainer, name) for name in expected} == held
        assert take_recorded(bare(kind, previous=None), state) is None  # step 0 is the same for all


@pytest.mark.parametrize(
    ("planned", "expected"),
    [
        ({"new_class_noise": 0, "drop_strays": 0}, {"new_class_start": "balanced", "drop_strays": False}),
        (
            {"new_class_noise": 0.5, "pgcd_weight": 7},
            {"new_class_start": "apart", "new_class_noise": 0.5, "pgcd_weight": 7},
        ),
        ({"new_class_noise": 1, "min_voxels": 3}, {"new_class_start": "apart", "min_voxels": 3, "pgcd_weight": 30}),
    ],
)
def test_what_the_plans_of_an_early_training_set_wins_over_its_defaults(planned, expected):
    trainer = bare(nnUNetTrainerPGCD, planned)
    assert take_recorded(trainer, state_of({})) is None
    assert {name: getattr(trainer, name) for name in expected} == expected


@pytest.mark.parametrize(("name", "version"), [("nnUNetTrainerEWC", 1), ("nnUNetTrainerPLOP", None)])
def test_a_training_whose_beginning_is_not_known_is_refused_and_its_remedy_works(toy, tmp_path, name, version):
    names = plan_toy(tmp_path, first_trainer=name, training=EVERY)
    train(name, names[0])
    begun = interrupted(name, names[1])
    without_record(begun, version=version)
    trainer = resumed(name, names[1])  # which may validate
    with pytest.raises(
        CILError, match=r"in (\S+) began with an early .* Remove that folder and train the step again\."
    ) as error:
        trainer.run_training()
    shutil.rmtree(re.search(r"in (\S+) began", str(error.value))[1])
    train(name, names[1])


def test_plops_record_without_the_weight_of_the_logits_is_of_another_loss():
    trainer = bare(nnUNetTrainerPLOP)
    recorded = vars(settings(trainer))
    assert take_recorded(trainer, state_of(recorded, version=1)) is None
    del recorded["pod_logits_weight"]
    assert "Remove that folder" in str(take_recorded(trainer, state_of(recorded, version=1)))
    assert take_recorded(bare(nnUNetTrainerPLOP, previous=None), state_of(recorded, version=1)) is None


@pytest.mark.parametrize(
    ("name", "value"), [("boundary_weight", 5.0), ("pgcd_weighting", "of_the_past"), ("old_dice_weight", True)]
)
def test_a_default_that_is_not_to_be_had_any_more_is_not_replaced_by_todays(name, value):
    """The schedule need not set it: the record has it."""
    recorded = {**vars(settings(bare(nnUNetTrainerPGCD))), name: value}
    refusal = str(take_recorded(bare(nnUNetTrainerPGCD), state_of(recorded, version=1)))
    assert f"began with {name} {value!r}, which nnUNetTrainerPGCD does not take any more. Remove that folder" in refusal
    assert "schedule" not in refusal
    assert take_recorded(bare(nnUNetTrainerPGCD, previous=None), state_of(recorded, version=1)) is None


def test_what_came_after_the_beginning_is_told():
    trainer, said = bare(nnUNetTrainerPGCD), []
    trainer.print_to_log_file = said.append
    recorded = vars(settings(trainer))
    assert take_recorded(trainer, state_of(dict(recorded), version=1)) is None
    assert not said
    del recorded["old_dice_weight"]
    assert take_recorded(trainer, state_of(recorded, version=1)) is None
    assert said == [
        "The training goes on with what came after its beginning, at today's defaults: old_dice_weight 0.25"
    ]


def test_a_step_that_began_before_classes_could_be_absent_goes_on_without():
    recorded = {n: v for n, v in vars(settings(bare(nnUNetTrainerPGCD))).items() if n != "absent_size"}
    trainer = bare(nnUNetTrainerPGCD)
    assert take_recorded(trainer, state_of(dict(recorded), version=1)) is None
    assert trainer.absent_size == 0
    again = bare(nnUNetTrainerPGCD)
    assert take_recorded(again, state_of(vars(settings(trainer)), version=1)) is None
    assert again.absent_size == 0
    first = bare(nnUNetTrainerPGCD, previous=None)
    assert take_recorded(first, state_of(dict(recorded), version=1)) is None
    assert first.absent_size == nnUNetTrainerPGCD.absent_size
