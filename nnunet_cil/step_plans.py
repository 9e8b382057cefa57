"""The ``"cil"`` block of a step's nnU-Net plans file: everything a trainer needs to know about its step."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from nnunet_cil.errors import CILError
from nnunet_cil.files import json_sha256, json_type, shortened
from nnunet_cil.labels import Label, has_regions, label_map, model_labels, numbers_in
from nnunet_cil.regions import RegionLabels, check_number_of_regions
from nnunet_cil.schedule import DEFAULT_EPOCHS, Schedule
from nnunet_cil.validation import validated

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class PreviousModel:
    """Where the previous step's model is, relative to ``nnUNet_results``. None means: as in this step.

    Attributes:
        dataset: nnU-Net's name.
        plans: name.
        trainer: class name.
        configuration: nnU-Net's; None, too, where both stages of a cascade continue from their own.
        folder: of a model that is not in ``nnUNet_results`` (above the folds), absolute; counts instead of all else. Without a
            configuration that of one stage of a cascade; the other one is beside it.
    """

    dataset: str
    plans: str
    trainer: str | None = None
    configuration: str | None = None
    folder: str | None = None


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """One step of a schedule on one data set.

    Attributes:
        schedule: name of the schedule.
        step: index of the step, from 0.
        steps: the classes of every step of the schedule; none in a step that only refines old ones.
        dataset_labels: the labels of the step's data set, name -> number or region, when the step was planned.
        labels: the model's labels after this step, name -> channel (ignore after the last channel); or regions, in the order of
            the channels.
        cases: the training cases this step may see; None for all.
        earlier_cases: those of each earlier step, for trainers that may see old data (joint training, replay); empty where
            all steps share their cases, and for a step of another data set.
        refined: old classes whose labels in this data set are used, too, in channel order.
        labelled: case -> which of the evaluated classes its labels hold; only the cases that do not hold all of them.
        regions_class_order: nnU-Net's, of the model's regions: the number that a prediction gets in each; empty without regions.
        label_offset: added to the data set's labels in those of a model of regions.
    """

    schedule: str
    step: int
    steps: tuple[tuple[str, ...], ...]
    dataset_labels: dict[str, Label]
    labels: dict[str, Label]
    cases: tuple[str, ...] | None = None
    previous: PreviousModel | None = None
    training: dict[str, Any] = field(default_factory=dict)
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    earlier_cases: tuple[tuple[str, ...], ...] = ()
    refined: tuple[str, ...] = ()
    labelled: dict[str, tuple[str, ...]] = field(default_factory=dict)
    regions_class_order: tuple[int, ...] = ()
    label_offset: int = 0

    @property
    def has_regions(self) -> bool:
        """The model's classes overlap: a sigmoid for each, and no channel for the background."""
        return bool(self.regions_class_order)

    @property
    def model_labels(self) -> dict[str, Any]:
        """Returns dataset.json's words on the model's labels: ``labels``, and ``regions_class_order`` where there are regions."""
        order = {"regions_class_order": list(self.regions_class_order)} if self.has_regions else {}
        return {"labels": self.labels, **order}

    @property
    def new_classes(self) -> tuple[str, ...]:
        """The classes that this step adds."""
        return self.steps[self.step]

    @property
    def old_classes(self) -> tuple[str, ...]:
        """The foreground classes of the earlier steps, in channel order."""
        return tuple(name for classes in self.steps[: self.step] for name in classes)

    @property
    def seen_classes(self) -> tuple[str, ...]:
        """Old and new foreground classes, in channel order."""
        return self.old_classes + self.new_classes

    @property
    def task(self) -> str:
        """Says what the step does: ``learning kidney, refining liver``."""
        parts = (("learning", self.new_classes), ("refining", self.refined))
        return ", ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)

    @property
    def config(self) -> dict[str, Any]:
        """Returns what a logger outside of this machine may know of the step: no name of a case."""
        kept = ("schedule", "step", "steps", "labels", "refined", "training", "hyperparameters")
        return {name: getattr(self, name) for name in kept}

    @property
    def target_classes(self) -> tuple[str, ...]:
        """The classes whose labels training may see: the refined and the new ones, in channel order."""
        return self.refined + self.new_classes

    def target_classes_in(self, case: str) -> tuple[str, ...]:
        """Returns the target classes that a case's labels show, in channel order."""
        return tuple(name for name in self.target_classes if name in self.labelled.get(case, self.target_classes))

    @cached_property
    def differs_by_case(self) -> bool:
        """The labels of some case do not show every target class."""
        return any(self.target_classes_in(case) != self.target_classes for case in self.labelled)

    @property
    def evaluated_classes(self) -> tuple[str, ...]:
        """The seen classes that the data set has labels of, in channel order."""
        return tuple(name for name in self.seen_classes if name in self.dataset_labels)

    @property
    def num_epochs(self) -> int:
        """The length of the step's training."""
        return int(self.training.get("num_epochs", DEFAULT_EPOCHS))

    @property
    def num_old_channels(self) -> int:
        """K: background and old classes, 1 at step 0; of regions, which have no background, the old ones alone."""
        return len(self.old_classes) + (not self.has_regions)

    @property
    def num_channels(self) -> int:
        """K+N, what the model puts out."""
        return self.num_old_channels + len(self.new_classes)

    @cached_property
    def channels(self) -> dict[str, int]:
        """Foreground class -> its channel in the model's output."""
        if self.has_regions:
            names = [name for name in self.labels if name in self.seen_classes]
            return {name: channel for channel, name in enumerate(names)}
        return {name: numbers_in(self.labels[name])[0] for name in self.seen_classes}

    @cached_property
    def model_classes(self) -> tuple[str, ...]:
        """The seen classes in the order of the model's channels."""
        return tuple(sorted(self.seen_classes, key=self.channels.__getitem__))

    @property
    def old_channels(self) -> tuple[int, ...]:
        """The channels of the model that its teacher has, too, in the teacher's order."""
        return self.channel_order[: self.num_old_channels]

    @property
    def teacher_classes(self) -> tuple[str, ...]:
        """The old classes in the order of the teacher's channels."""
        return tuple(name for name in self.model_classes if name in self.old_classes)

    @cached_property
    def channel_order(self) -> tuple[int, ...]:
        """The channels of the model's output, those of the teacher first, in its order; then the new ones.

        Without regions this is 0, 1, ...: new channels come last. A new region lies where nnU-Net paints it.
        """
        if not self.has_regions:
            return tuple(range(self.num_channels))
        new = self.new_classes
        return tuple(c for is_new in (False, True) for name, c in self.channels.items() if (name in new) == is_new)

    @cached_property
    def positions(self) -> dict[str, int]:
        """Foreground class -> its place in ``channel_order``."""
        return {name: self.channel_order.index(channel) for name, channel in self.channels.items()}

    @property
    def region_bits(self) -> tuple[int, ...]:
        """The bit of each channel of nnU-Net's target in ``target_labels``; its last channel is the ignore label's."""
        of_channel = {channel: bit for bit, channel in enumerate(self.channel_order)}
        ignored = () if self.ignore_label is None else (self.num_channels,)
        return tuple(of_channel[channel] for channel in range(self.num_channels)) + ignored

    @property
    def ignore_label(self) -> int | None:
        """The ignore label in the targets of training, or None."""
        if "ignore" not in self.labels:
            return None
        return 1 << self.num_channels if self.has_regions else numbers_in(self.labels["ignore"])[0]

    def target_labels(self, classes: Collection[str]) -> dict[int, int]:
        """Returns data set label -> what stands for it in the targets of training, for some classes (and ignore) only.

        It is the channel. Of regions it has a bit for each that the label belongs to, at the region's place in
        ``channel_order``: a hidden label inside of a region is that region, and nothing else.
        """
        if not self.has_regions:
            return label_map(self.dataset_labels, self.labels, [c for c in self.seen_classes if c in classes])
        bits: dict[int, int] = {}
        for name in self.seen_classes:
            for number in numbers_in(self.dataset_labels[name]) if name in classes else ():
                bits[number] = bits.get(number, 0) | 1 << self.positions[name]
        if self.ignore_label is not None:
            bits[numbers_in(self.dataset_labels["ignore"])[0]] = self.ignore_label
        return bits

    def painted_before(self, number: int) -> int:
        """Returns what the previous step's model of regions predicts where this step's predicts ``number``; 0: background."""
        painted = dict(zip(self.model_classes, self.regions_class_order, strict=True))
        holding = [name for name in self.teacher_classes if number in numbers_in(self.labels[name])]
        return painted[holding[-1]] if holding else 0

    @property
    def evaluation_label_map(self) -> dict[int, int]:
        """Data set label -> model label, for the evaluated classes (and ignore): what a prediction is compared with."""
        if not self.has_regions:
            return label_map(self.dataset_labels, self.labels, self.evaluated_classes)
        numbers = [n for name in self.evaluated_classes for n in numbers_in(self.dataset_labels[name])]
        return {n: n + self.label_offset for n in numbers} | label_map(self.dataset_labels, self.labels, ())

    @property
    def is_numbered_as_the_data_set(self) -> bool:
        """Every evaluated class has the same number in the data set and in the model."""
        return all(label == channel for label, channel in self.evaluation_label_map.items())

    def to_json(self) -> dict[str, Any]:
        """Returns the block as it stands in the plans file, with a digest that tells whether it was edited.

        What few steps need is left out where it is empty.
        """
        content = json.loads(json.dumps(asdict(self)))
        for key in ("refined", "labelled", "regions_class_order", "label_offset"):
            if not content[key]:
                del content[key]
        if content["previous"] is not None and content["previous"]["folder"] is None:
            del content["previous"]["folder"]
        block = {"schema_version": SCHEMA_VERSION, **content}
        return {**block, "digest": json_sha256(block)}


