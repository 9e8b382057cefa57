"""The channels by which a cascade's network sees the stage before: one for each label that this may predict."""

from __future__ import annotations

from nnunet_cil.labels import NO_CLASSES, all_numbers, numbers_in
from nnunet_cil.step_plans import StepPlan


def shown_labels(step: StepPlan) -> list[int]:
    """Returns the labels that the stage before may predict, in nnU-Net's order of the channels."""
    return sorted(all_numbers({name: label for name, label in step.labels.items() if name not in NO_CLASSES}))


def old_inputs(step: StepPlan) -> list[int]:
    """Returns the channels that the network of the previous step had, too, in its order.

    What another data set calls an old region by lies above ``label_offset``: no previous model knew these numbers.
    """
    old = {number for name in step.old_classes for number in numbers_in(step.labels[name])}
    if step.label_offset:
        old = {number for number in old if number <= step.label_offset}
    return [channel for channel, label in enumerate(shown_labels(step)) if label in old]


def old_input_groups(step: StepPlan) -> list[list[int]]:
    """Returns, of each channel that the previous step's network had, the channels that show the same now.

    The stage before has new regions: where it says core now, its whole was before. So a label goes to the channel of what the
    previous model would have said; one that no model paints stays in its place.
    """
    labels, old = shown_labels(step), old_inputs(step)
    if not step.has_regions:
        return [[channel] for channel in old]
    before = [step.painted_before(label) if label in step.regions_class_order else label for label in labels]
    return [[i for i, label in enumerate(before) if label == labels[channel]] for channel in old]


def keeps_old_inputs_first(step: StepPlan) -> bool:
    """Tells whether every channel of the previous step's network is still in its place, and alone shows what it showed."""
    return old_input_groups(step) == [[channel] for channel in range(len(old_inputs(step)))]
