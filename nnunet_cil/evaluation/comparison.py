"""Two label maps of a case, class by class: how far they agree, and where a class has come, gone or changed places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_cil.evaluation.segmentation import (
    Labels,
    Mask,
    case_scores,
    label_boxes,
    surface_mm,
    union_of_boxes,
)

BACKGROUND = "background"

FAR_MM = 10.0
"""From this distance on, a new component of a class is far from the old ones."""

_SWAPPED = 0.5
"""Two classes have changed places where more than this share of each is the other's."""


@dataclass(frozen=True, kw_only=True)
class ClassChange:
    """One class of a case with model A and with model B.

    Attributes:
        dice: of the two; 0 where one lacks the class, NaN where both do.
        hd95_mm: of the two; NaN where one lacks the class.
        num_voxels_a: with A.
        num_voxels_b: with B.
        num_far: components of B's that are ``FAR_MM`` or more from all of A's; 0 where A has none.
        num_far_voxels: the voxels of these.
    """

    dice: float
    hd95_mm: float
    num_voxels_a: int
    num_voxels_b: int
    num_far: int
    num_far_voxels: int


@dataclass(frozen=True, kw_only=True)
class Change:
    """Holds what differs between two label maps of a case.

    Attributes:
        classes: each class that both models know.
        moved: (name with A, name with B) -> voxels, where the names differ; of all classes and the background.
        swapped: pairs of classes that have changed places.
    """

    classes: Mapping[str, ClassChange]
    moved: Mapping[tuple[str, str], int]
    swapped: tuple[tuple[str, str], ...]


def compare_labels(
    a: Labels, b: Labels, spacing: Sequence[float], labels_a: Mapping[str, int], labels_b: Mapping[str, int]
) -> Change:
    """Compares two label maps.

    Args:
        a: (*spatial) of model A.
        b: (*spatial) of model B, on the same grid.
        spacing: of the grid, in the order of the arrays' axes.
        labels_a: what A's numbers mean, without the background.
        labels_b: what B's numbers mean, without the background.
    """
    shared = {name: (number, labels_b[name]) for name, number in labels_a.items() if name in labels_b}
    pairs = {name: (ours, theirs) for name, (theirs, ours) in shared.items()}  # of prediction and reference: B and A
    scores = case_scores(b, a, spacing, pairs, tolerance_mm=0.0)
    boxes = label_boxes(a), label_boxes(b)
    classes = {}
    for name, numbers in shared.items():
        found = scores[name]
        num_far, num_far_voxels = 0, 0
        if found.num_voxels_found and found.num_voxels_wanted and found.dice < 1:
            box = union_of_boxes([known[n] for known, n in zip(boxes, numbers, strict=True)], a.shape)
            num_far, num_far_voxels = _far_components(b[box] == numbers[1], a[box] == numbers[0], spacing)
        classes[name] = ClassChange(
            dice=found.dice,
            hd95_mm=found.hd95_mm,
            num_voxels_a=found.num_voxels_wanted,
            num_voxels_b=found.num_voxels_found,
            num_far=num_far,
            num_far_voxels=num_far_voxels,
        )
    moved = moved_voxels(a, b, labels_a, labels_b)
    return Change(classes=classes, moved=moved, swapped=_swapped(classes, moved))


def moved_voxels(
    a: Labels, b: Labels, labels_a: Mapping[str, int], labels_b: Mapping[str, int]
) -> dict[tuple[str, str], int]:
    """Returns (name with A, name with B) -> voxels, wherever the two names differ; arguments as of ``compare_labels``."""
    names = list(dict.fromkeys([BACKGROUND, *labels_a, *labels_b]))
    ours, theirs = (_places(array, labels, names) for array, labels in ((a, labels_a), (b, labels_b)))
    counts = np.bincount((ours * len(names) + theirs).ravel(), minlength=len(names) ** 2)
    table = counts.reshape(len(names), len(names))
    return {(names[i], names[j]): int(table[i, j]) for i, j in np.argwhere(table).tolist() if i != j}


def _places(array: Labels, labels: Mapping[str, int], names: Sequence[str]) -> Any:
    """Returns labels by the places of their names; what has no name is background."""
    size = max([int(array.max(initial=0)), *labels.values()]) + 1
    table = np.zeros(size, dtype=np.int64)
    for name, number in labels.items():
        table[number] = names.index(name)
    return table[array]


def _far_components(new: Mask, old: Mask, spacing: Sequence[float]) -> tuple[int, int]:
    """Returns how many components of ``new`` are far from ``old``, which is not empty, and how many voxels these have."""
    from scipy.ndimage import generate_binary_structure, label
    from scipy.spatial import KDTree

    components, number = label(new, generate_binary_structure(new.ndim, new.ndim))
    touching = np.zeros(number + 1, dtype=bool)
    touching[np.unique(components[old])] = True
    apart = [c for c in range(1, number + 1) if not touching[c]]
    if not apart:
        return 0, 0
    tree = KDTree(surface_mm(old, spacing))
    sizes, far = np.bincount(components.ravel()), []
    for component, box in label_boxes(components).items():
        if touching[component]:
            continue
        inside = components[box] == component
        begin = np.array([side.start for side in box]) * np.asarray(spacing)
        if tree.query(surface_mm(inside, spacing) + begin)[0].min() >= FAR_MM:
            far.append(component)
    return len(far), int(sizes[far].sum())


def _swapped(classes: Mapping[str, ClassChange], moved: Mapping[tuple[str, str], int]) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of classes of which most of each is the other's with the other model."""

    def share(pair: tuple[str, str]) -> float:
        size = classes[pair[0]].num_voxels_a if pair[0] in classes else 0
        return moved.get(pair, 0) / size if size else 0.0

    return tuple(
        pair for pair in moved if pair < pair[::-1] and share(pair) > _SWAPPED and share((pair[1], pair[0])) > _SWAPPED
    )


def status(change: ClassChange) -> str:
    """Says whether the class is with both models, has appeared or vanished with B, or is with neither (blank)."""
    if change.num_voxels_a and change.num_voxels_b:
        return "both"
    if math.isnan(change.dice):
        return ""
    return "vanished" if change.num_voxels_a else "appeared"
