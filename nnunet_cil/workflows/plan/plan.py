"""``nnunet_cil plan``: one nnU-Net plans file a step, on data that are already preprocessed."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_cil.errors import CILError, did_you_mean
from nnunet_cil.files import read_json, write_json
from nnunet_cil.host.folders import dataset_id, dataset_name, nnunet_folder
from nnunet_cil.host.preprocess import PLANNERS, missing_commands
from nnunet_cil.host.preprocessed import preprocessed_configurations, scan_labels
from nnunet_cil.host.splits import deal_cases, validation_folds
from nnunet_cil.labels import check_labelled_classes, labelled_classes
from nnunet_cil.schedule import Schedule, load_schedule
from nnunet_cil.step_plans import StepPlan, plan_steps
from nnunet_cil.training.catalogue import hyperparameter_names, trainer_class
from nnunet_cil.workflows.plan.sequence_of_datasets import check_data_sets, move_plans, plans_on, step_data_sets


@dataclass(frozen=True)
class PlannedStep:
    """A step's plans file, whether it had to be written, and which of nnU-Net's configurations are preprocessed."""

    plan: StepPlan
    plans_name: str
    file: Path
    written: bool
    configurations: tuple[str, ...]

    @property
    def dataset(self) -> str:
        """nnU-Net's name of the step's data set."""
        return self.file.parent.name


@dataclass(frozen=True)
class _Preprocessed:
    """A data set of the schedule: its folder, its plans, and what its preprocessed cases hold.

    ``present``: case -> the labels that it holds.
    """

    folder: Path
    dataset_json: dict[str, Any]
    plans: dict[str, Any]
    present: dict[str, set[int]]

    @property
    def labels(self) -> dict[str, int]:
        """Name -> number."""
        labels: dict[str, int] = self.dataset_json["labels"]
        return labels


def plan(
    dataset: str | int,
    schedule_name: str | Path,
    *,
    base_plans: str = "nnUNetPlans",
    first_trainer: str | None = None,
    force: bool = False,
    say: Callable[[str], None] = lambda _line: None,
) -> list[PlannedStep]:
    """Writes the plans files of a schedule's steps beside the base plans. No image is preprocessed again.

    Where steps learn from other data sets, the base plans are moved there first; these data sets must then be preprocessed
    with the moved plans.

    Args:
        dataset: nnU-Net's data set ID or name, of the first step; must be preprocessed.
        schedule_name: a shipped schedule or a file.
        base_plans: name of the plans that the steps copy.
        first_trainer: the trainer whose step 0 every trainer continues from; None: as planned before, else each its own.
        force: go on where a further data set differs dangerously from the first.
        say: takes what was compared there, a line at a time.

    Raises:
        CILError: anything that cannot work, before a step's plans are written.
    """
    schedule = load_schedule(schedule_name)
    name = dataset_name(dataset)
    if first_trainer is not None:
        trainer_class(first_trainer)
    folder = nnunet_folder("nnUNet_preprocessed") / name
    planner = f" -pl {PLANNERS[base_plans]}" if base_plans in PLANNERS and base_plans != "nnUNetPlans" else ""
    redo = f"Run 'nnUNetv2_plan_and_preprocess -d {dataset_id(name)}{planner}' first."
    if not (folder / f"{base_plans}.json").is_file() and base_plans not in PLANNERS:
        known = sorted(f.stem for f in folder.glob("*Plans*.json") if not re.search(r"_step\d+$", f.stem))
        raise CILError(
            f"{folder} has no plans {base_plans!r}{did_you_mean(base_plans, known)}. Give the name of plans with -p."
        )
    dataset_json = read_json(folder / "dataset.json", redo)
    plans = read_json(folder / f"{base_plans}.json", redo)
    if "cil" in plans:
        raise CILError(f"{base_plans!r} is itself the plans of a step; give the base plans with -p.")
    datasets = step_data_sets(schedule, name)
    check_data_sets(schedule, datasets, base_plans, force=force)
    _note_unknown_hyperparameters(schedule, say)

    data = {name: _Preprocessed(folder, dataset_json, plans, scan_labels(folder, plans, dataset_json["labels"]))}
    if set(datasets) != {name}:
        move_plans(datasets, base_plans, force=force, say=say)
        data |= _others(datasets, base_plans, preprocessed_configurations(folder, plans))
    for d, found in data.items():
        check_labelled_classes(found.dataset_json, found.present, dataset=d)
    own = [data[d] for d in datasets]
    cases = _deal(schedule, datasets, data)
    _check_presence(schedule, own, cases)

    plans_names = [f"{plans_on(d, name, base_plans)}_{schedule.name}_step{i}" for i, d in enumerate(datasets)]
    files = [d.folder / f"{n}.json" for d, n in zip(own, plans_names, strict=True)]
    first = first_trainer or (planned_first_trainer(files[1]) if len(files) > 1 else None)
    planned = plan_steps(schedule, datasets, [d.labels for d in own], plans_names, cases, first)
    steps = [
        replace(s, labelled=labelled_classes(d.dataset_json, s.cases or d.present, s.evaluated_classes))
        for s, d in zip(planned, own, strict=True)
    ]
    contents = [step_plans_file(d.plans, n, step) for d, n, step in zip(own, plans_names, steps, strict=True)]
    changed = [
        not f.is_file() or json.loads(f.read_text(encoding="utf-8")) != c for f, c in zip(files, contents, strict=True)
    ]
    for plans_name, file, is_changed in zip(plans_names, files, changed, strict=True):
        if is_changed and file.is_file():
            refuse_if_trained(file.parent.name, plans_name)
    for file, content, is_changed in zip(files, contents, changed, strict=True):
        if is_changed:
            write_json(file, content)
    configurations = tuple(preprocessed_configurations(folder, plans))
    return [PlannedStep(*row, configurations) for row in zip(steps, plans_names, files, changed, strict=True)]


def _note_unknown_hyperparameters(schedule: Schedule, say: Callable[[str], None]) -> None:
    """Says which names none of nnunet_cil's trainers has: misspelt, or of a trainer of the user's own."""
    names = {name for step in schedule.steps for name in step.hyperparameters}
    if not names:
        return
    known = hyperparameter_names()
    for name in sorted(names - known):
        say(
            f"Note: no trainer of nnunet_cil has the hyper-parameter {name!r}{did_you_mean(name, sorted(known))}. A trainer "
            "without it refuses the schedule."
        )


def planned_first_trainer(file: Path) -> str | None:
    """Whose step 0 the plans of step 1 continue; None: each trainer's own, or they are not there."""
    if not file.is_file():
        return None
    first: str | None = json.loads(file.read_text(encoding="utf-8"))["cil"]["previous"]["trainer"]
    return first


