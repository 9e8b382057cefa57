"""New classes whose labels lie where the previous model sees an old one, as a left kidney in a kidney does."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from nnunet_cil.losses.prototypes import most_probable, sum_over_ranks
from nnunet_cil.networks.teacher import Teacher
from nnunet_cil.step_plans import StepPlan
from nnunet_cil.training.data import evenly_spaced
from nnunet_cil.training.passes import TrainingPass

MOST_CASES = 10
"""The number of cases that are looked at: an organ inside another is seen in each of them."""

SHARE_OF_OLD = 0.1
"""A new class that covers less of what the previous model calls an old one is told of only if it lies in it mostly."""

SHARE_OF_NEW = 0.5
"""The share of a new class's voxels from which it lies in an old one mostly, as a tumour in a liver."""


def overlap_remarks(teacher: Teacher, cases: TrainingPass, step: StepPlan) -> list[str]:
    """Says which new classes cover what the previous model calls an old class: their labels take it away from that class.

    Args:
        teacher: the previous step's network.
        cases: of the step; at most ``MOST_CASES`` of them are looked at, by all ranks together.
        step: of the training.

    Returns:
        A sentence for each pair of an old and a new class; none where the step has no new class, or where classes may overlap.
    """
    if not step.new_classes or step.has_regions:
        return []
    cases = replace(cases, cases=evenly_spaced(cases.cases, MOST_CASES))
    covered, called = (sum_over_ranks(t) for t in _counts(teacher, cases, step))
    labelled = covered.sum(0)
    remarks = []
    for i, old in enumerate(step.old_classes, start=1):
        for j, new in enumerate(step.new_classes):
            of_old, of_new = (float(covered[i, j] / n.clamp(min=1)) for n in (called[i, j], labelled[j]))
            if of_old >= SHARE_OF_OLD or of_new >= SHARE_OF_NEW:
                remarks.append(
                    f"The labels of {new!r} cover {of_old:.0%} of what the previous model calls {old!r}, where {of_new:.0%} of "
                    f"{new!r} lies: the new model will say {new!r} there. If both names mean one organ, give it one name."
                )
    return remarks


def _counts(teacher: Teacher, cases: TrainingPass, step: StepPlan) -> tuple[Tensor, Tensor]:
    """Counts voxels by the teacher's class and the new class, in the cases of this rank that show the new class.

    Returns:
        Those that are labelled with the new class, and all: (K, N) int64 each, background first.
    """
    num_old, num_new = step.num_old_channels, len(step.new_classes)
    covered = torch.zeros(num_old, num_new, dtype=torch.int64, device=cases.device)
    called = torch.zeros_like(covered)
    for tile, logits, _ in cases.outputs(teacher):
        shown = step.target_classes_in(tile.case)
        is_shown = torch.tensor([name in shown for name in step.new_classes], device=cases.device)
        predicted = most_probable(logits)
        new = (tile.labels - (num_old - 1)).clamp(0, num_new).to(cases.device)
        pairs = (predicted * (1 + num_new) + new)[tile.valid.to(cases.device)]
        counts = torch.bincount(pairs, minlength=num_old * (1 + num_new)).view(num_old, 1 + num_new)
        covered += counts[:, 1:] * is_shown
        called += counts.sum(1, keepdim=True) * is_shown
    return covered, called
