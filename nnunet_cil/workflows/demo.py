"""Shows class-incremental learning on generated volumes. Everything stays in one folder; a second call goes on."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.commands import call, python_path, train
from nnunet_cil.host.folders import FOLDERS, model_folder_name
from nnunet_cil.host.splits import SPLITS_FILE
from nnunet_cil.predicted_from import is_validated
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.shipped import trainers_folder
from nnunet_cil.step_plans import step_plans_name
from nnunet_cil.training_command import train_arguments

if TYPE_CHECKING:
    import numpy.typing as npt

logger = logging.getLogger(__name__)

DATASET_ID, DATASET = 1, "Dataset001_Phantom"
SCHEDULE, CONFIGURATION, PLANS = "phantom_2-2-1", "2d", "nnUNetPlansSmall"
METHODS = {"fine-tuning": "nnUNetTrainerFineTune", "PGCD": "nnUNetTrainerPGCD"}
FIRST_TRAINER = "nnUNetTrainerPGCD"
NUM_TRAINING, NUM_VALIDATION = 20, 6
_AGAIN = "Remove the demo's folder, and run 'nnunet_cil demo' again."


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The results of the demo.

    Attributes:
        table: mean Dice of every method after every step, in Markdown.
        table_file: the same, with a heading.
        picture: a case, its reference and every method's prediction after the last step.
    """

    table: str
    table_file: Path
    picture: Path


def demo(output: Path, *, device: str = "auto") -> DemoResult:
    """Generates the phantom data set, learns it in three steps with each method, and compares on held-out cases.

    Args:
        output: the folder that takes everything.
        device: as nnU-Net's, or ``auto``.

    Raises:
        CILError: one of nnU-Net's commands failed; names its log.
    """
    output = output.resolve()
    environment = _environment(output)
    device = _device(device)
    schedule = load_schedule(SCHEDULE)
    logger.info("nnunet_cil demo: %d steps, on %s, in %s", len(schedule.steps), device, output)
    _prepare(output, environment)
    todo = jobs(schedule)
    for number, (trainer, step) in enumerate(todo, start=1):
        classes = ", ".join(schedule.steps[step].classes)
        logger.info("[%d/%d] %s, step %d: learning %s", number, len(todo), trainer, step, classes)
        _train(output, environment, trainer, step, schedule, device)
    return _report(output, schedule)


def jobs(schedule: Schedule) -> list[tuple[str, int]]:
    """Lists (trainer, step) in the order of training. All methods share the training of step 0."""
    later = [(trainer, step) for trainer in METHODS.values() for step in range(1, len(schedule.steps))]
    return [(FIRST_TRAINER, 0), *later]


def _environment(output: Path) -> dict[str, str]:
    """Creates nnU-Net's three folders in the demo's, and returns the variables of the commands that run there."""
    variables = {}
    for variable in FOLDERS:
        (output / variable).mkdir(parents=True, exist_ok=True)
        variables[variable] = str(output / variable)
    quiet = {
        "nnUNet_extTrainer": str(trainers_folder()),
        "nnUNet_n_proc_DA": "1",
        "nnUNet_def_n_proc": "2",
        "nnUNet_compile": "false",
        "PYTHONWARNINGS": "ignore",
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **variables, **quiet, **python_path()}


def _device(device: str) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _prepare(output: Path, environment: Mapping[str, str]) -> None:
    """Generates and preprocesses the data set unless that is done, and writes the plans of the steps."""
    if not _base_plans(output).is_file():
        _generate(output)
        _preprocess(output, environment)
        _write_split(output)
        _write_base_plans(output)  # last: they say that all of it is done
    arguments = ["plan", str(DATASET_ID), SCHEDULE, "-p", PLANS, "--step0-trainer", FIRST_TRAINER]
    call("nnunet_cil", arguments, environment, output / "logs" / "plan.txt")


def _preprocessed(output: Path) -> Path:
    return output / "nnUNet_preprocessed" / DATASET


def _base_plans(output: Path) -> Path:
    return _preprocessed(output) / f"{PLANS}.json"


def _generate(output: Path) -> None:
    from nnunet_cil.datasets.phantom import write_dataset

    logger.info("Generating volumes...")
    write_dataset(output / "nnUNet_raw" / DATASET, num_training=NUM_TRAINING + NUM_VALIDATION, num_test=0)


def _preprocess(output: Path, environment: Mapping[str, str]) -> None:
    logger.info("Preprocessing with nnU-Net...")
    arguments = ["-d", str(DATASET_ID), "-c", CONFIGURATION, "-np", "2", "-npfp", "2"]
    call("nnUNetv2_plan_and_preprocess", arguments, environment, output / "logs" / "preprocess.txt")


