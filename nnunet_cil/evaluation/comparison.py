"""Two label maps of a case, class by class: how far they agree, and where a class has come, gone or changed places."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_cil.evaluation.naming import Names, named_alike
from nnunet_cil.evaluation.segmentation import (
    Labels,
    Mask,
    case_scores,
    label_boxes,
    surface_mm,
    union_of_boxes,
)
from nnunet_cil.labels import Label, numbers_in

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
        moved: (name with A, name with B) -> voxels, where the names differ; of all classes and the background. Regions that
            overlap in a voxel are one name, joined by `` + ``.
        swapped: pairs of classes that have changed places.
    """

    classes: Mapping[str, ClassChange]
    moved: Mapping[tuple[str, str], int]
    swapped: tuple[tuple[str, str], ...]


def compare_labels(
    a: Labels, b: Labels, spacing: Sequence[float], labels_a: Mapping[str, Label], labels_b: Mapping[str, Label]
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
    own_numbers = {name: [numbers_in(label) for label in labels] for name, labels in shared.items()}
    classes = {}
    for name, numbers in own_numbers.items():
        found = scores[name]
        num_far, num_far_voxels = 0, 0
        if found.num_voxels_prediction and found.num_voxels_reference and found.dice < 1:
            own = [known[n] for known, ns in zip(boxes, numbers, strict=True) for n in ns if n in known]
            box = union_of_boxes(own, a.shape)
            masks = np.isin(b[box], numbers[1]), np.isin(a[box], numbers[0])
            num_far, num_far_voxels = _far_components(*masks, spacing)
        classes[name] = ClassChange(
            dice=found.dice,
            hd95_mm=found.hd95_mm,
            num_voxels_a=found.num_voxels_reference,
            num_voxels_b=found.num_voxels_prediction,
            num_far=num_far,
            num_far_voxels=num_far_voxels,
        )
    moved, sizes = _moved_voxels(a, b, labels_a, labels_b)
    return Change(classes=classes, moved=moved, swapped=_swapped(sizes, moved))


Moved = Mapping[tuple[str, str], int]
"""(name with A, name with B) -> voxels, where the names differ."""


def _moved_voxels(
    a: Labels, b: Labels, labels_a: Mapping[str, Label], labels_b: Mapping[str, Label]
) -> tuple[Moved, dict[str, int]]:
    """Returns voxels that have another name with B, and name with A -> voxels; arguments as of ``compare_labels``."""
    (ours, theirs), names = named_alike((a, b), (labels_a, labels_b))
    counts = np.bincount((ours * len(names) + theirs).ravel(), minlength=len(names) ** 2)
    table = counts.reshape(len(names), len(names))
    told = [_text(own) for own in names]
    moved = {(told[i], told[j]): int(table[i, j]) for i, j in np.argwhere(table).tolist() if i != j}
    return moved, dict(zip(told, table.sum(1).tolist(), strict=True))


def _text(names: Names) -> str:
    return " + ".join(names) or BACKGROUND


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


def _swapped(sizes: Mapping[str, int], moved: Moved) -> tuple[tuple[str, str], ...]:
    """Returns the pairs of classes of which most of each is the other's with the other model.

    Args:
        sizes: name with A -> voxels.
        moved: what has another name with B.
    """

    def share(pair: tuple[str, str]) -> float:
        return moved.get(pair, 0) / sizes[pair[0]] if sizes[pair[0]] else 0.0

    return tuple(
        pair
        for pair in moved
        if BACKGROUND not in pair and pair < pair[::-1] and share(pair) > _SWAPPED and share(pair[::-1]) > _SWAPPED
    )


def status(change: ClassChange) -> str:
    """Says whether the class is with both models, has appeared or vanished with B, or is with neither (blank)."""
    if change.num_voxels_a and change.num_voxels_b:
        return "both"
    if math.isnan(change.dice):
        return ""
    return "vanished" if change.num_voxels_a else "appeared"
