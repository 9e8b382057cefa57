"""nnU-Net's export of a prediction, block of classes by block: memory at full resolution does not grow with the classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager

BLOCK = 8
"""Classes that are at full resolution at a time."""


def in_blocks(plans: PlansManager, configuration: ConfigurationManager) -> tuple[PlansManager, ConfigurationManager]:
    """Returns the two with which nnU-Net's export resamples logits and takes their arg max block by block.

    nnU-Net resamples the logits of all classes, and then takes the arg max. It asks the configuration for the first and a label
    manager of the plans for the second; so the pair does both in the first, and nothing in the second. Not for regions, and not
    where probabilities are saved.
    """
    return _BlockPlans(plans.plans), _BlockConfiguration(configuration.configuration)


class _BlockConfiguration(ConfigurationManager):
    @property
    def resampling_fn_probabilities(self) -> Callable[..., npt.NDArray[np.uint16]]:
        resample = super().resampling_fn_probabilities

        def resampled(logits: Any, *where: Any) -> npt.NDArray[np.uint16]:
            return arg_max_in_blocks(lambda block: resample(block, *where), logits)

        return resampled


class _BlockPlans(PlansManager):
    def get_label_manager(self, dataset_json: dict[str, Any], **kwargs: Any) -> LabelManager:
        manager = super().get_label_manager(dataset_json, **kwargs)
        manager.convert_logits_to_segmentation = _same
        return manager


def _same(segmentation: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
    return segmentation


def arg_max_in_blocks(resample: Callable[[Any], Any], logits: Any, block: int = BLOCK) -> npt.NDArray[np.uint16]:
    """Resamples logits, and returns the class of the largest one; the first of several.

    Args:
        resample: (classes, *spatial) -> (classes, *other spatial).
        logits: (classes, *spatial), a tensor or an array.
        block: the number of classes that are resampled at a time.

    Returns:
        (*other spatial) uint16.
    """
    largest, found = _arg_max(resample(logits[:block]))
    for first in range(block, len(logits), block):
        values, classes = _arg_max(resample(logits[first : first + block]))
        better = values > largest
        np.copyto(largest, values, where=better)
        np.copyto(found, classes + np.uint16(first), where=better)
    return found


def _arg_max(logits: Any) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint16]]:
    """Returns the largest logit of each voxel and its class."""
    array = np.asarray(logits)
    classes = array.argmax(0).astype(np.uint16)
    return np.take_along_axis(array, classes[None], 0)[0], classes
