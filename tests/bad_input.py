"""Bad inputs of every command, kind by kind: what a user may type, and what may lie in a user's folders.

An input is a command line, with ``@name`` for a place in the toy world (``World.place``), the texts of which one must be in the
message, and perhaps something that is done to the world before.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from downloads import write_generic
from toy import DATASET, ORGANS, make_raw, plan_toy, set_environment, toy_volume, train
from toy_models import write

TRAINER = "nnUNetTrainerFineTune"
PLANS = "nnUNetPlans_toy_step"
NEW = "Dataset018_New"
LONG = "x" * 5000

Change = Callable[["World"], None]


@dataclass(frozen=True, kw_only=True)
class BadInput:
    """One row of the table.

    Attributes:
        command: the arguments of ``nnunet_cil``.
        names: one of these must be in the message, to show that it names the culprit.
        change: what is done to the world before; None if nothing.
        environment: variables that are set for it; None for one that is unset.
    """

    command: tuple[str, ...]
    names: tuple[str, ...]
    change: Change | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict)


class World:
    """A folder with nnU-Net's three folders, a schedule, a trained model of each step, a new data set, and a download."""

    def __init__(self, root: Path) -> None:
        """Keeps the path; ``build`` fills it."""
        self.root = root
        self.template = root.with_name("template")

    def place(self, name: str) -> Path:
        """Returns where something is, by the names of the table."""
        model = f"nnunet/results/{DATASET}/{TRAINER}__{PLANS}1__3d_fullres"
        known = {
            "schedule": "toy.json",
            "raw": f"nnunet/raw/{DATASET}",
            "pre": f"nnunet/preprocessed/{DATASET}",
            "new": f"nnunet/raw/{NEW}",
            "model": model,
            "first": model.replace("step1", "step0"),
            "checkpoint": f"{model}/fold_0/checkpoint_final.pth",
            "world": ".",
        }
        head, _, rest = name.partition("/")
        return (self.root / known.get(head, head) / rest) if rest else self.root / known.get(head, head)

    def build(self, toy_root: Path) -> None:
        """Plans and trains; then keeps a copy, from which ``restore`` restores."""
        shutil.copytree(toy_root, self.root / "nnunet")
        (self.root / "here").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            set_environment(patch, self.root / "nnunet")
            for step in plan_toy(self.root, (ORGANS[:2], ORGANS[2:])):
                train(TRAINER, step)
        for part, array in (("imagesTs/t0_0000", 0), ("labelsTs/t0", 1)):
            file = self.place(f"raw/{part}.nii.gz")
            file.parent.mkdir()
            write(toy_volume(60)[array], file)
        make_raw(self.root / "nnunet", NEW, {"background": 0, "duodenum": 1}, num_cases=5)
        relabel_as_first_organ(self.place("new"))
        write_generic(self.root / "download")
        (self.root / "empty").mkdir()
        (self.root / "text.txt").write_text("just text\n")
        (self.root / "noise.bin").write_bytes(bytes(range(256)) * 40)
        shutil.copytree(self.root, self.template)

        self.unchanged = self.listing()

    def restore(self) -> None:
        """Restores what has changed."""
        now = self.listing()
        for name in sorted(now.keys() - self.unchanged.keys()):
            file = self.root / name
            if file.is_dir():
                shutil.rmtree(file)
            elif file.exists():
                file.unlink()
        for name, status in self.unchanged.items():  # a folder comes before what is in it
            file, was = self.root / name, self.template / name
            if now.get(name, ...) == status:
                continue
            if status is None:
                file.mkdir(exist_ok=True)
                continue
            if file.is_dir():
                shutil.rmtree(file)
            shutil.copy2(was, file)

    def listing(self) -> dict[str, tuple[int, int] | None]:
        """Returns every file with its size and time, and every folder."""
        return dict(_entries(str(self.root), ""))


def _entries(folder: str, before: str) -> Iterator[tuple[str, tuple[int, int] | None]]:
    for entry in os.scandir(folder):
        name = before + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield name, None
            yield from _entries(entry.path, f"{name}/")
        else:
            status = entry.stat(follow_symlinks=False)
            yield name, (status.st_size, status.st_mtime_ns)


def relabel_as_first_organ(raw: Path) -> None:
    """Gives the labels of a raw data set the toy's first organ, under the number 1."""
    for i, file in enumerate(sorted((raw / "labelsTr").iterdir())):
        write(toy_volume(50 + i)[1] == 1, file)


def text(place: str, content: str | bytes) -> Change:
    """Writes a file."""

    def change(world: World) -> None:
        file = world.place(place)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def removed(*places: str) -> Change:
    """Removes files or folders."""

    def change(world: World) -> None:
        for place in places:
            file = world.place(place)
            shutil.rmtree(file) if file.is_dir() else file.unlink()

    return change


def cut(place: str) -> Change:
    """Cuts a file in half."""

    def change(world: World) -> None:
        file = world.place(place)
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2])

    return change


def folder_instead(place: str) -> Change:
    """Puts an empty folder in a file's place."""

    def change(world: World) -> None:
        removed(place)(world)
        world.place(place).mkdir()

    return change


