"""Remedies in messages, kind by kind: what is wrong, where the message says a remedy, and how that is carried out."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from bad_input import NEW, PLANS, TRAINER, World, text
from toy import DATASET, ORGANS, SHORT, preprocess, toy_volume
from toy_models import write

from nnunet_cil.content import file_sha256, files_sha256
from nnunet_cil.predicted_from import PredictedFrom


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


def ran_all(world, arguments, commands):
    """Runs the commands of several lines, which preprocess the new data set with the plans that were moved to it."""
    pre = world.place(f"nnunet/preprocessed/{NEW}")
    (plans,) = pre.glob("nnUNetPlansFrom*.json")

    def preprocessed():
        (pre / "dataset_fingerprint.json").write_text("{}")
        if not [*pre.glob("*/*.pkl")]:
            preprocess(pre, plans.stem)

    world.preprocessed = preprocessed
    for command in commands.strip().splitlines():
        world.run(command.strip())
    return arguments


def validated(world, arguments, command):
    """Validates the model that the message names, and the other one."""
    world.run(command)
    world.run(command.replace("_step0", "_step1"))
    return arguments


def other_checkpoint(world):
    file = world.place("first/fold_0/checkpoint_final.pth")
    torch.save({**torch.load(file, weights_only=False), "trained": "again"}, file)


def set_variable(world, arguments, variable, command):
    """Sets a variable to what a command prints, as a shell does."""
    world.set(variable, world.printed(command).strip())
    return arguments


def unset(world):
    world.set("nnUNet_extTrainer", None)


def moved(old, new):
    return lambda world: world.place(old).rename(world.place(new))


def interrupted(world):
    """Leaves the checkpoint from which a training goes on."""
    moved("checkpoint", "model/fold_0/checkpoint_latest.pth")(world)


def predicted_and_changed(world):
    """Leaves a prediction of the first step's model that is not the one which was made."""
    evaluation = world.place(f"nnunet/results/{DATASET}/evaluation/nnUNetPlans_toy__3d_fullres")
    folder = evaluation / "predictions" / f"{TRAINER}_step0_fold0"
    (images,) = world.place("raw/imagesTs").iterdir()
    source = PredictedFrom(
        checkpoint=file_sha256(world.place("first/fold_0/checkpoint_final.pth")), images=files_sha256([images])
    )
    folder.mkdir(parents=True)
    for seed in (60, 61):
        write(toy_volume(seed)[1] % 3, folder / "t0.nii.gz")
        if seed == 60:
            source.write(folder, [folder / "t0.nii.gz"])


def data_set_renamed(world):
    """Renames the data set everywhere, as a user would; the plans of its steps keep the old name."""
    for place in ("raw", "pre"):
        world.place(place).rename(world.place(place).with_name("Dataset017_Abdomen"))
    shutil.rmtree(world.place(f"nnunet/results/{DATASET}"))


def renamed_in_plans(world, arguments, file, entry):
    file = Path(file)
    file.write_text(json.dumps({**json.loads(file.read_text()), **json.loads(f"{{{entry}}}")}))
    return arguments


def another_name(world, arguments):
    edited(world.place("schedule"), "name", "other")
    return arguments


def edited_schedule(world):
    """Learns the organs of the trained models in another order."""
    edited(world.place("schedule"), "steps", [{"classes": ["spleen", "liver"]}, {"classes": list(ORGANS[2:])}])


TWO = {"name": "two", "steps": [{"classes": ["liver"]}, {"classes": ["duodenum"], "dataset": NEW}], "training": SHORT}


def two_data_sets(new, *first):
    """Writes a schedule over two data sets, the second of which has one class."""
    steps = [{"classes": list(first or ("liver",))}, {"classes": [new], "dataset": NEW}]

    def change(world):
        label(new)(world)
        text("here/two.json", json.dumps({**TWO, "steps": steps}))(world)

    return change


def without_the_class(world, arguments, name):
    """Takes a class out of the schedule, with its step where no other class is in it."""
    file = world.place("here/two.json")
    steps = json.loads(file.read_text())["steps"]
    left = [{**step, "classes": [c for c in step["classes"] if c != name]} for step in steps]
    edited(file, "steps", [step for step in left if step["classes"]])
    return arguments


def preprocessed_before(change):
    """Returns a change after which the new data set has a dataset.json in nnUNet_preprocessed, too."""

    def changed(world):
        change(world)
        copy = world.place(f"nnunet/preprocessed/{NEW}/dataset.json")
        copy.parent.mkdir()
        shutil.copyfile(world.place(NEW_JSON), copy)

    return changed


