"""Stray regions: small pieces of a class apart from its organ; found in label maps, and counted in a step's labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import cc3d
import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from nnunet_cil.losses.prototypes import sum_over_ranks

if TYPE_CHECKING:
    from nnunet_cil.training.base import nnUNetTrainerCIL

STRAY_SIZE = 0.5
"""A connected region smaller than this share of the class's largest one in the volume is a stray."""

_MOST_STRAY = 0.01
"""Largest share of stray voxels among a class's voxels in a case that counts as free of strays; labels have small errors."""

_MOST_CASES = 0.05
"""Largest share of cases with strays for a class that counts as free of strays."""


def stray_regions(segmentation: npt.NDArray[np.integer], classes: Collection[int]) -> npt.NDArray[np.bool_]:
    """Finds the stray regions of classes. Voxels that share a corner are connected.

    Args:
        segmentation: (*spatial) integers; classes are > 0.
        classes: the classes whose strays are searched.

    Returns:
        (*spatial) bool; all False without strays.
    """
    segmentation = np.maximum(segmentation, 0)
    regions, number = cc3d.connected_components(segmentation, connectivity=26, return_N=True)
    sizes = np.bincount(regions.ravel())
    class_of = np.zeros(number + 1, dtype=int)
    class_of[regions] = segmentation
    largest = np.zeros(class_of.max() + 1, dtype=int)
    np.maximum.at(largest, class_of, sizes)
    is_stray = (sizes < STRAY_SIZE * largest[class_of]) & np.isin(class_of, list(classes)) & (class_of > 0)
    strays: npt.NDArray[np.bool_] = is_stray[regions]
    return strays


def cases_with_strays(labels: Iterable[npt.NDArray[np.integer]], classes: Sequence[int]) -> npt.NDArray[np.int64]:
    """Counts the cases in which a class has strays, and the cases that have the class.

    Args:
        labels: one case each, (*spatial) integers; classes are > 0.
        classes: in the order of the rows.

    Returns:
        (len(classes), 2) int64; 0 where there are no cases.
    """
    found = np.zeros((len(classes), 2), dtype=np.int64)
    for of_case in labels:
        of_strays = np.bincount(of_case[stray_regions(of_case, classes)], minlength=max(classes) + 1)[classes]
        voxels = np.bincount(of_case[of_case > 0], minlength=max(classes) + 1)[classes]
        found += np.stack([of_strays > _MOST_STRAY * voxels, voxels > 0], axis=1)
    return found


def is_stray_free(with_strays: int, cases: int) -> bool:
    """Returns True if so few cases have strays that the class has none; False where no case has the class."""
    return cases > 0 and with_strays <= _MOST_CASES * cases


def new_stray_free_classes(trainer: nnUNetTrainerCIL) -> tuple[str, ...]:
    """Returns the new classes of a training's step that come without stray regions in its labels."""
    step, device = trainer.step_plan, trainer.device
    places = {name: step.positions[name] for name in step.new_classes}
    if not step.has_regions:
        return stray_free_classes(trainer.training_pass().labels(), places, device) if places else ()
    return tuple(name for name, bit in places.items() if stray_free_classes(_masks(trainer, bit), {name: 1}, device))


def _masks(trainer: nnUNetTrainerCIL, bit: int) -> Iterator[npt.NDArray[np.int16]]:
    """Yields the mask of a region in each of this rank's cases, (*spatial), 0 or 1."""
    for labels in trainer.training_pass().labels():
        yield np.maximum(labels, 0) >> bit & 1


def stray_free_classes(
    labels: Iterable[npt.NDArray[np.integer]], channels: Mapping[str, int], device: torch.device
) -> tuple[str, ...]:
    """Returns the classes that come without stray regions in the labels of all ranks' cases.

    Args:
        labels: one of this rank's cases each, (*spatial) integers.
        channels: class -> its number in ``labels``.
        device: of the training, on which the ranks' counts are summed.
    """
    counts = torch.from_numpy(cases_with_strays(labels, list(channels.values())))
    if distributed.is_available() and distributed.is_initialized():
        counts = sum_over_ranks(counts.to(device))
    return tuple(name for name, found in zip(channels, counts.tolist(), strict=True) if is_stray_free(*found))
