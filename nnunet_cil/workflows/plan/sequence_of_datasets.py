"""A schedule over several data sets: which step learns from which, and the first one's plans on the others."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import write_json
from nnunet_cil.host.dataset_json import preprocessed_or_raw
from nnunet_cil.host.folders import id_argument, known_dataset, nnunet_folder, raw_dataset_folder
from nnunet_cil.host.plans_files import moved_name, moved_plans, read_plans, reader_of
from nnunet_cil.host.preprocessed import preprocessed_configurations, refuse_other_preprocessing
from nnunet_cil.host.raw_dataset import read_raw
from nnunet_cil.labels import check_classes
from nnunet_cil.names import spelled_alike
from nnunet_cil.schedule import Schedule
from nnunet_cil.workflows.plan.compatibility import Note, compare_channels
from nnunet_cil.workflows.plan.transfer import compare_with_plans, refuse_blocking

logger = logging.getLogger(__name__)

_FORCE = "'nnunet_cil plan ... --force'"


def step_data_sets(schedule: Schedule, dataset: str | int) -> tuple[str, ...]:
    """Returns nnU-Net's name of each step's data set.

    Args:
        schedule: whose steps may name one.
        dataset: nnU-Net's ID or name of the first step's data set, and of all steps that name none.

    Raises:
        CILError: a data set is not there, or the first step names another one.
    """
    first = known_dataset(dataset)
    names = []
    for index, step in enumerate(schedule.steps):
        try:
            names.append(first if step.dataset is None else known_dataset(step.dataset))
        except CILError as error:
            raise CILError(f"step {index} of {schedule.name}: {error}") from error
    if names[0] != first:
        raise CILError(
            f"step 0 of {schedule.name} learns from {names[0]}, but the command names {first}. Call it with {names[0]}: it is "
            "the data set of step 0, and of every step that names none."
        )
    return tuple(names)


def plans_on(dataset: str, first: str, base_plans: str) -> str:
    """Returns the name of the plans that a data set's steps copy: the base plans, or these moved from the first data set."""
    return base_plans if dataset == first else moved_name(base_plans, first)


def check_data_sets(schedule: Schedule, datasets: Sequence[str], base_plans: str, *, force: bool = False) -> None:
    """Checks what ``dataset.json`` tells before any long work.

    Args:
        schedule: what to learn when.
        datasets: nnU-Net's name of each step's data set.
        base_plans: the name of the first one's plans.
        force: other channels than those of the first data set are all right; so they are once its plans are moved.

    Raises:
        CILError: a class that is not in its step's data set, other channels, another format of files, or an ID by which nnU-Net
            finds several data sets.
    """
    first = datasets[0]
    known = {name: preprocessed_or_raw(name) for name in dict.fromkeys(datasets)}
    for name, content in known.items():
        own = [s.classes if d == name else () for s, d in zip(schedule.steps, datasets, strict=True)]
        check_classes(own, content["labels"], schedule=schedule.name, dataset=name)
        _refuse_alike(schedule, datasets, name)
        if content["file_ending"] != known[first]["file_ending"]:
            raise CILError(
                f"The files of {name} end in {content['file_ending']}, those of {first} in {known[first]['file_ending']}, but "
                "every model predicts cases of all data sets. Convert one of them."
            )
        if name != first:
            channels = compare_channels(known[first]["channel_names"], content["channel_names"])
            is_moved = (_preprocessed(name) / f"{plans_on(name, first, base_plans)}.json").is_file()
            if not is_moved:
                id_argument(name)  # which nnU-Net preprocesses it by
            _refuse_blocking([channels], first, name, force=force or is_moved)


def _refuse_alike(schedule: Schedule, datasets: Sequence[str], dataset: str) -> None:
    """Refuses a class whose name looks like another spelling of one that another data set's step learns."""
    steps = list(zip(schedule.steps, datasets, strict=True))
    others = {c: f"step {i}, {d}" for i, (step, d) in enumerate(steps) if d != dataset for c in step.classes}
    for name in (c for step, d in steps if d == dataset for c in step.classes):
        if alike := spelled_alike(name, others):
            raise CILError(
                f"{schedule.name}: {name!r} of {dataset} looks like another spelling of {alike[0]!r} ({others[alike[0]]}). If it "
                "is the same organ, learn it once: take one of the two out of the schedule, with its step where no other class "
                "is in it. If it is another one, give it a name of its own in the schedule and in dataset.json (in "
                "nnUNet_preprocessed, too, where that has one)."
            )


def move_plans(datasets: Sequence[str], base_plans: str, *, force: bool = False) -> None:
    """Writes the first data set's plans for the others, and their dataset.json, where they are not there yet.

    Args:
        datasets: nnU-Net's name of each step's; the first one is preprocessed with the base plans.
        base_plans: their name.
        force: go on where differences block. Where the moved plans are there already, nothing is compared again.

    Raises:
        CILError: a data set is not compatible, or its folder of preprocessed data is filled by other plans.
    """
    first, *others = dict.fromkeys(datasets)
    base = read_plans(_preprocessed(first) / f"{base_plans}.json", "Run 'nnUNetv2_plan_and_preprocess' first.")
    for name in others:
        file = _preprocessed(name) / f"{plans_on(name, first, base_plans)}.json"
        written = read_plans(file, "") if file.is_file() else None
        if written is None or written != moved_plans(base, name, str(written["image_reader_writer"]), file.stem):
            _move(base, first, file, force=force)


def _move(base: dict[str, Any], first: str, file: Path, *, force: bool) -> None:
    """Compares and writes; ``file`` takes the plans, in the other data set's preprocessed folder."""
    target, name = file.parent, file.parent.name
    content = preprocessed_or_raw(name)
    raw = read_raw(raw_dataset_folder(name), content, reader_of(base))
    configurations = preprocessed_configurations(_preprocessed(first), base)
    notes = compare_with_plans(raw, base, configurations, preprocessed_or_raw(first)["channel_names"])
    logger.info(f"{name}, with the plans of {first}:")
    for note in notes:
        logger.info(str(note))
    _refuse_blocking(notes, first, name, force=force)
    plans = moved_plans(base, name, type(raw.reader).__name__, file.stem)
    for configuration in preprocessed_configurations(target, plans):
        remedy = f"Remove that folder and {file.name}, or take base plans of another name with -p."
        refuse_other_preprocessing(target, plans, configuration, remedy)
    target.mkdir(exist_ok=True)
    if not (target / "dataset.json").is_file():
        write_json(target / "dataset.json", content)
    write_json(file, plans)


def _preprocessed(dataset: str) -> Path:
    return nnunet_folder("nnUNet_preprocessed") / dataset


def _refuse_blocking(notes: Sequence[Note], first: str, name: str, *, force: bool) -> None:
    refuse_blocking(
        notes,
        force=force,
        untrainable=f"{name} does not fit the plans of {first}",
        doubt=f"{name} does not look like {first}, whose plans it takes over",
        option=_FORCE,
    )
