"""Remedies in messages, kind by kind: what is wrong, where the message says a remedy, and how that is carried out."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bad_input import PLANS, TRAINER, World, text
from toy import DATASET, ORGANS, toy_volume
from toy_models import write


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
    from nnunet_cil.cli import main

    assert main(["export", str(world.place("model")), str(world.place("out"))]) == 0


def pasted(place):
    """Returns what puts the entry that a message says into a JSON file."""

    def carry_out(world, arguments, entry):
        file = world.place(place)
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, **json.loads(f"{{{entry}}}")}))
        return arguments

    return carry_out


def restored(world, arguments, *_):
    """Restores what the message names from a copy."""
    world.restore()
    return arguments


def another(old, new):
    """Returns what gives another value."""
    return lambda _world, arguments, *_: replaced(arguments, old, new)


def added(*options):
    """Returns what adds options."""
    return lambda _world, arguments, *_: [*arguments, *options]


def without(*options):
    """Returns what leaves options out."""
    return lambda _world, arguments, *_: [word for word in arguments if word not in options]


def ran(world, arguments, command):
    """Runs the command that the message says."""
    world.run(command)
    return arguments


def removed_and_ran(world, arguments, path, command):
    """Removes what the message says, then runs its command."""
    return ran(world, removed(world, arguments, path), command)


OWN = {"name": "own", "steps": [{"classes": ["livr"]}, {"classes": ["cyst"]}]}
EXTEND = ("extend", "@model", "18")
MODELS = ("17", "3d_fullres", "0", "@schedule", "-tr", TRAINER, "-device", "cpu")
EVALUATE, RUN = ("evaluate", *MODELS), ("run", *MODELS)
PLAN = ("plan", "17", "@schedule")
GENERIC = ("convert", "generic", "@download", "40", "--names", "@download/names.json")
NEW_JSON, RAW_JSON = "new/dataset.json", "raw/dataset.json"


def in_json(place, **values):
    return lambda world: [edited(world.place(place), key, value) for key, value in values.items()]


def lacking(place, key):
    def change(world):
        file = world.place(place)
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != key}))

    return change


def gone(*places):
    return lambda world: [removed(world, [], world.place(place)) for place in places]


OPTIONS = {
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

FILES = {
    "labels of version 1": Remedy(
        command=("inspect", "17"),
        change=in_json(RAW_JSON, labels={"0": "background", **{str(i): o for i, o in enumerate(ORGANS, 1)}}),
        message=r"Write the names first: (.*)$",
        carry_out=pasted(RAW_JSON),
    ),
    "channels the wrong way round": Remedy(
        command=("inspect", "17"),
        change=in_json(RAW_JSON, channel_names={"MR": 0}),
        message=r"Write the numbers first: (.*)$",
        carry_out=pasted(RAW_JSON),
    ),
    "an entry to add": Remedy(
        command=("inspect", "17"),
        change=lacking(RAW_JSON, "file_ending"),
        message=r"lacks 'file_ending', .* Add it: (.*)\.$",
        carry_out=pasted(RAW_JSON),
    ),
    "another modality to remove": Remedy(
        command=("inspect", "17"),
        change=in_json(RAW_JSON, modality={"0": "CT"}),
        message=r"Remove '(modality)'\.$",
        carry_out=lambda world, arguments, key: lacking(RAW_JSON, key)(world) or arguments,
    ),
    "a name of a label to write": Remedy(
        command=EXTEND,
        change=in_json(NEW_JSON, labels={"background": 0, "  ": 1}),
        message=r"the name '(  )' of label 1 is empty .* Write another",
        carry_out=lambda world, arguments, _: label("duodenum")(world) or arguments,
    ),
    "one of two labels of a number to remove": Remedy(
        command=EXTEND,
        change=in_json(NEW_JSON, labels={"background": 0, "duodenum": 1, "stomach": 1}),
        message=r"gives 'duodenum' and '(stomach)' the number 1\. Give each its own, or remove one",
        carry_out=lambda world, arguments, _: label("duodenum")(world) or arguments,
    ),
    "labels to renumber": Remedy(
        command=EXTEND,
        change=in_json(NEW_JSON, labels={"background": 0, "duodenum": 2}),
        message=r"has no label (1), but 'duodenum' has number 2; .* Renumber the labels",
        carry_out=lambda world, arguments, _: label("duodenum")(world) or arguments,
    ),
    "a reader to remove": Remedy(
        command=EXTEND,
        change=in_json(NEW_JSON, overwrite_image_reader_writer=3),
        message=r"'(overwrite_image_reader_writer)' is 3.* Remove it, and nnU-Net chooses",
        carry_out=lambda world, arguments, key: lacking(NEW_JSON, key)(world) or arguments,
    ),
    "a file to restore": Remedy(
        command=("inspect", "17"),
        change=text("raw/labelsTr/case_1.nii.gz", b"just text"),
        message=r"(case_1\.nii\.gz) is cut off or damaged\. Restore it",
        carry_out=restored,
    ),
    "a dataset.json to restore": Remedy(
        command=("inspect", "17"),
        change=gone(RAW_JSON),
        message=r"(dataset\.json) is missing\. Restore it",
        carry_out=restored,
    ),
    "a dataset.json to copy": Remedy(
        command=PLAN,
        change=text("pre/dataset.json", "null"),
        message=r"(\S+dataset\.json) holds null, .* Copy that of nnUNet_raw/(\S+) there",
        carry_out=lambda world, arguments, to, _: shutil.copyfile(world.place(RAW_JSON), to) and arguments,
    ),
    "a case to complete": Remedy(
        command=EXTEND,
        change=gone("new/labelsTr/new_3.nii.gz"),
        message=r"Case 'new_3' of \S+ lacks (\S+)\. Add it, or remove the case",
        carry_out=restored,
    ),
    "an image to remove, as a channel too many": Remedy(
        command=EXTEND,
        change=lambda world: shutil.copyfile(
            world.place("new/imagesTr/new_1_0000.nii.gz"), world.place("new/imagesTr/new_1_0001.nii.gz")
        ),
        message=r"has (\S+new_1_0001\.nii\.gz), but .* Remove the file, or add the channel",
        carry_out=removed,
    ),
    "an image to rename": Remedy(
        command=EXTEND,
        change=lambda world: world.place("new/imagesTr/new_1_0000.nii.gz").rename(
            world.place("new/imagesTr/new_1.nii.gz")
        ),
        message=r"The name of (\S+) does not end .* Rename it, for a first channel to (\S+), or remove it",
        carry_out=lambda _w, arguments, old, new: Path(old).rename(Path(old).with_name(Path(new).name)) and arguments,
    ),
    "a folder of images to make": Remedy(
        command=EXTEND,
        change=gone("new/imagesTr"),
        message=r"(\S+imagesTr) is missing: .* Make it, and put them there",
        carry_out=restored,
    ),
    "a reference label to add": Remedy(
        command=EVALUATE,
        change=lambda world: shutil.copyfile(
            world.place("raw/imagesTs/t0_0000.nii.gz"), world.place("raw/imagesTs/t1_0000.nii.gz")
        ),
        message=r"Case 't1' has no reference labels: (\S+) is missing\. Add it, or move",
        carry_out=lambda world, arguments, to: shutil.copyfile(world.place("raw/labelsTs/t0.nii.gz"), to) and arguments,
    ),
    "images without labels to move away": Remedy(
        command=EVALUATE,
        change=lambda world: shutil.copyfile(
            world.place("raw/imagesTs/t0_0000.nii.gz"), world.place("raw/imagesTs/t1_0000.nii.gz")
        ),
        message=r"Case '(t1)' .* or move images that have none out of (\S+)\.$",
        carry_out=lambda _w, arguments, case, folder: removed(_w, arguments, f"{folder}/{case}_0000.nii.gz"),
    ),
    "a label of a test case to correct": Remedy(
        command=EVALUATE,
        change=lambda world: write(toy_volume(60)[1] + 9, world.place("raw/labelsTs/t0.nii.gz")),
        message=r"(\S+t0\.nii\.gz) holds the label 9, .* Correct the label file",
        carry_out=restored,
    ),
    "a split to remove": Remedy(
        command=EXTEND,
        change=text("nnunet/preprocessed/Dataset018_New/splits_final.json", "{}"),
        message=r"(\S+splits_final\.json) holds an object, .* Correct it, or remove it: nnU-Net then makes",
        carry_out=removed,
    ),
    "a split of one's own": Remedy(
        command=EXTEND,
        change=gone("new/imagesTr/new_4_0000.nii.gz", "new/labelsTr/new_4.nii.gz"),
        message=r"has 4 training cases, .* write a split of your own to (\S+),",
        carry_out=lambda world, arguments, file: (
            text(str(Path(file).relative_to(world.root)), '[{"train": ["new_0", "new_1"], "val": ["new_2", "new_3"]}]')(
                world
            )
            or arguments
        ),
    ),
    "steps' plans to remove, and a command": Remedy(
        command=("status", *MODELS[:-2]),
        change=text(f"pre/{PLANS}1.json", "null"),
        message=r"(\S+step1\.json) holds null, .* Remove it, and run '(.*)'",
        carry_out=removed_and_ran,
    ),
}

COMMANDS = {}

REMEDIES = {**OPTIONS, **FILES, **COMMANDS}
