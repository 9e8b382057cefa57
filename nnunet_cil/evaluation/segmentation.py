"""One class of one case against the reference: overlap and surface distances. The conventions for empty classes are here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nnunet_cil.labels import Label, numbers_in

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.integer[Any]]
Unit = Literal["mm", "voxels"]
"""The unit of distances, and of the tolerance of the surface Dice: voxels where files do not say how large these are."""


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Scores of a class in a case.

    ==================  ============  ==============  =============
    score               both have it  one lacks it    neither has it
    ==================  ============  ==============  =============
    dice, nsd           in [0, 1]     0               NaN
    hd95_mm, asd_mm     >= 0          NaN             NaN
    ==================  ============  ==============  =============

    Distances are in the unit of the spacing: voxels, whatever their names say, where files do not say it.

    Attributes:
        dice: 2 |A and B| / (|A| + |B|).
        hd95_mm: the larger of the two directed 95th percentiles of the surface distances.
        asd_mm: mean of all surface distances, both directions together.
        nsd: share of both surfaces within the tolerance of the other.
        num_voxels_prediction: of the prediction.
        num_voxels_reference: of the reference.
    """

    dice: float
    hd95_mm: float
    asd_mm: float
    nsd: float
    num_voxels_prediction: int
    num_voxels_reference: int


def case_scores(
    prediction: Labels,
    reference: Labels,
    spacing_mm: Sequence[float],
    classes: Mapping[str, tuple[Label, Label]],
    *,
    tolerance_mm: float,
) -> dict[str, ClassScores]:
    """Returns the scores of every class.

    Args:
        prediction: (*spatial) predicted labels.
        reference: (*spatial) reference labels, on the same grid.
        spacing_mm: of the grid, in the order of the arrays' axes.
        classes: name -> (label or region in ``prediction``, label or region in ``reference``).
        tolerance_mm: of the normalised surface Dice.

    Raises:
        ValueError: other shapes.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"The prediction has the shape {prediction.shape}, the reference {reference.shape}.")
    boxes = [label_boxes(labels) for labels in (prediction, reference)]
    scores = {}
    for name, labels in classes.items():
        numbers = [numbers_in(label) for label in labels]
        own = [known[n] for known, ns in zip(boxes, numbers, strict=True) for n in ns if n in known]
        box = union_of_boxes(own, prediction.shape)
        masks = np.isin(prediction[box], numbers[0]), np.isin(reference[box], numbers[1])
        scores[name] = class_scores(*masks, spacing_mm, tolerance_mm=tolerance_mm)
    return scores


Box = tuple[slice, ...]


def cropped(*volumes: Labels) -> tuple[Labels, ...]:
    """Returns views of volumes of one shape in the smallest box outside of which all of them are 0; empty if all are."""
    for axis in range(volumes[0].ndim):
        others = tuple(a for a in range(volumes[0].ndim) if a != axis)
        filled = np.flatnonzero(np.any([v.any(axis=others) for v in volumes], axis=0))
        inside = slice(filled[0], filled[-1] + 1) if filled.size else slice(0)
        volumes = tuple(v[(slice(None),) * axis + (inside,)] for v in volumes)
    return volumes


def label_boxes(labels: Labels) -> dict[int, Box]:
    """Returns label -> the smallest box that holds it, for every label from 1 that is there; one pass over the volume."""
    from scipy.ndimage import find_objects

    boxes = find_objects(labels) if labels.size else []  # SciPy fails on nothing
    return {number: box for number, box in enumerate(boxes, start=1) if box is not None}


def union_of_boxes(boxes: Sequence[Box], shape: Sequence[int]) -> Box:
    """Returns the smallest box around all; empty for none."""
    if not boxes:
        return tuple(slice(0, 0) for _ in shape)
    return tuple(slice(min(s.start for s in sides), max(s.stop for s in sides)) for sides in zip(*boxes, strict=True))


def class_scores(prediction: Mask, reference: Mask, spacing_mm: Sequence[float], *, tolerance_mm: float) -> ClassScores:
    """Returns the scores of one class; surfaces and their distances are as MONAI's (mask voxels that touch the outside).

    Args:
        prediction: (*spatial) bool.
        reference: (*spatial) bool.
        spacing_mm: of the grid.
        tolerance_mm: of the normalised surface Dice.
    """
    num_prediction, num_reference = int(np.count_nonzero(prediction)), int(np.count_nonzero(reference))
    if not num_prediction or not num_reference:
        lacking = math.nan if num_prediction == num_reference else 0.0
        return ClassScores(
            dice=lacking,
            hd95_mm=math.nan,
            asd_mm=math.nan,
            nsd=lacking,
            num_voxels_prediction=num_prediction,
            num_voxels_reference=num_reference,
        )
    there, back = _surface_distances(prediction, reference, spacing_mm)
    both = np.concatenate([there, back])
    return ClassScores(
        dice=2 * int(np.count_nonzero(prediction & reference)) / (num_prediction + num_reference),
        hd95_mm=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        asd_mm=float(both.mean()),
        nsd=float((both <= np.float32(tolerance_mm)).mean()),  # rounded as the distances are
        num_voxels_prediction=num_prediction,
        num_voxels_reference=num_reference,
    )


def _surface_distances(a: Mask, b: Mask, spacing_mm: Sequence[float]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Returns the millimetres from each surface voxel of ``a`` to the surface of ``b``, and back. Neither is empty.

    They are rounded to single precision, as MONAI's are: 12 x 0.4 mm less 7 x 0.4 mm is then within 2 mm.
    """
    from scipy.spatial import KDTree

    points = surface_mm(a, spacing_mm), surface_mm(b, spacing_mm)
    trees = [KDTree(p, leafsize=32, balanced_tree=False) for p in points]  # built faster, and asked only once
    there, back = (tree.query(p)[0].astype(np.float32) for tree, p in zip(trees[::-1], points, strict=True))
    return there.astype(np.float64), back.astype(np.float64)


def surface_mm(mask: Mask, spacing_mm: Sequence[float]) -> npt.NDArray[np.float64]:
    """Returns (points, axes): the voxels of which a neighbour through a face is outside, as is all beyond the mask's edge.

    Looks only at the neighbours of the mask's own voxels, which are few in the box of an organ and of stray voxels far away.
    """
    padded = np.ascontiguousarray(np.pad(mask, 1))
    flat, inside = padded.ravel(), np.flatnonzero(padded)
    steps = [n * step for step in padded.strides for n in (-1, 1)]  # a voxel is one byte
    surface = inside[~np.logical_and.reduce([flat[inside + step] for step in steps])]
    return np.column_stack(np.unravel_index(surface, padded.shape)) * np.asarray(spacing_mm, dtype=np.float64)
