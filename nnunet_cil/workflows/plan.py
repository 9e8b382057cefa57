"""``nnunet_cil plan``: one nnU-Net plans file a step, on data that is already preprocessed."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cil.errors import CILError
from nnunet_cil.labels import check_classes, refuse_regions
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.step_plans import StepPlan, plan_steps
from nnunet_cil.workflows.folders import dataset_name, nnunet_folder, read_json, write_json

SPLIT_SEED = 12345
"""Seed that deals cases out to steps; the one of nnU-Net's own cross-validation split."""

NUM_FOLDS = 5
"""nnU-Net's."""


@dataclass(frozen=True)
class PlannedStep:
    """A step's plans file, whether it had to be written, and nnU-Net's configurations in it."""

    plan: StepPlan
    plans_name: str
    file: Path
    written: bool
    configurations: tuple[str, ...]


def plan(
    dataset: str | int, schedule_name: str | Path, *, base_plans: str = "nnUNetPlans", first_trainer: str | None = None
) -> list[PlannedStep]:
    """Writes the plans files of a schedule's steps beside the base plans. No image is preprocessed again.

    Args:
        dataset: nnU-Net's data set ID or name; must be preprocessed.
        schedule_name: a shipped schedule or a file.
        base_plans: name of the plans that the steps copy.
        first_trainer: the trainer whose step 0 every trainer continues from; None: each its own.

    Raises:
        CILError: anything that cannot work, before a file is written.
    """
    schedule = load_schedule(schedule_name)
    name = dataset_name(dataset)
    if first_trainer is not None:
        _check_trainer(first_trainer)
    folder = nnunet_folder("nnUNet_preprocessed") / name
    redo = f"Run 'nnUNetv2_plan_and_preprocess -d {name}' first."
    dataset_json = read_json(folder / "dataset.json", redo)
    plans = read_json(folder / f"{base_plans}.json", redo)
    if "cil" in plans:
        raise CILError(f"{base_plans!r} is itself the plans of a step; give the base plans with -p.")
    refuse_regions(dataset_json)
    labels = dataset_json["labels"]
    check_classes([s.classes for s in schedule.steps], labels, schedule=schedule.name, dataset=name)

    present = scan_labels(folder, plans, labels)
    cases = deal_cases(schedule, sorted(present), validation_folds(folder, sorted(present)))
    _check_presence(schedule, labels, present, cases)

    plans_names = [f"{base_plans}_{schedule.name}_step{i}" for i in range(len(schedule.steps))]
    steps = plan_steps(schedule, name, labels, plans_names, cases, first_trainer)
    contents = [step_plans_file(plans, n, step) for n, step in zip(plans_names, steps, strict=True)]
    files = [folder / f"{n}.json" for n in plans_names]
    changed = [
        not f.is_file() or json.loads(f.read_text(encoding="utf-8")) != c for f, c in zip(files, contents, strict=True)
    ]
    for plans_name, file, is_changed in zip(plans_names, files, changed, strict=True):
        if is_changed and file.is_file():
            refuse_if_trained(name, plans_name)
    for file, content, is_changed in zip(files, contents, changed, strict=True):
        if is_changed:
            write_json(file, content)
    configurations = tuple(plans["configurations"])
    return [PlannedStep(*row, configurations) for row in zip(steps, plans_names, files, changed, strict=True)]


def _check_trainer(name: str) -> None:
    """Refuses a trainer that nnU-Net does not find or that knows nothing of steps."""
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    from nnunet_cil.training.base import nnUNetTrainerCIL

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise CILError(
            f"nnU-Net does not find the trainer {name!r}. Check its spelling, and nnUNet_extTrainer with "
            "'nnunet_cil doctor'."
        ) from error
    if not issubclass(trainer, nnUNetTrainerCIL):
        raise CILError(f"{name} knows nothing of steps; a step 0 needs one of nnunet_cil's trainers.")


def step_plans_file(base: Mapping[str, Any], plans_name: str, step: StepPlan) -> dict[str, Any]:
    """The base plans under another name, with the step's block.

    ``data_identifier`` stays, so that all steps share one preprocessed folder. ``next_stage`` goes: it makes
    nnU-Net predict for a cascade, which is not supported.
    """
    plans: dict[str, Any] = copy.deepcopy(dict(base))
    plans["plans_name"] = plans_name
    for configuration in plans["configurations"].values():
        configuration.pop("next_stage", None)
    plans["cil"] = step.to_json()
    return plans


