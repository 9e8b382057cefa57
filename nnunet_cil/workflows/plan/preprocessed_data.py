"""The preprocessed data sets of a schedule: their plans, what their cases hold, and which step gets which cases."""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError, did_you_mean, few_names
from nnunet_cil.host.dataset_json import read_dataset_json
from nnunet_cil.host.folders import id_argument, nnunet_folder
from nnunet_cil.host.plans_files import preprocessed_for, read_plans, refuse_other_data_set
from nnunet_cil.host.preprocess import PLANNERS, missing_commands
from nnunet_cil.host.preprocessed import PreprocessedCases, preprocessed_configurations, scan_labels
from nnunet_cil.host.raw_dataset import read_raw_if_there
from nnunet_cil.host.splits import SPLITS_FILE, deal_cases, split_of, unlisted_cases
from nnunet_cil.labels import Label, label_text, labelled_classes, numbers_in
from nnunet_cil.schedule import Schedule
from nnunet_cil.workflows.plan.label_checks import refuse_old_labels, refuse_other_numbers
from nnunet_cil.workflows.plan.sequence_of_datasets import plans_on

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PreprocessedData:
    """A preprocessed data set of the schedule.

    Attributes:
        folder: in nnUNet_preprocessed.
        dataset_json: the content of its dataset.json.
        plans: the base plans on it, that its steps copy.
        present: configuration -> case -> the labels that it holds.
    """

    folder: Path
    dataset_json: dict[str, Any]
    plans: dict[str, Any]
    present: dict[str, dict[str, set[int]]]

    @property
    def cases(self) -> list[str]:
        """Its training cases, which every configuration has."""
        return sorted(set.intersection(*map(set, self.present.values())))

    @property
    def labels(self) -> dict[str, Label]:
        """Name -> number, or numbers of a region."""
        labels: dict[str, Label] = self.dataset_json["labels"]
        return labels


def read_base_plans(dataset: str, base_plans: str) -> dict[str, Any]:
    """Reads the plans that a schedule's steps copy.

    Args:
        dataset: nnU-Net's name of the first step's data set.
        base_plans: the name of the plans.

    Raises:
        CILError: they are missing, are those of a step or of another data set, or have a name with ``__``.
    """
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    file = folder / f"{base_plans}.json"
    if "__" in base_plans:
        raise CILError(
            f"The plans {base_plans!r} would make models that nobody can read: in a model's name '__' stands between trainer, "
            f"plans and configuration. Rename {file}, and its 'plans_name', without '__'."
        )
    if not file.is_file() and base_plans not in PLANNERS:
        known = sorted(f.stem for f in folder.glob("*Plans*.json") if not re.search(r"_step\d+$", f.stem))
        raise CILError(
            f"{folder} has no plans {base_plans!r}{did_you_mean(base_plans, known)}. Give the name of plans with -p."
        )
    planner = f" -pl {PLANNERS[base_plans]}" if base_plans in PLANNERS and base_plans != "nnUNetPlans" else ""
    with_plans = folder / "dataset.json"  # nnU-Net writes it with the plans
    is_there = file.is_file() and with_plans.is_file()
    first = f"Run 'nnUNetv2_plan_and_preprocess -d {id_argument(dataset)}{planner}' first."
    redo = "Restore it." if is_there else first
    read_dataset_json(with_plans, f"Copy that of nnUNet_raw/{dataset} there." if is_there else first)
    plans = read_plans(file, redo)
    refuse_other_data_set(plans, file)
    if "cil" in plans:
        raise CILError(f"{base_plans!r} is itself the plans of a step; give the base plans with -p.")
    return plans


def read_first(dataset: str, base: dict[str, Any], configuration: str | None = None) -> PreprocessedData:
    """Reads the data set of the first step.

    Args:
        dataset: nnU-Net's name.
        base: its base plans.
        configuration: the only one that is going to be trained, before a cascade its first stage; None for any that is
            preprocessed.

    Raises:
        CILError: it is not preprocessed, a case is missing or cannot be read, or its raw labels have changed since.
    """
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    configurations = preprocessed_configurations(folder, base)
    if not configurations:
        command = shlex.join(["nnUNetv2_preprocess", "-d", id_argument(dataset), "-plans_name", base["plans_name"]])
        raise CILError(f"No configuration of {dataset} is preprocessed yet. Run '{command}' first.")
    names = preprocessed_for(base, configuration) if configuration and configuration in base["configurations"] else ()
    return _read(dataset, base, [name for name in configurations if name in names] or configurations)