def edited(place: str, **values: Any) -> Change:
    """Changes keys of a JSON file; a key whose value is ``...`` goes."""

    def change(world: World) -> None:
        file = world.place(place)
        content = {**json.loads(file.read_text()), **values}
        file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))

    return change


def both(*changes: Change) -> Change:
    """Makes several changes."""

    def change(world: World) -> None:
        for one in changes:
            one(world)

    return change


def schedule(**values: Any) -> Change:
    """Changes keys of the schedule."""
    return edited("schedule", **values)


def rows(
    command: str, values: Iterable[str], names: str | tuple[str, ...] = "", change: Change | None = None
) -> list[BadInput]:
    """Returns a row for each value, which takes the place of ``%`` in the command; the message names it, or ``names``."""
    found = []
    for value in values:
        options = value.split() if value.startswith("-") else [value]
        words = tuple(w for word in command.split() for w in (options if word == "%" else [word.replace("%", value)]))
        expected = (names,) if isinstance(names, str) and names else names or (value[:40],)
        found.append(BadInput(command=words, names=tuple(expected), change=change))
    return found


def changed(command: str, names: str | tuple[str, ...], *changes: Change) -> list[BadInput]:
    """Returns a row for each change."""
    expected = (names,) if isinstance(names, str) else names
    return [BadInput(command=tuple(command.split()), names=expected, change=change) for change in changes]


MODELS = "17 3d_fullres 0 @schedule -tr nnUNetTrainerFineTune"
RUN, EVALUATE, STATUS = (f"{name} {MODELS}" for name in ("run", "evaluate", "status"))
RUN, EVALUATE = f"{RUN} -device cpu", f"{EVALUATE} -device cpu"
EXTEND = "extend @model 18"
PLAN = "plan 17 @schedule"

NO_JSON_OBJECT = [
    "",
    "{",
    "null",
    "[]",
    '"text"',
    "17",
    '{"name": 1, "name": 2}',
    "[" * 3000,
    "\ufeff{}",
    '{"a": NaN,}',
]
"""Contents of a JSON file that hold no object, or none that can be read."""

NO_FOLDERS = ["@nowhere", "@text.txt", "@text.txt/deeper", "@empty/x", f"@{LONG[:300]}"]


def json_forms(place: str) -> list[Change]:
    """Returns changes of a JSON file after which it is none, or is not there."""
    return [*(text(place, content) for content in NO_JSON_OBJECT), removed(place), cut(place), folder_instead(place)]


def environment_rows() -> list[BadInput]:
    """Returns rows with nnU-Net's variables unset, empty, or leading to no folder."""
    commands = {
        "nnUNet_raw": (
            "inspect 17",
            "schedules new 17 --steps 2,2",
            "extend @model 18",
            "convert generic @download 19 --names @download/names.json",
        ),
        "nnUNet_preprocessed": (PLAN, "extend @model 18"),
        "nnUNet_results": (EVALUATE, STATUS),
    }
    return [
        BadInput(command=tuple(command.split()), names=(variable,), environment={variable: value})
        for variable, of_variable in commands.items()
        for command in of_variable
        for value in (None, "", "@nowhere", "@text.txt")
    ]


