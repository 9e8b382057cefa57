"""Old classes that a case does not show: the teacher finds little of them, or is unsure of what it finds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

from nnunet_cil.lineage import StepRecord
from nnunet_cil.training.passes import of_all_ranks
from nnunet_cil.training.state import StepState

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

LEAST_DOUBT = 0.03
"""1 - p' is at least this: a network that is nearly certain of the images that it has learnt is less so of others."""


def absent_classes(trainer: nnUNetTrainerCIL, state: StepState) -> dict[str, tuple[int, ...]]:
    """Finds the old classes that the cases do not show, by the teacher's volumes, and tells how many cases that are.

    A class is absent from a case if the teacher finds too little of it there, or is too unsure of it. What the teacher finds then
    is most often wrong: the image ends before the organ. Too little is less than ``absent_size`` of the class's mean volume in
    its own step, or no voxel at all; too unsure is a mean probability p with 1 - p > ``absent_doubt`` (1 - p'), where p' is
    ``StepState.confidences``, and 1 - p' at least ``LEAST_DOUBT``. What is not known of a class tells nothing more, and a class
    that the case's labels show is not absent.

    Args:
        trainer: of the training, with the teacher's volumes; without them no class is absent.
        state: of the previous step's checkpoint.

    Returns:
        Case -> channels of the teacher, for the cases that lack a class; of all ranks.
    """
    if trainer.volumes is None or not trainer.absent_size:
        return {}
    step, known = trainer.step_plan, known_volumes(state.lineage)
    names = dict(enumerate(step.teacher_classes, start=int(not step.has_regions)))
    least = {c: trainer.absent_size * known.get(name, 0) for c, name in names.items()}
    doubt = {
        c: trainer.absent_doubt * max(1 - state.confidences.get(name, 0), LEAST_DOUBT) for c, name in names.items()
    }
    found = sizes_and_doubts(trainer)
    absent = {
        case: tuple(
            c
            for c in names.keys() - set(trainer.labelled_channels_in(case))
            if not sizes[c] or sizes[c] < least[c] or doubts[c] > doubt[c]
        )
        for case, (sizes, doubts) in found.items()
    }
    for c, name in names.items():
        if number := sum(c in channels for channels in absent.values()):
            little = f"less than {least[c] / 1000:.3g} ml" if least[c] else "nothing"
            unsure = f", or is sure of it by less than {1 - doubt[c]:.2f}" if doubt[c] < 1 else ""
            trainer.say(
                f"{name} counts as absent from {number} of {len(found)} cases, and has no pseudo-labels there: the teacher finds "
                f"{little} of it{unsure}."
            )
    return {case: tuple(sorted(channels)) for case, channels in absent.items() if channels}


def known_volumes(lineage: Sequence[StepRecord]) -> dict[str, float]:
    """Returns the mean volume of each class, in mm^3, as the record of the step that added it tells."""
    return {name: v for record in lineage for name, v in record.volumes.items() if name in record.classes}


def new_class_volumes(trainer: nnUNetTrainerCIL) -> dict[str, float]:
    """Returns the mean volume of each new class's labels, in mm^3, over the cases of a pass that show it."""
    step, cases = trainer.step_plan, trainer.training_pass()
    dataset = cases.dataset()
    own = {}
    for case in dataset.identifiers:
        _, segmentation, _, properties = dataset.load_case(case)
        labels = cases.label_table[np.asarray(segmentation[0], np.int16) + 1]
        numbers = _numbers(labels, step.num_channels, of_regions=step.has_regions)
        voxel = voxel_volume(properties, trainer.plans_manager, trainer.configuration_manager)
        own[case] = [voxel * numbers[step.positions[name]] for name in step.new_classes]
    of_classes = zip(*of_all_ranks(own).values(), strict=True)
    shown = {name: [v for v in found if v] for name, found in zip(step.new_classes, of_classes, strict=True)}
    return {name: math.fsum(volumes) / len(volumes) for name, volumes in shown.items() if volumes}


def voxel_volume(properties: Mapping[str, Any], plans: PlansManager, configuration: ConfigurationManager) -> float:
    """Returns the volume of a voxel of a preprocessed case, in mm^3; a 2D configuration leaves the slices' distance as it is.

    Args:
        properties: nnU-Net's, of the case.
        plans: of the model.
        configuration: of the training.
    """
    spacing = configuration.spacing
    before = [properties["spacing"][axis] for axis in plans.transpose_forward]
    return float(math.prod([*before[: 3 - len(spacing)], *spacing]))


def sizes_and_doubts(trainer: nnUNetTrainerCIL) -> dict[str, tuple[list[float], list[float]]]:
    """Returns, for each case of a pass and of all ranks, what the teacher's volume has of each of its channels.

    That is the volume in mm^3; and 1 - p, where p is the teacher's mean probability over all voxels of the channel, 0 where that
    is not known. New labels that cover what the teacher finds do not make it less: an organ is there, though its parts are
    labelled now.
    """
    assert trainer.volumes is not None
    step, dataset = trainer.step_plan, trainer.training_pass().dataset()
    found = {}
    for case in dataset.identifiers:
        _, _, volume, properties = trainer.volumes.load_case(dataset, case)
        numbers = _numbers(np.asarray(volume[:]), step.num_old_channels, of_regions=step.has_regions)
        voxel = voxel_volume(properties, trainer.plans_manager, trainer.configuration_manager)
        means = trainer.volumes.confidences(case) or [None] * step.num_old_channels
        found[case] = [voxel * n for n in numbers], [0.0 if p is None else 1 - p for p in means]
    return of_all_ranks(found)


def _numbers(labels: npt.NDArray[np.integer[Any]], num_channels: int, *, of_regions: bool) -> list[int]:
    """Returns the number of each channel's voxels in a label map, (*spatial); one of regions has a bit for each."""
    labels = np.maximum(labels, 0)
    if of_regions:
        return [int((labels >> bit & 1).sum()) for bit in range(num_channels)]
    numbers: list[int] = np.bincount(labels.ravel(), minlength=num_channels)[:num_channels].tolist()
    return numbers