def read_others(datasets: Sequence[str], base_plans: str, configurations: Sequence[str]) -> dict[str, PreprocessedData]:
    """Reads the data sets after the first, preprocessed with the moved plans.

    Args:
        datasets: nnU-Net's name of each step's data set.
        base_plans: the name of the first one's plans.
        configurations: that are preprocessed there.

    Raises:
        CILError: one is preprocessed in none of the configurations; with nnU-Net's commands for all of them.
    """
    first, *others = dict.fromkeys(datasets)
    names = {name: plans_on(name, first, base_plans) for name in others}
    missing = {name: {c: missing_commands(name, c, names[name]) for c in configurations} for name in others}
    unprocessed = [name for name, commands in missing.items() if all(commands.values())]
    if unprocessed:
        lines = [shlex.join(c) for name in unprocessed for commands in missing[name].values() for c in commands]
        told = "\n".join(f"  {line}" for line in dict.fromkeys(lines))
        raise CILError(
            f"The plans of {first} are moved to {', '.join(unprocessed)}, which is not preprocessed with them yet. Run (for the "
            f"configurations that you train)\n{told}\nand then this again; 'nnunet_cil run' does all of it by itself."
        )
    found = {}
    for name in others:
        file = nnunet_folder("nnUNet_preprocessed") / name / f"{names[name]}.json"
        plans = read_plans(file, "Run 'nnunet_cil plan' again.")
        found[name] = _read(name, plans, [c for c, commands in missing[name].items() if not commands])
    return found


def _read(dataset: str, plans: dict[str, Any], configurations: Sequence[str]) -> PreprocessedData:
    """Reads a data set in some of the configurations that are preprocessed."""
    folder = nnunet_folder("nnUNet_preprocessed") / dataset
    dataset_json = read_dataset_json(folder / "dataset.json", "Run 'nnunet_cil plan' again.")
    data = [PreprocessedCases.of(folder, plans, configuration) for configuration in configurations]
    raw = read_raw_if_there(dataset)
    if raw is not None:
        refuse_other_numbers(folder, raw.dataset_json["labels"])
    _check_missing(data, () if raw is None else raw.cases)
    if raw is not None:
        for one in data:
            refuse_old_labels(one.folder, raw)
    present = scan_labels(folder, plans, dataset_json["labels"], configurations)
    return PreprocessedData(folder=folder, dataset_json=dataset_json, plans=plans, present=present)


def _check_missing(data: Sequence[PreprocessedCases], cases: Iterable[str]) -> None:
    """Refuses configurations that lack cases of the raw data set, or of another configuration; those in no fold are noted."""
    names = {one.configuration: set(one.names()) for one in data}
    expected = set(cases).union(*names.values())
    for one in data:
        missing = sorted(expected - names[one.configuration])
        unlisted = unlisted_cases(one.folder.parent, missing)
        if needed := sorted(set(missing) - set(unlisted)):
            raise CILError(
                f"{one.folder} lacks {len(needed)} of {len(expected)} cases ({few_names(needed)}), and nnU-Net would train "
                f"without them. Run '{one.command}', or remove that folder if you do not train {one.configuration}."
            )
        if missing:
            logger.info(
                f"Note: {one.folder} lacks {len(missing)} of {len(expected)} cases ({few_names(missing)}), which {SPLITS_FILE} "
                f"does not list. To preprocess them: '{one.command}'."
            )


def deal_among_steps(
    schedule: Schedule, datasets: Sequence[str], data: Mapping[str, PreprocessedData]
) -> list[Sequence[str] | None]:
    """Returns the cases of each step: None (all) under ``shared``; under ``disjoint`` dealt out among a data set's steps.

    Args:
        schedule: what to learn when.
        datasets: nnU-Net's name of each step's data set.
        data: the data sets, by name.

    Raises:
        CILError: a data set has fewer cases than steps.
    """
    cases: list[Sequence[str] | None] = [None] * len(datasets)
    if schedule.cases == "shared":
        return cases
    for name, found in data.items():
        steps = [i for i, d in enumerate(datasets) if d == name]
        names = found.cases
        if len(names) < len(steps):
            raise CILError(
                f"Schedule {schedule.name} deals cases out to {len(steps)} steps, but there are only {len(names)} cases"
                f"{'' if len(data) == 1 else f' in {name}'}."
            )
        folds = [fold.validation for fold in split_of(found.folder, names)]
        for step, hand in zip(steps, deal_cases(len(steps), names, folds), strict=True):
            cases[step] = hand
    return cases


def check_presence(schedule: Schedule, data: Sequence[PreprocessedData], cases: Sequence[Sequence[str] | None]) -> None:
    """Refuses a step with a class that is not labelled in every case of the step, or is in none of them.

    Args:
        schedule: what to learn when.
        data: each step's data set.
        cases: each step's cases; None for all.

    Raises:
        CILError: names the step and the class.
    """
    for index, (step, found) in enumerate(zip(schedule.steps, data, strict=True)):
        dataset, labels, own = found.folder.name, found.labels, cases[index] or found.cases
        for case, labelled in labelled_classes(found.dataset_json, own, step.classes).items():
            hidden = next(name for name in step.classes if name not in labelled)
            raise CILError(
                f"step {index} of {schedule.name} learns {hidden!r}, but 'labelled_classes' in dataset.json of {dataset} says "
                f"that case {case!r} does not label it. A schedule's steps need their classes in every case: leave such "
                "cases out, or teach the class to a trained model with 'nnunet_cil extend'."
            )
        for configuration, present in found.present.items():
            for class_name in step.classes:
                numbers = set(numbers_in(labels[class_name]))
                if all(numbers.isdisjoint(present[case]) for case in own):
                    raise CILError(
                        f"step {index} of {schedule.name} learns {class_name!r} ({label_text(labels[class_name])}), but none of "
                        f"its {len(own)} cases has that label in {configuration}. Look for it with 'nnunet_cil inspect', and "
                        "preprocess again."
                    )
