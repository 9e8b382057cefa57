"""Old classes that a case does not show: the teacher finds little of them, or is unsure of what it finds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import Tensor

from nnunet_cil.losses.prototypes import labels_within
from nnunet_cil.training.locations import in_volumes
from nnunet_cil.training.passes import of_all_ranks
from nnunet_cil.training.state import StepState

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

LEAST_DOUBT = 0.03
"""1 - p' is at least this: a network that is nearly certain of the images that it has learnt is less so of others."""


def absent_classes(trainer: nnUNetTrainerCIL, state: StepState) -> dict[str, tuple[int, ...]]:
    """Finds the old classes that the cases do not show, by the teacher's volumes, and tells how many cases that are.

    A class is absent from a case if the teacher finds too little of it there, in voxels without a label, or is too unsure of it.
    What the teacher finds then is most often wrong: the image ends before the organ. Too little is less than ``absent_size`` of
    the class's mean size in its own step, or no voxel at all; too unsure is a mean probability p with 1 - p > ``absent_doubt``
    (1 - p'), where p' was that in its own step's cases, and 1 - p' at least ``LEAST_DOUBT``. What is not known of a class tells
    nothing more, and a class that the case's labels show is not absent.

    Args:
        trainer: of the training, with the teacher's volumes; without them no class is absent.
        state: of the previous step's checkpoint.

    Returns:
        Case -> channels of the teacher, for the cases that lack a class.
    """
    if trainer.volumes is None or not trainer.absent_size:
        return {}
    step, first = trainer.step_plan, int(not trainer.step_plan.has_regions)
    voxel = voxel_volume(trainer.plans_manager, trainer.configuration_manager)
    known = mean_sizes(state, trainer.max_pass_cases, voxel=voxel, of_regions=step.has_regions)
    names = dict(enumerate(step.teacher_classes, start=first))
    least = {c: max(1.0, trainer.absent_size * known.get(name, 0)) for c, name in names.items()}
    doubt = {
        c: trainer.absent_doubt * max(1 - state.confidences.get(name, 0), LEAST_DOUBT) for c, name in names.items()
    }
    found = sizes_and_doubts(trainer)
    absent = {
        case: tuple(
            c
            for c in names.keys() - set(trainer.labelled_channels_in(case))
            if sizes[c] < least[c] or doubts[c] > doubt[c]
        )
        for case, (sizes, doubts) in found.items()
    }
    for c, name in names.items():
        if number := sum(c in channels for channels in absent.values()):
            little = f"less than {least[c]:.0f} voxels" if least[c] > 1 else "nothing"
            unsure = f", or is sure of it by less than {1 - doubt[c]:.2f}" if doubt[c] < 1 else ""
            trainer.say(
                f"{name} counts as absent from {number} of {len(found)} cases, and has no pseudo-labels there: the teacher finds "
                f"{little} of it{unsure}."
            )
    return {case: tuple(sorted(channels)) for case, channels in absent.items() if channels}


def mean_sizes(state: StepState, max_cases: int, *, voxel: float, of_regions: bool = False) -> dict[str, float]:
    """Returns the mean size of classes in their own step's cases, in voxels of the preprocessed images.

    A class's prototype is the mean over the voxels of its label, and counts them. Where that is not known, as of a model that was
    not trained in steps or was exported, the size is that of nnU-Net's final validation (``StepRecord.volumes``).

    Args:
        state: of a checkpoint.
        max_cases: the largest number of cases that prototypes are made from.
        voxel: volume of a voxel, in mm^3.
        of_regions: the classes overlap.
    """
    own = {name: record for record in state.lineage for name in record.classes}
    sizes = {name: record.volumes.get(name, 0) / voxel for name, record in own.items()}
    if state.prototypes is not None:
        counts = state.prototypes.counts[0::2] if of_regions else state.prototypes.counts[1:]
        for name, count in zip(state.classes, counts.tolist(), strict=True):
            if name in own and own[name].schedule and (number := own[name].num_cases):
                sizes[name] = count / min(number, max_cases)
    return {name: size for name, size in sizes.items() if size}


def voxel_volume(plans: PlansManager, configuration: ConfigurationManager) -> float:
    """Returns the volume of a voxel of preprocessed images, in mm^3; a 2D configuration leaves the slices' distance as it is."""
    spacing = configuration.spacing
    slices = plans.original_median_spacing_after_transp[: 3 - len(spacing)]
    return float(math.prod([*slices, *spacing]))


def sizes_and_doubts(trainer: nnUNetTrainerCIL) -> dict[str, tuple[list[int], list[float]]]:
    """Returns, for each case of a pass and of all ranks, what the teacher's volume has of each of its channels.

    That is the number of voxels without a label; and 1 - p, where p is the teacher's mean probability over all voxels of the
    channel, 0 where that is not known.
    """
    assert trainer.volumes is not None
    num_old, of_regions = trainer.step_plan.num_old_channels, trainer.step_plan.has_regions
    found: dict[str, tuple[list[int], list[float]]] = {}
    for tile, classes in in_volumes(trainer):
        if of_regions:
            sizes: Tensor = (classes & tile.valid[:, None]).flatten(2).sum((0, 2))
        else:
            own = labels_within(classes, tile.valid & (tile.labels == 0), num_old)
            sizes = torch.bincount(own.flatten(), minlength=num_old + 1)
        means = trainer.volumes.confidences(tile.case) or [None] * num_old
        found[tile.case] = sizes.tolist(), [0.0 if p is None else 1 - p for p in means]
    return of_all_ranks(found)