def of_its_own(world, arguments, *_):
    """Gives a class another name in the schedule and in dataset.json."""
    two_data_sets("bile duct", "liver", "spleen")(world)
    shutil.copyfile(world.place(NEW_JSON), world.place(f"nnunet/preprocessed/{NEW}/dataset.json"))
    return arguments


TRAINING = r"(nnUNetv2_train [^']*)"
PLAN_TWO, RUN_TWO = ("plan", "17", "@here/two.json"), ("run", *MODELS[:3], "@here/two.json", *MODELS[4:])

COMMANDS = {
    "a training to run": Remedy(
        command=EVALUATE, change=gone("model"), message=rf"is not trained .* Run '{TRAINING}'", carry_out=ran
    ),
    "a training to go on with": Remedy(
        command=EVALUATE,
        change=interrupted,
        message=rf"is not trained to its end .* Go on with '{TRAINING}'",
        carry_out=ran,
    ),
    "a checkpoint to remove, and a training": Remedy(
        command=EVALUATE,
        change=text("checkpoint", b"cut off"),
        message=rf"(\S+checkpoint_final\.pth) is truncated .* remove it and train .* with '{TRAINING}'",
        carry_out=removed_and_ran,
    ),
    "a validation to run": Remedy(
        command=(*EVALUATE, "--cases", "validation"),
        message=rf"does not hold the predictions of the final checkpoint\. Run '{TRAINING}'",
        carry_out=validated,
    ),
    "a model to train to its end": Remedy(
        command=("info", "@model"),
        change=interrupted,
        message=rf"has no checkpoint_final\.pth, .* Train it to its end \('{TRAINING}'\)",
        carry_out=lambda world, arguments, command: ran(world, arguments, f"{command} -device cpu"),
    ),
    "a model to remove, and to train again": Remedy(
        command=RUN,
        change=other_checkpoint,
        message=r"has changed since step 1 was trained .* or remove (\S+) and train that step again",
        carry_out=removed,
    ),
    "planning and preprocessing to run": Remedy(
        command=PLAN, change=gone("pre"), message=r"Run '(nnUNetv2_plan_and_preprocess [^']*)' first", carry_out=ran
    ),
    "planning and preprocessing to run for the steps": Remedy(
        command=EVALUATE, change=gone("pre"), message=r"Run '(nnUNetv2_plan_and_preprocess [^']*)' first", carry_out=ran
    ),
    "a copied dataset.json for the steps": Remedy(
        command=EVALUATE,
        change=gone("pre/dataset.json"),
        message=r"(\S+dataset\.json) is missing\. Copy that of nnUNet_raw/(\S+) there",
        carry_out=lambda world, arguments, to, _: shutil.copyfile(world.place(RAW_JSON), to) and arguments,
    ),
    "preprocessing to run": Remedy(
        command=PLAN,
        change=gone("pre/nnUNetPlans_2d", "pre/nnUNetPlans_3d_fullres"),
        message=r"No configuration .* Run '(nnUNetv2_preprocess [^']*)' first",
        carry_out=ran,
    ),
    "a case to preprocess again": Remedy(
        command=PLAN,
        change=gone("pre/nnUNetPlans_2d/case_2.pkl"),
        message=r"Case 'case_2' .* is incomplete .* Preprocess it again: '(nnUNetv2_preprocess [^']*)'",
        carry_out=ran,
    ),
    "cases to preprocess": Remedy(
        command=PLAN,
        change=gone(*(f"pre/nnUNetPlans_2d/case_2{ending}" for ending in (".pkl", ".b2nd", "_seg.b2nd"))),
        message=r"lacks 1 of 6 cases .* Run '(nnUNetv2_preprocess [^']*)'",
        carry_out=ran,
    ),
    "several commands to run": Remedy(
        command=PLAN_TWO,
        change=two_data_sets("duodenum"),
        message=r"not preprocessed with them yet\. Run .*\n((?:  nnUNetv2_.*\n)+)and then this again",
        carry_out=ran_all,
    ),
    "steps to plan": Remedy(
        command=EVALUATE,
        change=gone(f"pre/{PLANS}1.json"),
        message=r"Run '(nnunet_cil plan [^']*)' first",
        carry_out=ran,
    ),
    "a variable to set": Remedy(
        command=("status", *MODELS[:-3], "nnUNetTrainerX"),
        change=unset,
        message=r"Check its spelling, and (nnUNet_extTrainer) with '(nnunet_cil doctor)'",
        carry_out=lambda world, _arguments, variable, command: (
            set_variable(world, [], variable, "nnunet_cil trainers") or shlex.split(command)[1:]
        ),
    ),
    "a variable to export": Remedy(
        command=EXTEND,
        change=unset,
        message=r"Run 'export (\w+)=\"\$\((nnunet_cil \w+)\)\"'",
        carry_out=set_variable,
    ),
    "what doctor says of a variable": Remedy(
        command=("doctor",), change=unset, message=r"-> export (\w+)=\"\$\((nnunet_cil \w+)\)\"", carry_out=set_variable
    ),
    "what doctor says of a folder": Remedy(
        command=("doctor",),
        change=gone("nnunet/results"),
        message=r"-> mkdir -p (\S+)",
        carry_out=lambda _w, arguments, folder: Path(folder).mkdir(parents=True) or arguments,
    ),
    "a prediction to remove": Remedy(
        command=EVALUATE,
        change=predicted_and_changed,
        message=r"(\S+t0\.nii\.gz) has changed since it was predicted\. Restore it, or remove it",
        carry_out=removed,
    ),
    "help": Remedy(
        command=("plan",), message=r"'(nnunet_cil plan -h)' explains", carry_out=lambda *a: shlex.split(a[2])[1:]
    ),
    "the order of arguments": Remedy(
        command=("run", "17", "3d_fullres", "@schedule", "0", *MODELS[4:]),
        message=r"The order is (DATASET CONFIG FOLD SCHEDULE)",
        carry_out=lambda _w, arguments, _: [*arguments[:3], arguments[4], arguments[3], *arguments[5:]],
    ),
    "a choice": Remedy(
        command=("convert", "genric", *GENERIC[2:]),
        message=r"invalid choice: '(genric)' .*\b(generic)\b",
        carry_out=lambda _w, arguments, wrong, right: replaced(arguments, wrong, right),
    ),
    "a name of its own for another schedule": Remedy(
        command=PLAN,
        change=edited_schedule,
        message=r"Restore the schedule or give it another 'name'",
        carry_out=another_name,
    ),
    "a trained step to remove for another schedule": Remedy(
        command=PLAN,
        change=edited_schedule,
        message=r"would change, but (\S+) was trained with them\. .* or remove that training",
        carry_out=lambda world, arguments, name: (
            [removed(world, [], world.place("model").with_name(n)) for n in (name, name.replace("_step0", "_step1"))]
            and arguments
        ),
    ),
    "another name and a plan for another schedule": Remedy(
        command=EVALUATE,
        change=edited_schedule,
        message=r"is not the one that was planned.* give it another 'name' and run '(nnunet_cil plan .*)'",
        carry_out=lambda world, arguments, command: (
            ["status", *ran(world, another_name(world, arguments), command)[1:-2]]
        ),
    ),
    "the name of a data set that was renamed": Remedy(
        command=("plan", "17", "@schedule"),
        change=data_set_renamed,
        message=r"(\S+nnUNetPlans\.json) says .* or write (\".*\") there",
        carry_out=renamed_in_plans,
    ),
    "steps to plan again for a data set that was renamed": Remedy(
        command=("status", *MODELS[:-2]),
        change=lambda world: [
            data_set_renamed(world),
            edited(
                world.place("nnunet/preprocessed/Dataset017_Abdomen/nnUNetPlans.json"),
                "dataset_name",
                "Dataset017_Abdomen",
            ),
        ],
        message=r"if none of the steps is trained yet, run '(nnunet_cil plan)' again",
        carry_out=lambda world, arguments, command: ran(world, arguments, f"{command} 17 {world.place('schedule')}"),
    ),
    "one organ of two data sets, to learn once": Remedy(
        command=PLAN_TWO,
        change=two_data_sets("Livers", "liver", "spleen"),
        message=r"'liver' of \S+ looks like another spelling of '(Livers)' .* learn it once: take one of the two out",
        carry_out=without_the_class,
    ),
    "another organ of two data sets, to rename": Remedy(
        command=RUN_TWO,
        change=preprocessed_before(two_data_sets("Livers", "liver", "spleen")),
        message=r"'liver' of \S+ looks like another spelling of 'Livers' .* give it a name of its own in the schedule and in",
        carry_out=of_its_own,
    ),
}

PRINTED = {
    "plan": (PLAN, 2),
    "run": ((*RUN, "--dry-run"), 3),
    "extend": (EXTEND, 4),
    "convert": (GENERIC, 1),
}
"""Command -> its arguments, and how many commands it prints."""

REMEDIES = {**OPTIONS, **FILES, **COMMANDS}
