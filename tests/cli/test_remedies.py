"""The remedy in a message works: it is taken from the message and carried out, and the command goes on.

What commands print to be run next can be run, too: of nnU-Net's commands, up to where the work begins.
"""

import re
import shlex
import sys
from importlib.metadata import entry_points
from unittest.mock import MagicMock

import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from remedies import PRINTED, REMEDIES
from toy import preprocess, set_environment

from nnunet_cil.cli import main

PREPROCESSING = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"


class LongWorkError(Exception):
    """The command has passed its checks, and starts a process."""


@pytest.fixture
def world(built_world, monkeypatch, capsys):
    """The world, in which a process that is started ends the command, as scoring does.

    ``run`` runs a printed command as a shell splits it, in this process. Of nnU-Net's commands that make long work, it does not
    do this; what they would make is restored.
    """

    def begin(*_arguments, **_options):
        raise LongWorkError

    def run(command):
        words = shlex.split(command)
        monkeypatch.setattr(sys, "argv", words)
        if words[0] == "nnunet_cil":
            assert goes_on(words[1:])
        else:
            (entry,) = entry_points(group="console_scripts", name=words[0])
            entry.load()()

    def printed(command):
        capsys.readouterr()
        run(command)
        return capsys.readouterr().out

    def set_variable(name, value):
        monkeypatch.delenv(name, raising=False) if value is None else monkeypatch.setenv(name, value)

    def preprocessing(datasets, *_arguments, **_options):
        assert all(map(maybe_convert_to_dataset_name, datasets))
        built_world.preprocessed()

    def training(dataset, configuration, fold, trainer, plans, *options, device):
        *_, goes_on, validates, _checkpoints, _best = options
        fold = fold if fold == "all" else int(fold)
        made = get_trainer_from_args(dataset, configuration, fold, trainer, plans, goes_on, torch.device("cpu"))
        maybe_load_checkpoint(made, goes_on, validates)
        made.perform_actual_validation() if validates else built_world.trained()

    set_environment(monkeypatch, built_world.root / "nnunet")
    monkeypatch.chdir(built_world.root / "here")
    monkeypatch.setattr("nnunet_cil.host.commands.started", begin)
    monkeypatch.setattr("nnunet_cil.workflows.evaluate.evaluate.score", begin)
    for name in ("extract_fingerprints", "plan_experiments", "preprocess"):
        monkeypatch.setattr(f"{PREPROCESSING}.{name}", preprocessing)
    monkeypatch.setattr("nnunetv2.run.run_training.run_training", training)
    monkeypatch.setattr("nnunetv2.inference.predict_from_raw_data.nnUNetPredictor", MagicMock())
    for name in ("set_num_threads", "set_num_interop_threads"):
        monkeypatch.setattr(torch, name, lambda _number: None)
    built_world.run, built_world.printed, built_world.set = run, printed, set_variable
    built_world.preprocessed = built_world.trained = built_world.restore
    yield built_world
    built_world.restore()


def goes_on(arguments):
    try:
        return main(arguments) == 0
    except SystemExit as error:  # of -h, too
        return error.code == 0
    except LongWorkError:
        return True


def in_the_world(world, words):
    return [str(world.place(word[1:])) if word.startswith("@") else word for word in words]


@pytest.mark.parametrize("kind", REMEDIES)
def test_the_remedy_works(world, capsys, kind):
    remedy = REMEDIES[kind]
    arguments = in_the_world(world, remedy.command)
    if remedy.change is not None:
        remedy.change(world)
    capsys.readouterr()
    assert not goes_on(arguments)
    said = capsys.readouterr()
    message = said.err.strip() or said.out
    found = re.search(remedy.message, message, re.M)
    assert found, message
    again = remedy.carry_out(world, arguments, *found.groups())
    assert goes_on(again), capsys.readouterr().err


@pytest.mark.parametrize("command", PRINTED)
def test_the_commands_that_are_printed_can_be_run(world, capsys, monkeypatch, command):
    arguments, number = PRINTED[command]
    new = world.place("nnunet/preprocessed/Dataset018_New")
    monkeypatch.setattr(
        "nnunet_cil.host.preprocess.call",
        lambda called, words, *_: preprocess(new, words[-3]) if called == "nnUNetv2_preprocess" else None,
    )
    world.preprocessed = world.trained = lambda: None
    assert main(in_the_world(world, arguments)) == 0
    lines = [line.strip().removeprefix("Next: ") for line in capsys.readouterr().out.splitlines()]
    commands = [line for line in lines if line.startswith(("nnUNetv2_", "nnunet_cil "))]
    assert len(commands) == number
    for line in commands:
        world.run(line)
