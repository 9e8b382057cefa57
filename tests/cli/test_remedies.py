"""The remedy in a message works: it is taken from the message and carried out, and the command goes on."""

import re
import shlex
import sys
from importlib.metadata import entry_points

import pytest
from remedies import REMEDIES
from toy import set_environment

from nnunet_cil.cli import main

PREPROCESSING = "nnunetv2.experiment_planning.plan_and_preprocess_entrypoints"


class LongWorkError(Exception):
    """The command has passed its checks, and starts a process."""


@pytest.fixture
def world(built_world, threads, monkeypatch):
    """The world, in which a process that is started ends the command.

    ``run`` runs a printed command as a shell splits it, in this process. Of nnU-Net's planning and preprocessing it runs the
    entry only: what they would make is restored.
    """

    def begin(*_arguments, **_options):
        raise LongWorkError

    def run(command):
        words = shlex.split(command)
        monkeypatch.setattr(sys, "argv", words)
        if words[0] == "nnunet_cil":
            assert main(words[1:]) == 0
        else:
            (entry,) = entry_points(group="console_scripts", name=words[0])
            entry.load()()

    set_environment(monkeypatch, built_world.root / "nnunet")
    monkeypatch.chdir(built_world.root / "here")
    monkeypatch.setattr("nnunet_cil.host.commands.started", begin)
    for name in ("extract_fingerprints", "plan_experiments", "preprocess"):
        monkeypatch.setattr(f"{PREPROCESSING}.{name}", lambda *_a, **_o: built_world.restore())
    built_world.run = run
    yield built_world
    built_world.restore()


def goes_on(arguments):
    try:
        return main(arguments) == 0
    except SystemExit:
        return False
    except LongWorkError:
        return True


@pytest.mark.parametrize("kind", REMEDIES)
def test_the_remedy_works(world, capsys, kind):
    remedy = REMEDIES[kind]
    arguments = [str(world.place(word[1:])) if word.startswith("@") else word for word in remedy.command]
    if remedy.change is not None:
        remedy.change(world)
    capsys.readouterr()
    assert not goes_on(arguments)
    message = capsys.readouterr().err.strip()
    found = re.search(remedy.message, message, re.M)
    assert found, message
    again = remedy.carry_out(world, arguments, *found.groups())
    assert goes_on(again), capsys.readouterr().err