def step_plans_name(base: str, schedule: str, step: int) -> str:
    """Returns the name of a step's plans, which copy ``base``."""
    return f"{base}_{schedule}_step{step}"


def plan_steps(
    schedule: Schedule,
    datasets: Sequence[str],
    dataset_jsons: Sequence[Mapping[str, Any]],
    plans_names: Sequence[str],
    cases: Sequence[Sequence[str] | None],
    first_trainer: str | None = None,
) -> list[StepPlan]:
    """Returns the step plans of a whole schedule.

    Args:
        schedule: what to learn when.
        datasets: nnU-Net's name of each step's data set.
        dataset_jsons: the content of each step's dataset.json.
        plans_names: the name of each step's plans.
        cases: the training cases of each step, or None for all.
        first_trainer: the trainer whose step 0 is continued at step 1; None for the trainer in use.
    """
    steps = []
    regions: RegionLabels | None = None
    if any(has_regions(content["labels"]) for content in dataset_jsons):
        regions = RegionLabels(numbers={}, painted={})
    for index, step in enumerate(schedule.steps):
        previous, dataset_labels = None, dict(dataset_jsons[index]["labels"])
        labels = labels_after(regions, schedule.classes_until(index), dataset_jsons[index])
        regions = labels.pop("regions")
        if index > 0:
            trainer = first_trainer if index == 1 else None
            previous = PreviousModel(dataset=datasets[index - 1], plans=plans_names[index - 1], trainer=trainer)
        own_cases = cases[index]
        earlier = [
            tuple(dealt or ()) if datasets[i] == datasets[index] else () for i, dealt in enumerate(cases[:index])
        ]
        steps.append(
            StepPlan(
                schedule=schedule.name,
                step=index,
                steps=tuple(s.classes for s in schedule.steps),
                dataset_labels=dataset_labels,
                **labels,
                cases=None if own_cases is None else tuple(own_cases),
                previous=previous,
                training=dict(step.training),
                hyperparameters=dict(step.hyperparameters),
                earlier_cases=() if own_cases is None else tuple(earlier),
            )
        )
    return steps