def scan_labels(folder: Path, plans: Mapping[str, Any], labels: Mapping[str, int]) -> dict[str, set[int]]:
    """Case -> the labels that its preprocessed segmentation holds.

    Raises:
        CILError: nothing is preprocessed, or a case holds a value that dataset.json does not list.
    """
    from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
    from tqdm import tqdm

    identifiers = [c["data_identifier"] for c in plans["configurations"].values() if "data_identifier" in c]
    preprocessed = [folder / i for i in identifiers if (folder / i).is_dir() and any((folder / i).iterdir())]
    if not preprocessed:
        raise CILError(
            f"No configuration of {folder.name} is preprocessed yet. Run 'nnUNetv2_preprocess -d "
            f"{folder.name} -plans_name {plans['plans_name']}' first."
        )
    data = infer_dataset_class(str(preprocessed[0]))(str(preprocessed[0]))
    allowed = {-1, *labels.values()}
    present = {}
    for case in tqdm(data.identifiers, desc="Looking at labels", leave=False):
        values = _values(np.asarray(data.load_case(case)[1][:]))
        if not values <= allowed:
            raise CILError(
                f"Case {case!r} holds the label value {min(values - allowed)}, which dataset.json of "
                f"{folder.name} does not list ({dict(labels)}). Correct the label file and preprocess again."
            )
        present[case] = values
    return present


def _values(segmentation: np.ndarray[Any, Any]) -> set[int]:
    lowest = int(segmentation.min())
    counts = np.bincount((segmentation.ravel() - lowest).astype(np.int64))
    return {int(v) + lowest for v in np.flatnonzero(counts)}


def deal_cases(schedule: Schedule, cases: Sequence[str], folds: Sequence[Sequence[str]]) -> list[list[str] | None]:
    """The cases of each step: None (all) under ``shared``; a seeded deal of equal hands under ``disjoint``.

    Args:
        schedule: with its steps.
        cases: all training cases.
        folds: the validation cases of each fold. These are dealt out evenly too, so that a step has training and
            validation cases in every fold that has enough of them.
    """
    num_steps = len(schedule.steps)
    if schedule.cases == "shared":
        return [None] * num_steps
    if len(cases) < num_steps:
        raise CILError(
            f"Schedule {schedule.name} deals cases out to {num_steps} steps, but there are only {len(cases)} cases."
        )
    shuffled = list(cases)
    random.Random(SPLIT_SEED).shuffle(shuffled)
    fold_of = {case: i for i, fold in reversed(list(enumerate(folds))) for case in fold}
    shuffled.sort(key=lambda case: fold_of.get(case, len(folds)))
    return [sorted(shuffled[i::num_steps]) for i in range(num_steps)]


def validation_folds(folder: Path, cases: Sequence[str]) -> list[list[str]]:
    """The validation cases of each fold: of splits_final.json, or of the split that nnU-Net is going to make."""
    from nnunetv2.utilities.crossval_split import generate_crossval_split

    file = folder / "splits_final.json"
    if file.is_file():
        splits = json.loads(file.read_text(encoding="utf-8"))
    elif len(cases) >= NUM_FOLDS:
        splits = generate_crossval_split(sorted(cases), seed=SPLIT_SEED, n_splits=NUM_FOLDS)
    else:
        splits = []
    return [[str(case) for case in split["val"]] for split in splits]


def _check_presence(
    schedule: Schedule,
    labels: Mapping[str, int],
    present: Mapping[str, set[int]],
    cases: Sequence[Sequence[str] | None],
) -> None:
    for index, step in enumerate(schedule.steps):
        own_cases = cases[index]
        own = present if own_cases is None else {case: present[case] for case in own_cases}
        for class_name in step.classes:
            if not any(labels[class_name] in values for values in own.values()):
                raise CILError(
                    f"step {index} of {schedule.name} learns {class_name!r} (label {labels[class_name]}), "
                    f"but none of its {len(own)} cases has that label."
                )


def refuse_if_trained(dataset: str, plans_name: str) -> None:
    """Refuses to change plans that a model was trained with."""
    if not os.environ.get("nnUNet_results"):
        return
    results = Path(os.environ["nnUNet_results"]) / dataset
    used = sorted({c.parent.parent.name for c in results.glob(f"*__{plans_name}__*/fold_*/checkpoint_*.pth")})
    if used:
        raise CILError(
            f"The plans {plans_name!r} would change, but {', '.join(used)} was trained with them. Give the "
            "schedule another name, or remove that training."
        )
