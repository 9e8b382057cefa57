"""The remedy in a message works: it is taken from the message and carried out, and the command goes on."""

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bad_input import World, text
from toy import DATASET, set_environment

from nnunet_cil.cli import main


class LongWorkError(Exception):
    """The command has passed its checks, and starts a process."""


@pytest.fixture(scope="module")
def _built(_toy_root, tmp_path_factory):
    world = World(tmp_path_factory.mktemp("remedies") / "world")
    world.root.mkdir()
    world.build(_toy_root)
    return world


@pytest.fixture
def world(_built, monkeypatch):
    """The world, in which a process that is started ends the command."""

    def begin(*_arguments, **_options):
        raise LongWorkError

    set_environment(monkeypatch, _built.root / "nnunet")
    monkeypatch.chdir(_built.root / "here")
    monkeypatch.setattr("nnunet_cil.host.commands.started", begin)
    yield _built
    _built.restore()


def goes_on(arguments):
    try:
        return main(arguments) == 0
    except LongWorkError:
        return True


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """One kind of remedy.

    Attributes:
        command: the arguments of ``nnunet_cil``, with ``@name`` for a place of the world.
        message: a pattern, whose groups are the remedy.
        carry_out: takes world, arguments and the groups; returns the arguments with which the command is to go on.
        change: what is done to the world before.
    """

    command: tuple[str, ...]
    message: str
    carry_out: Callable[..., list[str]]
    change: Callable[[World], object] | None = None


def edited(file, key, value):
    """Sets an entry of a JSON file."""
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, key: value}))


def replaced(arguments, old, new):
    return [new if word == old else word for word in arguments]


def removed(_world, arguments, path):
    path = Path(path)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return arguments


def corrected_class(world, arguments, wrong, right):
    file = world.place("here/own.json")
    file.write_text(file.read_text().replace(wrong, right))
    return arguments


def renamed(world, arguments, new, old):
    """Gives the class the model's name; then refines it, as the message goes on."""
    file = world.place("new/dataset.json")
    labels = json.loads(file.read_text())["labels"]
    edited(file, "labels", {old if name == new else name: number for name, number in labels.items()})
    return [*arguments, "--refine", old]


def without_pattern(world, arguments, pattern):
    file = world.place("new/dataset.json")
    patterns = json.loads(file.read_text())["labelled_classes"]
    del patterns[pattern]
    edited(file, "labelled_classes", patterns)
    return arguments


def only_best(world):
    file = world.place("checkpoint")
    file.rename(file.with_name("checkpoint_best.pth"))


def copied(_world, arguments, best, final):
    shutil.copyfile(best, Path(best).with_name(final))
    return arguments


def label(name):
    return lambda world: edited(world.place("new/dataset.json"), "labels", {"background": 0, name: 1})


def exported(world):
    assert main(["export", str(world.place("model")), str(world.place("out"))]) == 0


OWN = {"name": "own", "steps": [{"classes": ["livr"]}, {"classes": ["cyst"]}]}
EXTEND = ("extend", "@model", "18")

REMEDIES = {
    "the nearest class": Remedy(
        command=("plan", DATASET, "@here/own.json"),
        change=text("here/own.json", json.dumps(OWN)),
        message=r"names '(\w+)', which is not a label of .* \(did you mean '(\w+)'\?\)",
        carry_out=corrected_class,
    ),
    "the nearest setting": Remedy(
        command=(*EXTEND, "--training", "num_epoch=2"),
        message=r"unknown training setting '(\w+)' \(did you mean '(\w+)'\?\)",
        carry_out=lambda _w, arguments, wrong, right: replaced(arguments, f"{wrong}=2", f"{right}=2"),
    ),
    "the nearest trainer": Remedy(
        command=(*EXTEND, "-tr", "nnUNetTrainerPGDC"),
        message=r"does not find the trainer '(\w+)' \(did you mean '(\w+)'\?\)",
        carry_out=lambda _w, arguments, wrong, right: replaced(arguments, wrong, right),
    ),
    "an option to leave out": Remedy(
        command=(*EXTEND, "-c", "2d"),
        message=r"Leave (-c) out",
        carry_out=lambda _w, arguments, option: arguments[: arguments.index(option)],
    ),
    "a fold to choose": Remedy(
        command=(*EXTEND, "-f", "3"),
        message=r"has no trained fold (3), only (0)\. Choose with -f",
        carry_out=lambda _w, arguments, wrong, right: replaced(arguments, wrong, right),
    ),
    "options to refine": Remedy(
        command=EXTEND,
        change=label("liver"),
        message=r"teach it from these labels with '(--refine [^']*)'",
        carry_out=lambda _w, arguments, options: [*arguments, *shlex.split(options)],
    ),
    "another spelling": Remedy(
        command=EXTEND,
        change=label("Livers"),
        message=r"'(\w+)' of .* looks like another spelling of the model's '(\w+)'\. .* give it this name",
        carry_out=renamed,
    ),
    "another trainer to refine with": Remedy(
        command=(*EXTEND, "--refine", "liver", "-tr", "nnUNetTrainerEWC"),
        change=label("liver"),
        message=r"(nnUNetTrainerEWC) does not learn from .* Use .* or (\w+)",
        carry_out=lambda _w, arguments, wrong, right: replaced(arguments, wrong, right),
    ),
    "another trainer to refine alone with": Remedy(
        command=(*EXTEND, "--refine", "liver", "-tr", "nnUNetTrainerEWF"),
        change=label("liver"),
        message=r"(nnUNetTrainerEWF) would keep nothing .* Use (\w+)",
        carry_out=lambda _w, arguments, wrong, right: replaced(arguments, wrong, right),
    ),
    "a pattern to remove": Remedy(
        command=EXTEND,
        change=lambda world: edited(world.place("new/dataset.json"), "labelled_classes", {"site_*": ["duodenum"]}),
        message=r"no case is called '([^']*)' .* Correct the pattern, or remove it",
        carry_out=without_pattern,
    ),
    "the folder above": Remedy(
        command=("extend", "@model/fold_0", "18"),
        message=r"(\S+) is one fold\. Give the folder above it, (.*)\.$",
        carry_out=lambda _w, arguments, wrong, right: replaced(arguments, wrong, right),
    ),
    "the best checkpoint to copy": Remedy(
        command=("info", "@model"),
        change=only_best,
        message=r"copy (\S+) to (checkpoint_final\.pth) beside it",
        carry_out=copied,
    ),
    "a target to remove": Remedy(
        command=("export", "@model", "@out"),
        change=exported,
        message=r"nnunet_cil: (\S+) is there already\. Remove it",
        carry_out=removed,
    ),
    "names that look like an example": Remedy(
        command=("convert", "generic", "@download", "40", "--names", "@here/names.json"),
        change=text("here/names.json", "{}"),
        message=r"It should look like (\{.*\})\.$",
        carry_out=lambda world, arguments, example: world.place("here/names.json").write_text(example) and arguments,
    ),
    "a conversion to remove": Remedy(
        command=("convert", "generic", "@download", "40", "--names", "@download/names.json"),
        change=text("nnunet/raw/Dataset040_Mine/dataset.json", '{"labels": {"background": 0, "heart": 1}}'),
        message=r"nnunet_cil: (\S+) holds .* from another conversion\. Remove that folder",
        carry_out=removed,
    ),
}


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