def labels_after(regions: RegionLabels | None, seen: Sequence[str], dataset_json: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a ``StepPlan`` says of the model's labels.

    Args:
        regions: of the model that the step continues; None where its classes do not overlap.
        seen: the model's foreground classes after the step, in order of learning.
        dataset_json: of the step's data set.

    Returns:
        The keyword arguments ``labels``, ``regions_class_order`` and ``label_offset``; and ``regions`` of the model after the
        step, or None.

    Raises:
        CILError: more regions than can be trained.
    """
    own, ignore = dataset_json["labels"], "ignore" in dataset_json["labels"]
    if regions is None:
        return {"labels": model_labels(seen, ignore=ignore), "regions": None}
    of_dataset = RegionLabels.of(own, dataset_json.get("regions_class_order", ()) if has_regions(own) else ())
    joined = regions.joined(of_dataset, [name for name in seen if name not in regions.numbers])
    check_number_of_regions(list(joined.numbers))
    return {
        "labels": joined.to_labels(ignore=ignore),
        "regions_class_order": tuple(joined.painted.values()),
        "label_offset": regions.offset_of(of_dataset),
        "regions": joined,
    }


def read_step_plan(plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> StepPlan:
    """Reads and checks the ``"cil"`` block of nnU-Net plans against the data set it is used on.

    Raises:
        CILError: no block, an unknown schema, an edited block, or a data set with other labels.
    """
    name = plans.get("plans_name")
    block = plans.get("cil")
    if block is None:
        raise CILError(
            f"The plans {name!r} say nothing about a step. Write a step's plans with 'nnunet_cil plan "
            "DATASET SCHEDULE' and pass their name with -p."
        )
    again = "Remove their file, and run 'nnunet_cil plan' (or 'extend') again."
    if not isinstance(block, dict):
        raise CILError(f"The 'cil' block of the plans {name!r} is {json_type(block)}, but must be an object. {again}")
    if block.get("schema_version") != SCHEMA_VERSION:
        raise CILError(
            f"The plans {name!r} were written for schema version {shortened(block.get('schema_version'))} of "
            f"nnunet_cil, this is version {SCHEMA_VERSION}. {again}"
        )
    plan: StepPlan = validated(StepPlan, block, f"The 'cil' block of the plans {name!r}", again)
    if block.get("digest") != json_sha256({key: value for key, value in block.items() if key != "digest"}):
        raise CILError(
            f"The 'cil' block of the plans {name!r} was edited by hand. Change the schedule instead and "
            "run 'nnunet_cil plan' again, under another schedule name if it was trained already."
        )
    if dict(dataset_json["labels"]) not in (plan.dataset_labels, plan.labels):
        raise CILError(
            f"The plans {name!r} were written for a data set with the labels {plan.dataset_labels}, but "
            f"dataset.json lists {dict(dataset_json['labels'])}. Restore its labels, or run 'nnunet_cil plan' (or "
            "'extend') again."
        )
    return plan
