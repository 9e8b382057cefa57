"""``nnunet_cil demo``: the whole story on generated volumes. Everything stays in one folder; a second call goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_cil.host.commands import call, python_path, train
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.shipped import trainers_folder

DATASET_ID, DATASET = 1, "Dataset001_Phantom"
SCHEDULE, CONFIGURATION, PLANS = "phantom_2-2-1", "2d", "nnUNetPlansSmall"
METHODS = {"fine-tuning": "nnUNetTrainerFineTune", "PGCD": "nnUNetTrainerPGCD"}
FIRST_TRAINER = "nnUNetTrainerPGCD"
NUM_TRAINING, NUM_VALIDATION = 20, 6


@dataclass(frozen=True)
class DemoResult:
    """What the demo shows: a Markdown table (also in ``table_file``) and a picture."""

    table: str
    table_file: Path
    picture: Path


def demo(output: Path, *, device: str = "auto", say: Callable[[str], None] = lambda _line: None) -> DemoResult:
    """Generates the phantom data set, learns it in three steps with each method, and compares on held-out cases.

    Args:
        output: the folder that takes everything.
        device: as nnU-Net's, or ``auto``.
        say: takes one line of progress at a time.

    Raises:
        CILError: one of nnU-Net's commands failed; names its log.
    """
    output = output.resolve()
    environment = _environment(output)
    device = _device(device)
    schedule = load_schedule(SCHEDULE)
    say(f"nnunet_cil demo: {len(schedule.steps)} steps, on {device}, in {output}")
    _prepare(output, environment, say)
    for number, (trainer, step) in enumerate(jobs(schedule), start=1):
        classes = ", ".join(schedule.steps[step].classes)
        say(f"[{number}/{len(jobs(schedule))}] {trainer}, step {step}: learning {classes}")
        _train(output, environment, trainer, step, schedule, device)
    return _report(output, schedule)


def jobs(schedule: Schedule) -> list[tuple[str, int]]:
    """(trainer, step) in the order of training; step 0 is the same training for all methods, and done once."""
    later = [(trainer, step) for trainer in METHODS.values() for step in range(1, len(schedule.steps))]
    return [(FIRST_TRAINER, 0), *later]


def _environment(output: Path) -> dict[str, str]:
    variables = {}
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
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


def _prepare(output: Path, environment: Mapping[str, str], say: Callable[[str], None]) -> None:
    """Raw data, nnU-Net's preprocessing, small plans, and the plans of each step."""
    from nnunet_cil.datasets.phantom import write_dataset
    from nnunet_cil.files import write_json
    from nnunet_cil.host.plans_files import small_plans

    preprocessed = output / "nnUNet_preprocessed" / DATASET
    done = preprocessed / f"{PLANS}.json"
    if not done.is_file():
        say("Generating volumes...")
        write_dataset(output / "nnUNet_raw" / DATASET, num_training=NUM_TRAINING + NUM_VALIDATION, num_test=0)
        say("Preprocessing with nnU-Net...")
        call(
            "nnUNetv2_plan_and_preprocess",
            ["-d", str(DATASET_ID), "-c", CONFIGURATION, "-np", "2", "-npfp", "2"],
            environment,
            output / "logs" / "preprocess.txt",
        )
        cases = [f"phantom_{i:04d}" for i in range(NUM_TRAINING + NUM_VALIDATION)]
        split = [{"train": cases[:NUM_TRAINING], "val": cases[NUM_TRAINING:]}]
        (preprocessed / "splits_final.json").write_text(json.dumps(split))
        base = json.loads((preprocessed / "nnUNetPlans.json").read_text())
        size = base["configurations"][CONFIGURATION]["patch_size"]
        plans = small_plans(base, PLANS, CONFIGURATION, features=[16, 32, 64], patch_size=size, batch_size=8)
        write_json(done, plans)
    call(
        "nnunet_cil",
        ["plan", str(DATASET_ID), SCHEDULE, "-p", PLANS, "--step0-trainer", FIRST_TRAINER],
        environment,
        output / "logs" / "plan.txt",
    )


def model_folder(output: Path, trainer: str, step: int) -> Path:
    """Where nnU-Net puts the model of a step."""
    used = FIRST_TRAINER if step == 0 else trainer
    return output / "nnUNet_results" / DATASET / f"{used}__{PLANS}_{SCHEDULE}_step{step}__{CONFIGURATION}"


def _train(
    output: Path, environment: Mapping[str, str], trainer: str, step: int, schedule: Schedule, device: str
) -> None:
    fold = model_folder(output, trainer, step) / "fold_0"
    if (fold / "validation" / "summary.json").is_file():
        return
    arguments = [str(DATASET_ID), CONFIGURATION, "0", "-tr", trainer, "-p", f"{PLANS}_{SCHEDULE}_step{step}"]
    arguments += ["-device", device, *(["--c"] if any(fold.glob("checkpoint_*.pth")) else [])]
    num_epochs = int(schedule.steps[step].training["num_epochs"])
    train(arguments, environment, output / "logs" / f"{trainer}_step{step}.txt", num_epochs)


def _report(output: Path, schedule: Schedule) -> DemoResult:
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
    return DemoResult(table, table_file, picture)


def _scores(model: Path) -> dict[str, float]:
    """Class -> mean Dice, from nnU-Net's own summary of the validation cases."""
    labels = json.loads((model / "dataset.json").read_text())["labels"]
    summary = json.loads((model / "fold_0" / "validation" / "summary.json").read_text())["mean"]
    return {name: float(summary[str(channel)]["Dice"]) for name, channel in labels.items() if name != "background"}


def _draw(output: Path, schedule: Schedule, picture: Path) -> None:
    import numpy as np
    import SimpleITK as sitk

    from nnunet_cil.datasets.phantom import LABELS
    from nnunet_cil.evaluation.figures import comparison

    def read(file: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        array: np.ndarray[tuple[int, ...], np.dtype[np.float32]] = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        return array

    last = len(schedule.steps) - 1
    classes = schedule.classes_until(last)
    case = f"phantom_{NUM_TRAINING:04d}"
    raw = output / "nnUNet_raw" / DATASET
    truth = read(raw / "labelsTr" / f"{case}.nii.gz")
    order = np.array([0] * (max(LABELS.values()) + 1))
    for channel, name in enumerate(classes, start=1):
        order[LABELS[name]] = channel
    labels = {"truth": order[truth.astype(int)]}
    for name, trainer in METHODS.items():
        labels[name] = read(model_folder(output, trainer, last) / "fold_0" / "validation" / f"{case}.nii.gz").astype(
            int
        )
    figure = comparison(
        read(raw / "imagesTr" / f"{case}_0000.nii.gz"),
        labels,
        classes,
        title=f"After step {last}: {', '.join(schedule.steps[last].classes)} learnt last",
    )
    figure.savefig(picture, dpi=110)
