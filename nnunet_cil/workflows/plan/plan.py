"""``nnunet_cil plan``: one nnU-Net plans file a step, on data that are already preprocessed."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_cil.errors import did_you_mean
from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.dataset_json import refuse_other_labelled_classes
from nnunet_cil.host.folders import dataset_name, nnunet_folder
from nnunet_cil.host.plans_files import is_cascade, reader_of
from nnunet_cil.host.preprocessed import preprocessed_configurations
from nnunet_cil.host.raw_dataset import label_file_names
from nnunet_cil.labels import NUMBERS_DIFFER, check_labelled_classes, labelled_classes
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.step_plans import StepPlan, plan_steps, step_plans_name
from nnunet_cil.training.catalogue import (
    check_cascade,
    check_data,
    check_hyperparameters,
    fixed_everywhere,
    hyperparameter_names,
    refusals_of_cascades,
    trainer_class,
)
from nnunet_cil.workflows.plan.fold_checks import (
    check_folds,
    check_raw_folds,
    check_raw_splits,
    note_folds,
    note_unlisted_cases,
)
from nnunet_cil.workflows.plan.grids import check_training_grids
from nnunet_cil.workflows.plan.label_checks import refuse_unlabelled
from nnunet_cil.workflows.plan.preprocessed_data import (
    PreprocessedData,
    check_presence,
    deal_among_steps,
    read_base_plans,
    read_first,
    read_others,
)
from nnunet_cil.workflows.plan.sequence_of_datasets import check_data_sets, move_plans, plans_on, step_data_sets
from nnunet_cil.workflows.plan.step_files import (
    LONGEST_TRAINER,
    NAME_REMEDY,
    check_length,
    planned_first_trainer,
    refuse_if_trained,
    step_plans_file,
    without_kept,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PlannedStep:
    """A step's plans file.

    Attributes:
        plan: what the step learns.
        plans_name: the name of its plans.
        file: their file.
        written: whether the file had to be written.
        configurations: which of nnU-Net's configurations are preprocessed for the first step.
        folds: in which every step can be trained.
    """

    plan: StepPlan
    plans_name: str
    file: Path
    written: bool
    configurations: tuple[str, ...]
    folds: tuple[int | str, ...]

    @property
    def dataset(self) -> str:
        """nnU-Net's name of the step's data set."""
        return self.file.parent.name

    @property
    def cascades(self) -> dict[str, str]:
        """The cascades of its plans -> the stage before each."""
        found = read_json(self.file, "")["configurations"]
        return {name: own["previous_stage"] for name, own in found.items() if own.get("previous_stage")}


@dataclass(frozen=True, kw_only=True)
class PlannedTrainings:
    """Lists what is going to be trained with the steps' plans.

    Attributes:
        configuration: nnU-Net's.
        folds: nnU-Net's.
        trainers: class names.
    """

    configuration: str
    folds: tuple[int | str, ...]
    trainers: tuple[str, ...]


def plan(
    dataset: str | int,
    schedule_name: str | Path,
    *,
    base_plans: str = "nnUNetPlans",
    first_trainer: str | None = None,
    force: bool = False,
) -> list[PlannedStep]:
    """Writes the plans files of a schedule's steps, as ``write_step_plans`` does, and logs what may be a slip in it.

    Args:
        dataset: see ``write_step_plans``.
        schedule_name: a shipped schedule or a file.
        base_plans: see ``write_step_plans``, as the other arguments.
        first_trainer: the trainer whose step 0 every trainer continues from.
        force: go on where data sets differ.

    Raises:
        CILError: anything that cannot work, before a step's plans are written.
    """
    schedule, first = load_schedule(schedule_name), dataset_name(dataset)
    _check_hyperparameters(schedule, schedule_name, _files(schedule, step_data_sets(schedule, first), base_plans))
    _log_unknown_hyperparameters(schedule)
    steps = write_step_plans(dataset, schedule, base_plans=base_plans, first_trainer=first_trainer, force=force)
    if not all(step.plan.is_numbered_as_the_data_set for step in steps):
        logger.info(f"Note: {NUMBERS_DIFFER}")
    if cascades := list(steps[0].cascades):
        for reason in refusals_of_cascades(step.plan for step in steps):
            logger.info(f"Note on {', '.join(cascades)}: {reason}")
    return steps


def write_step_plans(
    dataset: str | int,
    schedule: Schedule,
    *,
    base_plans: str = "nnUNetPlans",
    first_trainer: str | None = None,
    force: bool = False,
    trainings: PlannedTrainings | None = None,
) -> list[PlannedStep]:
    """Writes the plans files of a schedule's steps beside the base plans. No image is preprocessed again.

    Where steps learn from other data sets, the base plans are moved there first; these data sets must then be preprocessed
    with the moved plans.

    Args:
        dataset: nnU-Net's ID or name of the first step's data set; must be preprocessed.
        schedule: what to learn when.
        base_plans: the name of the plans that the steps copy.
        first_trainer: the trainer whose step 0 every trainer continues from; None: as planned before, else each its own.
        force: go on where a further data set differs from the first in a way that blocks otherwise, and with too few cases for
            nnU-Net's split.
        trainings: what is going to be trained; None where that is not known yet.

    Raises:
        CILError: anything that cannot work, before a step's plans are written.
    """
    first = dataset_name(dataset)
    if first_trainer is not None:
        trainer_class(first_trainer)
    base = read_base_plans(first, base_plans)
    datasets = step_data_sets(schedule, first)
    check_data_sets(schedule, datasets, base_plans, force=force)
    configurations = preprocessed_configurations(nnunet_folder("nnUNet_preprocessed") / first, base)
    files = _files(schedule, datasets, base_plans)
    if trainings is None:
        for file in files:
            check_length(file.stem, configurations, {LONGEST_TRAINER, first_trainer or LONGEST_TRAINER}, NAME_REMEDY)
    data = _read_data(datasets, base, base_plans, trainings, force=force)
    own = [data[name] for name in datasets]
    steps = _plan_steps(schedule, datasets, data, files, first_trainer)
    folds = _check_steps(steps, own, first_trainer, trainings, force=force)
    written = _write_changed(own, steps, files)
    return [
        PlannedStep(
            plan=s, plans_name=f.stem, file=f, written=w, configurations=tuple(configurations), folds=tuple(folds)
        )
        for s, f, w in zip(steps, files, written, strict=True)
    ]


def _read_data(
    datasets: Sequence[str], base: dict[str, Any], base_plans: str, trainings: PlannedTrainings | None, *, force: bool
) -> dict[str, PreprocessedData]:
    """Reads each data set once; the plans of the first one are moved to the others."""
    first = datasets[0]
    data = {first: read_first(first, base, None if trainings is None else trainings.configuration)}
    if set(datasets) != {first}:
        move_plans(datasets, base_plans, force=force)
        if trainings is not None:
            check_raw_folds(datasets, trainings.folds)
        elif not force:
            check_raw_splits(datasets)
        data |= read_others(datasets, base_plans, list(data[first].present))
    for name, found in data.items():
        check_training_grids(name, found.dataset_json, reader_of(found.plans))
    return data


def _files(schedule: Schedule, datasets: Sequence[str], base_plans: str) -> list[Path]:
    """Returns the plans file of each step."""
    folder, first = nnunet_folder("nnUNet_preprocessed"), datasets[0]
    names = [plans_on(name, first, base_plans) for name in datasets]
    return [
        folder / dataset / f"{step_plans_name(name, schedule.name, index)}.json"
        for index, (dataset, name) in enumerate(zip(datasets, names, strict=True))
    ]


def _check_steps(
    steps: Sequence[StepPlan],
    data: Sequence[PreprocessedData],
    first_trainer: str | None,
    trainings: PlannedTrainings | None,
    *,
    force: bool,
) -> Sequence[int | str]:
    """Refuses labels that dataset.json denies, folds that are not there or lack a class, and trainers that need other data.

    Returns the folds that can be trained.
    """
    for step, found in zip(steps, data, strict=True):
        for present in found.present.values():
            refuse_unlabelled(step, present)
    if trainings is None or set(trainings.folds) != {"all"}:
        note_unlisted_cases({found.folder: found for found in data}.values())
    if trainings is None:
        return note_folds(steps, data, force=force)
    check_folds(steps, data, trainings.folds)
    for trainer in map(trainer_class, trainings.trainers):
        for step, found in zip(steps, data, strict=True):
            if step.step > 0 or first_trainer is None:
                check_data(trainer, step, found.folder.name)
            if is_cascade(found.plans, trainings.configuration):
                check_cascade(trainer, step)
    return trainings.folds


def _check_hyperparameters(schedule: Schedule, schedule_name: str | Path, files: Sequence[Path]) -> None:
    """Refuses values that no trainer of nnunet_cil takes, but for those with which a step has begun to train."""
    for index, (step, file) in enumerate(zip(schedule.steps, files, strict=True)):
        check_hyperparameters(without_kept(step.hyperparameters, file), f"{schedule_name}, step {index}")


def _log_unknown_hyperparameters(schedule: Schedule) -> None:
    """Logs which names none of nnunet_cil's trainers has: misspelt, or of a trainer of the user's own."""
    names = {name for step in schedule.steps for name in step.hyperparameters}
    if not names:
        return
    known = hyperparameter_names()
    for name in sorted(names - known - fixed_everywhere().keys()):
        logger.info(
            f"Note: no trainer of nnunet_cil has the hyper-parameter {name!r}{did_you_mean(name, sorted(known))}. A trainer "
            "without it refuses the schedule."
        )


def _plan_steps(
    schedule: Schedule,
    datasets: Sequence[str],
    data: Mapping[str, PreprocessedData],
    files: Sequence[Path],
    first_trainer: str | None,
) -> list[StepPlan]:
    """Deals out the cases, and says of each step what it learns from which of them."""
    for name, found in data.items():
        refuse_other_labelled_classes(name, found.dataset_json)
        tests = label_file_names(name, found.dataset_json["file_ending"], "labelsTs")
        check_labelled_classes(found.dataset_json, {*found.cases, *tests}, dataset=name)
    own = [data[name] for name in datasets]
    cases = deal_among_steps(schedule, datasets, data)
    check_presence(schedule, own, cases)
    first = first_trainer or (planned_first_trainer(files[1]) if len(files) > 1 else None)
    steps = plan_steps(schedule, datasets, [d.dataset_json for d in own], [f.stem for f in files], cases, first)
    return [
        replace(s, labelled=labelled_classes(d.dataset_json, s.cases or d.cases, s.evaluated_classes))
        for s, d in zip(steps, own, strict=True)
    ]


def _write_changed(data: Sequence[PreprocessedData], steps: Sequence[StepPlan], files: Sequence[Path]) -> list[bool]:
    """Writes the files whose content changes, all or none; returns which.

    Raises:
        CILError: a model was trained with plans that would change.
    """
    contents = [step_plans_file(d.plans, f.stem, s) for d, s, f in zip(data, steps, files, strict=True)]
    redo = "Remove it and run 'nnunet_cil plan' again."
    changed = [not f.is_file() or read_json(f, redo) != c for f, c in zip(files, contents, strict=True)]
    for file, content, is_changed in zip(files, contents, changed, strict=True):
        if is_changed:
            refuse_if_trained(file, content)
    for file, content, is_changed in zip(files, contents, changed, strict=True):
        if is_changed:
            write_json(file, content)
    return changed
