"""One class of one case against the truth: overlap and surface distances. The conventions for empty classes are here."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class ClassScores:
    """Scores of a class in a case.

    ==================  ============  ==============  =============
    score               both have it  one lacks it    neither has it
    ==================  ============  ==============  =============
    dice, nsd           in [0, 1]     0               NaN
    hd95_mm, asd_mm     >= 0          NaN             NaN
    ==================  ============  ==============  =============

    Attributes:
        dice: 2 |A and B| / (|A| + |B|).
        hd95_mm: the larger of the two directed 95th percentiles of the surface distances.
        asd_mm: mean of all surface distances, both directions together.
        nsd: share of both surfaces within the tolerance of the other.
        num_voxels_found: of the prediction.
        num_voxels_wanted: of the truth.
    """

    dice: float
    hd95_mm: float
    asd_mm: float
    nsd: float
    num_voxels_found: int
    num_voxels_wanted: int


def case_scores(
    found: Labels,
    wanted: Labels,
    spacing_mm: Sequence[float],
    classes: Mapping[str, tuple[int, int]],
    *,
    tolerance_mm: float,
) -> dict[str, ClassScores]:
    """The scores of every class.

    Args:
        found: (*spatial) predicted labels.
        wanted: (*spatial) true labels, on the same grid.
        spacing_mm: of the grid, in the order of the arrays' axes.
        classes: name -> (label in ``found``, label in ``wanted``).
        tolerance_mm: of the normalised surface Dice.

    Raises:
        ValueError: other shapes.
    """
    if found.shape != wanted.shape:
        raise ValueError(f"The prediction has the shape {found.shape}, the truth {wanted.shape}.")
    boxes = [label_boxes(labels) for labels in (found, wanted)]
    scores = {}
    for name, numbers in classes.items():
        box = _union([known[n] for known, n in zip(boxes, numbers, strict=True) if n in known], found.shape)
        masks = found[box] == numbers[0], wanted[box] == numbers[1]
        scores[name] = class_scores(*masks, spacing_mm, tolerance_mm=tolerance_mm)
    return scores


Box = tuple[slice, ...]


def label_boxes(labels: Labels) -> dict[int, Box]:
    """Label -> the smallest box that holds it, for every label from 1 that is there; one pass over the volume."""
    from scipy.ndimage import find_objects

    return {number: box for number, box in enumerate(find_objects(labels), start=1) if box is not None}


def _union(boxes: Sequence[Box], shape: Sequence[int]) -> Box:
    """The smallest box around all, with a margin of a voxel, so that a surface at its edge stays a surface; empty for none."""
    if not boxes:
        return tuple(slice(0, 0) for _ in shape)
    return tuple(
        slice(max(0, min(b[i].start for b in boxes) - 1), min(size, max(b[i].stop for b in boxes) + 1))
        for i, size in enumerate(shape)
    )


def class_scores(found: Mask, wanted: Mask, spacing_mm: Sequence[float], *, tolerance_mm: float) -> ClassScores:
    """The scores of one class; surfaces and their distances are MONAI's (mask voxels that touch the outside).

    Args:
        found: (*spatial) bool.
        wanted: (*spatial) bool.
        spacing_mm: of the grid.
        tolerance_mm: of the normalised surface Dice.
    """
    num_found, num_wanted = int(np.count_nonzero(found)), int(np.count_nonzero(wanted))
    if not num_found or not num_wanted:
        lacking = math.nan if num_found == num_wanted else 0.0
        return ClassScores(lacking, math.nan, math.nan, lacking, num_found, num_wanted)
    dice = 2 * int(np.count_nonzero(found & wanted)) / (num_found + num_wanted)
    there, back = _surface_distances(found, wanted, spacing_mm)
    both = np.concatenate([there, back])
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return ClassScores(
        dice, float(hd95), float(both.mean()), float((both <= tolerance_mm).mean()), num_found, num_wanted
    )


def _surface_distances(a: Mask, b: Mask, spacing_mm: Sequence[float]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Millimetres from each surface voxel of ``a`` to the surface of ``b``, and back. Neither is empty."""
    from monai.metrics.utils import get_edge_surface_distance

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of an argument that MONAI itself passes
        _, distances, _ = get_edge_surface_distance(  # arrays do as well as the tensors of its signature
            a,  # type: ignore[arg-type]
            b,  # type: ignore[arg-type]
            spacing=list(spacing_mm),
            symmetric=True,
        )
    there, back = (np.asarray(d, dtype=np.float64) for d in distances)
    return there, back