def _others(datasets: Sequence[str], base_plans: str, configurations: Sequence[str]) -> dict[str, _Preprocessed]:
    """The data sets after the first, preprocessed with the moved plans.

    Raises:
        CILError: one is not, in any of the configurations; with nnU-Net's commands for all of them.
    """
    first, *others = dict.fromkeys(datasets)
    names = {name: plans_on(name, first, base_plans) for name in others}
    missing = {name: {c: missing_commands(name, c, names[name]) for c in configurations} for name in others}
    todo = [line for per in missing.values() if all(per.values()) for lines in per.values() for line in lines]
    if todo:
        which = ", ".join(name for name, per in missing.items() if all(per.values()))
        commands = "\n".join(f"  {line}" for line in dict.fromkeys(" ".join(line) for line in todo))
        raise CILError(
            f"The plans of {first} are moved to {which}, which is not preprocessed with them yet. Run (for the configurations "
            f"that you train)\n{commands}\nand then this again; 'nnunet_cil run' does all of it by itself."
        )
    found = {}
    for name in others:
        folder = nnunet_folder("nnUNet_preprocessed") / name
        dataset_json = read_json(folder / "dataset.json", "Run 'nnunet_cil plan' again.")
        plans = read_json(folder / f"{names[name]}.json", "Run 'nnunet_cil plan' again.")
        complete = {c: plans["configurations"][c] for c, lines in missing[name].items() if not lines}
        present = scan_labels(folder, {**plans, "configurations": complete}, dataset_json["labels"])
        found[name] = _Preprocessed(folder, dataset_json, plans, present)
    return found


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


def _deal(schedule: Schedule, datasets: Sequence[str], data: Mapping[str, _Preprocessed]) -> list[Sequence[str] | None]:
    """The cases of each step: None (all) under ``shared``; under ``disjoint`` dealt out among a data set's steps."""
    cases: list[Sequence[str] | None] = [None] * len(datasets)
    if schedule.cases == "shared":
        return cases
    for name, found in data.items():
        steps = [i for i, d in enumerate(datasets) if d == name]
        names = sorted(found.present)
        if len(names) < len(steps):
            raise CILError(
                f"Schedule {schedule.name} deals cases out to {len(steps)} steps, but there are only {len(names)} cases"
                f"{'' if len(data) == 1 else f' in {name}'}."
            )
        for step, hand in zip(steps, deal_cases(len(steps), names, validation_folds(found.folder, names)), strict=True):
            cases[step] = hand
    return cases


def _check_presence(schedule: Schedule, data: Sequence[_Preprocessed], cases: Sequence[Sequence[str] | None]) -> None:
    """Every class is labelled in every case of its step, and is in one of them."""
    for index, (step, found) in enumerate(zip(schedule.steps, data, strict=True)):
        dataset, labels, own_cases = found.folder.name, found.labels, cases[index]
        own = found.present if own_cases is None else {case: found.present[case] for case in own_cases}
        for case, labelled in labelled_classes(found.dataset_json, own, step.classes).items():
            hidden = next(name for name in step.classes if name not in labelled)
            raise CILError(
                f"step {index} of {schedule.name} learns {hidden!r}, but 'labelled_classes' in dataset.json of {dataset} says "
                f"that case {case!r} does not label it. A schedule's steps need their classes in every case: leave such "
                "cases out, or teach the class to a trained model with 'nnunet_cil extend'."
            )
        for class_name in step.classes:
            if not any(labels[class_name] in values for values in own.values()):
                raise CILError(
                    f"step {index} of {schedule.name} learns {class_name!r} (label {labels[class_name]}), "
                    f"but none of its {len(own)} cases has that label."
                )


def refuse_if_trained(dataset: str, plans_name: str) -> None:
    """Refuses to change plans that a model was trained with."""
    results = nnunet_folder("nnUNet_results") / dataset
    used = sorted({c.parent.parent.name for c in results.glob(f"*__{plans_name}__*/fold_*/checkpoint_*.pth")})
    if used:
        raise CILError(
            f"The plans {plans_name!r} would change, but {', '.join(used)} was trained with them. Give the "
            "schedule another name, or remove that training."
        )