def _write_split(output: Path) -> None:
    """Writes one fold, whose validation cases are the last ones."""
    cases = [f"phantom_{i:04d}" for i in range(NUM_TRAINING + NUM_VALIDATION)]
    split = [{"train": cases[:NUM_TRAINING], "val": cases[NUM_TRAINING:]}]
    (_preprocessed(output) / SPLITS_FILE).write_text(json.dumps(split))


def _write_base_plans(output: Path) -> None:
    """Writes plans of a network that a laptop trains in minutes."""
    from nnunet_cil.host.plans_files import small_plans

    base = read_json(_preprocessed(output) / "nnUNetPlans.json", _AGAIN)
    size = base["configurations"][CONFIGURATION]["patch_size"]
    plans = small_plans(base, PLANS, CONFIGURATION, features=[16, 32, 64], patch_size=size, batch_size=8)
    write_json(_base_plans(output), plans)


def model_folder(output: Path, trainer: str, step: int) -> Path:
    """Returns the folder where nnU-Net puts the model of a step."""
    used = FIRST_TRAINER if step == 0 else trainer
    plans_name = step_plans_name(PLANS, SCHEDULE, step)
    return output / "nnUNet_results" / DATASET / model_folder_name(used, plans_name, CONFIGURATION)


def _train(
    output: Path, environment: Mapping[str, str], trainer: str, step: int, schedule: Schedule, device: str
) -> None:
    """Trains and validates a step's model; goes on with one that was interrupted, and skips a finished one."""
    fold = model_folder(output, trainer, step) / "fold_0"
    if is_validated(fold):
        return
    arguments = train_arguments(str(DATASET_ID), CONFIGURATION, 0, trainer, step_plans_name(PLANS, SCHEDULE, step))
    arguments += ["-device", device, *(["--c"] if any(fold.glob("checkpoint_*.pth")) else [])]
    num_epochs = int(schedule.steps[step].training["num_epochs"])
    train(arguments, environment, output / "logs" / f"{trainer}_step{step}.txt", num_epochs)


def _report(output: Path, schedule: Schedule) -> DemoResult:
    """Writes the table and the picture."""
    from nnunet_cil.evaluation.tables import step_table

    steps = [step.classes for step in schedule.steps]
    rows = {
        name: [_scores(model_folder(output, trainer, step)) for step in range(len(steps))]
        for name, trainer in METHODS.items()
    }
    table = step_table(rows, steps).markdown()
    table_file = output / "table.md"
    table_file.write_text(f"Mean Dice on {NUM_VALIDATION} held-out phantoms.\n\n{table}\n", encoding="utf-8")
    picture = output / "comparison.png"
    _draw(output, schedule, picture)
    return DemoResult(table=table, table_file=table_file, picture=picture)


def _scores(model: Path) -> dict[str, float]:
    """Reads each class's mean Dice from nnU-Net's summary of the validation cases."""
    labels = read_json(model / "dataset.json", _AGAIN)["labels"]
    summary = read_json(model / "fold_0" / "validation" / "summary.json", _AGAIN)["mean"]
    return {name: float(summary[str(channel)]["Dice"]) for name, channel in labels.items() if name != "background"}


def _draw(output: Path, schedule: Schedule, picture: Path) -> None:
    """Draws the first validation case: the reference, and every method's prediction after the last step."""
    from nnunet_cil.evaluation.figures import comparison

    last = len(schedule.steps) - 1
    classes = schedule.classes_until(last)
    case = f"phantom_{NUM_TRAINING:04d}"
    raw = output / "nnUNet_raw" / DATASET
    labels = {"reference": _in_order_of_learning(_read(raw / "labelsTr" / f"{case}.nii.gz"), classes)}
    for name, trainer in METHODS.items():
        prediction = model_folder(output, trainer, last) / "fold_0" / "validation" / f"{case}.nii.gz"
        labels[name] = _read(prediction).astype(int)
    figure = comparison(
        _read(raw / "imagesTr" / f"{case}_0000.nii.gz"),
        labels,
        classes,
        title=f"After step {last}: {', '.join(schedule.steps[last].classes)} learnt last",
    )
    figure.savefig(picture, dpi=110)


def _in_order_of_learning(labels: npt.NDArray[Any], classes: Sequence[str]) -> npt.NDArray[Any]:
    """Turns the data set's labels into the channels of a model that learnt ``classes`` in this order."""
    import numpy as np

    from nnunet_cil.datasets.phantom import LABELS

    channels: npt.NDArray[Any] = np.zeros(max(LABELS.values()) + 1, dtype=int)
    for channel, name in enumerate(classes, start=1):
        channels[LABELS[name]] = channel
    learnt: npt.NDArray[Any] = channels[labels.astype(int)]
    return learnt


def _read(file: Path) -> npt.NDArray[Any]:
    from nnunet_cil.host.reading.images import read_images
    from nnunet_cil.host.reading.readers import named_reader

    array: npt.NDArray[Any] = read_images([file], named_reader("SimpleITKIO")).array[0]
    return array