KINDS: dict[str, list[BadInput]] = {
    # what is typed
    "an unknown command": rows("%", ["foo", "Run", "evaluat", "nnunet_cil", LONG], "COMMAND"),
    "no command": [BadInput(command=(), names=("COMMAND",))],
    "an unknown option": [
        BadInput(command=(*command.split(), "--frobnicate"), names=("frobnicate",))
        for command in (
            "demo",
            PLAN,
            "schedules",
            RUN,
            STATUS,
            EVALUATE,
            EXTEND,
            "export @model @out",
            "info @model",
            "convert generic @download 19",
            "inspect 17",
            "doctor",
            "trainers",
        )
    ],
    "an argument that is missing": [
        BadInput(command=tuple(command.split()), names=(name,))
        for command, name in (
            ("plan", "DATASET"),
            ("plan 17", "SCHEDULE"),
            ("run 17 3d_fullres 0 @schedule", "-tr"),
            ("evaluate 17 2d 0 -tr nnUNetTrainerPGCD", "SCHEDULE"),
            ("status", "CONFIG"),
            ("extend @model", "DATASET"),
            ("export @model", "OUT"),
            ("info", "MODEL"),
            ("convert generic @download", "DATASET_ID"),
            ("inspect", "DATASET"),
            ("schedules new", "DATASET"),
            ("schedules new 17", "--steps"),
        )
    ],
    "an argument too many": [
        BadInput(command=(*command.split(), "more"), names=("more", "'new'"))
        for command in ("doctor", "trainers", "demo", "inspect 17", "info @model", "schedules toy", "plan 17 @schedule")
    ],
    "a device that nnU-Net does not have": [
        *rows(f"run {MODELS} -device %", ["gpu", "CUDA", "cuda:0", "0"], "-device"),
        *rows(f"evaluate {MODELS} -device %", ["tpu", "cpu,cuda", LONG], "-device"),
        *rows("demo -o @out -device %", ["gpu", "Auto", "none"], "-device"),
    ],
    "GPUs out of range": rows(f"{RUN} -num_gpus %", ["0", "-3", "1.5", "two", "65", "1e1", "9" * 30], "-num_gpus"),
    "GPUs without CUDA": rows(f"{RUN} -num_gpus %", ["2", "3", "8", "17", "64"], "-num_gpus"),
    "a first step out of range": rows(f"{RUN} --start-from %", ["-1", "1.0", "one", "1000", "9" * 30], "--start-from"),
    "a last step out of range": rows(f"{RUN} --stop-after %", ["-1", "0.5", "last", "1e3", "9" * 5000], "--stop-after"),
    "a first step that the schedule does not have": rows(f"{RUN} --start-from %", ["2", "3", "7", "99", "999"]),
    "a last step before the first": [
        *rows(f"{RUN} --start-from 1 --stop-after %", ["0", "00", "000"], "--stop-after"),
        *rows(f"{RUN} --stop-after 0 --start-from %", ["1", "2"], "--start-from"),
    ],
    "a number of jobs out of range": rows(
        f"{RUN} --launcher local --max-jobs %", ["0", "-2", "x", "1000", "2.0"], "--max-jobs"
    ),
    "options of another launcher": [
        *rows(f"{RUN} --max-jobs %", ["1", "2", "7"], "--launcher local"),
        *rows(f"{RUN} --slurm %", ["timeout_min=3", "partition=gpu", "x"], "--launcher slurm"),
        *rows(f"{RUN} --launcher %", ["pbs", "Slurm", "sge"], "--launcher"),
    ],
    "resources of Slurm": [
        *rows(
            f"{RUN} --launcher slurm --slurm %",
            [
                "partition=gpu",
                "timeout_min=long",
                "timeout_min=0",
                "timeout_min=-5",
                "timeout_min",
                "=3",
                "timeout_min=1.5",
            ],
            ("--slurm", "submitit"),
        )
    ],
    "a tolerance out of range": rows(
        f"{EVALUATE} --tolerance %", ["inf", "nan", "-1", "-0.5", "wide", "1e4", "2mm", "1,5"], "--tolerance"
    ),
    "pictures out of range": rows("inspect 17 --pictures %", ["-1", "some", "1.5", "10000", "9" * 40], "--pictures"),
    "a seed out of range": rows(
        "schedules new 17 --steps 2,2 --order random --seed %", ["-1", "x", "0.5", str(2**32), "9" * 40], "--seed"
    ),
    "steps that do not fit the classes": rows(
        "schedules new 17 --steps %",
        ["0,4", "-1,5", "2,2,2", "1", "9" * 300, "1e0,3", "4,", ",", "a,b", "2;2"],
        "--steps",
    ),
    "an order that there is none": rows(
        "schedules new 17 --steps 2,2 --order %", ["alphabet", "SIZE", "0", "labels", "-"], "--order"
    ),
    "an ID out of range": rows(
        "convert generic @download %", ["0", "1000", "-1", "1.5", "Mine", "9" * 20], "DATASET_ID"
    ),
    "an ID that is taken": [
        *rows(
            "convert generic @download % --names @download/names.json", ["17", "017", "18", "018", "0018"], "belongs to"
        ),
    ],
    "a fold that is none": [
        *rows("run 17 3d_fullres % @schedule -tr nnUNetTrainerFineTune", ["-1", "1.5", "x", "0,1", "All"], "FOLD"),
        *rows(
            "evaluate 17 3d_fullres % @schedule -tr nnUNetTrainerFineTune", ["-0", "fold_0", "1000", "9" * 40], "FOLD"
        ),
        *rows("status 17 3d_fullres % @schedule -tr nnUNetTrainerFineTune", ["*", "0-4", "--1"], ("FOLD", "--1")),
    ],
    "a fold that the split does not have": [
        *rows("run 17 3d_fullres % @schedule -tr nnUNetTrainerFineTune -device cpu", ["2", "4", "5", "17", "999"]),
        *rows("evaluate 17 3d_fullres % @schedule -tr nnUNetTrainerFineTune -device cpu", ["2", "6"]),
    ],
    "a fold or trainer that is named twice": [
        *rows("% 17 3d_fullres 0 1 0 @schedule -tr nnUNetTrainerFineTune", ["run", "evaluate", "status"], "fold 0"),
        *rows(f"% {MODELS} nnUNetTrainerMiB nnUNetTrainerMiB", ["run", "evaluate", "status"], "nnUNetTrainerMiB"),
    ],
    "a data set that is not there": [
        *rows(
            "plan % @schedule",
            ["19", "Toy", "Dataset17_Toy", "Dataset016_Toy", "0", "1000", "-17", "\N{SUPERSCRIPT TWO}"],
        ),
        *rows("inspect %", ["19", "Toy", "Dataset099_None", "0", "17.0", "../raw", "\N{ARABIC-INDIC DIGIT THREE}"]),
        *rows("schedules new % --steps 2,2", ["19", "dataset017_toy", "Dataset", "1e1", LONG[:260]]),
        *rows(
            "extend @model %",
            ["19", "New", "Dataset018", "9" * 30, "@new"],
            ("19", "New", "Dataset018", "999", "data set"),
        ),
        *rows("run % 3d_fullres 0 @schedule -tr nnUNetTrainerFineTune", ["19", "Toy", "Dataset017", "0017x", "1234"]),
        *rows("status % 3d_fullres 0 @schedule -tr nnUNetTrainerFineTune", ["19", "017_Toy", "Dataset017_Toyy"]),
    ],
    "a configuration that is not there": [
        *rows(
            "run 17 % 0 @schedule -tr nnUNetTrainerFineTune -device cpu", ["3d_fulres", "3D_FULLRES", "2D", "all", "3d"]
        ),
        *rows("run 17 % 0 @schedule -tr nnUNetTrainerFineTune -device cpu", ["3d_cascade_fullres"], "cascade"),
        *rows("evaluate 17 % 0 @schedule -tr nnUNetTrainerFineTune -device cpu", ["2d", "3d_lowres", "x", "../2d"]),
        *rows("status 17 % 0 @schedule -tr nnUNetTrainerFineTune", ["3d_fulres", "fullres"]),
    ],
    "a schedule that is not there": [
        *rows("plan 17 %", ["toy", "openkbp_221", "missing.json", "Btcv_8-5", LONG[:80]]),
        *rows("schedules %", ["toy", "openkbp", "news", "plans", LONG], ("schedule", "File name too long")),
        *rows(
            "run 17 3d_fullres 0 % -tr nnUNetTrainerFineTune", ["toy", "nowhere/toy.json", "@empty"], ("toy", "empty")
        ),
        *rows("status 17 3d_fullres 0 % -tr nnUNetTrainerFineTune", ["toy.jsn", "@raw"], ("toy.jsn", DATASET)),
    ],
    "a schedule for other classes": [
        *rows("plan 17 %", ["openkbp_2-2-1", "phantom_2-2-1", "btcv_8-5"]),
        *rows("run 17 3d_fullres 0 % -tr nnUNetTrainerFineTune", ["openkbp_2-2-1", "phantom_2-2-1"]),
    ],
    "a trainer that there is none": [
        *rows("run 17 3d_fullres 0 @schedule -tr %", ["nnUNetTrainerPGDC", "PGCD", "nnUNetTrainer", "os.path", "../x"]),
        *rows(
            "evaluate 17 3d_fullres 0 @schedule -tr %",
            ["nnUNetTrainerMib", "MiB", "-"],
            ("nnUNetTrainerMib", "MiB", "-"),
        ),
        *rows("status 17 3d_fullres 0 @schedule -tr %", ["nnUNetTrainerfinetune", "x"]),
        *rows(
            "plan 17 @schedule --step0-trainer %", ["nnUNetTrainerPGDC", "FineTune", "nnUNetTrainerCIL.x", "a b"], "a"
        ),
        *rows("extend @model 18 -tr %", ["nnUNetTrainerPGDC", "nnUNetTrainer", "PGCD", "x__y", "."]),
    ],
    "base plans that are not there": [
        *rows("plan 17 @schedule -p %", ["nnUNetPlan", "nnUNetPlansX", "plans.json", "../nnUNetPlans", LONG[:200]]),
        *rows(f"{RUN} -p %", ["nnUNetPlan", "NNUNETPLANS"]),
        *rows(f"{STATUS} -p %", ["nnUNetPlan", "x"]),
    ],
    "a class that is not there": [
        *rows("extend @model 18 --classes %", ["Duodenum", "duodenun", "liver", "background", "ignore", "1"]),
        *rows("extend @model 18 --classes duodenum %", ["duodenum", "spleen"]),
        *rows("extend @model 18 --refine %", ["livr", "duodenum", "background", "liver", "x"]),
    ],
    "a configuration that the model does not have": rows(
        "extend @model 18 -c %", ["2d", "3d_lowres", "x", "3D", "all"]
    ),
    "a fold that is not trained": rows("extend @model 18 -f %", ["1", "all", "-1", "x", "00", "0,1"]),
    "a name that cannot be part of a folder's": [
        *rows("extend @model 18 --name %", ["a__b", "../x", "a/b", "-a", "ä", "a_", ".", "a:b"], ("name", "a")),
        *rows("extend @model 18 -p %", ["a__b", "../x", "a/b", "a_", "ü"], ("name", "plans", "a")),
    ],
    "a name that is too long": [
        *rows("extend @model 18 --name %", [LONG[:240], LONG], "long"),
        *rows("extend @model 18 -p %", [LONG[:240], LONG], "long"),
        *changed(PLAN, "long", schedule(name=LONG[:240]), schedule(name=LONG)),
        *changed(RUN, "long", schedule(name=LONG[:220])),
    ],
    "settings of the training": rows(
        "extend @model 18 --training %",
        [
            "num_epochs=0",
            "num_epochs=many",
            "num_epochs=1e3",
            "num_epoch=5",
            "initial_lr=-1",
            "initial_lr=NaN",
            "mirror_axes=[3]",
            "mirror_axes=0",
            "mirror_axes=[true]",
            "optimizer=Adam",
            "enable_deep_supervision=1",
            "num_epochs",
            "=5",
        ],
        ("num_epoch", "initial_lr", "mirror_axes", "optimizer", "enable_deep_supervision", "KEY=VALUE"),
    ),
    "hyper-parameters of the trainer": rows(
        "extend @model 18 --hyperparameters %",
        [
            "pgcd_weigth=3",
            "pgcd_weight=-1",
            "pgcd_weight=much",
            "pgcd_weight=[1]",
            "dapd_weight=1",
            "old_dice_weight=-1",
            "distillation_interval=0.5",
            "x",
        ],
        ("pgcd_weig", "dapd_weight", "old_dice_weight", "distillation_interval", "KEY=VALUE"),
    ),
    # models
    "a model folder that is none": [
        *rows("extend % 18", NO_FOLDERS, ("nowhere", "text.txt", "empty", LONG[:100])),
        *rows(
            "export % @out",
            [*NO_FOLDERS, "@raw", "@model/fold_0"],
            ("nowhere", "text.txt", "empty", LONG[:100], "raw", "fold_0"),
        ),
        *rows(
            "info %",
            [*NO_FOLDERS, "@noise.bin", "@raw"],
            ("nowhere", "text.txt", "empty", LONG[:100], "noise.bin", "raw"),
        ),
    ],
    "a checkpoint that is damaged": [
        row
        for command in ("extend @model 18", "export @model @out", "info @model", EVALUATE)
        for row in changed(
            command,
            ("checkpoint_final.pth", "trained", "fold_0"),
            text("checkpoint", b""),
            text("checkpoint", b"just text"),
            text("checkpoint", b"PK\x03\x04" + b"\0" * 200),
            cut("checkpoint"),
            folder_instead("checkpoint"),
        )
    ],
    "a model's plans that are damaged": [
        row
        for command in ("extend @model 18", "export @model @out")
        for row in changed(
            command,
            "plans.json",
            *json_forms("model/plans.json"),
            text("model/plans.json", "{}"),
            edited("model/plans.json", configurations=None),
            edited("model/plans.json", configurations=[]),
            edited("model/plans.json", plans_name=["x"]),
            edited("model/plans.json", dataset_name=17),
        )
    ],
    "a model's dataset.json that is damaged": [
        row
        for command in ("extend @model 18", "export @model @out")
        for row in changed(
            command,
            "dataset.json",
            *json_forms("model/dataset.json"),
            edited("model/dataset.json", labels=...),
            edited("model/dataset.json", labels=["liver"]),
            edited("model/dataset.json", labels=None),
            edited("model/dataset.json", channel_names=3),
        )
    ],
    "a place for an export that takes none": [
        *rows("export @model %", ["@text.txt", "@text.txt/deeper", "/proc/x"], ("text.txt", "/proc")),
        *rows(
            "export @model % --zip",
            ["@there.zip", "@text.txt/deeper", "/proc/x"],
            ("there.zip", "text.txt", "/proc"),
            text("there.zip", "x"),
        ),
        *changed(
            "export @model @out", "there already", text(f"out/{DATASET}/nnUNetTrainer__{PLANS}1__3d_fullres", "x")
        ),
    ],
    # files
    "a schedule that is no JSON object": [
        *changed(PLAN, "toy.json", *json_forms("schedule")),
        *changed("schedules @schedule", "toy.json", *json_forms("schedule")),
    ],
    "a schedule of the wrong form": changed(
        PLAN,
        "toy.json",
        schedule(name=...),
        schedule(name=3),
        schedule(name=["toy"]),
        schedule(name="a/b"),
        schedule(steps=...),
        schedule(steps=None),
        schedule(steps=[]),
        schedule(steps={"0": ["liver"]}),
        schedule(steps=["liver"]),
        schedule(steps=[["liver"]]),
        schedule(steps=[{"classes": "liver"}]),
        schedule(steps=[{"classes": []}]),
        schedule(steps=[{"classes": [1]}]),
        schedule(steps=[{"classes": ["liver", ""]}]),
        schedule(steps=[{"class": ["liver"]}]),
        schedule(steps=[{"classes": ["liver", "liver"]}]),
        schedule(steps=[{"classes": ["background"]}]),
        schedule(step=[]),
        schedule(cases="dealt"),
        schedule(cases=["shared"]),
        schedule(training=[]),
        schedule(hyperparameters="pgcd_weight=3"),
    ),
    "a schedule with settings out of range": changed(
        RUN,
        "toy.json",
        schedule(training={"num_epochs": 0}),
        schedule(training={"num_epochs": "5"}),
        schedule(training={"num_epochs": 10**30}),
        schedule(training={"mirror_axes": [True]}),
        schedule(training={"mirror_axes": "0"}),
        schedule(training={"mirror_axes": [0, 0]}),
        schedule(training={"initial_lr": -0.1}),
        schedule(training={"optimizer": None}),
        schedule(training={"num_epoch": 5}),
        schedule(training={"oversample_foreground_percent": 33}),
    ),
    "hyper-parameters in a schedule": changed(
        RUN,
        ("pgcd_weight", "old_dice_weight", "new_class_noise", "x"),
        schedule(hyperparameters={"pgcd_weight": 3}),
        schedule(hyperparameters={"old_dice_weight": -1}),
        schedule(hyperparameters={"old_dice_weight": "1"}),
        schedule(hyperparameters={"old_dice_weight": None}),
        schedule(hyperparameters={"new_class_noise": 1}),
        schedule(hyperparameters={"x": 1}),
    ),
    "classes of a schedule that the data set does not have": changed(
        PLAN,
        ("Liver", "lung", "livr", " liver", "1"),
        schedule(steps=[{"classes": ["Liver"]}]),
        schedule(steps=[{"classes": ["liver"]}, {"classes": ["lung"]}]),
        schedule(steps=[{"classes": ["livr"]}]),
        schedule(steps=[{"classes": [" liver"]}]),
        schedule(steps=[{"classes": ["1"]}]),
    ),
    "data sets of a schedule that are not there": changed(
        PLAN,
        ("dataset", "data set"),
        *(
            schedule(steps=[{"classes": ["liver"]}, {"classes": ["duodenum"], "dataset": value}])
            for value in ("19", 0, "New", True, ["18"], "Dataset018_Other", "../18", 18.0)
        ),
    ),
    "a raw dataset.json that is damaged": [
        *changed("inspect 17", "dataset.json", *json_forms("raw/dataset.json")),
        *changed("schedules new 17 --steps 2,2", "dataset.json", *json_forms("raw/dataset.json")),
        *changed("extend @model 18", "dataset.json", *json_forms("new/dataset.json")),
    ],
    "labels of a raw dataset.json": [
        row
        for command in ("inspect 17", "schedules new 17 --steps 2,2")
        for row in changed(
            command,
            ("labels", "dataset.json", "background", "liver", "region"),
            *(
                edited("raw/dataset.json", labels=labels)
                for labels in (
                    ...,
                    None,
                    [],
                    ["background", "liver"],
                    "liver",
                    {"background": 0, "liver": None},
                    {"background": 0, "liver": True},
                    {"background": 0, "liver": "one"},
                    {"background": 0, "liver": 1.5},
                    {"background": 0, "liver": -1},
                    {"background": 0, "liver": 10**20},
                    {"background": 0, "liver": 1, "spleen": 1},
                    {"background": 0, "liver": [1, 2]},
                    {"background": 0, "": 1},
                    {"background": 0, "liver": {"number": 1}},
                )
            ),
        )
    ],
    "keys of a raw dataset.json": changed(
        "inspect 17",
        ("dataset.json", "channel_names", "file_ending", "labelsTr", ".png"),
        edited("raw/dataset.json", file_ending=...),
        edited("raw/dataset.json", file_ending=None),
        edited("raw/dataset.json", file_ending=3),
        edited("raw/dataset.json", file_ending=".png"),
        edited("raw/dataset.json", channel_names=...),
        edited("raw/dataset.json", channel_names=None),
        edited("raw/dataset.json", channel_names=7),
        edited("raw/dataset.json", channel_names=[["MR"]]),
    ),
    "labels of the data set to learn": changed(
        "extend @model 18",
        ("dataset.json", "labels", "duodenum", "background", "Dataset018_New", "region"),
        edited("new/dataset.json", labels=...),
        edited("new/dataset.json", labels={"background": 0}),
        edited("new/dataset.json", labels={"background": 0, "duodenum": 10**20}),
        edited("new/dataset.json", labels={"duodenum": 1}),
        edited("new/dataset.json", labels={"background": 0, "duodenum": [1, 2]}),
        edited("new/dataset.json", labels={"background": 0, "duodenum": True}),
        edited("new/dataset.json", labels={"background": 0, "duodenum": 2}),
    ),
    "a preprocessed dataset.json that is damaged": [
        *changed(PLAN, "dataset.json", *json_forms("pre/dataset.json")),
        *changed(
            PLAN,
            ("labels", "dataset.json"),
            edited("pre/dataset.json", labels=...),
            edited("pre/dataset.json", labels=["liver"]),
            edited("pre/dataset.json", labels=None),
            edited("pre/dataset.json", labels={"background": 0, "liver": "x"}),
        ),
    ],
    "base plans that are damaged": [
        *changed(PLAN, "nnUNetPlans", *json_forms("pre/nnUNetPlans.json")),
        *changed(
            PLAN,
            ("nnUNetPlans", "preprocessed"),
            text("pre/nnUNetPlans.json", "{}"),
            edited("pre/nnUNetPlans.json", configurations=...),
            edited("pre/nnUNetPlans.json", configurations=[]),
            edited("pre/nnUNetPlans.json", configurations=None),
            edited("pre/nnUNetPlans.json", configurations={"2d": None}),
        ),
    ],
    "steps' plans that are damaged": [
        *changed(EVALUATE, f"{PLANS}1", *json_forms(f"pre/{PLANS}1.json")),
        *changed(STATUS, f"{PLANS}1", *json_forms(f"pre/{PLANS}1.json")),
        *changed(
            STATUS,
            f"{PLANS}0",
            edited(f"pre/{PLANS}0.json", cil=...),
            edited(f"pre/{PLANS}0.json", cil=None),
            edited(f"pre/{PLANS}0.json", cil=[]),
            edited(f"pre/{PLANS}0.json", cil={}),
            edited(f"pre/{PLANS}0.json", cil={"schema_version": 99}),
        ),
    ],
    "a split of the wrong form": changed(
        RUN,
        "splits_final.json",
        text("pre/splits_final.json", ""),
        text("pre/splits_final.json", "{}"),
        text("pre/splits_final.json", "null"),
        text("pre/splits_final.json", "[]"),
        text("pre/splits_final.json", "[1, 2]"),
        text("pre/splits_final.json", '[{"train": ["case_0"]}]'),
        text("pre/splits_final.json", '[{"train": "case_0", "val": ["case_1"]}]'),
        text("pre/splits_final.json", '[{"train": ["case_0"], "val": null}]'),
        text("pre/splits_final.json", '[{"train": [0, 1], "val": [2]}]'),
        text("pre/splits_final.json", '[{"train": ["case_0", "case_9"], "val": ["case_1"]}]'),
        cut("pre/splits_final.json"),
        folder_instead("pre/splits_final.json"),
    ),
    "label files that cannot be read": [
        row
        for command in ("inspect 17", "schedules new 17 --steps 2,2 --order size")
        for row in changed(
            command,
            "case_1",
            text("raw/labelsTr/case_1.nii.gz", b""),
            text("raw/labelsTr/case_1.nii.gz", b"just text"),
            cut("raw/labelsTr/case_1.nii.gz"),
            folder_instead("raw/labelsTr/case_1.nii.gz"),
            text("raw/labelsTr/case_1.nii.gz", b"\x1f\x8b\x08" + b"\0" * 50),
        )
    ],
    "files of the data set to learn that cannot be read": changed(
        "extend @model 18",
        ("new_1", "labelsTr", "imagesTr", "has 4 training cases"),
        text("new/labelsTr/new_1.nii.gz", b""),
        cut("new/labelsTr/new_1.nii.gz"),
        text("new/imagesTr/new_1_0000.nii.gz", b"just text"),
        cut("new/imagesTr/new_1_0000.nii.gz"),
        removed("new/labelsTr"),
        removed("new/imagesTr"),
        removed("new/imagesTr/new_1_0000.nii.gz"),
    ),
    "no label files": [
        *changed("inspect 17", ("labelsTr", DATASET), removed("raw/labelsTr", "raw/labelsTs")),
        *changed("inspect 17", ("labelsTr", DATASET), removed("raw/labelsTr", "raw/labelsTs", "raw/imagesTr")),
        *changed("inspect 17", "17", removed("raw")),
        *changed(
            "schedules new 17 --steps 2,2 --order size", ("labelsTr", DATASET), removed("raw/labelsTr", "raw/labelsTs")
        ),
        *changed("schedules new 17 --steps 2,2", ("dataset.json", "17"), removed("raw")),
    ],
    "preprocessed data that are not there": [
        *changed(PLAN, ("17", "preprocess"), removed("pre")),
        *changed(PLAN, ("preprocess", "nnUNetPlans"), removed("pre/nnUNetPlans_3d_fullres", "pre/nnUNetPlans_2d")),
        *changed(PLAN, ("nnUNetPlans", "preprocess"), removed("pre/nnUNetPlans.json")),
        *changed(EVALUATE, (PLANS, "plan"), removed(f"pre/{PLANS}0.json", f"pre/{PLANS}1.json")),
        *changed(STATUS, (PLANS, "plan"), removed(f"pre/{PLANS}1.json")),
    ],
    "test cases that are not there": [
        *rows(f"{EVALUATE} -i % -l @raw/labelsTs", NO_FOLDERS, ("nowhere", "text.txt", "empty", LONG[:100])),
        *rows(f"{EVALUATE} -i @raw/imagesTs -l %", NO_FOLDERS, ("nowhere", "text.txt", "empty", LONG[:100])),
        *rows(f"{RUN} -i @raw/imagesTs -l %", [*NO_FOLDERS, "@empty"], ("nowhere", "text.txt", "empty", LONG[:100])),
        *rows(f"{EVALUATE} %", ["-i @raw/imagesTs", "-l @raw/labelsTs", "--cases train"], ("-l", "-i", "--cases")),
        *changed(f"{EVALUATE} --cases test", "--cases test", removed("raw/labelsTs"), removed("raw/imagesTs")),
    ],
    "test cases that cannot be scored": [
        row
        for command in (EVALUATE, RUN)
        for row in changed(
            command,
            ("t0", "labelsTs", "imagesTs"),
            text("raw/labelsTs/t0.nii.gz", b""),
            cut("raw/labelsTs/t0.nii.gz"),
            removed("raw/imagesTs/t0_0000.nii.gz"),
            lambda world: write(toy_volume(60)[1] + 9, world.place("raw/labelsTs/t0.nii.gz")),
            lambda world: write(toy_volume(60)[1][2:], world.place("raw/labelsTs/t0.nii.gz")),
        )
    ],
    "a place for results that takes none": [
        *rows(f"{EVALUATE} -o %", ["@text.txt", "@text.txt/deeper", "/proc/x"], ("text.txt", "/proc")),
        *rows(
            "inspect 17 -o %",
            ["@text.txt", "@text.txt/page.html", "/proc/x.html", "@empty"],
            ("text.txt", "/proc", "empty"),
        ),
        *rows(
            "schedules new 17 --steps 2,2 -o %",
            ["@text.txt", "@nowhere/x.json", "/proc/x", "@empty"],
            ("text.txt", "nowhere", "/proc", "empty"),
        ),
        *rows("demo -device cpu -o %", ["@text.txt", "@text.txt/demo", "/proc/x"], ("text.txt", "/proc")),
    ],
    "models that are not trained": [
        *changed(EVALUATE, ("step 1", f"{PLANS}1"), removed("model")),
        *changed(EVALUATE, ("step 0", f"{PLANS}0"), removed("first")),
        *changed(EVALUATE, ("step 1", f"{PLANS}1"), removed("checkpoint")),
        *rows("evaluate 17 3d_fullres 0 @schedule -device cpu -tr nnUNetTrainer%", ["MiB", "PGCD", "LwF"]),
    ],
    # the environment
    "a folder of nnU-Net that is not there": environment_rows(),
    "a number of processes": [
        BadInput(command=("inspect", "17"), names=("nnUNet_def_n_proc",), environment={"nnUNet_def_n_proc": value})
        for value in ("0", "-1", "many", "", "1.5", "1e2", "\N{SUPERSCRIPT TWO}", "9" * 30)
    ],
    # downloads
    "a download that is not there": rows(
        "convert generic % 19 --names @download/names.json", NO_FOLDERS, ("nowhere", "text.txt", "empty", LONG[:100])
    ),
    "an archive that is none": [
        BadInput(
            command=("convert", "generic", f"@{name}", "19", "--names", "@download/names.json"),
            names=(name,),
            change=text(name, content),
        )
        for name, content in (
            ("a.zip", b""),
            ("b.zip", b"just text"),
            ("c.tar.gz", b"\x1f\x8b\x08" + b"\0" * 60),
            ("d.tar", b"just text"),
            ("e.zip", b"PK\x03\x04" + b"\0" * 60),
        )
    ],
    "a data set that cannot be converted": [
        *rows("convert % @download 19", ["Generic", "btvc", "imagenet", LONG], "NAME"),
        *rows("convert % @download 19", ["btcv", "word", "acdc", "msd", "flare22", "openkbp"], "download"),
    ],
    "options of a conversion": [
        *rows(
            "convert generic @download 19 %",
            ["--classes liver", "--split transunet", "--modality CT", "--keep-incomplete"],
            ("generic", "--"),
        ),
        *rows("convert generic @download 19 --accept %", ["everything", "Modality", "none"], "--accept"),
        *rows("convert btcv @download 19 --split %", ["transunet2", "x"], ("split", "x")),
        *rows(
            "convert openkbp @download 19 --cases %",
            ["@nowhere", "@text.txt", "@empty"],
            ("nowhere", "text.txt", "empty"),
        ),
    ],
    "names of a data set's classes": [
        *rows(
            "convert generic @download 19 --names %",
            ["@nowhere", "@text.txt", "@empty", "@noise.bin"],
            ("nowhere", "text.txt", "empty", "noise.bin"),
        ),
        *changed(
            "convert generic @download 19 --names @download/names.json",
            "names.json",
            *json_forms("download/names.json"),
            text("download/names.json", "{}"),
            edited("download/names.json", labels=...),
            edited("download/names.json", labels=["liver"]),
            edited("download/names.json", labels={"liver": "one"}),
            edited("download/names.json", name="../x"),
            edited("download/names.json", name=None),
        ),
    ],
    "files of a download that cannot be read": changed(
        "convert generic @download 19 --names @download/names.json",
        ("case1", "labels", "images"),
        text("download/labels/case1.nii.gz", b""),
        cut("download/labels/case1.nii.gz"),
        text("download/images/case1_0000.nii.gz", b"just text"),
        removed("download/images/case1_0000.nii.gz"),
        removed("download/labels"),
        removed("download/images"),
    ),
    "a place for a report that takes none": rows(
        "convert generic @download 19 --names @download/names.json --report %",
        ["@nowhere/r.txt", "@text.txt/r.txt", "/proc/x", "@empty", "@download"],
        ("nowhere", "text.txt", "/proc", "empty", "download"),
    ),
}
"""Kind -> its inputs."""
